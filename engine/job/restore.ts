/** From what a store holds of a job to a run that goes on: what to read, how much to believe, and what to fall back on (DESIGN.md 3). */
import type { Clock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import type { ObjectRef } from '../kv/manifest.ts';
import { readObjects } from '../kv/read.ts';
import type { Body } from '../ports/object-store.ts';
import type { NativeEngine, NativeRun, PreparedMemory, RunOptions, Seal } from '../runtime/native.ts';
import { type Checkpoint, firstOf, promptSegments } from './checkpoint.ts';
import { isRecomputingCheaper } from './planner.ts';

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
  /** Those of each, where the checkpoint is that of several shards. Default: it is of one. */
  readonly journals?: readonly (readonly ObjectRef[])[] | undefined;
  readonly chains: readonly ChainSource[];
  readonly read: (ref: ObjectRef, signal: AbortSignal | undefined) => Promise<Body>;
  readonly sealOf: (origin: string) => Seal;
  /** The checkpoint is of this very job. */
  readonly own: boolean;
  /** Another numerics computed it: tokens and eviction decisions are forced. */
  readonly replay: boolean;
  /** Of this job on its last machine; null: not known. */
  readonly prefillTokensPerSecond: number | null;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
}

export interface RestoredRun {
  readonly run: NativeRun;
  readonly outcome: 'restored' | 'recomputed' | 'replayed';
  /** Why not all of it was restored, or null. */
  readonly reason: string | null;
  /** Tokens that had to be computed again. */
  readonly recomputed: number;
  readonly prefillRate: number | null;
  /** What the store's objects still are to this run: the caller's next manifest begins with them. */
  readonly kept: Checkpoint;
}

/** From the newest cut back: what is damaged or gone costs time, never an answer. */
const FALLBACKS = ['newest tails', 'older tails', 'the prompt', 'the spec'] as const;
type Fallback = (typeof FALLBACKS)[number];

/**
 * @throws EngineError ERR_CHECKPOINT (layout, model, identity, format, numerics_drift: nothing to fall back on), ERR_KEY, ERR_FENCED,
 * ERR_STORE, ERR_MEMORY, ERR_CANCELLED.
 */
export async function restore(request: RestoreRequest): Promise<RestoredRun> {
  const journals = await readJournals(request);
  const recompute = journals.lost === null && isRecomputingCheaper({ ...costsOf(request), measured: journals, prefillTokensPerSecond: request.prefillTokensPerSecond });
  const first: Fallback = journals.lost !== null ? 'the spec' : request.replay || recompute ? 'the prompt' : 'newest tails';
  let reason: string | null = journals.lost ?? (request.replay ? 'the checkpoint is of other numerics' : recompute ? 'computing again is cheaper than reading' : null);
  for (const level of FALLBACKS.slice(FALLBACKS.indexOf(first))) {
    if (level === 'the spec' && (request.replay || !request.own)) break;
    try {
      return await attempt(request, journals.bodies, level, reason);
    } catch (error) {
      if (!isLoss(error)) throw error;
      reason = (error as EngineError).message;
    }
  }
  throw new EngineError('ERR_CHECKPOINT', reason ?? 'missing: there is nothing to go on from');
}

/** Bytes that are not what was written: something older may still do. Everything else is said as it is. */
export function isLoss(error: unknown): boolean {
  return error instanceof EngineError && error.code === 'ERR_CHECKPOINT' && /^(damaged|truncated|missing)\b/.test(error.message);
}

/** Fewer tokens say more about what starting costs than about the rate. */
const RATE_TOKENS_MIN = 256;

/** Tokens a second, or null if too few were fed to tell. */
export function rateOf(tokens: number, ms: number): number | null {
  return tokens < RATE_TOKENS_MIN || ms <= 0 ? null : (tokens * 1_000) / ms;
}

interface Journals {
  readonly bodies: readonly Body[];
  readonly bytes: number;
  readonly ms: number;
  readonly objects: number;
  /** Why they cannot be read, or null. */
  readonly lost: string | null;
}

/** Both ways need them, so they are read first: what they took says what reading the rest will. */
async function readJournals({ checkpoint: { journal }, read, clock, signal }: RestoreRequest): Promise<Journals> {
  const start = clock.nowMs();
  try {
    const bodies = await readObjects(journal, signal, read);
    return { bodies, bytes: journal.reduce((sum, { bytes }) => sum + bytes, 0), ms: clock.nowMs() - start, objects: journal.length, lost: null };
  } catch (error) {
    if (!isLoss(error)) throw error;
    return { bodies: [], bytes: 0, ms: 0, objects: 0, lost: (error as EngineError).message };
  }
}

/** What reading the newest cut would take, and feeding everything again. */
function costsOf({ checkpoint, chains, run }: RestoreRequest): { readonly bytes: number; readonly tokens: number } {
  const refs = new Map<string, number>();
  let tokens = run.prompt.length;
  for (const { source, tokens: wanted, reopen } of chains) {
    const from = source === null ? undefined : checkpoint.chains[source];
    if (from === undefined || (from.finish !== null && !reopen && wanted === null)) continue;
    tokens += wanted ?? from.tokens;
    const tail = from.tails.filter(({ at }) => at <= (wanted ?? Infinity)).at(-1);
    for (const ref of [...from.segments, ...(tail === undefined ? [] : [tail.object])]) refs.set(ref.name, ref.bytes);
  }
  return { bytes: [...refs.values()].reduce((sum, bytes) => sum + bytes, 0), tokens };
}

async function attempt(request: RestoreRequest, journalBodies: readonly Body[], level: Fallback, reason: string | null): Promise<RestoredRun> {
  const { engine, checkpoint, signal } = request;
  if (level === 'the spec') {
    const run = engine.createRun(request.run);
    const recomputed = checkpoint.chains.reduce((sum, { tokens }) => sum + tokens, 0);
    return { run, outcome: 'recomputed', reason, recomputed, prefillRate: null, kept: emptied(checkpoint) };
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
  const segments = new Set([...chains.flatMap((chain) => chain.segments), ...promptPages]);
  const caches = chains.filter(({ tail }) => tail !== null).length + (promptTail === null ? 0 : 1);
  using memory = memoryFor(engine, request.run, refs.filter((_, i) => segments.has(i)), caches);
  const pages = await readObjects(refs, signal, request.read);
  const [journals = [], ...shardJournals] = (request.journals ?? [checkpoint.journal]).map((list) => list.map(index));
  const bodies = [...pages, ...journalBodies];
  const origins = [...new Set(refs.map(({ origin }) => origin))];
  const run = await engine.restoreRun({
    run: request.run,
    objects: refs.map(({ bytes, digest, origin }, i) => ({ chunks: bodies[i] ?? [], bytes, digest, seal: origins.indexOf(origin) })),
    seals: origins.map(request.sealOf),
    checkDigests: true,
    replay: request.replay,
    ownJournal: request.own,
    chains: chains.map(({ fromPrompt: _, ...chain }) => ({ ...chain, source: chain.source < 0 ? -1 : firstOf(checkpoint) + chain.source })),
    promptSegments: promptPages,
    promptTail,
    journals,
    shardJournals,
    prefix: null,
  }, undefined, memory);
  const start = request.clock.nowMs();
  try {
    await run.prefill(signal);
  } catch (error) {
    run.close();
    throw error;
  }
  const { caughtUp } = run.report();
  const hasTail = chains.some(({ tail }) => tail !== null) || promptTail !== null || chains.every(({ fromPrompt }) => !fromPrompt);
  const outcome = request.replay ? 'replayed' : hasTail ? 'restored' : 'recomputed';
  const fed = caughtUp + (promptTail === null && chains.some(({ fromPrompt }) => fromPrompt) ? request.run.prompt.length : 0);
  const prefillRate = rateOf(fed, request.clock.nowMs() - start);
  return { run, outcome, reason, recomputed: caughtUp, prefillRate, kept: kept(request, chains, promptTail !== null) };
}

/** What these segments and the rings of as many caches will fill, made present while they are read; null: there is nothing to. */
export function memoryFor(engine: NativeEngine, { prompt, lengths, memoryLimitBytes }: RunOptions, segments: readonly { readonly bytes: number }[], caches: number): PreparedMemory | null {
  if (caches === 0) return null;
  const tokens = lengths.reduce((sum, length) => sum + prompt.length + length, 0);
  return engine.prepareRestore({ segmentBytes: segments.reduce((sum, { bytes }) => sum + bytes, 0), caches, tokens, memoryLimitBytes });
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
