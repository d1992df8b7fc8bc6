/** Handles: who may use them when, what closing frees, and what an abort leaves behind. */
import { describe, expect, test } from 'vitest';

import { openEngine, type NativeRun } from '../../engine/runtime/native.ts';
import { bundledModel, engineOptions, expectCode, open, runOptions, tinyModel } from '../helpers/engine.ts';

const CR4 = bundledModel('cr4');
const FORWARD = { ids: Int32Array.from({ length: 64 }, (_, i) => i), promptLen: 32, chunk: 8 };
/** Takes the reference backend seconds: many slices of the native task. */
const LONG = { width: 4, length: 300 };

describe('closing', () => {
  test('twice is the same as once', async () => {
    const engine = await open(CR4);
    const run = engine.createRun(runOptions());
    run.close();
    run.close();
    engine.close();
    engine.close();
  });

  test('makes every later use ERR_DISPOSED', async () => {
    const engine = await open(CR4);
    const run = engine.createRun(runOptions());
    run.close();
    await expectCode('ERR_DISPOSED', () => run.prefill());
    await expectCode('ERR_DISPOSED', () => run.step(1));
    await expectCode('ERR_DISPOSED', () => run.report());
    await expectCode('ERR_DISPOSED', () => run.end([]));
    engine.close();
    await expectCode('ERR_DISPOSED', () => engine.memory());
    await expectCode('ERR_DISPOSED', () => engine.createRun(runOptions()));
    await expectCode('ERR_DISPOSED', () => engine.forward(FORWARD));
  });

  test('an engine leaves its open runs working', async () => {
    const golden = await tokensOf(runOptions());
    const engine = await open(CR4);
    using run = engine.createRun(runOptions());
    engine.close();
    await run.prefill();
    await run.step(1000);
    expect(tokens(run)).toEqual(golden);
  });

  test('a run during a call settles the call', async () => {
    using engine = await open(CR4, { backend: 'reference' });
    const run = engine.createRun(runOptions(LONG));
    await run.prefill();
    const call = run.step(1000);
    run.close();
    await expectCode('ERR_CANCELLED', () => call);
    await expectCode('ERR_DISPOSED', () => run.report());
    expect(engine.memory().kvAllocatedBytes).toBe(0);
  });

  test('an engine during a forward pass settles the pass', async () => {
    const engine = await open(CR4, { backend: 'reference' });
    const call = engine.forward({ ids: Int32Array.from({ length: 1000 }, (_, i) => i % 100), promptLen: 0, chunk: 1 });
    engine.close();
    await expectCode('ERR_CANCELLED', () => call);
  });

  test('a run gives its KV back', async () => {
    using engine = await open(CR4);
    const run = engine.createRun(runOptions());
    await run.prefill();
    expect(engine.memory().kvAllocatedBytes).toBeGreaterThan(0);
    run.close();
    expect(engine.memory().kvAllocatedBytes).toBe(0);
  });
});

describe('a second call on a busy handle', () => {
  test('is ERR_BUSY and leaves the first alone', async () => {
    const golden = await tokensOf(runOptions());
    using engine = await open(CR4);
    using run = engine.createRun(runOptions());
    const first = run.prefill();
    await expectCode('ERR_BUSY', () => run.prefill());
    await expectCode('ERR_BUSY', () => run.step(1, new AbortController().signal));
    await expectCode('ERR_BUSY', () => run.end([0]));
    await first;
    await run.step(1000);
    expect(tokens(run)).toEqual(golden);
  });

  test('is refused for two forward passes, and runs of the engine go on beside one', async () => {
    const golden = await tokensOf(runOptions());
    using engine = await open(CR4);
    using run = engine.createRun(runOptions());
    const pass = engine.forward(FORWARD);
    await expectCode('ERR_BUSY', () => engine.forward(FORWARD));
    await run.prefill();
    await Promise.all([run.step(1000), pass]);
    expect(tokens(run)).toEqual(golden);
  });

  test('aborting a refused call does not cancel the one in flight', async () => {
    using engine = await open(CR4);
    using run = engine.createRun(runOptions());
    const first = run.prefill();
    const controller = new AbortController();
    await expectCode('ERR_BUSY', () => run.prefill(controller.signal));
    controller.abort();
    await first;
  });

  test('report is never refused', async () => {
    using engine = await open(CR4, { backend: 'reference' });
    using run = engine.createRun(runOptions(LONG));
    await run.prefill();
    const call = run.step(40);
    expect(run.report()).toMatchObject({ step: 0, prefilled: true, running: LONG.width });
    await call;
    expect(run.report().step).toBe(40);
  });
});

describe('several at once', () => {
  test('runs of one engine give the tokens they give alone', async () => {
    const seeds = [1n, 2n, 3n, 4n, 5n, 6n];
    const golden = await Promise.all(seeds.map((seed) => tokensOf(runOptions({ seed }))));
    using engine = await open(CR4);
    const runs = seeds.map((seed) => engine.createRun(runOptions({ seed })));
    await Promise.all(runs.map(async (run) => {
      await run.prefill();
      for (let i = 0; i < 8; ++i) await run.step(4);
    }));
    expect(runs.map(tokens)).toEqual(golden);
    runs.forEach((run) => run.close());
  });

  test('engines over different models do not disturb each other', async () => {
    const directories = ['dense', 'cr2', 'cr8'].map(bundledModel);
    const golden = [];
    for (const directory of directories) golden.push(await tokensOf(runOptions(), directory));
    expect(await Promise.all(directories.map((directory) => tokensOf(runOptions(), directory)))).toEqual(golden);
  });

  test('ending chains of one run while another computes is seen at once and happens', async () => {
    using engine = await open(CR4, { backend: 'reference' });
    using busy = engine.createRun(runOptions(LONG));
    using other = engine.createRun(runOptions());
    await busy.prefill();
    await other.prefill();
    const call = busy.step(60);
    other.end([1, 2]);
    expect(other.report().running).toBe(2);
    expect(other.report().chains.map((chain) => chain.finish)).toEqual([null, 'ended', 'ended', null]);
    await other.step(5);
    await call;
    expect(other.report().chains.map((chain) => chain.tokens.length)).toEqual([5, 0, 0, 5]);
  });
});

describe('an abort', () => {
  test('settles a long step within a moment, and going on gives the same tokens', async () => {
    const golden = await tokensOf(runOptions(LONG));
    using engine = await open(CR4, { backend: 'reference' });
    using run = engine.createRun(runOptions(LONG));
    await run.prefill();
    for (let round = 0; round < 3; ++round) {
      const before = run.report().step;
      const controller = new AbortController();
      setTimeout(() => controller.abort(), 30);
      await expectCode('ERR_CANCELLED', () => run.step(1000, controller.signal));
      expect(run.report().step).toBeGreaterThanOrEqual(before);
      expect(run.report().step).toBeLessThan(LONG.length);
    }
    await run.step(1000);
    expect(tokens(run)).toEqual(golden);
  });

  test('during prefill loses nothing', async () => {
    const options = runOptions({ prompt: Int32Array.from({ length: 900 }, (_, i) => i % 100), prefillChunk: 1 });
    const golden = await tokensOf(options);
    using engine = await open(CR4, { backend: 'reference' });
    using run = engine.createRun(options);
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 20);
    await expectCode('ERR_CANCELLED', () => run.prefill(controller.signal));
    expect(run.report().prefilled).toBe(false);
    await run.prefill();
    await run.step(1000);
    expect(tokens(run)).toEqual(golden);
  });

  test('of a call that waits behind another settles before that one does', async () => {
    using engine = await open(CR4, { backend: 'reference' });
    using busy = engine.createRun(runOptions(LONG));
    using waiting = engine.createRun(runOptions());
    await busy.prefill();
    const order: string[] = [];
    const first = busy.step(200).then(() => order.push('first'));
    const controller = new AbortController();
    const second = waiting.prefill(controller.signal).catch(() => order.push('second'));
    controller.abort();
    await Promise.all([first, second]);
    expect(order).toEqual(['second', 'first']);
    await waiting.prefill();
  });

  test('of a forward pass leaves the engine usable and no KV behind', async () => {
    using engine = await open(CR4, { backend: 'reference' });
    const controller = new AbortController();
    const pass = engine.forward({ ids: Int32Array.from({ length: 1000 }, (_, i) => i % 100), promptLen: 0, chunk: 1 }, controller.signal);
    setTimeout(() => controller.abort(), 20);
    await expectCode('ERR_CANCELLED', () => pass);
    expect(engine.memory().kvAllocatedBytes).toBe(0);
    await engine.forward(FORWARD);
  });

  test('before the call starts nothing', async () => {
    const signal = AbortSignal.abort();
    await expectCode('ERR_CANCELLED', () => openEngine(engineOptions(CR4), signal));
    using engine = await open(CR4);
    using run = engine.createRun(runOptions());
    await expectCode('ERR_CANCELLED', () => engine.forward(FORWARD, signal));
    await expectCode('ERR_CANCELLED', () => run.prefill(signal));
    expect(run.report().prefilled).toBe(false);
  });

  test('of opening settles at once', async () => {
    const controller = new AbortController();
    const opening = openEngine(engineOptions(CR4), controller.signal);
    controller.abort();
    await expectCode('ERR_CANCELLED', () => opening);
  });
});

describe('order of calls', () => {
  test('a step before prefill is refused, a prefill after prefill does nothing', async () => {
    using engine = await open(tinyModel('tiny_qwen3_dms'));
    using run = engine.createRun(runOptions());
    await expectCode('ERR_OPTION', () => run.step(1));
    await run.prefill();
    const before = run.report();
    await run.prefill();
    expect(run.report()).toEqual(before);
  });

  test('a step after the last token does nothing', async () => {
    using engine = await open(tinyModel('tiny_qwen3_dms'));
    using run = engine.createRun(runOptions({ length: 3 }));
    await run.prefill();
    await run.step(1000);
    const before = run.report();
    expect(before.chains.map((chain) => chain.finish)).toEqual(['length', 'length', 'length', 'length']);
    await run.step(1000);
    expect(run.report()).toEqual(before);
  });
});

function tokens(run: NativeRun): number[][] {
  return run.report().chains.map((chain) => [...chain.tokens]);
}

async function tokensOf(options: ReturnType<typeof runOptions>, directory = CR4): Promise<number[][]> {
  using engine = await open(directory);
  using run = engine.createRun(options);
  await run.prefill();
  while (run.report().running > 0) await run.step(64);
  return tokens(run);
}
