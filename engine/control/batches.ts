/**
 * Batches: a file of requests as jobs. Everything that is stored of one is written once (`batches/<tenant>/<id>/`: batch, verdict, stop, end),
 * each by whoever comes first; how far it is follows from which of them are there and from its jobs' heads. So any instance may go on
 * with any batch, several at once, and one that dies leaves nothing to clean up. Whoever asks for a batch moves it on, and a walk moves all.
 */
import { joined } from '../core/bytes.ts';
import { type Clock, systemClock, wallClockMs } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { areRequestsIsolated } from '../core/host.ts';
import { LIMITS } from '../core/limits.ts';
import { nextTurn } from '../core/turns.ts';
import { inParallel, unlessCancelled, untilAborted } from '../core/waiting.ts';
import { isTerminal, type JobState } from '../kv/head.ts';
import { isNamePart, tenantPrefix } from '../kv/names.ts';
import { readHead } from '../kv/read.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { Outbox } from '../webhook/outbox.ts';
import { writeAnswers } from './batch-answers.ts';
import { type BatchEndpoint, type Line, judgeLines, lineJobId, parseLines } from './batch-lines.ts';
import { type BatchState, type BatchView, WINDOW_MS, batchView, isOver } from './batch-view.ts';
import { type BlobPlace, BlobWriter, readBlob } from './blob.ts';
import { claimId } from './claims.ts';
import { type Files, idsUnder } from './files.ts';
import { indexAfter, jobIds, timeOf } from './ids.ts';
import type { CallerOptions, ListOptions, Platform } from './platform.ts';
import { type BatchRecord, type End, batchRecord, endRecord, readOnce, stopRecord, verdictRecord, writeOnce } from './records.ts';

export interface BatchesOptions {
  readonly store: ObjectStore;
  /** null: stored in the clear, as jobs are. */
  readonly keys: KeyProvider | null;
  readonly files: Files;
  readonly platform: Platform;
  readonly endpoints: readonly BatchEndpoint[];
  /** What kept a batch from going on; whoever asks next tries again. */
  readonly onTrouble?: ((batch: string, error: unknown) => void) | undefined;
  /** Who is told that a batch has ended. Default: one over `store`. */
  readonly outbox?: Outbox | undefined;
  /** How long whoever asks waits for a batch to be moved on. */
  readonly waitMs?: number | undefined;
  readonly clock?: Clock | undefined;
  /** Of the wall clock, for ids, times and the window of a day: the machines of a day have no other. */
  readonly nowMs?: (() => number) | undefined;
}

export interface BatchAsk extends CallerOptions {
  readonly endpoint: string;
  readonly inputFileId: string;
  readonly metadata: Readonly<Record<string, string>> | null;
  /** Two calls with one key and body make one batch. */
  readonly idempotencyKey?: string | undefined;
  /** Asked before one is made; what it throws refuses the batch. */
  readonly admit?: (() => Promise<void>) | undefined;
}

interface Key {
  readonly tenant: string;
  readonly id: string;
}

const ID_PREFIX = 'batch_';
const ID = /^batch_[0-9A-HJKMNP-TV-Z]{26}$/;
const RECORD = 'batch.json';
/** Markers of batches that have not ended: hints for whoever walks, as `live/` is for jobs. */
const OPEN = 'open/batches/';
const MOVES_AT_ONCE = 2;
/** Between the marker and the batch there is one write. */
const BIRTH_MS_MAX = 3_600_000;
/** Below what proxies and clients wait for. */
const WAIT_MS = 2_000;
/** Judging, making or answering every line of the longest batch; what is done by then stays. */
const MOVE_MS_MAX = 10 * 60_000;
/** Heads at a time, jobs at a time, and jobs between two looks at whether it was stopped. */
const HEADS_AT_ONCE = 8;
const JOBS_AT_ONCE = 4;
const JOBS_A_LOOK = 32;

/** @example new Batches({ store, keys: null, files, platform, endpoints: [chatEndpoint] }) */
export class Batches {
  readonly #o: BatchesOptions;
  readonly #clock: Clock;
  readonly #nowMs: () => number;
  readonly #newId = jobIds();
  readonly #outbox: Outbox;
  /** One move of a batch at a time in this process. */
  readonly #moves = new Map<string, Promise<BatchView>>();

  constructor(options: BatchesOptions) {
    this.#o = options;
    this.#outbox = options.outbox ?? new Outbox(options);
    this.#clock = options.clock ?? systemClock;
    this.#nowMs = options.nowMs ?? wallClockMs;
  }

  /**
   * Its lines are looked at before any of them runs; with faults the batch is `failed` and names them.
   * @throws EngineError ERR_FILE_NOT_FOUND; ERR_OPTION: no such endpoint, or the file is none to be read; ERR_JOB_CONFLICT: the key was for another
   * batch; ERR_STORE; ERR_CANCELLED.
   */
  async create({ endpoint, inputFileId, metadata, idempotencyKey, admit, tenant, signal }: BatchAsk): Promise<BatchView> {
    this.#endpoint(endpoint);
    const key = { tenant, id: `batch_${this.#newId(this.#nowMs())}` };
    if (idempotencyKey !== undefined) {
      const body = [endpoint, inputFileId, JSON.stringify(Object.entries(metadata ?? {}).sort(([a], [b]) => (a < b ? -1 : 1)))];
      key.id = await claimId(this.#o.store, { tenant, what: 'batch', key: idempotencyKey, body, id: key.id }, { clock: this.#clock, signal });
      // Its file may be gone by now.
      if ((await this.#o.store.head(keyOf(key, RECORD), { signal })) !== null) return await this.#moved(key, signal);
    }
    await admit?.();
    const { file, content } = await this.#o.files.read(inputFileId, { tenant, signal });
    if (file.bytes > LIMITS.FILE_BYTES_MAX) throw new EngineError('ERR_OPTION', `input_file_id must be a file of at most ${LIMITS.FILE_BYTES_MAX} bytes; got ${file.bytes}.`);
    const writer = await BlobWriter.open(this.#place(key), { signal });
    for await (const chunk of content) await writer.add(chunk);
    const createdMs = timeOf(key.id.slice(ID_PREFIX.length)) ?? this.#nowMs();
    const asked: BatchRecord = { kind: 'batch', ...key, createdMs, endpoint, inputFileId, metadata, input: await writer.close() };
    // Before the batch: one that was made is found, whatever died.
    await this.#o.store.put(openKey(key), [], { signal });
    const record = await writeOnce(this.#o.store, keyOf(key, RECORD), batchRecord, asked, { clock: this.#clock, signal });
    if (record.input.nonce !== asked.input.nonce) await writer.discard();
    // From here on the batch is there: what fails now is no reason to ask for another one.
    return await this.#moved(key, signal).catch(() => batchView({ record, verdict: null, stop: null, end: null }, []));
  }

  /** @throws EngineError ERR_BATCH_NOT_FOUND, ERR_STORE, ERR_CANCELLED. */
  async get(id: string, { tenant, signal }: CallerOptions): Promise<BatchView> {
    return await this.#moved(await this.#known(id, tenant, signal), signal);
  }

  /**
   * Moves every batch on that has not ended, of all tenants: for whoever keeps a server going. Any number of walks may run at once.
   * @throws EngineError ERR_STORE, ERR_CANCELLED; what keeps one batch from going on is for `onTrouble`.
   */
  async walk({ signal }: CallOptions = {}): Promise<void> {
    const found: Key[] = [];
    for await (const { key } of this.#o.store.list(OPEN, { signal })) {
      const [tenant = '', id = '', ...rest] = key.slice(OPEN.length).split('/');
      if (ID.test(id) && isNamePart(tenant) && rest.length === 0) found.push({ tenant, id });
    }
    await inParallel(found.length, MOVES_AT_ONCE, signal, async (i, stop) => {
      const key = found[i] as Key;
      try {
        const isBorn = (await this.#o.store.head(keyOf(key, RECORD), { signal: stop })) !== null;
        const view = isBorn ? await unlessCancelled(this.#moving(key), stop) : null;
        // Whoever was about to make it died, or to close it.
        const isStillborn = !isBorn && this.#nowMs() - (timeOf(key.id.slice(ID_PREFIX.length)) ?? 0) > BIRTH_MS_MAX;
        if (isStillborn) await this.#close(key, null, stop);
        if (view !== null && isEnd(view.status)) await this.#close(key, view.status, stop);
      } catch (error) {
        if (stop.aborted) throw error;
      }
    });
  }

  /** Newest first, as they are: nothing is moved on. */
  async list({ tenant, limit, after, signal }: ListOptions): Promise<{ readonly batches: readonly BatchView[]; readonly more: boolean }> {
    const ids = (await idsUnder(this.#o.store, folderOf(tenant), RECORD, { signal })).toReversed();
    if (after !== undefined && !ID.test(after)) throw notFound();
    const start = indexAfter(ids, after, 'desc');
    const page = ids.slice(start, start + limit);
    const batches = await inParallel(page.length, JOBS_AT_ONCE, signal, async (i, stop) => await this.#look({ tenant, id: page[i] ?? '' }, stop));
    return { batches, more: ids.length > start + limit };
  }

  /** Idempotent; a batch that has ended stays as it ended. What its jobs have answered by then is its output. */
  async cancel(id: string, { tenant, signal }: CallerOptions): Promise<BatchView> {
    const key = await this.#known(id, tenant, signal);
    const { verdict, end } = await this.#read(key, signal);
    if (end === null && !(verdict !== null && verdict.faults.length > 0)) await this.#stop(key, 'cancelled', signal);
    // A move that began before the stop was there may have missed it.
    if (this.#moves.has(keyOf(key, ''))) await this.#moved(key, signal);
    return await this.#moved(key, signal);
  }

  /** As it is after being moved on for a while; the rest goes on in this process, or with whoever asks next. */
  async #moved(key: Key, signal: AbortSignal | undefined): Promise<BatchView> {
    const move = this.#moving(key);
    const over = new AbortController();
    let moved: BatchView | null = null;
    const settle = (view: BatchView | null) => {
      moved = view;
      over.abort();
    };
    move.then(settle, () => settle(null));
    await untilAborted(this.#clock, this.#o.waitMs ?? WAIT_MS, over.signal, signal);
    return moved ?? await this.#look(key, signal);
  }

  #moving(key: Key): Promise<BatchView> {
    const name = keyOf(key, '');
    return this.#moves.get(name) ?? this.#start(name, key);
  }

  #start(name: string, key: Key): Promise<BatchView> {
    const timer = this.#clock.timeout(MOVE_MS_MAX);
    const move = this.#move(key, timer.signal).finally(() => {
      timer[Symbol.dispose]();
      this.#moves.delete(name);
    });
    // Where a request ends with all that it waits for, no other may wait for it.
    if (!areRequestsIsolated) this.#moves.set(name, move);
    move.catch((error: unknown) => this.#o.onTrouble?.(key.id, error));
    return move;
  }

  async #move(key: Key, signal: AbortSignal): Promise<BatchView> {
    const found = await this.#read(key, signal);
    const state = await this.#judged(found, signal);
    const { record, verdict, end } = state;
    if (end !== null || verdict.faults.length > 0) {
      if (found.verdict === null) await this.#close(key, 'failed', signal);
      return batchView(state, []);
    }
    const isLate = this.#nowMs() >= record.createdMs + WINDOW_MS;
    const stop = state.stop ?? (isLate ? await this.#stop(key, 'expired', signal) : null);
    const jobs = await this.#jobs(key, verdict.lines, signal);
    if (isOver(jobs, stop !== null)) return await this.#ended({ ...state, stop }, jobs, signal);
    if (stop === null && jobs.every((job) => job !== null)) return batchView(state, jobs);
    if (stop === null) await this.#makeJobs(state, jobs, signal);
    // Made by another meanwhile, or by us after our last look: a stop is a stop.
    const after = await this.#read(key, signal);
    if (after.stop !== null) await this.#cancelJobs(key, verdict.lines, signal);
    const now = await this.#jobs(key, verdict.lines, signal);
    return isOver(now, after.stop !== null) ? await this.#ended(after, now, signal) : batchView(after, now);
  }

  async #judged(state: BatchState, signal: AbortSignal): Promise<BatchState & { readonly verdict: NonNullable<BatchState['verdict']> }> {
    const { record, verdict } = state;
    if (verdict !== null) return { ...state, verdict };
    const { tenant, id } = record;
    const endpoint = this.#endpoint(record.endpoint);
    const parsed = await parseLines(await this.#input(record, signal), record.endpoint);
    const faults = parsed.faults.length > 0 ? parsed.faults : await judgeLines(parsed.lines, endpoint, this.#o.platform, { tenant, signal });
    const found = { kind: 'verdict' as const, tenant, id, atMs: this.#nowMs(), lines: parsed.lines.length, faults: faults.slice(0, LIMITS.BATCH_FAULTS_MAX) };
    return { ...state, verdict: await writeOnce(this.#o.store, keyOf(record, 'verdict.json'), verdictRecord, found, { clock: this.#clock, signal }) };
  }

  async #makeJobs({ record }: BatchState, jobs: readonly (JobState | null)[], signal: AbortSignal): Promise<void> {
    const { tenant } = record;
    const lines = await this.#lines(record, signal);
    const missing = jobs.flatMap((job, i) => (job === null ? [i] : []));
    for (let first = 0; first < missing.length; first += JOBS_A_LOOK) {
      if ((await this.#read(record, signal)).stop !== null) return;
      const some = missing.slice(first, first + JOBS_A_LOOK);
      await inParallel(some.length, JOBS_AT_ONCE, signal, async (n, stop) => {
        const index = some[n] ?? 0;
        await nextTurn();
        try {
          const { spec } = await this.#endpoint(record.endpoint).parse(lines[index]?.body, { tenant, signal: stop });
          await this.#o.platform.submit({ ...spec, priority: 'batch' }, { tenant, id: lineJobId(record.id, index), via: 'batch', signal: stop });
        } catch (error) {
          // One line that is refused now, though it was not when it was judged, does not keep the others waiting; it is tried again.
          if (stop.aborted || !(error instanceof EngineError) || error.code === 'ERR_STORE') throw error;
          this.#o.onTrouble?.(record.id, error);
        }
      });
    }
  }

  async #cancelJobs(key: Key, lines: number, signal: AbortSignal): Promise<void> {
    const jobs = await this.#jobs(key, lines, signal);
    const living = jobs.flatMap((state, i) => (state === null || isTerminal(state) ? [] : [lineJobId(key.id, i)]));
    await inParallel(living.length, JOBS_AT_ONCE, signal, async (n, stop) => {
      await this.#o.platform.cancel(living[n] ?? '', { tenant: key.tenant, signal: stop }).catch(unlessGone);
    });
  }

  async #ended(state: BatchState, jobs: readonly (JobState | null)[], signal: AbortSignal): Promise<BatchView> {
    const { record, stop } = state;
    const { store, files, platform } = this.#o;
    const written = await writeAnswers({ record, stop, jobs, lines: await this.#lines(record, signal), endpoint: this.#endpoint(record.endpoint), files, platform, nowMs: this.#nowMs, signal });
    const end = await writeOnce(store, keyOf(record, 'end.json'), endRecord, {
      kind: 'end', tenant: record.tenant, id: record.id, atMs: this.#nowMs(), status: stop?.why ?? 'completed', ...written,
    }, { clock: this.#clock, signal });
    await this.#close(record, end.status, signal);
    return batchView({ ...state, end }, []);
  }

  /** Nothing of it will change: who waits for its end is told, its copy of the prompts is needed no more, and no walk need find it. */
  async #close(key: Key, as: End['status'] | 'failed' | null, signal: AbortSignal): Promise<void> {
    const { store } = this.#o;
    try {
      if (as !== null) await this.#outbox.batchEnded(key.tenant, key.id, `batch.${as}`, { signal });
      const pieces: string[] = [];
      for await (const object of store.list(keyOf(key, ''), { signal })) if (!object.key.endsWith('.json')) pieces.push(object.key);
      if (pieces.length > 0) await store.delete(pieces, { signal });
      await store.delete([openKey(key)], { signal });
    } catch {
      // The marker stays, and with it the walk comes again.
    }
  }

  async #look(key: Key, signal: AbortSignal | undefined): Promise<BatchView> {
    const state = await this.#read(key, signal);
    return batchView(state, state.end === null && state.verdict?.faults.length === 0 ? await this.#jobs(key, state.verdict.lines, signal) : []);
  }

  /** null: the job was not made. */
  async #jobs({ tenant, id }: Key, lines: number, signal: AbortSignal | undefined): Promise<readonly (JobState | null)[]> {
    return await inParallel(lines, HEADS_AT_ONCE, signal, async (i, stop) => {
      try {
        return (await readHead(this.#o.store, { tenant, job: lineJobId(id, i) }, { signal: stop }))?.head.state ?? null;
      } catch (error) {
        // One that cannot be read will not go on either.
        if (error instanceof EngineError && error.code === 'ERR_CHECKPOINT') return 'failed';
        throw error;
      }
    });
  }

  async #stop(key: Key, why: 'cancelled' | 'expired', signal: AbortSignal | undefined): Promise<NonNullable<BatchState['stop']>> {
    return await writeOnce(this.#o.store, keyOf(key, 'stop.json'), stopRecord, { kind: 'stop', ...key, atMs: this.#nowMs(), why }, { clock: this.#clock, signal });
  }

  /** @throws EngineError ERR_BATCH_NOT_FOUND: none, or another tenant's. */
  async #known(id: string, tenant: string, signal: AbortSignal | undefined): Promise<Key> {
    if (!ID.test(id)) throw notFound();
    if ((await this.#o.store.head(keyOf({ tenant, id }, RECORD), { signal })) === null) throw notFound();
    return { tenant, id };
  }

  /** The end is read first: with it nothing else changes. */
  async #read({ tenant, id }: Key, signal: AbortSignal | undefined): Promise<BatchState> {
    const { store } = this.#o;
    const key = { tenant, id };
    const end = await readOnce(store, keyOf(key, 'end.json'), endRecord, key, { signal });
    const stop = await readOnce(store, keyOf(key, 'stop.json'), stopRecord, key, { signal });
    const verdict = await readOnce(store, keyOf(key, 'verdict.json'), verdictRecord, key, { signal });
    const record = await readOnce(store, keyOf(key, RECORD), batchRecord, key, { signal });
    if (record === null) throw notFound();
    return { record, verdict, stop, end };
  }

  async #lines(record: BatchRecord, signal: AbortSignal): Promise<readonly Line[]> {
    return (await parseLines(await this.#input(record, signal), record.endpoint)).lines;
  }

  async #input(record: BatchRecord, signal: AbortSignal): Promise<Uint8Array> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of readBlob(this.#place(record), record.input, { signal })) chunks.push(chunk);
    return joined(chunks);
  }

  #endpoint(url: string): BatchEndpoint {
    const found = this.#o.endpoints.find((endpoint) => endpoint.url === url);
    if (found === undefined) throw new EngineError('ERR_OPTION', `endpoint must be one of ${this.#o.endpoints.map((endpoint) => endpoint.url).join(', ')}.`);
    return found;
  }

  #place({ tenant, id }: Key): BlobPlace {
    const { store, keys } = this.#o;
    return { store, keys, tenant, id, prefix: keyOf({ tenant, id }, '') };
  }
}

function folderOf(tenant: string): string {
  // Checks the name.
  tenantPrefix(tenant);
  return `batches/${tenant}/`;
}

function keyOf({ tenant, id }: Key, name: string): string {
  return `${folderOf(tenant)}${id}/${name}`;
}

function isEnd(status: BatchView['status']): status is End['status'] | 'failed' {
  return status === 'completed' || status === 'cancelled' || status === 'expired' || status === 'failed';
}

function openKey({ tenant, id }: Key): string {
  return `${OPEN}${tenant}/${id}`;
}

/** Erased meanwhile: it does not run. */
function unlessGone(error: unknown): void {
  if (!(error instanceof EngineError && ['ERR_JOB_NOT_FOUND', 'ERR_RESULT_EXPIRED'].includes(error.code))) throw error;
}

function notFound(): EngineError {
  return new EngineError('ERR_BATCH_NOT_FOUND', 'There is no such batch.');
}
