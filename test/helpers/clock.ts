/** Clocks for tests: time moves when the test says so, or as soon as someone waits. */
import { setImmediate as turn } from 'node:timers/promises';

import type { Clock } from '../../engine/core/clock.ts';

export class ManualClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<{ readonly atMs: number; readonly controller: AbortController }>();

  nowMs(): number {
    return this.#nowMs;
  }

  timeout(delayMs: number): { readonly signal: AbortSignal } & Disposable {
    const timer = { atMs: this.#nowMs + delayMs, controller: new AbortController() };
    this.#timers.add(timer);
    return { signal: timer.controller.signal, [Symbol.dispose]: () => void this.#timers.delete(timer) };
  }

  advance(byMs: number): void {
    this.#nowMs += byMs;
    for (const timer of this.#timers) {
      if (timer.atMs > this.#nowMs) continue;
      this.#timers.delete(timer);
      timer.controller.abort();
    }
  }

  /** Until whatever can go on without time has gone on. */
  async settle(): Promise<void> {
    for (let i = 0; i < 10; i++) await turn();
  }
}

/** Pauses shorter than `pauseMsMax` take no time but count: backoff is over at once, and a deadline comes as soon as they add up to it. */
export class HastyClock extends ManualClock {
  readonly pausesMs: number[] = [];
  readonly #pauseMsMax: number;

  constructor(pauseMsMax: number) {
    super();
    this.#pauseMsMax = pauseMsMax;
  }

  override timeout(delayMs: number): { readonly signal: AbortSignal } & Disposable {
    const timer = super.timeout(delayMs);
    if (delayMs <= this.#pauseMsMax) {
      this.pausesMs.push(delayMs);
      setImmediate(() => this.advance(delayMs));
    }
    return timer;
  }
}
