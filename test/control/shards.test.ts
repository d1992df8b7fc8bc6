/** Sharded jobs from a client's point of view: one job, whose parts nobody has to know. */
import { afterAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { NativeShelf } from '../../engine/control/native-shelf.ts';
import { generate } from '../../engine/job/generate.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { type StoredOptions, resumeStored } from '../../engine/job/stored.ts';
import { readJob } from '../../engine/kv/create.ts';
import { beginSharded } from '../../engine/kv/join.ts';
import { shardKey } from '../../engine/kv/names.ts';
import { takeJob } from '../../engine/kv/take.ts';
import { keyFile } from '../helpers/stored-job.ts';
import { TENANT, eventsOf, numbered, platformOn, runToEnd } from './support.ts';

const shelf = new NativeShelf();
afterAll(() => shelf[Symbol.dispose]());

const me = { tenant: TENANT };
const sums = { tenant: TENANT, job: 'sums' };
/** Decided by the vote while most chains run. */
const SPEC: JobSpec = { model: 'countdown@cr2', prompt: '4 20 8 13 target 59', seed: 2n, vote: 'first', budget: { length: 200, width: 4 } };

async function platform() {
  const store = new MemoryStore();
  return { store, ...platformOn(store, shelf) };
}

/** Shard by shard, as workers do that have one slot, the last one first. */
async function runShards(store: MemoryStore, shards: number, { job = 'sums', ...options }: Partial<StoredOptions> & { readonly job?: string } = {}): Promise<void> {
  for (let i = shards - 1; i >= 0; i--) await resumeStored({ store, where: shardKey({ tenant: TENANT, job }, i), threads: 1, policy: { deltaTokens: 40 }, ...options });
}

describe('a sharded job', () => {
  test('has a message for each shard, is one job in lists, and has the result, events and numbers of the job that is not', async () => {
    const one = await platform();
    await one.platform.submit(SPEC, { ...me, id: 'sums' });
    await runToEnd(one.store, 'sums');
    const { store, platform: asked, queue } = await platform();
    const view = await asked.submit({ ...SPEC, shards: 2 }, { ...me, id: 'sums' });
    expect(view).toMatchObject({ id: 'sums', state: 'queued', step: 0, chains: Array.from({ length: 4 }, () => ({ tokens: 0, finish: null })) });
    expect(queue.sent).toEqual([0, 1].map((i) => ({ v: 1, tenant: TENANT, job: `sums/${i}`, slice: 0 })));
    expect((await asked.list({ ...me, limit: 10 })).jobs.map(({ id }) => id)).toEqual(['sums']);
    const reading = eventsOf(asked.events('sums', me));
    await runShards(store, 2);
    const { timing: _, ...once } = await generate({ ...SPEC, threads: 1 });
    expect(await asked.result('sums', me)).toEqual(once);
    const events = numbered(await reading);
    expect(events).toEqual(numbered(await eventsOf(one.platform.events('sums', me))));
    expect(events).toEqual(await eventsOf(asked.events('sums', me)));
    expect(events.slice(100)).toEqual(await eventsOf(asked.events('sums', { ...me, after: events[99]?.seq ?? 0 })));
    const { slice: _s, epoch: _e, createdMs: _c, ...like } = await one.platform.get('sums', me);
    expect(await asked.get('sums', me)).toMatchObject(like);
  });

  test('asked for again is the same job; with another number of shards it is another', async () => {
    const { store, platform: asked, queue } = await platform();
    for (let i = 0; i < 2; i++) await asked.submit({ ...SPEC, shards: 2 }, { ...me, id: 'sums' });
    expect(queue.sent.map(({ job }) => job)).toEqual(['sums/0', 'sums/1', 'sums/0', 'sums/1']);
    await expect(asked.submit({ ...SPEC, shards: 4 }, { ...me, id: 'sums' })).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    await expect(asked.submit(SPEC, { ...me, id: 'sums' })).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    await expect(takeJob(store, sums, { owner: 'me' })).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT', message: expect.stringContaining('sharded') as string });
  });

  test('shows how far each chain has come while shards run', async () => {
    const { store, platform: asked } = await platform();
    await asked.submit({ ...SPEC, vote: 'none', shards: 2 }, { ...me, id: 'sums' });
    await beginSharded(store, sums);
    const stop = new AbortController();
    await resumeStored({ store, where: shardKey(sums, 1), threads: 1, signal: stop.signal, onProgress: ({ chains }) => chains.some(({ tokens }) => tokens >= 50) && stop.abort() });
    const view = await asked.get('sums', me);
    expect(view.chains.map(({ tokens }) => tokens > 0)).toEqual([false, false, true, true]);
    expect((await asked.list({ ...me, limit: 10 })).jobs).toEqual([view]);
  });

  test('is refused where it cannot be divided so, by the name of what is wrong', async () => {
    const { store, platform: asked } = await platform();
    const shards = (more: object) => asked.submit({ ...SPEC, ...more }, me);
    await expect(shards({ shards: 0 })).rejects.toMatchObject({ code: 'ERR_OPTION', message: expect.stringMatching(/^shards must be an integer from 1 to 64/) as string });
    await expect(shards({ shards: 5 })).rejects.toMatchObject({ code: 'ERR_OPTION', message: 'shards must be at most 4, one for each chain; got 5.' });
    await expect(shards({ shards: 2, backend: 'reference' })).rejects.toMatchObject({ code: 'ERR_OPTION', message: expect.stringMatching(/^shards must come with early_stop false on the reference backend/) as string });
    await expect(shards({ shards: 2, budget: { ...SPEC.budget, kv_read_budget: 8 } })).rejects.toMatchObject({ code: 'ERR_BUDGET', message: expect.stringContaining('equal share') as string });
    expect([...store.snapshot()]).toEqual([]);
  });

  test('is the only one of its parts that anybody can ask for', async () => {
    const { platform: asked } = await platform();
    await asked.submit({ ...SPEC, shards: 2 }, { ...me, id: 'sums' });
    for (const ask of [asked.get('sums/0', me), asked.cancel('sums/0', me), asked.erase('sums/0', me), asked.result('sums/0', me), asked.submit(SPEC, { ...me, id: 'sums/0' })]) {
      await expect(ask).rejects.toMatchObject({ code: expect.stringMatching(/^ERR_(JOB_NOT_FOUND|OPTION)$/) as string });
    }
    await expect(asked.get('sums', { tenant: 'other' })).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
  });

  test('that is cancelled ends all its shards, and keeps what they have', async () => {
    const { store, platform: asked } = await platform();
    await asked.submit({ ...SPEC, vote: 'none', shards: 2 }, { ...me, id: 'sums' });
    const stop = new AbortController();
    await resumeStored({ store, where: shardKey(sums, 0), threads: 1, signal: stop.signal, onProgress: ({ chains }) => chains.some(({ tokens }) => tokens >= 50) && stop.abort() });
    expect(await asked.cancel('sums', me)).toMatchObject({ state: 'cancelled' });
    for (const i of [0, 1]) expect((await readJob(store, shardKey(sums, i))).head.state).toBe('cancelled');
    const result = await asked.result('sums', me);
    expect(result?.chains.map(({ tokens, finish_reason }) => [tokens.length >= 50, finish_reason])).toEqual([[true, 'cancelled'], [true, 'cancelled'], [false, 'cancelled'], [false, 'cancelled']]);
    expect([...store.snapshot().keys()].filter((key) => key.startsWith('live/'))).toEqual([]);
  });

  test('that is erased leaves tombstones, and no shard can be born again', async () => {
    const { store, platform: asked } = await platform();
    await asked.submit({ ...SPEC, shards: 2 }, { ...me, id: 'sums' });
    await runShards(store, 2);
    await asked.erase('sums', me);
    expect([...store.snapshot().keys()].filter((key) => key.startsWith('kv/') || key.startsWith('live/') || key.startsWith('strikes/')).sort())
      .toEqual(['kv/acme/sums/0/HEAD', 'kv/acme/sums/1/HEAD', 'kv/acme/sums/HEAD']);
    await expect(asked.submit({ ...SPEC, shards: 2 }, { ...me, id: 'sums' })).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    await expect(resumeStored({ store, where: shardKey(sums, 0) })).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    await asked.erase('sums', me);
  });

  test('can be forked from any chain, as far as the job has it', async () => {
    const one = await platform();
    await one.platform.submit(SPEC, { ...me, id: 'sums' });
    await runToEnd(one.store, 'sums');
    const { store, platform: asked } = await platform();
    await asked.submit({ ...SPEC, shards: 2 }, { ...me, id: 'sums' });
    await runShards(store, 2);
    for (const its of [one, { store, platform: asked }]) {
      await its.platform.fork('sums', { ...me, at: 60, chain: 3, width: 2, as: 'other', seed: 5n });
      await runToEnd(its.store, 'other');
    }
    expect(await asked.result('other', me)).toEqual(await one.platform.result('other', me));
    expect((await asked.get('other', me)).parent).toEqual({ job: 'sums', kind: 'fork' });
    const { chains } = await asked.get('sums', me);
    // What its shard had generated beyond the vote is none of the job's.
    await expect(asked.fork('sums', { ...me, at: (chains[3]?.tokens ?? 0) + 1, chain: 3, width: 1 })).rejects.toMatchObject({ code: 'ERR_OPTION' });
  });

  test('can be extended, by more chains and tokens, and is told as the extension of the job that is not', async () => {
    const one = await platform();
    await one.platform.submit(SPEC, { ...me, id: 'sums' });
    await runToEnd(one.store, 'sums');
    const more = { ...me, length: 260, width: 6, as: 'larger' };
    await one.platform.extend('sums', more);
    await runToEnd(one.store, 'larger');
    const { store, platform: asked, queue } = await platform();
    await asked.submit({ ...SPEC, shards: 2 }, { ...me, id: 'sums' });
    await expect(asked.extend('sums', more)).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT', message: expect.stringContaining('no checkpoint yet') as string });
    await runShards(store, 2);
    queue.sent.length = 0;
    expect(await asked.extend('sums', more)).toMatchObject({ state: 'queued', parent: { job: 'sums', kind: 'extend' }, chains: Array.from({ length: 6 }, () => ({ tokens: 0 })) });
    expect(queue.sent).toEqual([0, 1].map((i) => ({ v: 1, tenant: TENANT, job: `larger/${i}`, slice: 0 })));
    const reading = eventsOf(asked.events('larger', me));
    await runShards(store, 2, { job: 'larger' });
    expect(await asked.result('larger', me)).toEqual(await one.platform.result('larger', me));
    const events = numbered(await reading);
    expect(events).toEqual(numbered(await eventsOf(one.platform.events('larger', me))));
    expect(events).toEqual(await eventsOf(asked.events('larger', me)));
    expect(await asked.extend('sums', more), 'asked for again').toMatchObject({ id: 'larger', state: 'done' });
  });

  test('can be answered to: the next turn begins with the cache of the chain that was elected', async () => {
    const { store, platform: asked } = await platform();
    await asked.submit({ ...SPEC, shards: 4 }, { ...me, id: 'sums' });
    await runShards(store, 4);
    const { id } = await asked.submit({ model: 'countdown@cr2', prompt: '1 2 3 target 6', budget: { length: 20, width: 1 } }, { ...me, previous: 'sums' });
    await runToEnd(store, id);
    expect(await asked.get(id, me)).toMatchObject({ state: 'done', parent: { job: 'sums', kind: 'continue' } });
  });

  test('under a key is sealed like any other, and its ballots say nothing of their answers', async () => {
    const key = await keyFile();
    try {
      const { store, platform: asked } = { store: new MemoryStore(), ...platformOn(new MemoryStore(), shelf) };
      const sealed = platformOn(store, shelf, { keys: key.provider });
      await sealed.platform.submit({ ...SPEC, shards: 2 }, { ...me, id: 'sums' });
      await runShards(store, 2, { keys: key.provider });
      const { timing: _, ...once } = await generate({ ...SPEC, threads: 1 });
      expect(await sealed.platform.result('sums', me)).toEqual(once);
      const { manifest } = await readJob(store, sums);
      const plain = { store: new MemoryStore() };
      const clear = platformOn(plain.store, shelf);
      await clear.platform.submit({ ...SPEC, shards: 2 }, { ...me, id: 'sums' });
      await runShards(plain.store, 2);
      const open = (await readJob(plain.store, sums)).manifest;
      const keys = [manifest, open].map((all) => all?.vote?.ballots.flatMap((ballot) => ballot?.key ?? []));
      expect(keys[0]).toHaveLength(keys[1]?.length ?? -1);
      expect(keys[0]).not.toEqual(keys[1]);
      await expect(asked.get('sums', me)).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
    } finally {
      key.remove();
    }
  });
});
