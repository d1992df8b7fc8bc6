/** One job while it runs here: when it is asked to let go, and why. */
import type { Clock } from '../core/clock.ts';
import { unlessCancelled } from '../core/waiting.ts';
import { type PreparedJob, plannedTokens } from '../job/prepare.ts';
import type { JobKey } from '../kv/names.ts';
import type { RunReport } from '../runtime/native.ts';
import type { Phase, StopReason } from './events.ts';
import type { Throughput } from './throughput.ts';

interface Sight {
  readonly atMs: number;
  readonly tokens: number;
  readonly step: number;
}

/** The last fifth of a slice, at most so much of it. */
const NEAR_END_MS_MAX = 5_000;
/** Of a slice that is shorter than this the end is always near. */
const NEAR_END_SLICE_MS_MIN = 4_000;

export class Running implements Disposable {
  readonly where: JobKey;
  #model = '';
  readonly #throughput: Throughput;
  #planned = 0;
  #width = 0;
  /** Of all chains, as of the last look; null: none yet. */
  #tokens: number | null = null;
  readonly #clock: Clock;
  readonly #startMs: number;
  readonly #controller = new AbortController();
  readonly #sliceMs: number;
  #timer: ReturnType<Clock['timeout']> | null = null;
  #endsMs = Infinity;
  #from: number | null = null;
  #step = 0;
  readonly #reached = new Set<Phase>();
  /** The first sight after the prefill, and the last. */
  #decode: { readonly first: Sight; readonly last: Sight } | null = null;
  #hasAdvanced = false;
  #isOver: StopReason | null = null;
  #why: StopReason | null = null;
  #end: () => void = () => undefined;
  readonly #ended = new Promise<void>((resolve) => (this.#end = resolve));

  constructor(where: JobKey, sliceMs: number, clock: Clock, throughput: Throughput) {
    this.where = where;
    this.#throughput = throughput;
    this.#sliceMs = sliceMs;
    this.#clock = clock;
    this.#startMs = clock.nowMs();
  }

  /** As the registry knows it; empty: it is not loaded yet. */
  get model(): string {
    return this.#model;
  }

  /** Its model is loaded. */
  opened(job: PreparedJob): void {
    const { name, variant } = job.model.resolved;
    const model = variant === null ? name : `${name}@${variant}`;
    if (this.#model === '') this.#throughput.begin(model);
    this.#model = model;
    this.#planned = plannedTokens(job);
    this.#width = job.lengths.length;
  }

  /** Its chains; 0: its model is not loaded yet. */
  get width(): number {
    return this.#width;
  }

  /** The job has ended, and with it the rest of its plan. */
  finished(): void {
    this.#throughput.retire(this.#model, Math.max(0, this.#planned - (this.#tokens ?? 0)));
    this.#tokens = this.#planned;
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The first reason counts; null: nobody has asked. */
  get why(): StopReason | null {
    return this.#why;
  }

  /** The slice's time is almost over. */
  get isNearEnd(): boolean {
    return this.#sliceMs >= NEAR_END_SLICE_MS_MIN && this.#endsMs - this.#clock.nowMs() <= Math.min(NEAR_END_MS_MAX, this.#sliceMs / 5);
  }

  /** Whether a commit at `step` has more than it began with. */
  hasMoreAt(step: number): boolean {
    return this.#from !== null && step > this.#from;
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

  /** Of one chain, in the mean over this slice's steps; null: it made none. */
  get tokenMs(): number | null {
    if (this.#decode === null) return null;
    const { first, last } = this.#decode;
    return last.step > first.step ? (last.atMs - first.atMs) / (last.step - first.step) : null;
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
   * @returns what it has come to since the last look.
   */
  look({ step, prefilled, chains }: RunReport): readonly Phase[] {
    this.#step = step;
    this.#from ??= step;
    this.#hasAdvanced ||= step > this.#from;
    const tokens = chains.reduce((sum, { tokens: of }) => sum + of.length, 0);
    if (this.#tokens !== null) this.#throughput.retire(this.#model, tokens - this.#tokens);
    this.#tokens = tokens;
    if (prefilled) {
      const sight = { atMs: this.#clock.nowMs(), tokens, step };
      this.#decode = { first: this.#decode?.first ?? sight, last: sight };
      this.#timer ??= this.#startTimer();
    }
    if (this.#isOver !== null && this.#hasAdvanced) this.stop(this.#isOver);
    const now: readonly Phase[] = [...(prefilled ? ['prefilled' as const] : []), ...(this.#from === 0 && this.#hasAdvanced ? ['first_token' as const] : [])];
    return now.filter((phase) => !this.#reached.has(phase) && this.#reached.add(phase));
  }

  #startTimer(): ReturnType<Clock['timeout']> {
    const timer = this.#clock.timeout(this.#sliceMs);
    this.#endsMs = this.#clock.nowMs() + this.#sliceMs;
    timer.signal.addEventListener('abort', () => this.end('slice'), { once: true });
    return timer;
  }

  /** Resolves when it does not run here any more. @throws EngineError ERR_CANCELLED. */
  async ended(signal: AbortSignal | undefined): Promise<void> {
    await unlessCancelled(this.#ended, signal);
  }

  [Symbol.dispose](): void {
    this.#end();
    if (this.#model !== '') this.#throughput.end(this.#model);
    this.#timer?.[Symbol.dispose]();
  }
}
