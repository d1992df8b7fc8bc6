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
  /** false: it had ended before, perhaps in another way, which stays; or it is not in `onlyFrom`. */
  readonly changed: boolean;
}

/**
 * What was committed stays readable. A worker whose commit this overtakes gets ERR_FENCED.
 * @param onlyFrom a job that is in another state by then is left as it is. Default: whatever has not ended is ended.
 * @throws EngineError ERR_JOB_NOT_FOUND, ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED.
 */
export async function endJob(store: ObjectStore, where: JobKey, state: 'cancelled' | 'expired' | 'poisoned', { onlyFrom, ...options }: ProtocolOptions & { readonly onlyFrom?: Head['state'] | undefined } = {}): Promise<Ended> {
  const protocol = protocolOf(store, options);
  const { signal } = options;
  const stored = await requireHead(store, where, { signal });
  let stays: Head | null = null;
  const writeNonce = protocol.nonce();
  try {
    const { head } = await swapHead(protocol, where, stored, {
      propose: ({ head: base }) => {
        stays = isTerminal(base.state) || (onlyFrom !== undefined && base.state !== onlyFrom) ? base : null;
        if (stays !== null) throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} is ${base.state}.`);
        return { ...base, version: base.version + 1, epoch: base.epoch + 1, writeNonce, state };
      },
      isMine: (current) => current.writeNonce === writeNonce,
    }, signal);
    return { head, changed: true };
  } catch (error) {
    if (stays !== null) return { head: stays, changed: false };
    throw decided(error);
  }
}
