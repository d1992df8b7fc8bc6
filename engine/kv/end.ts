/** Ending a job from outside: a take that never runs, so that a running owner is fenced at its next commit (DESIGN.md 2). */
import { EngineError } from '../core/errors.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import { isTerminal, type Head } from './head.ts';
import type { JobKey } from './names.ts';
import { protocolOf, type ProtocolOptions } from './protocol.ts';
import { requireHead } from './read.ts';
import { decided, swapHead } from './swap.ts';

export interface Ended {
  readonly head: Head;
  /** false: it had ended before, perhaps in another way, which stays. */
  readonly changed: boolean;
}

/**
 * What was committed stays readable. A worker whose commit this overtakes gets ERR_FENCED.
 * @throws EngineError ERR_JOB_NOT_FOUND, ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED.
 */
export async function endJob(store: ObjectStore, where: JobKey, state: 'cancelled' | 'expired' | 'poisoned', options: ProtocolOptions = {}): Promise<Ended> {
  const protocol = protocolOf(store, options);
  const { signal } = options;
  const stored = await requireHead(store, where, { signal });
  let hasEnded: Head | null = null;
  const writeNonce = protocol.nonce();
  try {
    const { head } = await swapHead(protocol, where, stored, {
      propose: ({ head: base }) => {
        hasEnded = isTerminal(base.state) ? base : null;
        if (hasEnded !== null) throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} is ${base.state}.`);
        return { ...base, version: base.version + 1, epoch: base.epoch + 1, writeNonce, state };
      },
      isMine: (current) => current.writeNonce === writeNonce,
    }, signal);
    return { head, changed: true };
  } catch (error) {
    if (hasEnded !== null) return { head: hasEnded, changed: false };
    throw decided(error);
  }
}
