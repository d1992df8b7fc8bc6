/** Whether every byte of a job is right: head, spec, manifest, and every object that they need. */
import { EngineError } from '../core/errors.ts';
import { inParallel } from '../core/waiting.ts';
import type { Head } from '../kv/head.ts';
import type { ObjectRef } from '../kv/manifest.ts';
import { HEAD, jobPrefix, shardKey, specName, type JobKey } from '../kv/names.ts';
import { objectsOf, readHead, readManifest, readObject, readSpec, requireHead } from '../kv/read.ts';
import type { Reason } from '../kv/reason.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import { openChecker, type Checker, type KeyOptions } from './check.ts';

/** One is read while another is verified: memory for two objects, however many there are. */
const AT_ONCE = 2;
/** A running job replaces its tails all the time; who looks reads again, so often. */
const TRIES_MAX = 5;

export interface VerifyOptions extends KeyOptions {
  readonly onProgress?: ((progress: VerifyProgress) => void) | undefined;
}

export interface VerifyProgress {
  readonly name: string;
  readonly doneBytes: number;
  readonly bytes: number;
}

export interface Fault {
  /** Relative to the job's prefix. */
  readonly name: string;
  /** `key`: the key at hand is not the one that the job is sealed under, or was refused. */
  readonly reason: Reason | 'key';
  readonly message: string;
}

export interface Verified {
  readonly where: JobKey;
  readonly state: Head['state'] | null;
  /** Looked at, head, spec and manifest included, and the bytes of those that were there. */
  readonly objects: number;
  readonly bytes: number;
  readonly frames: number;
  /** false: sealed, and there is no key: digests and tags were not checked. */
  readonly complete: boolean;
  readonly faults: readonly Fault[];
}

/**
 * Reads one object after the other, and goes on after one that is wrong.
 * @throws EngineError ERR_JOB_NOT_FOUND, ERR_STORE, ERR_STORE_CONFIG, ERR_MEMORY, ERR_CANCELLED: never for what is stored.
 */
export async function verifyJob(store: ObjectStore, where: JobKey, options: VerifyOptions): Promise<Verified> {
  const own = await verifyOwn(store, where, options);
  const shards = await readHead(store, where, options).then((found) => found?.head.join?.shards ?? 0, () => 0);
  let all = own;
  for (let index = 0; index < shards && own.state !== 'erased'; index++) {
    const at = shardKey(where, index);
    // Not born yet: its job's next worker sees to that.
    if (own.state === 'queued' && (await store.head(jobPrefix(at) + HEAD, options)) === null) continue;
    const { objects, bytes, frames, complete, faults } = await verifyOwn(store, at, options);
    all = {
      ...all, objects: all.objects + objects, bytes: all.bytes + bytes, frames: all.frames + frames, complete: all.complete && complete,
      faults: [...all.faults, ...faults.map((fault) => ({ ...fault, name: `${index}/${fault.name}` }))],
    };
  }
  return all;
}

async function verifyOwn(store: ObjectStore, where: JobKey, options: VerifyOptions): Promise<Verified> {
  for (let tries = 1; ; tries++) {
    const { verified, etag } = await verifyOnce(store, where, options);
    if (tries === TRIES_MAX || etag === null || !verified.faults.some(({ reason }) => reason === 'missing')) return verified;
    // Missing, or replaced and collected since?
    if ((await requireHead(store, where, options)).etag === etag) return verified;
  }
}

export function isRight({ faults, complete }: Verified): boolean {
  return faults.length === 0 && complete;
}

async function verifyOnce(store: ObjectStore, where: JobKey, options: VerifyOptions): Promise<{ readonly verified: Verified; readonly etag: string | null }> {
  const faults: Fault[] = [];
  const { signal } = options;
  const stored = await finding(HEAD, faults, () => requireHead(store, where, { signal }));
  const nothing: Verified = { where, state: null, objects: 1, bytes: 0, frames: 0, complete: true, faults };
  if (stored === undefined) return { verified: nothing, etag: null };
  const { head, etag } = stored;
  if (head.state === 'erased') return { verified: { ...nothing, state: head.state }, etag };

  const spec = await finding(specName(head.spec), faults, () => readSpec(store, where, head.spec, { signal }));
  const manifest = await finding(head.manifest?.name ?? HEAD, faults, () => readManifest(store, where, head, { signal }));
  const bytes = Buffer.byteLength(spec ?? '') + (manifest === undefined ? 0 : (head.manifest?.bytes ?? 0));
  const verified = { ...nothing, state: head.state, objects: head.manifest === null ? 2 : 3, bytes };
  // Without the manifest nobody knows what else there is to be right.
  if (manifest === undefined) return { verified, etag };
  using checker = (await finding(head.manifest?.name ?? HEAD, faults, () => openChecker(where, manifest, options))) ?? (await openChecker(where, manifest, { keys: null }));
  return { verified: await verifyObjects(store, where, objectsOf(head, manifest), checker, verified, faults, options), etag };
}

async function verifyObjects(
  store: ObjectStore, where: JobKey, refs: readonly ObjectRef[], checker: Checker, before: Verified, faults: Fault[], { signal, onProgress }: VerifyOptions,
): Promise<Verified> {
  const all = before.bytes + refs.reduce((sum, { bytes }) => sum + bytes, 0);
  let [doneBytes, rightBytes, frames] = [before.bytes, before.bytes, 0];
  await inParallel(refs.length, AT_ONCE, signal, async (i, stop) => {
    const ref = refs[i] as ObjectRef;
    onProgress?.({ name: ref.name, doneBytes, bytes: all });
    const found = await finding(ref.name, faults, async () => await checker.check(ref, await readObject(store, where, ref, { signal: stop })));
    frames += found?.frames ?? 0;
    rightBytes += found === undefined ? 0 : ref.bytes;
    onProgress?.({ name: ref.name, doneBytes: (doneBytes += ref.bytes), bytes: all });
  });
  const order = new Map(refs.map(({ name }, at) => [name, at]));
  faults.sort((a, b) => (order.get(a.name) ?? -1) - (order.get(b.name) ?? -1));
  return { ...before, objects: before.objects + refs.length, bytes: rightBytes, frames, complete: checker.complete };
}

/** What `work` returns, or undefined and one fault more. */
async function finding<T>(name: string, faults: Fault[], work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    const { code, message } = error;
    const word = /^([a-z_]+): /.exec(message)?.[1];
    if (code === 'ERR_KEY') faults.push({ name, reason: 'key', message });
    else if (code === 'ERR_CHECKPOINT' && word !== undefined) faults.push({ name, reason: word as Reason, message });
    else throw error;
    return undefined;
  }
}
