/**
 * The one conditional write of the protocol: a head is compared and swapped here and nowhere else (KV.md 4). What a refusal or a missing
 * answer means is decided by reading the head.
 */
import { utf8Bytes, utf8Of } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { assert } from '../core/assert.ts';
import type { PutOutcome } from '../ports/object-store.ts';
import { formatHead, parseHead, type Head } from './head.ts';
import { HEAD, jobPrefix, type JobKey } from './names.ts';
import { attempts, type Protocol } from './protocol.ts';
import { requireHead, type StoredHead } from './read.ts';

export interface Swap {
  /**
   * The next head on top of `base`, with its version raised by one; asked again whenever another has been written meanwhile, for then
   * nothing sent before can be applied any more. Throws to give up: nothing is written.
   */
  readonly propose: (base: StoredHead) => Promise<Head> | Head;
  /** Has the proposal been applied, now or before someone else wrote? */
  readonly isMine: (current: Head, proposal: Head) => boolean;
}

/** Thrown when a proposal was sent and it cannot be told whether it has been or will be applied. */
export class Undecided extends Error {
  constructor(cause: unknown) {
    super('The outcome of a conditional write is not known.', { cause });
  }
}

/** @throws what `propose` throws; Undecided; EngineError ERR_JOB_NOT_FOUND. */
export async function swapHead(protocol: Protocol, where: JobKey, from: StoredHead, swap: Swap, signal: AbortSignal | undefined): Promise<StoredHead> {
  const nextAttempt = attempts(protocol, `${protocol.store.url}: ${jobPrefix(where)}${HEAD}`, signal);
  for (let base = from; ;) {
    const text = formatHead(await swap.propose(base));
    // Read again before it is sent: what nobody could read is never written.
    const proposal = parseHead(text, where);
    assert(utf8Bytes(text) <= LIMITS.HEAD_BYTES_MAX && proposal.version === base.head.version + 1, 'a head is small and counts its writes');
    const outcome = await sendUntilMoved(protocol, where, base, utf8Of(text), nextAttempt, signal);
    if (outcome.etag !== null) return { head: proposal, etag: outcome.etag };
    if (swap.isMine(outcome.current.head, proposal)) return outcome.current;
    base = outcome.current;
  }
}

type Sent = { readonly etag: string } | { readonly etag: null; readonly current: StoredHead };

/** The same bytes, with the same nonce, until they are written or the head is another: a first attempt may be applied after a second is sent. */
async function sendUntilMoved(
  protocol: Protocol, where: JobKey, base: StoredHead, text: Uint8Array, nextAttempt: () => Promise<void>, signal: AbortSignal | undefined,
): Promise<Sent> {
  try {
    for (;;) {
      const outcome: PutOutcome = await protocol.store.put(jobPrefix(where) + HEAD, [text], { condition: { kind: 'if_match', etag: base.etag }, signal });
      if (outcome.kind === 'written') return outcome;
      const current = await requireHead(protocol.store, where, { signal });
      if (current.etag !== base.etag) return { etag: null, current };
      await nextAttempt();
    }
  } catch (cause) {
    if (cause instanceof EngineError && cause.code === 'ERR_JOB_NOT_FOUND') throw cause;
    throw new Undecided(cause);
  }
}

/** The error for a caller that cannot do anything with not knowing. */
export function decided(error: unknown): unknown {
  return error instanceof Undecided ? error.cause : error;
}
