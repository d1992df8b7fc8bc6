/** A real job of the bundled model in a store, parked on its way or ended; and stores that are copies of another with something changed. */
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { makeKeyFile } from '../../engine/adapters/key-file.ts';
import { MemoryStore, type MemoryStoreOptions } from '../../engine/adapters/memory.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { resumeStored, runStored, type StoredOptions, type StoredOutcome } from '../../engine/job/stored.ts';
import { readJob } from '../../engine/kv/create.ts';
import type { Manifest } from '../../engine/kv/manifest.ts';
import { jobPrefix, type JobKey } from '../../engine/kv/names.ts';
import type { KeyProvider } from '../../engine/ports/keys.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';

export const WHERE: JobKey = { tenant: 'local', job: 'sums' };
export const SPEC: JobSpec = { model: 'countdown@cr2', prompt: '4 20 8 13 target 59', seed: 7n, budget: { length: 160, width: 2 } };

/** A checkpoint every 40 tokens. `parkAfter`: the commit after which it is interrupted; null: runs to its end. */
export async function storedJob(store: ObjectStore, { where = WHERE, parkAfter = 3, keys = null }: { where?: JobKey; parkAfter?: number | null; keys?: KeyProvider | null } = {}): Promise<StoredOutcome> {
  const stop = new AbortController();
  let commits = 0;
  return await runStored(SPEC, {
    ...optionsOf(store, where, keys), signal: stop.signal,
    onCommit: () => {
      if (++commits === parkAfter) stop.abort();
    },
  });
}

export async function resumed(store: ObjectStore, where = WHERE, keys: KeyProvider | null = null): Promise<StoredOutcome> {
  return await resumeStored(optionsOf(store, where, keys));
}

function optionsOf(store: ObjectStore, where: JobKey, keys: KeyProvider | null): StoredOptions {
  return { store, where, keys, threads: 1, policy: { deltaTokens: 40 } };
}

/** All of an ended job's result that is a function of its spec. */
export function resultOf(outcome: StoredOutcome): unknown {
  if (outcome.kind === 'parked') throw new Error('the job has not ended');
  const { answer, ballots, chains, usage } = outcome.result;
  return { answer, ballots, chains, usage };
}

export async function manifestIn(store: ObjectStore, where = WHERE): Promise<Manifest> {
  const { manifest } = await readJob(store, where);
  if (manifest === null) throw new Error('the job has no manifest');
  return manifest;
}

export type Content = ReadonlyMap<string, Uint8Array>;

export async function storeWith(content: Content, options: MemoryStoreOptions = {}): Promise<MemoryStore> {
  const store = new MemoryStore(options);
  for (const [key, bytes] of content) await store.put(key, [bytes]);
  return store;
}

/** `change` gets a copy of the object's bytes; null: the object is gone. */
export function changed(content: Content, name: string, change: (bytes: Uint8Array) => Uint8Array | null, where = WHERE): Content {
  const key = jobPrefix(where) + name;
  const bytes = content.get(key);
  if (bytes === undefined) throw new Error(`no ${key}`);
  const next = change(Uint8Array.from(bytes));
  const copy = new Map(content);
  if (next === null) copy.delete(key);
  else copy.set(key, next);
  return copy;
}

export const flipped = (at: number) => (bytes: Uint8Array): Uint8Array => {
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return bytes;
};

export async function keyFile(): Promise<{ readonly provider: KeyProvider; readonly file: string; remove(): void }> {
  const file = path.join(tmpdir(), `ruminate-key-${randomBytes(6).toString('hex')}`);
  return { provider: await makeKeyFile(file), file, remove: () => rmSync(file, { force: true }) };
}
