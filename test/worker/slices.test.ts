/** What lies between two slices of a job: what its worker has just read or left is not read again, and little is left to write when its time is over. */
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { Checkpointer, type CheckpointPolicy, DEFAULT_POLICY } from '../../engine/job/checkpointer.ts';
import { createJob } from '../../engine/kv/create.ts';
import { openKeys } from '../../engine/kv/seal.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { RunReport } from '../../engine/runtime/native.ts';
import { Running } from '../../engine/worker/running.ts';
import { Throughput } from '../../engine/worker/throughput.ts';
import { JOB, openTiny, stepTo } from '../failures/cut.ts';
import { ManualClock } from '../helpers/clock.ts';
import { through } from '../helpers/through.ts';
import { Bench, LONG, quiet, SHORT, whereIs } from './support.ts';

describe('between two slices', () => {
  test('head, manifest and spec are read once, then the head is swapped, and only then is what it names read, each object once; what was restored is not written again', async () => {
    await using bench = new Bench();
    const marks: { readonly kind: 'parked' | 'begun'; readonly at: number }[] = [];
    // Of more native calls than one, so that no machine is fast enough to end it in its first slice.
    const spec = { ...LONG, budget: { length: 300, width: 2 } };
    const where = await bench.submit('sums', spec, { send: false });
    bench.worker({
      policy: {}, sliceMs: 1, slots: 1, reconcileMs: 1e9,
      onEvent: ({ kind }) => void ((kind === 'parked' || kind === 'begun') && marks.push({ kind, at: bench.store.log.length })),
    });
    await bench.send('sums');
    await bench.event('ended', 'sums');
    const prefix = `kv/${where.tenant}/${where.job}/`;
    /** As `get HEAD` or `put t`. */
    const said = (from: number, to: number) => bench.store.log.slice(from, to).filter(({ key }) => key.startsWith(prefix)).map(({ kind, key }) => ({ what: `${kind} ${key.slice(prefix.length).split(/[/-]/)[0]}`, key }));
    const slices = marks.flatMap(({ kind, at }, i) => (kind === 'begun' && i > 0 ? [{ parked: marks[i - 1]?.at ?? 0, begun: at, next: marks[i + 1]?.at }] : []));
    expect(slices.length).toBeGreaterThan(0);
    for (const { parked, begun, next } of slices) {
      const calls = said(parked, begun);
      const [head, manifest, spec, swap, ...objects] = calls.map(({ what }) => what);
      expect([head, ...[manifest, spec].sort(), swap]).toEqual(['get HEAD', 'get m', 'get spec', 'put HEAD']);
      expect(objects.every((what) => ['get j', 'get s', 'get t'].includes(what))).toBe(true);
      expect(new Set(calls.slice(4).map(({ key }) => key)).size).toBe(objects.length);
      // Of the slice: its end, and nothing before it.
      if (next !== undefined) expect(said(begun, next).filter(({ what }) => what === 'put m')).toHaveLength(1);
    }
    expect(await bench.result('sums')).toEqual(await quiet(spec));
  });

  test.each([
    ['has the next message gives it back', ['first', 'second'], ['removed', 'released']],
    ['has none', ['first'], ['removed']],
  ])('the next message is not kept waiting while the last is removed, and a worker that drains waits for that; one that %s', async (_, jobs, settled) => {
    await using bench = new Bench();
    let remove: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (remove = resolve));
    const done: string[] = [];
    let received = 0;
    const worker = bench.worker({
      queue: through(bench.queue, {
        receive: async (options) => {
          const messages = await bench.queue.receive(options);
          received += messages.length;
          return messages;
        },
        remove: async (receipt, options) => {
          await held;
          // Whoever does not wait for it is through before it is.
          for (let turns = 0; turns < 100; turns++) await turn();
          await bench.queue.remove(receipt, options);
          done.push('removed');
        },
        release: async (...args) => {
          await bench.queue.release(...args);
          done.push('released');
        },
      }),
      slots: 1, reconcileMs: 1e9,
    });
    for (const job of jobs) await bench.submit(job, SHORT);
    await bench.event('ended', 'first');
    while (received < jobs.length) await turn();
    const drained = worker.drain({ deadlineMs: 600_000 });
    remove();
    expect(await drained).toBe(true);
    expect(done).toEqual(settled);
  });
});

/** A checkpointer over a run whose prompt has been fed, on a clock that stands still. */
async function checkpointed(policy: Partial<CheckpointPolicy>) {
  const store = new MemoryStore();
  const clock = new ManualClock();
  const engine = await openTiny();
  const where = whereIs('sums');
  await createJob(store, where, '{}');
  const lease = await takeJob(store, where, { owner: 'test' });
  const { layoutId, numericsId } = await engine.identity();
  const keys = await openKeys(null, where, null);
  const run = engine.createRun(JOB);
  await run.prefill();
  const near = { isNearEnd: false };
  const checkpointer = new Checkpointer({
    run, lease, seal: keys.own, wrapped: () => null, clock, policy: { ...DEFAULT_POLICY, ...policy }, slices: () => [], adopted: [], elapsedMs: 0, isNearEnd: () => near.isNearEnd,
    base: {
      layoutId, numericsId, modelId: 'tiny', step: 0, elapsedMs: 0, ended: null, slices: [], promptTokens: JOB.prompt.length, promptTail: null, journal: [], keys: null,
      chains: [...JOB.lengths].map(() => ({ tokens: 0, finish: null, segments: [], tails: [] })),
    },
  });
  /** The step that the store has; undefined: none. */
  const writtenAfter = async (step: number, ms: number) => {
    await stepTo(run, step);
    clock.advance(ms);
    await checkpointer.boundary(run.report());
    await checkpointer.drain();
    return lease.manifest?.step;
  };
  const dispose = () => {
    for (const each of [run, keys, engine]) each[Symbol.dispose]();
  };
  return { lease, near, checkpointer, writtenAfter, [Symbol.dispose]: dispose };
}

describe('a prompt that was fed at once', () => {
  const WIDTH = JOB.lengths.length;

  test('is written with what has come of it after a second, as if it had been written before', async () => {
    using waits = await checkpointed({});
    expect([await waits.writtenAfter(0, 0), await waits.writtenAfter(4, 500), await waits.writtenAfter(8, 499)]).toEqual([undefined, undefined, undefined]);
    expect(await waits.writtenAfter(8, 1)).toBe(8);
    using at = await checkpointed({ firstMs: 0 });
    expect(await at.writtenAfter(0, 0)).toBe(0);
    await at.writtenAfter(8, 1_000);
    await at.checkpointer.close('parked', null);
    const shape = ({ lease: { manifest } }: typeof at) => manifest === null ? null : {
      promptTail: manifest.promptTail !== null, journals: manifest.journal.length,
      chains: manifest.chains.map(({ tokens, segments, tails }) => ({ tokens, segments: segments.length, tails: tails.map(({ at: cut }) => cut) })),
    };
    expect(shape(waits)).toEqual(shape(at));
    expect(shape(waits)).toMatchObject({ promptTail: true, journals: 2, chains: Array.from({ length: WIDTH }, () => ({ tokens: 8 })) });
  });

  test.each(['parked', 'done'] as const)('is written with the end of a job that is %s before', async (state) => {
    using waits = await checkpointed({});
    expect(await waits.writtenAfter(0, 0)).toBe(undefined);
    await waits.writtenAfter(4, 100);
    await waits.checkpointer.close(state, null);
    expect(waits.lease.head).toMatchObject({ state, version: 2 });
    expect(waits.lease.manifest).toMatchObject({ step: 4, promptTail: expect.any(Number) as number, journal: [expect.any(Number), expect.any(Number)] as number[] });
  });

  test('goes with the next journal, which would be of no use without it; and one that took long is written at once', async () => {
    using told = await checkpointed({ journalMs: 100 });
    expect([await told.writtenAfter(0, 0), await told.writtenAfter(4, 100)]).toEqual([undefined, 4]);
    expect(told.lease.head.journal).toEqual([]);
    using slow = await checkpointed({});
    expect(await slow.writtenAfter(0, 251)).toBe(0);
  });
});

describe('near its end', () => {
  test('a slice that lasts long enough says so in its last fifth, five seconds at most', () => {
    for (const [sliceMs, nearMs] of [[10_000, 8_000], [600_000, 595_000], [3_000, Infinity]] as const) {
      const clock = new ManualClock();
      using running = new Running(whereIs('sums'), sliceMs, clock, new Throughput(clock));
      running.look({ step: 1, prefilled: true, chains: [] } as unknown as RunReport);
      const at = nearMs === Infinity ? sliceMs : nearMs;
      clock.advance(at - 1);
      expect(running.isNearEnd).toBe(false);
      clock.advance(1);
      expect(running.isNearEnd).toBe(nearMs !== Infinity);
    }
  });

  test('what is left for the next slice is not made smaller first, and what lies is', async () => {
    const tailBytes = async (isNearEnd: boolean): Promise<number> => {
      using slice = await checkpointed({ firstMs: 0 });
      await slice.writtenAfter(20, 0);
      slice.near.isNearEnd = isNearEnd;
      await slice.checkpointer.close('parked', null);
      const { manifest } = slice.lease;
      return (manifest?.chains ?? []).reduce((sum, { tails }) => sum + (manifest?.objects[tails.at(-1)?.object ?? -1]?.bytes ?? 0), 0);
    };
    expect(await tailBytes(true)).toBeGreaterThan(await tailBytes(false));
  });

  test('what there is is written once, unless little has come since the last write, and the rest at the end', async () => {
    using slice = await checkpointed({ firstMs: 0 });
    expect(await slice.writtenAfter(0, 0)).toBe(0);
    expect(await slice.writtenAfter(4, 5_000)).toBe(0);
    slice.near.isNearEnd = true;
    expect(await slice.writtenAfter(8, 0)).toBe(8);
    expect(await slice.writtenAfter(12, 5_000)).toBe(8);
    await slice.checkpointer.close('parked', null);
    expect(slice.lease.manifest?.step).toBe(12);
  });
});
