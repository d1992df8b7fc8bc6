/**
 * How a job's chains are divided among shards (DESIGN.md 8). A chain keeps its index within the job wherever it runs, and so its random numbers, its
 * share of a KV-read budget and its ballot: any number of shards gives the same tokens, vote and bill.
 */
import { EngineError } from '../core/errors.ts';
import { type JobKey, shardKey } from '../kv/names.ts';
import type { ModelInfo } from '../runtime/native.ts';
import type { PreparedJob } from './prepare.ts';
import type { JobSpec } from './spec.ts';
import type { VoteRule } from './vote.ts';

export interface Shard {
  readonly index: number;
  /** Index within the job of its first chain. */
  readonly first: number;
  /** Chains of the job. */
  readonly width: number;
}

/** Chains [first, end) of `width`: as many for each, but for one more of the later ones. */
export function shardRange(width: number, shards: number, index: number): { readonly first: number; readonly end: number } {
  return { first: Math.floor((index * width) / shards), end: Math.floor(((index + 1) * width) / shards) };
}

/** Where chain `chain` of a sharded job is; one that it has not is in the last of them, which has it not either. */
export function shardOfChain(where: JobKey, width: number, shards: number, chain: number): { readonly at: JobKey; readonly chain: number } {
  const index = Math.max(0, Array.from({ length: shards }, (_, i) => shardRange(width, shards, i).first).findLastIndex((first) => first <= chain));
  return { at: shardKey(where, index), chain: chain - shardRange(width, shards, index).first };
}

/** The part of a sharded job that one worker runs. */
export function shardJob(job: PreparedJob, index: number): PreparedJob {
  const { lengths, shards } = job;
  if (shards === null || index >= shards) throw new EngineError('ERR_JOB_CONFLICT', `The job has no shard ${index}.`);
  const { first, end } = shardRange(lengths.length, shards, index);
  return { ...job, lengths: lengths.slice(first, end), shards: null, shard: { index, first, width: lengths.length } };
}

/**
 * The part of the KV-read budget that these chains have, and the smallest share of one of them; null: they have it together. A sharded job's is
 * divided equally, in whole reads, the first chains having one more: as native/run does.
 */
export function sharesOf({ kvReadBudget, lengths, shards, shard }: Pick<PreparedJob, 'kvReadBudget' | 'lengths' | 'shards' | 'shard'>): { readonly kvReadBudget: number | null; readonly kvReadShare: number | null } {
  if (kvReadBudget === null || (shards === null && shard === null)) return { kvReadBudget, kvReadShare: null };
  const width = shard?.width ?? lengths.length;
  const first = shard?.first ?? 0;
  const share = Math.floor(kvReadBudget / width);
  const more = Math.min(lengths.length, Math.max(0, (kvReadBudget % width) - first));
  return { kvReadBudget: share * lengths.length + more, kvReadShare: share };
}

/**
 * A vote that is decided cuts chains at a step that their shards may have passed by then. What they had used there follows from the eviction
 * decisions in their journals, and not every cache keeps those.
 * @throws EngineError ERR_OPTION.
 */
export function checkShards({ shards, early_stop: earlyStop = true, backend }: JobSpec, vote: VoteRule, { policy: { name, disableEviction } }: Pick<ModelInfo, 'policy'>): void {
  if (shards === undefined || !earlyStop || vote === 'none' || name === 'dense' || disableEviction) return;
  const isKept = backend !== 'reference' && (name === 'dms_borrowed' || name === 'dms_separate' || name === 'kvzap');
  if (isKept) return;
  const where = backend === 'reference' ? 'on the reference backend' : `under the policy ${name}`;
  throw new EngineError('ERR_OPTION', `shards must come with early_stop false ${where}, whose journals do not say what a chain had used when a vote was decided; got ${shards}.`);
}
