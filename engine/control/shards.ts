/** A sharded job as its platform sees it: what is spread over the heads of its shards, put together. */
import { EngineError } from '../core/errors.ts';
import { inParallel } from '../core/waiting.ts';
import type { Progress } from '../job/journals.ts';
import { shardRange } from '../job/shards.ts';
import { readJob } from '../kv/create.ts';
import type { Head } from '../kv/head.ts';
import type { Manifest } from '../kv/manifest.ts';
import { type JobKey, shardKey } from '../kv/names.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import type { SliceMessage } from '../ports/queue.ts';
import type { JobView } from './platform.ts';

const READS_AT_ONCE = 16;

/** Those that a worker of this process may run, beside the job itself, which none does. */
export function partsOf(where: JobKey, { join }: Pick<Head, 'join'>): readonly JobKey[] {
  return join === undefined ? [where] : Array.from({ length: join.shards }, (_, i) => shardKey(where, i));
}

/** Of a job that was just made, one for each shard; of any other one that asks for its shards to be looked after. */
export function messagesFor(message: SliceMessage, head: Head): readonly SliceMessage[] {
  return head.state === 'queued' ? partsOf(head, head).map(({ job }) => ({ ...message, job })) : [message];
}

/** How far a job, or a shard, has come that has a manifest. */
export type ProgressOf = (where: JobKey, found: { readonly head: Head; readonly manifest: Manifest }) => Promise<Progress>;

/** How far each chain has come, as its shard says: its parent hears of it only when a chain ends. */
export async function withChains(store: ObjectStore, view: JobView, head: Head, progressOf: ProgressOf, { signal }: CallOptions): Promise<JobView> {
  const shards = head.join?.shards ?? 0;
  const chains = [...view.chains];
  const found = await inParallel(shards, READS_AT_ONCE, signal, async (i, stop) => {
    try {
      const { head: own, manifest } = await readJob(store, shardKey(head, i), { signal: stop });
      return manifest === null ? null : await progressOf(shardKey(head, i), { head: own, manifest });
    } catch (error) {
      // Not born yet; or one that cannot be read, which says so to whoever runs it.
      if (error instanceof EngineError && (error.code === 'ERR_JOB_NOT_FOUND' || error.code === 'ERR_CHECKPOINT')) return null;
      throw error;
    }
  });
  for (const [i, shard] of found.entries()) {
    const { first } = shardRange(chains.length, shards, i);
    shard?.chains.forEach(({ tokens, finish }, chain) => (chains[first + chain] = { tokens, finish }));
  }
  const unfinished = chains.filter(({ finish }) => finish === null).map(({ tokens }) => tokens);
  return { ...view, chains, step: unfinished.length > 0 ? Math.min(...unfinished) : view.step };
}
