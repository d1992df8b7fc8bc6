/**
 * Objects on their way into a manifest: uploaded under the generation that was seen, and moved to a newer one when a fence has passed it. Small
 * ones of one kind, such as the tails of many chains, go together in packs: what a cut costs goes by requests more than by bytes.
 */
import { assert } from '../core/assert.ts';
import { EngineError } from '../core/errors.ts';
import { inParallel } from '../core/waiting.ts';
import type { Body, ObjectStore } from '../ports/object-store.ts';
import type { Head } from './head.ts';
import type { ObjectRef } from './manifest.ts';
import { jobPrefix, objectName, PACK, type JobKey, type ObjectName } from './names.ts';
import { checkpointError } from './reason.ts';

/** Of a slice's end there may be two for each chain, and a slot waits for them. */
const AT_ONCE = 16;

/** Fewer are not worth a pack, larger ones no part of one; one request has no more bytes than a store sends over one connection in some 50 ms. */
const PACK_OBJECTS_MIN = 4;
const PACKED_BYTES_MAX = 1 << 20;
const PACK_BYTES_MAX = 4 << 20;

/** Another job's object, by its whole key: copied within the store, of a pack all of it. */
export interface CopyOf {
  readonly copyOf: string;
  /** Where in a pack the object begins. */
  readonly at?: number | undefined;
}

/** `nonce` is fresh for every time the object is made: one name never stands for two bodies. */
export interface NewObject extends Omit<ObjectName, 'version' | 'epoch'> {
  /** Kept until the commit is decided: the object may have to be written again. */
  readonly body: Body | CopyOf;
  readonly bytes: number;
  /** As native code computed it: SHA-256-sized hex. */
  readonly digest: string;
  /** The job whose data key sealed it; this one if not given. */
  readonly origin?: string | undefined;
  /** What comes after does not replace it: apart from what is soon garbage, which it would keep. */
  readonly lasts?: boolean | undefined;
}

/** One key of the store and what lies there: an object, or several in a pack. */
export interface Upload {
  readonly name: ObjectName;
  readonly parts: readonly Part[];
}

interface Part {
  readonly object: NewObject;
  /** Among the objects of the commit. */
  readonly index: number;
  readonly at: number;
}

export async function uploadAll(
  store: ObjectStore, where: JobKey, { version, epoch }: Head, objects: readonly NewObject[], signal: AbortSignal,
): Promise<readonly Upload[]> {
  const parcels = parcelsOf(objects);
  return await inParallel(parcels.length, AT_ONCE, signal, async (i, stop) => {
    const parts = parcels[i] ?? [];
    const upload: Upload = { name: { ...nameOf(parts), version, epoch }, parts };
    await send(store, jobPrefix(where) + objectName(upload.name), upload, stop);
    return upload;
  });
}

/**
 * Gives every name that is older than the head's fence a new one, of the head's generation. That the object is still there proves nothing:
 * whoever collects garbage may have listed it already (trace G2).
 */
export async function rehome(store: ObjectStore, where: JobKey, { version, gc }: Head, uploads: readonly Upload[], signal: AbortSignal): Promise<readonly Upload[]> {
  return await inParallel(uploads.length, AT_ONCE, signal, async (i, stop) => {
    const before = uploads[i];
    assert(before !== undefined, 'an upload for every index');
    if (before.name.version >= gc) return before;
    const moved: Upload = { ...before, name: { ...before.name, version } };
    const [from, to] = [before, moved].map(({ name }) => jobPrefix(where) + objectName(name)) as [string, string];
    if (!(await store.copy(from, to, { signal: stop }))) await send(store, to, moved, stop);
    return moved;
  });
}

/** Of the objects of a commit, by index. */
export function refsOf(uploads: readonly Upload[], where: JobKey): readonly ObjectRef[] {
  const refs: ObjectRef[] = [];
  for (const { name, parts } of uploads) {
    for (const { object: { kind, chain, n, nonce, bytes, digest, origin }, index, at } of parts) {
      const own = objectName({ kind, version: name.version, epoch: name.epoch, chain, n, nonce });
      refs[index] = { name: own, bytes, digest, origin: origin ?? where.job, ...(name.chain === PACK ? { pack: { name: objectName(name), at } } : {}) };
    }
  }
  return refs;
}

/** What goes under one key, in the order of the objects. */
function parcelsOf(objects: readonly NewObject[]): readonly (readonly Part[])[] {
  const parcels: Part[][] = [];
  const packs = new Map<string, Part[]>();
  for (const [index, object] of objects.entries()) {
    const { body, kind, bytes, lasts = false } = object;
    const copied = 'copyOf' in body ? body : null;
    const joins = copied === null ? kind !== 'journal' && bytes <= PACKED_BYTES_MAX : copied.at !== undefined;
    // A pack is copied once, whoever of it is wanted.
    const group = copied?.copyOf ?? `${kind} ${lasts}`;
    const last = joins ? packs.get(group) : undefined;
    const end = last?.reduce((sum, part) => sum + part.object.bytes, 0) ?? 0;
    const fits = last !== undefined && (copied !== null || end + bytes <= PACK_BYTES_MAX);
    const part: Part = { object, index, at: copied === null ? (fits ? end : 0) : (copied.at ?? 0) };
    if (fits) {
      last.push(part);
      continue;
    }
    parcels.push([part]);
    if (joins) packs.set(group, parcels.at(-1) ?? []);
  }
  const firstOf = ([first]: readonly Part[]) => first?.index ?? 0;
  return parcels.flatMap((parts) => (isPack(parts) ? [parts] : parts.map((part) => [{ ...part, at: 0 }]))).sort((a, b) => firstOf(a) - firstOf(b));
}

function isPack(parts: readonly Part[]): boolean {
  return parts.length >= PACK_OBJECTS_MIN || parts.some(({ object: { body } }) => 'copyOf' in body && body.at !== undefined);
}

function nameOf(parts: readonly Part[]): Omit<ObjectName, 'version' | 'epoch'> {
  const [first] = parts;
  assert(first !== undefined, 'a parcel has an object');
  const { kind, chain, n, nonce } = first.object;
  return { kind, chain: isPack(parts) ? PACK : chain, n, nonce };
}

async function send(store: ObjectStore, key: string, { parts }: Upload, signal: AbortSignal): Promise<void> {
  const chunks: Uint8Array[] = [];
  for (const { object: { body, bytes } } of parts) {
    if ('copyOf' in body) {
      if (!(await store.copy(body.copyOf, key, { signal }))) throw checkpointError('missing', `there is no ${body.copyOf}`);
      return;
    }
    assert(body.reduce((sum, chunk) => sum + chunk.byteLength, 0) === bytes, 'an object has the bytes it says');
    chunks.push(...body);
  }
  const outcome = await store.put(key, chunks, { signal });
  if (outcome.kind !== 'written') throw new EngineError('ERR_STORE', `${store.url}: ${key} was not written (${outcome.kind}).`);
}
