/** What is listed of a store, and of one job. */
import { beforeAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { anatomyOf } from '../../engine/checkpoint/anatomy.ts';
import { monthlyCost, surveyJobs, type StoredJob } from '../../engine/checkpoint/survey.ts';
import { isRight, verifyJob } from '../../engine/checkpoint/verify.ts';
import { createJob } from '../../engine/kv/create.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import { HEAD, jobPrefix, specName } from '../../engine/kv/names.ts';
import { objectsOf, requireHead } from '../../engine/kv/read.ts';
import { anatomyText, chainLine } from '../../cli/anatomy.ts';
import { ago, dollars, paintFor } from '../../cli/text.ts';
import { changed, flipped, manifestIn, resumed, resultOf, storedJob, storeWith, WHERE, type Content } from '../helpers/stored-job.ts';

let whole: Content;

beforeAll(async () => {
  const store = new MemoryStore();
  await storedJob(store);
  whole = store.snapshot();
}, 300_000);

async function survey(store: MemoryStore, after?: string): Promise<StoredJob[]> {
  const rows: StoredJob[] = [];
  for await (const row of surveyJobs(store, 'local', { after })) rows.push(row);
  return rows;
}

const bytesOf = (content: Content) => [...content.values()].reduce((sum, bytes) => sum + bytes.byteLength, 0);

describe('a listing', () => {
  test('has what is stored of a job, garbage included, and what it needs of it', async () => {
    const store = await storeWith(new Map([...whole, [`${jobPrefix(WHERE)}t/1/1-0-0123456789abcdef.tail`, Buffer.alloc(1000)]]));
    const [row, ...rest] = await survey(store);
    expect(rest).toEqual([]);
    expect(row).toMatchObject({ job: 'sums', objects: whole.size + 1, bytes: bytesOf(whole) + 1000, fault: null });
    const { garbage } = await anatomyOf(store, WHERE);
    expect(row?.content).toMatchObject({ model: 'countdown@cr2', width: 2, tokens: expect.any(Number) as number });
    expect((row?.bytes ?? 0) - (row?.content?.neededBytes ?? 0)).toBe(garbage.reduce((sum, { bytes }) => sum + bytes, 0));
  });

  test('goes on after any job, in the order of the store\'s keys', async () => {
    const store = new MemoryStore();
    const jobs = ['a', 'a-b', 'a.b', 'a0', 'b', 'B', ...Array.from({ length: 20 }, (_, i) => `j${i}`)];
    for (const job of jobs) await createJob(store, { tenant: 'local', job }, '{}');
    await createJob(store, { tenant: 'other', job: 'not-mine' }, '{}');
    const all = (await survey(store)).map(({ job }) => job);
    expect([...all].sort()).toEqual([...jobs].sort());
    for (const [i, job] of all.entries()) expect((await survey(store, job)).map((row) => row.job)).toEqual(all.slice(i + 1));
  });

  test('has a row with the reason for a job that cannot be read, between the others', async () => {
    const copies = new Map(['a', 'b', 'c', 'd', 'e'].flatMap((job) => [...whole].map(([key, bytes]) => [key.replace('/sums/', `/${job}/`), bytes] as const)));
    let content: Content = copies;
    content = changed(content, HEAD, flipped(50), { tenant: 'local', job: 'b' });
    content = changed(content, HEAD, () => null, { tenant: 'local', job: 'c' });
    const rows = await survey(await storeWith(content));
    // Copied as they are, all heads are those of another job.
    expect(rows.map(({ job, fault }) => [job, fault?.message.split(':')[0]])).toEqual([['a', 'identity'], ['b', 'damaged'], ['c', 'missing'], ['d', 'identity'], ['e', 'identity']]);
    expect(rows.every(({ bytes, content: read }) => bytes > 0 && read === null)).toBe(true);
  });

  test('of a store that cannot list is that failure', async () => {
    const store = await storeWith(whole, { before: ({ kind }) => { if (kind === 'list') throw new EngineError('ERR_STORE', 'gone'); } });
    await expect(survey(store)).rejects.toMatchObject({ code: 'ERR_STORE' });
  });
});

describe('an anatomy', () => {
  test('names what is garbage, what is missing and what is nobody\'s, and counts the rest by kind', async () => {
    const { objects } = await manifestIn(await storeWith(whole));
    const gone = objects[1]?.name ?? '';
    const content = new Map([...changed(whole, gone, () => null), [`${jobPrefix(WHERE)}t/1/1-0-0123456789abcdef.tail`, Buffer.alloc(10)], [`${jobPrefix(WHERE)}notes.txt`, Buffer.alloc(3)]]);
    const anatomy = await anatomyOf(await storeWith(content), WHERE);
    expect(anatomy.missing).toEqual([gone]);
    expect(anatomy.unknown).toEqual([{ name: 'notes.txt', bytes: 3 }]);
    expect(anatomy.garbage).toContainEqual({ name: 't/1/1-0-0123456789abcdef.tail', bytes: 10 });
    const counted = Object.values(anatomy.bytesByKind).reduce((sum, bytes) => sum + bytes, 0);
    expect(counted + [...anatomy.garbage, ...anatomy.unknown].reduce((sum, { bytes }) => sum + bytes, 0)).toBe(bytesOf(content));
    const text = anatomyText(anatomy, { paint: paintFor({}), columns: 100, nowMs: 0 });
    for (const part of ['chain 0', 'a fork can begin at', 'garbage', 'missing', 'modelId', anatomy.manifest?.layoutId ?? '?']) expect(text).toContain(part);
  });

  test('of an erased job is its tombstone', async () => {
    const store = await storeWith(whole);
    await eraseJob(store, WHERE);
    expect(await anatomyOf(store, WHERE)).toMatchObject({ objects: 1, manifest: null, spec: null, garbage: [] });
  });

  test('shows no escape code that somebody wrote into a head or a name', async () => {
    const anatomy = await anatomyOf(await storeWith(whole), WHERE);
    const hostile = { ...anatomy, missing: ['\u001b[2Jx'], manifest: anatomy.manifest === null ? null : { ...anatomy.manifest, ended: '\u001b]0;x\u0007' } };
    expect(anatomyText(hostile, { paint: paintFor({}), columns: 80, nowMs: 0 })).not.toMatch(/[\u001b\u0007]/);
  });
});

describe('collecting garbage', () => {
  test('says before what it deletes then, and that is nothing that is needed', async () => {
    const store = await storeWith(new Map([...whole, [`${jobPrefix(WHERE)}s/1/1-0-0-0123456789abcdef.seg`, Buffer.alloc(10)]]));
    const planned: string[] = [];
    const deleted: string[] = [];
    const plan = await collectGarbage(store, WHERE, { dryRun: true, onGarbage: (key) => planned.push(key) });
    const before = store.snapshot();
    const { objects } = await collectGarbage(store, WHERE, { onGarbage: (key) => deleted.push(key) });
    expect([plan.objects, planned]).toEqual([objects, deleted]);
    const { head } = await requireHead(store, WHERE);
    const needed = [HEAD, specName(head.spec), head.manifest?.name ?? '', ...objectsOf(head, await manifestIn(store)).map(({ name }) => name)].map((name) => jobPrefix(WHERE) + name);
    expect([...store.snapshot().keys()].sort()).toEqual(needed.sort());
    expect([...before.keys()].filter((key) => !store.snapshot().has(key)).sort()).toEqual(deleted.sort());
    expect(isRight(await verifyJob(store, WHERE, { keys: null }))).toBe(true);
    const untouched = await storeWith(whole);
    expect(resultOf(await resumed(store))).toEqual(resultOf(await resumed(untouched)));
  });
});

describe('figures', () => {
  test('of a chain are drawn on one scale', () => {
    expect(chainLine(1000, [400, 800], 1000, 11)).toBe('━━━━●━━━●┄┄');
    expect(chainLine(500, [500], 1000, 11)).toBe('━━━━━●');
    expect(chainLine(0, [], 1000, 11)).toBe('');
    expect(chainLine(1000, [], 1000, 11)).toBe('┄┄┄┄┄┄┄┄┄┄┄');
  });

  test('of money and time say something when they are small', () => {
    expect(monthlyCost(2 ** 30, 0.023)).toBe(0.023);
    expect([1234.5, 0.023, 0.0000184, 0, 1e-12].map(dollars)).toEqual(['$1234.50', '$0.02', '$0.000018', '$0.00', '$0.00']);
    expect([0, 90_000, 130_000, 93_600_000, 200_000_000].map(ago)).toEqual(['0 s ago', '90 s ago', '2 min ago', '26 h ago', '2 d ago']);
  });
});
