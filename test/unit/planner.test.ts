import { describe, expect, test } from 'vitest';

import { isRecomputingCheaper, readMs } from '../../engine/job/planner.ts';

const FAST = { bytes: 8 << 20, ms: 8, objects: 4 };
const SLOW = { bytes: 8 << 20, ms: 8_000, objects: 4 };

describe('the planner', () => {
  test('reads a checkpoint where computing again is not known to be faster', () => {
    expect(isRecomputingCheaper({ bytes: 1 << 30, tokens: 10, measured: SLOW, prefillTokensPerSecond: null })).toBe(false);
    expect(isRecomputingCheaper({ bytes: 100 << 20, tokens: 32_000, measured: FAST, prefillTokensPerSecond: 900 })).toBe(false);
  });

  test('computes again where the store is slower than that', () => {
    expect(isRecomputingCheaper({ bytes: 100 << 20, tokens: 1_000, measured: SLOW, prefillTokensPerSecond: 900 })).toBe(true);
    // The same job on a store as fast as memory.
    expect(isRecomputingCheaper({ bytes: 100 << 20, tokens: 1_000, measured: FAST, prefillTokensPerSecond: 900 })).toBe(false);
  });

  test('takes the width of a line from what was read of it only if that was enough to tell', () => {
    const wide = readMs({ bytes: 64 << 20, measured: { bytes: 4 << 20, ms: 4, objects: 1 } });
    const unknown = readMs({ bytes: 64 << 20, measured: { bytes: 1_000, ms: 4, objects: 1 } });
    expect(wide).toBeCloseTo(4 + 64, 5);
    expect(unknown).toBeCloseTo(4 + (64 << 20) / 100_000, 5);
  });
});
