/** Becoming the owner of a job: a swap of its head that raises the epoch, so that whoever owned it before is fenced at its next commit. */
import { EngineError } from '../core/errors.ts';
import { pause } from '../core/waiting.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import { isOwnerText, isTerminal, type Head } from './head.ts';
import { Lease } from './lease.ts';
import type { JobKey } from './names.ts';
import { protocolOf, type Protocol, type ProtocolOptions } from './protocol.ts';
import { readNamed, requireHead, type SeenJob, type StoredHead } from './read.ts';
import { decided, swapHead } from './swap.ts';

export interface TakeOptions extends ProtocolOptions {
  /** A hint for people, such as `pid 71 on host`: at most 112 printable ASCII characters. */
  readonly owner: string;
  /** How often this owner will write the head, at least: the head says so, and whoever watches it counts in that. From 1 to 999,999. */
  readonly commitIntervalMs?: number | undefined;
  /** How long to watch a running job for a sign of life before giving up. Default: four intervals of its owner's. 0: not at all. */
  readonly waitMs?: number | undefined;
  /** Takes a running job without watching it: the caller knows that its owner is gone, or wants it gone. */
  readonly force?: boolean | undefined;
  /** What the caller has just read of it, and need not be read again: a head that has moved since is not swapped. */
  readonly seen?: SeenJob | undefined;
}

export const COMMIT_INTERVAL_MS = 15_000;
/** Intervals without a commit after which an owner counts as gone. Economy, not safety: one that wakes is fenced. */
export const STILL_INTERVALS = 3;

/**
 * @example const lease = await takeJob(store, { tenant: 'local', job: 'sums' }, { owner: 'me' });
 * @throws EngineError ERR_JOB_NOT_FOUND; ERR_JOB_CONFLICT (it has ended, or its owner is alive; the state is named);
 * ERR_CHECKPOINT (nothing was written then); ERR_OPTION; ERR_STORE; ERR_CANCELLED.
 */
export async function takeJob(store: ObjectStore, where: JobKey, options: TakeOptions): Promise<Lease> {
  const owner = ownerText(options);
  const protocol = protocolOf(store, options);
  const { signal } = options;
  const mayTake = watcher(protocol, where, options);
  const writeNonce = protocol.nonce();
  for (let { seen } = options; ; seen = undefined) {
    const stored = seen?.stored ?? (await requireHead(store, where, { signal }));
    const { head } = stored;
    if (isTerminal(head.state)) throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} is ${head.state}; it cannot be taken.`);
    if (head.join !== undefined) throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} is sharded; its shards are taken, one by one.`);
    if (head.state === 'running' && !(await mayTake(head))) continue;
    // Before the take, so that a job that cannot be read is left as it is.
    const content = seen ?? (await readNamed(store, where, stored, { signal, digestKey: protocol.digestKey }));
    if (content === null) continue;
    const taken = await take(protocol, where, stored, writeNonce, { owner, signal });
    if (taken !== null) return new Lease(protocol, where, taken, content.manifest, content.spec);
  }
}

const INTERVAL_MS_MAX = 999_999;

/** What a head says of its owner: who it is, and `, 15000 ms` if it has said how often it writes. @throws EngineError ERR_OPTION. */
function ownerText({ owner, commitIntervalMs }: TakeOptions): string {
  if (!isOwnerText(owner) || owner.length > OWNER_LENGTH_MAX) {
    throw new EngineError('ERR_OPTION', `owner must have at most ${OWNER_LENGTH_MAX} printable ASCII characters without quotes and backslashes.`);
  }
  if (commitIntervalMs === undefined) return owner;
  if (!(commitIntervalMs >= 1 && commitIntervalMs <= INTERVAL_MS_MAX)) {
    throw new EngineError('ERR_OPTION', `commitIntervalMs must be from 1 to ${INTERVAL_MS_MAX}; got ${commitIntervalMs}.`);
  }
  return `${owner}, ${Math.ceil(commitIntervalMs)} ms`;
}

const OWNER_LENGTH_MAX = 112;

/** How often the owner that a head names writes it; null: it has not said. */
function intervalOf(owner: string): number | null {
  const said = /, ([1-9]\d{0,5}) ms$/.exec(owner)?.[1];
  return said === undefined ? null : Number(said);
}

/** How long the owner that a head names may be silent before it counts as gone. */
export function silentMs(owner: string): number {
  return STILL_INTERVALS * (intervalOf(owner) ?? COMMIT_INTERVAL_MS);
}

/** null: the head has moved, and what was decided about it no longer holds. */
async function take(protocol: Protocol, where: JobKey, from: StoredHead, writeNonce: string, { owner, signal }: Pick<TakeOptions, 'owner' | 'signal'>): Promise<StoredHead | null> {
  let hasMoved = false;
  try {
    return await swapHead(protocol, where, from, {
      propose: ({ head, etag }) => {
        // A collection of garbage changes nothing that was decided here; anyone else does.
        hasMoved = etag !== from.etag && head.writeNonce !== from.head.writeNonce;
        if (hasMoved) throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} was written meanwhile.`);
        const { version, epoch, slice, strikes } = head;
        return { ...head, version: version + 1, epoch: epoch + 1, writeNonce, state: 'running', slice: slice + 1, strikes: strikes + 1, owner };
      },
      isMine: (current) => current.writeNonce === writeNonce,
    }, signal);
  } catch (error) {
    if (hasMoved) return null;
    throw decided(error);
  }
}

/** Asked with each head that is read: true once its owner has written nothing for so long; else false, after a pause. */
function watcher({ clock }: Protocol, where: JobKey, options: TakeOptions): (head: Head) => Promise<boolean> {
  const startMs = clock.nowMs();
  let seen = { writeNonce: '', sinceMs: 0 };
  return async ({ writeNonce, owner, state }) => {
    if (options.force === true) return true;
    const intervalMs = intervalOf(owner) ?? options.commitIntervalMs ?? COMMIT_INTERVAL_MS;
    const endsMs = startMs + (options.waitMs ?? (STILL_INTERVALS + 1) * intervalMs);
    if (seen.writeNonce !== writeNonce) seen = { writeNonce, sinceMs: clock.nowMs() };
    const stillMs = clock.nowMs() - seen.sinceMs;
    if (stillMs >= STILL_INTERVALS * intervalMs) return true;
    const delayMs = Math.min(intervalMs, STILL_INTERVALS * intervalMs - stillMs);
    if (clock.nowMs() + delayMs > endsMs) {
      throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} is ${state}, owned by ${JSON.stringify(owner)}, which may be alive.`);
    }
    await pause(clock, delayMs, options.signal);
    return false;
  };
}
