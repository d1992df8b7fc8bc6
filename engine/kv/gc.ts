/**
 * Collecting garbage (KV.md 4): write a fence into the head, list, then delete what no head names and whose generation is older than the
 * fence. Whatever a writer has in hand is of that generation or gets a new name before it is committed, so nothing that will be named is deleted.
 */
import type { ObjectStore } from '../ports/object-store.ts';
import { sweepErased } from './erase.ts';
import type { Head } from './head.ts';
import { placeOf } from './manifest.ts';
import { HEAD, jobPrefix, parseName, shardIn, shardKey, specName, type JobKey } from './names.ts';
import { protocolOf, type ProtocolOptions } from './protocol.ts';
import { isMissing, readHead, readManifest, requireHead, type ReadOptions, type StoredHead } from './read.ts';
import { decided, swapHead } from './swap.ts';

export interface CollectOptions extends ProtocolOptions {
  /** Writes and deletes nothing: says what would go. */
  readonly dryRun?: boolean | undefined;
  /** Of a sharded job not that of its shards. */
  readonly isOwnOnly?: boolean | undefined;
  /** Each object that goes, or would, by its whole key. */
  readonly onGarbage?: ((key: string, bytes: number) => void) | undefined;
}

export interface Collected {
  /** Deleted, or what would be. */
  readonly objects: number;
  readonly bytes: number;
  /** What is named, or too new to tell. */
  readonly kept: number;
  /** Keys under the job that are none of the format's: left alone. */
  readonly unknown: readonly string[];
}

/**
 * Safe beside owners, takers and other collections, and after any of them died half way.
 * @throws EngineError ERR_JOB_NOT_FOUND; ERR_CHECKPOINT (what is named cannot be known: nothing was deleted); ERR_STORE; ERR_CANCELLED.
 */
export async function collectGarbage(store: ObjectStore, where: JobKey, options: CollectOptions = {}): Promise<Collected> {
  const { signal } = options;
  const found = await requireHead(store, where, { signal });
  const own = await collectOwn(store, where, found, options);
  if (options.isOwnOnly === true) return own;
  let { objects, bytes, kept } = own;
  const unknown = [...own.unknown];
  for (let i = 0; i < (found.head.join?.shards ?? 0); i++) {
    const shard = await readHead(store, shardKey(where, i), { signal });
    if (shard === null) continue;
    const collected = await collectOwn(store, shardKey(where, i), shard, options);
    objects += collected.objects;
    bytes += collected.bytes;
    kept += collected.kept;
    unknown.push(...collected.unknown);
  }
  return { objects, bytes, kept, unknown };
}

async function collectOwn(store: ObjectStore, where: JobKey, found: StoredHead, options: CollectOptions): Promise<Collected> {
  const { signal, dryRun = false } = options;
  if (found.head.state === 'erased' && !dryRun) return { ...(await sweepErased(store, where, { signal })), kept: 0, unknown: [] };
  const fenced = dryRun ? found : await fence(store, where, found, options);
  const fenceVersion = dryRun ? found.head.version + 1 : fenced.head.gc;
  const named = await namedBy(store, where, fenced, { signal, digestKey: options.digestKey });

  const prefix = jobPrefix(where);
  const garbage: string[] = [];
  const unknown: string[] = [];
  let [bytes, kept] = [0, 0];
  for await (const object of store.list(prefix, { signal })) {
    const name = object.key.slice(prefix.length);
    // A job of its own, with a fence of its own.
    if (shardIn(name) !== null) continue;
    const parsed = parseName(name);
    if (parsed === null) unknown.push(object.key);
    else if (named.has(name) || ('version' in parsed && parsed.version >= fenceVersion)) kept++;
    else {
      garbage.push(object.key);
      options.onGarbage?.(object.key, object.bytes);
      bytes += object.bytes;
    }
  }
  if (!dryRun) await store.delete(garbage, { signal });
  return { objects: garbage.length, bytes, kept, unknown };
}

/** Keeps `writeNonce`: an owner whose answer was lost must still find its own (trace N2). */
async function fence(store: ObjectStore, where: JobKey, from: StoredHead, options: ProtocolOptions): Promise<StoredHead> {
  try {
    return await swapHead(protocolOf(store, options), where, from, {
      propose: ({ head }) => ({ ...head, version: head.version + 1, gc: head.version + 1 }),
      // Any fence in a head holds, whoever wrote it.
      isMine: (current, proposal) => current.gc >= proposal.gc,
    }, options.signal);
  } catch (error) {
    throw decided(error);
  }
}

/** Names that must stay: those of one head at or after the fence. */
async function namedBy(store: ObjectStore, where: JobKey, from: StoredHead, options: ReadOptions): Promise<ReadonlySet<string>> {
  for (let stored = from; ;) {
    try {
      const manifest = await readManifest(store, where, stored.head, options);
      return new Set([...namesIn(stored.head), ...(manifest?.objects ?? []).map(placeOf)]);
    } catch (error) {
      // Replaced, and collected by another, since the head was read; or lost, if the head is still the same.
      if (!isMissing(error)) throw error;
      const current = await requireHead(store, where, options);
      if (current.etag === stored.etag) throw error;
      stored = current;
    }
  }
}

/** A spec never changes: one that the head does not name was for a job that lost the race to be created. */
function namesIn({ spec, manifest, journal }: Head): readonly string[] {
  return [HEAD, specName(spec), ...(manifest === null ? [] : [manifest.name]), ...journal.map(({ name }) => name)];
}
