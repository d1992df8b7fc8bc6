/** Another tenant's job does not exist: no method reads, ends or copies it, nor tells it from one that was never there. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { NativeShelf } from '../../engine/control/native-shelf.ts';
import type { Platform } from '../../engine/control/platform.ts';
import { SPEC, TENANT, eventsOf, fingerprint, platformOn, runToEnd } from './support.ts';

const shelf = new NativeShelf();
afterAll(() => shelf[Symbol.dispose]());

const CALLS: Readonly<Record<string, (platform: Platform, id: string, tenant: string) => Promise<unknown>>> = {
  get: (platform, id, tenant) => platform.get(id, { tenant }),
  cancel: (platform, id, tenant) => platform.cancel(id, { tenant }),
  erase: (platform, id, tenant) => platform.erase(id, { tenant }),
  result: (platform, id, tenant) => platform.result(id, { tenant }),
  events: (platform, id, tenant) => eventsOf(platform.events(id, { tenant })),
  fork: (platform, id, tenant) => platform.fork(id, { tenant, at: 10, chain: 0, width: 1 }),
  extend: (platform, id, tenant) => platform.extend(id, { tenant, length: 300 }),
  'list after': (platform, id, tenant) => platform.list({ tenant, limit: 10, after: id }),
};

describe('a job of another tenant', () => {
  const store = new MemoryStore();
  const { platform, queue } = platformOn(store, shelf);
  beforeAll(async () => {
    await platform.submit(SPEC, { tenant: TENANT, id: 'theirs' });
    await runToEnd(store, 'theirs');
  });

  test.each(Object.entries(CALLS))('does not exist for %s', async (_, call) => {
    const before = fingerprint(store);
    const messages = queue.sent.length;
    const errorOf = async (id: string, tenant: string): Promise<string> =>
      await call(platform, id, tenant).then(() => 'no error', ({ code, message }: { code: string; message: string }) => `${code} ${message.replaceAll(id, 'ID')}`);
    const theirs = await errorOf('theirs', 'mallory');
    expect(theirs).toMatch(/^ERR_JOB_NOT_FOUND /);
    expect(theirs).toBe(await errorOf('nobody', 'mallory'));
    // Names that reach into another's prefix are no names.
    for (const id of [`../${TENANT}/theirs`, `${TENANT}/theirs`, '..', '']) expect(await errorOf(id, 'mallory')).toMatch(/^ERR_JOB_NOT_FOUND /);
    expect(fingerprint(store)).toBe(before);
    expect(queue.sent).toHaveLength(messages);
    // And it does exist for its own.
    if (_ !== 'erase') await call(platform, 'theirs', TENANT);
  });

  test('is in no list, and its name and its key are free', async () => {
    expect(await platform.list({ tenant: 'mallory', limit: 100 })).toEqual({ jobs: [], more: false });
    await platform.submit(SPEC, { tenant: TENANT, idempotencyKey: 'monday' });
    const mine = await platform.submit({ ...SPEC, seed: 9n }, { tenant: 'mallory', id: 'theirs', idempotencyKey: 'monday' });
    expect(mine).toMatchObject({ id: 'theirs', state: 'queued' });
    expect(await platform.get('theirs', { tenant: TENANT })).toMatchObject({ state: 'done' });
  });

  test.each(['', '..', 'a/b', `${TENANT}/`])('is not reached by a tenant called %j', async (tenant) => {
    for (const call of Object.values(CALLS)) await expect(call(platform, 'theirs', tenant)).rejects.toMatchObject({ code: 'ERR_OPTION' });
  });
});
