/** A job in a memory store, with names and bytes that say what they are. */
import { sha256 } from '../../engine/kv/canonical.ts';
import { createJob } from '../../engine/kv/create.ts';
import { parseHead, type Head } from '../../engine/kv/head.ts';
import type { Lease } from '../../engine/kv/lease.ts';
import type { ManifestContent, ObjectRef } from '../../engine/kv/manifest.ts';
import type { JobKey } from '../../engine/kv/names.ts';
import { takeJob, type TakeOptions } from '../../engine/kv/take.ts';
import type { NewObject } from '../../engine/kv/uploads.ts';
import type { Fault, Operation } from '../../engine/adapters/memory-faults.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { HastyClock } from '../helpers/clock.ts';

export const WHERE: JobKey = { tenant: 'acme', job: 'sums' };
export const SPEC = '{"prompt":"1+1"}';
export const HEAD_KEY = 'kv/acme/sums/HEAD';

/** Nonces that are never the same and always the same in a test run again. */
export function nonces(label = 0): () => string {
  let next = 0;
  return () => `${label.toString(16).padStart(8, '0')}${(next++).toString(16).padStart(24, '0')}`;
}

let labels = 0;

export function options(more: Partial<TakeOptions> = {}): TakeOptions & { readonly createdMs: number } {
  return { owner: 'test', clock: new HastyClock(20_000), random: () => 0.5, nonce: nonces(++labels), createdMs: 0, ...more };
}

export async function createdJob(store: ObjectStore, where = WHERE): Promise<Head> {
  return (await createJob(store, where, SPEC, options())).head;
}

export async function takenJob(store: ObjectStore, more: Partial<TakeOptions> = {}): Promise<Lease> {
  return await takeJob(store, WHERE, options(more));
}

/** A journal of one step: its bytes say which. */
export function step(n: number, kind: NewObject['kind'] = 'journal'): NewObject {
  const body = Buffer.from(`${kind} ${n}`);
  return { kind, chain: kind === 'journal' ? -2 : 0, n, nonce: sha256(`${kind} ${n}`).slice(0, 16), body: [body], bytes: body.byteLength, digest: sha256(body) };
}

/** A manifest of nothing but journals. */
export function content(objects: readonly ObjectRef[], more: Partial<ManifestContent> = {}): ManifestContent {
  return {
    layoutId: 'l', modelId: 'm', numericsId: 'n', step: objects.length, elapsedMs: 0, ended: null, slices: [], promptTokens: 3, promptTail: null, chains: [],
    objects, journal: objects.map((_, i) => i), keys: null, ...more,
  };
}

/** On top of what the lease names now: everything, then the new ones. */
export function onTop(lease: Lease): (refs: readonly ObjectRef[], head: Head) => ManifestContent {
  return (refs, head) => content([...(lease.manifest?.objects ?? []), ...head.journal.map((ref) => ({ ...ref, origin: WHERE.job })), ...refs]);
}

export async function commitSteps(lease: Lease, ...ns: readonly number[]): Promise<Head> {
  return await lease.commit({ state: 'running', manifest: onTop(lease), objects: ns.map((n) => step(n)) });
}

/** Steps that the manifest and the head's journal list, by reading them. */
export async function stepsOf(lease: Lease): Promise<readonly number[]> {
  const refs = [...(lease.manifest?.journal ?? []).map((i) => lease.manifest?.objects[i]), ...lease.head.journal];
  return await Promise.all(refs.map(async (ref) => {
    if (ref === undefined) throw new Error('no such object');
    return Number(Buffer.concat(await lease.read(ref)).toString().split(' ')[1]);
  }));
}

export function headOf(store: MemoryStore, key = HEAD_KEY): Head {
  const bytes = store.snapshot().get(key);
  if (bytes === undefined) throw new Error(`no ${key}`);
  return parseHead(Buffer.from(bytes).toString(), WHERE);
}

export function code(name: string): { readonly code: string } {
  return { code: name };
}

/** The k-th conditional write of the head (from 0) meets a fault. */
export function storeWith(faults: Readonly<Record<number, Fault>>, more: { before?: (operation: Operation) => Promise<void> | void } = {}): MemoryStore {
  let swaps = 0;
  return new MemoryStore({ ...more, faults: ({ key, condition }) => (key === HEAD_KEY && condition === 'if_match' ? (faults[swaps++] ?? null) : null) });
}
