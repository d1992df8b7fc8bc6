/** What functions on a schedule have around their work: parts that fail alone, an end that is known, and a clock that goes on while nobody runs. */
import { type Clock, systemClock, wallClockMs } from '../engine/core/clock.ts';
import type { WorkerLog } from './context.ts';

export interface LambdaContext {
  getRemainingTimeInMillis(): number;
}

export type ScheduledHandler<T> = (event: unknown, context: LambdaContext) => Promise<T>;

export interface Parts {
  readonly [doing: string]: (signal: AbortSignal) => Promise<void>;
}

/** What is not done by then is given up, so that the invocation ends with what it knows. */
const MARGIN_MS = 3_000;
/** Kept for each part that is yet to come, as far as there is so much. */
const RESERVED_MS = 10_000;

/** Of an instance that was frozen no other clock can be trusted to have gone on, and what one invocation has seen the next compares. */
export const wallClock: Clock = { nowMs: wallClockMs, timeout: (delayMs) => systemClock.timeout(delayMs) };

/** One after another. One that fails, or is never through, keeps no other from its work; the invocation fails at its end. @throws what the first of them threw. */
export async function inParts(parts: Parts, context: LambdaContext, { clock, log }: { readonly clock: Clock; readonly log: WorkerLog }): Promise<void> {
  const failed: unknown[] = [];
  const all = Object.entries(parts);
  for (const [i, [doing, run]] of all.entries()) {
    const leftMs = context.getRemainingTimeInMillis() - MARGIN_MS;
    if (leftMs <= 0) break;
    const toCome = all.length - 1 - i;
    using timer = clock.timeout(leftMs - toCome * Math.min(RESERVED_MS, leftMs / (toCome + 1)));
    const { signal } = timer;
    await run(signal).catch((error: unknown) => {
      // The next one comes by itself.
      if (signal.aborted) return log.warn({ doing }, 'out of time');
      failed.push(error);
      log.error({ doing, err: error }, 'failed');
    });
  }
  if (failed.length > 0) throw failed[0];
}
