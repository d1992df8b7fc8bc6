/**
 * The law of bits (docs/NUMERICS.md): the bytes of logits, K and V are a function of the tokens alone. The reference's one-shot
 * pass is the definition; everything else is compared with memcmp.
 */
import { describe, expect, test } from 'vitest';

import { nativeInfo, type EngineOptions, type KvType } from '../../engine/runtime/native.ts';
import { bitsOf, bundledModel, fixture, open, tinyModel } from '../helpers/engine.ts';
import { readSafetensors } from '../helpers/safetensors.ts';

const IDS = readSafetensors(fixture('dms_borrowed_w8.safetensors')).i32('all_ids');
/** Borrowed channels of weights that were never trained for it: about half of the tokens go. */
const DMS = [['policy', 'dms'], ['window', '8'], ['alpha_offset', '0']] as const;
const MODELS: readonly { model: string; directory: string; overrides?: EngineOptions['overrides'] }[] = [
  { model: 'tiny_qwen3', directory: tinyModel('tiny_qwen3') },
  { model: 'tiny_qwen3_tied_bf16', directory: tinyModel('tiny_qwen3_tied_bf16') },
  { model: 'tiny_qwen3_dms', directory: tinyModel('tiny_qwen3_dms') },
  { model: 'tiny_qwen3_dms_separate', directory: tinyModel('tiny_qwen3_dms_separate') },
  { model: 'tiny_llama31 with DMS', directory: tinyModel('tiny_llama31'), overrides: DMS },
  { model: 'tiny_qwen2 with DMS', directory: tinyModel('tiny_qwen2'), overrides: DMS },
  { model: 'countdown cr4', directory: bundledModel('cr4') },
];
const FEEDS = [
  { promptLen: IDS.length, chunk: 4096 },
  { promptLen: IDS.length, chunk: 17 },
  { promptLen: 96, chunk: 33 },
  { promptLen: 0, chunk: 1 },
];
const LAYOUTS: readonly Partial<EngineOptions>[] = [1, 2].flatMap((threads) => [4, 64].map((pageSlots) => ({ threads, pageSlots })));
const { isas } = nativeInfo();

describe.each(['f32', 'bf16'] as const)('with %s KV', (kv: KvType) => {
  describe.each(MODELS)('$model', ({ directory, overrides = [] }) => {
    test('the reference gives the same bytes however the tokens are fed and whatever the page size', async () => {
      const golden = await bits(directory, { backend: 'reference', kv, overrides }, FEEDS[0]!);
      for (const pageSlots of [4, 64]) {
        for (const feed of FEEDS) await expectBits(golden, directory, { backend: 'reference', kv, overrides, pageSlots }, feed);
      }
    });

    test.each(isas)('cpu %s gives the bytes of the reference for every thread count, page size and way of feeding', async (isa) => {
      const golden = await bits(directory, { backend: 'reference', kv, overrides }, FEEDS[0]!);
      for (const layout of LAYOUTS) {
        for (const feed of FEEDS) await expectBits(golden, directory, { backend: 'cpu', kv, overrides, isa, ...layout }, feed);
      }
    });
  });
});

test('f32 and bf16 KV are told apart, so the comparison above can fail', async () => {
  const f32 = await bits(tinyModel('tiny_qwen3_dms'), { kv: 'f32' }, FEEDS[0]!);
  const bf16 = await bits(tinyModel('tiny_qwen3_dms'), { kv: 'bf16' }, FEEDS[0]!);
  expect(f32.equals(bf16)).toBe(false);
});

async function bits(directory: string, options: Partial<EngineOptions>, feed: { promptLen: number; chunk: number }): Promise<Buffer> {
  using engine = await open(directory, options);
  return bitsOf(await engine.forward({ ids: IDS, ...feed }));
}

async function expectBits(golden: Buffer, directory: string, options: Partial<EngineOptions>, feed: { promptLen: number; chunk: number }) {
  const actual = await bits(directory, options, feed);
  // Not toEqual: a difference of megabytes takes minutes to print.
  expect(actual.equals(golden), `bytes differ: ${JSON.stringify({ ...options, ...feed })}`).toBe(true);
}
