/**
 * Jobs that live in a store: begun and gone on with. Each of these can be stopped or killed at any moment and asked for again, here or on
 * another machine; the result is that of a run that was never disturbed.
 */
import { availableParallelism } from 'node:os';
import { type Clock, systemClock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { isOwnerGone, ownerHint } from '../core/owner.ts';
import { linkSignals } from '../core/waiting.ts';
import { bearShards, createJob, readJob } from '../kv/create.ts';
import { collectGarbage } from '../kv/gc.ts';
import { isTerminal, type Head } from '../kv/head.ts';
import type { Lease } from '../kv/lease.ts';
import { beginSharded } from '../kv/join.ts';
import type { Manifest } from '../kv/manifest.ts';
import { type JobKey, rootOf, shardKey, shardOf } from '../kv/names.ts';
import { protocolOf } from '../kv/protocol.ts';
import { readNamed, requireHead, type SeenJob, type StoredHead } from '../kv/read.ts';
import { openKeys } from '../kv/seal.ts';
import { takeJob } from '../kv/take.ts';
import { modelIdOf } from '../model/identity.ts';
import { Outbox } from '../webhook/outbox.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import { type EngineIdentity, type NativeEngine, decodeJournals, nativeInfo } from '../runtime/native.ts';
import { readAncestors } from './ancestry.ts';
import { type CheckpointPolicy, DEFAULT_POLICY, commitIntervalMs } from './checkpointer.ts';
import { Endings, type Told } from './endings.ts';
import type { GenerateOptions, ModelTiming } from './generate.ts';
import { JournalReader, endReason } from './journals.ts';
import { type PreparedJob, plannedTokens } from './prepare.ts';
import { resultOf } from './run.ts';
import { type OpenedJob, Session } from './session.ts';
import { type Resumption, type SliceContext, type SliceOutcome, type StoredResult, checkIdentity, resumptions, runSlice } from './slice.ts';
import { pictureOfAll, runShards } from './run-shards.ts';
import { ballotKeyOf, holds, openSpec, sealSpec } from './sealed-spec.ts';
import { ShardVote } from './shard-vote.ts';
import { type JobSpec, parseSpec } from './spec.ts';
import { type StoredSpec, checkSame, jobSpecOf, parseStoredSpec, planOf, storedSpecOf } from './stored-spec.ts';

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
  /** Its model is loaded and the job admitted; nothing has run. */
  readonly onOpened?: ((job: PreparedJob, timing: ModelTiming) => void) | undefined;
  readonly onBegun?: SliceContext['onBegun'];
  /** See PlayContext. */
  readonly onReport?: SliceContext['onReport'];
  readonly isFollowed?: SliceContext['isFollowed'];
  /** See SliceContext. */
  readonly isEnding?: SliceContext['isEnding'];
  readonly isNearEnd?: SliceContext['isNearEnd'];
  /** Keeps models loaded between jobs. Default: one for this call. */
  readonly session?: Session | undefined;
  /** Who is told that it has ended. Default: one over `store`. */
  readonly outbox?: Told | undefined;
  /** How long to watch a running job whose owner may be alive (see takeJob). */
  readonly waitMs?: number | undefined;
  /** Its head, which the caller has just read. */
  readonly seen?: StoredHead | undefined;
}

/** `head`: as this slice has left it; null: there was none here. */
export type StoredOutcome = SliceOutcome & { readonly where: JobKey; readonly head: Head | null };

/**
 * Begins the job, or goes on with it if it is there with the same spec; of one that has ended, its result.
 * @throws EngineError ERR_JOB_CONFLICT (another spec, cancelled or erased, or an owner that may be alive), and as `generate` and `runSlice`.
 */
export async function runStored(spec: JobSpec, options: StoredOptions): Promise<StoredOutcome> {
  using held = sessionOf(options);
  const { shards } = parseSpec(spec);
  using opened = await held.session.open(parseSpec(spec), { ...options, shard: shards === undefined ? undefined : shards - 1 });
  const identity = await identityOf(opened.engine);
  const whole = shards === undefined ? opened.job : await held.session.prepare(parseSpec(spec), options);
  const stored = storedSpecOf(spec, whole, modelIdOf(whole.model, identity.weightsDigest), null);
  const text = JSON.stringify(stored);
  const { store, where, keys = null, signal } = options;
  const { head } = await createJob(store, where, await sealSpec(text, where, keys, { signal }), { isSame: holds(text, keys, { signal }), plan: planOf(stored, plannedTokens(whole)), shards, signal });
  if (head.join !== undefined) return await runSharded(whole, head, { ...options, session: held.session });
  return await goOn(await lookAt(options), parseStoredSpec(text), opened, identity, options);
}

/** @throws EngineError ERR_JOB_NOT_FOUND, ERR_CHECKPOINT model (the model here is another), and as `runStored`. */
export async function resumeStored(options: StoredOptions): Promise<StoredOutcome> {
  const { where, keys = null, signal } = options;
  const seen = await lookAt(options);
  const { head } = seen.stored;
  const stored = parseStoredSpec(await openSpec(seen.spec, where, keys, { signal }));
  using held = sessionOf(options);
  if (head.join !== undefined) {
    const spec = jobSpecOf(stored, options.model ?? null);
    return await runSharded(await held.session.prepare(spec, options), head, { ...options, session: held.session });
  }
  const shard = shardOf(where)?.index;
  using opened = await held.session.open(jobSpecOf(stored, options.model ?? null), { ...options, shard });
  const identity = await identityOf(opened.engine);
  checkSame(stored, opened.job, modelIdOf(opened.job.model, identity.weightsDigest), where.job);
  options.onOpened?.(opened.job, opened.timing);
  const ballotKey = shard === undefined ? undefined : await ballotKeyOf(seen.spec, where, keys, { signal });
  return await goOn(seen, stored, opened, identity, options, ballotKey);
}

async function lookAt({ store, where, seen, signal }: StoredOptions): Promise<SeenJob> {
  for (let stored = seen ?? (await requireHead(store, where, { signal })); ; stored = await requireHead(store, where, { signal })) {
    if (stored.head.state === 'erased') throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} was erased.`);
    const named = await readNamed(store, where, stored, { signal });
    if (named !== null) return { stored, ...named };
  }
}

/** All shards in this process, and then what has become of the job. */
async function runSharded(job: PreparedJob, head: Head, options: StoredOptions & { readonly session: Session }): Promise<StoredOutcome> {
  const { store, where, signal, onProgress } = options;
  const shards = head.join?.shards ?? 0;
  const picture = onProgress === undefined ? null : pictureOfAll(job.lengths.length, shards, onProgress);
  const resumed: Resumption[] = [];
  if (!isTerminal(head.state)) {
    await bearShards(protocolOf(store, {}), head, signal);
    await beginSharded(store, where, { signal });
    await runShards(shards, signal, async (index, signal) => {
      const at = shardKey(where, index);
      const { head: own } = await readJob(store, at, { signal });
      if (isTerminal(own.state)) return await endingsOf(options).jobEnded(at, { signal });
      const { onProgress: _, seen: _whole, ...rest } = options;
      const slice = resumeStored({ ...rest, signal, where: at, ...(picture === null ? {} : { onProgress: (progress) => picture(index, progress) }) });
      const outcome = await slice.catch((error: unknown) => {
        // Interrupted before it ran: it is as parked as the others.
        if (signal.aborted && error instanceof EngineError && error.code === 'ERR_CANCELLED') return null;
        throw error;
      });
      if (outcome?.kind === 'ended') resumed.push(...outcome.result.resumed);
    });
  }
  // Whoever interrupted it as it ended is told its result all the same.
  const { signal: _signal, ...whole } = options;
  const { head: now, manifest } = await readJob(store, where);
  if (!isTerminal(now.state)) return { kind: 'parked', ...(await standingOf(store, where, shards, manifest?.step ?? 0)), where, head: null };
  if (now.state !== 'done' && now.state !== 'incomplete') throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} is ${now.state}.`);
  const { isas, ...none } = { isas: nativeInfo().isas, prefill_ms: 0, decode_ms: 0, tokens_per_second: 0, save_ms: 0, kv_allocated_bytes: 0, weight_bytes: 0 };
  const timing = { load_ms: 0, ...none, threads: options.threads ?? availableParallelism(), isa: isas.at(-1) ?? '' };
  return { kind: 'ended', state: now.state, result: { ...(await readResult(job, whole)), timing, resumed }, where, head: null };
}

/** What all shards have generated, as committed, and how far the last of those is that go on. @param joined as far as the job has heard of them. */
async function standingOf(store: ObjectStore, where: JobKey, shards: number, joined: number): Promise<{ readonly step: number; readonly tokens: number }> {
  let tokens = 0;
  const steps: number[] = [];
  for (let i = 0; i < shards; i++) {
    const { head, manifest } = await readJob(store, shardKey(where, i));
    tokens += manifest?.chains.reduce((sum, chain) => sum + chain.tokens, 0) ?? 0;
    if (!isTerminal(head.state)) steps.push(manifest?.step ?? 0);
  }
  return { step: steps.length > 0 ? Math.min(...steps) : joined, tokens };
}

function endingsOf({ store, outbox, clock }: StoredOptions): Told {
  return Endings.over(store, outbox ?? new Outbox({ store }), { clock });
}

function sessionOf({ session, models }: StoredOptions): { readonly session: Session } & Disposable {
  if (session !== undefined) return { session, [Symbol.dispose]: () => undefined };
  const own = new Session(models);
  return { session: own, [Symbol.dispose]: () => own[Symbol.dispose]() };
}

const identities = new WeakMap<NativeEngine, Promise<EngineIdentity>>();

/** Reads all weights, which never change while an engine is open: once for all its jobs. */
async function identityOf(engine: NativeEngine): Promise<EngineIdentity> {
  const known = identities.get(engine) ?? engine.identity();
  identities.set(engine, known);
  try {
    return await known;
  } catch (error) {
    identities.delete(engine);
    throw error;
  }
}

async function goOn(seen: SeenJob, stored: StoredSpec, opened: OpenedJob, identity: EngineIdentity, options: StoredOptions, ballotKey?: Uint8Array): Promise<StoredOutcome> {
  const { store, where, signal } = options;
  const clock = options.clock ?? systemClock;
  const keys = options.keys ?? null;
  const { stored: { head }, manifest } = seen;
  if (isTerminal(head.state)) return await resultInStore(head, opened, options);
  const policy = { ...DEFAULT_POLICY, ...options.policy };
  await checkBefore(stored, opened.job, manifest, identity, options);
  const taken = takeJob(store, where, {
    owner: ownerHint(),
    commitIntervalMs: commitIntervalMs(policy),
    waitMs: options.waitMs,
    force: options.take === true || isOwnerGone(head.owner),
    seen,
    clock,
    signal,
  });
  let lease: Lease;
  try {
    lease = await taken;
  } catch (error) {
    // Its owner may have ended it while we waited.
    const now = await readJob(store, where, { signal });
    if (!isTerminal(now.head.state)) throw error;
    return await resultInStore(now.head, opened, options);
  }
  const over = new AbortController();
  const { shard } = opened.job;
  using stop = linkSignals(signal, over.signal);
  const vote = shard === null ? null : new ShardVote({ store, where, job: opened.job, shard, ballotKey, clock, onOver: () => over.abort(), signal: stop.signal });
  using deadline = deadlineOf(opened.job, lease, clock);
  // Beside the work: once the job is let go, nothing keeps whoever hands it on.
  await using _ = collecting(lease.head, options, clock);
  const outcome = await runSlice(opened.job, lease, stored.parent, {
    ...opened,
    store,
    keys,
    identity,
    modelId: stored.model_id,
    policy,
    clock,
    onProgress: options.onProgress,
    onBegun: options.onBegun,
    onCommit: options.onCommit,
    onReport: options.onReport,
    isFollowed: options.isFollowed,
    isEnding: () => over.signal.aborted || options.isEnding?.() === true,
    isNearEnd: options.isNearEnd,
    vote,
    cancelled: stop.signal,
    deadline: deadline?.signal ?? null,
  });
  // Nobody waits for a store that fails now: the reconciler tells of the end, and `ruminate gc` removes what the slice replaced. But a shard is not done
  // with before it is joined: whoever has its message keeps it until then.
  if (outcome.kind === 'ended') await endingsOf(options).jobEnded(where, { ended: lease.head }).catch((error: unknown) => {
    if (shard !== null) throw error;
  });
  if (outcome.kind === 'ended') await collectAfter(lease.head, options, clock);
  return { ...outcome, where, head: lease.head };
}

const GC_MS_MAX = 10_000;
/** Writes of the head between two collections while the job goes on: each commit leaves a few objects. */
const GC_WRITES = 32;
/** Of the head of a job that was taken once, at once committed, and ended: all that it has replaced is its first manifest. */
const VERSION_SHORT = 3;

/** What a living job has replaced, until it is disposed; what is left then is collected another time. */
function collecting({ version, gc }: Head, { store, where, signal }: StoredOptions, clock: Clock): AsyncDisposable {
  const stop = new AbortController();
  const work = version - gc < GC_WRITES ? Promise.resolve() : withinGcTime(clock, [signal, stop.signal], async (late) => void (await collectGarbage(store, where, { clock, signal: late })));
  return {
    async [Symbol.asyncDispose]() {
      stop.abort();
      await work;
    },
  };
}

/** What a job that is over has replaced, and of a shard what its job has said of itself before. Not when there is no time: `ruminate gc` does it, too. */
async function collectAfter({ version, epoch }: Head, { store, where, signal }: StoredOptions, clock: Clock): Promise<void> {
  await withinGcTime(clock, [signal], async (late) => {
    if (shardOf(where) !== null) {
      const parent = rootOf(where);
      const { head } = await readJob(store, parent, { signal: late });
      if (isTerminal(head.state)) await collectGarbage(store, parent, { clock, signal: late, isOwnOnly: true });
    }
    // Whoever had it before may have left uploads that it never named.
    if (version > VERSION_SHORT || epoch > 1) await collectGarbage(store, where, { clock, signal: late });
  });
}

/** A store that fails has its garbage for a while longer. */
async function withinGcTime(clock: Clock, signals: readonly (AbortSignal | undefined)[], work: (late: AbortSignal) => Promise<void>): Promise<void> {
  using deadline = clock.timeout(GC_MS_MAX);
  using late = linkSignals(...signals, deadline.signal);
  await work(late.signal).catch(() => undefined);
}

/** As last seen, before the job is taken: a wrong key or model, or a key service that is down, is no fault of the job and costs it no strike. */
async function checkBefore({ parent, model_id: modelId }: StoredSpec, job: PreparedJob, manifest: Manifest | null, identity: EngineIdentity, { store, where, keys, signal }: StoredOptions): Promise<void> {
  // A conversation goes on without its last turn, if need be.
  const inherits = manifest === null && parent !== null && parent.kind !== 'continue';
  const from = inherits ? (await readAncestors(store, where.tenant, parent, job, { signal })).parts : manifest === null ? [] : [{ where, manifest }];
  if (from.length === 0) (await openKeys(keys ?? null, where, null, { signal }))[Symbol.dispose]();
  for (const each of from) {
    (await openKeys(keys ?? null, each.where, each.manifest, { signal }))[Symbol.dispose]();
    checkIdentity(each.manifest, { identity, modelId });
  }
}

/** A deadline counts the time that the job ran, in all its slices. */
function deadlineOf({ deadlineMs }: PreparedJob, lease: Lease, clock: Clock) {
  return deadlineMs === null ? null : clock.timeout(Math.max(1, deadlineMs - (lease.manifest?.elapsedMs ?? 0)));
}

/** The result of a job that has ended, from its journals. */
async function resultInStore({ state }: Head, { job, engine, threads, loadMs }: OpenedJob, options: StoredOptions): Promise<StoredOutcome> {
  const { store, where, signal } = options;
  if (state !== 'done' && state !== 'incomplete') throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} is ${state}.`);
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
  return { kind: 'ended', state: head.state, result: { ...(await readResult(job, options)), timing, resumed: resumptions(manifest?.slices ?? []) }, where, head };
}

async function readResult(job: PreparedJob, { store, where, keys, signal }: StoredOptions): Promise<Omit<StoredResult, 'timing' | 'resumed'>> {
  const { head, manifest } = await readJob(store, where, { signal });
  using journals = new JournalReader({ store, where, keys: keys ?? null, decode: decodeJournals });
  const report = await journals.read(job, head, manifest, signal);
  return await resultOf(job, report, endReason(head.state, manifest));
}
