/** Jobs from a client's point of view: asked for, looked at, listed, ended, erased. */
import { encodeTime } from 'ulid';
import { afterAll, describe, expect, test } from 'vitest';

import { KeyFile } from '../../engine/adapters/key-file.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { createLocalQueue } from '../../engine/adapters/queue-local.ts';
import { formatMessage, parseMessage } from '../../engine/adapters/queue-message.ts';
import { drawnMs, jobIds } from '../../engine/control/ids.ts';
import { NativeShelf } from '../../engine/control/native-shelf.ts';
import type { Platform } from '../../engine/control/platform.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { generate } from '../../engine/job/generate.ts';
import type { NameConflict } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { liveKey } from '../../engine/kv/hints.ts';
import { putStrike } from '../../engine/kv/strikes.ts';
import { ManualClock } from '../helpers/clock.ts';
import { through } from '../helpers/through.ts';
import { SPEC, SentQueue, TENANT, platformOn, runToEnd } from './support.ts';

const shelf = new NativeShelf();
afterAll(() => shelf[Symbol.dispose]());

const me = { tenant: TENANT };
const NOON = Date.UTC(2026, 10, 25, 12);

describe('a job that is asked for', () => {
  test('is stored as it was asked for, and one message says so', async () => {
    const store = new MemoryStore();
    const { platform, queue } = platformOn(store, shelf, { nowMs: () => NOON });
    const view = await platform.submit(SPEC, me);
    expect(view).toEqual({
      id: expect.stringMatching(/^[0-9A-HJKMNP-TV-Z]{26}$/) as string,
      state: 'queued',
      model: 'countdown@cr2',
      createdMs: NOON,
      slice: 0,
      epoch: 0,
      step: 0,
      chains: [{ tokens: 0, finish: null }, { tokens: 0, finish: null }],
      ended: null,
      parent: null,
      cachedTokens: 0,
      metadata: null,
      user: null,
      asked: { temperature: 1, topP: 1, format: null, logprobs: null, instructions: null, repeated: null },
      length: expect.any(Number) as number,
      expiresMs: null,
      evidence: null,
      tools: null,
    });
    expect(queue.sent).toEqual([{ v: 1, tenant: TENANT, job: view.id, slice: 0 }]);
    expect(await platform.get(view.id, me)).toEqual(view);
    expect(await platform.result(view.id, me)).toBeNull();
  });

  test('and run has the result of the same job run at once', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    const { id } = await platform.submit(SPEC, { ...me, id: 'sums' });
    await runToEnd(store, id);
    const { timing: _, ...once } = await generate({ ...SPEC, threads: 1 });
    expect(await platform.result(id, me)).toEqual(once);
    expect(await platform.get(id, me)).toMatchObject({ state: 'done', slice: 1, ended: 'length', chains: once.chains.map(({ tokens, finish_reason }) => ({ tokens: tokens.length, finish: finish_reason })) });
  });

  test('with the same key and body is one job, whatever its id', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    const asked = { ...me, idempotencyKey: 'monday' };
    const views = [await platform.submit(SPEC, asked), await platform.submit({ ...SPEC, stop: [] }, { ...asked, idempotencyKey: 'tuesday' }), await platform.submit(SPEC, asked)];
    expect(views[2]?.id).toBe(views[0]?.id);
    expect(views[1]?.id).not.toBe(views[0]?.id);
    expect((await platform.list({ ...me, limit: 10 })).jobs).toHaveLength(2);
    await expect(platform.submit({ ...SPEC, seed: 8n }, asked)).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    // The order of a body's fields is no part of it.
    const { seed, ...rest } = SPEC;
    expect((await platform.submit({ ...(seed !== undefined && { seed }), ...rest }, asked)).id).toBe(views[0]?.id);
  });

  test('many times at once, of any instance, is one job', async () => {
    const store = new MemoryStore();
    const instances = [platformOn(store, shelf).platform, platformOn(store, shelf).platform];
    const views = await Promise.all(Array.from({ length: 12 }, (_, i) => instances[i % 2]?.submit(SPEC, { ...me, idempotencyKey: 'monday' })));
    expect(new Set(views.map((view) => view?.id)).size).toBe(1);
    expect((await instances[0]?.list({ ...me, limit: 10 }))?.jobs).toHaveLength(1);
  });

  test('under its client\'s id is one job, and another body under it is refused', async () => {
    const { platform } = platformOn(new MemoryStore(), shelf);
    await platform.submit(SPEC, { ...me, id: 'mine' });
    expect((await platform.submit(SPEC, { ...me, id: 'mine' })).id).toBe('mine');
    await expect(platform.submit({ ...SPEC, seed: 8n }, { ...me, id: 'mine' })).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    await expect(platform.submit(SPEC, { ...me, id: '../mine' })).rejects.toMatchObject({ code: 'ERR_OPTION' });
  });

  test.each([
    ['ERR_OPTION', { ...SPEC, budget: { length: 0 } }],
    ['ERR_MODEL_NOT_FOUND', { ...SPEC, model: 'nobody' }],
    ['ERR_MODEL_NOT_FOUND', { ...SPEC, model: './models/countdown/cr2' }],
    ['ERR_OPTION', { ...SPEC, policy: 'kvzap', policy_options: { surrogate: '/etc' } }],
    ['ERR_PROMPT_TOO_LONG', { ...SPEC, budget: { length: 100_000 } }],
    ['ERR_BUDGET', { ...SPEC, budget: { length: 100, width: 2, kv_read_budget: 1 } }],
  ] as const)('and refused with %s leaves nothing behind', async (code, spec) => {
    const store = new MemoryStore();
    const { platform, queue } = platformOn(store, shelf);
    await expect(platform.submit(spec, me)).rejects.toMatchObject({ code });
    expect([store.snapshot().size, queue.sent.length]).toEqual([0, 0]);
  });

  test('and that does not fit in memory leaves nothing behind', async () => {
    const store = new MemoryStore();
    using small = new NativeShelf({ freeBytes: 1_000_000 });
    const { platform } = platformOn(store, small);
    await expect(platform.submit(SPEC, me)).rejects.toMatchObject({ code: 'ERR_MEMORY' });
    expect(store.snapshot().size).toBe(0);
  });

  test('says in its message until when it may wait, counted from when it was made', async () => {
    const { platform, queue } = platformOn(new MemoryStore(), shelf, { nowMs: () => NOON });
    await platform.submit({ ...SPEC, wait_ms_max: 90_000 }, me);
    expect(queue.sent).toMatchObject([{ slice: 0, expiresMs: NOON + 90_000 }]);
    for (const wrong of [{ wait_ms_max: 0 }, { wait_ms_max: 15 * 86_400_000 }, { priority: 'high' }]) {
      await expect(platform.submit({ ...SPEC, ...wrong } as never, me)).rejects.toMatchObject({ code: 'ERR_OPTION' });
    }
  });

  test('under a name of its own says so in a message that a queue can read, however fine the clock of the store', async () => {
    const { platform, queue } = platformOn(new MemoryStore({ nowMs: () => NOON + 0.888 }), shelf);
    const { createdMs } = await platform.submit({ ...SPEC, wait_ms_max: 90_000 }, { ...me, id: 'mine' });
    expect(createdMs).toBe(NOON);
    const [message] = queue.sent;
    expect(message).toMatchObject({ job: 'mine', expiresMs: NOON + 90_000 });
    expect(message && parseMessage(formatMessage(message))).toEqual(message);
  });

  test.each([['two minutes ago', NOON - 120_000], ['an hour ahead', NOON + 3_600_000], ['1970', 0], ['10889', 2 ** 48 - 1]])('under a ULID of one\'s own of %s was made when it was asked for, and waits from then', async (_, ms) => {
    const { platform, queue } = platformOn(new MemoryStore({ nowMs: () => NOON }), shelf);
    const id = encodeTime(ms) + '0'.repeat(16);
    expect(await platform.submit({ ...SPEC, wait_ms_max: 60_000 }, { ...me, id })).toMatchObject({ id, createdMs: NOON });
    expect(queue.sent).toMatchObject([{ job: id, expiresMs: NOON + 60_000 }]);
  });

  test('under no name of its own was made when its id was drawn, also where the store has no clock; ids that were drawn are in order', async () => {
    const { platform } = platformOn(new MemoryStore(), shelf, { nowMs: () => NOON });
    expect(await platform.submit(SPEC, me)).toMatchObject({ createdMs: NOON });
    const draw = jobIds();
    const ids = [5, 5, 5, 4, 6].map((ms) => draw(NOON + ms));
    expect(ids).toEqual([...new Set(ids)].toSorted());
    expect(ids.map(drawnMs)).toEqual([5, 5, 5, 5, 6].map((ms) => NOON + ms));
    // Whoever changes one character has named it himself.
    for (const id of ids) for (const at of [22, 23, 24, 25]) expect(drawnMs(id.slice(0, at) + (id[at] === '1' ? '2' : '1') + id.slice(at + 1))).toBeNull();
  });

  test('that is poisoned shows how each of its takes ended', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    const { id } = await platform.submit(SPEC, me);
    const where = { tenant: TENANT, job: id };
    expect((await platform.get(id, me)).evidence).toBeNull();
    await putStrike(store, where, { epoch: 2, owner: 'b', code: null, message: 'gone', atMs: NOON });
    await putStrike(store, where, { epoch: 1, owner: 'a', code: 'ERR_INTERNAL', message: 'x'.repeat(5_000), atMs: NOON });
    await putStrike(store, where, { epoch: 1, owner: 'late', code: null, message: 'whoever came after cannot say better', atMs: NOON });
    await store.put(`strikes/${TENANT}/${id}/3.json`, [Buffer.from('{"epoch":')]);
    await endJob(store, where, 'poisoned');
    expect(await platform.get(id, me)).toMatchObject({ state: 'poisoned', evidence: [{ epoch: 1, owner: 'a', code: 'ERR_INTERNAL' }, { epoch: 2, owner: 'b', code: null }] });
  });

  test('while the queue fails is there all the same, with the marker by which it is found', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf, {
      queue: { send: () => Promise.reject(new Error('no queue')), depth: () => Promise.reject(new Error('no queue')) },
    });
    const { id } = await platform.submit(SPEC, me);
    expect(store.snapshot().has(liveKey({ tenant: TENANT, job: id }))).toBe(true);
    await runToEnd(store, id);
    expect(await platform.get(id, me)).toMatchObject({ state: 'done' });
    expect(await platform.health()).toMatchObject({ state: 'ready', queued: 0 });
  });
});

describe('a listing', () => {
  test('has the newest first, page by page, over days without jobs, without those that are gone', async () => {
    const store = new MemoryStore();
    let nowMs = NOON;
    const { platform } = platformOn(store, shelf, { nowMs: () => nowMs });
    const ids: string[] = [];
    for (const days of [0, 0, 0, 11, 11, 30, 30]) {
      nowMs = NOON + days * 86_400_000;
      ids.unshift((await platform.submit(SPEC, me)).id);
    }
    expect(await pages(platform, 3)).toEqual([ids.slice(0, 3), ids.slice(3, 6), ids.slice(6)]);
    await platform.erase(ids[1] ?? '', me);
    await platform.erase(ids[3] ?? '', me);
    expect((await pages(platform, 2)).flat()).toEqual(ids.filter((_, i) => i !== 1 && i !== 3));
    // The page after a job that was erased meanwhile goes on where it was.
    expect((await platform.list({ ...me, limit: 10, after: ids[3] ?? '' })).jobs.map(({ id }) => id)).toEqual(ids.slice(4));
    await expect(platform.list({ ...me, limit: 10, after: 'nobody' })).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
    await expect(platform.list({ ...me, limit: 0 })).rejects.toMatchObject({ code: 'ERR_OPTION' });
    expect(await platform.list({ tenant: 'nobody', limit: 5 })).toEqual({ jobs: [], more: false });
  });

  test('goes on after a job that its client has named', async () => {
    const { platform } = platformOn(new MemoryStore(), shelf);
    for (const id of ['a', 'b', 'c']) await platform.submit(SPEC, { ...me, id });
    expect((await platform.list({ ...me, limit: 2, after: 'c' })).jobs.map(({ id }) => id)).toEqual(['b', 'a']);
  });
});

test('jobs that have not ended are counted up to a bound, of their tenant alone, and by a front that made them at once', async () => {
  const store = new MemoryStore();
  const clock = new ManualClock();
  const { platform } = platformOn(store, shelf, { clock });
  const other = platformOn(store, shelf, { clock }).platform;
  expect(await platform.live(9, me)).toBe(0);
  const ids = ['a', 'b', 'c'];
  for (const id of ids) await platform.submit(SPEC, { ...me, id });
  await other.submit(SPEC, { tenant: 'other', id: 'a' });
  expect([await platform.live(9, me), await platform.live(2, me), await other.live(9, me), await other.live(9, { tenant: 'other' })]).toEqual([3, 2, 3, 1]);
  await platform.cancel('a', me);
  clock.advance(1_000);
  expect([await platform.live(9, me), await other.live(9, me)]).toEqual([2, 2]);
});

async function pages(platform: Platform, limit: number): Promise<readonly (readonly string[])[]> {
  const all: string[][] = [];
  for (let after: string | undefined; ;) {
    const { jobs, more } = await platform.list({ ...me, limit, after });
    all.push(jobs.map(({ id }) => id));
    if (!more) return all;
    after = jobs.at(-1)?.id;
  }
}

describe('a job that is ended from outside', () => {
  test('before it ran is cancelled for good, and needs no worker any more', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    const { id } = await platform.submit(SPEC, me);
    expect(await platform.cancel(id, me)).toMatchObject({ state: 'cancelled', ended: 'cancelled' });
    expect(await platform.cancel(id, me)).toMatchObject({ state: 'cancelled', epoch: 1 });
    expect(store.snapshot().has(liveKey({ tenant: TENANT, job: id }))).toBe(false);
    await expect(runToEnd(store, id)).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    expect(await platform.result(id, me)).toMatchObject({ answer: null, chains: [{ tokens: [], finish_reason: 'cancelled' }, { tokens: [], finish_reason: 'cancelled' }] });
  });

  test('on its way keeps what it had', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    const { id } = await platform.submit(SPEC, me);
    await runToEnd(store, id, { parkAt: 100 });
    const { chains } = await platform.get(id, me);
    await platform.cancel(id, me);
    const result = await platform.result(id, me);
    expect(result?.chains.map(({ tokens }) => tokens.length)).toEqual(chains.map(({ tokens }) => tokens));
    expect(Math.max(...chains.map(({ tokens }) => tokens))).toBeGreaterThanOrEqual(100);
  });

  test('after it ended stays as it ended', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    const { id } = await platform.submit(SPEC, me);
    await runToEnd(store, id);
    const before = await platform.get(id, me);
    expect(await platform.cancel(id, me)).toEqual(before);
  });

  test('and erased is gone but for its name', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    const { id } = await platform.submit(SPEC, me);
    await runToEnd(store, id);
    await platform.erase(id, me);
    await platform.erase(id, me);
    expect([...store.snapshot().keys()].filter((key) => key.startsWith('kv/'))).toEqual([`kv/${TENANT}/${id}/HEAD`]);
    for (const gone of [platform.get(id, me), platform.cancel(id, me), platform.result(id, me)]) await expect(gone).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
    await expect(platform.submit(SPEC, { ...me, id })).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
  });

  test.each([
    ['id', (platform: Platform, id: string) => platform.submit(SPEC, { ...me, id })],
    ['sealed id', (platform: Platform, id: string) => platform.submit(SPEC, { ...me, id })],
    ['key', (platform: Platform, idempotencyKey: string) => platform.submit(SPEC, { ...me, idempotencyKey })],
    ['fork', async (platform: Platform, as: string) => await platform.fork('parent', { ...me, as, at: 3, chain: 0, width: 1 })],
  ])('while whoever asked for it by its %s asks again is not made again, at whichever read it goes; and not told to be nowhere', async (how, ask) => {
    let erase = async (): Promise<void> => undefined;
    const store = new MemoryStore({ before: async ({ kind }) => (kind === 'get' ? await erase() : undefined) });
    // Sealed again it is another text, so that the one that is stored is read.
    const { platform } = platformOn(store, shelf, { keys: how === 'sealed id' ? new KeyFile(Buffer.alloc(32, 8)) : null });
    await platformOn(store, shelf).platform.submit(SPEC, { ...me, id: 'parent' });
    await runToEnd(store, 'parent');
    const outcomes = new Set<string>();
    for (let read = 0; ; read++) {
      const { id } = await ask(platform, `name-${read}`);
      let left = read;
      erase = async () => {
        if (left-- > 0) return;
        erase = async () => undefined;
        await eraseJob(store, { tenant: TENANT, job: id });
      };
      const again = await ask(platform, `name-${read}`).then(() => 'told', (error: unknown) => `${(error as EngineError).code} ${(error as Partial<NameConflict>).why}`);
      if (left >= 0) break;
      outcomes.add(again);
    }
    expect(outcomes).toEqual(new Set(['ERR_JOB_CONFLICT erased']));
  });

  test('while its spec is being read does not exist', async () => {
    let erase = async (): Promise<void> => undefined;
    const store = new MemoryStore({ before: async ({ kind, key }) => (kind === 'get' && key.includes('/spec-') ? await erase() : undefined) });
    const { platform } = platformOn(store, shelf);
    const { id } = await platform.submit(SPEC, me);
    erase = async () => {
      erase = async () => undefined;
      await eraseJob(store, { tenant: TENANT, job: id });
    };
    await expect(platform.get(id, me)).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
  });
});

describe('the health of a platform', () => {
  test('says how long the queue is, and what its workers are at', async () => {
    const queue = new SentQueue();
    const workers = { state: 'draining' as const, running: 2, speed: () => null };
    const { platform } = platformOn(new MemoryStore(), shelf, { queue, workers });
    await platform.submit(SPEC, me);
    expect(await platform.health()).toEqual({ state: 'draining', running: 2, queued: 1, queueAgeMs: 5_000 });
    await platform.submit(SPEC, me);
    expect(await platform.health(), 'not what it was when it was asked before').toMatchObject({ queued: 2 });
  });

  test('counts jobs of batches, and does not go by how long they wait', async () => {
    const clock = new ManualClock();
    const queue = createLocalQueue({ clock });
    const { platform } = platformOn(new MemoryStore(), shelf, { queue });
    await platform.submit({ ...SPEC, priority: 'batch' }, me);
    clock.advance(3_600_000);
    expect(await platform.health()).toMatchObject({ queued: 1, queueAgeMs: 0 });
    await platform.submit(SPEC, me);
    clock.advance(90_000);
    expect(await platform.health()).toMatchObject({ queued: 2, queueAgeMs: 90_000 });
  });

  test('knows how long its own jobs wait in a queue that does not tell', async () => {
    const clock = new ManualClock();
    const store = new MemoryStore();
    const unknown = { visible: 3, inFlight: 0, oldestAgeMs: null };
    const queue = { send: async () => undefined, depth: async () => ({ ...unknown, batch: unknown }) };
    const { platform } = platformOn(store, shelf, { queue, clock });
    expect(await platform.health()).toMatchObject({ queued: 6, queueAgeMs: 0 });
    const first = await platform.submit(SPEC, me);
    clock.advance(40_000);
    await platform.submit(SPEC, me);
    await platform.submit({ ...SPEC, priority: 'batch' }, me);
    clock.advance(30_000);
    expect(await platform.health()).toMatchObject({ queueAgeMs: 70_000 });
    await platform.cancel(first.id, me);
    expect(await platform.health(), 'the next one').toMatchObject({ queueAgeMs: 30_000 });
  });

  test('says within seconds that its store does not answer or refuses, asks it once in some seconds however many want to know, and says when it is back', async () => {
    const clock = new ManualClock();
    const memory = new MemoryStore();
    let answer: () => Promise<null> = async () => null;
    let asked = 0;
    const store = through(memory, { head: async (_, options) => {
      asked++;
      options?.signal?.throwIfAborted();
      return await answer();
    } });
    const { platform } = platformOn(store, shelf, { clock });
    const ask = async (many = 1) => await Promise.all(Array.from({ length: many }, async () => await platform.isStoreThere()));
    expect([await ask(20), asked]).toEqual([Array.from({ length: 20 }, () => true), 1]);
    answer = () => new Promise<never>(() => undefined);
    expect([await ask(), asked], 'still fresh').toEqual([[true], 1]);
    clock.advance(5_000);
    const hanging = ask(20);
    await clock.settle();
    clock.advance(2_000);
    expect([await hanging, asked]).toEqual([Array.from({ length: 20 }, () => false), 2]);
    answer = async () => {
      throw new EngineError('ERR_STORE', 'gone');
    };
    expect([await ask(), asked]).toEqual([[false], 2]);
    clock.advance(5_000);
    expect([await ask(), asked]).toEqual([[false], 3]);
    answer = async () => null;
    clock.advance(5_000);
    expect([await ask(), asked]).toEqual([[true], 4]);
  });

  test('is told in time though the queue does not answer, and does not turn work away then', async () => {
    const queue = { send: async () => undefined, depth: () => new Promise<never>(() => undefined) };
    const { platform } = platformOn(new MemoryStore(), shelf, { queue });
    expect(await platform.health()).toMatchObject({ state: 'ready', queued: 0, queueAgeMs: 0 });
  });
});
