/** What is to be done for a message, by the head of its job: the head decides, the message is a hint (DESIGN.md 2 and 6). */
import { isOwnerGone } from '../core/owner.ts';
import { isTerminal, type Head } from '../kv/head.ts';
import type { SliceMessage } from '../ports/queue.ts';

export type Verdict =
  | { readonly kind: 'drop'; readonly why: 'no such job' | 'ended' | 'older slice' }
  /** Its owner may live, or it is not to be begun here: look again later. */
  | { readonly kind: 'wait'; readonly delayMs?: number }
  | { readonly kind: 'poison'; readonly strikes: number }
  | { readonly kind: 'expire' }
  /** `force`: its owner is gone. `alone`: it may be what brought down whoever had it, so that nothing else is put at stake. */
  | { readonly kind: 'run'; readonly slice: number; readonly force: boolean; readonly alone: boolean };

export interface VerdictOptions {
  /** Of the message, this time included. */
  readonly received: number;
  /** Takes without progress after which a job is poisoned. */
  readonly strikesMax: number;
  /** Whether nobody has written the head for as long as an owner may be silent; asked only of a running job. */
  readonly isUnmoved: (head: Head) => boolean;
  /** It has waited longer for its first worker than it was to wait, by its spec. */
  readonly isLate: boolean;
}

/** From so many on a job runs alone. */
const STRIKES_ALONE = 2;

export function verdictOf(message: SliceMessage, head: Head | null, { received, strikesMax, isUnmoved, isLate }: VerdictOptions): Verdict {
  if (head === null) return { kind: 'drop', why: 'no such job' };
  if (isTerminal(head.state)) return { kind: 'drop', why: 'ended' };
  const force = head.state === 'running';
  const isGone = force && isOwnerGone(head.owner);
  // Each time that a message was received it led to one take at most. One that has come back so often that the head's last take may be its own was never done
  // with: its worker is dead or may be, or could not send the continuation, and nothing else tells of the job before the walk.
  const isOfTake = received > head.slice - message.slice;
  if (message.slice < head.slice && !isOfTake && !isGone) return { kind: 'drop', why: 'older slice' };
  if (head.state === 'queued' && isLate) return { kind: 'expire' };
  if (force && !isGone && !isUnmoved(head)) return { kind: 'wait' };
  if (head.strikes >= strikesMax) return { kind: 'poison', strikes: head.strikes };
  return { kind: 'run', slice: head.slice, force, alone: head.strikes >= STRIKES_ALONE };
}
