/** The law of bits (docs/NUMERICS.md) as a run shows it: its tokens. test/slow/bits.test.ts and native/test/bits_test.cc compare bytes. */
import { describe, expect, test } from 'vitest';

import { nativeInfo, type EngineOptions } from '../../engine/runtime/native.ts';
import { bundledModel, GREEDY, open, runOptions } from '../helpers/engine.ts';

const LAYOUTS: readonly Partial<EngineOptions>[] = [1, 2].flatMap((threads) => [4, 64].map((pageSlots) => ({ threads, pageSlots })));
const { isas } = nativeInfo();

describe('tokens of a run', () => {
  const settings: readonly Partial<EngineOptions>[] = [
    { backend: 'reference' },
    ...isas.flatMap((isa) => LAYOUTS.map((layout) => ({ isa, ...layout }))),
  ];

  test('are the same on every backend, level, thread count and page size', async () => {
    const golden = await generate(settings[0]!, {});
    for (const setting of settings.slice(1)) expect(await generate(setting, {}), JSON.stringify(setting)).toEqual(golden);
  });

  test('do not depend on the prefill chunk or on the other chains', async () => {
    const golden = await generate({}, {});
    expect(await generate({}, { prefillChunk: 3 })).toEqual(golden);
    for (let chain = 0; chain < 4; ++chain) expect(await generate({}, { width: 1, firstChain: chain })).toEqual([golden[chain]]);
  });

  test('at temperature 0 are the arg max of a teacher-forced pass over them', async () => {
    using engine = await open(bundledModel('cr4'));
    using run = engine.createRun(runOptions({ width: 1, sampling: GREEDY, length: 64 }));
    await run.prefill();
    await run.step(64);
    const { prompt } = runOptions();
    const tokens = run.report().chains[0]!.tokens;
    const ids = Int32Array.from([...prompt, ...tokens]);
    const { logits } = await engine.forward({ ids, promptLen: ids.length, chunk: 17 });
    const vocab = engine.info.vocabSize;
    tokens.forEach((token, i) => {
      const row = logits.subarray((prompt.length + i - 1) * vocab, (prompt.length + i) * vocab);
      expect(row.indexOf(Math.max(...row))).toBe(token);
    });
  });
});

async function generate(options: Partial<EngineOptions>, changes: Parameters<typeof runOptions>[0]): Promise<number[][]> {
  using engine = await open(bundledModel('cr4'), options);
  using run = engine.createRun(runOptions({ length: 48, ...changes }));
  await run.prefill();
  await run.step(48);
  return run.report().chains.map((chain) => [...chain.tokens]);
}
