/** One job as this process follows it: looked at, decoded and made into events once, for however many read it. */
import { nextTurn } from '../core/turns.ts';
import { throwIfCancelled } from '../core/waiting.ts';
import { EventLog, type LogEvent } from '../job/event-log.ts';
import type { FinishReason } from '../job/generate.ts';
import { endReason } from '../job/journals.ts';
import type { PreparedJob } from '../job/prepare.ts';
import { closed, resultOf } from '../job/run.ts';
import { EventTape } from '../job/tape.ts';
import { type JobState, hasResult, isTerminal } from '../kv/head.ts';
import type { JobKey } from '../kv/names.ts';
import { readStrikes } from '../kv/strikes.ts';
import type { RunReport } from '../runtime/native.ts';
import { type FollowOptions, Follower, type Following } from './follower.ts';
import type { JobEvent } from './platform.ts';
import type { JobRecord } from './record.ts';
import { ShardedFollower } from './sharded-follower.ts';
import { Waiters } from './waiters.ts';

/** So long nothing comes before readers are told so: proxies close connections on which nothing comes. */
const IDLE_MS = 15_000;
/** Events made before others in this process have their turn: a millisecond or two. */
export const EVENTS_A_TURN = 64;

export type ResultEvent = Extract<JobEvent, { readonly kind: 'result' }>;

export interface FollowedOptions extends Omit<FollowOptions, 'signal'> {
  /** Kept for readers who are behind. */
  readonly eventsMax?: number | undefined;
  /** It cannot be followed any more. */
  readonly onFailure: () => void;
}

export interface FollowedEnd {
  readonly state: JobState;
  readonly result: ResultEvent | null;
  /** The code of why it failed; null: it did not, or nobody knows. */
  readonly fault: string | null;
}

export class FollowedJob implements Disposable {
  readonly #where: JobKey;
  readonly #job: PreparedJob;
  readonly #options: FollowedOptions;
  readonly #follower: Following;
  readonly #log: EventLog;
  readonly #tape: EventTape;
  readonly #readers = new Waiters();
  readonly #stop = new AbortController();
  /** What the newest events were made of. */
  #known: { readonly report: RunReport; readonly ended: FinishReason | null } | null = null;
  #state: JobState | null = null;
  #idles = 0;
  #end: FollowedEnd | null = null;
  #failure: unknown = null;

  /** Begins to look. */
  constructor(record: JobRecord, job: PreparedJob, options: FollowedOptions) {
    this.#where = record.where;
    this.#job = job;
    this.#options = options;
    const Kind = record.head.join === undefined ? Follower : ShardedFollower;
    this.#follower = new Kind(record, job, { ...options, signal: this.#stop.signal });
    this.#log = new EventLog(job);
    this.#tape = new EventTape(options.eventsMax);
    void this.#follow();
  }

  /** While the job lives; null: not looked yet. */
  get state(): JobState | null {
    return this.#state;
  }

  /** How often nothing had come for a while. */
  get idles(): number {
    return this.#idles;
  }

  /** Once all events are there; null: more may come. */
  get end(): FollowedEnd | null {
    return this.#end;
  }

  /** What it met; readers are told after what was read before. null: it goes on. */
  get failure(): unknown {
    return this.#failure;
  }

  /** Wakes at whatever changes here. @param signal wakes it too. */
  reader(signal: AbortSignal | undefined): ReturnType<Waiters['add']> {
    return this.#readers.add(signal);
  }

  /** From number `from` on, as many as a turn has room for; none: there are no more yet. */
  read(from: number): readonly LogEvent[] {
    return this.#tape.read(from, EVENTS_A_TURN);
  }

  /** Whether events from `from` on are kept, or have yet to come. */
  keeps(from: number): boolean {
    return from >= this.#tape.first;
  }

  /** All events up to now, made again: for a reader so far behind that they are not kept. */
  again(): Iterable<LogEvent> {
    return this.#known === null ? [] : new EventLog(this.#job).push(this.#known.report, this.#known.ended);
  }

  async #follow(): Promise<void> {
    const { clock } = this.#options;
    let heardMs = clock.nowMs();
    try {
      for (;;) {
        await nextTurn();
        const sight = await this.#follower.look();
        const hasNews = sight.state !== this.#state || sight.report !== null;
        if (hasNews) await this.#take(sight.state, sight.report);
        if (this.#end !== null) return;
        if (hasNews) heardMs = clock.nowMs();
        await this.#follower.wait(Math.max(1, heardMs + IDLE_MS - clock.nowMs()));
        if (clock.nowMs() - heardMs < IDLE_MS) continue;
        this.#idles += 1;
        heardMs = clock.nowMs();
        this.#readers.wake();
      }
    } catch (error) {
      this.#failure = error;
      this.#options.onFailure();
    } finally {
      this.#follower[Symbol.dispose]();
      this.#readers.wake();
    }
  }

  async #take(state: JobState, report: RunReport | null): Promise<void> {
    const isOver = isTerminal(state);
    if (!isOver) this.#state = state;
    const ended = hasResult(state) ? endReason(state, this.#follower.found.manifest) : null;
    if (report !== null) await this.#push(hasResult(state) ? closed(report) : report, ended);
    const result = hasResult(state) && report !== null ? await resultOf(this.#job, report, ended) : null;
    if (isOver) this.#end = { state, fault: state === 'failed' ? await this.#fault() : null, result: result && { kind: 'result', seq: this.#log.seq, state, result } };
    this.#readers.wake();
  }

  async #push(report: RunReport, ended: FinishReason | null): Promise<void> {
    const before = this.#log.seq;
    for (const event of this.#log.push(report, ended)) {
      this.#tape.append(event);
      if (this.#log.seq % EVENTS_A_TURN !== 0) continue;
      this.#known = { report, ended };
      this.#readers.wake();
      await nextTurn();
      throwIfCancelled(this.#stop.signal);
    }
    if (this.#log.seq > before) this.#known = { report, ended };
  }

  /** Only evidence: without it the end is the same. */
  async #fault(): Promise<string | null> {
    const strikes = await readStrikes(this.#options.store, this.#where, { signal: this.#stop.signal }).catch(() => []);
    return strikes.at(-1)?.code ?? null;
  }

  /** Nobody reads it any more. */
  [Symbol.dispose](): void {
    this.#stop.abort();
  }
}
