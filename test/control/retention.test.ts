/** What a job leaves, for how long, and what is left of it then. */
import { afterAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { NativeShelf } from '../../engine/control/native-shelf.ts';
import type { Platform } from '../../engine/control/platform.ts';
import { type Retention, expireDue, readKeep } from '../../engine/control/retention.ts';
import type { StorePlatformOptions } from '../../engine/control/store-platform.ts';
import { wallClockMs } from '../../engine/core/clock.ts';
import { resumeStored } from '../../engine/job/stored.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { shardKey } from '../../engine/kv/names.ts';
import { requireHead } from '../../engine/kv/read.ts';
import { takeJob } from '../../engine/kv/take.ts';
import { trimJob } from '../../engine/kv/trim.ts';
import type { KeyProvider } from '../../engine/ports/keys.ts';
import { Outbox } from '../../engine/webhook/outbox.ts';
import { keyFile } from '../helpers/stored-job.ts';
import { options } from '../kv/support.ts';
import { SPEC, TENANT, eventsOf, platformOn, runToEnd } from './support.ts';

const shelf = new NativeShelf();
afterAll(() => shelf[Symbol.dispose]());

const me = { tenant: TENANT };
const DAY_MS = 86_400_000;
const where = (job: string) => ({ tenant: TENANT, job });
const WEEK_AND_MONTH: Retention = { kvMs: 7 * DAY_MS, resultMs: 30 * DAY_MS };

/** A job that ended just now. */
async function ended({ retention = WEEK_AND_MONTH, keys = null, ...more }: Partial<StorePlatformOptions> & { readonly retention?: Retention; readonly keys?: KeyProvider | null } = {}) {
  const store = new MemoryStore();
  const outbox = new Outbox({ store, retention });
  const { platform } = platformOn(store, shelf, { outbox, keys, ...more });
  await platform.submit(SPEC, { ...me, id: 'sums' });
  await resumeStored({ store, where: where('sums'), threads: 1, policy: { deltaTokens: 40 }, outbox, keys });
  return { store, outbox, platform };
}

function after(days: number) {
  return { nowMs: () => wallClockMs() + days * DAY_MS };
}

const kinds = (store: MemoryStore, job = 'sums') => new Set([...store.snapshot().keys()].filter((key) => key.startsWith(`kv/${TENANT}/${job}/`)).map((key) => key.split('/')[3]?.replace(/^spec-.*/, 'spec')));

async function forked(store: MemoryStore, platform: Platform, as: string, keys: KeyProvider | null = null): Promise<unknown> {
  await platform.fork('sums', { ...me, at: 20, chain: 0, width: 2, seed: 9n, as });
  await resumeStored({ store, where: where(as), threads: 1, policy: { deltaTokens: 40 }, keys });
  return await platform.result(as, me);
}

describe('the KV of a job that has ended', () => {
  test.each(['in the clear', 'sealed'])('%s goes after its time, and the result stays; a fork then computes from the prompt, with the same tokens', async (how) => {
    const file = await keyFile();
    const keys = how === 'sealed' ? file.provider : null;
    const { store, platform } = await ended({ keys });
    const result = await platform.result('sums', me);
    const events = await eventsOf(platform.events('sums', me));
    const before = await forked(store, platform, 'before', keys);
    expect(await expireDue(store, after(6))).toEqual({ trimmed: 0, erased: 0 });
    expect(kinds(store)).toEqual(new Set(['HEAD', 'spec', 'm', 's', 't', 'j']));
    // The job and its fork: of the latter the default, by who ran it.
    expect(await expireDue(store, after(8))).toEqual({ trimmed: 2, erased: 0 });
    expect(kinds(store)).toEqual(new Set(['HEAD', 'spec', 'm', 'j']));
    expect(await platform.result('sums', me)).toEqual(result);
    expect(await eventsOf(platform.events('sums', me))).toEqual(events);
    expect(await forked(store, platform, 'after', keys)).toEqual(before);
    // Of the new fork alone.
    expect(await expireDue(store, after(8))).toEqual({ trimmed: 1, erased: 0 });
    file.remove();
  });

  test('goes without changing when the job ended', async () => {
    let nowMs = wallClockMs();
    const store = new MemoryStore({ nowMs: () => nowMs });
    const outbox = new Outbox({ store, retention: WEEK_AND_MONTH });
    const { platform } = platformOn(store, shelf, { outbox });
    await platform.submit(SPEC, { ...me, id: 'sums' });
    expect(await platform.endedMs('sums', me)).toBeNull();
    await resumeStored({ store, where: where('sums'), threads: 1, outbox });
    const endMs = nowMs;
    expect(await platform.endedMs('sums', me)).toBe(endMs);
    nowMs += 8 * DAY_MS;
    expect(await expireDue(store, after(8))).toEqual({ trimmed: 1, erased: 0 });
    // By when that was told, from then on.
    expect(Math.abs(((await platform.endedMs('sums', me)) ?? NaN) - endMs)).toBeLessThan(DAY_MS);
  });

  test('is let go of by many at once and after dying half way as by one', async () => {
    const { store, platform } = await ended();
    const result = await platform.result('sums', me);
    // Died after the job was trimmed, before the hint was moved.
    await trimJob(store, where('sums'));
    await Promise.all([expireDue(store, after(8)), expireDue(store, after(8)), trimJob(store, where('sums'))]);
    expect(kinds(store)).toEqual(new Set(['HEAD', 'spec', 'm', 'j']));
    expect(await platform.result('sums', me)).toEqual(result);
    expect(await expireDue(store, after(31))).toMatchObject({ erased: 1 });
  });

  test('of a sharded job goes from all of its shards, and the job itself with them', async () => {
    const store = new MemoryStore();
    const outbox = new Outbox({ store, retention: WEEK_AND_MONTH });
    const { platform } = platformOn(store, shelf, { outbox });
    await platform.submit({ ...SPEC, shards: 2 }, { ...me, id: 'sums' });
    for (const i of [1, 0]) await resumeStored({ store, where: shardKey(where('sums'), i), threads: 1, policy: { deltaTokens: 40 }, outbox });
    const result = await platform.result('sums', me);
    const pages = () => [...store.snapshot().keys()].filter((key) => /\.(seg|tail)$/.test(key)).length;
    expect(pages()).toBeGreaterThan(0);
    expect(await expireDue(store, after(8))).toEqual({ trimmed: 1, erased: 0 });
    expect(pages()).toBe(0);
    expect(await platform.result('sums', me)).toEqual(result);
    expect(await expireDue(store, after(31))).toEqual({ trimmed: 0, erased: 1 });
    await expect(platform.result('sums', me)).rejects.toMatchObject({ code: 'ERR_RESULT_EXPIRED' });
    expect([...store.snapshot().keys()].filter((key) => key.startsWith('kv/')).every((key) => key.endsWith('/HEAD'))).toBe(true);
  });

  test('of one that has not ended stays', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    await platform.submit(SPEC, { ...me, id: 'sums' });
    await takeJob(store, where('sums'), options());
    await expect(trimJob(store, where('sums'))).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    expect(await expireDue(store, after(1e3))).toEqual({ trimmed: 0, erased: 0 });
  });

  test('keeps for the owner of the last commit what he finds it by', async () => {
    const { store } = await ended();
    const before = (await requireHead(store, where('sums'))).head;
    await trimJob(store, where('sums'));
    const { head } = await requireHead(store, where('sums'));
    expect(head).toMatchObject({ state: before.state, epoch: before.epoch, writeNonce: before.writeNonce });
    expect(head.version).toBeGreaterThan(before.version);
  });
});

describe('a result', () => {
  test('says until when it is kept, and is gone then: told so, and not that there never was one', async () => {
    const { store, platform } = await ended();
    const view = await platform.get('sums', me);
    expect(view.expiresMs).toBeGreaterThan(wallClockMs() + 29 * DAY_MS);
    expect(await expireDue(store, after(31))).toEqual({ trimmed: 0, erased: 1 });
    expect(kinds(store)).toEqual(new Set(['HEAD']));
    for (const read of [platform.get('sums', me), platform.result('sums', me), eventsOf(platform.events('sums', me)), platform.extend('sums', { ...me, length: 300 })]) await expect(read).rejects.toMatchObject({ code: 'ERR_RESULT_EXPIRED' });
    await expect(platform.get('sums', { tenant: 'other' })).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
    expect((await platform.list({ ...me, limit: 10 })).jobs).toEqual([]);
    await expect(platform.submit(SPEC, { ...me, id: 'sums' })).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    expect([...store.snapshot().keys()].filter((key) => /^(keep|expire)\//.test(key))).toEqual([]);
  });

  test('that somebody erased was erased, also when its time comes', async () => {
    const { store, platform } = await ended();
    await eraseJob(store, where('sums'));
    expect(await expireDue(store, after(31))).toEqual({ trimmed: 0, erased: 0 });
    await expect(platform.get('sums', me)).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
    expect([...store.snapshot().keys()].filter((key) => /^(keep|expire)\//.test(key))).toEqual([]);
  });

  test('is kept for as long as whoever told of its end first had been told', async () => {
    const { store, platform, outbox } = await ended();
    const { expiresMs } = await platform.get('sums', me);
    await new Outbox({ store, retention: { kvMs: null, resultMs: 1_000 } }).jobEnded(where('sums'));
    await outbox.jobEnded(where('sums'));
    expect((await platform.get('sums', me)).expiresMs).toBe(expiresMs);
  });

  test('is kept until it is erased unless something else is configured, and its KV with it if that is', async () => {
    const usual = await ended({ retention: { kvMs: 7 * DAY_MS, resultMs: null } });
    expect((await usual.platform.get('sums', me)).expiresMs).toBeNull();
    expect(await expireDue(usual.store, after(1e4))).toEqual({ trimmed: 1, erased: 0 });
    const always = await ended({ retention: { kvMs: null, resultMs: null } });
    expect(await readKeep(always.store, where('sums'))).toBeNull();
    const short = await ended({ retention: { kvMs: 7 * DAY_MS, resultMs: DAY_MS } });
    expect(await expireDue(short.store, after(2))).toEqual({ trimmed: 0, erased: 1 });
  });

  test('whose record cannot be read keeps no other from going, and is tried again later', async () => {
    const { store, platform } = await ended();
    await platform.submit(SPEC, { ...me, id: 'other' });
    await platform.cancel('other', me);
    await store.put(`keep/${TENANT}/other.json`, [Buffer.from('{}')]);
    const troubled: string[] = [];
    expect(await expireDue(store, { ...after(31), onTrouble: ({ job }) => void troubled.push(job) })).toEqual({ trimmed: 0, erased: 1 });
    expect(troubled).toEqual(['other']);
    expect(await platform.get('other', me).catch((error: { code: string }) => error.code)).toBe('ERR_CHECKPOINT');
  });
});

describe('what a job has by now', () => {
  test.each([undefined, 2])('counts what was journaled since its last checkpoint, for who looks at it, forks it and reads what it left; shards: %s', async (shards) => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    const { id } = await platform.submit({ ...SPEC, ...(shards === undefined ? {} : { shards }) }, me);
    for (const part of shards === undefined ? [where(id)] : [0, 1].map((index) => shardKey(where(id), index))) {
      const stop = new AbortController();
      await resumeStored({
        store, where: part, threads: 1, policy: { deltaTokens: 40 }, signal: stop.signal, isEnding: () => true,
        onProgress: ({ chains }) => {
          if (chains.some(({ tokens }) => tokens >= 50)) stop.abort();
        },
      });
      expect((await requireHead(store, part)).head.journal).not.toEqual([]);
    }
    const { chains, step } = await platform.get(id, me);
    await platform.cancel(id, me);
    const result = await platform.result(id, me);
    expect(chains.map(({ tokens }) => tokens)).toEqual(result?.chains.map(({ tokens }) => tokens.length));
    expect(step).toBe(Math.min(...chains.map(({ tokens }) => tokens)));
    expect((await platform.get(id, me)).chains).toEqual(chains);
    expect(result?.usage.completion_tokens).toBe(chains.reduce((sum, { tokens }) => sum + tokens, 0));
    // At its very last token.
    await platform.fork(id, { ...me, at: chains[1]?.tokens ?? 0, chain: 1, width: 1, as: 'last' });
    await runToEnd(store, 'last');
    expect((await platform.result('last', me))?.chains[0]?.tokens.slice(0, chains[1]?.tokens)).toEqual(result?.chains[1]?.tokens);
  });
});
