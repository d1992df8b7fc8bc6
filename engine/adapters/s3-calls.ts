/** One way for every call to S3: a time limit for each attempt, backoff and a deadline for all, errors with a code. */
import type { S3Client } from '@aws-sdk/client-s3';

import type { Clock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { once, withRetries } from './retry.ts';
import { describe, verdictOn } from './s3-errors.ts';

/** What a healthy store needs for the first byte, many times over. */
const ATTEMPT_MS = 15_000;
/** A slower link than this is not worth waiting for: bodies add their bytes at this rate to every limit. */
const BYTES_PER_MS_MIN = 1_000;

export interface S3Calls {
  readonly client: S3Client;
  readonly bucket: string;
  readonly url: string;
  /** Key as the store's users know it -> key in the bucket. */
  readonly keyOf: (key: string) => string;
  readonly clock: Clock;
  readonly random: () => number;
  readonly deadlineMs: number;
}

export interface CallLimits {
  /** Of the body that goes or comes. */
  readonly bytes?: number;
  readonly signal?: AbortSignal | undefined;
}

/** Tries again until the deadline. An error that another attempt cannot mend comes out as it is; `verdictOn` sorts it. */
export function insist<T>(calls: S3Calls, { bytes = 0, signal }: CallLimits, attempt: (signal: AbortSignal) => Promise<T>): Promise<T> {
  return withRetries(attempt, {
    clock: calls.clock,
    random: calls.random,
    attemptMs: ATTEMPT_MS + bytes / BYTES_PER_MS_MIN,
    deadlineMs: calls.deadlineMs + bytes / BYTES_PER_MS_MIN,
    signal,
    final: (error) => {
      const verdict = verdictOn(error, calls.url);
      if (verdict.kind === 'again') return null;
      return verdict.kind === 'wrong' ? verdict.error : (error as Error);
    },
    late: (error, attempts) => {
      const what = `no answer that could be used in ${attempts} attempts; the last: ${describe(error)}`;
      return new EngineError('ERR_STORE', `${calls.url}: ${what}.`, { cause: error });
    },
  });
}

/** One attempt and no other. */
export function attemptOnce<T>(calls: S3Calls, { bytes = 0, signal }: CallLimits, attempt: (signal: AbortSignal) => Promise<T>): Promise<T> {
  return once(attempt, { clock: calls.clock, signal, attemptMs: ATTEMPT_MS + bytes / BYTES_PER_MS_MIN });
}

/** What `insist` let out and the caller does not expect. */
export function unexpected(calls: S3Calls, error: unknown): EngineError {
  const verdict = verdictOn(error, calls.url);
  if (verdict.kind === 'wrong') return verdict.error;
  return new EngineError('ERR_STORE', `${calls.url}: an answer that makes no sense here: ${describe(error)}.`, { cause: error });
}
