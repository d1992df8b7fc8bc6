/** One job while it runs here: when it is asked to let go, and why. */
import type { Clock } from '../core/clock.ts';
import { unlessCancelled } from '../core/waiting.ts';
import type { JobKey } from '../kv/names.ts';
import type { RunReport } from '../runtime/native.ts';
import type { StopReason } from './events.ts';

interface Sight {
  readonly atMs: number;
  readonly tokens: number;
}

export class Running implements Disposable {
  readonly where: JobKey;
  /** As the registry knows it. */
  model = '';
  readonly #clock: Clock;
  readonly #startMs: number;
  readonly #controller = new AbortController();
  readonly #sliceMs: number;
  #timer: ReturnType<Clock['timeout']> | null = null;
  #from: number | null = null;
  #step = 0;
  /** The first sight after the prefill, and the last. */
  #decode: { readonly first: Sight; readonly last: Sight } | null = null;
  #hasAdvanced = false;
  #isOver: StopReason | null = null;
  #why: StopReason | null = null;
  #end: () => void = () => undefined;
  readonly #ended = new Promise<void>((resolve) => (this.#end = resolve));

  constructor(where: JobKey, sliceMs: number, clock: Clock) {
    this.where = where;
    this.#sliceMs = sliceMs;
    this.#clock = clock;
    this.#startMs = clock.nowMs();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The first reason counts; null: nobody has asked. */
  get why(): StopReason | null {
    return this.#why;
  }

  /** As far as it has come here. */
  get step(): number {
    return this.#step;
  }

  get ranMs(): number {
    return this.#clock.nowMs() - this.#startMs;
  }

  /** Of all chains together, since the prefill; null: nothing was generated. */
  get tokensPerSecond(): number | null {
    if (this.#decode === null) return null;
    const { first, last } = this.#decode;
    return last.tokens > first.tokens && last.atMs > first.atMs ? ((last.tokens - first.tokens) * 1_000) / (last.atMs - first.atMs) : null;
  }

  stop(why: StopReason): void {
    this.#why ??= why;
    this.#controller.abort();
  }

  /** As soon as it has a token more than it began with. */
  end(why: StopReason): void {
    this.#isOver ??= why;
    if (this.#hasAdvanced) this.stop(this.#isOver);
  }

  /**
   * Between two native calls. A slice's time begins when the prefill is done, and it is not over before there is a token more than it began
   * with: else a job that takes longer to restore than a slice lasts would never come to its end.
   */
  look({ step, prefilled, chains }: RunReport): void {
    this.#step = step;
    this.#from ??= step;
    this.#hasAdvanced ||= step > this.#from;
    if (prefilled) {
      const sight = { atMs: this.#clock.nowMs(), tokens: chains.reduce((sum, { tokens }) => sum + tokens.length, 0) };
      this.#decode = { first: this.#decode?.first ?? sight, last: sight };
      this.#timer ??= this.#startTimer();
    }
    if (this.#isOver !== null && this.#hasAdvanced) this.stop(this.#isOver);
  }

  #startTimer(): ReturnType<Clock['timeout']> {
    const timer = this.#clock.timeout(this.#sliceMs);
    timer.signal.addEventListener('abort', () => this.end('slice'), { once: true });
    return timer;
  }

  /** Resolves when it does not run here any more. @throws EngineError ERR_CANCELLED. */
  async ended(signal: AbortSignal | undefined): Promise<void> {
    await unlessCancelled(this.#ended, signal);
  }

  [Symbol.dispose](): void {
    this.#end();
    this.#timer?.[Symbol.dispose]();
  }
}
