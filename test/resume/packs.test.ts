/** A job of many chains, whose cuts lie in packs: what is damaged in one costs what it would cost in an object of its own. */
import { Readable, Writable } from 'node:stream';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { anatomyOf } from '../../engine/checkpoint/anatomy.ts';
import { exportJob } from '../../engine/checkpoint/export.ts';
import { importJob } from '../../engine/checkpoint/import.ts';
import { surveyJobs } from '../../engine/checkpoint/survey.ts';
import { systemClock } from '../../engine/core/clock.ts';
import { runJob } from '../../engine/job/run.ts';
import { openSession } from '../../engine/job/session.ts';
import { readJob } from '../../engine/kv/create.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import { jobPrefix } from '../../engine/kv/names.ts';
import { type Bench, benchOf, comparable, create, jobOf, slice } from './jobs.ts';

const WHERE = { tenant: 'acme', job: 'sums' };
const LENGTHS = [120, 120, 40, 120, 120, 120];

let bench: Bench;
let whole: string;
let parked: MemoryStore;

const session = openSession();
afterAll(() => session[Symbol.dispose]());
beforeAll(async () => {
  bench = await benchOf(session, jobOf('countdown cr8', { budget: { lengths: LENGTHS } }));
  whole = comparable(await runJob(bench.job, { ...bench, clock: systemClock, cancelled: null, deadline: null }));
  parked = new MemoryStore();
  await create(parked, WHERE, bench);
  for (const stopAt of [50, 90]) expect(await slice(parked, WHERE, bench, { stopAt })).toMatchObject({ kind: 'parked' });
});

async function copyWithout(key: string, body: Uint8Array | null): Promise<MemoryStore> {
  const store = new MemoryStore();
  for (const [name, bytes] of parked.snapshot()) if (name !== key) await store.put(name, [bytes]);
  if (body !== null) await store.put(key, [body]);
  return store;
}

async function ended(store: MemoryStore): Promise<{ readonly result: string; readonly last: { readonly outcome: string; readonly reason: string | null } | undefined }> {
  const outcome = await slice(store, WHERE, bench);
  if (outcome.kind !== 'ended') throw new Error('the job did not end');
  return { result: comparable(outcome.result), last: outcome.result.resumed.at(-1) };
}

test('it goes on to the same answer, and reads each pack once', async () => {
  const store = await copyWithout('', null);
  expect(await ended(store)).toMatchObject({ result: whole, last: { outcome: 'restored', reason: null } });
  const reads = store.log.filter(({ kind, key }) => kind === 'get' && /\/[st]\//.test(key)).map(({ key }) => key);
  expect(reads.filter((key) => key.includes('-w-')).length).toBeGreaterThan(1);
  expect(new Set(reads).size).toBe(reads.length);
});

test('nothing of it is missing, and the garbage that is listed is what a collection takes away', async () => {
  const store = await copyWithout('', null);
  const garbageOf = async () => {
    const { garbage, missing, bytes } = await anatomyOf(store, WHERE);
    expect(missing).toEqual([]);
    const sum = garbage.reduce((all, object) => all + object.bytes, 0);
    for await (const { content } of surveyJobs(store, WHERE.tenant)) expect(bytes - (content?.neededBytes ?? 0)).toBe(sum);
    return sum;
  };
  expect(await garbageOf()).toBeGreaterThan(0);
  await collectGarbage(store, WHERE);
  expect(await garbageOf()).toBe(0);
});

test('a chain that has ended keeps no pack of tails that the others have replaced', async () => {
  const { manifest } = await readJob(parked, WHERE);
  const [ended, running] = [manifest?.chains[2], manifest?.chains[0]];
  expect([ended?.finish, ended?.tails.length, running?.finish, running?.tails.length]).toEqual(['length', 1, null, 2]);
  expect(ended?.tails.map(({ object }) => manifest?.objects[object]?.pack)).toEqual([undefined]);
});

test('its archive has every object by itself, and so has the job that is made of it', async () => {
  const chunks: Buffer[] = [];
  await exportJob(await copyWithout('', null), WHERE, new Writable({ write: (chunk: Buffer, _, done) => { chunks.push(chunk); done(); } }), { keys: null });
  const store = new MemoryStore();
  await importJob(store, WHERE.tenant, () => Readable.from(chunks), { keys: null });
  const { manifest } = await readJob(store, WHERE);
  expect(manifest?.objects.filter(({ pack }) => pack !== undefined)).toEqual([]);
  expect(await ended(store)).toMatchObject({ result: whole, last: { outcome: 'restored', reason: null } });
});

/** What becomes of a pack's bytes when they are met by the object in them that lies at `at`; null: there are none. */
const DAMAGES: Readonly<Record<string, { readonly word: string; readonly of: (body: Uint8Array, at: number, other: Uint8Array) => Uint8Array | null }>> = {
  'with a byte flipped': { word: 'damaged', of: (body, at) => body.map((byte, i) => (i === at ? byte ^ 0x10 : byte)) },
  'cut in the middle': { word: 'truncated', of: (body) => body.subarray(0, body.byteLength >> 1) },
  'one byte short': { word: 'truncated', of: (body) => body.subarray(0, -1) },
  empty: { word: 'truncated', of: () => new Uint8Array(0) },
  'with the bytes of another': { word: 'damaged', of: (body, _, other) => Uint8Array.from(body, (_byte, i) => other[i % other.byteLength] ?? 0) },
  gone: { word: 'missing', of: () => null },
};

describe.each(Object.entries(DAMAGES))('a pack %s', (damage, { word, of }) => {
  test('costs an interval or a computation, never the answer, whichever object it meets', async () => {
    const { manifest } = await readJob(parked, WHERE);
    const inPacks = (manifest?.objects ?? []).filter(({ pack }) => pack !== undefined);
    expect(new Set(inPacks.map(({ name }) => name[0]))).toEqual(new Set(['s', 't']));
    const bytesOf = (key: string) => Uint8Array.from(parked.snapshot().get(key) ?? []);
    const keys = [...new Set(inPacks.map(({ pack }) => jobPrefix(WHERE) + (pack?.name ?? '')))];
    const reasons = new Set<string>();
    for (const { pack, bytes } of damage === 'with a byte flipped' ? inPacks : inPacks.filter(({ pack }) => pack?.at === 0)) {
      const key = jobPrefix(WHERE) + (pack?.name ?? '');
      const { result, last } = await ended(await copyWithout(key, of(bytesOf(key), (pack?.at ?? 0) + (bytes >> 1), bytesOf(keys.find((other) => other !== key) ?? key))));
      expect(result, `${key} ${pack?.at}`).toBe(whole);
      if (last?.reason != null) reasons.add(/^\w+/.exec(last.reason)?.[0] ?? '');
    }
    expect([...reasons]).toEqual([word]);
  });
});
