/** A run played to its end, or to the moment someone interrupts: prefill, steps, the vote after every finish. */
import type { Clock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { NativeEngine, NativeRun, RunReport } from '../runtime/native.ts';
import { castBallot } from './ballots.ts';
import type { Constraint } from './constraint.ts';
import type { FinishReason, Progress } from './generate.ts';
import type { PreparedJob } from './prepare.ts';
import { ProgressView } from './progress.ts';
import { type CastBallot, isDecided } from './vote.ts';

export interface PlayContext {
  readonly engine: NativeEngine;
  /** null: the job may write any text. */
  readonly constraint: Constraint | null;
  readonly clock: Clock;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
  /** What `onProgress` shows, as it is: before the prefill, after every native call and at the end. */
  readonly onReport?: ((report: RunReport) => void) | undefined;
  /** Someone reads along: native calls are short enough for them, and never change a result. Asked before every call. */
  readonly isFollowed?: (() => boolean) | undefined;
  /** The caller's and the deadline's; which of them fired is the finish reason. */
  readonly cancelled: AbortSignal | null;
  readonly deadline: AbortSignal | null;
  /** A run that its caller interrupts keeps its chains as they are instead of ending them; a deadline ends them all the same. */
  readonly parks?: boolean | undefined;
  /** Of a shard: the step at which its chains end, as far as is known; null: not yet. The vote is the job's, and not that of these chains. */
  readonly stopAt?: ((report: RunReport) => number | null) | undefined;
  /** After the prefill and after every call of `step`: the run is between two steps and may be saved. */
  readonly onBoundary?: ((report: RunReport) => Promise<void>) | undefined;
}

export interface Played {
  readonly report: RunReport;
  /** Why chains that did not finish by themselves were ended; null: none was. */
  readonly ended: FinishReason | null;
  /** Interrupted by the caller with chains that still run: only if `parks`. */
  readonly parked: boolean;
  readonly prefillMs: number;
  readonly decodeMs: number;
  /** Generated in `decodeMs`: a run that was restored began with others. */
  readonly newTokens: number;
  readonly kvAllocatedBytes: number;
}

export async function play(job: PreparedJob, run: NativeRun, context: PlayContext): Promise<Played> {
  const { engine, clock, onProgress, onReport } = context;
  const interrupt = AbortSignal.any([context.cancelled, context.deadline].filter((signal) => signal !== null));
  const view = onProgress === undefined ? null : new ProgressView(job);
  let kvAllocatedBytes = 0;
  const look = (phase: Progress['phase'], ended: FinishReason | null = null): RunReport => {
    const report = run.report();
    kvAllocatedBytes = Math.max(kvAllocatedBytes, engine.memory().kvAllocatedBytes);
    if (view !== null) onProgress?.(view.picture(phase, report, ended));
    onReport?.(report);
    return report;
  };

  const start = clock.nowMs();
  const before = tokensOf(look('prefill'));
  const prefilled = await settle(() => run.prefill(interrupt), interrupt);
  const decodeStart = clock.nowMs();
  const ended = prefilled ? await decode(job, run, interrupt, context, () => look('decode')) : whyInterrupted(context);
  const decodeEnd = clock.nowMs();
  const report = look('done', ended);
  return {
    report,
    ended,
    parked: parks(context, ended) && report.running > 0,
    prefillMs: decodeStart - start,
    decodeMs: decodeEnd - decodeStart,
    newTokens: tokensOf(report) - before,
    kvAllocatedBytes,
  };
}

/** Until every chain has finished, the vote is decided or someone interrupts. Returns why chains were ended, null if none was. */
async function decode(job: PreparedJob, run: NativeRun, interrupt: AbortSignal, context: PlayContext, look: () => RunReport): Promise<FinishReason | null> {
  const pace = new Pace(context);
  const ballots = new Map<number, CastBallot>();
  for (;;) {
    const report = look();
    for (const [index, chain] of context.stopAt === undefined ? report.chains.entries() : []) {
      if (chain.finish !== null && !ballots.has(index)) ballots.set(index, castBallot(job, index, chain));
    }
    const running = unfinished(report);
    if (running.length === 0) return null;
    // Chains of an extension may be further on than those that are new: a step is over when all that run have come to it.
    const step = Math.min(...running.map((index) => report.chains[index]?.tokens.length ?? 0));
    const stopAt = context.stopAt === undefined ? null : (context.stopAt(report) ?? Infinity);
    const isOver = stopAt === null ? isDecidedAt(step, job, ballots, report) : step >= stopAt;
    if (isOver) {
      run.end(running);
      return 'early_stop';
    }
    const most = (stopAt ?? nextBallot(step, ballots)) - step;
    await context.onBoundary?.(report);
    if (!(await settle(() => stepped(run, report, context.constraint, pace, most, interrupt), interrupt))) {
      const left = unfinished(run.report());
      if (left.length === 0) return null;
      const why = whyInterrupted(context);
      if (!parks(context, why)) run.end(left);
      return why;
    }
  }
}

/** Every call ends at a finish, and at the next ballot of a chain that is further on: all finishes up to this step are in, so that the first one decided is s*. */
function isDecidedAt(step: number, job: PreparedJob, ballots: ReadonlyMap<number, CastBallot>, { chains }: RunReport): boolean {
  const cast = [...ballots.values()].filter((ballot) => ballot.step <= step);
  return job.earlyStop && isDecided(job.vote, cast, chains.length - cast.length);
}

function nextBallot(step: number, ballots: ReadonlyMap<number, CastBallot>): number {
  return Math.min(...[...ballots.values()].map((ballot) => (ballot.step > step ? ballot.step : Infinity)));
}

/** What each token of a constrained chain may be is known when the one before it is. */
async function stepped(run: NativeRun, report: RunReport, constraint: Constraint | null, pace: Pace, most: number, interrupt: AbortSignal): Promise<void> {
  if (constraint === null) return await pace.timed(most, (steps) => run.step(steps, interrupt));
  await run.step(1, interrupt, await constraint.masks(report, interrupt));
}

/** How many steps a native call makes: none of them is too long for whoever reads along, on slow machines too. */
class Pace {
  readonly #context: PlayContext;
  #stepMs = Infinity;

  constructor(context: PlayContext) {
    this.#context = context;
  }

  async timed(most: number, call: (steps: number) => Promise<void>): Promise<void> {
    const { clock } = this.#context;
    const steps = Math.min(most, this.#steps());
    const startMs = clock.nowMs();
    await call(steps);
    this.#stepMs = (clock.nowMs() - startMs) / steps;
  }

  #steps(): number {
    const { onProgress, isFollowed } = this.#context;
    if (isFollowed?.() === true) return Math.min(LIMITS.STEPS_WATCHED, Math.max(1, Math.floor(LIMITS.FOLLOWED_CALL_MS / this.#stepMs)));
    return onProgress === undefined ? LIMITS.STEPS_UNWATCHED : LIMITS.STEPS_WATCHED;
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

function parks(context: PlayContext, ended: FinishReason | null): boolean {
  return context.parks === true && ended === 'cancelled';
}

function whyInterrupted(context: PlayContext): FinishReason {
  return context.cancelled?.aborted ? 'cancelled' : 'deadline';
}

/** Generated so far, by all chains. */
export function tokensOf({ chains }: RunReport): number {
  return chains.reduce((sum, { tokens }) => sum + tokens.length, 0);
}

function unfinished(report: RunReport): number[] {
  return report.chains.flatMap((chain, index) => (chain.finish === null ? [index] : []));
}
