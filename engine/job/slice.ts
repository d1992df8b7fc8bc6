/** One invocation's share of a stored job: take what its manifest says, run until it ends or is asked to let go, and commit. */
import type { Clock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { linkSignals } from '../core/waiting.ts';
import type { JobState } from '../kv/head.ts';
import type { Lease } from '../kv/lease.ts';
import type { Manifest } from '../kv/manifest.ts';
import type { JobKey } from '../kv/names.ts';
import { readObject } from '../kv/read.ts';
import { type JobKeys, forkKeys, openKeys } from '../kv/seal.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import type { EngineIdentity, RunOptions, RunReport } from '../runtime/native.ts';
import { type Ancestry, adoptedBy, ancestorKeys, ancestryOf, readAncestors } from './ancestry.ts';
import { type Checkpoint, checkpointOf, contentOf } from './checkpoint.ts';
import { Checkpointer, type CheckpointPolicy, commitIntervalMs } from './checkpointer.ts';
import type { FinishReason, JobResult } from './generate.ts';
import { keepAlive } from './heartbeat.ts';
import { type Played, play, tokensOf } from './play.ts';
import type { PreparedJob } from './prepare.ts';
import { restorePrefix } from './prefix.ts';
import { type RestoredRun, rateOf, restore } from './restore.ts';
import type { ShardVote } from './shard-vote.ts';
import { type RunContext, resultOf, runOptions, timingOf } from './run.ts';
import type { Parent } from './stored-spec.ts';

/** How one slice began. */
export interface Resumption {
  /** Which take of the job it was, the first being 1: where one is left out, its owner was gone before it had committed. */
  readonly slice: number;
  /** `restarted`: from the beginning, as no take before had committed. */
  readonly outcome: 'restored' | 'recomputed' | 'replayed' | 'restarted';
  readonly reason: string | null;
  readonly from_step: number;
  readonly tokens_recomputed: number;
}

export interface StoredResult extends JobResult {
  /** Every slice but the first, or the first of a fork or an extension. */
  readonly resumed: readonly Resumption[];
  /** Of this slice. */
  readonly timing: JobResult['timing'] & {
    /** Part of `decode_ms`: generation waited so long for checkpoints to be encoded. */
    readonly save_ms: number;
  };
}

export interface Begun {
  readonly outcome: Resumption['outcome'] | 'started';
  readonly recomputed: number;
}

export type SliceOutcome =
  | { readonly kind: 'ended'; readonly state: JobState; readonly result: StoredResult }
  /** Let go with chains that still run; whoever takes the job next goes on. */
  | { readonly kind: 'parked'; readonly step: number; readonly tokens: number };

export interface SliceContext extends Omit<RunContext, 'parks' | 'onBoundary' | 'stopAt'> {
  readonly store: ObjectStore;
  readonly keys: KeyProvider | null;
  readonly identity: EngineIdentity;
  readonly modelId: string;
  readonly policy: CheckpointPolicy;
  /** What it goes on from is there. */
  readonly onBegun?: ((begun: Begun) => void) | undefined;
  readonly onCommit?: ((step: number) => void) | undefined;
  /** Of a shard; null or absent: the chains here are all of the job. */
  readonly vote?: ShardVote | null | undefined;
  /** Why it is interrupted: the job is about to be ended, and nobody will go on with it. */
  readonly isEnding?: (() => boolean) | undefined;
  /** It will soon be interrupted, to be gone on with: what is written before then need not be waited for. */
  readonly isNearEnd?: (() => boolean) | undefined;
}

/**
 * Whatever it throws, the job has been let go, unless another owner has it or the store does not answer: it can be taken again at once.
 * @throws EngineError ERR_FENCED, ERR_STORE (what was committed stays; take the job again), ERR_CHECKPOINT, ERR_KEY, ERR_MEMORY.
 */
export async function runSlice(job: PreparedJob, lease: Lease, parent: Parent | null, context: SliceContext): Promise<SliceOutcome> {
  const { clock, policy, cancelled } = context;
  try {
    await using heartbeat = keepAlive(lease, clock, commitIntervalMs(policy));
    using stop = linkSignals(cancelled ?? undefined, heartbeat.fenced);
    return await runUntilLetGo(job, lease, parent, { ...context, cancelled: stop.signal });
  } catch (error) {
    await giveBack(lease, error, clock);
    throw error;
  }
}

/** A store that does not answer now has failed us already; the next taker then waits as for an owner that died. */
const GIVE_BACK_MS_MAX = 10_000;

async function giveBack(lease: Lease, error: unknown, clock: Clock): Promise<void> {
  using late = clock.timeout(GIVE_BACK_MS_MAX);
  await lease.release({ isStrike: isOfJob(error), signal: late.signal }).catch(() => undefined);
}

/** Whether the job itself is at fault, and not this machine, its store, or who asked: taken again it would fail again. */
export function isOfJob(error: unknown): boolean {
  return !(error instanceof EngineError) || error.kind === 'bug' || error.code === 'ERR_NUMERICS' || error.code === 'ERR_CHECKPOINT';
}

async function runUntilLetGo(job: PreparedJob, lease: Lease, parent: Parent | null, context: SliceContext): Promise<SliceOutcome> {
  const { clock, identity, vote = null } = context;
  const origin = await orPark(lease, null, async () => {
    await vote?.ask({ signal: context.cancelled ?? undefined });
    return await originOf(job, lease, parent, context);
  });
  if ('kind' in origin) return origin;
  using keys = origin.keys;
  const begun = await orPark(lease, origin.checkpoint, () => begin(job, lease, parent, origin, context));
  if ('kind' in begun) return begun;
  using run = begun.run;
  context.onBegun?.({ outcome: restarted(begun.outcome, lease.head.slice), recomputed: begun.recomputed });
  let { prefillRate } = begun;
  const { step: from, chains } = run.report();
  vote?.begins(origin.ancestry === null ? lease.manifest?.vote?.begun : chains.map(({ tokens }) => tokens.length));
  const slicesNow = (): Manifest['slices'] => [...origin.slices, {
    slice: lease.head.slice,
    epoch: lease.head.epoch,
    outcome: begun.outcome,
    reason: begun.reason?.slice(0, 1_000) ?? null,
    from,
    recomputed: begun.recomputed,
    prefillRate,
  }];
  const base: Checkpoint = {
    ...begun.kept,
    layoutId: identity.layoutId,
    modelId: context.modelId,
    numericsId: identity.numericsId,
    slices: [],
    ended: null,
    keys: null,
  };
  const checkpointer = new Checkpointer({
    run,
    lease,
    seal: keys.own,
    wrapped: (objects) => keys.wrappedFor(objects),
    clock,
    policy: context.policy,
    isFollowed: context.isFollowed,
    isNearEnd: context.isNearEnd,
    base,
    isSaved: origin.ancestry === null && begun.outcome === 'restored' && begun.recomputed === 0,
    slices: slicesNow,
    adopted: origin.ancestry === null ? [] : adoptedBy(contentOf(base).objects, origin.ancestry),
    elapsedMs: origin.elapsedMs,
    onCommit: context.onCommit,
    vote,
    firstChain: job.shard?.first,
  });
  const start = clock.nowMs();
  let played: Played;
  try {
    played = await play(job, run, {
      ...context,
      parks: true,
      ...(vote === null ? {} : { stopAt: (report: RunReport) => vote.stopAt(report) }),
      onBoundary: (report) => {
        if (begun.outcome === 'started') prefillRate ??= rateOf(job.promptIds.length, clock.nowMs() - start);
        return checkpointer.boundary(report);
      },
    });
  } catch (error) {
    await checkpointer.drain();
    throw error;
  }
  const { prefilled } = played.report;
  if (played.parked) {
    // Before the end of the prompt there is nothing that the store does not have.
    if (prefilled && context.isEnding?.() === true) await checkpointer.closeShort();
    else if (prefilled) await checkpointer.close('parked', null);
    else await lease.commit({ state: 'parked', manifest: null, objects: [] });
    return { kind: 'parked', step: played.report.step, tokens: tokensOf(played.report) };
  }
  const state = stateAfter(played);
  if (prefilled) await checkpointer.close(state, played.ended);
  else await lease.commit({ state, manifest: null, objects: [] });
  const result = { ...(await resultOf(job, played.report, played.ended)), timing: { ...timingOf(played, context), save_ms: checkpointer.waitedMs }, resumed: resumptions(slicesNow()) };
  return { kind: 'ended', state, result };
}

/** Cancelled before the job goes on: it is let go as it was taken. */
async function orPark<T extends object>(lease: Lease, checkpoint: Checkpoint | null, work: () => Promise<T>): Promise<T | Extract<SliceOutcome, { kind: 'parked' }>> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof EngineError && error.code === 'ERR_CANCELLED')) throw error;
    await lease.commit({ state: 'parked', manifest: null, objects: [] });
    return { kind: 'parked', step: checkpoint?.step ?? 0, tokens: checkpoint?.chains.reduce((sum, { tokens }) => sum + tokens, 0) ?? 0 };
  }
}

/** What the job goes on from: its own manifest, those of ancestors, or nothing. */
interface Origin {
  readonly checkpoint: Checkpoint | null;
  /** null: the job's own. */
  readonly ancestry: Ancestry | null;
  readonly keys: JobKeys;
  readonly ancestorKeys: JobKeys | null;
  readonly slices: Manifest['slices'];
  readonly elapsedMs: number;
}

async function originOf(job: PreparedJob, lease: Lease, parent: Parent | null, context: SliceContext): Promise<Origin> {
  const { store, keys: provider, cancelled, identity } = context;
  const options = { signal: cancelled ?? undefined };
  const { manifest, where } = lease;
  if (manifest !== null) {
    const flushed = lease.head.journal.map((ref) => ({ ...ref, origin: where.job }));
    const keys = await openKeys(provider, where, manifest, options);
    return { checkpoint: checkpointOf(manifest, flushed), ancestry: null, keys, ancestorKeys: null, slices: manifest.slices, elapsedMs: manifest.elapsedMs };
  }
  const nothing = async (): Promise<Origin> => ({ checkpoint: null, ancestry: null, keys: await openKeys(provider, where, null, options), ancestorKeys: null, slices: [], elapsedMs: 0 });
  // The next turn of a conversation is a job of its own, which may save some of its prefill.
  if (parent === null || parent.kind === 'continue') return await nothing();
  const ancestors = await readAncestors(store, where.tenant, parent, job, options);
  if (ancestors.isErased) throw new EngineError('ERR_PARENT_ERASED', `The job ${parent.job} was erased before this one, which goes on from it, had begun.`);
  if (!ancestors.isThere) throw new EngineError('ERR_CHECKPOINT', `missing: ${parent.job} has nothing to go on from.`);
  for (const { checkpoint } of ancestors.parts) checkIdentity(checkpoint, context);
  const ancestry = ancestryOf(ancestors, parent, job, identity.numericsId);
  if (ancestry === null) return await nothing();
  const theirs = await ancestorKeys(provider, where, ancestors, options);
  const keys = await forkKeys(provider, where, theirs, contentOf(ancestry.checkpoint).objects, options);
  return { checkpoint: ancestry.checkpoint, ancestry, keys, ancestorKeys: theirs, slices: [], elapsedMs: 0 };
}

async function begin(
  job: PreparedJob, lease: Lease, parent: Parent | null, origin: Origin, context: SliceContext,
): Promise<Omit<RestoredRun, 'outcome'> & { readonly outcome: RestoredRun['outcome'] | 'started' }> {
  const { engine, memoryLimitBytes, identity, store } = context;
  const options = runOptions(job, memoryLimitBytes, true);
  const { checkpoint, ancestry } = origin;
  if (checkpoint === null && parent?.kind === 'continue') return await continued(job, { ...lease.where, job: parent.job }, parent, options, context);
  if (checkpoint === null) {
    return { run: engine.createRun(options), outcome: 'started', reason: null, recomputed: 0, prefillRate: null, kept: empty(job, context) };
  }
  checkIdentity(checkpoint, context);
  try {
    return await restore({
      engine,
      run: options,
      checkpoint,
      journals: ancestry?.journals,
      chains: ancestry?.chains ?? job.lengths.map((_, i) => ({ source: i, tokens: null, reopen: false })),
      read: ancestry === null ? (ref, signal) => lease.read(ref, { signal }) : (ref, signal) => readObject(store, ancestry.whereOf(ref), ref, { signal }),
      sealOf: (of) => (origin.ancestorKeys ?? origin.keys).of(of),
      own: ancestry === null,
      replay: checkpoint.numericsId !== identity.numericsId,
      prefillTokensPerSecond: origin.slices.findLast(({ prefillRate }) => prefillRate !== null)?.prefillRate ?? null,
      clock: context.clock,
      signal: context.cancelled ?? undefined,
    });
  } finally {
    origin.ancestorKeys?.[Symbol.dispose]();
  }
}

/** The prompt from the job before, as far as it has it; else all of it is fed. `recomputed`: the tokens of the prompt that are. */
async function continued(job: PreparedJob, where: JobKey, { chain, at }: Parent, options: RunOptions, context: SliceContext): ReturnType<typeof begin> {
  const { engine, store, keys, identity, clock } = context;
  const kept = empty(job, context);
  const prefix = await restorePrefix({
    store, keys, engine, where, clock, run: options, numericsId: identity.numericsId, chain: chain ?? 0, common: at ?? 0,
    check: (checkpoint) => checkIdentity(checkpoint, context),
    signal: context.cancelled ?? undefined,
  });
  const tokens = job.promptIds.length;
  if (prefix.run === null) return { run: engine.createRun(options), outcome: 'recomputed', reason: prefix.reason, recomputed: tokens, prefillRate: null, kept };
  return { run: prefix.run, outcome: 'restored', reason: null, recomputed: tokens - prefix.reused, prefillRate: prefix.prefillRate, kept };
}

/** @throws EngineError ERR_CHECKPOINT model or layout: nothing here can go on from it. */
export function checkIdentity({ layoutId, modelId }: Pick<Checkpoint, 'layoutId' | 'modelId'>, { identity, modelId: own }: Pick<SliceContext, 'identity' | 'modelId'>): void {
  if (modelId !== own) throw new EngineError('ERR_CHECKPOINT', 'model: the checkpoint is of another model than this one (weights, configuration, tokenizer or template).');
  if (layoutId !== identity.layoutId) throw new EngineError('ERR_CHECKPOINT', 'layout: the checkpoint has another cache layout (KV type or page size) than this engine.');
}

function empty(job: PreparedJob, { identity, modelId }: SliceContext): Checkpoint {
  return {
    layoutId: identity.layoutId,
    modelId,
    numericsId: identity.numericsId,
    step: 0,
    elapsedMs: 0,
    ended: null,
    slices: [],
    promptTokens: job.promptIds.length,
    promptTail: null,
    chains: job.lengths.map(() => ({ tokens: 0, finish: null, segments: [], tails: [] })),
    journal: [],
    keys: null,
  };
}

const INCOMPLETE: readonly (FinishReason | null)[] = ['deadline', 'memory', 'kv_read_budget'];

function stateAfter({ report, ended }: Played): JobState {
  const cut = INCOMPLETE.includes(ended) || report.chains.some(({ finish }) => finish === 'memory' || finish === 'kv_read_budget');
  return cut ? 'incomplete' : 'done';
}

export function resumptions(slices: Manifest['slices']): readonly Resumption[] {
  return slices.flatMap(({ slice, outcome: began, reason, from, recomputed }) => {
    const outcome = restarted(began, slice);
    return outcome === 'started' ? [] : [{ slice, outcome, reason, from_step: from, tokens_recomputed: recomputed }];
  });
}

/** A take that its owner gives back is not counted: whoever begins later than the first begins again what somebody lost. */
function restarted(outcome: RestoredRun['outcome'] | 'started', slice: number): Begun['outcome'] {
  return outcome === 'started' && slice > 1 ? 'restarted' : outcome;
}
