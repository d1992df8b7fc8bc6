/** What leaves the cache: the least recently used models until it fits, never what a living process uses. */
import { join } from 'node:path';
import { namesIn, remove, removeOlder, statOf } from '../core/disk.ts';
import { EngineError } from '../core/errors.ts';
import { digestFile } from '../core/file-digest.ts';
import { LIMITS } from '../core/limits.ts';
import type { CachedModel, ModelCache } from './cache.ts';
import { bytesOfParts, idleParts } from './part.ts';
import type { Pinned } from './pins.ts';

export interface Freed {
  readonly models: readonly string[];
  readonly bytes: number;
}

/**
 * Lets `bytes` more into the cache. Unfinished downloads that nobody works on go first, then models.
 * @throws EngineError ERR_MODEL_CACHE, saying what holds the room.
 */
export async function makeRoom(cache: ModelCache, bytes: number): Promise<Freed> {
  return await shrink(cache, cache.bytesMax - bytes, ({ used, models }) => {
    const busy = models.length === 0 ? '' : `; in use: ${models.map(labelOf).join(', ')}`;
    const room = `the cache may hold ${cache.bytesMax}, of which ${used} cannot be freed${busy}`;
    throw new EngineError('ERR_MODEL_CACHE', `The model needs ${bytes} bytes more and ${room}; raise RUMINATE_CACHE_BYTES.`);
  });
}

/** Down to `bytesMax`, as far as what is in use allows; and all that no model needs. */
export async function prune(cache: ModelCache, bytesMax: number): Promise<Freed> {
  const freed = await shrink(cache, bytesMax, () => {});
  return await cache.pins.evict(async (pinned) => {
    let bytes = freed.bytes;
    for (const part of await idleParts(cache.partsFolder)) bytes += await removePart(part);
    await removeLeft(cache, pinned);
    bytes += await sweep(cache, pinned);
    return { models: freed.models, bytes };
  });
}

/** @throws EngineError ERR_MODEL_NOT_FOUND, ERR_MODEL_CACHE if a living process uses it. */
export async function removeModel(cache: ModelCache, name: string): Promise<Freed> {
  return await cache.pins.evict(async (pinned) => {
    const model = (await cache.list()).find((candidate) => candidate.names.includes(name) || candidate.digest === name);
    if (model === undefined) throw new EngineError('ERR_MODEL_NOT_FOUND', `The cache has no model ${JSON.stringify(name)}.`);
    if (isPinned(model, pinned)) throw new EngineError('ERR_MODEL_CACHE', `${name} is in use by a running process.`);
    if (model.digest !== name) await remove(join(cache.namesFolder, name));
    if (model.digest === name || model.names.length === 1) await removeSnapshot(model);
    return { models: [name], bytes: await sweep(cache, pinned) };
  });
}

/** Reads every file of the cache again and removes those that are not what their name says. Returns their paths. */
export async function verifyBlobs(cache: ModelCache, signal?: AbortSignal): Promise<{ readonly checked: number; readonly bad: readonly string[] }> {
  const bad: string[] = [];
  let checked = 0;
  for (const { sha256, bytes } of await blobsOf(cache)) {
    signal?.throwIfAborted();
    const path = cache.blobPath(sha256);
    checked += 1;
    if ((await digestFile(path, bytes)).sha256 === sha256) continue;
    bad.push(path);
    await remove(path);
  }
  return { checked, bad };
}

async function shrink(cache: ModelCache, bytesMax: number, refuse: (left: { used: number; models: readonly CachedModel[] }) => void): Promise<Freed> {
  let used = await cacheBytes(cache);
  if (used <= bytesMax) return { models: [], bytes: 0 };
  return await cache.pins.evict(async (pinned) => {
    const gone: string[] = [];
    const before = used;
    for (const part of await idleParts(cache.partsFolder)) if (used > bytesMax) used -= await removePart(part);
    if (used > bytesMax) used -= await sweep(cache, pinned);
    const models = await cache.list();
    for (const model of models) {
      if (used <= bytesMax) break;
      if (isPinned(model, pinned)) continue;
      for (const name of model.names) await remove(join(cache.namesFolder, name));
      await removeSnapshot(model);
      gone.push(labelOf(model));
      used -= await sweep(cache, pinned);
    }
    if (used > bytesMax) refuse({ used, models: models.filter((model) => isPinned(model, pinned)) });
    return { models: gone, bytes: before - used };
  });
}

const labelOf = (model: CachedModel): string => model.names[0] ?? model.origin?.url ?? model.digest;

function isPinned(model: CachedModel, { snapshots }: Pinned): boolean {
  return snapshots.has(model.digest);
}

async function removePart(part: { readonly path: string; readonly bytes: number }): Promise<number> {
  await remove(part.path);
  return part.bytes;
}

async function removeSnapshot(model: CachedModel): Promise<void> {
  // Without its model.json it is no model from here on, however far this gets.
  await remove(join(model.directory, 'model.json'));
  await remove(model.directory);
}

/** Directories that are no models, unless one is just being made, and what a kill left in the middle of a write. */
async function removeLeft(cache: ModelCache, pinned: Pinned): Promise<void> {
  const snapshots = join(cache.root, 'snapshots');
  for (const digest of await namesIn(snapshots)) {
    if (!pinned.snapshots.has(digest) && (await cache.snapshot(digest)) === null) await remove(join(snapshots, digest));
  }
  await removeOlder(join(cache.root, 'staging'), LIMITS.FOREIGN_OWNER_MS);
  for (const folder of ['pins', 'evictions']) await removeOlder(join(cache.root, folder), LIMITS.FOREIGN_OWNER_MS, (name) => name.endsWith('.tmp'));
}

/** Removes blobs that no snapshot shows and nobody has pinned, and what a killed process left. Returns their bytes. */
async function sweep(cache: ModelCache, pinned: Pinned): Promise<number> {
  const needed = new Set(pinned.blobs);
  for (const model of await cache.list()) for (const sha256 of model.blobs.keys()) needed.add(sha256);
  let freed = 0;
  for (const { sha256, bytes } of await blobsOf(cache)) {
    if (needed.has(sha256)) continue;
    await remove(cache.blobPath(sha256));
    freed += bytes;
  }
  const git = join(cache.root, 'blobs', 'git');
  for (const name of await namesIn(git)) if ((await statOf(join(git, name))) === null) await remove(join(git, name));
  return freed;
}

/** Of files and of those on their way. */
export async function cacheBytes(cache: ModelCache): Promise<number> {
  const blobs = await blobsOf(cache);
  return blobs.reduce((sum, { bytes }) => sum + bytes, 0) + (await bytesOfParts(cache.partsFolder));
}

async function blobsOf(cache: ModelCache): Promise<{ readonly sha256: string; readonly bytes: number }[]> {
  const root = join(cache.root, 'blobs', 'sha256');
  const blobs = [];
  for (const folder of await namesIn(root)) {
    for (const sha256 of await namesIn(join(root, folder))) {
      const found = await statOf(join(root, folder, sha256));
      if (found !== null) blobs.push({ sha256, bytes: found.bytes });
    }
  }
  return blobs;
}
