/** Who runs beside whom: any number together, or one alone. */
import { type Clock } from '../core/clock.ts';
import { Bell, throwIfCancelled, untilAborted } from '../core/waiting.ts';

/** Nothing depends on it: every change rings. */
const LOOK_MS = 60_000;

export class Company {
  readonly #clock: Clock;
  readonly #changed = new Bell();
  #together = 0;
  #alone = 0;
  #wanted = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Waits until it may run; dispose what it gives when it does not run any more. @throws EngineError ERR_CANCELLED. */
  async enter(alone: boolean, signal: AbortSignal | undefined): Promise<Disposable> {
    if (alone) this.#wanted++;
    try {
      for (;;) {
        throwIfCancelled(signal);
        using changed = this.#changed.listen();
        if (this.#alone === 0 && (alone ? this.#together === 0 : this.#wanted === 0)) break;
        await untilAborted(this.#clock, LOOK_MS, changed.signal, signal);
      }
    } finally {
      if (alone) this.#wanted--;
      // One that gave up lets the others in.
      this.#changed.ring();
    }
    if (alone) this.#alone++;
    else this.#together++;
    let isIn = true;
    return {
      [Symbol.dispose]: () => {
        if (!isIn) return;
        isIn = false;
        if (alone) this.#alone--;
        else this.#together--;
        this.#changed.ring();
      },
    };
  }
}
