/** Small objects of one cut that lie together in the store: fewer requests, and each still an object of its own. */
import { describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { adopt } from '../../engine/kv/adopt.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import { createJob, readJob } from '../../engine/kv/create.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import type { Lease } from '../../engine/kv/lease.ts';
import { manifestProblem, type Manifest, type ManifestContent, type ObjectRef } from '../../engine/kv/manifest.ts';
import { parseName } from '../../engine/kv/names.ts';
import { readObjects } from '../../engine/kv/read.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { NewObject } from '../../engine/kv/uploads.ts';
import { content, createdJob, options, SPEC, step, takenJob, WHERE } from './support.ts';

const CHAINS = 6;
const PREFIX = 'kv/acme/sums/';

const tail = (chain: number, cut: number, bytes = 10): NewObject => {
  const body = Buffer.alloc(bytes, `${cut}${chain}`);
  return { kind: 'tail', chain, n: 0, nonce: sha256(`${chain} ${cut}`).slice(0, 16), body: [body.subarray(0, 3), body.subarray(3)], bytes, digest: sha256(body) };
};

/** Every chain ends in the newest of these tails, and in no other. */
const tails = (refs: readonly ObjectRef[], cut = 1): ManifestContent => content(refs, { journal: [], chains: refs.map((_, i) => ({ tokens: cut, finish: null, segments: [], tails: [{ at: cut, object: i }] })) });

async function committed(lease: Lease, cut: number, objects = Array.from({ length: CHAINS }, (_, chain) => tail(chain, cut))): Promise<Manifest> {
  await lease.commit({ state: 'running', objects, manifest: (refs) => tails(refs, cut) });
  return lease.manifest as Manifest;
}

const keysOf = (store: MemoryStore, kind = /^/, prefix = PREFIX): string[] => [...store.snapshot().keys()].filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length)).filter((key) => kind.test(key));
const text = (chunks: readonly Uint8Array[]): string => Buffer.concat(chunks).toString();
const all = (lease: Lease, refs: readonly ObjectRef[]) => readObjects(refs, undefined, (ref, signal) => lease.read(ref, { signal }));

async function taken(store: MemoryStore): Promise<Lease> {
  await createdJob(store);
  return await takenJob(store);
}

describe('a pack', () => {
  test('has the small objects of a kind that one commit has, each with a name and a digest of its own', async () => {
    const store = new MemoryStore();
    const lease = await taken(store);
    const { objects } = await committed(lease, 1);
    const [pack, ...more] = keysOf(store, /^t\//);
    expect([parseName(pack ?? ''), more]).toEqual([expect.objectContaining({ kind: 'tail', chain: -3, epoch: 1 }), []]);
    expect(objects.map((ref) => ref.pack)).toEqual(objects.map((_, i) => ({ name: pack, at: 10 * i })));
    expect(new Set(objects.map(({ name }) => name)).size).toBe(CHAINS);
    expect((await Promise.all(objects.map((ref) => lease.read(ref)))).map(text)).toEqual(objects.map((_, i) => Buffer.alloc(10, `1${i}`).toString()));
  });

  test('is read with one call, of which each object gets its bytes; so are those of which not all are wanted', async () => {
    const store = new MemoryStore();
    const lease = await taken(store);
    const { objects } = await committed(lease, 1);
    for (const wanted of [[0, 1, 2, 3, 4, 5], [5, 0, 3], [4]]) {
      const before = store.log.length;
      const bodies = await all(lease, wanted.map((i) => objects[i] as ObjectRef));
      expect(bodies.map(text)).toEqual(wanted.map((i) => Buffer.alloc(10, `1${i}`).toString()));
      expect(store.log.slice(before).map(({ kind }) => kind)).toEqual(['get']);
    }
  });

  test('is not made of journals, of few objects, or of large ones; and has at most 4 MiB', async () => {
    const store = new MemoryStore();
    const lease = await taken(store);
    const large = 1 << 20;
    const objects = [...Array.from({ length: 9 }, (_, i) => tail(i, 1, large)), ...Array.from({ length: 4 }, (_, i) => tail(9 + i, 1, large + 1)), ...[1, 2, 3].map((n) => step(n, 'segment')), ...[4, 5, 6, 7].map((n) => step(n))];
    await lease.commit({
      state: 'running', objects,
      manifest: (refs) => ({ ...tails(refs.slice(0, 13)), objects: refs, journal: [16, 17, 18, 19], chains: refs.slice(0, 13).map((_, i) => ({ tokens: 1, finish: null, segments: i === 0 ? [13, 14, 15] : [], tails: [{ at: 1, object: i }] })) }),
    });
    const counts = [/^t\/\d+\/1-w-/, /^t\/\d+\/1-\d/, /^s\/\d+\/1-0-/, /^j\//].map((kind) => keysOf(store, kind).length);
    // 4 + 4, one that is left, and four that are too large.
    expect(counts).toEqual([2, 5, 3, 4]);
    expect(lease.manifest?.objects.map(({ pack }) => pack?.at)).toEqual([0, 1, 2, 3, 0, 1, 2, 3].map((at) => at * large).concat(Array.from({ length: 12 }, () => undefined) as never[]));
    expect((await all(lease, lease.manifest?.objects ?? [])).map((body) => sha256(Buffer.concat(body)))).toEqual(objects.map(({ digest }) => digest));
  });

  test('moves whole when a collection has passed it between its upload and its commit', async () => {
    let fenced = false;
    const store: MemoryStore = new MemoryStore({
      before: async ({ kind, key }) => {
        if (fenced || kind !== 'put' || !key.includes('/m/')) return;
        fenced = true;
        await collectGarbage(store, WHERE, options());
      },
    });
    const lease = await taken(store);
    const { objects } = await committed(lease, 1);
    const places = new Set(objects.map(({ pack }) => pack?.name));
    expect([...places].map((name) => parseName(name ?? ''))).toEqual([expect.objectContaining({ version: lease.head.gc })]);
    await collectGarbage(store, WHERE, options());
    expect(keysOf(store, /^t\//)).toEqual([...places]);
    expect((await all(lease, objects)).map(text)).toEqual(objects.map((_, i) => Buffer.alloc(10, `1${i}`).toString()));
  });

  test('stays as long as one of its objects is named, and then is garbage', async () => {
    const store = new MemoryStore();
    const lease = await taken(store);
    const [kept] = (await committed(lease, 1)).objects;
    if (kept === undefined) throw new Error('nothing was committed');
    await lease.commit({ state: 'running', objects: [], manifest: () => tails([kept]) });
    await collectGarbage(store, WHERE, options());
    expect(keysOf(store, /^t\//)).toEqual([kept.pack?.name]);
    await committed(lease, 2);
    await collectGarbage(store, WHERE, options());
    expect(keysOf(store, /^t\//)).toHaveLength(1);
    expect(keysOf(store, /^t\//)).not.toContain(kept.pack?.name);
  });

  test('is copied once for a child that takes over some of its objects, which outlive their parent', async () => {
    const store = new MemoryStore();
    const { objects } = await committed(await taken(store), 1);
    const child = { tenant: 'acme', job: 'child' };
    await createJob(store, child, SPEC, options());
    const lease = await takeJob(store, child, options());
    const before = store.log.length;
    await lease.commit({ state: 'running', objects: [...adopt(WHERE, [objects[4], objects[2]] as ObjectRef[]), step(1)], manifest: (refs) => ({ ...tails(refs.slice(0, 2)), objects: refs, journal: [2] }) });
    expect(store.log.slice(before).filter(({ kind }) => kind === 'copy')).toHaveLength(1);
    await eraseJob(store, WHERE, options());
    await collectGarbage(store, child, options());
    const { manifest } = await readJob(store, child);
    expect(manifest?.objects.map(({ pack, origin }) => [pack?.at, origin])).toEqual([[40, 'sums'], [20, 'sums'], [undefined, 'child']]);
    expect((await all(lease, manifest?.objects.slice(0, 2) ?? [])).map(text)).toEqual(['1414141414', '1212121212']);
    expect(keysOf(store)).toEqual(['HEAD']);
  });

  test('that is gone, or ends within an object, is no other bytes', async () => {
    const store = new MemoryStore();
    const lease = await taken(store);
    const { objects } = await committed(lease, 1);
    const key = PREFIX + (objects[0]?.pack?.name ?? '');
    await store.put(key, [Buffer.from(store.snapshot().get(key) ?? []).subarray(0, 55)]);
    await expect(all(lease, objects)).rejects.toMatchObject({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^truncated: /) as string });
    await expect(lease.read(objects[5] as ObjectRef)).rejects.toThrow(/^truncated: /);
    expect(text(await lease.read(objects[4] as ObjectRef))).toBe('1414141414');
    await store.delete([key]);
    await expect(all(lease, objects)).rejects.toThrow(/^missing: /);
  });
});

test('what lasts is in no pack with what the next cut replaces', async () => {
  const store = new MemoryStore();
  const lease = await taken(store);
  const { objects } = await committed(lease, 1, [0, 1, 2, 3, 4, 5, 6, 7].map((chain) => ({ ...tail(chain, 1), lasts: chain % 2 === 0 })));
  const places = objects.map(({ pack }) => pack?.name);
  expect(new Set(places).size).toBe(2);
  expect(places.filter((_, i) => i % 2 === 0)).toEqual(Array.from({ length: 4 }, () => places[0]));
});

test('a manifest says the second format if it has a pack, and only then: an engine that knows none leaves the job to others', async () => {
  const lease = await taken(new MemoryStore());
  expect((await committed(lease, 1)).format).toBe('dmskv/2');
  expect((await committed(lease, 2, [tail(0, 2)])).format).toBe('dmskv/1');
});

test('a manifest that lists a pack as an object, or an object in what is no pack of its kind and of its time, is damaged', async () => {
  const manifest = await committed(await taken(new MemoryStore()), 1);
  expect(manifestProblem(manifest)).toBeNull();
  const pack = manifest.objects[0]?.pack?.name ?? '';
  const changed = (more: object) => manifestProblem({ ...manifest, objects: manifest.objects.map((ref, i) => (i === 0 ? { ...ref, ...more } : ref)) });
  expect(changed({ name: pack, pack: undefined })).toMatch(/pack as an object/);
  const wrong = [pack.replace(/^t/, 't/9').replace('t/9/', 't/99/').replace(/\/\d+\/(\d+-w)/, '/$1'), pack.replace('-w-', '-0-'), 'HEAD', '../other/HEAD', `s/1/1-w-0-${'0'.repeat(16)}.seg`];
  for (const name of wrong) expect(changed({ pack: { name, at: 0 } }), name).toMatch(/no pack of its kind/);
});
