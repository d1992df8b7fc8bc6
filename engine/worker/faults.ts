/** What comes of the faults of a job: evidence of its takes, and its end as `failed` or `poisoned`. */
import { wallClockMs } from '../core/clock.ts';
import { ERROR_CODES, EngineError, type ErrorCode } from '../core/errors.ts';
import { ownerHint } from '../core/owner.ts';
import { endJob } from '../kv/end.ts';
import type { Head } from '../kv/head.ts';
import { type JobKey, rootOf, shardOf } from '../kv/names.ts';
import { isUnreadable } from '../kv/reason.ts';
import { putStrike, readStrikes, type Strike } from '../kv/strikes.ts';
import { takeJob } from '../kv/take.ts';
import type { OverdueOptions } from './overdue.ts';

/** What is known of the take that a head shows. Only evidence: that it cannot be stored changes nothing. */
export async function note(where: JobKey, head: Head | null, error: unknown, { store }: Pick<OverdueOptions, 'store'>): Promise<void> {
  if (head === null || head.strikes === 0) return;
  const { epoch, owner } = head;
  const fault = error === null ? { code: null, message: 'Its owner was gone without a word.' } : faultOf(error);
  await putStrike(store, where, { epoch, owner, ...fault, atMs: wallClockMs() }).catch(() => undefined);
}

/** A message of the engine's own never holds a prompt; any other's is not known to. */
function faultOf(error: unknown): Pick<Strike, 'code' | 'message'> {
  return error instanceof EngineError ? { code: error.code, message: error.message } : { code: 'ERR_INTERNAL', message: error instanceof Error ? error.name : 'thrown' };
}

/** The job ends as `failed`. false: it could not be ended now. */
export async function refuse(where: JobKey, code: ErrorCode, error: unknown, options: OverdueOptions): Promise<boolean> {
  const { store, clock, say } = options;
  try {
    const lease = await takeJob(store, where, { owner: ownerHint(), clock, waitMs: 0 });
    // Before the state, so that whoever finds it failed finds out why.
    // The code's own sentence: what was thrown quotes the request, which may be sealed, and is told to the log.
    const { epoch, owner } = lease.head;
    await putStrike(store, where, { epoch, owner, code, message: ERROR_CODES[code][1], atMs: wallClockMs() }).catch(() => undefined);
    await lease.commit({ state: 'failed', manifest: null, objects: [] });
    say({ kind: 'refused', where, error });
    await tell(where, options);
    return true;
  } catch {
    return false;
  }
}

/** The job ends as `poisoned`: its takes have struck so often. @throws EngineError as `endJob`. */
export async function poison(where: JobKey, head: Head | null, strikes: number, options: OverdueOptions): Promise<void> {
  if (head?.state === 'running') await note(where, head, null, options);
  await poisonNow(where, strikes, options);
  await tell(where, options);
}

/**
 * One whose spec or manifest is damaged or lost cannot be taken, and so never strikes: it ends as `poisoned`, too. A shard that cannot be read cannot be
 * joined, and so ends its job itself. false: it can be read, for all that `error` says, or could not be ended now.
 */
export async function giveUp(where: JobKey, { epoch, strikes }: Head, error: unknown, options: OverdueOptions): Promise<boolean> {
  const { store, clock, endings, say } = options;
  if (!isUnreadable(error)) return false;
  const root = rootOf(where);
  try {
    // Of the epoch in which it ends: it has no take of which this could be told.
    await putStrike(store, where, { epoch: epoch + 1, owner: ownerHint(), ...faultOf(error), atMs: wallClockMs() }).catch(() => undefined);
    await poisonNow(where, strikes, options);
    if (shardOf(where) !== null && (await endJob(store, root, 'poisoned', { clock })).changed) say({ kind: 'joined', where: root, state: 'poisoned', finishes: [] });
    await endings.jobEnded(root).catch(() => undefined);
    return true;
  } catch {
    return false;
  }
}

async function poisonNow(where: JobKey, strikes: number, { store, clock, say }: OverdueOptions): Promise<void> {
  const { changed } = await endJob(store, where, 'poisoned', { clock });
  if (changed) say({ kind: 'poisoned', where, strikes, evidence: await readStrikes(store, where).catch(() => []) });
}

/** That it has ended. A marker that stays is found by the reconciler; but the message of a shard is kept until it is joined. */
async function tell(where: JobKey, { endings }: OverdueOptions): Promise<void> {
  const telling = endings.jobEnded(where);
  await (shardOf(where) === null ? telling.catch(() => undefined) : telling);
}
