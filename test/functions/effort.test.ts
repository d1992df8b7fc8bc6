/** Efforts are budgets: what their arithmetic promises. */
import { describe, expect, test } from 'vitest';

import { EFFORTS, defaultLength, presetOf } from '../../functions/openai/effort.ts';

const SHARE = { low: 0.25, medium: 1, high: 4 } as const;

describe('an effort', () => {
  test('is the table of the documentation', () => {
    const rows = [1, 2, 4, 8].map((cr) => EFFORTS.map((effort) => presetOf(effort, 32_768, cr)));
    expect(rows).toEqual([
      [{ length: 16_384, width: 1 }, { length: null, width: 1 }, { length: null, width: 4 }],
      [{ length: 23_170, width: 1 }, { length: null, width: 2 }, { length: null, width: 8 }],
      [{ length: null, width: 1 }, { length: null, width: 4 }, { length: null, width: 16 }],
      [{ length: null, width: 2 }, { length: null, width: 8 }, { length: null, width: 32 }],
    ]);
  });

  test('costs its share of the reads of one dense chain: never more, and less by under one token of length', () => {
    for (const modelLength of [256, 1_024, 32_768]) {
      for (const cr of [1, 1.5, 2, 3, 4, 6.4, 8, 16]) {
        for (const effort of EFFORTS) {
          const { length, width } = presetOf(effort, modelLength, cr);
          const tokens = length ?? modelLength;
          const most = SHARE[effort] * modelLength ** 2 * cr;
          expect(width * tokens ** 2).toBeLessThanOrEqual(most);
          expect(width * (tokens + 1) ** 2).toBeGreaterThan(most);
        }
      }
    }
  });

  test('never asks for more chains than a job may have', () => {
    expect(presetOf('high', 32_768, 64)).toEqual({ length: null, width: 256 });
    expect(defaultLength(1_024)).toBe(1_024);
    expect(defaultLength(1 << 20)).toBe(32_768);
  });
});
