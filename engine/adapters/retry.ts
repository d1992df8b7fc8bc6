/** Trying again: exponential backoff with full jitter, so that many clients of a busy store do not come back at once; never past a deadline. */
import type { Clock } from '../core/clock.ts';
import { linkSignals, pause, throwIfCancelled } from '../core/waiting.ts';

const BACKOFF_MS = 50;
const BACKOFF_MS_MAX = 5_000;

export interface RetryOptions {
  readonly clock: Clock;
  /** From 0 to below 1. */
  readonly random: () => number;
  /** For one attempt: a connection that hangs is given up while there is time for another. */
  readonly attemptMs: number;
  /** For all of them and the pauses between. */
  readonly deadlineMs: number;
  readonly signal?: AbortSignal | undefined;
  /** What to throw instead of another attempt; null: it may succeed next time. */
  readonly final: (error: unknown) => Error | null;
  /** What to throw when the time is up. */
  readonly late: (error: unknown, attempts: number) => Error;
}

/** @throws what `final` or `late` make, or ERR_CANCELLED. */
export async function withRetries<T>(attempt: (signal: AbortSignal) => Promise<T>, options: RetryOptions): Promise<T> {
  const { clock, signal } = options;
  const endsMs = clock.nowMs() + options.deadlineMs;
  using deadline = clock.timeout(options.deadlineMs);
  using ended = linkSignals(signal, deadline.signal);
  for (let attempts = 1; ; attempts++) {
    let failure: unknown;
    try {
      return await once(attempt, { clock, signal: ended.signal, attemptMs: options.attemptMs });
    } catch (error) {
      throwIfCancelled(signal);
      failure = error;
    }
    const final = options.final(failure);
    if (final !== null) throw final;
    const delayMs = options.random() * Math.min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** (attempts - 1));
    if (clock.nowMs() + delayMs >= endsMs) throw options.late(failure, attempts);
    await pause(clock, delayMs, signal);
  }
}

/** One attempt within `attemptMs`; why its signal aborted is for the caller to ask. */
export async function once<T>(
  attempt: (signal: AbortSignal) => Promise<T>, { clock, signal, attemptMs }: Pick<RetryOptions, 'clock' | 'signal' | 'attemptMs'>,
): Promise<T> {
  using limit = clock.timeout(attemptMs);
  using either = linkSignals(signal, limit.signal);
  return await attempt(either.signal);
}
