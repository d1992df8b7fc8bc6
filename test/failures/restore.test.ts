/** KV.md 7, restore: one that fails or is cancelled leaves nothing behind, one that succeeds was used, and neither disturbs its neighbours. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { readJob } from '../../engine/kv/create.ts';
import type { MemoryToPrepare, NativeEngine, PreparedMemory, RestoreOptions } from '../../engine/runtime/native.ts';
import { changed } from '../resume/jobs.ts';
import { COMPUTING_IS_CHEAPER, essence, JOB, openTiny, slice, stepTo, toTheEnd, undisturbedRun } from './cut.ts';
import { begin, errorOf, expectUndisturbed, refused, resume, WHERE } from './support.ts';

const CUT = 30;
let engine: NativeEngine;
let golden: ReturnType<typeof essence>;
let store: MemoryStore;
beforeAll(async () => {
  engine = await openTiny();
  golden = await undisturbedRun(engine, JOB);
});
afterAll(() => engine.close());
beforeEach(async () => {
  store = new MemoryStore();
  await slice(engine, JOB, store, (run) => stepTo(run, CUT));
});

/** What `restore` asks of the engine for the job as it is stored. */
async function asked(): Promise<RestoreOptions> {
  let options: RestoreOptions | null = null;
  const spy: NativeEngine = changed(engine, {
    restoreRun: (given: RestoreOptions) => { options = given; return engine.restoreRun(given); },
  });
  const copy = new MemoryStore();
  for (const [key, bytes] of store.snapshot()) await copy.put(key, [bytes]);
  await slice(engine, JOB, copy, () => Promise.resolve(), { engine: spy });
  if (options === null) throw new Error('nothing was restored');
  return options;
}

/** The last byte of an object's last frame flipped: all that comes before it has been read and believed by then. */
function damagedDeep(chunks: readonly Uint8Array[]): Uint8Array {
  const bytes = Buffer.concat(chunks.map((chunk) => Buffer.from(chunk)));
  const indexOffset = Number(bytes.readBigUInt64LE(bytes.byteLength - 64));
  bytes[indexOffset - 1] = (bytes[indexOffset - 1] ?? 0) ^ 1;
  return bytes;
}

test('every object of a restore damaged in turn, in its last layer: refused, no memory kept, and the run beside it goes on', async () => {
  const options = await asked();
  expect(options.objects.length).toBeGreaterThan(3);
  using beside = engine.createRun(JOB);
  await beside.prefill();
  for (const i of options.objects.keys()) {
    const before = engine.memory().kvAllocatedBytes;
    const objects = options.objects.map((object, j) => (i === j ? { ...object, chunks: [damagedDeep(object.chunks)] } : object));
    expect(await errorOf(engine.restoreRun({ ...options, objects }))).toMatchObject(refused('damaged'));
    expect(engine.memory().kvAllocatedBytes).toBe(before);
    // Whatever was freed is used again by those who stay.
    await beside.step(2);
  }
  await stepTo(beside, 1_000_000);
  expect(essence(beside.report())).toEqual(golden);
});

test('two restores of one checkpoint in one process: two runs that go on alike', async () => {
  const options = await asked();
  const runs = await Promise.all([engine.restoreRun(options), engine.restoreRun(options)]);
  try {
    await Promise.all(runs.map((run) => run.prefill()));
    await Promise.all(runs.map((run) => stepTo(run, 1_000_000)));
    for (const run of runs) expect(essence(run.report())).toEqual(golden);
  } finally {
    for (const run of runs) run.close();
  }
  await slice(engine, JOB, store, toTheEnd);
});

test('the memory of a restore is prepared while it is read: of the segments and tails that are, and nothing of it stays if they are damaged', async () => {
  const prepared: { given: MemoryToPrepare; memory: PreparedMemory }[] = [];
  const restores: { options: RestoreOptions; memory: PreparedMemory | null | undefined }[] = [];
  const watched = changed(engine, {
    prepareRestore: (given) => {
      const memory = engine.prepareRestore(given);
      prepared.push({ given, memory });
      return memory;
    },
    restoreRun: async (options, signal, memory) => {
      await memory?.done;
      restores.push({ options, memory });
      return await engine.restoreRun(options, signal, memory);
    },
  });
  const before = engine.memory().kvAllocatedBytes;
  const damaged = new MemoryStore();
  for (const [key, bytes] of store.snapshot()) await damaged.put(key, [/\/t\//.test(key) ? damagedDeep([bytes]) : bytes]);
  const { restored, report } = await slice(watched, JOB, damaged, toTheEnd);
  expect(restored).toMatchObject({ outcome: 'recomputed' });
  expect(essence(report)).toEqual(golden);
  expect(engine.memory().kvAllocatedBytes).toBe(before);
  const [{ options, memory }] = restores as [(typeof restores)[number]];
  expect(memory).toBe(prepared[0]?.memory);
  const segments = new Set([...options.chains.flatMap((chain) => chain.segments), ...options.promptSegments]);
  expect(segments.size).toBeGreaterThan(1);
  expect(prepared[0]?.given).toMatchObject({
    segmentBytes: options.objects.reduce((sum, { bytes }, i) => sum + (segments.has(i) ? bytes : 0), 0),
    caches: options.chains.filter(({ tail }) => tail !== null).length + (options.promptTail === null ? 0 : 1),
  });
  // What computes again from the prompt alone has nothing to prepare.
  expect(restores.at(-1)?.memory).toBeNull();
});

test('a restore that is cancelled while it reads, at whichever object, keeps no memory and changes no manifest', async () => {
  const before = engine.memory().kvAllocatedBytes;
  for (let n = 0; ; n++) {
    const stop = new AbortController();
    let reads = 0;
    const aborting = new MemoryStore({ before: ({ kind, key }) => { if (kind === 'get' && /\/[stj]\//.test(key) && reads++ === n) stop.abort(); } });
    for (const [key, bytes] of store.snapshot()) await aborting.put(key, [bytes]);
    const { manifest } = await readJob(aborting, WHERE);
    const ended = slice(engine, JOB, aborting, toTheEnd, { signal: stop.signal });
    const error: unknown = await ended.then(() => null, (reason: unknown) => reason);
    expect(engine.memory().kvAllocatedBytes).toBe(before);
    if (error === null) break;
    expect(error).toMatchObject({ code: 'ERR_CANCELLED' });
    expect((await readJob(aborting, WHERE)).manifest).toEqual(manifest);
    expect(essence((await slice(engine, JOB, aborting, toTheEnd)).report)).toEqual(golden);
  }
});

test('one that is cancelled while tokens are fed again keeps no memory either', async () => {
  const before = engine.memory().kvAllocatedBytes;
  const stop = new AbortController();
  const aborting: NativeEngine = changed(engine, {
    restoreRun: async (given: RestoreOptions) => {
      const run = await engine.restoreRun(given);
      stop.abort();
      return run;
    },
  });
  expect(await errorOf(slice(engine, JOB, store, toTheEnd, { engine: aborting, ...COMPUTING_IS_CHEAPER, signal: stop.signal }))).toMatchObject({ code: 'ERR_CANCELLED' });
  expect(engine.memory().kvAllocatedBytes).toBe(before);
  expect(essence((await slice(engine, JOB, store, toTheEnd)).report)).toEqual(golden);
});

describe('what a restore says is what it did', () => {
  test('restored: no token is fed again, and the step is where it was cut', async () => {
    let atOnce = { step: -1, caughtUp: -1 };
    const { restored, report } = await slice(engine, JOB, store, async (run) => {
      const { step, caughtUp } = run.report();
      atOnce = { step, caughtUp };
      await stepTo(run, 1_000_000);
    });
    expect(restored).toMatchObject({ outcome: 'restored', reason: null, recomputed: 0 });
    expect([atOnce, report.caughtUp]).toEqual([{ step: CUT, caughtUp: 0 }, 0]);
  });

  test('recomputed, where computing is cheaper than reading: no page or tail is read, every token is fed again, the answer is the same', async () => {
    const before = store.log.length;
    const { restored, report } = await slice(engine, JOB, store, toTheEnd, COMPUTING_IS_CHEAPER);
    expect(essence(report)).toEqual(golden);
    // Two chains ran at the cut; the third had ended and is not computed again.
    expect(restored).toMatchObject({ outcome: 'recomputed', recomputed: 2 * CUT });
    expect(store.log.slice(before).filter(({ kind, key }) => kind === 'get' && /\/[st]\//.test(key))).toEqual([]);
  });

  test('replayed, as where another processor goes on: decisions and tokens are those of the journal', async () => {
    const { restored, report } = await slice(engine, JOB, store, toTheEnd, { replay: true });
    expect(restored).toMatchObject({ outcome: 'replayed' });
    expect(restored?.recomputed).toBeGreaterThan(0);
    expect(essence(report).chains).toEqual(golden.chains);
  });

  test('with a tail gone the one before it is used, and the tokens between are fed again', async () => {
    await slice(engine, JOB, store, (run) => stepTo(run, CUT + 6));
    const { manifest } = await readJob(store, WHERE);
    const newest = manifest?.chains.flatMap(({ tails }) => tails.slice(-1)).map(({ object }) => manifest.objects[object]?.name ?? '') ?? [];
    await store.delete(newest.map((name) => `kv/acme/sums/${name}`));
    const { restored, report } = await slice(engine, JOB, store, toTheEnd);
    expect(essence(report)).toEqual(golden);
    expect(restored).toMatchObject({ outcome: 'restored', reason: expect.stringMatching(/^missing: /) as string, recomputed: 2 * 6 });
  });
});

test('a layout of another type or page size is refused before a page is read', async () => {
  for (const changes of [{ kv: 'bf16' }, { pageSlots: 8 }] as const) {
    using other = await openTiny(changes);
    const before = other.memory().kvAllocatedBytes;
    expect(await errorOf(other.restoreRun(await asked()))).toMatchObject(refused('layout'));
    expect(other.memory().kvAllocatedBytes).toBe(before);
  }
});

test('a job whose chains have all ended has nothing to go on with, and says so without an error', async () => {
  await slice(engine, JOB, store, toTheEnd);
  const { report, restored } = await slice(engine, JOB, store, toTheEnd);
  expect(essence(report)).toEqual(golden);
  expect([report.running, restored?.recomputed]).toEqual([0, 0]);
});

test('a job that was taken and died before its first commit begins again', async () => {
  const dying = new MemoryStore({ before: ({ kind, actor, key }) => { if (actor === 'victim' && kind === 'put' && key.includes('/t/')) throw new Error('killed'); } });
  await expect(begin({ store: dying.as('victim') })).rejects.toThrow('killed');
  const { resumed } = await expectUndisturbed(await resume({ store: dying }));
  expect(resumed).toEqual([]);
});

test('a limit of memory that a restored run passes ends its chains with what they thought', async () => {
  const { report } = await slice(engine, { ...JOB, memoryLimitBytes: 1 }, store, toTheEnd);
  expect(report.chains.map(({ finish }) => finish)).toContain('memory');
  for (const [i, { tokens }] of report.chains.entries()) expect(golden.chains[i]?.tokens.slice(0, tokens.length)).toEqual([...tokens]);
});
