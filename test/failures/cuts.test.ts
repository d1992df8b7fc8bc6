/** KV.md 7, determinism: a run may be cut anywhere, as often as one likes. test/resume cuts whole jobs of real models; here it is tiny ones. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { readJob } from '../../engine/kv/create.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import type { NativeEngine, RunOptions } from '../../engine/runtime/native.ts';
import { essence, JOB, LENGTH, openTiny, slice, stepTo, toTheEnd, undisturbedRun } from './cut.ts';
import { HEAD_KEY, WHERE } from './support.ts';

let engine: NativeEngine;
beforeAll(async () => { engine = await openTiny(); });
afterAll(() => engine.close());

/** Two tokens make a character: C3 A9 is é. The stop string is two of them and a letter, five tokens. */
function inHalves(): RunOptions {
  const bytes = Uint8Array.from({ length: engine.info.vocabSize }, (_, token) => [0xc3, 0xa9, 0x61][token % 3] ?? 0);
  const offsets = Uint32Array.from({ length: bytes.length + 1 }, (_, i) => i);
  return { ...JOB, seed: 3n, stop: ['éa'], pieces: { bytes, offsets } };
}

describe('cut after every token, from none to the last', () => {
  test('across ring wraps, page seals and a chain that ends early, nothing is different and nothing is computed again', async () => {
    const golden = await undisturbedRun(engine, JOB);
    for (let n = 0; n <= LENGTH; n++) {
      const store = new MemoryStore();
      await slice(engine, JOB, store, (run) => stepTo(run, n));
      const { report, restored } = await slice(engine, JOB, store, toTheEnd);
      expect(essence(report), `cut at ${n}`).toEqual(golden);
      expect(restored, `cut at ${n}`).toMatchObject({ outcome: 'restored', reason: null, recomputed: 0 });
    }
  });

  test('in the middle of a character and of a stop string, it stops at the same byte', async () => {
    const job = inHalves();
    const golden = await undisturbedRun(engine, job);
    const stops = golden.chains.filter(({ finish }) => finish === 'stop');
    expect(stops.length).toBeGreaterThan(0);
    const last = Math.max(...golden.chains.map(({ tokens }) => tokens.length));
    for (let n = 0; n <= last; n++) {
      const store = new MemoryStore();
      await slice(engine, job, store, (run) => stepTo(run, n));
      expect(essence((await slice(engine, job, store, toTheEnd)).report), `cut at ${n}`).toEqual(golden);
    }
  });
});

test('a hundred slices of one token each: no drift, and what is stored stays of the size of the job', async () => {
  const job: RunOptions = { ...JOB, lengths: Int32Array.from([100, 15, 100]) };
  const golden = await undisturbedRun(engine, job);
  const [store, once] = [new MemoryStore(), new MemoryStore()];
  for (let n = 1; n <= 100; n++) {
    const { restored } = await slice(engine, job, store, (run) => stepTo(run, n));
    if (n > 1) expect(restored, `slice ${n}`).toMatchObject({ outcome: 'restored', reason: null, recomputed: 0 });
  }
  const { report } = await slice(engine, job, store, toTheEnd);
  expect(essence(report)).toEqual(golden);

  await slice(engine, job, once, toTheEnd);
  const liveBytes = async (of: MemoryStore): Promise<number> => {
    await collectGarbage(of, WHERE);
    return [...of.snapshot().values()].reduce((sum, bytes) => sum + bytes.byteLength, 0);
  };
  // A slice adds a journal and, where pages were sealed, a segment of frames of 4 KiB; never a copy of what is there.
  expect((await liveBytes(store)) - (await liveBytes(once))).toBeLessThan(100 * 20_000);
  const { manifest } = await readJob(store, WHERE);
  for (const { tails } of manifest?.chains ?? []) expect(tails.length).toBeLessThanOrEqual(2);
  expect(JSON.stringify(manifest).length).toBeLessThan(100 * 400);
  expect(store.snapshot().get(HEAD_KEY)?.byteLength).toBeLessThan(4_096);
});
