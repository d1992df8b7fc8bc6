/** How fast a worker is on its models: as its last jobs went, or before any of them as a probe says (job/pace.ts). */
import type { Speed } from '../control/rates.ts';
import type { Clock } from '../core/clock.ts';
import { codeOf } from '../core/errors.ts';
import { type Pace, type PaceOptions, measurePace, paceAt } from '../job/pace.ts';
import type { Session } from '../job/session.ts';

export class Speeds {
  readonly #clock: Clock;
  readonly #paces = new Map<string, Pace>();
  /** Of the last slice of each model. */
  readonly #last = new Map<string, { readonly tokensPerSecond: number; readonly width: number }>();
  /** Slices that run now. */
  #running = 0;
  #alone = new AbortController();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** A probe that runs ends within a step: what it would say is not the machine's, and the slice need not share with it. */
  begin(): Disposable {
    this.#running++;
    this.#alone.abort();
    this.#alone = new AbortController();
    return { [Symbol.dispose]: () => void this.#running-- };
  }

  /** A slice with so many chains went so fast, all of them together. */
  ran(model: string, tokensPerSecond: number, width: number): void {
    this.#last.set(model, { tokensPerSecond, width });
  }

  /** How it goes with the number of chains is the probe's to say, and how fast it is the last slice's. null: there was neither. */
  speed(model: string, width: number): Speed | null {
    const pace = this.#paces.get(model);
    const last = this.#last.get(model);
    if (last === undefined) return pace === undefined ? null : { tokensPerSecond: paceAt(pace, width), basis: 'probe' };
    return { tokensPerSecond: pace === undefined ? last.tokensPerSecond : last.tokensPerSecond * (paceAt(pace, width) / paceAt(pace, last.width)), basis: 'jobs' };
  }

  /** null: not while slices run. @throws EngineError as measurePace. */
  async probe(session: Session, name: string, { signal, threads }: Pick<PaceOptions, 'signal' | 'threads'>): Promise<{ readonly model: string; readonly pace: Pace } | null> {
    if (this.#running > 0) return null;
    const { signal: disturbed } = this.#alone;
    try {
      const probed = await measurePace(session, name, { clock: this.#clock, threads, signal, disturbed });
      if (disturbed.aborted) return null;
      this.#paces.set(probed.model, probed.pace);
      return probed;
    } catch (error) {
      if (!signal.aborted && codeOf(error) === 'ERR_CANCELLED') return null;
      throw error;
    }
  }
}
