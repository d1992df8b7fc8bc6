/** Models known by what was pushed of them: the same jobs as where the native engine knows them, and nothing of what was changed since. */
import path from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { NativeShelf } from '../../engine/control/native-shelf.ts';
import { StorePlatform } from '../../engine/control/store-platform.ts';
import { StoreShelf } from '../../engine/control/store-shelf.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { storedSpecOf } from '../../engine/job/stored-spec.ts';
import { resumeStored } from '../../engine/job/stored.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import { CachingFinder } from '../../engine/model/finder.ts';
import { push } from '../../engine/model/push.ts';
import { StoreSource } from '../../engine/model/sources.ts';
import { pieceOf } from '../../engine/model/store-layout.ts';
import type { Shelf } from '../../engine/ports/shelf.ts';
import { COUNTDOWN, cacheIn, folder, madeModel, removeFolders } from '../helpers/models.ts';
import { ROOT, tinyModel } from '../helpers/setup.ts';
import { SPEC, SentQueue, TENANT, eventsOf, platformOn, runToEnd } from './support.ts';

const GGUF = path.join(ROOT, 'test', 'fixtures-own', 'gguf', 'tiny_llama31.gguf');
const shelves: NativeShelf[] = [];
afterAll(() => {
  for (const shelf of shelves) shelf[Symbol.dispose]();
  removeFolders();
});

const pushed = new MemoryStore();
await push(COUNTDOWN, pushed);

/** Pulls what it is asked for from `models`, as a worker on another machine. */
function workerShelf(models: MemoryStore, names: readonly string[]): NativeShelf {
  const finder = new CachingFinder({ cache: cacheIn(folder()), open: async (url) => new StoreSource(models, url.slice('memory:/'.length)), store: 'memory:' });
  const shelf = new NativeShelf({ finder, names: () => names });
  shelves.push(shelf);
  return shelf;
}

const storeShelf = (models: MemoryStore, more: Partial<ConstructorParameters<typeof StoreShelf>[0]> = {}) => new StoreShelf({ models, names: null, workerBytes: null, ...more });

async function specOf(shelf: Shelf, spec: JobSpec): Promise<string> {
  const job = await shelf.prepare(spec);
  return JSON.stringify(storedSpecOf(spec, job, await shelf.modelId(job), null));
}

describe('a job that is prepared without an engine', () => {
  const local = new NativeShelf();
  shelves.push(local);

  test.each<[string, Partial<JobSpec>]>([
    ['a prompt', {}],
    ['messages', { prompt: undefined, messages: [{ role: 'user', content: '4 20 8 13 target 59' }] }],
    ['a ratio instead of a variant', { model: 'countdown', budget: { compression_ratio: 8, width: 3 } }],
    ['no variant at all', { model: 'countdown' }],
    ['everything else', { model: 'countdown', variant: 'dense', sampling: { temperature: 0.7, top_k: 5, logit_bias: [[3, 1.5]] }, stop: ['x'], vote: 'first', early_stop: false, kv: 'f32', page_slots: 8, budget: { length: 40, kv_read_budget: 100_000 } }],
  ])('by %s is byte for byte the job of the native shelf', async (_, changes) => {
    const { prompt, ...rest } = { ...SPEC, ...changes };
    const spec: JobSpec = prompt === undefined ? rest : { ...rest, prompt };
    const shelf = storeShelf(pushed);
    expect(await specOf(shelf, spec)).toBe(await specOf(local, spec));
    const [mine, theirs] = [shelf.quote(await shelf.prepare(spec)), local.quote(await local.prepare(spec))];
    expect(mine).toEqual(theirs);
  });

  test.each(['tiny_qwen3_sharded', 'tiny_qwen3_dms'])('of the plain directory %s is that of a worker that pulled it', async (name) => {
    const models = new MemoryStore();
    const { unread } = await push(tinyModel(name), models, { name: 'tiny' });
    // Models of tests may have no tokenizer: then no front can offer them, and push says so.
    if (Object.keys(unread).length > 0) return expect(unread).toEqual({ default: expect.stringContaining('tokenizer') as string });
    const spec: JobSpec = { model: 'tiny', prompt: 'hello', budget: { length: 8 } };
    expect(await specOf(storeShelf(models), spec)).toBe(await specOf(workerShelf(models, ['tiny']), spec));
  });

  test('of a GGUF file, whose tokenizer is inside, is that of a worker that pulled it', async () => {
    const models = new MemoryStore();
    expect(await push(GGUF, models, { name: 'tiny' })).toMatchObject({ unread: {} });
    const spec: JobSpec = { model: 'tiny', prompt: 'Hello there, 42!', budget: { length: 8 } };
    expect(await specOf(storeShelf(models), spec)).toBe(await specOf(workerShelf(models, ['tiny']), spec));
  });

  test('lists the models that the native shelf lists', async () => {
    const views = await local.models();
    expect(await storeShelf(pushed).models()).toEqual(views.filter(({ id }) => id.startsWith('countdown@')));
  });

  test('is not by the name of a model that is not offered', async () => {
    const shelf = storeShelf(pushed, { names: ['other'] });
    for (const model of ['countdown', 'countdown@cr2', 'other', './countdown', 's3://b/countdown', 'a@b@c', '__proto__']) {
      await expect(shelf.prepare({ ...SPEC, model })).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' });
    }
    await expect(storeShelf(pushed).prepare({ ...SPEC, model: 'countdown@toString' })).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' });
  });

  test('is not under a policy of its own, which only an engine can judge', async () => {
    await expect(storeShelf(pushed).prepare({ ...SPEC, policy: 'dense' })).rejects.toMatchObject({ code: 'ERR_OPTION' });
    await expect(storeShelf(pushed).prepare({ ...SPEC, policy_options: { window: '4' } })).rejects.toMatchObject({ code: 'ERR_OPTION' });
  });
});

describe('what was pushed', () => {
  async function cardOf(models: MemoryStore) {
    return JSON.parse(Buffer.from(models.snapshot().get('countdown/model.json') ?? []).toString()) as { variants: Record<string, { model_id: string; engine: { tokenizer: { sha256: string; bytes: number } } }> };
  }

  test('and changed since makes no job', async () => {
    const models = new MemoryStore();
    await push(COUNTDOWN, models);
    const card = await cardOf(models);
    const { sha256: digest, bytes } = card.variants.cr2?.engine.tokenizer ?? { sha256: '', bytes: 0 };
    const { key } = pieceOf('countdown', digest, bytes, 0);
    const whole = models.snapshot().get(key) ?? new Uint8Array(0);
    await models.put(key, [Uint8Array.from(whole, (byte, i) => (i === 99 ? byte ^ 1 : byte))]);
    await expect(storeShelf(models).prepare(SPEC)).rejects.toMatchObject({ code: 'ERR_MODEL_FILE', message: expect.stringContaining('is not what model.json says') as string });
    await models.delete([key]);
    await expect(storeShelf(models).prepare(SPEC)).rejects.toMatchObject({ code: 'ERR_MODEL_FILE', message: expect.stringContaining('is not in the models store') as string });
  });

  test('with an identity that is not that of its parts makes no job', async () => {
    const models = new MemoryStore();
    await push(COUNTDOWN, models);
    const card = await cardOf(models);
    if (card.variants.cr2 !== undefined) card.variants.cr2.model_id = sha256('another');
    await models.put('countdown/model.json', [Buffer.from(JSON.stringify(card))]);
    await expect(storeShelf(models).prepare(SPEC)).rejects.toMatchObject({ code: 'ERR_MODEL_CONFIG' });
  });

  test('without an engine\'s word is not offered, and push says why', async () => {
    const models = new MemoryStore();
    const { unread } = await push(madeModel('m', { 'a.json': Buffer.from('1') }), models);
    expect(Object.keys(unread)).toEqual(['only']);
    await push(COUNTDOWN, models);
    expect((await storeShelf(models).models()).map(({ id }) => id)).not.toContain('m@only');
    await expect(storeShelf(models).prepare({ ...SPEC, model: 'm' })).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' });
  });

  test('of which one card cannot be read offers the others', async () => {
    const models = new MemoryStore();
    await push(COUNTDOWN, models);
    await models.put('broken/model.json', [Buffer.from('{')]);
    expect((await storeShelf(models).models()).length).toBe(4);
  });
});

describe('a platform without an engine', () => {
  const platformWith = (store: MemoryStore, models = pushed) =>
    new StorePlatform({ store, keys: null, queue: new SentQueue(), shelf: storeShelf(models), feed: null });

  test('tells of the job that a worker ran what a platform with one tells', async () => {
    const store = new MemoryStore();
    const front = platformWith(store);
    const { id } = await front.submit(SPEC, { tenant: TENANT, id: 'sums' });
    await runToEnd(store, id);
    const local = new NativeShelf();
    shelves.push(local);
    const { platform } = platformOn(store, local);
    const me = { tenant: TENANT };
    expect(await front.result(id, me)).toEqual(await platform.result(id, me));
    expect(await eventsOf(front.events(id, me))).toEqual(await eventsOf(platform.events(id, me)));
    expect(await front.get(id, me)).toEqual(await platform.get(id, me));
  });

  test('tells of a job whose model was pushed anew since, by the revision that it began with', async () => {
    const store = new MemoryStore();
    const models = new MemoryStore();
    await push(COUNTDOWN, models);
    const me = { tenant: TENANT };
    const { id } = await platformWith(store, models).submit(SPEC, { ...me, id: 'sums' });
    await runToEnd(store, id);
    const before = await platformWith(store, models).result(id, me);
    await push(path.join(COUNTDOWN, 'cr8'), models, { name: 'countdown', revision: 'next' });
    const after = platformWith(store, models);
    expect(await after.result(id, me)).toEqual(before);
    await expect(after.submit(SPEC, me)).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' });
  });

  test('has its job refused by a worker whose model of that name is another', async () => {
    const store = new MemoryStore();
    const models = new MemoryStore();
    // Under the name that the worker has another model of.
    await push(path.join(COUNTDOWN, 'cr2'), models, { name: 'countdown' });
    const { id } = await platformWith(store, models).submit({ ...SPEC, model: 'countdown' }, { tenant: TENANT, id: 'sums' });
    await expect(resumeStored({ store, where: { tenant: TENANT, job: id }, threads: 1 })).rejects.toMatchObject({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^model: /) as string });
  });
});
