/**
 * Signs of life of an owner that has nothing to commit: a prompt that is fed for minutes, a long recomputation, a restore over a slow line.
 * Without them whoever watches the head would take the job away from an owner in good health.
 */
import type { Clock } from '../core/clock.ts';
import { type ErrorCode, codeOf } from '../core/errors.ts';
import { pause } from '../core/waiting.ts';
import type { Lease } from '../kv/lease.ts';

export interface Heartbeat extends AsyncDisposable {
  /** Aborts when another owner has been met: what is being computed is of no use any more. */
  readonly fenced: AbortSignal;
}

/** Until it is disposed, a head that has not been written for `intervalMs` is touched. A store that fails is asked again. */
export function keepAlive(lease: Lease, clock: Clock, intervalMs: number): Heartbeat {
  const [stop, fenced] = [new AbortController(), new AbortController()];
  // Seen twice the same, it has been still for between one and two pauses.
  const pauseMs = intervalMs / 2;
  const beating = (async () => {
    for (;;) {
      const { writeNonce } = lease.head;
      await pause(clock, pauseMs, stop.signal);
      if (lease.head.writeNonce === writeNonce) await lease.touch({ signal: stop.signal }).catch(unlessOver);
    }
  })().catch((error: unknown) => {
    if (codeOf(error) === 'ERR_FENCED') fenced.abort();
  });
  return {
    fenced: fenced.signal,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await beating;
    },
  };
}

/** The lease is lost or let go, or nobody listens any more. Anything else is the store's trouble, and the next commit will say so. */
const OVER: readonly (ErrorCode | undefined)[] = ['ERR_FENCED', 'ERR_JOB_CONFLICT', 'ERR_CANCELLED'];

function unlessOver(error: unknown): void {
  if (OVER.includes(codeOf(error))) throw error;
}
