/**
 * Opening, using and closing does not grow the process. Method: after a warm-up in which allocators reach their size, a thousand
 * rounds may add a small part of what they would add if each leaked its weights (3.2 GB): a hundredth, and a twentieth where the
 * collector decides when.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';

import { bundledModel, expectCode, open, runOptions, tinyModel } from '../helpers/engine.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
const ROUNDS = 1000;

async function growthOf(round: () => Promise<void>): Promise<number> {
  for (let i = 0; i < ROUNDS / 5; ++i) await round();
  collect();
  const before = process.memoryUsage.rss();
  for (let i = 0; i < ROUNDS; ++i) await round();
  collect();
  return process.memoryUsage.rss() - before;
}

async function useOnce(close: boolean): Promise<void> {
  const engine = await open(bundledModel('cr4'), { threads: 2 });
  const run = engine.createRun(runOptions({ length: 4 }));
  await run.prefill();
  await run.step(4);
  const { weightBytes } = engine.memory();
  expect(weightBytes).toBeGreaterThan(1 << 20);
  if (close) {
    run.close();
    engine.close();
  }
}

const MIB = 1 << 20;

test(`${ROUNDS} cycles of open, run and close do not grow RSS`, { timeout: 600_000 }, async () => {
  expect(await growthOf(() => useOnce(true))).toBeLessThan(32 * MIB);
});

test(`${ROUNDS} engines and runs that nobody closes are collected`, { timeout: 600_000 }, async () => {
  let rounds = 0;
  const growth = await growthOf(async () => {
    await useOnce(false);
    if (++rounds % 20 === 0) {
      collect();
      // Finalizers run in a turn of their own.
      await new Promise((resolve) => setImmediate(resolve));
    }
  });
  expect(growth).toBeLessThan(160 * MIB);
});

test(`${ROUNDS} failed and ${ROUNDS} cancelled calls do not grow RSS`, { timeout: 600_000 }, async () => {
  // The slow one runs for seconds, so that the abort comes in the middle of it on a busy machine too; the other is told before it can be done.
  using slow = await open(bundledModel('cr4'), { backend: 'reference' });
  using fast = await open(bundledModel('cr4'));
  const ids = Int32Array.from({ length: 1000 }, (_, i) => i % 100);
  const growth = await growthOf(async () => {
    await expectCode('ERR_OPTION', () => open(tinyModel('tiny_qwen3_dms'), { overrides: [['window', 'no']] }));
    const [later, now] = [new AbortController(), new AbortController()];
    const passes = [slow.forward({ ids, promptLen: 0, chunk: 1 }, later.signal), fast.forward({ ids, promptLen: 0, chunk: 1 }, now.signal)];
    now.abort();
    setImmediate(() => later.abort());
    await Promise.all(passes.map((pass) => expectCode('ERR_CANCELLED', () => pass)));
  });
  expect(growth).toBeLessThan(32 * MIB);
});
