/** Work that is done again and again until it is told to stop, whatever becomes of one time. */
import type { Clock } from './clock.ts';
import { untilAborted } from './waiting.ts';

export interface RoundsOptions {
  readonly everyMs: number;
  readonly work: (signal: AbortSignal) => Promise<void>;
  readonly onTrouble: (error: unknown) => void;
  readonly clock: Clock;
  /** From 0 to below 1: instances that started together do not stay together. */
  readonly random?: (() => number) | undefined;
}

/** @example const walk = new Rounds({ everyMs: 60_000, work: (signal) => batches.walk({ signal }), onTrouble, clock }); */
export class Rounds {
  readonly #stop = new AbortController();
  readonly #done: Promise<void>;

  /** The first begins at once. */
  constructor(options: RoundsOptions) {
    this.#done = this.#go(options);
  }

  /** When what runs has seen it. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#done;
  }

  async #go({ everyMs, work, onTrouble, clock, random = Math.random }: RoundsOptions): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        await work(signal);
      } catch (error) {
        if (!signal.aborted) onTrouble(error);
      }
      await untilAborted(clock, everyMs * (0.75 + random() / 2), signal);
    }
  }
}
