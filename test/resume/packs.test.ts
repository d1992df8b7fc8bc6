/** A job of many chains, whose cuts lie in packs: what is damaged in one costs what it would cost in an object of its own. */
import { Readable, Writable } from 'node:stream';

import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { exportJob } from '../../engine/checkpoint/export.ts';
import { importJob } from '../../engine/checkpoint/import.ts';
import { systemClock } from '../../engine/core/clock.ts';
import { runJob } from '../../engine/job/run.ts';
import { openSession } from '../../engine/job/session.ts';
import { readJob } from '../../engine/kv/create.ts';
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

test('its archive has every object by itself, and so has the job that is made of it', async () => {
  const chunks: Buffer[] = [];
  await exportJob(await copyWithout('', null), WHERE, new Writable({ write: (chunk: Buffer, _, done) => { chunks.push(chunk); done(); } }), { keys: null });
  const store = new MemoryStore();
  await importJob(store, WHERE.tenant, () => Readable.from(chunks), { keys: null });
  const { manifest } = await readJob(store, WHERE);
  expect(manifest?.objects.filter(({ pack }) => pack !== undefined)).toEqual([]);
  expect(await ended(store)).toMatchObject({ result: whole, last: { outcome: 'restored', reason: null } });
});

describe.each(['with a byte flipped', 'cut in the middle', 'gone'])('a pack %s', (damage) => {
  test('costs an interval or a computation, never the answer, whichever object it meets', async () => {
    const { manifest } = await readJob(parked, WHERE);
    const inPacks = (manifest?.objects ?? []).filter(({ pack }) => pack !== undefined);
    expect(new Set(inPacks.map(({ name }) => name[0]))).toEqual(new Set(['s', 't']));
    const reasons = new Set<string>();
    for (const { pack, bytes } of damage === 'with a byte flipped' ? inPacks : inPacks.filter(({ pack }) => pack?.at === 0)) {
      const key = jobPrefix(WHERE) + (pack?.name ?? '');
      const body = Uint8Array.from(parked.snapshot().get(key) ?? []);
      const at = (pack?.at ?? 0) + (bytes >> 1);
      body[at] = (body[at] ?? 0) ^ 0x10;
      const { result, last } = await ended(await copyWithout(key, damage === 'gone' ? null : damage === 'with a byte flipped' ? body : body.subarray(0, body.byteLength >> 1)));
      expect(result, `${key} ${pack?.at}`).toBe(whole);
      if (last?.reason != null) reasons.add(/^\w+/.exec(last.reason)?.[0] ?? '');
    }
    expect([...reasons]).toEqual([{ 'with a byte flipped': 'damaged', 'cut in the middle': 'truncated', gone: 'missing' }[damage]]);
  });
});
