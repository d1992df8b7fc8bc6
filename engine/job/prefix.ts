/**
 * A prompt that begins as a chain of another job did: its KV is taken from that job's tails as far as they reach, and the rest is prefilled.
 * It only saves time: K, V and counters are those of the whole prompt fed at once, so what cannot be read is computed (DESIGN.md 3).
 */
import type { Clock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { readJob } from '../kv/create.ts';
import type { ObjectRef } from '../kv/manifest.ts';
import type { JobKey } from '../kv/names.ts';
import { readObject, readObjects } from '../kv/read.ts';
import { openKeys } from '../kv/seal.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import type { NativeEngine, NativeRun, RunOptions } from '../runtime/native.ts';
import { type Checkpoint, checkpointOf, firstOf, promptSegments } from './checkpoint.ts';
import { isRecomputingCheaper } from './planner.ts';
import { isLoss, memoryFor, rateOf } from './restore.ts';

export interface PrefixRequest {
  readonly store: ObjectStore;
  readonly keys: KeyProvider | null;
  readonly engine: NativeEngine;
  readonly run: RunOptions;
  readonly numericsId: string;
  /** The job that the prompt goes on from. */
  readonly where: JobKey;
  readonly chain: number;
  /** Tokens that the prompt has in common with that job's prompt and chain. */
  readonly common: number;
  /** Throws for a checkpoint of another model or layout. */
  readonly check: (checkpoint: Checkpoint) => void;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
}

export type Prefixed =
  /** Prefilled. `reused`: tokens of the prompt that were not computed. */
  | { readonly run: NativeRun; readonly reused: number; readonly prefillRate: number | null }
  | { readonly run: null; readonly reason: string };

/** Faults of what another job has left: they cost time. What concerns this machine or its store is thrown. */
const LOST = new Set(['ERR_CHECKPOINT', 'ERR_JOB_NOT_FOUND', 'ERR_KEY']);

/** @throws EngineError ERR_STORE, ERR_MEMORY, ERR_CANCELLED … */
export async function restorePrefix(request: PrefixRequest): Promise<Prefixed> {
  try {
    return await attempts(request);
  } catch (error) {
    if (!(error instanceof EngineError) || !LOST.has(error.code)) throw error;
    return { run: null, reason: error.message };
  }
}

async function attempts({ store, keys: provider, engine, run: options, where, chain, common, numericsId, check, clock, signal }: PrefixRequest): Promise<Prefixed> {
  // What a chain has generated was pruned, and a prompt is whole until it ends.
  if (engine.info.policy.kvzap !== null) return { run: null, reason: 'under kvzap a prompt goes on from nothing' };
  const { head, manifest } = await readJob(store, where, { signal });
  if (manifest === null) return { run: null, reason: `missing: ${where.job} has no checkpoint` };
  const checkpoint = checkpointOf(manifest, head.journal.map((ref) => ({ ...ref, origin: where.job })));
  check(checkpoint);
  if (checkpoint.numericsId !== numericsId) return { run: null, reason: 'the checkpoint is of other numerics' };
  const sources = sourcesOf(checkpoint, chain, common);
  let reason = `the prompt has its first ${common} tokens in common with ${where.job}, and there is no tail that early`;
  if (sources.length === 0) return { run: null, reason };
  const start = clock.nowMs();
  const read = (ref: ObjectRef, stop: AbortSignal) => readObject(store, where, ref, { signal: stop });
  const journals = await readObjects(checkpoint.journal, signal, read);
  const measured = { bytes: checkpoint.journal.reduce((sum, { bytes }) => sum + bytes, 0), ms: clock.nowMs() - start, objects: journals.length };
  const prefillTokensPerSecond = manifest.slices.findLast(({ prefillRate }) => prefillRate !== null)?.prefillRate ?? null;
  using keys = await openKeys(provider, where, manifest, { signal });
  for (const { source, tail, segments, tokens } of sources) {
    const refs = [...segments, tail];
    if (isRecomputingCheaper({ bytes: refs.reduce((sum, { bytes }) => sum + bytes, 0), tokens, measured, prefillTokensPerSecond })) {
      return { run: null, reason: 'computing again is cheaper than reading' };
    }
    try {
      using memory = memoryFor(engine, options, segments, 1);
      const bodies = await readObjects(refs, signal, read);
      const all = [...refs, ...checkpoint.journal];
      const origins = [...new Set(all.map(({ origin }) => origin))];
      const run = await engine.restoreRun({
        run: options,
        objects: all.map(({ bytes, digest, origin }, i) => ({ chunks: [...bodies, ...journals][i] ?? [], bytes, digest, seal: origins.indexOf(origin) })),
        seals: origins.map((origin) => keys.of(origin)),
        checkDigests: true,
        replay: false,
        ownJournal: false,
        chains: Array.from(options.lengths, () => FROM_PROMPT),
        promptSegments: [],
        promptTail: null,
        journals: checkpoint.journal.map((_, i) => refs.length + i),
        prefix: { source: source < 0 ? source : firstOf(checkpoint) + source, tokens: -1, reopen: false, segments: segments.map((_, i) => i), tail: segments.length },
      }, signal, memory);
      return await prefilled(run, options, clock, signal);
    } catch (error) {
      // ERR_OPTION: a chain that was ended has fed its last token, which the prompt does not share.
      if (!isLoss(error) && !(error instanceof EngineError && error.code === 'ERR_OPTION')) throw error;
      reason = error instanceof Error ? error.message : reason;
    }
  }
  return { run: null, reason };
}

const FROM_PROMPT = { source: -1, tokens: -1, reopen: false, segments: [], tail: null } as const;

async function prefilled(run: NativeRun, { prompt }: RunOptions, clock: Clock, signal: AbortSignal | undefined): Promise<Prefixed> {
  const reused = run.report().chains[0]?.fed ?? 0;
  const start = clock.nowMs();
  try {
    await run.prefill(signal);
  } catch (error) {
    run.close();
    throw error;
  }
  return { run, reused, prefillRate: rateOf(prompt.length - reused, clock.nowMs() - start) };
}

interface PrefixSource {
  readonly source: number;
  readonly tail: ObjectRef;
  readonly segments: readonly ObjectRef[];
  readonly tokens: number;
}

/** The tails that hold no more than the prompt begins with, from the longest. */
function sourcesOf(checkpoint: Checkpoint, chain: number, common: number): readonly PrefixSource[] {
  const { promptTokens, promptTail, chains } = checkpoint;
  const from = chains[chain];
  // The last token of a chain that has ended may not have been fed.
  const tails = (from?.tails ?? []).filter(({ at }) => promptTokens + at - (from?.finish != null && at === from.tokens ? 1 : 0) <= common);
  return [
    ...tails.toReversed().map(({ at, object }) => ({ source: chain, tail: object, segments: from?.segments ?? [], tokens: promptTokens + at })),
    ...(promptTail === null || promptTokens > common ? [] : [{ source: -1, tail: promptTail, segments: promptSegments(checkpoint), tokens: promptTokens }]),
  ];
}
