/** Objects on their way into a manifest: uploaded under the generation that was seen, and moved to a newer one when a fence has passed it. */
import { assert } from '../core/assert.ts';
import { EngineError } from '../core/errors.ts';
import { inParallel } from '../core/waiting.ts';
import type { Body, ObjectStore } from '../ports/object-store.ts';
import type { Head } from './head.ts';
import type { ObjectRef } from './manifest.ts';
import { jobPrefix, objectName, type JobKey, type ObjectName } from './names.ts';
import { checkpointError } from './reason.ts';

/** Of a slice's end there may be two for each chain, and a slot waits for them. */
const AT_ONCE = 16;

/** Another job's object, by its whole key: copied within the store. */
export interface CopyOf {
  readonly copyOf: string;
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
}

export interface Upload {
  readonly object: NewObject;
  readonly name: ObjectName;
}

export async function uploadAll(
  store: ObjectStore, where: JobKey, { version, epoch }: Head, objects: readonly NewObject[], signal: AbortSignal,
): Promise<readonly Upload[]> {
  return await inParallel(objects.length, AT_ONCE, signal, async (i, stop) => {
    const object = objects[i];
    assert(object !== undefined, 'an object for every index');
    const { kind, chain, n, nonce } = object;
    const name: ObjectName = { kind, version, epoch, chain, n, nonce };
    await upload(store, jobPrefix(where) + objectName(name), object, stop);
    return { object, name };
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
    const name = { ...before.name, version };
    const [from, to] = [jobPrefix(where) + objectName(before.name), jobPrefix(where) + objectName(name)];
    if (!(await store.copy(from, to, { signal: stop }))) await upload(store, to, before.object, stop);
    return { object: before.object, name };
  });
}

export function refOf({ object, name }: Upload, where: JobKey): ObjectRef {
  return { name: objectName(name), bytes: object.bytes, digest: object.digest, origin: object.origin ?? where.job };
}

async function upload(store: ObjectStore, key: string, { body, bytes }: NewObject, signal: AbortSignal): Promise<void> {
  if ('copyOf' in body) {
    if (!(await store.copy(body.copyOf, key, { signal }))) throw checkpointError('missing', `there is no ${body.copyOf}`);
    return;
  }
  assert(body.reduce((sum, chunk) => sum + chunk.byteLength, 0) === bytes, 'an object has the bytes it says');
  const outcome = await store.put(key, body, { signal });
  if (outcome.kind !== 'written') throw new EngineError('ERR_STORE', `${store.url}: ${key} was not written (${outcome.kind}).`);
}
