/** Where a job is, seen from the run in this process while it runs here, else from what is committed. Asked again, it says what is new. */
import type { Clock } from '../core/clock.ts';
import { pause } from '../core/waiting.ts';
import { JournalReader } from '../job/journals.ts';
import type { PreparedJob } from '../job/prepare.ts';
import { type Head, type JobState, isTerminal } from '../kv/head.ts';
import { READING_MS, putReading } from '../kv/hints.ts';
import { isMissing, readHead } from '../kv/read.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import type { Shelf } from '../ports/shelf.ts';
import type { RunReport } from '../runtime/native.ts';
import type { LiveFeed } from './feed.ts';
import { type JobRecord, readLive } from './record.ts';

export interface FollowOptions {
  readonly store: ObjectStore;
  readonly keys: KeyProvider | null;
  readonly shelf: Pick<Shelf, 'decodeJournals'>;
  /** null: no job runs in this process. */
  readonly feed: LiveFeed | null;
  readonly clock: Clock;
  readonly signal: AbortSignal | undefined;
}

/** Between two looks at the head: of a job that has just moved, and of one that does not. */
export const POLL_MS = { least: 250, most: 2_000 };

export interface Sight {
  readonly state: JobState;
  /** null: nothing is new. Never null of a job that has ended. */
  readonly report: RunReport | null;
}

/** Where a job is, asked again and again. */
export interface Following extends Disposable {
  readonly found: Pick<JobRecord, 'head' | 'manifest'>;
  look(): Promise<Sight>;
  wait(mostMs: number): Promise<void>;
}

export class Follower implements Following {
  readonly #where: JobRecord['where'];
  readonly #job: PreparedJob;
  readonly #options: FollowOptions;
  readonly #journals: JournalReader;
  #found: Pick<JobRecord, 'head' | 'manifest'>;
  #lookedMs: number;
  #pollMs = POLL_MS.least;
  #signedMs = -Infinity;
  /** Of the head whose journals were read last. */
  #readMark: string | null = null;
  /** Of the live report that was seen last. */
  #mark: string | null = null;

  constructor(record: JobRecord, job: PreparedJob, options: FollowOptions) {
    const { store, keys, shelf, clock } = options;
    this.#where = record.where;
    this.#job = job;
    this.#options = options;
    this.#journals = new JournalReader({ store, where: record.where, keys, decode: shelf.decodeJournals });
    this.#found = record;
    this.#lookedMs = clock.nowMs();
  }

  /** As of the last look. */
  get found(): Pick<JobRecord, 'head' | 'manifest'> {
    return this.#found;
  }

  /** @throws EngineError ERR_JOB_NOT_FOUND (erased), ERR_CHECKPOINT, ERR_KEY, ERR_STORE, ERR_CANCELLED. */
  async look(): Promise<Sight> {
    const live = this.#live();
    // Whoever ended the job from outside wrote only the head, and its worker hears of it at its next commit.
    if (live === null || this.#options.clock.nowMs() - this.#lookedMs >= POLL_MS.most) await this.#refresh();
    const { state } = this.#found.head;
    if (live !== null && !isTerminal(state)) {
      const isNew = markOf(live) !== this.#mark;
      this.#mark = markOf(live);
      return { state: 'running', report: isNew ? live : null };
    }
    if (contentMark(this.#found.head) === this.#readMark) return { state, report: null };
    const report = await this.#read();
    this.#readMark = contentMark(this.#found.head);
    return { state: this.#found.head.state, report };
  }

  /** Until it may be worth while to look again, at most `mostMs`. @throws EngineError ERR_CANCELLED. */
  async wait(mostMs: number): Promise<void> {
    const { feed, clock, signal } = this.#options;
    if (feed === null) return await pause(clock, Math.min(this.#pollMs, mostMs), signal);
    if (this.hasNews) return;
    const live = this.#live();
    await feed.changed(this.#where, Math.min(live === null ? this.#pollMs : POLL_MS.most, mostMs), signal);
  }

  /** Something came from the run in this process while the reader was busy with what came before it. */
  get hasNews(): boolean {
    const live = this.#live();
    return live !== null && markOf(live) !== this.#mark;
  }

  #live(): RunReport | null {
    return this.#options.feed?.report(this.#where) ?? null;
  }

  async #refresh(): Promise<void> {
    const { store, clock, signal } = this.#options;
    const stored = await readHead(store, this.#where, { signal });
    // A sign of life, or a take, says nothing new.
    const moved = stored === null || contentMark(stored.head) !== contentMark(this.#found.head);
    if (moved) this.#found = await readLive(store, this.#where, { signal });
    this.#pollMs = moved ? POLL_MS.least : Math.min(POLL_MS.most, 2 * this.#pollMs);
    this.#lookedMs = clock.nowMs();
    if (this.#found.head.state === 'running' && this.#live() === null) this.#sign();
  }

  /** Whoever runs it elsewhere may write more often. A hint: nobody waits for it. */
  #sign(): void {
    const { store, clock, signal } = this.#options;
    if (clock.nowMs() - this.#signedMs < READING_MS) return;
    this.#signedMs = clock.nowMs();
    putReading(store, this.#where, { signal }).catch(() => undefined);
  }

  /** A journal that is missing was folded into another and collected since; lost, if the head is still the same. */
  async #read(): Promise<RunReport> {
    const { store, signal } = this.#options;
    for (;;) {
      const { head, manifest } = this.#found;
      try {
        return await this.#journals.read(this.#job, head, manifest, signal);
      } catch (error) {
        this.#found = isMissing(error) ? await readLive(store, this.#where, { signal }) : this.#found;
        if (this.#found.head.version === head.version) throw error;
      }
    }
  }

  [Symbol.dispose](): void {
    this.#journals[Symbol.dispose]();
  }
}

/** Two heads with the same mark name the same. */
function contentMark({ state, manifest, journal }: Head): string {
  return [state, manifest?.name, ...journal.map(({ name }) => name)].join();
}

/** Two reports with the same mark say the same. */
function markOf({ step, prefilled, chains }: RunReport): string {
  return [step, prefilled, ...chains.map(({ tokens, finish }) => `${tokens.length}${finish ?? ''}`)].join();
}
