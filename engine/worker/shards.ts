/**
 * What a worker does for messages of sharded jobs, beside running their shards: a message of the job itself asks for its shards to be there, and one of a
 * shard whose job is over ends the shard.
 */
import { isTerminal, type Head } from '../kv/head.ts';
import { bearShards } from '../kv/create.ts';
import { endJob } from '../kv/end.ts';
import { beginSharded } from '../kv/join.ts';
import { type JobKey, shardKey, shardOf } from '../kv/names.ts';
import { protocolOf } from '../kv/protocol.ts';
import { readHead } from '../kv/read.ts';
import type { Clock } from '../core/clock.ts';
import type { Told } from '../job/endings.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import type { Queue, SliceMessage } from '../ports/queue.ts';
import type { Verdict } from './verdict.ts';

export interface ShardsOptions {
  readonly store: ObjectStore;
  readonly queue: Pick<Queue, 'sendAll'>;
  readonly clock: Clock;
  readonly endings: Told;
}

/** What is left of a verdict; null: all is done, and the message is not needed any more. */
export async function shardVerdict(message: SliceMessage, where: JobKey, head: Head | null, verdict: Verdict, { store, queue, clock, endings }: ShardsOptions): Promise<Verdict | null> {
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
    if (parent?.head.state === 'queued') {
      await endJob(store, shard.parent, 'expired', { clock });
      await endings.jobEnded(shard.parent);
    }
  }
  const { head: parent } = await beginSharded(store, shard.parent, { clock });
  if (!isTerminal(parent.state)) return verdict.kind === 'run' ? verdict : { kind: 'run', slice: message.slice, force: false, alone: false };
  await endJob(store, where, 'cancelled', { clock });
  await endings.jobEnded(where);
  return null;
}

/** Its shards are there, and each that has no worker has a message. */
async function announce({ slice: _s, ...message }: SliceMessage, head: Head, { store, queue, clock }: Omit<ShardsOptions, 'endings'>): Promise<void> {
  await bearShards(protocolOf(store, { clock }), head, undefined);
  await queue.sendAll(await shardMessages(store, head, message));
}

/** One for each shard that waits for its first worker. */
export async function shardMessages(store: ObjectStore, head: Head, message: Omit<SliceMessage, 'slice'>): Promise<readonly SliceMessage[]> {
  const messages: SliceMessage[] = [];
  for (let i = 0; i < (head.join?.shards ?? 0); i++) {
    const where = shardKey(head, i);
    const found = head.join?.joined.includes(i) === true ? null : await readHead(store, where);
    if (found?.head.state === 'queued') messages.push({ ...message, job: where.job, slice: found.head.slice });
  }
  return messages;
}
