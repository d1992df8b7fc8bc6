/** Runs of one engine that are in a call at the same time step together: nobody can tell but the clock. */
import { describe, expect, test } from 'vitest';

import type { NativeRun } from '../../engine/runtime/native.ts';
import { bundledModel, expectCode, open, runOptions } from '../helpers/engine.ts';

const CR8 = bundledModel('cr8');
const DELTA = { delta: true, epoch: 1, n: 0, codec: 'raw', digestKey: null, dataKey: null, context: '' } as const;
const SEEDS = Array.from({ length: 24 }, (_, seed) => BigInt(seed));
const jobOf = (seed: bigint) => runOptions({ seed, width: 1 + Number(seed % 3n), length: 40 + Number(seed) });

async function alone(seed: bigint): Promise<number[][]> {
  using engine = await open(CR8);
  using run = engine.createRun(jobOf(seed));
  await run.prefill();
  while (run.report().running > 0) await run.step(1000);
  return tokens(run);
}

describe('runs that step together', () => {
  test('come and go at any time and generate what each would alone', async () => {
    const golden = [];
    for (const seed of SEEDS) golden.push(await alone(seed));
    using engine = await open(CR8);
    const told = await Promise.all(SEEDS.map(async (seed) => {
      // They come one after another, while the others are in the middle of a call.
      for (let wait = 0; wait < Number(seed); ++wait) await new Promise(setImmediate);
      using run = engine.createRun(jobOf(seed));
      await run.prefill();
      while (run.report().running > 0) await run.step(1 + Number(seed % 5n) * 4);
      return tokens(run);
    }));
    expect(told).toEqual(golden);
    expect(engine.memory().kvAllocatedBytes).toBe(0);
  });

  test('generate it also while others are saved, shortened, given up and closed beside them', async () => {
    const golden = [];
    for (const seed of SEEDS) golden.push(await alone(seed));
    using engine = await open(CR8);
    const told = await Promise.all(SEEDS.map(async (seed) => {
      const kind = Number(seed % 4n);
      const run = engine.createRun({ ...jobOf(seed), checkpointed: kind === 1 });
      await run.prefill();
      for (let call = 0; run.report().running > 0; ++call) {
        if (kind === 1) await run.save(DELTA);
        if (kind === 2 && call === 3) run.end([0]);
        if (kind === 3) {
          const controller = new AbortController();
          setImmediate(() => controller.abort());
          await run.step(7, controller.signal).catch(() => undefined);
          if (call === 9) break;
        } else {
          await run.step(2 + Number(seed % 5n));
        }
      }
      const found = tokens(run);
      run.close();
      return found;
    }));
    for (const [i, seed] of SEEDS.entries()) {
      const [whole, found] = [golden[i] ?? [], told[i] ?? []];
      if (seed % 4n < 2n) expect(found).toEqual(whole);
      // What was cut short is the beginning of what it would have been.
      for (const [chain, ids] of found.entries()) expect(ids).toEqual(whole[chain]?.slice(0, ids.length));
    }
    expect(engine.memory().kvAllocatedBytes).toBe(0);
  });

  test('a call that is done is told while the others are in the middle of theirs', async () => {
    using engine = await open(CR8, { backend: 'reference' });
    // Of many seconds, so that it is in the middle of its call however slow the other's way to JS and back is.
    using long = engine.createRun(runOptions({ seed: 1n, width: 8, length: 900 }));
    using short = engine.createRun(runOptions({ seed: 2n, width: 1, length: 20 }));
    await Promise.all([long.prefill(), short.prefill()]);
    const controller = new AbortController();
    const call = long.step(900, controller.signal);
    while (short.report().running > 0) await short.step(1);
    controller.abort();
    await expectCode('ERR_CANCELLED', () => call);
  });

  test('lose nothing when some of them are aborted or closed in the middle of a call', async () => {
    const golden = [await alone(0n), await alone(1n), await alone(2n)];
    using engine = await open(CR8);
    const runs = await Promise.all([0n, 1n, 2n, 3n].map(async (seed) => {
      const run = engine.createRun(jobOf(seed));
      await run.prefill();
      return run;
    }));
    const [first, second, third, fourth] = runs as [NativeRun, NativeRun, NativeRun, NativeRun];
    const controller = new AbortController();
    const calls = [first.step(1000), second.step(1000, controller.signal), third.step(1000), fourth.step(1000)];
    calls.forEach((call) => call.catch(() => {}));
    await new Promise(setImmediate);
    controller.abort();
    fourth.close();
    const settled = await Promise.allSettled(calls);
    expect(settled[0]).toMatchObject({ status: 'fulfilled' });
    await expectCode('ERR_DISPOSED', () => fourth.report());
    for (const run of [first, second, third]) while (run.report().running > 0) await run.step(3);
    expect([first, second, third].map(tokens)).toEqual(golden);
    runs.forEach((run) => run.close());
    expect(engine.memory().kvAllocatedBytes).toBe(0);
  });
});

function tokens(run: NativeRun): number[][] {
  return run.report().chains.map((chain) => [...chain.tokens]);
}
