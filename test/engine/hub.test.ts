/** The Hugging Face hub's protocol, against a local server that speaks it and fails as it is told. */
import { readFileSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';

import { HubSource } from '../../engine/adapters/hub.ts';
import { openSession } from '../../engine/job/session.ts';
import { CachingFinder } from '../../engine/model/finder.ts';
import { type Hub, type HubFault, type HubFile, type HubOptions, type HubRequest, startHub } from '../helpers/hub-server.ts';
import { COUNTDOWN, cacheIn, contentOf, folder, pullOnce, removeFolders, wrongBlobs } from '../helpers/models.ts';

afterAll(removeFolders);
const failed = (code: string, message = /./) => expect.objectContaining({ code, message: expect.stringMatching(message) });
const REPO = 'acme/countdown-dms';
const WEIGHTS = 'model.safetensors';

function files(more: readonly (readonly [string, HubFile])[] = []): Map<string, HubFile> {
  const model = [...contentOf(path.join(COUNTDOWN, 'cr8'))].map(([name, content]) => [name, { content, lfs: name === WEIGHTS }] as const);
  return new Map([...model, ['.gitattributes', { content: Buffer.from('*'), lfs: false }], ['pytorch_model.bin', { content: Buffer.from('pickle'), lfs: true }], ['onnx/model.onnx', { content: Buffer.from('x'), lfs: true }], ...more]);
}

async function hubWith(options: Partial<HubOptions> = {}): Promise<Hub> {
  return await startHub({ repo: REPO, files: files(), tags: ['license:apache-2.0'], ...options });
}

const source = (hub: Hub, reference = `hf:${REPO}`, token?: string) => new HubSource(reference, { endpoint: hub.endpoint, token, backoffMsMax: 5 });

/** The first `times` requests that `fits` are failed. */
function first(times: number, fits: (request: HubRequest) => boolean, fault: HubFault): (request: HubRequest) => HubFault | null {
  let left = times;
  return (request) => (fits(request) && left-- > 0 ? fault : null);
}

describe('a model of a hub', () => {
  test('comes with its commit and licence, its files and no others, each as the hub\'s digests say', async () => {
    await using hub = await hubWith();
    const { directory, card, timing } = await pullOnce(cacheIn(folder()), source(hub), { rangeBytes: 1 << 20 });
    expect(card).toMatchObject({ name: 'countdown-dms', source: `hf:${REPO}`, revision: hub.sha, licence: 'apache-2.0' });
    expect(card.variants.default).toMatchObject({ compression_ratio: 8, policy: { name: 'dms_borrowed', window: 16 } });
    const there = contentOf(path.join(COUNTDOWN, 'cr8'));
    const here = contentOf(directory);
    for (const [name, content] of there) expect(here.get(name === 'README.md' ? name : `default/${name}`)?.equals(content), name).toBe(true);
    expect([...here.keys()].filter((name) => /onnx|bin|gitattributes/.test(name))).toEqual([]);
    expect(timing.fetched_bytes).toBe(timing.bytes);
    expect(hub.requests.filter(({ origin, path: asked }) => origin === 'hub' && asked.includes('/resolve/')).every(({ path: asked }) => asked.includes(hub.sha))).toBe(true);
  });

  test('pulled again fetches nothing', async () => {
    await using hub = await hubWith();
    const cache = cacheIn(folder());
    const once = await pullOnce(cache, source(hub));
    const before = hub.requests.length;
    const again = await pullOnce(cache, source(hub));
    expect([again.digest, again.timing.fetched_bytes]).toEqual([once.digest, 0]);
    expect(hub.requests.slice(before).filter(({ path: asked }) => asked.includes('/resolve/'))).toEqual([]);
  });

  test('runs, with the tokens of the same files here', async () => {
    await using hub = await hubWith();
    const spec = { prompt: '4 20 8 13 target 59', budget: { length: 32, width: 2 } } as const;
    using session = openSession(new CachingFinder({ cache: cacheIn(folder()), open: async (url) => source(hub, url) }));
    const { timing: _, ...result } = await session.generate({ model: `hf:${REPO}`, ...spec });
    using local = openSession();
    const { timing: __, ...expected } = await local.generate({ model: path.join(COUNTDOWN, 'cr8'), ...spec });
    expect(result).toEqual(expected);
  });

  test('the token goes to the hub and not to where it redirects', async () => {
    await using hub = await hubWith({ token: 'hf_secret' });
    await pullOnce(cacheIn(folder()), source(hub, `hf:${REPO}`, 'hf_secret'));
    const of = (origin: string) => new Set(hub.requests.filter((request) => request.origin === origin).map(({ authorization }) => authorization));
    expect([of('hub'), of('cdn')]).toEqual([new Set(['Bearer hf_secret']), new Set([null])]);
  });

  test('a GGUF file is asked for by name where there are several', async () => {
    const gguf = (name: string) => [name, { content: Buffer.from(name), lfs: true }] as const;
    await using hub = await hubWith({ files: new Map([gguf('a-Q4.gguf'), gguf('a-Q8.gguf')]) });
    await expect(pullOnce(cacheIn(folder()), source(hub))).rejects.toThrow(failed('ERR_OPTION', /a-Q4\.gguf, a-Q8\.gguf/));
    expect((await source(hub, `hf:${REPO}/a-Q8.gguf`).list()).files.map(({ path: name }) => name)).toEqual(['a-Q8.gguf']);
    await expect(source(hub, `hf:${REPO}/b.gguf`).list()).rejects.toThrow(failed('ERR_MODEL_NOT_FOUND'));
  });
});

describe('a hub that is busy or breaks', () => {
  const cases: readonly (readonly [string, HubFault])[] = [
    ['429 with Retry-After', { kind: 'status', status: 429, headers: { 'retry-after': '0' } }],
    ['503', { kind: 'status', status: 503 }],
    ['a connection that is reset', { kind: 'reset' }],
    ['a body that ends early', { kind: 'truncate', bytes: 100 }],
  ];
  test.each(cases)('%s is tried again, in the API, the hub and where it redirects', async (_, fault) => {
    for (const fits of [({ path: asked }: HubRequest) => asked.includes('/tree/'), ({ path: asked }: HubRequest) => asked.includes('/resolve/'), ({ origin }: HubRequest) => origin === 'cdn']) {
      await using hub = await hubWith({ fault: first(3, fits, fault) });
      const cache = cacheIn(folder());
      const { directory } = await pullOnce(cache, source(hub), { rangeBytes: 1 << 20 });
      expect(readFileSync(path.join(directory, 'default', WEIGHTS)).equals(readFileSync(path.join(COUNTDOWN, 'cr8', WEIGHTS)))).toBe(true);
      expect(wrongBlobs(cache)).toEqual([]);
    }
  });

  test('for good: ERR_STORE after some tries, and what came is kept for the next pull', async () => {
    let up = false;
    const cache = cacheIn(folder());
    // Not before something of the weights is on record: what is under way when a pull fails need not be kept.
    const hasCome = () => readdirSync(cache.partsFolder).some((part) => part.startsWith('sha256-') && (statSync(path.join(cache.partsFolder, part, 'ranges'), { throwIfNoEntry: false })?.size ?? 0) > 0);
    await using hub = await hubWith({ fault: ({ origin }) => (!up && origin === 'cdn' && hasCome() ? { kind: 'status', status: 500 } : null) });
    await expect(pullOnce(cache, source(hub), { rangeBytes: 256 << 10 })).rejects.toThrow(failed('ERR_STORE', /answers 500; given up after 8 tries/));
    up = true;
    const { timing } = await pullOnce(cache, source(hub), { rangeBytes: 256 << 10 });
    expect(timing.fetched_bytes).toBeGreaterThan(0);
    expect(timing.fetched_bytes).toBeLessThan(timing.bytes);
  });

  test('a flipped byte is refused by name, whichever digest the hub gives of the file', async () => {
    for (const name of [WEIGHTS, 'config.json']) {
      const hit = ({ origin, path: asked, range }: HubRequest) => range !== 'bytes=0-0' && (name === WEIGHTS ? origin === 'cdn' : asked.endsWith(name));
      await using hub = await hubWith({ fault: (request) => (hit(request) ? { kind: 'flip', at: 77 } : null) });
      const cache = cacheIn(folder());
      await expect(pullOnce(cache, source(hub))).rejects.toThrow(failed('ERR_MODEL_FILE', new RegExp(`${name} is not what it should be`)));
      expect(wrongBlobs(cache)).toEqual([]);
    }
  });

  test('an answer that ignores the range is not read', async () => {
    await using hub = await hubWith({ fault: ({ origin, range }) => (origin === 'cdn' && range !== null ? { kind: 'whole' } : null) });
    await expect(pullOnce(cacheIn(folder()), source(hub), { rangeBytes: 1 << 20 })).rejects.toThrow(failed('ERR_STORE', /byte ranges/));
  });

  test('a pull is stopped while it waits for its next try', async () => {
    await using hub = await hubWith({ fault: () => ({ kind: 'status', status: 429, headers: { 'retry-after': '60' } }) });
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 50);
    await expect(pullOnce(cacheIn(folder()), source(hub), { signal: stop.signal })).rejects.toThrow(failed('ERR_CANCELLED'));
  });
});

describe('refused', () => {
  test('access, models and revisions that are not there', async () => {
    await using hub = await hubWith({ token: 'hf_secret' });
    await expect(source(hub).list()).rejects.toThrow(failed('ERR_STORE_CONFIG', /HF_TOKEN/));
    await expect(source(hub, 'hf:acme/other', 'hf_secret').list()).rejects.toThrow(failed('ERR_MODEL_NOT_FOUND'));
    await expect(source(hub, `hf:${REPO}@v9`, 'hf_secret').list()).rejects.toThrow(failed('ERR_MODEL_NOT_FOUND'));
  });

  test.each(['hf:', 'hf:name', 'hf:../x', 'hf:a/b/../c', 'hf:a/..', 'hf:a/b@../../x', 'hf:a/b@', 'hf:a/b?x', 'hf:a/b/c.bin'])('the reference %s', (reference) => {
    expect(() => new HubSource(reference)).toThrow(failed('ERR_MODEL_NOT_FOUND'));
  });

  test('a token or an endpoint that is none', () => {
    expect(() => new HubSource(`hf:${REPO}`, { token: 'secret' })).toThrow(failed('ERR_STORE_CONFIG', /hf_/));
    expect(() => new HubSource(`hf:${REPO}`, { endpoint: 'ftp://x' })).toThrow(failed('ERR_STORE_CONFIG', /HF_ENDPOINT/));
  });

  const hostile: readonly (readonly [string, (entries: Record<string, unknown>[]) => void])[] = [
    ['a name that climbs', (entries) => (entries[0] = { ...entries[0], path: '../../names/evil' })],
    ['an absolute name', (entries) => (entries[0] = { ...entries[0], path: '/etc/passwd' })],
    ['a name with a backslash', (entries) => (entries[0] = { ...entries[0], path: '..\\evil.json' })],
    ['a size that is none', (entries) => entries.forEach((entry) => (entry.size = entry.lfs = -1))],
    ['no digest', (entries) => entries.forEach((entry) => delete entry.oid)],
  ];
  test.each(hostile)('a listing with %s', async (_, change) => {
    await using hub = await hubWith({ change });
    await expect(pullOnce(cacheIn(folder()), source(hub))).rejects.toThrow(failed('ERR_MODEL_FILE'));
    expect(hub.requests.filter(({ path: asked }) => asked.includes('/resolve/'))).toEqual([]);
  });
});
