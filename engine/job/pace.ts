/**
 * How fast a model decodes on this machine, before any job of it has run: a few steps, timed. A step reads the weights once, whatever the number of chains, and
 * each chain's KV (cost.ts), so that its time is a line over the number of chains, and two points of it are enough.
 */
import type { Clock } from '../core/clock.ts';
import { linkSignals, throwIfCancelled } from '../core/waiting.ts';
import type { NativeRun } from '../runtime/native.ts';
import { runOptions } from './run.ts';
import type { Session } from './session.ts';

/** Tokens a second, after a short prompt. */
export interface Pace {
  /** Of a chain that is alone. */
  readonly one: number;
  /** Of `WIDE` chains together. */
  readonly wide: number;
}

/** Chains: one for each slot that a worker has. */
export const WIDE = 8;
/** For each of the two points. A step that takes longer is one. */
const POINT_MS = 100;
const CALLS = 8;
const STEPS_AT_ONCE = 24;
/** Of each chain: two points, and one step before each. */
const TOKENS = 2 * (CALLS * STEPS_AT_ONCE + 1);

/** Of `width` chains together, tokens a second. Beyond `WIDE` no more than there: that far nobody has looked. */
export function paceAt({ one, wide }: Pace, width: number): number {
  const [first, last] = [1_000 / one, (WIDE * 1_000) / wide];
  const stepMs = first + (Math.max(0, last - first) * (Math.min(width, WIDE) - 1)) / (WIDE - 1);
  return (Math.min(width, WIDE) * 1_000) / stepMs;
}

export interface PaceOptions {
  /** Of real time. */
  readonly clock: Clock;
  /** Default: all of this machine. */
  readonly threads?: number | undefined;
  readonly signal: AbortSignal;
  /** Ends the steps and not the loading, which a job that comes meanwhile may be waiting for. */
  readonly disturbed: AbortSignal;
}

/**
 * @param name as jobs name the model; it is loaded if it is not.
 * @returns also what jobs of it run as (`countdown@cr8`).
 * @throws EngineError ERR_CANCELLED within a step, ERR_MODEL_… and others of loading, ERR_MEMORY.
 */
export async function measurePace(session: Session, name: string, { clock, threads, signal, disturbed }: PaceOptions): Promise<{ readonly model: string; readonly pace: Pace }> {
  using open = await session.open({ model: name, raw_prompt: '0', budget: { length: TOKENS, width: WIDE } }, { clock, signal, ...(threads === undefined ? {} : { threads }) });
  const { job, engine, memoryLimitBytes } = open;
  const { resolved } = job.model;
  using stop = linkSignals(signal, disturbed);
  throwIfCancelled(stop.signal);
  // Nothing ends by itself: every step has all of its chains.
  using run = engine.createRun({ ...runOptions(job, memoryLimitBytes), eosIds: new Int32Array() });
  await run.prefill(stop.signal);
  const wideMs = await stepMs(run, clock, stop.signal);
  run.end(Array.from({ length: WIDE - 1 }, (_, i) => i + 1));
  const oneMs = await stepMs(run, clock, stop.signal);
  return { model: resolved.variant === null ? resolved.name : `${resolved.name}@${resolved.variant}`, pace: paceOf(oneMs, wideMs) };
}

/**
 * By what a step of one chain took and one of `WIDE`. Together they take no longer than one after the other and no shorter than one alone: a machine that
 * was disturbed meanwhile says so.
 */
export function paceOf(oneMs: number, wideMs: number): Pace {
  return { one: 1_000 / oneMs, wide: (WIDE * 1_000) / Math.max(oneMs, Math.min(wideMs, WIDE * oneMs)) };
}

/** Of one step: the shortest of calls of several, as jobs make them, because whatever disturbs one makes it longer (waking threads, other processes). */
async function stepMs(run: NativeRun, clock: Clock, signal: AbortSignal): Promise<number> {
  const timed = async (steps: number) => {
    const startMs = clock.nowMs();
    await run.step(steps, signal);
    return Math.max(clock.nowMs() - startMs, 1e-3) / steps;
  };
  const first = await timed(1);
  if (first >= POINT_MS) return first;
  const atOnce = Math.max(1, Math.min(STEPS_AT_ONCE, Math.floor(POINT_MS / 2 / first)));
  const each: number[] = [];
  for (const startMs = clock.nowMs(); each.length < CALLS && (each.length === 0 || clock.nowMs() - startMs < POINT_MS);) each.push(await timed(atOnce));
  return Math.min(...each);
}
