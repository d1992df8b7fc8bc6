/** Writes of its owner that leave the job as it is: a sign of life, and giving it back. */
import { EventEmitter, once } from 'node:events';
import { expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import { through } from '../helpers/through.ts';
import { code, commitSteps, createdJob, HEAD_KEY, headOf, step, stepsOf, storeWith, takenJob, WHERE } from './support.ts';

test('a sign of life is seen by whoever watches, and changes nothing else', async () => {
  const store = new MemoryStore();
  await createdJob(store);
  const lease = await takenJob(store);
  await commitSteps(lease, 0);
  await lease.flushJournal(step(1));
  const { version, writeNonce, ...before } = lease.head;
  await lease.touch();
  expect(lease.head).toEqual(headOf(store));
  expect(lease.head).toMatchObject({ ...before, version: version + 1 });
  expect(lease.head.writeNonce).not.toBe(writeNonce);
  await commitSteps(lease, 2);
  expect(await stepsOf(lease)).toEqual([0, 1, 2]);
});

test('signs of life go out while a commit uploads, and the commit is put on top of them, also when a fence has passed its uploads', async () => {
  for (const fenced of [false, true]) {
    const uploads = new EventEmitter();
    const store = new MemoryStore();
    await createdJob(store);
    const slow = through(store, { put: async (key, body, options) => {
      if (key.includes('/j/')) await once(uploads, 'go on');
      return await store.put(key, body, options);
    } });
    const lease = await takenJob(slow);
    const committed = commitSteps(lease, 0);
    for (let beat = 0; beat < 3; beat++) {
      const { version } = headOf(store);
      await lease.touch();
      expect(headOf(store).version).toBe(version + 1);
    }
    if (fenced) await collectGarbage(store, WHERE);
    await lease.touch();
    uploads.emit('go on');
    await committed;
    expect(headOf(store)).toEqual(lease.head);
    if (fenced) await collectGarbage(store, WHERE);
    expect(await stepsOf(lease)).toEqual([0]);
  }
});

test('a sign of life of which nobody knows whether it came is no harm: the lease goes on, and what comes late is refused or built upon', async () => {
  for (const applied of ['before the commit', 'after it', 'never']) {
    let down = true;
    const store = new MemoryStore({ faults: ({ kind, key }) => (down && key === HEAD_KEY ? { kind: kind === 'put' ? 'late' : 'fail' } : null) });
    down = false;
    await createdJob(store);
    const lease = await takenJob(store);
    down = true;
    await expect(lease.touch()).rejects.toMatchObject(code('ERR_STORE'));
    down = false;
    if (applied === 'before the commit') expect(store.late[0]?.apply().kind).toBe('written');
    await commitSteps(lease, 0);
    if (applied === 'after it') expect(store.late[0]?.apply().kind).toBe('refused');
    expect(headOf(store)).toEqual(lease.head);
    expect(await stepsOf(lease)).toEqual([0]);
  }
});

test('a sign of life that fails fails nothing that was asked for behind it', async () => {
  let down = true;
  const store = new MemoryStore({ faults: ({ key, condition }) => (down && key === HEAD_KEY && condition === 'if_match' ? ((down = false), { kind: 'fail' }) : null) });
  down = false;
  await createdJob(store);
  const lease = await takenJob(store);
  down = true;
  const [touched, committed] = await Promise.allSettled([lease.touch(), commitSteps(lease, 0)]);
  expect([touched.status, committed.status]).toEqual(['rejected', 'fulfilled']);
  expect(await stepsOf(lease)).toEqual([0]);
});

test('a job that is given back untouched is as before the take, but for epoch and version; a fault of its own stays counted', async () => {
  const store = new MemoryStore();
  await createdJob(store);
  expect(await (await takenJob(store)).release({ isStrike: false })).toMatchObject({ state: 'parked', epoch: 1, version: 2, slice: 0, strikes: 0, manifest: null });
  const second = await takenJob(store);
  expect(second.head).toMatchObject({ epoch: 2, slice: 1, strikes: 1 });
  await second.commit({ state: 'running', manifest: null, objects: [] });
  expect(await second.release({ isStrike: true })).toMatchObject({ state: 'parked', slice: 0, strikes: 1 });
  await expect(commitSteps(second, 0)).rejects.toMatchObject({ ...code('ERR_JOB_CONFLICT'), message: expect.stringContaining('let go (parked)') as string });
  await expect(second.release({ isStrike: true })).rejects.toMatchObject(code('ERR_JOB_CONFLICT'));
});

test.each(['commit', 'flush'] as const)('a job that is given back after a %s keeps it, its slice and its strikes', async (how) => {
  const store = new MemoryStore();
  await createdJob(store);
  const lease = await takenJob(store);
  if (how === 'flush') await lease.flushJournal(step(0));
  else await commitSteps(lease, 0);
  expect(await lease.release({ isStrike: false })).toMatchObject({ state: 'parked', slice: 1, strikes: 0 });
  expect(await stepsOf(await takenJob(store))).toEqual([0]);
});

test.each(['lost_ack', 'late', 'refuse'] as const)('giving back whose answer is %s is done once', async (kind) => {
  const store = storeWith({ 1: { kind } });
  await createdJob(store);
  const lease = await takenJob(store);
  expect(await lease.release({ isStrike: false })).toEqual(headOf(store));
  store.late.forEach((put) => put.apply());
  expect(headOf(store)).toMatchObject({ state: 'parked', slice: 0, strikes: 0, epoch: 1 });
});

test('an owner that was fenced gives back nothing', async () => {
  const store = new MemoryStore();
  await createdJob(store);
  const first = await takenJob(store);
  const second = await takenJob(store, { force: true });
  await expect(first.release({ isStrike: false })).rejects.toMatchObject(code('ERR_FENCED'));
  expect(headOf(store)).toEqual(second.head);
});
