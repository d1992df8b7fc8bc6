/**
 * What a worker does for messages of sharded jobs, beside running their shards: a message of the job itself asks for its shards to be there, and one of a
 * shard whose job is over ends the shard. And what it leaves alone, where it begins nothing.
 */
import { inParallel } from '../core/waiting.ts';
import { bearShards } from '../kv/create.ts';
import { endJob } from '../kv/end.ts';
import { isTerminal, type Head } from '../kv/head.ts';
import { beginSharded } from '../kv/join.ts';
import { type JobKey, shardKey, shardOf } from '../kv/names.ts';
import { protocolOf } from '../kv/protocol.ts';
import { readHead } from '../kv/read.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import type { Queue, SliceMessage } from '../ports/queue.ts';
import { expire, type OverdueOptions } from './overdue.ts';
import type { Verdict } from './verdict.ts';

export interface ShardsOptions extends OverdueOptions {
  readonly queue: Pick<Queue, 'sendAll'>;
  /** Whether the worker runs jobs that nobody has begun. Default: true. */
  readonly begins?: boolean | undefined;
}

/** A job that is not to be begun here comes back so often: a queue lets a message come a hundred times. */
const UNBEGUN_MS = 3 * 60_000;

/** What is left of a verdict; null: all is done, and the message is not needed any more. */
export async function shardVerdict(message: SliceMessage, where: JobKey, head: Head | null, verdict: Verdict, { store, queue, clock, endings, say, begins = true }: ShardsOptions): Promise<Verdict | null> {
  if (!begins && verdict.kind === 'run' && (await isUnbegun(where, head, store))) return { kind: 'wait', delayMs: UNBEGUN_MS };
  if (head?.join !== undefined) {
    if (isTerminal(head.state)) await endings.jobEnded(where);
    else await announce(message, head, { store, queue, clock });
    return null;
  }
  const shard = shardOf(where);
  if (shard === null) return verdict;
  // Whoever ran it may have died before it was joined.
  if (verdict.kind === 'drop' && verdict.why === 'ended') await endings.jobEnded(where);
  if (verdict.kind !== 'run' && verdict.kind !== 'expire') return verdict;
  if (verdict.kind === 'expire') {
    // It is the job that waits for its first worker: once a shard has one, the others may take their time.
    const parent = await readHead(store, shard.parent);
    if (parent?.head.state === 'queued') await expire(shard.parent, { store, clock, endings, say });
  }
  const { head: parent } = await beginSharded(store, shard.parent, { clock });
  if (!isTerminal(parent.state)) return verdict.kind === 'run' ? verdict : { kind: 'run', slice: message.slice, force: false, alone: false };
  await endJob(store, where, 'cancelled', { clock });
  await endings.jobEnded(where);
  return null;
}

/** Whether nobody has begun the job. A shard has begun when any shard of its job has: that one waits for it. */
async function isUnbegun(where: JobKey, head: Head | null, store: ObjectStore): Promise<boolean> {
  const shard = shardOf(where);
  const whole = shard === null ? head : ((await readHead(store, shard.parent))?.head ?? null);
  return head?.state === 'queued' && whole?.state === 'queued';
}

/**
 * Its shards are there afterwards. Those of a job that nobody has begun have a message each; later only those that were not born before: all others have
 * been sent, and have markers of their own, by which the walk finds what is lost.
 */
async function announce({ slice: _s, ...message }: SliceMessage, head: Head, { store, queue, clock }: Omit<ShardsOptions, 'endings' | 'say' | 'begins'>): Promise<void> {
  const shards = Array.from({ length: head.join?.shards ?? 0 }, (_, i) => i).filter((i) => head.join?.joined.includes(i) !== true);
  const found = await inParallel(shards.length, READS_AT_ONCE, undefined, async (i) => await readHead(store, shardKey(head, shards[i] ?? 0)));
  await bearShards(protocolOf(store, { clock }), head, undefined);
  const waiting = shards.filter((_, i) => found[i] == null || (head.state === 'queued' && found[i].head.state === 'queued'));
  await queue.sendAll(waiting.map((i) => ({ ...message, job: shardKey(head, i).job, slice: 0 })));
}

const READS_AT_ONCE = 8;
