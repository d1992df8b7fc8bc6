/** Time that passes only when the simulation says so. */
import type { Clock } from '../../engine/core/clock.ts';

interface Timer {
  readonly atMs: number;
  readonly controller: AbortController;
}

export class SimClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<Timer>();

  nowMs(): number {
    return this.#nowMs;
  }

  timeout(delayMs: number): { readonly signal: AbortSignal } & Disposable {
    const timer = { atMs: this.#nowMs + delayMs, controller: new AbortController() };
    this.#timers.add(timer);
    return { signal: timer.controller.signal, [Symbol.dispose]: () => void this.#timers.delete(timer) };
  }

  /** To the next timer. false: there is none. */
  next(): boolean {
    const [first] = [...this.#timers].sort((a, b) => a.atMs - b.atMs);
    if (first === undefined) return false;
    this.#timers.delete(first);
    this.#nowMs = Math.max(this.#nowMs, first.atMs);
    first.controller.abort();
    return true;
  }
}
