/** A sharded job run by one process: all shards together, as memory allows, in the steps of one engine. What a fleet does with them one by one. */
import { EngineError } from '../core/errors.ts';
import { sharedBy } from '../core/listeners.ts';
import { linkSignals } from '../core/waiting.ts';
import type { Progress } from './generate.ts';
import { shardRange } from './shards.ts';

/**
 * Runs every shard once: until it has ended or was asked to let go. One that finds no room beside the others comes again when they are through.
 * @throws what the first of them threw that failed, when all others have come to their end.
 */
export async function runShards(shards: number, signal: AbortSignal | undefined, run: (index: number, signal: AbortSignal) => Promise<unknown>): Promise<void> {
  using interrupt = linkSignals(signal);
  sharedBy(shards, interrupt.signal);
  let left = Array.from({ length: shards }, (_, i) => i);
  for (;;) {
    const outcomes = await Promise.allSettled(left.map(async (index) => await run(index, interrupt.signal)));
    const failures = outcomes.flatMap((outcome, i) => (outcome.status === 'rejected' ? [{ index: left[i] as number, error: outcome.reason as unknown }] : []));
    const other = failures.find(({ error }) => !(error instanceof EngineError && error.code === 'ERR_MEMORY'));
    if (other !== undefined) throw other.error;
    if (failures.length === 0) return;
    // Nobody was beside them, and still they do not fit.
    if (failures.length === left.length) throw failures[0]?.error;
    left = failures.map(({ index }) => index);
  }
}

/** One picture of all shards, from those of each. */
export function pictureOfAll(width: number, shards: number, show: (progress: Progress) => void): (index: number, progress: Progress) => void {
  const seen = new Map<number, Progress>();
  const nothing = { tokens: 0, live_kv_tokens: 0, compression_ratio: 1, finish_reason: null, tail: '' };
  return (index, progress) => {
    seen.set(index, progress);
    const all = Array.from({ length: shards }, (_, i) => {
      const { first, end } = shardRange(width, shards, i);
      return Array.from({ length: end - first }, (_unused, chain) => seen.get(i)?.chains[chain] ?? nothing);
    });
    const isRunning = [...seen.values()].some(({ phase }) => phase === 'decode' || phase === 'prefill');
    show({ ...progress, phase: isRunning ? 'decode' : progress.phase, chains: all.flat(), kv_reads: [...seen.values()].reduce((sum, { kv_reads }) => sum + kv_reads, 0) });
  };
}
