/** One prepared job on one open engine, from its run to its result. */
import { LIMITS } from '../core/limits.ts';
import { nextTurn } from '../core/turns.ts';
import type { RunOptions, RunReport } from '../runtime/native.ts';
import { castBallot, chainResult, chainText } from './ballots.ts';
import { usageOf } from './budget.ts';
import type { ChainResult, FinishReason, JobResult } from './generate.ts';
import { type PlayContext, type Played, play } from './play.ts';
import type { PreparedJob } from './prepare.ts';
import { type CastBallot, electedBallot } from './vote.ts';

export interface RunContext extends PlayContext {
  readonly threads: number;
  readonly loadMs: number;
  /** What was free for KV when the job was admitted; null: not known. */
  readonly memoryLimitBytes: number | null;
}

export async function runJob(job: PreparedJob, context: RunContext): Promise<JobResult> {
  using run = context.engine.createRun(runOptions(job, context.memoryLimitBytes));
  const played = await play(job, run, context);
  return { ...(await resultOf(job, played.report, played.ended)), timing: timingOf(played, context) };
}

export function timingOf(played: Played, { engine, loadMs, threads }: RunContext): JobResult['timing'] {
  return {
    load_ms: loadMs,
    prefill_ms: played.prefillMs,
    decode_ms: played.decodeMs,
    tokens_per_second: played.decodeMs > 0 ? (played.newTokens * 1_000) / played.decodeMs : 0,
    kv_allocated_bytes: played.kvAllocatedBytes,
    weight_bytes: engine.memory().weightBytes,
    threads,
    isa: engine.isa,
  };
}

/** All of a result that is a function of the job and the report. The text of each chain is made in a turn of its own: there may be megabytes. */
export async function resultOf(job: PreparedJob, report: RunReport, ended: FinishReason | null): Promise<Omit<JobResult, 'timing'>> {
  const { chains } = closed(report);
  const ballots: CastBallot[] = [];
  const results: ChainResult[] = [];
  for (const [index, chain] of chains.entries()) {
    await nextTurn();
    const text = chainText(job, chain);
    const ballot = castBallot(job, index, chain, text);
    ballots.push(ballot);
    results.push(chainResult(job, chain, text, ballot, ended, report.headCount));
  }
  return {
    answer: electedBallot(job.vote, ballots)?.answer ?? null,
    ballots: ballots.map(({ chain, answer, key, verified }) => ({ chain, answer, key, verified })),
    chains: results,
    usage: usageOf({ ...report, chains }, job.promptIds.length, job.bytesPerToken),
  };
}

/** Of a run that is over: one interrupted before its first step has chains without a finish, and they too were ended from outside. */
export function closed(report: RunReport): RunReport {
  return { ...report, chains: report.chains.map((chain) => (chain.finish === null ? { ...chain, finish: 'ended' as const } : chain)) };
}

export function runOptions(job: PreparedJob, memoryLimitBytes: number | null, checkpointed = false): RunOptions {
  const { info, tokenizer } = job.model;
  return {
    prompt: Int32Array.from(job.promptIds),
    width: job.lengths.length,
    lengths: Int32Array.from(job.lengths),
    seed: job.seed,
    firstChain: job.shard?.first ?? 0,
    // Shares of the budget are the same however the chains are divided.
    jobWidth: job.shard?.width ?? (job.shards === null ? 0 : job.lengths.length),
    sampling: job.sampling,
    eosIds: Int32Array.from(info.eosIds),
    stop: job.stop,
    pieces: job.stop.length === 0 ? null : tokenizer.pieces(info.vocabSize, job.keptIds),
    kvReadBudget: job.kvReadBudget,
    memoryLimitBytes,
    prefillChunk: LIMITS.PREFILL_CHUNK,
    logprobs: job.logprobs,
    checkpointed,
  };
}
