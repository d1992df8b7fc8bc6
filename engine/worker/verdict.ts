/** What is to be done for a message, by the head of its job: the head decides, the message is a hint (DESIGN.md 2 and 6). */
import { isOwnerGone } from '../job/slice.ts';
import { isTerminal, type Head } from '../kv/head.ts';
import type { SliceMessage } from '../ports/queue.ts';

export type Verdict =
  | { readonly kind: 'drop'; readonly why: 'no such job' | 'ended' | 'older slice' }
  /** Its owner may live: look again later. */
  | { readonly kind: 'wait' }
  | { readonly kind: 'poison'; readonly strikes: number }
  /** `force`: its owner is gone. */
  | { readonly kind: 'run'; readonly slice: number; readonly force: boolean };

/** @param isUnmoved whether nobody has written the head for as long as an owner may be silent; asked only of a running job. */
export function verdictOf(message: SliceMessage, head: Head | null, strikesMax: number, isUnmoved: (head: Head) => boolean): Verdict {
  if (head === null) return { kind: 'drop', why: 'no such job' };
  if (isTerminal(head.state)) return { kind: 'drop', why: 'ended' };
  const force = head.state === 'running';
  const isGone = force && isOwnerGone(head.owner);
  // The message of a worker that was killed comes again, and is older than what that one took.
  if (message.slice < head.slice && !isGone) return { kind: 'drop', why: 'older slice' };
  if (force && !isGone && !isUnmoved(head)) return { kind: 'wait' };
  if (head.strikes >= strikesMax) return { kind: 'poison', strikes: head.strikes };
  return { kind: 'run', slice: head.slice, force };
}
