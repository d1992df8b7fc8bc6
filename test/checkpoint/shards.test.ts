/** A sharded job from outside: one row, one anatomy, one verdict, whatever lies in its shards. */
import { PassThrough } from 'node:stream';
import { beforeAll, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { anatomyOf } from '../../engine/checkpoint/anatomy.ts';
import { exportJob } from '../../engine/checkpoint/export.ts';
import { surveyJobs } from '../../engine/checkpoint/survey.ts';
import { verifyJob } from '../../engine/checkpoint/verify.ts';
import { runStored } from '../../engine/job/stored.ts';
import { readJob } from '../../engine/kv/create.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import { shardKey } from '../../engine/kv/names.ts';
import { SPEC, WHERE, changed, flipped, jobsIn, storeWith, type Content } from '../helpers/stored-job.ts';

let stored: Content;
beforeAll(async () => {
  const store = new MemoryStore();
  await runStored({ ...SPEC, shards: 2 }, { store, where: WHERE, threads: 1, policy: { deltaTokens: 40 } });
  stored = jobsIn(store);
});

const bytesOf = (content: Content) => [...content.values()].reduce((sum, { byteLength }) => sum + byteLength, 0);

test('is one row with all its bytes, and none of them is garbage', async () => {
  const store = await storeWith(stored);
  const rows = [];
  for await (const row of surveyJobs(store, WHERE.tenant)) rows.push(row);
  expect(rows).toMatchObject([{ job: WHERE.job, objects: stored.size, bytes: bytesOf(stored), fault: null, content: { model: 'countdown@cr2', width: 2 } }]);
  expect(rows[0]?.content?.neededBytes).toBe(bytesOf(stored));
});

test('has an anatomy in which everything is known and needed', async () => {
  const anatomy = await anatomyOf(await storeWith(stored), WHERE);
  expect(anatomy).toMatchObject({ objects: stored.size, bytes: bytesOf(stored), garbage: [], unknown: [], missing: [], shards: [{ index: 0 }, { index: 1 }] });
  expect(Object.values(anatomy.bytesByKind).reduce((sum, bytes) => sum + bytes, 0)).toBe(bytesOf(stored));
});

test('is right in every byte, and a flipped bit is found in the shard that has it', async () => {
  expect(await verifyJob(await storeWith(stored), WHERE, { keys: null })).toMatchObject({ state: 'done', complete: true, faults: [] });
  const { manifest } = await readJob(await storeWith(stored), shardKey(WHERE, 1));
  const name = manifest?.objects[0]?.name ?? '';
  const damaged = await storeWith(changed(stored, `1/${name}`, flipped(100)));
  expect((await verifyJob(damaged, WHERE, { keys: null })).faults).toMatchObject([{ name: `1/${name}`, reason: 'damaged' }]);
});

test('loses the garbage of its shards with its own', async () => {
  const store = await storeWith(stored);
  await store.put(`kv/${WHERE.tenant}/${WHERE.job}/1/m/0-${'0'.repeat(64)}.json`, [new Uint8Array(10)]);
  await store.put(`kv/${WHERE.tenant}/${WHERE.job}/m/0-${'0'.repeat(64)}.json`, [new Uint8Array(10)]);
  expect(await collectGarbage(store, WHERE, { dryRun: true })).toMatchObject({ objects: 2, bytes: 20, unknown: [] });
  expect(await collectGarbage(store, WHERE)).toMatchObject({ objects: 2, bytes: 20, unknown: [] });
  expect((await verifyJob(store, WHERE, { keys: null })).faults).toEqual([]);
});

test('is refused as a file, by a sentence that says what to do', async () => {
  await expect(exportJob(await storeWith(stored), WHERE, new PassThrough(), { keys: null })).rejects.toMatchObject({ code: 'ERR_OPTION', message: expect.stringContaining('kv/local/sums/') as string });
});
