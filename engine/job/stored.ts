/**
 * Jobs that live in a store: begun, gone on with, forked, extended. Each of these can be stopped or killed at any moment and asked for again,
 * here or on another machine; the result is that of a run that was never disturbed.
 */
import { type Clock, systemClock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { createJob, readJob } from '../kv/create.ts';
import { collectGarbage } from '../kv/gc.ts';
import { isTerminal, type Head } from '../kv/head.ts';
import { liveKey } from '../kv/hints.ts';
import type { Lease } from '../kv/lease.ts';
import type { Manifest } from '../kv/manifest.ts';
import type { JobKey } from '../kv/names.ts';
import { readObject, readSpec } from '../kv/read.ts';
import { openKeys } from '../kv/seal.ts';
import { takeJob } from '../kv/take.ts';
import { modelIdOf } from '../model/identity.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import { decodeJournals, type EngineIdentity, type RunReport } from '../runtime/native.ts';
import { checkpointOf } from './checkpoint.ts';
import { type CheckpointPolicy, DEFAULT_POLICY, commitIntervalMs } from './checkpointer.ts';
import type { FinishReason, GenerateOptions } from './generate.ts';
import { type PreparedJob } from './prepare.ts';
import { resultOf } from './run.ts';
import { type OpenedJob, Session } from './session.ts';
import { type SliceOutcome, checkIdentity, isOwnerGone, ownerHint, resumptions, runSlice } from './slice.ts';
import { type JobSpec, parseSpec } from './spec.ts';
import { type Parent, type StoredSpec, jobSpecOf, parseStoredSpec, storedSpecOf } from './stored-spec.ts';

export interface StoredOptions extends GenerateOptions {
  readonly store: ObjectStore;
  readonly where: JobKey;
  /** null: stored in the clear. */
  readonly keys?: KeyProvider | null | undefined;
  readonly policy?: Partial<CheckpointPolicy> | undefined;
  /** Takes a running job although its owner may be alive: that one is fenced. */
  readonly take?: boolean | undefined;
  /** Another name or path for the job's model on this machine. */
  readonly model?: string | undefined;
  readonly onCommit?: ((step: number) => void) | undefined;
}

/** `head` only when the job had ended before. */
export type StoredOutcome = SliceOutcome & { readonly where: JobKey };

/**
 * Begins the job, or goes on with it if it is there with the same spec; of one that has ended, its result.
 * @throws EngineError ERR_JOB_CONFLICT (another spec, cancelled or erased, or an owner that may be alive), and as `generate` and `runSlice`.
 */
export async function runStored(spec: JobSpec, options: StoredOptions): Promise<StoredOutcome> {
  using session = new Session(options.models);
  const opened = await session.open(parseSpec(spec), options);
  const identity = await opened.engine.identity();
  const text = JSON.stringify(storedSpecOf(spec, opened.job, modelIdOf(opened.job.model, identity.weightsDigest), null));
  const { head } = await createJob(options.store, options.where, text, { signal: options.signal });
  return await goOn(head, parseStoredSpec(text), opened, identity, options);
}

/** @throws EngineError ERR_JOB_NOT_FOUND, ERR_CHECKPOINT model (the model here is another), and as `runStored`. */
export async function resumeStored(options: StoredOptions): Promise<StoredOutcome> {
  const { store, where, signal } = options;
  const { head } = await readJob(store, where, { signal });
  if (head.state === 'erased') throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} was erased.`);
  const stored = parseStoredSpec(await readSpec(store, where, head.spec, { signal }));
  using session = new Session(options.models);
  const opened = await session.open(jobSpecOf(stored, options.model ?? null), options);
  const identity = await opened.engine.identity();
  checkSame(stored, opened.job, modelIdOf(opened.job.model, identity.weightsDigest), where);
  return await goOn(head, stored, opened, identity, options);
}

export interface ForkRequest {
  /** Tokens of the chain that the fork begins with. */
  readonly at: number;
  readonly chain: number;
  readonly width: number;
  readonly seed: bigint | undefined;
  readonly length: number | undefined;
  /** The new job's name. */
  readonly as: string;
}

/** A new job from a past point of a chain. Creates it and says where; `resumeStored` runs it. */
export async function forkJob({ at, chain, width, seed, length, as }: ForkRequest, options: StoredOptions): Promise<JobKey> {
  return await childOf(options, as, (stored, manifest, version) => {
    const from = manifest.chains[chain];
    if (from === undefined) throw new EngineError('ERR_OPTION', `chain must be from 0 to ${manifest.chains.length - 1}; got ${chain}.`);
    if (at > from.tokens) throw new EngineError('ERR_OPTION', `at must be from 0 to ${from.tokens}, the tokens that chain ${chain} has; got ${at}.`);
    if (at < 0) throw new EngineError('ERR_OPTION', `at must be from 0 to ${from.tokens}, the tokens that chain ${chain} has; got ${at}.`);
    checkWidth(width);
    const longest = length ?? stored.lengths[chain] ?? Math.max(...stored.lengths);
    if (longest <= at) throw new EngineError('ERR_OPTION', `length must be above ${at}, the tokens that the fork begins with; got ${longest}.`);
    return {
      lengths: Array.from({ length: width }, () => longest),
      seed: seed ?? BigInt(stored.seed),
      parent: { job: options.where.job, version, kind: 'fork', chain, at },
    };
  });
}

export interface ExtendRequest {
  readonly length: number | undefined;
  /** Chains in all, or `+n` more than there are. */
  readonly width: string | undefined;
  readonly kvReadBudget: number | undefined;
  readonly as: string;
}

/** A new job that goes on from all chains of one that has ended or is parked, with more budget. */
export async function extendJob({ length, width, kvReadBudget, as }: ExtendRequest, options: StoredOptions): Promise<JobKey> {
  if (length === undefined && width === undefined && kvReadBudget === undefined) throw new EngineError('ERR_OPTION', 'Say with what to extend the job: length, width or kv_read_budget.');
  return await childOf(options, as, (stored, _, version) => {
    const chains = widthOf(width, stored.lengths.length);
    checkWidth(chains);
    const before = (stored.spec.budget as { readonly kv_read_budget?: number } | undefined)?.kv_read_budget;
    if (kvReadBudget !== undefined && (before === undefined || kvReadBudget < before)) {
      throw new EngineError('ERR_OPTION', `kv_read_budget must be at least ${before ?? 'the job\'s, which has none'}; got ${kvReadBudget}.`);
    }
    if (chains < stored.lengths.length) throw new EngineError('ERR_OPTION', `width must be at least ${stored.lengths.length}, the chains that there are; got ${chains}.`);
    const lengths = Array.from({ length: chains }, (_unused, i) => length ?? stored.lengths[i] ?? Math.max(...stored.lengths));
    if (stored.lengths.some((before, i) => (lengths[i] ?? 0) < before)) throw new EngineError('ERR_OPTION', `length must be at least ${Math.max(...stored.lengths)}, which the job has already.`);
    return { lengths, seed: BigInt(stored.seed), kvReadBudget, parent: { job: options.where.job, version, kind: 'extend', chain: null, at: null } };
  });
}

function checkWidth(width: number): void {
  if (width < 1 || width > LIMITS.WIDTH_MAX) throw new EngineError('ERR_OPTION', `width must be from 1 to ${LIMITS.WIDTH_MAX}; got ${width}.`);
}

function widthOf(text: string | undefined, before: number): number {
  if (text === undefined) return before;
  if (!/^\+?\d{1,6}$/.test(text)) throw new EngineError('ERR_OPTION', `width must be a number of chains or +n; got ${JSON.stringify(text.slice(0, 40))}.`);
  return text.startsWith('+') ? before + Number(text) : Number(text);
}

interface Child {
  readonly lengths: readonly number[];
  readonly seed: bigint;
  readonly kvReadBudget?: number | undefined;
  readonly parent: Parent;
}

async function childOf({ store, where, signal }: StoredOptions, as: string, plan: (stored: StoredSpec, manifest: Manifest, version: number) => Child): Promise<JobKey> {
  const { head, manifest } = await readJob(store, where, { signal });
  if (head.state === 'erased') throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} was erased.`);
  if (manifest === null) throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} is ${head.state} and has no checkpoint yet; run it first.`);
  const stored = parseStoredSpec(await readSpec(store, where, head.spec, { signal }));
  // The parent's version when it is read first; the same child asked for again is the same child.
  const existing = await readJob(store, { ...where, job: as }, { signal }).then(
    async ({ head: child }) => parseStoredSpec(await readSpec(store, { ...where, job: as }, child.spec, { signal })),
    (error: unknown) => {
      if (error instanceof EngineError && error.code === 'ERR_JOB_NOT_FOUND') return null;
      throw error;
    },
  );
  const { lengths, seed, kvReadBudget, parent } = plan(stored, manifest, existing?.parent?.version ?? head.version);
  const { length: _, width: _w, lengths: _l, ...budget } = (stored.spec.budget ?? {}) as Record<string, unknown>;
  const child: StoredSpec = {
    ...stored,
    spec: { ...stored.spec, budget: { ...budget, lengths, ...(kvReadBudget === undefined ? {} : { kv_read_budget: kvReadBudget }) } },
    seed: seed.toString(),
    lengths: [...lengths],
    parent,
  };
  // What cannot be run is refused here, and not left in the store.
  jobSpecOf(parseStoredSpec(JSON.stringify(child)), null);
  const { where: created } = await createJob(store, { ...where, job: as }, JSON.stringify(child), { signal });
  return created;
}

async function goOn(head: Head, stored: StoredSpec, opened: OpenedJob, identity: EngineIdentity, options: StoredOptions): Promise<StoredOutcome> {
  const { store, where, signal } = options;
  const clock = options.clock ?? systemClock;
  const keys = options.keys ?? null;
  if (isTerminal(head.state)) {
    if (head.state !== 'done' && head.state !== 'incomplete') throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} is ${head.state}.`);
    return { ...(await resultInStore(opened, identity, options)), where };
  }
  const policy = { ...DEFAULT_POLICY, ...options.policy };
  await checkBefore(stored, identity, options);
  const taken = takeJob(store, where, {
    owner: ownerHint(),
    commitIntervalMs: commitIntervalMs(policy),
    force: options.take === true || isOwnerGone(head.owner),
    clock,
    signal,
  });
  let lease: Lease;
  try {
    lease = await taken;
  } catch (error) {
    // Its owner may have ended it while we waited.
    const { head: now } = await readJob(store, where, { signal });
    if (!isTerminal(now.state)) throw error;
    return await goOn(now, stored, opened, identity, options);
  }
  using deadline = deadlineOf(opened.job, lease, clock);
  const outcome = await runSlice(opened.job, lease, stored.parent, {
    ...opened,
    store,
    keys,
    identity,
    modelId: stored.model_id,
    policy,
    clock,
    onProgress: options.onProgress,
    onCommit: options.onCommit,
    cancelled: signal ?? null,
    deadline: deadline?.signal ?? null,
  });
  // What the slice replaced, and the marker of a job that needs no worker any more. Economy, so nobody waits for a store that fails now:
  // `ruminate gc` and the reconciler do the same.
  await collectGarbage(store, where, { clock, deadlineMs: GC_MS_MAX }).catch(() => undefined);
  if (outcome.kind === 'ended') await store.delete([liveKey(where)]).catch(() => undefined);
  return { ...outcome, where };
}

const GC_MS_MAX = 10_000;

/** Before the job is taken: a wrong key or model, or a key service that is down, is no fault of the job and costs it no strike. */
async function checkBefore({ parent, model_id: modelId }: StoredSpec, identity: EngineIdentity, { store, where, keys, signal }: StoredOptions): Promise<void> {
  const { manifest } = await readJob(store, where, { signal });
  const ancestor = manifest === null && parent !== null ? { ...where, job: parent.job } : where;
  const read = ancestor === where ? manifest : (await readJob(store, ancestor, { signal })).manifest;
  (await openKeys(keys ?? null, ancestor, read, { signal }))[Symbol.dispose]();
  if (read !== null) checkIdentity(read, { identity, modelId });
}

/** A deadline counts the time that the job ran, in all its slices. */
function deadlineOf({ deadlineMs }: PreparedJob, lease: Lease, clock: Clock) {
  return deadlineMs === null ? null : clock.timeout(Math.max(1, deadlineMs - (lease.manifest?.elapsedMs ?? 0)));
}

/** The result of a job that has ended, from its journals. */
async function resultInStore({ job, engine, threads, loadMs }: OpenedJob, identity: EngineIdentity, { store, where, keys: provider, signal }: StoredOptions): Promise<SliceOutcome> {
  const { head, manifest } = await readJob(store, where, { signal });
  const timing = {
    load_ms: loadMs,
    prefill_ms: 0,
    decode_ms: 0,
    tokens_per_second: 0,
    save_ms: 0,
    kv_allocated_bytes: 0,
    weight_bytes: engine.memory().weightBytes,
    threads,
    isa: engine.isa,
  };
  const heads = job.model.info.layers * job.model.info.kvHeads;
  let report: RunReport = { step: 0, prefilled: false, prefillReadSum: 0, sharedSum: 0, headCount: heads, running: 0, caughtUp: 0, chains: job.lengths.map(() => NO_TOKENS) };
  if (manifest !== null) {
    const { journal } = checkpointOf(manifest, head.journal.map((ref) => ({ ...ref, origin: where.job })));
    using keys = await openKeys(provider ?? null, where, manifest, { signal });
    const origins = [...new Set(journal.map(({ origin }) => origin))];
    const objects = [];
    for (const ref of journal) {
      objects.push({ chunks: await readObject(store, where, ref, { signal }), bytes: ref.bytes, digest: ref.digest, seal: origins.indexOf(ref.origin) });
    }
    const decoded = await decodeJournals({
      objects,
      seals: origins.map((origin) => keys.of(origin)),
      checkDigests: true,
      layoutId: identity.layoutId,
      vocabSize: job.model.info.vocabSize,
    });
    report = { ...decoded.report, headCount: heads };
  }
  const ended = (manifest?.ended ?? (manifest === null ? 'deadline' : null)) as FinishReason | null;
  return { kind: 'ended', state: head.state, result: { ...resultOf(job, report, ended), timing, resumed: resumptions(manifest?.slices ?? []) } };
}

const NO_TOKENS = { tokens: new Int32Array(0), finish: null, stopBytes: null, liveSum: 0, peakSum: 0, decodePeakSum: 0, readSum: 0, denseReadSum: 0, fed: 0 };

function checkSame(stored: StoredSpec, job: PreparedJob, modelId: string, { job: name }: JobKey): void {
  if (stored.model_id !== modelId) {
    throw new EngineError('ERR_CHECKPOINT', `model: ${job.model.resolved.name} is not the model that ${name} began with (weights, configuration, tokenizer or template differ).`);
  }
  const same = stored.prompt.length === job.promptIds.length && stored.prompt.every((id, i) => id === job.promptIds[i]);
  if (!same) throw new EngineError('ERR_CHECKPOINT', `model: the prompt of ${name} has other tokens here than when it began.`);
}
