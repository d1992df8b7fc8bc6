/** Who runs beside whom: any number together, or one alone. */
import { type Clock } from '../core/clock.ts';
import { Bell, throwIfCancelled, untilAborted } from '../core/waiting.ts';

/** Nothing depends on it: every change rings. */
const LOOK_MS = 60_000;

/** Dispose it when it does not run any more. */
export interface Stay extends Disposable {
  /** It need not be alone any more: others may run beside it. */
  letIn(): void;
}

type Place = 'alone' | 'together';

export class Company {
  readonly #clock: Clock;
  readonly #changed = new Bell();
  readonly #in: Record<Place, number> = { alone: 0, together: 0 };
  #wanted = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Nobody is alone, or waits to be. */
  get isOpen(): boolean {
    return this.#in.alone === 0 && this.#wanted === 0;
  }

  /** Waits until it is open. @throws EngineError ERR_CANCELLED. */
  async opened(signal: AbortSignal | undefined): Promise<void> {
    await this.#until(() => this.isOpen, signal);
  }

  /** Waits until it may run. @throws EngineError ERR_CANCELLED. */
  async enter(alone: boolean, signal: AbortSignal | undefined): Promise<Stay> {
    let place: Place | null = null;
    const move = (to: Place | null) => {
      if (place !== null) this.#in[place]--;
      if (to !== null) this.#in[to]++;
      place = to;
      this.#changed.ring();
    };
    if (alone) this.#wanted++;
    try {
      await this.#until(() => {
        const mayEnter = alone ? this.#in.alone + this.#in.together === 0 : this.isOpen;
        // At once: by the next turn somebody else may be in.
        if (mayEnter) move(alone ? 'alone' : 'together');
        return mayEnter;
      }, signal);
    } finally {
      if (alone) this.#wanted--;
      // One that gave up lets the others in.
      this.#changed.ring();
    }
    return {
      letIn: () => {
        if (place === 'alone') move('together');
      },
      [Symbol.dispose]: () => {
        if (place !== null) move(null);
      },
    };
  }

  async #until(holds: () => boolean, signal: AbortSignal | undefined): Promise<void> {
    for (;;) {
      throwIfCancelled(signal);
      using changed = this.#changed.listen();
      if (holds()) return;
      await untilAborted(this.#clock, LOOK_MS, changed.signal, signal);
    }
  }
}
