/** One way for every call to SQS: a time limit for each attempt, backoff and a deadline for all, errors with a code. */
import type { SQSClient } from '@aws-sdk/client-sqs';

import type { Clock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { withRetries } from './retry.ts';
import { describe } from './s3-errors.ts';
import { verdictOnSqs } from './sqs-errors.ts';

const ATTEMPT_MS = 15_000;

export interface SqsCalls {
  readonly client: SQSClient;
  readonly clock: Clock;
  readonly random: () => number;
  readonly deadlineMs: number;
}

export interface SqsLimits {
  /** Which queue, for people. */
  readonly url: string;
  /** The server may take so long on purpose. */
  readonly waitMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** What the SDK's `send` takes beside a command. */
export interface Abortable {
  readonly abortSignal: AbortSignal;
}

/** null: the receipt was stale. Tries again until the deadline. @throws EngineError ERR_QUEUE, ERR_QUEUE_CONFIG, ERR_CANCELLED. */
export async function insistOnSqs<T>(calls: SqsCalls, { url, waitMs = 0, signal }: SqsLimits, attempt: (options: Abortable) => Promise<T>): Promise<T | null> {
  const { clock, random, deadlineMs } = calls;
  try {
    return await withRetries((abortSignal) => attempt({ abortSignal }), {
      clock,
      random,
      attemptMs: ATTEMPT_MS + waitMs,
      deadlineMs: deadlineMs + waitMs,
      signal,
      final: (error) => {
        const verdict = verdictOnSqs(error, url);
        if (verdict.kind === 'again') return null;
        return verdict.kind === 'wrong' ? verdict.error : new Stale();
      },
      late: (error, attempts) => new EngineError('ERR_QUEUE', `${url}: no answer that could be used in ${attempts} attempts; the last: ${describe(error)}.`, { cause: error }),
    });
  } catch (error) {
    if (error instanceof Stale) return null;
    throw error;
  }
}

class Stale extends Error {}
