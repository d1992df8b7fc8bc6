/**
 * The engine gives the logits, decisions, live counts and KV reads of the oracle (test/fixtures/README.md), on every backend and
 * however the ids are fed.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

import type { BackendName } from '../../engine/runtime/native.ts';
import { fixture, open, tinyModel } from '../helpers/engine.ts';
import { readSafetensors } from '../helpers/safetensors.ts';

const TOLERANCE = 1e-3;
const BACKENDS: readonly BackendName[] = ['reference', 'cpu'];
/** How the ids are fed: all at once, in odd chunks, and the prompt of 96 followed by single tokens, and single tokens only. */
const FEEDS = [
  { name: 'one shot', promptLen: (count: number) => count, chunk: 4096 },
  { name: 'chunks of 17', promptLen: (count: number) => count, chunk: 17 },
  { name: 'prompt, then decode', promptLen: () => 96, chunk: 17 },
  { name: 'decode only', promptLen: () => 0, chunk: 1 },
];

const DENSE = [
  { model: 'tiny_qwen3', file: 'dense_qwen3', ids: 'all_ids', logits: 'logits' },
  { model: 'tiny_qwen3_sharded', file: 'dense_qwen3', ids: 'all_ids', logits: 'logits' },
  { model: 'tiny_qwen3_tied_bf16', file: 'dense_qwen3_tied_bf16', ids: 'prompt_ids', logits: 'logits_f32_of_bf16_weights' },
  { model: 'tiny_llama31', file: 'dense_llama31', ids: 'all_ids', logits: 'logits' },
  { model: 'tiny_qwen2', file: 'dense_qwen2', ids: 'all_ids', logits: 'logits' },
];

const DMS = [
  { file: 'dms_borrowed_w8', model: 'tiny_qwen3_dms', overrides: [] },
  { file: 'dms_borrowed_w3', model: 'tiny_qwen3_dms', overrides: [['window', '3']] },
  { file: 'dms_separate_head_w8', model: 'tiny_qwen3_dms_separate', overrides: [] },
  { file: 'dms_separate_layer_w8', model: 'tiny_qwen3_dms_separate', overrides: [['alpha_per', 'layer']] },
] as const;

/** The prompt is dense and its end known, so only feeds with the oracle's prompt. */
const KVZAP = ['linear_decode', 'linear_prefill', 'mlp_decode', 'mlp_prefill'];

describe.each(BACKENDS)('on the %s backend', (backend) => {
  describe.each(DENSE)('dense $model', ({ model, file, ids, logits }) => {
    test.each(FEEDS)('fed as $name, its logits and greedy tokens are the oracle\'s', async ({ promptLen, chunk }) => {
      const oracle = readSafetensors(fixture(`${file}.safetensors`));
      using engine = await open(tinyModel(model), { backend, kv: 'f32' });
      const tokens = oracle.i32(ids);
      const result = await engine.forward({ ids: tokens, promptLen: promptLen(tokens.length), chunk });
      expect(maxDifference(result.logits, oracle.f32(logits))).toBeLessThan(TOLERANCE);
      if (ids === 'all_ids') expect(greedyTokens(result.logits, tokens.length)).toEqual([...tokens.subarray(96)]);
      expect(result.evictDecision).toBeNull();
      expect(result.peakTokens).toBe(tokens.length);
    });
  });

  describe.each(DMS)('$file', ({ file, model, overrides }) => {
    test.each(FEEDS)('fed as $name, logits, decisions, live counts and KV reads are the oracle\'s', async ({ promptLen, chunk }) => {
      const oracle = readSafetensors(fixture(`${file}.safetensors`));
      const numbers = JSON.parse(readFileSync(fixture(`${file}.json`), 'utf8')) as Record<string, number>;
      using engine = await open(tinyModel(model), { backend, overrides });
      const ids = oracle.i32('all_ids');
      const result = await engine.forward({ ids, promptLen: promptLen(ids.length), chunk });
      expect(maxDifference(result.logits, oracle.f32('logits'))).toBeLessThan(TOLERANCE);
      expect(result.evictDecision).toEqual(oracle.u8('evict_decision'));
      expect(result.liveCount).toEqual(oracle.i32('live_count'));
      expect(result.kvReadsAll).toBeCloseTo(numbers['kv_reads_all']!, 9);
      expect(result.peakTokens).toBeCloseTo(numbers['peak_tokens']!, 9);
      if (promptLen(ids.length) === 96) expect(result.kvReadsDecode).toBeCloseTo(numbers['kv_reads_decode']!, 9);
    });

    test('the keys left at the end are the ones the oracle shows to the last query', async () => {
      const oracle = readSafetensors(fixture(`${file}.safetensors`));
      using engine = await open(tinyModel(model), { backend, overrides });
      const ids = oracle.i32('all_ids');
      const { heads } = await engine.forward({ ids, promptLen: 96, chunk: 17 });
      const visible = oracle.u8('visible');
      const count = ids.length;
      heads.flat().forEach(({ positions }, head) => {
        const lastRow = visible.subarray((head * count + count - 1) * count, (head + 1) * count * count);
        expect([...positions]).toEqual([...lastRow].flatMap((seen, position) => (seen === 1 ? [position] : [])));
      });
    });
  });

  describe.each(KVZAP)('kvzap_%s', (name) => {
    test.each([17, 96])('fed in chunks of %i, then decoded, scores, masks and logits are the oracle\'s', async (chunk) => {
      const oracle = readSafetensors(fixture(`kvzap_${name}.safetensors`));
      const { tau, window, decoding } = JSON.parse(readFileSync(fixture(`kvzap_${name}.json`), 'utf8')) as { tau: number; window: number; decoding: boolean };
      const surrogate = tinyModel(`kvzap_${name.split('_')[0]}`);
      const overrides = Object.entries({ policy: 'kvzap', surrogate, threshold: `${tau}`, window: `${window}`, decode: `${decoding}` });
      using engine = await open(tinyModel('tiny_qwen3'), { backend, overrides });
      expect(engine.info.policy).toMatchObject({ name: 'kvzap', window, kvzap: { surrogate, kind: name.split('_')[0], decode: decoding } });
      const ids = oracle.i32('all_ids');
      const result = await engine.forward({ ids, promptLen: 96, chunk });
      expect(maxDifference(result.scores!, oracle.f32('scores'))).toBeLessThan(1e-4);
      expect([...result.evictDecision!]).toEqual([...oracle.f32('scores')].map((score) => (score < tau ? 1 : 0)));
      for (const logits of ['logits', 'logits_kvpress']) expect(maxDifference(result.logits, oracle.f32(logits))).toBeLessThan(TOLERANCE);
      const visible = oracle.u8('visible');
      const seen = Array.from({ length: visible.length / ids.length }, (_, row) => [...visible.subarray(row * ids.length, (row + 1) * ids.length)]);
      expect([...result.liveCount]).toEqual(seen.map((row) => row.reduce((a, b) => a + b, 0)));
      result.heads.flat().forEach(({ positions }, head) => {
        expect([...positions]).toEqual(seen[(head + 1) * ids.length - 1]!.flatMap((one, position) => (one === 1 ? [position] : [])));
      });
      expect(result.peakTokens).toBe(96);
    });
  });

  test('with eviction disabled nothing leaves the cache and no decision is set', async () => {
    const ids = readSafetensors(fixture('dms_borrowed_w8.safetensors')).i32('all_ids');
    using engine = await open(tinyModel('tiny_qwen3_dms'), { backend, overrides: [['disable_eviction', 'true']] });
    const result = await engine.forward({ ids, promptLen: 96, chunk: 17 });
    expect(result.evictDecision!.every((decision) => decision === 0)).toBe(true);
    expect(result.peakTokens).toBe(ids.length);
  });
});

/** The tokens that the logits choose after the prompt of 96 and after each token but the last: the ones the oracle decoded. */
function greedyTokens(logits: Float32Array, count: number): number[] {
  const vocab = logits.length / count;
  return Array.from({ length: count - 96 }, (_, i) => {
    const row = logits.subarray((95 + i) * vocab, (96 + i) * vocab);
    return row.indexOf(Math.max(...row));
  });
}

function maxDifference(actual: Float32Array, expected: Float32Array): number {
  expect(actual.length).toBe(expected.length);
  return actual.reduce((worst, value, i) => Math.max(worst, Math.abs(value - expected[i]!)), 0);
}
