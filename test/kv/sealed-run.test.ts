/** Encryption from end to end: a run of the native engine, the protocol, a store, a key provider. */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { KeyFile } from '../../engine/adapters/key-file.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { adopt } from '../../engine/kv/adopt.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import type { Lease } from '../../engine/kv/lease.ts';
import type { Manifest } from '../../engine/kv/manifest.ts';
import { jobPrefix, type JobKey } from '../../engine/kv/names.ts';
import { forkKeys, openKeys } from '../../engine/kv/seal.ts';
import type { KeyProvider } from '../../engine/ports/keys.ts';
import type { NativeEngine, Seal } from '../../engine/runtime/native.ts';
import { adopted, commitDelta, finished, JOB, leaseOf, openTiny, restoreOptions, tokensOf } from './sealed-run.ts';
import { code, options, WHERE } from './support.ts';

const CHILD: JobKey = { tenant: 'acme', job: 'child' };
const CUT = 20;

let engine: NativeEngine;
let golden: readonly (readonly number[])[];
beforeAll(async () => {
  engine = await openTiny();
  using run = engine.createRun(JOB);
  await run.prefill();
  golden = await finished(run);
});
afterAll(() => engine.close());

/** A store whose deletes fail after the first that removed anything. */
class DyingStore extends MemoryStore {
  dying = false;
  #deletes = 0;
  override async delete(...[keys, more]: Parameters<MemoryStore['delete']>): Promise<void> {
    if (this.dying && keys.length > 0 && this.#deletes++ > 0) throw new Error('killed');
    await super.delete(keys, more);
  }
}

let store: DyingStore;
let provider: KeyProvider;
beforeEach(() => {
  store = new DyingStore();
  provider = new KeyFile(randomBytes(32));
});

/** A run that was saved after the prefill and at CUT, and what it had generated then. */
async function savedJob(keyed: KeyProvider | null): Promise<{ readonly lease: Lease; readonly manifest: Manifest; readonly tokens: readonly (readonly number[])[] }> {
  const lease = await leaseOf(store, WHERE);
  using keys = await openKeys(keyed, WHERE, lease.manifest);
  using run = engine.createRun(JOB);
  await run.prefill();
  await commitDelta(lease, run, keys, 0);
  await run.step(CUT);
  await commitDelta(lease, run, keys, 1);
  const { manifest } = lease;
  if (manifest === null) throw new Error('nothing was committed');
  return { lease, manifest, tokens: tokensOf(run) };
}

/** Reads past the protocol, as whoever has the bucket can. */
function raw(where: JobKey): (ref: { readonly name: string }) => Promise<readonly Uint8Array[]> {
  return async ({ name }) => {
    const bytes = store.snapshot().get(jobPrefix(where) + name);
    if (bytes === undefined) throw new Error(`no ${name}`);
    return [bytes];
  };
}

async function goneOn(manifest: Manifest, sealFor: (origin: string) => Seal): Promise<readonly (readonly number[])[]> {
  using run = await engine.restoreRun(await restoreOptions(manifest, sealFor, raw(manifest)));
  await run.prefill();
  return await finished(run);
}

/** Objects that hold four tokens in a row, as the engine keeps them. */
function holding(tokens: ArrayLike<number>): number {
  const windows = Array.from({ length: tokens.length - 3 }, (_, at) => Buffer.from(Int32Array.from(Array.prototype.slice.call(tokens, at, at + 4)).buffer));
  return [...store.snapshot().values()].filter((bytes) => windows.some((window) => Buffer.from(bytes).includes(window))).length;
}

describe('a sealed job', () => {
  test('goes on with the right key, and gives the tokens of one that never stopped', async () => {
    const { manifest, tokens } = await savedJob(provider);
    expect(tokens.map((chain) => chain.length)).toEqual([CUT, CUT]);
    using keys = await openKeys(provider, WHERE, manifest);
    expect(await goneOn(manifest, (origin) => keys.of(origin))).toEqual(golden);
  });

  test('has no four tokens of its chains in any object; in the clear the same search finds them', async () => {
    const sealed = await savedJob(provider);
    expect(sealed.tokens.map(holding)).toEqual([0, 0]);
    store = new DyingStore();
    const clear = await savedJob(null);
    expect(clear.tokens).toEqual(sealed.tokens);
    for (const found of clear.tokens.map(holding)) expect(found).toBeGreaterThan(0);
  });

  test('has none of its K, V and logits in any object; in the clear the same search finds them', async () => {
    const clear = await savedJob(null);
    using keys = await openKeys(null, WHERE, clear.manifest);
    // Every 64 bytes of a plain segment or tail that are not nearly all zeros, as whoever has seen the same prompt would know them.
    const plain = await Promise.all(clear.manifest.objects.filter(({ name }) => /^[st]/.test(name)).map(raw(WHERE)));
    const samples = plain.flatMap(([bytes = new Uint8Array()]) => {
      const pieces = Array.from({ length: Math.floor((bytes.length - 4_096) / 64) }, (_, i) => Buffer.from(bytes.slice(4_096 + i * 64, 4_160 + i * 64)));
      return pieces.filter((piece) => new Set(piece).size > 32).slice(0, 20);
    });
    expect(samples.length).toBeGreaterThan(20);
    const found = () => samples.filter((piece) => [...store.snapshot().values()].some((bytes) => Buffer.from(bytes).includes(piece))).length;
    expect(found()).toBe(samples.length);
    expect(keys.own.dataKey).toBeNull();
    store = new DyingStore();
    await savedJob(provider);
    expect(found()).toBe(0);
  });

  test('is not opened by another key, another tenant, another origin, or none', async () => {
    const { manifest } = await savedJob(provider);
    await expect(openKeys(new KeyFile(randomBytes(32)), WHERE, manifest)).rejects.toMatchObject(code('ERR_KEY'));
    await expect(openKeys(null, WHERE, manifest)).rejects.toMatchObject(code('ERR_KEY'));
    using keys = await openKeys(provider, WHERE, manifest);
    const refused = (reason: string) => ({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(new RegExp(`^${reason}: `)) as string });
    const changed = (change: Partial<Seal>) => goneOn(manifest, (origin) => ({ ...keys.of(origin), ...change }));
    await expect(changed({ dataKey: randomBytes(32) })).rejects.toMatchObject(refused('identity'));
    await expect(changed({ context: 'other\0sums' })).rejects.toMatchObject(refused('identity'));
    await expect(changed({ context: 'acme\0other' })).rejects.toMatchObject(refused('identity'));
    await expect(changed({ context: 'acme' })).rejects.toMatchObject(refused('identity'));
    await expect(changed({ digestKey: randomBytes(32) })).rejects.toMatchObject(refused('identity'));
    await expect(changed({ digestKey: null })).rejects.toMatchObject(refused('identity'));
    await expect(changed({ dataKey: null })).rejects.toMatchObject(code('ERR_KEY'));
    using fresh = await openKeys(provider, WHERE, null);
    await expect(goneOn(manifest, () => fresh.own)).rejects.toMatchObject({ code: 'ERR_CHECKPOINT' });
  });

  test('takes no object in the clear in place of a sealed one', async () => {
    const clear = await savedJob(null);
    using keys = await openKeys(provider, WHERE, null);
    await expect(goneOn(clear.manifest, () => ({ ...keys.own, digestKey: null }))).rejects.toMatchObject({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^identity: .*not encrypted/) as string });
  });

  test('is not opened by the keys of another job of that name', async () => {
    const first = await savedJob(provider);
    using keys = await openKeys(provider, WHERE, first.manifest);
    store = new DyingStore();
    const second = await savedJob(provider);
    await expect(goneOn(second.manifest, (origin) => keys.of(origin))).rejects.toMatchObject({ code: 'ERR_CHECKPOINT' });
  });

  test('can be disposed of while a save is on its way: native code has its own copy', async () => {
    const lease = await leaseOf(store, WHERE);
    const keys = await openKeys(provider, WHERE, null);
    const wrapped = keys.wrappedFor([]);
    using run = engine.createRun(JOB);
    await run.prefill();
    const committed = commitDelta(lease, run, { ...Object.create(keys), own: keys.own, wrappedFor: () => wrapped } as typeof keys, 0);
    keys[Symbol.dispose]();
    await committed;
    using again = await openKeys(provider, WHERE, lease.manifest);
    if (lease.manifest === null) throw new Error('nothing was committed');
    expect(await goneOn(lease.manifest, (origin) => again.of(origin))).toEqual(golden);
  });
});

describe('a seal that was disposed of', () => {
  test('seals and opens nothing: zeros are not taken for a key', async () => {
    const { manifest } = await savedJob(provider);
    const keys = await openKeys(provider, WHERE, manifest);
    const seal = keys.own;
    keys[Symbol.dispose]();
    using run = engine.createRun(JOB);
    await run.prefill();
    await expect(run.save({ delta: true, epoch: 1, n: 0, codec: 'raw', ...seal })).rejects.toMatchObject(code('ERR_KEY'));
    await expect(goneOn(manifest, () => seal)).rejects.toMatchObject(code('ERR_KEY'));
  });
});

describe('erasing a sealed job', () => {
  test('destroys the wrapped keys first: after the first step the objects are there and nothing opens them', async () => {
    const { manifest } = await savedJob(provider);
    const wrapped = Object.values(manifest.keys ?? {});
    const keep = manifest.objects.map(({ name }) => jobPrefix(WHERE) + name);
    const stored = () => [...store.snapshot()].map(([key, bytes]) => ({ key, text: Buffer.from(bytes).toString('latin1') }));
    const withKeys = () => stored().filter(({ text }) => wrapped.some((key) => text.includes(key) || text.includes(Buffer.from(key, 'base64').toString('latin1'))));
    expect(withKeys().length).toBe(2);
    store.dying = true;
    await expect(eraseJob(store, WHERE, options())).rejects.toThrow('killed');
    expect(withKeys()).toEqual([]);
    expect(keep.filter((key) => !store.snapshot().has(key))).toEqual([]);
    // Whoever kept the rest of the manifest, holds the provider's key and has every object left:
    using keys = await openKeys(provider, WHERE, null);
    await expect(goneOn(manifest, () => keys.own)).rejects.toMatchObject({ code: 'ERR_CHECKPOINT' });
    await expect(goneOn(manifest, () => ({ dataKey: null, digestKey: null, context: 'acme\0sums' }))).rejects.toMatchObject({ code: expect.stringMatching(/ERR_(KEY|CHECKPOINT)/) as string });
    store.dying = false;
    await eraseJob(store, WHERE, options());
    expect([...store.snapshot().keys()]).toEqual([`${jobPrefix(WHERE)}HEAD`]);
  });

  test('shreds no fork of it: the child goes on, with its own wrapping of the parent\'s key', async () => {
    const parent = await savedJob(provider);
    const lease = await leaseOf(store, CHILD);
    {
      using parentKeys = await openKeys(provider, WHERE, parent.manifest);
      using keys = await forkKeys(provider, CHILD, parentKeys, parent.manifest.objects);
      await lease.commit({ state: 'running', objects: adopt(WHERE, parent.manifest.objects), manifest: (refs) => adopted(parent.manifest, refs, keys) });
    }
    await eraseJob(store, WHERE, options());
    expect([...store.snapshot().keys()].filter((key) => key.startsWith(jobPrefix(WHERE)))).toEqual([`${jobPrefix(WHERE)}HEAD`]);
    const { manifest } = lease;
    if (manifest === null) throw new Error('nothing was committed');
    expect(Object.keys(manifest.keys ?? {}).sort()).toEqual(['child', 'sums']);
    using keys = await openKeys(provider, CHILD, manifest);
    expect(await goneOn(manifest, (origin) => keys.of(origin))).toEqual(golden);
    // What the parent's manifest said before does not open the child's copies without the parent's wrapped key, nor as the child's own.
    await expect(goneOn(manifest, () => keys.own)).rejects.toMatchObject({ code: 'ERR_CHECKPOINT' });
    // And the child's end is its own.
    await eraseJob(store, CHILD, options());
    expect([...store.snapshot().keys()].sort()).toEqual([`${jobPrefix(CHILD)}HEAD`, `${jobPrefix(WHERE)}HEAD`]);
  });
});
