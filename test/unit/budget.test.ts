import { describe, expect, test } from 'vitest';
import { type PlanInput, admit, cacheGeometry, cacheShape, defaultKvType, kvBytesPerToken, kvAllocatedBytes, kvReads, live, liveSum, pageBytes, peakTokens, plan, prefillReads, ringBytes, sharedTokens, usageOf } from '../../engine/job/budget.ts';
import type { ModelInfo, RunReport } from '../../engine/runtime/native.ts';
import { readReference } from './support.ts';

const DENSE = { window: 0, keptFraction: 1 };
const CR8 = { window: 16, keptFraction: 1 / 8 };

describe('live length and KV reads', () => {
  test('a chain keeps its window whole and the kept fraction of the rest', () => {
    expect(live(1, CR8)).toBe(1);
    expect(live(17, CR8)).toBe(17);
    expect(live(18, CR8)).toBe(17.125);
    expect(live(1_017, CR8)).toBe(17 + 125);
    expect(live(1_017, DENSE)).toBe(1_017);
  });

  test('hand-computed: 9 prompt tokens and 50 generated ones read 1,666 without eviction', () => {
    expect(kvReads(9, 50, DENSE)).toBe(1_666);
    expect(peakTokens(9, 50, DENSE)).toBe(58);
  });

  test('the first token costs no read and the last one is never fed', () => {
    expect(kvReads(9, 1, DENSE)).toBe(0);
    expect(kvReads(9, 2, DENSE)).toBe(10);
    expect(peakTokens(9, 1, DENSE)).toBe(9);
  });

  test('closed forms equal the sums they stand for', () => {
    for (const window of [0, 1, 3, 16]) {
      for (const keptFraction of [0.125, 0.25, 0.5, 1]) {
        const shape = { window, keptFraction };
        let sum = 0;
        for (let t = 1; t <= 80; t++) {
          sum += live(t, shape);
          expect(liveSum(t, shape)).toBe(sum);
        }
        for (const prompt of [1, 9, 30]) {
          for (const generated of [1, 2, 17, 50]) {
            let reads = 0;
            for (let i = 1; i < generated; i++) reads += live(prompt + i, shape);
            expect(kvReads(prompt, generated, shape)).toBe(reads);
          }
        }
      }
    }
  });

  test('under KVzap the prompt is dense and pruned once, whether or not generated tokens go too', () => {
    for (const pruning of ['after_prompt', 'prompt_only'] as const) {
      for (const window of [0, 3, 16]) {
        for (const keptFraction of [0.25, 1]) {
          const shape = { window, keptFraction, pruning };
          for (const prompt of [1, 9, 30]) {
            expect(prefillReads(prompt, shape)).toBe((prompt * (prompt + 1)) / 2);
            for (const generated of [1, 2, 17, 50]) {
              let reads = 0;
              let peak = prompt;
              for (let query = prompt; query < prompt + generated - 1; query++) {
                // Keys that the query at this position may not find: METHOD.md 2.2.
                const outside = Math.max(0, (pruning === 'prompt_only' ? Math.min(query, prompt) : query) - window);
                const seen = query + 1 - (1 - keptFraction) * outside;
                reads += seen;
                peak = Math.max(peak, seen);
              }
              expect(kvReads(prompt, generated, shape)).toBe(reads);
              expect(peakTokens(prompt, generated, shape)).toBe(peak);
            }
          }
        }
      }
    }
  });

  test('the longest and widest job is counted exactly', () => {
    const n = 1n << 20n;
    expect(BigInt(liveSum(Number(n), DENSE) * 256)).toBe(((n * (n + 1n)) / 2n) * 256n);
  });

  test('every dense reference run reads and peaks exactly as planned', () => {
    const runs = readReference()['countdown-0.8m'] ?? [];
    expect(runs.length).toBe(10);
    for (const { prompt_ids, generated_ids, kv_reads, peak_tokens } of runs) {
      expect(kvReads(prompt_ids.length, generated_ids.length, DENSE)).toBe(kv_reads);
      expect(peakTokens(prompt_ids.length, generated_ids.length, DENSE)).toBe(peak_tokens);
    }
  });
});

describe('plans', () => {
  const input: PlanInput = {
    promptTokens: 9, lengths: [100, 50], shape: CR8, geometry: { heads: 8, headDim: 32, elementBytes: 4, window: 16, pageSlots: 4 }, vocabSize: 128,
    bytesPerToken: 2_048, kvReadBudget: null, weightBytes: 3_000_000,
  };

  test('expected keeps the fraction of the card, worst keeps everything', () => {
    const quote = plan(input);
    expect(quote.expected.kv_reads).toBe(kvReads(9, 100, CR8) + kvReads(9, 50, CR8));
    expect(quote.worst.kv_reads).toBe(kvReads(9, 100, DENSE) + 1_666);
    expect(quote.expected.peak_kv_tokens).toBe(live(108, CR8) + live(58, CR8));
    expect(quote.worst.peak_kv_bytes).toBe((108 + 58) * 2_048);
    expect(quote.kv_reads_prefill).toBe(45);
  });

  test('a dense prompt is held alone, before its chains: bytes peak there or when they end, never both', () => {
    const shape = { window: 4, keptFraction: 0.25, pruning: 'after_prompt' } as const;
    // 404 tokens: 403 - 4 leave the window, a quarter stays: 24 full pages of 4 are shared.
    const long = plan({ ...input, shape, promptTokens: 404, lengths: [9, 9] });
    expect(long.expected.peak_kv_bytes).toBe(404 * 2_048);
    expect(long.expected.peak_kv_tokens).toBe(2 * 404);
    expect(long.kv_reads_prefill).toBe((404 * 405) / 2);
    const wide = plan({ ...input, shape, promptTokens: 404, lengths: Array.from({ length: 50 }, () => 9) });
    expect(wide.expected.peak_kv_bytes).toBe((50 * live(412, shape, 404) - 49 * 96) * 2_048);
    expect(long.worst.peak_kv_bytes).toBe((2 * 412 - 4 * Math.floor(399 / 4)) * 2_048);
  });

  test('full pages of the prompt are counted once however many chains share them', () => {
    // 100 - 17 = 83 tokens left the window; at k = 1/8 10.375 stay: two pages of 4.
    expect(sharedTokens(100, CR8, 4)).toBe(8);
    expect(sharedTokens(17, CR8, 4)).toBe(0);
    const quote = plan({ ...input, promptTokens: 100, lengths: [1, 1, 1] });
    expect(quote.expected.peak_kv_bytes).toBe(Math.ceil((3 * live(100, CR8) - 2 * 8) * 2_048));
  });

  test('a budget ends the plan at the last step that it pays for: tokens, reads, peaks and bytes are of that', () => {
    // Eight dense chains after 9 tokens: a step reads 80, then 88.
    const dense = { ...input, shape: DENSE, lengths: Array.from({ length: 8 }, () => 256) };
    expect(plan({ ...dense, kvReadBudget: 167 }).expected).toMatchObject({ completion_tokens: 16, kv_reads: 80, peak_kv_tokens: 80, peak_kv_bytes: (80 - 7 * 8) * 2_048 });
    expect(plan({ ...dense, kvReadBudget: 168 }).expected).toMatchObject({ completion_tokens: 24, kv_reads: 168, peak_kv_tokens: 88 });
    expect(plan({ ...dense, kvReadBudget: 168 }).expected.kv_allocated_bytes).toBe(plan({ ...dense, lengths: dense.lengths.map(() => 3) }).expected.kv_allocated_bytes);
    const { expected } = plan(dense);
    expect(expected.completion_tokens).toBe(8 * 256);
    expect(plan({ ...dense, kvReadBudget: expected.kv_reads }).expected).toEqual(expected);
    expect(plan({ ...dense, kvReadBudget: expected.kv_reads - 1 }).expected.completion_tokens).toBe(8 * 255);
    // The short one is at its end when the long one is cut.
    expect(plan({ ...input, shape: DENSE, kvReadBudget: 1_666 * 2 }).expected.completion_tokens).toBe(50 + 50);
    // If nothing is dropped, the budget is spent sooner.
    const poor = plan({ ...input, kvReadBudget: 1_000 });
    expect(poor.worst.completion_tokens).toBeLessThan(poor.expected.completion_tokens);
    expect(poor.worst.kv_reads).toBeLessThanOrEqual(1_000);
  });

  test('a budget that is divided ends each chain where its own share does', () => {
    // 10 + 11 reads are two steps: the first chain has one read more than the other.
    const quote = plan({ ...input, shape: DENSE, lengths: [9, 9], kvReadBudget: 41, kvReadShare: 20 });
    expect(quote.expected).toMatchObject({ completion_tokens: 3 + 2, kv_reads: 21 + 10, peak_kv_tokens: 11 + 10 });
  });

  test('a budget that cannot feed one token to each chain is refused with the numbers', () => {
    expect(plan({ ...input, kvReadBudget: 20 }).kv_read_budget).toBe(20);
    expect(() => plan({ ...input, kvReadBudget: 19 })).toThrow(expect.objectContaining({ code: 'ERR_BUDGET', message: expect.stringMatching(/2 chains.*reads 20; got 19/) }));
    // Chains of one token feed nothing: any budget pays for them.
    expect(plan({ ...input, lengths: [1, 1], kvReadBudget: 1 }).expected.kv_reads).toBe(0);
  });

  test('what does not fit the memory is refused with the numbers, what just fits is not', () => {
    const quote = plan(input);
    // Weights, rings and pages, two rows of logits, 9 + 100 + 50 tokens.
    const needed = 3_000_000 + quote.expected.kv_allocated_bytes + 4 * (2 * 128 + 159);
    expect(quote.expected.allocated_bytes).toBe(needed);
    expect(() => admit(quote, needed)).not.toThrow();
    expect(() => admit(quote, needed - 1)).toThrow(expect.objectContaining({ code: 'ERR_MEMORY', message: expect.stringContaining(`${needed} bytes`) }));
  });

  test('rings and pages are those of native/cache: padded, whole, and each head\'s own', () => {
    const { geometry } = input;
    // 17 slots: K 32 x 32, V 17 x 32, flags 17; 6,289 bytes to the next 64.
    expect(ringBytes(geometry)).toBe(6_336);
    // 4 slots: K 32 x 16, V 4 x 32, positions 4 x 4: 2,576 to 2,624.
    expect(pageBytes(geometry)).toBe(2_624);
    // 64 slots of 128 at 2 bytes: 32,768 + 256.
    expect(pageBytes({ heads: 1, headDim: 128, elementBytes: 2, window: 0, pageSlots: 64 })).toBe(33_024);
    // 108 tokens: 91 left the ring, 23 pages; 58 tokens: 41, 11 pages; the prompt has none to share.
    expect(kvAllocatedBytes(9, [100, 50], { ...CR8, keptFraction: 1 }, geometry)).toBe(8 * (2 * 6_336 + (23 + 11) * 2_624));
    // 100 tokens of prompt: 83 left the ring, 20 full pages are shared by three chains of 21 each.
    expect(kvAllocatedBytes(100, [1, 1, 1], { ...CR8, keptFraction: 1 }, geometry)).toBe(8 * (3 * 6_336 + (3 * 21 - 2 * 20) * 2_624));
    const policy = { name: 'dms_borrowed', window: 16 } as ModelInfo['policy'];
    expect(cacheGeometry({ layers: 4, kvHeads: 2, headDim: 32, policy }, 'f32', 4)).toEqual(geometry);
  });

  test('a ring that no token fills is counted whole', () => {
    const shape = { window: 300_000, keptFraction: 1 / 8 };
    const quote = plan({ ...input, shape, geometry: { ...input.geometry, window: 300_000 }, lengths: [2, 2, 2] });
    expect(quote.expected.peak_kv_bytes).toBe(30 * 2_048);
    expect(quote.expected.kv_allocated_bytes).toBeGreaterThan(3 * 8 * 300_000 * 256);
    expect(() => admit(quote, 10_000_000)).toThrow(expect.objectContaining({ code: 'ERR_MEMORY', message: expect.stringContaining('window of 300000') }));
  });

  test('KV bytes of a token: K and V of every layer and head', () => {
    expect(kvBytesPerToken({ layers: 36, kvHeads: 8, headDim: 128 }, 'bf16')).toBe(147_456);
    expect(kvBytesPerToken({ layers: 4, kvHeads: 2, headDim: 32 }, 'f32')).toBe(2_048);
    expect(defaultKvType({ weightType: 'f16' })).toBe('bf16');
  });

  test('the shape comes from the card, else from the checkpoint, and is dense when nothing is evicted', () => {
    const policy = { name: 'dms_borrowed', window: 16, targetCr: 8, disableEviction: false, kvzap: null } as ModelInfo['policy'];
    expect(cacheShape({ policy }, 0.2)).toEqual({ window: 16, keptFraction: 0.2 });
    expect(cacheShape({ policy }, null)).toEqual({ window: 16, keptFraction: 0.125 });
    expect(cacheShape({ policy: { ...policy, disableEviction: true } }, 0.2)).toEqual(DENSE);
    expect(cacheShape({ policy: { ...policy, name: 'dense' } }, 0.2)).toEqual(DENSE);
    const kvzap = { ...policy, name: 'kvzap', window: 128, targetCr: 1, kvzap: { surrogate: 'somewhere', kind: 'mlp', threshold: -4, decode: false } } as const;
    expect(cacheShape({ policy: kvzap }, null)).toEqual({ window: 128, keptFraction: 1, pruning: 'prompt_only' });
    expect(cacheShape({ policy: { ...kvzap, kvzap: { ...kvzap.kvzap, decode: true } } }, 0.3)).toEqual({ window: 128, keptFraction: 0.3, pruning: 'after_prompt' });
  });
});

describe('usage', () => {
  const chain = { tokens: Int32Array.of(5, 6, 7), logprobs: null, finish: 'stop', stopBytes: null, liveSum: 40, peakSum: 48, decodePeakSum: 48, readSum: 80, denseReadSum: 160, fed: 11 } as const;
  const report: RunReport = { step: 3, prefilled: true, prefillReadSum: 360, sharedSum: 8, headCount: 8, running: 0, caughtUp: 0, chains: [chain, { ...chain, peakSum: 56, decodePeakSum: 56 }] };

  test('sums over heads become means, summed over chains, with the prompt pages once', () => {
    expect(usageOf(report, 9, 2_048)).toEqual({
      prompt_tokens: 9, completion_tokens: 6, kv_reads: 20, kv_reads_prefill: 45, peak_kv_tokens: 13, peak_kv_bytes: (13 - 1) * 2_048,
      compression_ratio: 22 / 10, read_ratio: 2,
    });
  });

  test('a prompt that was held before it was pruned is counted once, not for each chain', () => {
    const chains = [{ ...chain, peakSum: 720, decodePeakSum: 100 }, { ...chain, peakSum: 720, decodePeakSum: 96 }];
    expect(usageOf({ ...report, chains }, 90, 2_048)).toMatchObject({ peak_kv_tokens: 180, peak_kv_bytes: 90 * 2_048 });
    const wide = Array.from({ length: 9 }, () => ({ ...chain, peakSum: 720, decodePeakSum: 100 }));
    expect(usageOf({ ...report, chains: wide }, 90, 2_048).peak_kv_bytes).toBe(((900 - 8 * 8) / 8) * 2_048);
  });

  test('a job without a single read has ratio 1', () => {
    const idle = { ...chain, readSum: 0, denseReadSum: 0, liveSum: 0 };
    expect(usageOf({ ...report, chains: [idle] }, 9, 2_048)).toMatchObject({ read_ratio: 1, compression_ratio: 1, kv_reads: 0 });
  });
});
