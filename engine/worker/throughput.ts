/** What a worker gets done: planned tokens by model (control/work.ts), and how busy its slots are. */
import type { Clock } from '../core/clock.ts';

interface Tally {
  running: number;
  sinceMs: number;
  busyMs: number;
  tokens: number;
}

/** What is older counts half, and half again: a machine that gets slower says so. Of time in which there was work. */
const HALF_MS = 10 * 60_000;
/** Less than that says more about the first step than about the machine. */
const BUSY_MS_MIN = 1_000;

export class Throughput {
  readonly #clock: Clock;
  readonly #models = new Map<string, Tally>();
  #slots = 0;
  #slotsSinceMs: number;
  #slotMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#slotsSinceMs = clock.nowMs();
  }

  /** A job of that model has it loaded. */
  begin(model: string): void {
    const tally = this.#of(model);
    this.#pass(tally);
    tally.running++;
  }

  end(model: string): void {
    const tally = this.#of(model);
    this.#pass(tally);
    tally.running--;
  }

  /** So many of its planned tokens are made, or need not be made any more. */
  retire(model: string, tokens: number): void {
    this.#of(model).tokens += tokens;
  }

  /** A second, by model; those that have not run for long enough to tell are left out. */
  rates(): ReadonlyMap<string, number> {
    const rates = new Map<string, number>();
    for (const [model, tally] of this.#models) {
      this.#pass(tally);
      if (tally.busyMs < BUSY_MS_MIN || tally.tokens <= 0) continue;
      rates.set(model, (tally.tokens * 1_000) / tally.busyMs);
      while (tally.busyMs > 2 * HALF_MS) [tally.busyMs, tally.tokens] = [tally.busyMs / 2, tally.tokens / 2];
    }
    return rates;
  }

  /** A slot has a job, from before its model is loaded to its last commit. */
  occupy(): Disposable {
    this.#passSlots(1);
    return { [Symbol.dispose]: () => this.#passSlots(-1) };
  }

  /** Since the beginning: how long slots have had jobs, all of them together, ms. Divided by slots and time it is their occupancy. */
  get slotMs(): number {
    this.#passSlots(0);
    return this.#slotMs;
  }

  #passSlots(change: number): void {
    const nowMs = this.#clock.nowMs();
    this.#slotMs += this.#slots * (nowMs - this.#slotsSinceMs);
    this.#slotsSinceMs = nowMs;
    this.#slots += change;
  }

  #of(model: string): Tally {
    const tally = this.#models.get(model) ?? { running: 0, sinceMs: this.#clock.nowMs(), busyMs: 0, tokens: 0 };
    this.#models.set(model, tally);
    return tally;
  }

  #pass(tally: Tally): void {
    const nowMs = this.#clock.nowMs();
    if (tally.running > 0) tally.busyMs += nowMs - tally.sinceMs;
    tally.sinceMs = nowMs;
  }
}
