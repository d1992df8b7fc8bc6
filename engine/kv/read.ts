/** Reading a job's objects: bounded before, verified after. Whoever finds one missing must look at the head again before calling it lost. */
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { inParallel } from '../core/waiting.ts';
import type { Body, CallOptions, ObjectStore } from '../ports/object-store.ts';
import { digestOf, textOf } from './canonical.ts';
import { parseHead, type Head, type Ref } from './head.ts';
import { parseManifest, placeOf, type Manifest, type ObjectRef } from './manifest.ts';
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

/** Bytes of one key: an object, or a stretch of a pack. */
export type Stretch = Ref & Pick<ObjectRef, 'pack'>;

/** Exactly `ref.bytes` bytes. What they are worth is for the digest to say, which native code checks. @throws EngineError ERR_CHECKPOINT. */
export async function readObject(store: ObjectStore, where: JobKey, ref: Stretch, { signal }: CallOptions = {}): Promise<Body> {
  const { pack } = ref;
  if (pack !== undefined) {
    const part = await store.get(jobPrefix(where) + pack.name, { range: { offset: pack.at, bytes: ref.bytes }, bytesMax: ref.bytes, signal });
    if (part === null) throw checkpointError('missing', `there is no ${pack.name}`);
    if (part.bytes < ref.bytes) throw checkpointError('truncated', `${pack.name} ends within ${ref.name}`);
    return part.chunks;
  }
  // One byte more, to see a longer object without reading it.
  const found = await store.get(jobPrefix(where) + ref.name, { range: { offset: 0, bytes: ref.bytes + 1 }, bytesMax: ref.bytes + 1, signal });
  if (found === null) throw checkpointError('missing', `there is no ${ref.name}`);
  if (found.bytes < ref.bytes) throw checkpointError('truncated', `${ref.name} has ${found.bytes} bytes, not ${ref.bytes}`);
  if (found.bytes > ref.bytes) throw checkpointError('damaged', `${ref.name} has more than its ${ref.bytes} bytes`);
  return found.chunks;
}

/** Between two objects of a pack that are wanted: to read what lies there is sooner done than to ask again. */
const GAP_BYTES_MAX = 256 << 10;
const READS_AT_ONCE = 16;

/** The bodies of these objects, in their order. What lies together is read with one call of `read`, which throws for the others what it throws for one. */
export async function readObjects<T extends ObjectRef>(refs: readonly T[], signal: AbortSignal | undefined, read: (stretch: T, signal: AbortSignal) => Promise<Body>): Promise<readonly Body[]> {
  const stretches: { readonly first: T; at: number; end: number; readonly members: number[] }[] = [];
  const order = refs.map((_, i) => i).sort((a, b) => placeAt(refs[a] as T) - placeAt(refs[b] as T));
  const open = new Map<string, (typeof stretches)[number]>();
  for (const i of order) {
    const ref = refs[i] as T;
    const [at, place] = [placeAt(ref), placeOf(ref)];
    const before = open.get(place);
    if (ref.pack !== undefined && before !== undefined && at <= before.end + GAP_BYTES_MAX) {
      before.end = Math.max(before.end, at + ref.bytes);
      before.members.push(i);
      continue;
    }
    const stretch = { first: ref, at, end: at + ref.bytes, members: [i] };
    stretches.push(stretch);
    open.set(place, stretch);
  }
  const bodies: Body[] = new Array<Body>(refs.length);
  await inParallel(stretches.length, READS_AT_ONCE, signal, async (s, stop) => {
    const { first, at, end, members } = stretches[s] as (typeof stretches)[number];
    const body = await read({ ...first, bytes: end - at }, stop);
    for (const i of members) bodies[i] = cut(body, placeAt(refs[i] as T) - at, refs[i]?.bytes ?? 0);
  });
  return bodies;
}

const placeAt = ({ pack }: Pick<ObjectRef, 'pack'>): number => pack?.at ?? 0;

/** Views, no copies. */
function cut(body: Body, from: number, bytes: number): Body {
  const chunks: Uint8Array[] = [];
  let at = 0;
  for (const chunk of body) {
    const [begin, end] = [Math.max(from - at, 0), Math.min(from + bytes - at, chunk.byteLength)];
    if (begin < end) chunks.push(chunk.subarray(begin, end));
    at += chunk.byteLength;
  }
  return chunks;
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
