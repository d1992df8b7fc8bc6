/** What the store says of one job at one moment, and how anyone may see it. */
import { EngineError } from '../core/errors.ts';
import type { FinishReason } from '../job/generate.ts';
import type { Progress } from '../job/journals.ts';
import { type SpecOutline, outlineOf } from '../job/sealed-spec.ts';
import { type JobSpec, modelName } from '../job/spec.ts';
import { readJob } from '../kv/create.ts';
import { isOverdue } from '../kv/erase.ts';
import { type Head, hasResult, isTerminal } from '../kv/head.ts';
import type { Manifest } from '../kv/manifest.ts';
import { type JobKey, isNamePart, jobPrefix, rootOf, specName } from '../kv/names.ts';
import { readHead, readSpec, type StoredHead } from '../kv/read.ts';
import { isUnreadable } from '../kv/reason.ts';
import { readStrikes } from '../kv/strikes.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import type { SliceMessage } from '../ports/queue.ts';
import { drawnMs } from './ids.ts';
import type { JobView, OfferedTools } from './platform.ts';
import { readKeep } from './retention.ts';

/** What a view shows of a spec. */
export const SHOWN_FIELDS = [
  'model', 'variant', 'sampling', 'format', 'logprobs', 'instructions', 'metadata', 'user', 'repeated', 'tools', 'tool_choice', 'parallel_tool_calls',
] as const satisfies readonly (keyof JobSpec)[];

export interface JobRecord {
  readonly where: JobKey;
  readonly head: Head;
  readonly manifest: Manifest | null;
  /** Of one that cannot be read: nothing. */
  readonly spec: SpecOutline;
  /** As it is stored: sealed where the job is. */
  readonly specText: string;
  /** Why the spec cannot be read, and never will be; null: it is there. */
  readonly lost: EngineError | null;
}

/** What is known of a job whose spec is damaged or lost. */
const NO_OUTLINE: SpecOutline = { spec: { model: '' }, lengths: [], model_id: '', parent: null, prompt: null };

/** An id from outside, which is no name of a job if it cannot be one. @throws EngineError ERR_JOB_NOT_FOUND. */
export function keyOf(tenant: string, id: string): JobKey {
  if (!isNamePart(id)) throw notFound(id);
  return { tenant, job: id };
}

/** Also of a job whose spec is damaged or lost: how it stands is for its head to say. @throws EngineError ERR_JOB_NOT_FOUND: never created, another tenant's, or erased; ERR_RESULT_EXPIRED; ERR_CHECKPOINT; ERR_STORE; ERR_CANCELLED. */
export async function readRecord(store: ObjectStore, where: JobKey, options: CallOptions = {}): Promise<JobRecord> {
  const { head, manifest } = await readLive(store, where, options);
  try {
    const specText = await readSpec(store, where, head.spec, options);
    return { where, head, manifest, spec: outlineOf(specText), specText, lost: null };
  } catch (error) {
    if (!(error instanceof EngineError) || !isUnreadable(error)) throw error;
    // Erased between the two reads? A spec is named by the head for as long as the job is there.
    return { where, ...(await readLive(store, where, options)), spec: NO_OUTLINE, specText: '', lost: error };
  }
}

/** The head and its manifest. One that was ended, by a worker because its manifest cannot be read or by somebody else, has none. @throws EngineError as `readRecord`. */
export async function readLive(store: ObjectStore, where: JobKey, options: CallOptions = {}): Promise<Pick<JobRecord, 'head' | 'manifest'>> {
  const found = await readJob(store, where, options).catch(async (error: unknown) => {
    const head = isUnreadable(error) ? (await readHead(store, where, options))?.head : undefined;
    if (head !== undefined && isTerminal(head.state) && !hasResult(head.state)) return { head, manifest: null };
    throw withoutPlace(error, where.job);
  });
  refuseErased(found.head);
  return found;
}

/** Only the head, for little. @throws EngineError ERR_JOB_NOT_FOUND, ERR_RESULT_EXPIRED, ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED. */
export async function requireThere(store: ObjectStore, where: JobKey, signal: AbortSignal | undefined): Promise<StoredHead> {
  const found = await readHead(store, where, { signal });
  if (found === null) throw notFound(where.job);
  refuseErased(found.head);
  return found;
}

/** @throws EngineError ERR_RESULT_EXPIRED, ERR_JOB_NOT_FOUND. */
export function refuseErased(head: Head): void {
  if (isOverdue(head)) throw new EngineError('ERR_RESULT_EXPIRED', `The job ${head.job} ended; what it left was kept for as long as this platform keeps results, and is gone.`);
  if (head.state === 'erased') throw notFound(head.job);
}

/** Where the store lies is nobody's business who asks for a job that is not there. */
export function withoutPlace(error: unknown, id: string): unknown {
  return error instanceof EngineError && error.code === 'ERR_JOB_NOT_FOUND' ? notFound(id) : error;
}

/**
 * @param progress as of what the head names; default: as of its last manifest.
 * @param spec as it was asked for, opened where it is sealed; of one that nobody here can open, what it shows.
 */
export async function viewOf(store: ObjectStore, { where, head, manifest }: JobRecord, spec: SpecOutline, { progress = manifest, ...options }: CallOptions & { readonly progress?: Progress | null } = {}): Promise<JobView> {
  const asked = spec.spec as Pick<JobSpec, (typeof SHOWN_FIELDS)[number]>;
  return {
    id: where.job,
    state: head.state,
    model: modelName(asked),
    createdMs: await createdMs(store, where, head, options),
    slice: head.slice,
    epoch: head.epoch,
    step: progress?.step ?? 0,
    chains: progress?.chains.map(({ tokens, finish }) => ({ tokens, finish })) ?? spec.lengths.map(() => ({ tokens: 0, finish: null })),
    ended: isTerminal(head.state) ? endedBy(head, manifest) : null,
    parent: spec.parent === null ? null : { job: rootOf({ ...where, job: spec.parent.job }).job, kind: spec.parent.kind },
    cachedTokens: cachedTokens(spec, manifest),
    tools: toolsOf(asked),
    metadata: asked.metadata ?? null,
    user: asked.user ?? null,
    asked: {
      temperature: asked.sampling?.temperature ?? null,
      topP: asked.sampling?.top_p ?? null,
      format: asked.format ?? null,
      logprobs: asked.logprobs ?? null,
      instructions: asked.instructions ?? null,
      repeated: asked.repeated ?? null,
    },
    length: Math.max(0, ...spec.lengths),
    expiresMs: isTerminal(head.state) ? ((await readKeep(store, where, options))?.untilMs ?? null) : null,
    evidence: head.state === 'poisoned' || head.state === 'failed' ? await readStrikes(store, where, options) : null,
  };
}

function toolsOf({ tools = [], tool_choice: choice, parallel_tool_calls: parallel }: Partial<JobSpec>): OfferedTools | null {
  return tools.length === 0 ? null : { tools, choice: choice ?? 'auto', parallel: parallel ?? true };
}

/** A chain that was cut says by what; of a job whose chains all ended by themselves, the one that stopped because it was done. */
function endedBy({ state }: Head, manifest: Manifest | null): FinishReason | string {
  if (state !== 'done' && state !== 'incomplete') return state;
  if (manifest === null) return 'deadline';
  const finishes = manifest.chains.map(({ finish }) => finish);
  return manifest.ended ?? ['kv_read_budget', 'memory', 'stop'].find((finish) => finishes.includes(finish)) ?? 'length';
}

/** As the first slice found it: a later one goes on from the job's own checkpoint. */
function cachedTokens({ parent }: SpecOutline, manifest: Manifest | null): number {
  const first = manifest?.slices[0];
  return parent?.kind === 'continue' && manifest !== null && first?.outcome === 'restored' ? manifest.promptTokens - first.recomputed : 0;
}

/** Of the wall clock, a whole number, though a store's clock may be finer. A job that its client has named was made when its spec was written, whatever its name says. 0: the store has no clock. */
async function createdMs(store: ObjectStore, where: JobKey, { spec }: Head, options: CallOptions): Promise<number> {
  const root = rootOf(where);
  const drawn = drawnMs(root.job);
  if (drawn !== null) return drawn;
  for await (const { writtenAtMs } of store.list(jobPrefix(root) + specName(spec), options)) return Math.floor(writtenAtMs ?? 0);
  return 0;
}

/** Of the wall clock: when its last manifest was written or, of one that was made anew without the KV, when its end was told. null: it has not ended, or the store has no clock. */
export async function endedMs(store: ObjectStore, where: JobKey, { state, manifest }: Head, options: CallOptions): Promise<number | null> {
  if (!isTerminal(state)) return null;
  const keep = await readKeep(store, where, options);
  for await (const { writtenAtMs } of manifest === null ? [] : store.list(jobPrefix(where) + manifest.name, options)) {
    if (writtenAtMs !== undefined && writtenAtMs < (keep?.kvUntilMs ?? Infinity)) return writtenAtMs;
  }
  return keep?.endedMs ?? null;
}

/** What a worker is told of the job: which slice it wants, how urgent it is, and until when it may wait for its first. */
export async function messageOf(store: ObjectStore, where: JobKey, head: Head, spec: Pick<SpecOutline, 'spec'>, options: CallOptions = {}): Promise<SliceMessage> {
  const { priority } = spec.spec as Pick<JobSpec, 'priority'>;
  const expiresMs = await dueMsOf(store, where, head, spec, options);
  return {
    v: 1, tenant: where.tenant, job: where.job, slice: head.slice,
    ...(priority === 'batch' ? { priority } : {}),
    ...(expiresMs === null ? {} : { expiresMs }),
  };
}

/** Of the wall clock: until when it may wait for its first worker. null: for ever, because nobody said or the store has no clock; or it has begun. */
export async function dueMsOf(store: ObjectStore, where: JobKey, head: Head, spec: Pick<SpecOutline, 'spec'>, options: CallOptions = {}): Promise<number | null> {
  const { wait_ms_max: waitMsMax } = spec.spec as Pick<JobSpec, 'wait_ms_max'>;
  const madeMs = waitMsMax === undefined || head.state !== 'queued' ? 0 : await createdMs(store, where, head, options);
  return waitMsMax === undefined || madeMs === 0 ? null : madeMs + waitMsMax;
}

export function notFound(id: string): EngineError {
  return new EngineError('ERR_JOB_NOT_FOUND', `There is no job ${JSON.stringify(id.slice(0, 80))}.`);
}
