/** One prepared job on one open engine: prefill, steps, the vote after every finish, the result. */
import type { Clock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { NativeEngine, NativeRun, RunReport } from '../runtime/native.ts';
import { castBallot, chainResult } from './ballots.ts';
import { usageOf } from './budget.ts';
import type { FinishReason, JobResult, Progress } from './generate.ts';
import type { PreparedJob } from './prepare.ts';
import { ProgressView } from './progress.ts';
import { type CastBallot, electedBallot, isDecided } from './vote.ts';

export interface RunContext {
  readonly engine: NativeEngine;
  readonly threads: number;
  readonly loadMs: number;
  /** What was free for KV when the job was admitted; null: not known. */
  readonly memoryLimitBytes: number | null;
  readonly clock: Clock;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** The caller's and the deadline's; which of them fired is the finish reason. */
  readonly cancelled: AbortSignal | null;
  readonly deadline: AbortSignal | null;
}

export async function runJob(job: PreparedJob, context: RunContext): Promise<JobResult> {
  const { engine, clock, onProgress } = context;
  const interrupt = AbortSignal.any([context.cancelled, context.deadline].filter((signal) => signal !== null));
  const view = onProgress === undefined ? null : new ProgressView(job);
  using run = engine.createRun(runOptions(job, context.memoryLimitBytes));
  let allocated = 0;
  const look = (phase: Progress['phase'], ended: FinishReason | null = null): RunReport => {
    const report = run.report();
    allocated = Math.max(allocated, engine.memory().kvAllocatedBytes);
    if (view !== null) onProgress?.(view.picture(phase, report, ended));
    return report;
  };

  const start = clock.nowMs();
  look('prefill');
  const prefilled = await settle(() => run.prefill(interrupt), interrupt);
  const decodeStart = clock.nowMs();
  const ended = prefilled ? await decode(job, run, interrupt, context, () => look('decode')) : whyInterrupted(context);
  const decodeEnd = clock.nowMs();
  const report = look('done', ended);

  const completionTokens = report.chains.reduce((sum, chain) => sum + chain.tokens.length, 0);
  return {
    ...resultOf(job, report, ended),
    timing: {
      load_ms: context.loadMs,
      prefill_ms: decodeStart - start,
      decode_ms: decodeEnd - decodeStart,
      tokens_per_second: decodeEnd > decodeStart ? (completionTokens * 1_000) / (decodeEnd - decodeStart) : 0,
      kv_allocated_bytes: allocated,
      weight_bytes: engine.memory().weightBytes,
      threads: context.threads,
      isa: engine.isa,
    },
  };
}

/** Until every chain has finished, the vote is decided or someone interrupts. Returns why chains were ended, null if none was. */
async function decode(job: PreparedJob, run: NativeRun, interrupt: AbortSignal, context: RunContext, look: () => RunReport): Promise<FinishReason | null> {
  const steps = context.onProgress === undefined ? LIMITS.STEPS_UNWATCHED : LIMITS.STEPS_WATCHED;
  const ballots = new Map<number, CastBallot>();
  for (;;) {
    const report = look();
    for (const [index, chain] of report.chains.entries()) {
      if (chain.finish !== null && !ballots.has(index)) ballots.set(index, castBallot(job, index, chain));
    }
    const running = unfinished(report);
    if (running.length === 0) return null;
    // The call before this look returned at a finish, so all finishes of this step are in and none of a later one: this is s*.
    if (job.earlyStop && isDecided(job.vote, [...ballots.values()], running.length)) {
      run.end(running);
      return 'early_stop';
    }
    if (!(await settle(() => run.step(steps, interrupt), interrupt))) {
      const left = unfinished(run.report());
      run.end(left);
      return left.length === 0 ? null : whyInterrupted(context);
    }
  }
}

/** false: interrupted. A native call that was interrupted has lost nothing: its run still holds every whole step. */
async function settle(call: () => Promise<void>, interrupt: AbortSignal): Promise<boolean> {
  if (interrupt.aborted) return false;
  try {
    await call();
    return true;
  } catch (error) {
    if (interrupt.aborted && error instanceof EngineError && error.code === 'ERR_CANCELLED') return false;
    throw error;
  }
}

function whyInterrupted(context: RunContext): FinishReason {
  return context.cancelled?.aborted ? 'cancelled' : 'deadline';
}

function unfinished(report: RunReport): number[] {
  return report.chains.flatMap((chain, index) => (chain.finish === null ? [index] : []));
}

function resultOf(job: PreparedJob, report: RunReport, ended: FinishReason | null): Omit<JobResult, 'timing'> {
  // A run interrupted before its first step has chains without a finish: they too were ended from outside.
  const chains = report.chains.map((chain) => (chain.finish === null ? { ...chain, finish: 'ended' as const } : chain));
  const ballots = chains.map((chain, index) => castBallot(job, index, chain));
  return {
    answer: electedBallot(job.vote, ballots)?.answer ?? null,
    ballots: ballots.map(({ chain, answer, key, verified }) => ({ chain, answer, key, verified })),
    chains: chains.map((chain, index) => {
      const ballot = ballots[index] ?? castBallot(job, index, chain);
      return chainResult(job, chain, ballot, ended, report.headCount);
    }),
    usage: usageOf({ ...report, chains }, job.promptIds.length, job.bytesPerToken),
  };
}

function runOptions(job: PreparedJob, memoryLimitBytes: number | null) {
  const { info, tokenizer } = job.model;
  return {
    prompt: Int32Array.from(job.promptIds),
    width: job.lengths.length,
    lengths: Int32Array.from(job.lengths),
    seed: job.seed,
    firstChain: 0,
    sampling: job.sampling,
    eosIds: Int32Array.from(info.eosIds),
    stop: job.stop,
    pieces: job.stop.length === 0 ? null : tokenizer.pieces(info.vocabSize),
    kvReadBudget: job.kvReadBudget,
    memoryLimitBytes,
    prefillChunk: LIMITS.PREFILL_CHUNK,
  };
}
