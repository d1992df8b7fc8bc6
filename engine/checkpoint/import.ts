/** A job out of a file into a store: everything is verified first, then written, the head last. */
import { randomBytes } from 'node:crypto';
import type { Readable } from 'node:stream';

import { assert } from '../core/assert.ts';
import { EngineError } from '../core/errors.ts';
import { isSealed, openSpec, sealSpec } from '../job/sealed-spec.ts';
import { sha256 } from '../kv/canonical.ts';
import { createWith, thereAlready } from '../kv/create.ts';
import { formatHead, isTerminal, type Head, type Ref } from '../kv/head.ts';
import { formatOf, parseManifest, type Manifest, type ObjectRef } from '../kv/manifest.ts';
import { checkJobName, jobPrefix, manifestName, objectName, parseName, specName, type JobKey } from '../kv/names.ts';
import { readHead } from '../kv/read.ts';
import { checkpointError } from '../kv/reason.ts';
import { forkKeys } from '../kv/seal.ts';
import type { Body, CallOptions, ObjectStore } from '../ports/object-store.ts';
import { readArchive, type ArchiveTop } from './archive.ts';
import { openChecker, type Checker, type KeyOptions } from './check.ts';
import type { MoveProgress } from './export.ts';

export interface ImportOptions extends KeyOptions {
  /** The job's name here; default: as in the file. */
  readonly as?: string | undefined;
  readonly onProgress?: ((phase: 'verifying' | 'writing', progress: MoveProgress) => void) | undefined;
}

export interface Imported {
  readonly head: Head;
  readonly objects: number;
  readonly bytes: number;
  /** false: sealed, and there was no key to check digests and tags with. */
  readonly complete: boolean;
}

/**
 * What was queued, running or parked is parked here; what had ended has ended. Objects get names that nothing had before.
 * @param open the file, from its beginning: it is read twice, and verified both times, because it may change.
 * @throws EngineError ERR_JOB_CONFLICT: there is such a job; ERR_CHECKPOINT: the file is not what was exported, in any byte (nothing was
 * written); ERR_KEY: it is sealed, and a new name for it takes the key; ERR_OPTION, ERR_STORE, ERR_CANCELLED.
 */
export async function importJob(store: ObjectStore, tenant: string, open: () => Readable, options: ImportOptions): Promise<Imported> {
  const { signal } = options;
  const top = await readVerified(open(), options, 'verifying', {
    before: async ({ where, manifest, spec }) => {
      const target = { tenant, job: options.as ?? where.job };
      checkJobName(target);
      if (isSealed(spec) || (manifest !== null && manifest.keys !== null)) checkSealed(where, target, options);
      const existing = await readHead(store, target, { signal });
      if (existing !== null) throw await thereAlready(store, existing.head, { signal });
    },
  });
  const target = { tenant, job: options.as ?? top.where.job };
  const names = new Map(top.objects.map(({ name }) => [name, renamed(name)]));
  const written: string[] = [];
  const put = async (name: string, body: Body) => {
    const key = jobPrefix(target) + name;
    written.push(key);
    const outcome = await store.put(key, body, { signal });
    if (outcome.kind !== 'written') throw new EngineError('ERR_STORE', `${store.url}: ${key} was not written (${outcome.kind}).`);
  };
  let created: Head;
  let isNamed = false;
  try {
    const again = await readVerified(open(), options, 'writing', { onObject: (ref, body) => put(names.get(ref.name) ?? changed(), body) });
    if (formatHead(again.head) !== formatHead(top.head)) changed();
    const moved = await movedTo(target, again, names, options);
    await put(specName(moved.head.spec), [Buffer.from(moved.spec)]);
    if (moved.manifest !== null) await put(moved.manifest.ref.name, [Buffer.from(moved.manifest.text)]);
    isNamed = true;
    created = await createWith(store, moved.head, { signal });
  } catch (error) {
    // No head names them, unless it is not known whether ours was written. Left alone if that fails too: then they cost something, and hurt nobody.
    if (!isNamed || (error instanceof EngineError && error.code === 'ERR_JOB_CONFLICT')) await discard(store, target, written).catch(() => undefined);
    throw error;
  }
  return { head: created, objects: top.objects.length, bytes: top.objects.reduce((sum, { bytes }) => sum + bytes, 0), complete: top.complete };
}

/** A spec's name is a digest: while there is no head another job that is being born under this name may have it too. */
async function discard(store: ObjectStore, where: JobKey, keys: readonly string[]): Promise<void> {
  const prefix = jobPrefix(where);
  const found = await readHead(store, where);
  const isLost = (name: string) => (parseName(name)?.kind === 'spec' ? found !== null && name !== specName(found.head.spec) : true);
  await store.delete(keys.filter((key) => isLost(key.slice(prefix.length))));
}

function changed(): never {
  throw checkpointError('damaged', 'the file changed while it was imported');
}

interface Steps {
  readonly before?: (top: ArchiveTop) => Promise<void>;
  readonly onObject?: (ref: ObjectRef, body: Body) => Promise<void>;
}

/** The whole file, every object verified before it is handed on. */
async function readVerified(source: Readable, options: ImportOptions, phase: 'verifying' | 'writing', { before, onObject }: Steps): Promise<ArchiveTop & { readonly complete: boolean }> {
  let checker: Checker | undefined;
  let [doneBytes, bytes] = [0, 0];
  try {
    const top = await readArchive(source, {
      onTop: async (read) => {
        await before?.(read);
        checker = await openChecker(read.where, read.manifest, options);
        bytes = read.objects.reduce((sum, ref) => sum + ref.bytes, 0);
      },
      onObject: async (ref, body) => {
        await checker?.check(ref, body);
        await onObject?.(ref, body);
        options.onProgress?.(phase, { name: ref.name, doneBytes: (doneBytes += ref.bytes), bytes });
      },
    }, options.signal);
    assert(checker !== undefined, 'an archive that was read has a top');
    return { ...top, complete: checker.complete };
  } finally {
    checker?.[Symbol.dispose]();
  }
}

/** Sealed frames are authenticated with the tenant, and wrapped keys with the job. */
function checkSealed(from: JobKey, to: JobKey, { keys }: ImportOptions): void {
  if (from.tenant !== to.tenant) throw checkpointError('identity', `the job is encrypted for the tenant ${from.tenant} and cannot be read as another's`);
  if (from.job !== to.job && keys === null) throw new EngineError('ERR_KEY', `The job is encrypted: a new name takes the key it was sealed under; set RUMINATE_KEY, or keep the name ${from.job}.`);
}

/** A nonce of its own, so that no name was ever another object's. */
function renamed(name: string): string {
  const parsed = parseName(name);
  assert(parsed !== null && 'nonce' in parsed, 'a manifest lists segments, tails and journals');
  return objectName({ ...parsed, nonce: randomBytes(8).toString('hex') });
}

interface Moved {
  readonly head: Head;
  readonly spec: string;
  readonly manifest: { readonly ref: Ref; readonly text: string } | null;
}

/** Head and manifest as the target's, over the new names. */
async function movedTo(target: JobKey, { where, head, spec: text, manifest, objects: all }: ArchiveTop, names: ReadonlyMap<string, string>, options: ImportOptions): Promise<Moved> {
  // In the file every object lies by itself, and so it does here.
  const rename = <T extends Ref>({ pack: _, ...ref }: T & Pick<ObjectRef, 'pack'>) => ({ ...ref, name: names.get(ref.name) ?? ref.name });
  const spec = isSealed(text) && target.job !== where.job ? await sealSpec(await openSpec(text, where, options.keys, options), target, options.keys, options) : text;
  const next: Head = { ...head, ...target, state: isTerminal(head.state) ? head.state : 'parked', spec: sha256(spec), strikes: 0, owner: '' };
  if (manifest === null) return { head: { ...next, journal: head.journal.map(rename) }, spec, manifest: null };
  const isResealed = manifest.keys !== null && target.job !== where.job;
  // A head's journal is the job's own: under another name, what the old one has sealed must be listed with its origin.
  const listed = isResealed ? all : manifest.objects;
  const objects = listed.map(rename);
  const moved: Manifest = {
    ...manifest,
    ...target,
    format: formatOf({ objects }),
    spec: next.spec,
    objects,
    journal: [...manifest.journal, ...listed.slice(manifest.objects.length).map((_, i) => manifest.objects.length + i)],
    keys: isResealed ? await rewrapped(target, where, manifest, listed, options) : manifest.keys,
  };
  const content = JSON.stringify(moved);
  parseManifest(content, target);
  const digest = sha256(content);
  const ref = { name: manifestName(moved.version, digest), bytes: Buffer.byteLength(content), digest };
  return { head: { ...next, manifest: ref, journal: isResealed ? [] : head.journal.map(rename) }, spec, manifest: { ref, text: content } };
}

async function rewrapped(target: JobKey, where: JobKey, manifest: Manifest, objects: readonly ObjectRef[], options: KeyOptions & CallOptions): Promise<Manifest['keys']> {
  using checker = await openChecker(where, manifest, options);
  assert(checker.jobKeys !== null, 'a new name was refused without a key');
  using keys = await forkKeys(options.keys, target, checker.jobKeys, objects, options);
  return keys.wrappedFor(objects);
}
