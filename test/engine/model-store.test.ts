/** Models through a store and back: what is pushed comes back byte for byte, and what is not that is refused. */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';

import type { Fault, Operation } from '../../engine/adapters/memory-faults.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import { parseCard } from '../../engine/model/card.ts';
import { push } from '../../engine/model/push.ts';
import { StoreSource } from '../../engine/model/sources.ts';
import { listCards } from '../../engine/model/store-cards.ts';
import { pieceOf } from '../../engine/model/store-layout.ts';
import { COUNTDOWN, cacheIn, contentOf, copyOf, folder, madeModel, pullOnce, removeFolders, wrongBlobs } from '../helpers/models.ts';
import { tinyModel } from '../helpers/setup.ts';

afterAll(removeFolders);

const failed = (code: string, message = /./) => expect.objectContaining({ code, message: expect.stringMatching(message) });

async function pushed(faults?: (operation: Operation) => Fault | null): Promise<MemoryStore> {
  const store = new MemoryStore(faults === undefined ? {} : { faults });
  await push(COUNTDOWN, store);
  return store;
}

describe('there and back', () => {
  test('every variant comes back byte for byte, contents that variants share being stored once', async () => {
    const store = await pushed();
    const blobs = [...store.snapshot().keys()].filter((key) => key.includes('/blobs/'));
    expect(blobs.length).toBeLessThan(24);
    const { directory, timing } = await pullOnce(cacheIn(folder()), new StoreSource(store, 'countdown'));
    const [there, here] = [contentOf(COUNTDOWN), contentOf(directory)];
    for (const [name, content] of here) if (name.includes('/')) expect(content.equals(there.get(name) ?? Buffer.alloc(0)), name).toBe(true);
    expect([...here.keys()].filter((name) => name.includes('/'))).toHaveLength(24);
    expect(timing.fetched_bytes).toBe(blobs.reduce((sum, key) => sum + (store.snapshot().get(key)?.length ?? 0), 0));
  });

  test('a second pull transfers nothing but model.json', async () => {
    const store = await pushed();
    const cache = cacheIn(folder());
    await pullOnce(cache, new StoreSource(store, 'countdown'));
    const before = store.log.length;
    expect((await pullOnce(cache, new StoreSource(store, 'countdown'))).timing.fetched_bytes).toBe(0);
    expect(store.log.slice(before).map(({ key }) => key)).toEqual(['countdown/model.json']);
  });

  test('one variant asked for is one variant fetched', async () => {
    const store = await pushed();
    const { directory, timing } = await pullOnce(cacheIn(folder()), new StoreSource(store, 'countdown'), { variants: () => ['cr8'] });
    expect([...contentOf(directory).keys()].filter((name) => name.endsWith('.safetensors'))).toEqual(['cr8/model.safetensors']);
    expect(timing.fetched_bytes).toBe(timing.bytes);
  });

  test('pushing the same again sends nothing; a killed push goes on with what is missing', async () => {
    const store = await pushed();
    expect((await push(COUNTDOWN, store)).uploaded_bytes).toBe(0);
    const lost = [...store.snapshot().entries()].find(([key, bytes]) => key.includes('/blobs/') && bytes.length > 1e6);
    await store.delete([lost?.[0] ?? '']);
    expect((await push(COUNTDOWN, store)).uploaded_bytes).toBe(lost?.[1].length);
  });

  test('a file longer than a piece is sent and read in pieces', async () => {
    const content = randomBytes(LIMITS.PIECE_BYTES + 12_345);
    const store = new MemoryStore();
    const { uploaded_bytes } = await push(madeModel('large', { 'model.safetensors': content }), store);
    expect(uploaded_bytes).toBe(content.length);
    expect([...store.snapshot().values()].map((bytes) => bytes.length).sort((a, b) => b - a).slice(0, 2)).toEqual([LIMITS.PIECE_BYTES, 12_345]);
    const { directory } = await pullOnce(cacheIn(folder()), new StoreSource(store, 'large'));
    expect(readFileSync(path.join(directory, 'only', 'model.safetensors')).equals(content)).toBe(true);
  });

  test('no range of a pull lies in two pieces', () => {
    const bytes = 3 * LIMITS.PIECE_BYTES + 1;
    for (let offset = 0; offset < bytes; offset += LIMITS.RANGE_BYTES) {
      const last = Math.min(offset + LIMITS.RANGE_BYTES, bytes) - 1;
      expect(pieceOf('m', 'ab', bytes, last).key).toBe(pieceOf('m', 'ab', bytes, offset).key);
    }
  });

  test('a plain Hugging Face directory gets a card that claims nothing it does not know', async () => {
    const store = new MemoryStore();
    const { card } = await push(tinyModel('tiny_qwen3_sharded'), store, { name: 'tiny' });
    expect(card).toMatchObject({ name: 'tiny', licence: null, task: null, default_variant: 'default', source: 'unknown' });
    expect(card.variants.default).toMatchObject({ compression_ratio: 1, policy: { name: 'dense' } });
    expect(card.variants.default).not.toHaveProperty('figures');
    expect(card.variants.default).not.toHaveProperty('model_id');
    const { directory } = await pullOnce(cacheIn(folder()), new StoreSource(store, 'tiny'));
    const there = contentOf(tinyModel('tiny_qwen3_sharded'));
    for (const [name, content] of contentOf(path.join(directory, 'default'))) expect(content.equals(there.get(name) ?? Buffer.alloc(0)), name).toBe(true);
  });

  test('a store lists what was pushed to it, by name', async () => {
    const store = await pushed();
    await push(tinyModel('tiny_qwen2'), store, { name: 'tiny', licence: 'MIT' });
    expect((await listCards(store)).map(({ name, licence }) => [name, licence])).toEqual([['countdown', 'Apache-2.0'], ['tiny', 'MIT']]);
  });
});

describe('a name and revision are one content for ever', () => {
  test('other content under a revision that exists is refused, and nothing changes', async () => {
    const store = new MemoryStore();
    await push(madeModel('m', { 'a.json': Buffer.from('1') }), store, { revision: 'v1' });
    const before = store.snapshot();
    await expect(push(madeModel('m', { 'a.json': Buffer.from('2') }), store, { revision: 'v1' })).rejects.toThrow(failed('ERR_MODEL_CONFLICT', /m, revision v1/));
    expect(store.snapshot()).toEqual(before);
  });

  test('two pushes of different content at once: one wins, the other is refused', async () => {
    // Both have looked before either writes.
    let arrived = 0;
    let open = () => {};
    const both = new Promise<void>((resolve) => (open = resolve));
    const store = new MemoryStore({
      before: async ({ kind, key }) => {
        if (kind !== 'put' || !key.includes('/revisions/')) return;
        if (++arrived === 2) open();
        await both;
      },
    });
    const ends = await Promise.allSettled(['1', '2'].map((text) => push(madeModel('m', { 'a.json': Buffer.from(text) }), store, { revision: 'v1' })));
    expect(ends.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(ends.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'ERR_MODEL_CONFLICT' } });
    expect(store.snapshot().get('m/model.json')).toEqual(store.snapshot().get('m/revisions/v1/model.json'));
  });

  test('a new revision moves the pointer and leaves the old one readable', async () => {
    const store = new MemoryStore();
    await push(madeModel('m', { 'a.json': Buffer.from('1') }), store, { revision: 'v1' });
    await push(madeModel('m', { 'a.json': Buffer.from('2') }), store, { revision: 'v2' });
    const read = async (revision?: string) => {
      const { directory } = await pullOnce(cacheIn(folder()), new StoreSource(store, 'm', revision));
      return readFileSync(path.join(directory, 'only', 'a.json'), 'utf8');
    };
    expect([await read(), await read('v1'), await read('v2')]).toEqual(['2', '1', '2']);
  });

  test.each(['lost_ack', 'refuse'] as const)('a put of model.json whose answer is %s ends as it was decided', async (kind) => {
    const store = new MemoryStore({ faults: ({ key, condition }) => (key.includes('/revisions/') && condition !== null ? { kind } : null) });
    const model = madeModel('m', { 'a.json': Buffer.from('1') });
    if (kind === 'lost_ack') expect((await push(model, store, { revision: 'v1' })).revision).toBe('v1');
    else await expect(push(model, store, { revision: 'v1' })).rejects.toThrow(failed('ERR_STORE', /push again/));
    expect(store.snapshot().has('m/revisions/v1/model.json')).toBe(kind === 'lost_ack');
  });
});

describe('what is not what it should be', () => {
  const weights = (key: string, store: MemoryStore) => key.includes('/blobs/') && (store.snapshot().get(key)?.length ?? 0) > 1e6;

  test('a flipped byte is refused by the name of the file, and nothing of the file is kept', async () => {
    const good = await pushed();
    const bad = new MemoryStore({ faults: ({ kind, key }) => (kind === 'get' && weights(key, good) ? { kind: 'damage', at: 1_234_567 } : null) });
    await push(COUNTDOWN, bad);
    const cache = cacheIn(folder());
    await expect(pullOnce(cache, new StoreSource(bad, 'countdown'))).rejects.toThrow(failed('ERR_MODEL_FILE', /model\.safetensors is not what it should be/));
    expect(wrongBlobs(cache)).toEqual([]);
    // The same cache, a good store: nothing bad was left to go on with.
    const { directory } = await pullOnce(cache, new StoreSource(good, 'countdown'));
    expect(contentOf(directory).get('cr8/model.safetensors')?.equals(readFileSync(path.join(COUNTDOWN, 'cr8', 'model.safetensors')))).toBe(true);
  });

  test.each(['truncate', 'vanish'] as const)('a blob that is cut short or gone (%s) is refused by name', async (kind) => {
    const good = await pushed();
    const fault: Fault = kind === 'truncate' ? { kind, bytes: 100 } : { kind };
    const bad = new MemoryStore({ faults: (operation) => (operation.kind === 'get' && weights(operation.key, good) ? fault : null) });
    await push(COUNTDOWN, bad);
    const cache = cacheIn(folder());
    await expect(pullOnce(cache, new StoreSource(bad, 'countdown'))).rejects.toThrow(failed('ERR_MODEL_FILE', /model\.safetensors/));
    expect(wrongBlobs(cache)).toEqual([]);
  });

  test('a file that is not the one its card speaks of is not pushed', async () => {
    const copy = copyOf(COUNTDOWN);
    const file = path.join(copy, 'cr4', 'model.safetensors');
    const content = readFileSync(file);
    content[1_000_000] = (content[1_000_000] ?? 0) ^ 1;
    writeFileSync(file, content);
    const store = new MemoryStore();
    await expect(push(copy, store)).rejects.toThrow(failed('ERR_MODEL_FILE', /cr4\/model\.safetensors/));
    expect(store.snapshot().size).toBe(0);
  });

  test('a model that is not there, and names that are none', async () => {
    const store = new MemoryStore();
    await expect(pullOnce(cacheIn(folder()), new StoreSource(store, 'nobody'))).rejects.toThrow(failed('ERR_MODEL_NOT_FOUND'));
    expect(() => new StoreSource(store, '..')).toThrow(failed('ERR_MODEL_NOT_FOUND'));
    await expect(push(COUNTDOWN, store, { name: '../up' })).rejects.toThrow(failed('ERR_OPTION'));
    await expect(push(COUNTDOWN, store, { revision: 'a/b' })).rejects.toThrow(failed('ERR_OPTION'));
  });

  const card = JSON.parse(readFileSync(path.join(madeModel('m', { 'a.json': Buffer.from('1') }), 'model.json'), 'utf8')) as { variants: { only: { directory: string; files: { path: string; sha256: string; bytes: number }[] } }; files?: unknown };
  const file = { path: 'a.json', bytes: 1, sha256: 'a'.repeat(64) };
  const hostile: readonly (readonly [string, (changed: typeof card) => void])[] = [
    ['a file that leaves its folder', (c) => (c.variants.only.files = [{ ...file, path: '../../names/evil' }])],
    ['an absolute file', (c) => (c.variants.only.files = [{ ...file, path: '/etc/passwd' }])],
    ['a folder that leaves', (c) => (c.variants.only.directory = '..')],
    ['a file named twice', (c) => (c.variants.only.files = [file, file])],
    ['a shared file in the place of model.json', (c) => (c.files = [{ ...file, path: 'model.json' }])],
    ['a shared file in the place of a variant', (c) => (c.files = [{ ...file, path: 'only' }])],
    ['a digest that is a path', (c) => (c.variants.only.files = [{ ...file, sha256: '../../../x' }])],
    ['an absurd size', (c) => (c.variants.only.files = [{ ...file, bytes: 2 ** 50 }])],
  ];
  test.each(hostile)('a card with %s is refused before anything is fetched', async (_, change) => {
    const changed = structuredClone(card);
    change(changed);
    const text = JSON.stringify(changed);
    expect(() => parseCard(text, 'x')).toThrow(failed('ERR_MODEL_CONFIG'));
    const store = new MemoryStore();
    await store.put('m/model.json', [Buffer.from(text)]);
    const before = store.log.length;
    await expect(pullOnce(cacheIn(folder()), new StoreSource(store, 'm'))).rejects.toThrow(failed('ERR_MODEL_CONFIG'));
    expect(store.log.length).toBe(before + 1);
  });
});
