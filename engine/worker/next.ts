/** What becomes of a message when its job has had its turn. */
import type { Head } from '../kv/head.ts';
import type { ReceivedMessage, SliceMessage } from '../ports/queue.ts';

export type OurMessage = ReceivedMessage & { readonly message: SliceMessage };

export type Next = { readonly kind: 'remove' } | Again;

export interface Again {
  readonly kind: 'again';
  readonly delayMs: number;
  /** As this worker has left it; absent: it is to be read. */
  readonly head?: Head | null;
  /** See SliceMessage. */
  readonly failures?: number;
  /** It comes back as one that was never received, as nothing is wrong with whoever had it: how often a message was received says when it is a dead letter. */
  readonly anew?: boolean;
}

export const REMOVE: Next = { kind: 'remove' };
export const AT_ONCE: Again = { kind: 'again', delayMs: 0 };

/** It only waits, through nobody's fault: for room, for who begins jobs, or for an owner that lives. */
export function later(delayMs: number): Again {
  return { kind: 'again', delayMs, anew: true };
}
