/**
 * Keeps a running job in its store: what to save when, one write at a time in the background, in the order of the cuts. Generation waits only
 * while the engine encodes (memory speed), never for the store; a store that fails is heard of at the next boundary.
 */
import type { Clock } from '../core/clock.ts';
import { LIMITS } from '../core/limits.ts';
import type { JobState } from '../kv/head.ts';
import type { Lease } from '../kv/lease.ts';
import type { ObjectRef } from '../kv/manifest.ts';
import { COMMIT_INTERVAL_MS } from '../kv/take.ts';
import type { NewObject } from '../kv/uploads.ts';
import type { NativeRun, RunReport, SavedObject, Seal } from '../runtime/native.ts';
import { type Checkpoint, contentOf, lasts, stretchOf, withCut } from './checkpoint.ts';
import type { ShardVote } from './shard-vote.ts';

/** How much work may be lost, and how much is written for it (KV.md 3). Never changes a result. */
export interface CheckpointPolicy {
  /** A delta once every chain has this many tokens more, or after this time. */
  readonly deltaTokens: number;
  readonly deltaMs: number;
  /** A journal alone, between deltas; every second while somebody reads along. */
  readonly journalMs: number;
  /** How long the end of a prompt that was fed at once may wait to be written: with what has come of it by then, which of a short job is all. 0: not at all. */
  readonly firstMs: number;
}

export const DEFAULT_POLICY: CheckpointPolicy = { deltaTokens: 2_048, deltaMs: 15_000, journalMs: 10_000, firstMs: 1_000 };

/** A journal alone, while somebody reads along (DESIGN.md 3). */
const FOLLOWED_JOURNAL_MS = 1_000;

/** A delta that is younger than this leaves little to write ahead of the slice's end. */
const AHEAD_MS_MIN = 3_000;

/** A prompt that was fed sooner is fed again as soon. */
const PROMPT_MS_MAX = 250;

/** However short a policy's times are, the store is not written more often for nothing. */
const INTERVAL_MS_MIN = 200;

/** How long the head of a job that runs may stay as it is: takers count in this, and whoever sends forgotten jobs again in the longest. */
export function commitIntervalMs({ deltaMs, journalMs }: CheckpointPolicy): number {
  return Math.min(Math.max(deltaMs, journalMs, INTERVAL_MS_MIN), COMMIT_INTERVAL_MS);
}

export interface CheckpointerOptions {
  readonly run: NativeRun;
  readonly lease: Lease;
  readonly seal: Seal;
  /** The keys that a manifest of these objects must carry. */
  readonly wrapped: (objects: readonly ObjectRef[]) => Checkpoint['keys'];
  readonly clock: Clock;
  readonly policy: CheckpointPolicy;
  /** Somebody reads along: what there is is written more often. */
  readonly isFollowed?: (() => boolean) | undefined;
  /** See SliceContext. */
  readonly isNearEnd?: (() => boolean) | undefined;
  /** What the manifest says before the first save; of a job that begins, nothing but its identity. */
  readonly base: Checkpoint;
  /** The store has all of the run as it begins: nothing is written before there is more. Default: false. */
  readonly isSaved?: boolean | undefined;
  /** Asked at each commit. */
  readonly slices: () => Checkpoint['slices'];
  /** Objects of an ancestor that `base` names and the first commit copies, with the references they have there. */
  readonly adopted: readonly NewObject[];
  /** Before this slice. */
  readonly elapsedMs: number;
  readonly onCommit?: ((step: number) => void) | undefined;
  /** Index within the job of the run's first chain. Default: 0. */
  readonly firstChain?: number | undefined;
  /** Of a shard: what its manifests say to the others. */
  readonly vote?: ShardVote | null | undefined;
}

export class Checkpointer {
  readonly #o: CheckpointerOptions;
  readonly #startMs: number;
  #checkpoint: Checkpoint;
  #adopted: readonly NewObject[];
  /** The cut at the end of the prompt, which cannot be made later, while it is not written. */
  #prompt: { readonly report: RunReport; readonly objects: readonly SavedObject[] } | null = null;
  /** Journals that are saved but in nobody's list yet. */
  #unlisted: SavedObject[] = [];
  /** Flushed by an owner before us and of no use to this run: it began without them. */
  readonly #forgotten: ReadonlySet<string>;
  #n = 0;
  #writing: Promise<void> | null = null;
  #failure: unknown = null;
  #last = { deltaStep: -1, deltaMs: 0, journalMs: 0, journalStep: -1 };
  #waitedMs = 0;
  #hasWrittenAhead = false;

  constructor(options: CheckpointerOptions) {
    this.#o = options;
    this.#checkpoint = options.base;
    this.#adopted = options.adopted;
    const used = new Set(options.base.journal.map(({ name }) => name));
    this.#forgotten = new Set(options.lease.head.journal.map(({ name }) => name).filter((name) => !used.has(name)));
    this.#startMs = options.clock.nowMs();
    const savedStep = options.isSaved === true && this.#forgotten.size === 0 ? options.base.step : -1;
    this.#last = { deltaStep: savedStep, deltaMs: this.#startMs, journalMs: this.#startMs, journalStep: savedStep };
  }

  get elapsedMs(): number {
    return this.#o.elapsedMs + this.#o.clock.nowMs() - this.#startMs;
  }

  /** How long chains that still ran have waited at boundaries. */
  get waitedMs(): number {
    return this.#waitedMs;
  }

  /** Between two steps. @throws what a write in the background met: ERR_FENCED, ERR_STORE. */
  async boundary(report: RunReport): Promise<void> {
    this.#throwFailure();
    if (this.#writing !== null) return;
    const { clock, policy, lease, isFollowed } = this.#o;
    const now = clock.nowMs();
    const stretch = stretchOf(this.#checkpoint);
    const journalFull = this.#unlisted.length > 0 || lease.head.journal.length >= LIMITS.HEAD_JOURNAL_MAX - 1;
    const journalMs = isFollowed?.() === true ? Math.min(policy.journalMs, FOLLOWED_JOURNAL_MS) : policy.journalMs;
    const journalDue = now - this.#last.journalMs >= journalMs * stretch && report.step > this.#last.journalStep;
    const first = this.#last.deltaStep < 0 || (this.#prompt !== null && now - this.#startMs >= policy.firstMs);
    const deltaDue =
      report.step - this.#last.deltaStep >= policy.deltaTokens * stretch || now - this.#last.deltaMs >= policy.deltaMs * stretch || (journalDue && (journalFull || this.#prompt !== null));
    const isNews = now - this.#last.deltaMs >= INTERVAL_MS_MIN && this.#o.vote?.isNews(report, this.#checkpoint.chains) === true;
    const isAhead = !this.#hasWrittenAhead && now - this.#last.deltaMs >= AHEAD_MS_MIN && this.#o.isNearEnd?.() === true;
    this.#hasWrittenAhead ||= isAhead;
    if (first && this.#canWait(now)) await this.#savePrompt();
    else if (first || deltaDue || isNews || isAhead) await this.#delta('running', 'raw', null);
    else if (journalDue) await this.#journal();
    this.#waitedMs += clock.nowMs() - now;
  }

  /** The last write of a slice that nobody will go on with: its tokens and no more, so that the job has all that anyone was told of it. */
  async closeShort(): Promise<void> {
    await this.#settle();
    if (this.#prompt !== null) return await this.close('parked', null);
    if (this.#unlisted.length === 0) await this.#journal();
    await this.#settle();
    // The head has no room for another.
    if (this.#unlisted.length > 0) return await this.close('parked', null);
    await this.#o.lease.commit({ state: 'parked', manifest: null, objects: [] });
  }

  /** The last write of this slice: everything, in the state that the job is left in. Waits for it. What somebody goes on with at once is not made smaller first: that would take longer than its bytes do. */
  async close(state: JobState, ended: string | null): Promise<void> {
    await this.#settle();
    const goesOn = state === 'parked' && this.#o.isNearEnd?.() === true;
    await this.#delta(state, goesOn ? 'raw' : 'lossless', ended);
    await this.#settle();
  }

  /** Waits for what is being written, whatever becomes of it. */
  async drain(): Promise<void> {
    await this.#writing?.catch(() => undefined);
  }

  async #settle(): Promise<void> {
    await this.#writing;
    this.#throwFailure();
  }

  #throwFailure(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  /** Nothing is in the store yet, and nobody waits for it. */
  #canWait(now: number): boolean {
    const { adopted, base, policy, vote = null } = this.#o;
    return policy.firstMs > 0 && this.#prompt === null && vote === null && adopted.length === 0 && base.journal.length === 0 && now - this.#startMs <= PROMPT_MS_MAX;
  }

  async #savePrompt(): Promise<void> {
    const { run, lease, seal } = this.#o;
    this.#prompt = await run.save({ ...seal, delta: true, epoch: lease.head.epoch, n: this.#n++, codec: 'raw' });
    this.#last = { ...this.#last, deltaStep: this.#prompt.report.step };
  }

  async #delta(state: JobState, codec: 'raw' | 'lossless', ended: string | null): Promise<void> {
    const { run, lease, clock } = this.#o;
    const { report, objects } = await run.save({ ...this.#o.seal, delta: true, epoch: lease.head.epoch, n: this.#n++, codec });
    this.#last = { deltaStep: report.step, deltaMs: clock.nowMs(), journalMs: clock.nowMs(), journalStep: report.step };
    const [prompt, saved] = [this.#prompt, [...this.#unlisted, ...objects]];
    this.#prompt = null;
    this.#unlisted = [];
    const adopted = this.#adopted;
    const elapsedMs = this.elapsedMs;
    const vote = this.#o.vote?.of(report);
    const named = (object: SavedObject, at: RunReport): NewObject => ({ ...newObject(object), lasts: lasts(object, at, this.#o.firstChain) });
    this.#inBackground(async () => {
      let next = this.#checkpoint;
      await lease.commit({
        state,
        forget: this.#forgotten,
        objects: [...adopted, ...(prompt === null ? [] : prompt.objects.map((object) => named(object, prompt.report))), ...saved.map((object) => named(object, report))],
        manifest: (refs, head) => {
          const copies = new Map(adopted.map((object, i) => [nameless(object), refs[i]]));
          const base = adopted.length === 0 ? this.#checkpoint : renamed(this.#checkpoint, (ref) => copies.get(refKey(ref)) ?? ref);
          const flushed = head.journal.map((ref): ObjectRef => ({ ...ref, origin: lease.where.job }));
          const known = new Set([...base.journal.map(({ name }) => name), ...this.#forgotten]);
          const journal = [...base.journal, ...flushed.filter(({ name }) => !known.has(name))];
          const own = refs.slice(adopted.length);
          const count = prompt?.objects.length ?? 0;
          const from = prompt === null ? { ...base, journal } : withCut({ ...base, journal }, prompt.report, prompt.objects, own.slice(0, count), this.#o.firstChain);
          next = { ...withCut(from, report, saved, own.slice(count), this.#o.firstChain), elapsedMs, ended, slices: this.#o.slices() };
          // That of an ancestor is no part of it.
          const { vote: _, ...content } = contentOf(next);
          return { ...content, keys: this.#o.wrapped(content.objects), ...(vote === undefined ? {} : { vote }) };
        },
      });
      this.#checkpoint = next;
      this.#adopted = [];
      this.#o.onCommit?.(report.step);
      if (state === 'running' && lease.manifest !== null) await this.#o.vote?.committed(lease.manifest);
    });
  }

  async #journal(): Promise<void> {
    const { run, lease, clock } = this.#o;
    const { report, objects } = await run.save({ ...this.#o.seal, delta: false, epoch: lease.head.epoch, n: this.#n++, codec: 'raw' });
    this.#last = { ...this.#last, journalMs: clock.nowMs(), journalStep: report.step };
    this.#inBackground(async () => {
      for (const object of objects) {
        const { written } = await lease.flushJournal(newObject(object));
        if (!written) this.#unlisted.push(object);
      }
    });
  }

  #inBackground(work: () => Promise<void>): void {
    const writing = work().catch((error: unknown) => {
      this.#failure = error;
    }).finally(() => {
      if (this.#writing === writing) this.#writing = null;
    });
    this.#writing = writing;
  }
}

function newObject({ kind, chain, nonce, digest, bytes }: SavedObject, n = 0): NewObject {
  return { kind, chain, n, nonce, digest, body: [bytes], bytes: bytes.byteLength };
}

/** An object's content, whatever it is called. */
const refKey = ({ digest, bytes }: Pick<ObjectRef, 'digest' | 'bytes'>): string => `${digest}/${bytes}`;
const nameless = (object: NewObject): string => refKey(object);

function renamed(checkpoint: Checkpoint, rename: (ref: ObjectRef) => ObjectRef): Checkpoint {
  return {
    ...checkpoint,
    promptTail: checkpoint.promptTail === null ? null : rename(checkpoint.promptTail),
    chains: checkpoint.chains.map((chain) => ({
      ...chain,
      segments: chain.segments.map(rename),
      tails: chain.tails.map(({ at, object }) => ({ at, object: rename(object) })),
    })),
    journal: checkpoint.journal.map(rename),
  };
}
