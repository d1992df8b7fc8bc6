/** Reading a job's objects: bounded before, verified after. Whoever finds one missing must look at the head again before calling it lost. */
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Body, CallOptions, ObjectStore } from '../ports/object-store.ts';
import { digestOf, textOf } from './canonical.ts';
import { parseHead, type Head, type Ref } from './head.ts';
import { parseManifest, type Manifest, type ObjectRef } from './manifest.ts';
import { HEAD, jobPrefix, parseName, rootOf, specName, type JobKey } from './names.ts';
import { checkpointError } from './reason.ts';

/** A head as it was read: whoever swaps it names the etag. */
export interface StoredHead {
  readonly head: Head;
  readonly etag: string;
}

/** A job at one moment: its head, and what that names. */
export interface SeenJob {
  readonly stored: StoredHead;
  readonly manifest: Manifest | null;
  /** The text. */
  readonly spec: string;
}

export interface ReadOptions extends CallOptions {
  /** The one that the job was written with. */
  readonly digestKey?: Uint8Array | undefined;
}

/** null: no such job. @throws EngineError ERR_CHECKPOINT if it is no head of this job, ERR_STORE, ERR_CANCELLED. */
export async function readHead(store: ObjectStore, where: JobKey, { signal }: CallOptions = {}): Promise<StoredHead | null> {
  const found = await getUpTo(store, jobPrefix(where) + HEAD, LIMITS.HEAD_BYTES_MAX, 'the head', signal);
  return found === null ? null : { head: parseHead(textOf(found.chunks, 'the head'), where), etag: found.etag };
}

/** As `readHead`. @throws EngineError ERR_JOB_NOT_FOUND. */
export async function requireHead(store: ObjectStore, where: JobKey, options: CallOptions = {}): Promise<StoredHead> {
  const stored = await readHead(store, where, options);
  if (stored === null) throw new EngineError('ERR_JOB_NOT_FOUND', `There is no job ${where.job} of tenant ${where.tenant} in ${store.url}.`);
  return stored;
}

/** The manifest that a head names; null: it names none. @throws EngineError ERR_CHECKPOINT, `missing` among others. */
export async function readManifest(store: ObjectStore, where: JobKey, head: Head, { signal, digestKey }: ReadOptions = {}): Promise<Manifest | null> {
  const ref = head.manifest;
  if (ref === null) return null;
  if (ref.bytes > LIMITS.MANIFEST_BYTES_MAX) throw checkpointError('damaged', `the head names a manifest of ${ref.bytes} bytes`);
  return manifestOf(textOf(await readObject(store, where, ref, { signal }), 'the manifest'), where, head, ref, digestKey);
}

/** The manifest that `ref` of the head names, from its text. @throws EngineError ERR_CHECKPOINT. */
export function manifestOf(text: string, where: JobKey, head: Head, ref: Ref, digestKey?: ReadOptions['digestKey']): Manifest {
  if (digestOf(text, digestKey) !== ref.digest) throw checkpointError('damaged', 'the manifest has another digest than the head says');
  const manifest = parseManifest(text, where);
  const name = parseName(ref.name);
  const own = name?.kind === 'manifest' && name.digest === ref.digest && name.version === manifest.version;
  if (!own || manifest.spec !== head.spec || manifest.epoch > head.epoch) throw checkpointError('damaged', 'the manifest does not fit the head that names it');
  return manifest;
}

/** What the head needs beside its spec and manifest: the manifest's objects in their order, then those that were flushed since. */
export function objectsOf(head: Head, manifest: Manifest | null): readonly ObjectRef[] {
  const listed = manifest?.objects ?? [];
  const names = new Set(listed.map(({ name }) => name));
  return [...listed, ...head.journal.filter(({ name }) => !names.has(name)).map((ref) => ({ ...ref, origin: head.job }))];
}

/** The text of the job's spec, of a shard its parent's. @throws EngineError ERR_CHECKPOINT. */
export async function readSpec(store: ObjectStore, where: JobKey, digest: string, { signal, digestKey }: ReadOptions = {}): Promise<string> {
  const found = await getUpTo(store, jobPrefix(rootOf(where)) + specName(digest), LIMITS.SPEC_BYTES_MAX, 'the spec', signal);
  if (found === null) throw checkpointError('missing', `there is no ${specName(digest)}`);
  const text = textOf(found.chunks, 'the spec');
  if (digestOf(text, digestKey) !== digest) throw checkpointError('damaged', 'the spec has another digest than the head says');
  return text;
}

/** Manifest and spec, both at once. null: one of them is gone, and the head is another by now. @throws EngineError ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED. */
export async function readNamed(store: ObjectStore, where: JobKey, { head, etag }: StoredHead, options: ReadOptions = {}): Promise<Omit<SeenJob, 'stored'> | null> {
  try {
    const [manifest, spec] = await Promise.all([readManifest(store, where, head, options), readSpec(store, where, head.spec, options)]);
    return { manifest, spec };
  } catch (error) {
    if (isMissing(error) && (await readHead(store, where, options))?.etag !== etag) return null;
    throw error;
  }
}

/** Exactly `ref.bytes` bytes. What they are worth is for the digest to say, which native code checks. @throws EngineError ERR_CHECKPOINT. */
export async function readObject(store: ObjectStore, where: JobKey, ref: Ref, { signal }: CallOptions = {}): Promise<Body> {
  // One byte more, to see a longer object without reading it.
  const found = await store.get(jobPrefix(where) + ref.name, { range: { offset: 0, bytes: ref.bytes + 1 }, bytesMax: ref.bytes + 1, signal });
  if (found === null) throw checkpointError('missing', `there is no ${ref.name}`);
  if (found.bytes < ref.bytes) throw checkpointError('truncated', `${ref.name} has ${found.bytes} bytes, not ${ref.bytes}`);
  if (found.bytes > ref.bytes) throw checkpointError('damaged', `${ref.name} has more than its ${ref.bytes} bytes`);
  return found.chunks;
}

/** Is this the error of an object that is not there? */
export function isMissing(error: unknown): boolean {
  return error instanceof EngineError && error.code === 'ERR_CHECKPOINT' && error.message.startsWith('missing:');
}

async function getUpTo(
  store: ObjectStore, key: string, bytesMax: number, what: string, signal: AbortSignal | undefined,
): Promise<{ readonly chunks: Body; readonly etag: string } | null> {
  const found = await store.get(key, { range: { offset: 0, bytes: bytesMax + 1 }, bytesMax: bytesMax + 1, signal });
  if (found !== null && found.bytes > bytesMax) throw checkpointError('damaged', `${what} has more than ${bytesMax} bytes`);
  return found;
}
