/**
 * The platform over an object store, which is its whole state: any number of these, on any machines, answer for the same jobs. It runs none of
 * them: what it writes is found by workers, sooner for a message in the queue and later without one.
 */
import { type Clock, systemClock, wallClockMs } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { linkSignals, throwIfCancelled } from '../core/waiting.ts';
import { type ChildOptions, extendJob, forkJob } from '../job/children.ts';
import { type Said, continuationOf, nextTurn, turnsOf } from '../job/conversation.ts';
import { Endings, type Told } from '../job/endings.ts';
import type { JobResult } from '../job/generate.ts';
import { JournalReader, endReason, progressOf } from '../job/journals.ts';
import { plannedTokens } from '../job/prepare.ts';
import { resultOf } from '../job/run.ts';
import { type SpecOutline, holds, sealSpec } from '../job/sealed-spec.ts';
import { type JobSpec, parseSpec } from '../job/spec.ts';
import { planOf, storedSpecOf } from '../job/stored-spec.ts';
import { createJob, wasErased } from '../kv/create.ts';
import { endJob } from '../kv/end.ts';
import { eraseJob } from '../kv/erase.ts';
import { hasResult, isTerminal } from '../kv/head.ts';
import { type JobKey, jobPrefix } from '../kv/names.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { type Queue, type SliceMessage, priorityOf } from '../ports/queue.ts';
import type { Shelf } from '../ports/shelf.ts';
import { NO_TELEMETRY, type Telemetry } from '../ports/telemetry.ts';
import { ATTRIBUTE, DESTINATION, PROVIDER, SPAN } from '../telemetry/names.ts';
import { Outbox } from '../webhook/outbox.ts';
import { Backlog } from './backlog.ts';
import { claimId, isMade } from './claims.ts';
import type { LiveFeed } from './feed.ts';
import { jobIds, keyedId, timeOf } from './ids.ts';
import { listNewest } from './listing.ts';
import { LiveJobs } from './live-jobs.ts';
import type {
  CallerOptions, ChildNames, ExtendOptions, ForkOptions, JobEvent, JobView, ListOptions, ModelView, Platform, PlatformHealth, QuoteView, SubmitOptions, Turn,
} from './platform.ts';
import { admitJob, quoteView, refuseIgnored } from './quotes.ts';
import { type JobRecord, endedMs, keyOf, messageOf, readLive, readRecord, requireThere, viewOf, withoutPlace } from './record.ts';
import { KeptRates } from './rates.ts';
import { RestoredJobs } from './restored.ts';
import { type ProgressOf, messagesFor, partsOf, withChains } from './shards.ts';
import { StoreWatch } from './store-watch.ts';
import { type EventOptions, Streams } from './stream.ts';
import { NO_WORKERS, type WorkerState } from './workers.ts';

export interface StorePlatformOptions {
  readonly store: ObjectStore;
  /** null: jobs are stored in the clear. */
  readonly keys: KeyProvider | null;
  readonly queue: Pick<Queue, 'send' | 'depth'>;
  readonly shelf: Shelf;
  /** null: no job runs in this process. */
  readonly feed: LiveFeed | null;
  /** Default: there are none in this process. */
  readonly workers?: WorkerState | undefined;
  /** A worker in this process that runs the job stops it within a step, commits what it has, and does not go on. */
  readonly letGo?: ((where: JobKey, options: CallOptions) => Promise<void>) | undefined;
  /** A job was ended from here: a worker in this process need not wait for its next commit to notice. */
  readonly onCancelled?: ((where: JobKey) => void) | undefined;
  /** Who is told that a job has ended. Default: one over `store`. */
  readonly outbox?: Outbox | undefined;
  readonly telemetry?: Telemetry | undefined;
  /** Of a machine that runs jobs, for quotes; null: not known. */
  readonly usdPerHour?: number | null | undefined;
  /** Events of a job that are kept for readers who are behind. Default: a million. */
  readonly eventsMax?: number | undefined;
  /** What the queue said so long ago or less need not be asked again. Default: 0. */
  readonly depthFreshMs?: number | undefined;
  readonly clock?: Clock | undefined;
  /** Of the wall clock, for ids and listings. */
  readonly nowMs?: (() => number) | undefined;
}

/** Encoding a journal and writing it: far less, if the store answers. */
const LET_GO_MS = 5_000;

/** Most jobs of one page of a list. */
export const LIST_MAX = 100;

/** @example new StorePlatform({ store, keys: null, queue, shelf: new NativeShelf(), feed: worker }) */
export class StorePlatform implements Platform {
  readonly #options: StorePlatformOptions;
  readonly #clock: Clock;
  readonly #nowMs: () => number;
  readonly #endings: Told;
  readonly #jobs: RestoredJobs;
  readonly #streams: Streams;
  readonly #newId = jobIds();
  readonly #backlog: Backlog;
  readonly #live: LiveJobs;
  readonly #rates: KeptRates;
  readonly #watch: StoreWatch;

  constructor(options: StorePlatformOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#endings = Endings.over(options.store, options.outbox ?? new Outbox(options), { clock: this.#clock });
    this.#jobs = new RestoredJobs(options.shelf, options.keys, this.#clock);
    this.#nowMs = options.nowMs ?? wallClockMs;
    const { store, keys, shelf, feed, queue, eventsMax, depthFreshMs: freshMs = 0 } = options;
    this.#streams = new Streams({ store, keys, shelf, feed, jobs: this.#jobs, clock: this.#clock, eventsMax });
    this.#rates = new KeptRates(store, this.#clock);
    this.#watch = new StoreWatch(store, this.#clock);
    this.#live = new LiveJobs(store, this.#clock);
    this.#backlog = new Backlog({ queue, store, clock: this.#clock, freshMs });
  }

  async submit(spec: JobSpec, { tenant, id, idempotencyKey, admit, previous, via, traceparent, signal }: SubmitOptions): Promise<JobView> {
    const { store, keys, shelf } = this.#options;
    const { where, createdMs } = this.#newKey(tenant, id);
    const said = previous === undefined ? null : await this.#said(keyOf(tenant, previous), signal);
    const parsed = parseSpec(said === null ? spec : nextTurn(parseSpec(spec), said));
    const job = await shelf.prepare(parsed, { signal });
    refuseIgnored(job);
    admitJob(job, shelf);
    const modelId = await shelf.modelId(job, { signal });
    const stored = storedSpecOf(parsed, job, modelId, said === null ? null : continuationOf(job, modelId, said));
    const text = JSON.stringify(stored);
    const sealed = await sealSpec(text, where, keys, { signal });
    const [isNew, noted] = this.#noting(admit);
    const created = await createJob(store, where, sealed, { idempotencyKey, admit: noted, createdMs, via, plan: planOf(stored, plannedTokens(job)), shards: parsed.shards, isSame: holds(text, keys, { signal }), signal });
    return await this.#announced(created.where, isNew(), traceparent, signal);
  }

  async get(id: string, { tenant, signal }: CallerOptions): Promise<JobView> {
    return await this.#view(keyOf(tenant, id), signal);
  }

  async list({ tenant, limit, after, signal }: ListOptions): Promise<{ readonly jobs: readonly JobView[]; readonly more: boolean }> {
    if (!Number.isInteger(limit) || limit < 1 || limit > LIST_MAX) throw new EngineError('ERR_OPTION', `limit must be an integer from 1 to ${LIST_MAX}; got ${limit}.`);
    if (after !== undefined) keyOf(tenant, after);
    return await listNewest(this.#options.store, { tenant, nowMs: this.#nowMs(), limit, after, signal }, async (where) => {
      try {
        const record = await readRecord(this.#options.store, where, { signal });
        const view = await viewOf(this.#options.store, record, await this.#listed(record, signal), { signal });
        // Without a worker it has nothing.
        return record.head.state === 'queued' ? view : await this.#whole(view, record, async (_, { manifest }) => manifest, signal);
      } catch (error) {
        // Never born, erased, or not to be read: one job takes no other from the list.
        if (error instanceof EngineError && ['ERR_JOB_NOT_FOUND', 'ERR_RESULT_EXPIRED', 'ERR_CHECKPOINT'].includes(error.code)) return null;
        throw error;
      }
    });
  }

  async live(most: number, { tenant, signal }: CallerOptions): Promise<number> {
    return await this.#live.count(tenant, most, { signal });
  }

  async cancel(id: string, { tenant, signal }: CallerOptions): Promise<JobView> {
    const { store, onCancelled } = this.#options;
    const where = keyOf(tenant, id);
    const { head } = await requireThere(store, where, signal);
    const parts = partsOf(where, head);
    if (!isTerminal(head.state)) await Promise.all(parts.map(async (part) => await this.#letGo(part, signal)));
    const { changed } = await endJob(store, where, 'cancelled', { clock: this.#clock, signal });
    if (changed) for (const part of parts) onCancelled?.(part);
    // A marker that stays is found by the reconciler.
    if (changed) await this.#endings.jobEnded(where, { signal }).catch(() => undefined);
    return await this.#view(where, signal);
  }

  async turns(id: string, { tenant, signal }: CallerOptions): Promise<readonly Turn[]> {
    return turnsOf(await this.#jobs.spec(await readRecord(this.#options.store, keyOf(tenant, id), { signal }), signal)) ?? [];
  }

  async endedMs(id: string, { tenant, signal }: CallerOptions): Promise<number | null> {
    const { store } = this.#options;
    const where = keyOf(tenant, id);
    return await endedMs(store, where, (await readLive(store, where, { signal })).head, { signal });
  }

  /** Also of a job whose head cannot be read, and again of one that is erased: an owner that had not noticed may have written since. */
  async erase(id: string, { tenant, signal }: CallerOptions): Promise<void> {
    const where = keyOf(tenant, id);
    try {
      const { head } = await eraseJob(this.#options.store, where, { clock: this.#clock, signal });
      for (const part of partsOf(where, head)) this.#options.onCancelled?.(part);
    } catch (error) {
      throw withoutPlace(error, id);
    }
  }

  async result(id: string, { tenant, signal }: CallerOptions): Promise<Omit<JobResult, 'timing'> | null> {
    const record = await readRecord(this.#options.store, keyOf(tenant, id), { signal });
    return isTerminal(record.head.state) ? (await this.#ended(record, signal)).result : null;
  }

  events(id: string, options: EventOptions): AsyncIterable<JobEvent> {
    return this.#streams.read(id, options);
  }

  async fork(id: string, { tenant, at, chain, width, seed, length, traceparent, signal, ...names }: ForkOptions): Promise<JobView> {
    const asked = ['fork', id, at, chain, width, seed?.toString(), length];
    return await this.#child(id, asked, { tenant, traceparent, signal }, names, (name, options) => forkJob({ at, chain, width, seed, length, as: name }, options));
  }

  async extend(id: string, { tenant, length, width, kvReadBudget, traceparent, signal, ...names }: ExtendOptions): Promise<JobView> {
    const asked = ['extend', id, length, width, kvReadBudget];
    return await this.#child(id, asked, { tenant, traceparent, signal }, names, (name, options) => extendJob({ length, width: width?.toString(), kvReadBudget, as: name }, options));
  }

  async quote(spec: JobSpec, { signal }: CallerOptions): Promise<QuoteView> {
    const { shelf, usdPerHour } = this.#options;
    const job = await shelf.prepare(parseSpec(spec), { signal });
    refuseIgnored(job);
    const elsewhere = await this.#rates.now(signal);
    return quoteView(job, shelf, { usdPerHour: usdPerHour ?? null, here: this.#workers, elsewhere });
  }

  async models({ signal }: CallerOptions): Promise<readonly ModelView[]> {
    return await this.#options.shelf.models({ signal });
  }

  async health(): Promise<PlatformHealth> {
    const { state, running } = this.#workers;
    return { state, running, ...(await this.#backlog.now()) };
  }

  async isStoreThere(): Promise<boolean> {
    return await this.#watch.isThere();
  }

  /** Of a job that is over. */
  async #ended(record: JobRecord, signal: AbortSignal | undefined): Promise<Pick<Said, 'prepared' | 'result'>> {
    const { store, keys, shelf } = this.#options;
    const { head, manifest, where } = record;
    const prepared = await this.#jobs.restore(record, signal);
    using journals = new JournalReader({ store, where, keys, decode: shelf.decodeJournals });
    // It is written no more: what its head names stays until it is erased.
    const report = await journals.read(prepared, head, manifest, signal);
    return { prepared, result: await resultOf(prepared, report, endReason(head.state, manifest)) };
  }

  async #said(where: JobKey, signal: AbortSignal | undefined): Promise<Said> {
    const record = await readRecord(this.#options.store, where, { signal });
    const { head: { state }, manifest } = record;
    if (!hasResult(state) || manifest === null) throw new EngineError('ERR_OPTION', `previous must have ended with an answer; it is ${state}.`);
    return { job: where.job, version: manifest.version, stored: await this.#jobs.spec(record, signal), ...(await this.#ended(record, signal)) };
  }

  /** What readers here were told ahead of the store is committed first, so that it is in what the job leaves. One that takes too long is fenced. */
  async #letGo(where: JobKey, signal: AbortSignal | undefined): Promise<void> {
    using late = this.#clock.timeout(LET_GO_MS);
    using stop = linkSignals(signal, late.signal);
    await this.#options.letGo?.(where, { signal: stop.signal }).catch(() => undefined);
    throwIfCancelled(signal);
  }

  get #workers(): WorkerState {
    return this.#options.workers ?? NO_WORKERS;
  }

  /** @throws EngineError ERR_OPTION: no name of a tenant or a job. */
  #newKey(tenant: string, id: string | undefined): { readonly where: JobKey; readonly createdMs: number } {
    const nowMs = this.#nowMs();
    const job = id ?? this.#newId(nowMs);
    jobPrefix({ tenant, job });
    return { where: { tenant, job }, createdMs: id === undefined ? (timeOf(job) ?? nowMs) : nowMs };
  }

  async #child(
    id: string, asked: readonly unknown[], { tenant, traceparent, signal }: CallerOptions, { as, idempotencyKey: key, admit: room }: ChildNames, make: (name: string, options: ChildOptions) => Promise<JobKey>,
  ): Promise<JobView> {
    const { store, keys, shelf } = this.#options;
    const parent = keyOf(tenant, id);
    const name = as ?? (key === undefined ? undefined : keyedId(tenant, key));
    const { where, createdMs } = this.#newKey(tenant, name);
    const claim = { tenant, what: 'child' as const, key: where.job, body: [JSON.stringify(asked)], id: where.job };
    // A repetition needs the parent no more.
    if (name !== undefined && (await isMade(store, where, claim, { signal }))) return await this.#announced(where, false, traceparent, signal);
    await readLive(store, parent, { signal });
    const [isNew, noted] = this.#noting(room);
    const made = await make(where.job, {
      store,
      where: parent,
      keys,
      createdMs,
      room: noted,
      admit: async (child) => {
        const job = await shelf.restore(child, id, { signal });
        admitJob(job, shelf);
        return plannedTokens(job);
      },
      signal,
    });
    // Only then: a request that was refused claims nothing.
    if (name !== undefined) await claimId(store, claim, { clock: this.#clock, signal }).catch(() => undefined);
    return await this.#announced(made, isNew(), traceparent, signal);
  }

  async #view(where: JobKey, signal: AbortSignal | undefined): Promise<JobView> {
    const { store, keys } = this.#options;
    const record = await readRecord(store, where, { signal });
    const { head, manifest } = record;
    const progress: ProgressOf = async (at, found) => await progressOf(store, at, keys, found, { signal });
    const view = await viewOf(store, record, await this.#jobs.outline(record, signal), { progress: manifest === null ? null : await progress(where, { head, manifest }), signal });
    return await this.#whole(view, record, progress, signal);
  }

  /** Of a sharded job whose chains have not been put together yet, with those of its shards. */
  async #whole(view: JobView, { head }: JobRecord, progress: ProgressOf, signal: AbortSignal | undefined): Promise<JobView> {
    return head.join === undefined || hasResult(head.state) ? view : await withChains(this.#options.store, view, head, progress, { signal });
  }

  /** A job under a key that is not ours takes no other from the list. */
  async #listed(record: JobRecord, signal: AbortSignal | undefined): Promise<SpecOutline> {
    try {
      return await this.#jobs.outline(record, signal);
    } catch (error) {
      if (error instanceof EngineError && error.code === 'ERR_KEY') return record.spec;
      throw error;
    }
  }

  /** Who is asked for room makes a job; a repetition is not, and makes none. */
  #noting(admit: SubmitOptions['admit']): readonly [() => boolean, () => Promise<void>] {
    let isNew = false;
    return [() => isNew, async () => {
      await admit?.();
      isNew = true;
    }];
  }

  /**
   * The job is there, whatever becomes of the message: the reconciler finds what no worker has heard of.
   * @throws EngineError ERR_JOB_CONFLICT, a NameConflict: somebody erased it meanwhile.
   */
  async #announced(where: JobKey, isNew: boolean, traceparent: string | undefined, signal: AbortSignal | undefined): Promise<JobView> {
    const { store } = this.#options;
    const record = await readRecord(store, where, { signal }).catch((error: unknown) => {
      throw error instanceof EngineError && error.code === 'ERR_JOB_NOT_FOUND' ? wasErased(where) : error;
    });
    if (!isTerminal(record.head.state)) {
      if (isNew) this.#live.made(where.tenant);
      const message = await messageOf(store, where, record.head, record.spec, { signal });
      for (const each of messagesFor(message, record.head)) await this.#send(each, traceparent, signal).catch(() => undefined);
      if (record.head.state === 'queued') this.#backlog.sent(where, priorityOf(message));
    }
    return await viewOf(store, record, await this.#jobs.outline(record, signal), { signal });
  }

  async #send(message: SliceMessage, parent: string | undefined, signal: AbortSignal | undefined): Promise<void> {
    const { queue, telemetry = NO_TELEMETRY } = this.#options;
    const { tenant, job } = message;
    const span = telemetry.start(SPAN.SEND, { kind: 'producer', parent, attributes: {
      [ATTRIBUTE.MESSAGING_SYSTEM]: PROVIDER, [ATTRIBUTE.MESSAGING_OPERATION]: 'send', [ATTRIBUTE.MESSAGING_DESTINATION]: DESTINATION, [ATTRIBUTE.TENANT]: tenant, [ATTRIBUTE.JOB]: job,
    } });
    let error: string | null = 'ERR_QUEUE';
    try {
      await queue.send(span.traceparent === undefined ? message : { ...message, traceparent: span.traceparent }, { signal });
      error = null;
    } finally {
      span.end(error);
    }
  }
}
