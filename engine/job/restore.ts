/** From what a store holds of a job to a run that goes on: what to read, how much to believe, and what to fall back on (DESIGN.md 3). */
import { EngineError } from '../core/errors.ts';
import { inParallel } from '../core/waiting.ts';
import type { ObjectRef } from '../kv/manifest.ts';
import type { Body } from '../ports/object-store.ts';
import type { NativeEngine, NativeRun, RunOptions, Seal } from '../runtime/native.ts';
import { type Checkpoint, promptSegments } from './checkpoint.ts';

/** One chain of the run and where it comes from: `source` of the checkpoint's chains, its first `tokens` (null: all), or the prompt (null). */
export interface ChainSource {
  readonly source: number | null;
  readonly tokens: number | null;
  /** Goes on though it had finished, but for one that said it was done. */
  readonly reopen: boolean;
}

export interface RestoreRequest {
  readonly engine: NativeEngine;
  readonly run: RunOptions;
  readonly checkpoint: Checkpoint;
  readonly chains: readonly ChainSource[];
  readonly read: (ref: ObjectRef, signal: AbortSignal | undefined) => Promise<Body>;
  readonly sealOf: (origin: string) => Seal;
  /** The checkpoint is of this very job. */
  readonly own: boolean;
  /** Another numerics computed it: tokens and eviction decisions are forced. */
  readonly replay: boolean;
  /** Computing everything again is cheaper than reading it. */
  readonly recompute: boolean;
  readonly signal?: AbortSignal | undefined;
}

export interface RestoredRun {
  readonly run: NativeRun;
  readonly outcome: 'restored' | 'recomputed' | 'replayed';
  /** Why not all of it was restored, or null. */
  readonly reason: string | null;
  /** Tokens that had to be computed again. */
  readonly recomputed: number;
  /** What the store's objects still are to this run: the caller's next manifest begins with them. */
  readonly kept: Checkpoint;
}

/** From the newest cut back: what is damaged or gone costs time, never an answer. */
const FALLBACKS = ['newest tails', 'older tails', 'the prompt', 'the spec'] as const;
type Fallback = (typeof FALLBACKS)[number];

const READS_AT_ONCE = 8;

/**
 * @throws EngineError ERR_CHECKPOINT (layout, model, identity, format, numerics_drift: nothing to fall back on), ERR_KEY, ERR_FENCED,
 * ERR_STORE, ERR_MEMORY, ERR_CANCELLED.
 */
export async function restore(request: RestoreRequest): Promise<RestoredRun> {
  const levels = FALLBACKS.slice(request.replay || request.recompute ? FALLBACKS.indexOf('the prompt') : 0);
  let reason: string | null = request.replay ? 'the checkpoint is of other numerics' : request.recompute ? 'computing again is cheaper' : null;
  for (const level of levels) {
    if (level === 'the spec' && (request.replay || !request.own)) break;
    try {
      return await attempt(request, level, reason);
    } catch (error) {
      if (!isLoss(error)) throw error;
      reason = (error as EngineError).message;
    }
  }
  throw new EngineError('ERR_CHECKPOINT', reason ?? 'missing: there is nothing to go on from');
}

/** Bytes that are not what was written: something older may still do. Everything else is said as it is. */
function isLoss(error: unknown): boolean {
  return error instanceof EngineError && error.code === 'ERR_CHECKPOINT' && /^(damaged|truncated|missing)\b/.test(error.message);
}

async function attempt(request: RestoreRequest, level: Fallback, reason: string | null): Promise<RestoredRun> {
  const { engine, checkpoint, signal } = request;
  if (level === 'the spec') {
    const run = engine.createRun(request.run);
    const from = request.checkpoint.step;
    return { run, outcome: 'recomputed', reason, recomputed: from * request.chains.length, kept: emptied(checkpoint) };
  }
  const older = level === 'older tails' ? 1 : 0;
  const withTails = level !== 'the prompt';
  const refs: ObjectRef[] = [];
  const index = (ref: ObjectRef): number => {
    const known = refs.indexOf(ref);
    return known >= 0 ? known : refs.push(ref) - 1;
  };
  const chains = request.chains.map(({ source, tokens, reopen }) => {
    const from = source === null ? undefined : checkpoint.chains[source];
    const goesOn = from !== undefined && (reopen || from.finish === null || tokens !== null);
    const tails = from?.tails.filter(({ at }) => at <= (tokens ?? Infinity)) ?? [];
    const tail = withTails && goesOn ? tails.at(-1 - older) : undefined;
    return {
      source: source ?? -1,
      tokens: tokens ?? -1,
      reopen,
      segments: tail === undefined ? [] : (from?.segments ?? []).map(index),
      tail: tail === undefined ? null : index(tail.object),
      fromPrompt: tail === undefined && (from === undefined || goesOn),
    };
  });
  const usesPrompt = withTails && checkpoint.promptTail !== null && chains.some(({ fromPrompt }) => fromPrompt);
  const promptTail = usesPrompt && checkpoint.promptTail !== null ? index(checkpoint.promptTail) : null;
  const promptPages = promptTail === null ? [] : promptSegments(checkpoint).map(index);
  const journals = checkpoint.journal.map(index);

  const bodies = await inParallel(refs.length, READS_AT_ONCE, signal, async (i, stop) => request.read(refs[i] as ObjectRef, stop));
  const origins = [...new Set(refs.map(({ origin }) => origin))];
  const run = await engine.restoreRun({
    run: request.run,
    objects: refs.map(({ bytes, digest, origin }, i) => ({ chunks: bodies[i] ?? [], bytes, digest, seal: origins.indexOf(origin) })),
    seals: origins.map(request.sealOf),
    checkDigests: true,
    replay: request.replay,
    ownJournal: request.own,
    chains: chains.map(({ fromPrompt: _, ...chain }) => chain),
    promptSegments: promptPages,
    promptTail,
    journals,
  });
  try {
    await run.prefill(signal);
  } catch (error) {
    run.close();
    throw error;
  }
  const { caughtUp } = run.report();
  const hasTail = chains.some(({ tail }) => tail !== null) || promptTail !== null || chains.every(({ fromPrompt }) => !fromPrompt);
  const outcome = request.replay ? 'replayed' : hasTail ? 'restored' : 'recomputed';
  return { run, outcome, reason, recomputed: caughtUp, kept: kept(request, chains, promptTail !== null) };
}

/** Segments and tails of the chains that go on from them; the rest is written anew when it is due. */
function kept({ checkpoint, chains, own, replay }: RestoreRequest, used: readonly { readonly tail: number | null; readonly fromPrompt: boolean }[], promptUsed: boolean): Checkpoint {
  return {
    ...checkpoint,
    promptTail: replay ? null : checkpoint.promptTail,
    journal: own ? checkpoint.journal : [],
    chains: chains.map(({ source, tokens }, i) => {
      const from = source === null ? undefined : checkpoint.chains[source];
      const shared = promptUsed || from === undefined ? promptSegments(checkpoint) : [];
      if (from === undefined || used[i]?.fromPrompt) return { tokens: tokens ?? from?.tokens ?? 0, finish: null, segments: promptUsed ? shared : [], tails: [] };
      return { ...from, tokens: tokens ?? from.tokens, tails: from.tails.filter(({ at }) => at <= (tokens ?? Infinity)) };
    }),
  };
}

function emptied(checkpoint: Checkpoint): Checkpoint {
  return { ...checkpoint, step: 0, promptTail: null, journal: [], chains: checkpoint.chains.map(() => ({ tokens: 0, finish: null, segments: [], tails: [] })) };
}
