/** A job is taken by what the taker has just read of it, as long as that is still so. */
import { expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { readNamed, requireHead, type SeenJob } from '../../engine/kv/read.ts';
import { code, commitSteps, createdJob, HEAD_KEY, headOf, SPEC, takenJob, WHERE } from './support.ts';

test('what the taker has just read is not read again; if the head has moved since, it is, and nothing of what was seen is believed', async () => {
  const store = new MemoryStore();
  await createdJob(store);
  const look = async (): Promise<SeenJob> => {
    const stored = await requireHead(store, WHERE);
    return { stored, ...((await readNamed(store, WHERE, stored)) ?? { manifest: null, spec: '' }) };
  };
  const before = await look();
  const calls = store.log.length;
  const first = await takenJob(store, { seen: before });
  expect(store.log.slice(calls).map(({ kind, key }) => `${kind} ${key}`)).toEqual([`put ${HEAD_KEY}`]);
  expect(first.spec).toBe(SPEC);
  await commitSteps(first, 0);
  // As it was before anyone took it: it is neither queued nor without a manifest now.
  await expect(takenJob(store, { seen: before, waitMs: 0 })).rejects.toMatchObject(code('ERR_JOB_CONFLICT'));
  expect((await headOf(store)).epoch).toBe(1);
  const second = await takenJob(store, { seen: before, force: true });
  expect(second.head.epoch).toBe(2);
  expect(second.manifest).toEqual(first.manifest);
  const seen = await look();
  await second.commit({ state: 'done', manifest: null, objects: [] });
  await expect(takenJob(store, { seen, force: true })).rejects.toMatchObject({ ...code('ERR_JOB_CONFLICT'), message: expect.stringContaining('done') as string });
});
