/**
 * Where a sharded job is: its shards, each followed as a job of its own, put together. What is told of it is what would be told of the run that had all
 * chains, in the same order and with the same numbers: a step is known when every shard has been there.
 */
import { EngineError } from '../core/errors.ts';
import { inParallel, linkSignals, pause } from '../core/waiting.ts';
import { JournalReader, endReason } from '../job/journals.ts';
import { Ballots, type ShardReport, officialReport } from '../job/official.ts';
import type { PreparedJob } from '../job/prepare.ts';
import { closed } from '../job/run.ts';
import { shardJob } from '../job/shards.ts';
import { isTerminal } from '../kv/head.ts';
import { shardKey } from '../kv/names.ts';
import { type FollowOptions, Follower, type Following, POLL_MS, type Sight } from './follower.ts';
import { type JobRecord, readLive } from './record.ts';

const LOOKS_AT_ONCE = 8;
/** Between the end of the last shard and that of the job. */
const JOIN_MS = 10;

interface Part {
  readonly follower: Follower;
  report: ShardReport | null;
  isOver: boolean;
}

export class ShardedFollower implements Following {
  readonly #record: JobRecord;
  readonly #job: PreparedJob;
  readonly #options: FollowOptions;
  readonly #ballots: Ballots;
  /** By shard; null: not born yet, as far as is known. */
  readonly #parts: (Part | null)[];
  #found: Pick<JobRecord, 'head' | 'manifest'>;
  #pollMs = POLL_MS.least;
  #joinMs = JOIN_MS;

  constructor(record: JobRecord, job: PreparedJob, options: FollowOptions) {
    this.#record = record;
    this.#job = job;
    this.#options = options;
    this.#ballots = new Ballots(job);
    this.#parts = Array.from({ length: record.head.join?.shards ?? 0 }, () => null);
    this.#found = record;
  }

  get found(): Pick<JobRecord, 'head' | 'manifest'> {
    return this.#found;
  }

  /** @throws EngineError as `Follower.look`. */
  async look(): Promise<Sight> {
    const { store, keys, shelf, signal } = this.#options;
    const { where } = this.#record;
    // Before the shards: when it is over, so are they.
    this.#found = await readLive(store, where, { signal });
    const { head, manifest } = this.#found;
    if (isTerminal(head.state)) {
      using journals = new JournalReader({ store, where, keys, decode: shelf.decodeJournals });
      return { state: head.state, report: await journals.read(this.#job, head, manifest, signal) };
    }
    const news = await inParallel(this.#parts.length, LOOKS_AT_ONCE, signal, async (i) => await this.#lookAt(i));
    const isNew = news.includes(true);
    this.#pollMs = isNew ? POLL_MS.least : Math.min(POLL_MS.most, 2 * this.#pollMs);
    return { state: head.state, report: isNew ? officialReport(this.#job, this.#parts.map((part) => part?.report ?? null), this.#ballots) : null };
  }

  /** Whether it has come further. */
  async #lookAt(i: number): Promise<boolean> {
    const part = (this.#parts[i] ??= await this.#open(i));
    if (part === null || part.isOver) return false;
    const { state, report } = await part.follower.look();
    part.isOver = isTerminal(state);
    const { manifest } = part.follower.found;
    // Its first commit says what chains of an extension have begun with: until then nobody can tell where a vote ends them.
    if (report === null || (manifest === null && this.#record.spec.parent?.kind === 'extend')) return false;
    part.report = { ...(part.isOver ? { report: closed(report), ended: endReason(state, manifest) } : { report, ended: null }), begun: manifest?.vote?.begun };
    return true;
  }

  async #open(i: number): Promise<Part | null> {
    const where = shardKey(this.#record.where, i);
    try {
      const found = await readLive(this.#options.store, where, { signal: this.#options.signal });
      return { follower: new Follower({ ...this.#record, ...found, where }, shardJob(this.#job, i), this.#options), report: null, isOver: false };
    } catch (error) {
      if (error instanceof EngineError && error.code === 'ERR_JOB_NOT_FOUND') return null;
      throw error;
    }
  }

  /** @throws EngineError ERR_CANCELLED. */
  async wait(mostMs: number): Promise<void> {
    const { feed, clock, signal } = this.#options;
    const living = this.#parts.flatMap((part, i) => (part === null || part.isOver ? [] : [{ part, where: shardKey(this.#record.where, i) }]));
    if (living.some(({ part }) => part.follower.hasNews)) return;
    const first = new AbortController();
    using stop = linkSignals(signal, first.signal);
    // All are over: the job is joined at any moment, or when the walk finds that nobody did.
    if (living.length === 0) this.#joinMs = Math.min(POLL_MS.most, 2 * this.#joinMs);
    const waitMs = Math.min(living.length === 0 ? this.#joinMs : this.#pollMs, mostMs);
    const waiting = [pause(clock, waitMs, stop.signal), ...(feed === null ? [] : living.map(async ({ where }) => await feed.changed(where, waitMs, stop.signal)))];
    try {
      await Promise.race(waiting);
    } finally {
      first.abort();
      await Promise.allSettled(waiting);
    }
  }

  [Symbol.dispose](): void {
    for (const part of this.#parts) part?.follower[Symbol.dispose]();
  }
}
