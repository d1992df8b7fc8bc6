/** The cache of one process: its byte limit, what is kept of a pull that stopped, and what a spoilt part does. */
import { randomBytes } from 'node:crypto';
import { appendFileSync, chmodSync, closeSync, existsSync, openSync, readFileSync, readdirSync, renameSync, utimesSync, writeFileSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';

import { DirectorySource } from '../../engine/model/sources.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import { thisOwner } from '../../engine/core/owner.ts';
import { ModelCache } from '../../engine/model/cache.ts';
import { makeRoom, prune, removeModel, verifyBlobs } from '../../engine/model/evict.ts';
import { CachingFinder, localModels, referenceOf } from '../../engine/model/finder.ts';
import { pull } from '../../engine/model/pull.ts';
import { openSession } from '../../engine/job/session.ts';
import type { ModelSource } from '../../engine/ports/model-source.ts';
import { COUNTDOWN, cacheIn, contentOf, folder, madeModel, pullOnce, removeFolders, wrongBlobs } from '../helpers/models.ts';

afterAll(removeFolders);
const failed = (code: string, message = /./) => expect.objectContaining({ code, message: expect.stringMatching(message) });
const model = (name: string, bytes = 1_000) => new DirectorySource(madeModel(name, { 'model.safetensors': randomBytes(bytes) }));

/** Every read is seen; `stop` throws what it likes. */
function watched(source: ModelSource, look: (range: { offset: number; bytes: number }, signal: AbortSignal | undefined) => void): ModelSource {
  return {
    url: source.url,
    list: (options) => source.list(options),
    async read(file, range, options) {
      look(range, options?.signal);
      return await source.read(file, range, options);
    },
  };
}

test('a pull of many ranges has memory for those that are on their way, and not for all of the model', async () => {
  const source = model('many', 4_050);
  const given = new Set<ArrayBufferLike>();
  let reads = 0;
  const cache = cacheIn(folder());
  const { directory } = await pullOnce(cache, {
    ...watched(source, () => undefined),
    async read(file, range, options) {
      const body = Buffer.concat(await source.read(file, range));
      const into = options?.into;
      if (into === undefined) return [body];
      reads++;
      given.add(into.buffer);
      body.copy(into);
      await sleep(1);
      return [into.subarray(0, body.length)];
    },
  }, { rangeBytes: 50 });
  expect(reads).toBe(81);
  expect(given.size).toBeLessThanOrEqual(LIMITS.RANGES_IN_FLIGHT);
  expect([...contentOf(directory)].find(([name]) => name.endsWith('model.safetensors'))?.[1]).toHaveLength(4_050);
  expect(wrongBlobs(cache)).toEqual([]);
});

describe('the byte limit', () => {
  test('the least recently used model goes first, and names go with it', async () => {
    const cache = cacheIn(folder(), 2_500);
    const [a, b, c] = [model('a'), model('b'), model('c')];
    const first = await pullOnce(cache, a);
    await cache.name('a', first.digest);
    await pullOnce(cache, b);
    // Times of a file may be coarser than the work between.
    await sleep(20);
    await cache.touch(first.digest);
    await sleep(20);
    await pullOnce(cache, c);
    expect((await cache.list()).map(({ card }) => card.name).sort()).toEqual(['a', 'c']);
    await sleep(20);
    await pullOnce(cache, b);
    expect((await cache.list()).map(({ card }) => card.name).sort()).toEqual(['b', 'c']);
    expect(readdirSync(cache.namesFolder)).toEqual([]);
  });

  test('a model that cannot fit beside those in use is refused with the numbers, before a byte is fetched', async () => {
    const cache = cacheIn(folder(), 2_500);
    await using _pin = (await pull(cache, model('a'))).pin;
    let reads = 0;
    await expect(pullOnce(cache, watched(model('large', 2_000), () => (reads += 1)))).rejects.toThrow(failed('ERR_MODEL_CACHE', /2000 bytes more .* 2500, of which 1000 .*RUMINATE_CACHE_BYTES/));
    expect(reads).toBe(0);
  });

  test('files of a model that stays are not freed with one that goes', async () => {
    const shared = randomBytes(1_000);
    const cache = cacheIn(folder());
    await pullOnce(cache, new DirectorySource(madeModel('a', { 'model.safetensors': shared, 'a.json': randomBytes(10) })));
    const { digest } = await pullOnce(cache, new DirectorySource(madeModel('b', { 'model.safetensors': shared, 'b.json': randomBytes(10) })));
    await cache.name('b', digest);
    const [first] = (await cache.list()).filter(({ card }) => card.name === 'a');
    expect(await removeModel(cache, first?.digest ?? '')).toMatchObject({ bytes: 10 });
    expect(await removeModel(cache, 'b')).toMatchObject({ bytes: 1_010 });
  });

  test('a part that nobody works on makes room; one that is being fetched does not', async () => {
    const cache = cacheIn(folder(), 5_000);
    const stopped = new AbortController();
    const slow = watched(model('slow', 4_000), () => stopped.abort());
    await expect(pullOnce(cache, slow, { signal: stopped.signal, rangeBytes: 100 })).rejects.toThrow(failed('ERR_CANCELLED'));
    expect(readdirSync(cache.partsFolder)).toHaveLength(1);
    await makeRoom(cache, 4_500);
    expect(readdirSync(cache.partsFolder)).toHaveLength(0);
  });

  test('what is pinned cannot be removed by name', async () => {
    const cache = cacheIn(folder());
    const { pin, digest } = await pull(cache, model('a'));
    await cache.name('a', digest);
    await expect(removeModel(cache, 'a')).rejects.toThrow(failed('ERR_MODEL_CACHE', /in use/));
    await pin[Symbol.asyncDispose]();
    expect(await removeModel(cache, 'a')).toMatchObject({ models: ['a'] });
    await expect(removeModel(cache, 'a')).rejects.toThrow(failed('ERR_MODEL_NOT_FOUND'));
  });
});

describe('a pull that stopped', () => {
  test('by a signal: the next one fetches the rest and no more', async () => {
    const cache = cacheIn(folder());
    const source = model('m', 10_000);
    const stopped = new AbortController();
    let reads = 0;
    const first = watched(source, () => (++reads === 60 ? stopped.abort() : undefined));
    await expect(pullOnce(cache, first, { signal: stopped.signal, rangeBytes: 100 })).rejects.toThrow(failed('ERR_CANCELLED', /goes on where it was/));
    const { timing } = await pullOnce(cache, source, { rangeBytes: 1_000 });
    expect(timing.fetched_bytes).toBeLessThanOrEqual(10_000 - 5_000);
    expect(timing.fetched_bytes).toBeGreaterThan(0);
    expect(wrongBlobs(cache)).toEqual([]);
  });

  test('by its deadline: ERR_STORE, and what came is kept', async () => {
    const cache = cacheIn(folder());
    const stuck: ModelSource = { ...watched(model('m', 1_000), () => {}), read: (_, __, options) => new Promise((_resolve, reject) => options?.signal?.addEventListener('abort', () => reject(new Error('late')))) };
    await expect(pullOnce(cache, stuck, { deadlineMs: 50 })).rejects.toThrow(failed('ERR_STORE', /not done in time/));
  });

  test('and whose part was spoilt meanwhile: fetched again from the start, never believed', async () => {
    const cache = cacheIn(folder());
    const source = model('m', 10_000);
    const stopped = new AbortController();
    let reads = 0;
    await expect(pullOnce(cache, watched(source, () => (++reads === 50 ? stopped.abort() : undefined)), { signal: stopped.signal, rangeBytes: 100 })).rejects.toThrow(failed('ERR_CANCELLED'));
    const [part = ''] = readdirSync(cache.partsFolder);
    const data = path.join(cache.partsFolder, part, 'data');
    const content = readFileSync(data);
    content[5] = (content[5] ?? 0) ^ 255;
    writeFileSync(data, content);
    await pullOnce(cache, source, { rangeBytes: 1_000 });
    expect(wrongBlobs(cache)).toEqual([]);
    expect([...contentOf(path.join(cache.root, 'blobs', 'sha256')).values()].map((blob) => blob.length)).toEqual([10_000]);
  });

  test('whose last record was cut short believes the others only', async () => {
    const cache = cacheIn(folder());
    const source = model('m', 10_000);
    const stopped = new AbortController();
    let reads = 0;
    await expect(pullOnce(cache, watched(source, () => (++reads === 50 ? stopped.abort() : undefined)), { signal: stopped.signal, rangeBytes: 100 })).rejects.toThrow(failed('ERR_CANCELLED'));
    const [part = ''] = readdirSync(cache.partsFolder);
    appendFileSync(path.join(cache.partsFolder, part, 'ranges'), '\n9000 100');
    const ranges: number[] = [];
    await pullOnce(cache, watched(source, ({ offset }) => ranges.push(offset)), { rangeBytes: 1_000 });
    expect(ranges).toContain(9_000);
    expect(wrongBlobs(cache)).toEqual([]);
  });

  test('because the disk is not writable says so', async () => {
    const root = folder();
    chmodSync(root, 0o500);
    // Root may write everywhere.
    if (process.getuid?.() !== 0) await expect(pullOnce(cacheIn(root), model('m'))).rejects.toThrow(failed('ERR_MODEL_CACHE'));
    writeFileSync(path.join(folder(), 'file'), '');
    await expect(pullOnce(cacheIn('/dev/null'), model('m'))).rejects.toThrow(failed('ERR_MODEL_CACHE'));
    chmodSync(root, 0o700);
  });
});

test('several pulls at once in one process fetch each file once', async () => {
  const cache = cacheIn(folder());
  const source = model('m', 100_000);
  const results = await Promise.all([1, 2, 3].map(() => pullOnce(cache, source, { rangeBytes: 1_000 })));
  expect(results.reduce((sum, { timing }) => sum + timing.fetched_bytes, 0)).toBe(100_000);
});

test('a file that another pull made whole between our look and our claim is not fetched again', async () => {
  const root = folder();
  const source = model('m', 10_000);
  class Overtaken extends ModelCache {
    #looks = 0;
    override async findBlob(...of: Parameters<ModelCache['findBlob']>): ReturnType<ModelCache['findBlob']> {
      const found = await super.findBlob(...of);
      // The first look is for the room it needs, the second for the file.
      if (++this.#looks === 2) expect((await pullOnce(cacheIn(root), source)).timing.fetched_bytes).toBe(10_000);
      return found;
    }
  }
  const { timing } = await pullOnce(new Overtaken(cacheIn(root).root), source);
  expect(timing.fetched_bytes).toBe(0);
  expect(readdirSync(cacheIn(root).partsFolder)).toEqual([]);
});

test('verify finds what was changed behind the cache\'s back, and the next pull brings it again', async () => {
  const cache = cacheIn(folder());
  const source = model('m');
  const { directory } = await pullOnce(cache, source);
  const file = path.join(directory, 'only', 'model.safetensors');
  const content = readFileSync(file);
  chmodSync(file, 0o644);
  const changed = Buffer.from(content);
  changed[0] = (changed[0] ?? 0) ^ 1;
  writeFileSync(file, changed);
  const [bad] = wrongBlobs(cache);
  expect((await verifyBlobs(cache)).bad.map((name) => path.basename(name))).toEqual([path.basename(bad ?? '')]);
  expect((await pullOnce(cache, source)).timing.fetched_bytes).toBe(1_000);
  expect(readFileSync(file).equals(content)).toBe(true);
});

describe('a part of another process', () => {
  /** Stopped in the middle, and then as if `owner` had done it so long ago. */
  async function partOf(cache: ReturnType<typeof cacheIn>, source: ModelSource, owner: string, ageMs: number): Promise<string> {
    const stopped = new AbortController();
    let reads = 0;
    await expect(pullOnce(cache, watched(source, () => (++reads === 50 ? stopped.abort() : undefined)), { signal: stopped.signal, rangeBytes: 100 })).rejects.toThrow(failed('ERR_CANCELLED'));
    const [name = ''] = readdirSync(cache.partsFolder);
    const [key = ''] = name.split('~');
    const then = Date.now() - ageMs;
    const path_ = path.join(cache.partsFolder, `${key}~${String(then).padStart(15, '0')}~${owner}~0123456789abcdef`);
    renameSync(path.join(cache.partsFolder, name), path_);
    utimesSync(path.join(path_, 'ranges'), then / 1_000, then / 1_000);
    return path_;
  }
  const [pid = '', start = '', space = ''] = thisOwner().split('-');
  const elsewhere = `${pid}-${start}-${BigInt(space) + 1n}`;

  test('in another container, silent for long: what it had is used, in a file of our own', async () => {
    const cache = cacheIn(folder());
    const source = model('m', 10_000);
    const part = await partOf(cache, source, elsewhere, LIMITS.PEER_SILENCE_MS_MAX + 1_000);
    // It lives on after all, and writes what is wrong.
    const file = openSync(path.join(part, 'data'), 'r+');
    const { timing } = await pullOnce(cache, source);
    writeSync(file, Buffer.alloc(10_000), 0, 10_000, 0);
    closeSync(file);
    expect(timing.fetched_bytes).toBeLessThan(10_000);
    expect(wrongBlobs(cache)).toEqual([]);
  });

  test('that lives and does nothing: it keeps its file, and we fetch our own', async () => {
    const cache = cacheIn(folder());
    const source = model('m', 10_000);
    const part = await partOf(cache, source, thisOwner(), LIMITS.PEER_SILENCE_MS_MAX + 1_000);
    expect((await pullOnce(cache, source)).timing.fetched_bytes).toBe(10_000);
    expect(readFileSync(path.join(part, 'data'))).toHaveLength(10_000);
    expect(wrongBlobs(cache)).toEqual([]);
  });

  test.each([['here', thisOwner()], ['in another container', elsewhere]])('that was just seen at work, %s: is waited for', async (_, owner) => {
    const cache = cacheIn(folder());
    const source = model('m', 10_000);
    await partOf(cache, source, owner, 0);
    let reads = 0;
    await expect(pullOnce(cache, watched(source, () => (reads += 1)), { deadlineMs: 300 })).rejects.toThrow(failed('ERR_STORE'));
    expect(reads).toBe(0);
  });
});

describe('pins and evictions', () => {
  test('whoever pins during an eviction waits for its end, and then looks', async () => {
    const { pins } = cacheIn(folder());
    let end = () => {};
    let begun = () => {};
    const started = new Promise<void>((resolve) => (begun = resolve));
    const evicting = pins.evict(() => {
      begun();
      return new Promise<void>((resolve) => (end = resolve));
    });
    await started;
    const order: string[] = [];
    const pinning = pins.pin({ snapshots: [], blobs: [] }).then(() => order.push('pinned'));
    await sleep(100);
    order.push('ended');
    end();
    await Promise.all([evicting, pinning]);
    expect(order).toEqual(['ended', 'pinned']);
  });

  test('an eviction sees what was pinned before it', async () => {
    const { pins } = cacheIn(folder());
    await using _pin = await pins.pin({ snapshots: ['s'], blobs: ['b'] });
    expect(await pins.evict(async (pinned) => [...pinned.snapshots, ...pinned.blobs])).toEqual(['s', 'b']);
  });

  test('a directory that is no model any more is left out, and goes with the next prune', async () => {
    const cache = cacheIn(folder());
    const { directory } = await pullOnce(cache, model('a'));
    appendFileSync(path.join(directory, 'model.json'), ' ');
    expect(await cache.list()).toEqual([]);
    expect(await prune(cache, 2 ** 40)).toEqual({ models: [], bytes: 1_000 });
    expect(existsSync(directory)).toBe(false);
  });
});

describe('jobs', () => {
  test.each([
    ['countdown', null],
    ['./models/countdown', null],
    ['s3://models/countdown', { url: 's3://models/countdown', variant: undefined }],
    ['s3://models/countdown@cr8', { url: 's3://models/countdown', variant: 'cr8' }],
    ['s3://models/countdown@cr8#v2', { url: 's3://models/countdown#v2', variant: 'cr8' }],
    ['file:/srv/a@b/countdown', { url: 'file:/srv/a@b/countdown', variant: undefined }],
    ['hf:owner/name@main', { url: 'hf:owner/name@main', variant: undefined }],
  ])('the reference %s', (text, expected) => {
    expect(referenceOf(text)).toEqual(expected);
  });

  test('a model from elsewhere gives the tokens of the bundled one; its phases are timed; it is pinned while the session lasts', async () => {
    const cache = cacheIn(folder());
    const finder = new CachingFinder({ cache, open: async () => new DirectorySource(COUNTDOWN) });
    const spec = { prompt: '4 20 8 13 target 59', budget: { length: 48, width: 2, compression_ratio: 4 } } as const;
    const phases = new Set<string>();
    const session = openSession(finder);
    const { timing, ...result } = await session.generate({ model: 's3://models/countdown', ...spec }, { onProgress: ({ phase, fetch }) => phases.add(fetch?.phase ?? phase) });
    expect(phases).toEqual(new Set(['resolve', 'fetch', 'verify', 'done', 'load', 'prefill', 'decode']));
    expect(timing.model?.fetched_bytes).toBe(timing.model?.bytes);
    for (const phase of ['resolve_ms', 'fetch_ms', 'verify_ms', 'map_ms', 'warm_ms'] as const) expect(timing.model?.[phase]).toBeGreaterThanOrEqual(0);
    expect((await prune(cache, 0)).models).toEqual([]);
    session[Symbol.dispose]();

    using local = openSession(localModels);
    const { timing: _, ...expected } = await local.generate({ model: 'countdown', ...spec });
    expect(result).toEqual(expected);
  });
});
