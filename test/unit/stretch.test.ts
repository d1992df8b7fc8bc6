/** A job may run for a day and have 256 chains: what its manifest lists stays bounded, though no object is ever merged. */
import { expect, test } from 'vitest';

import { LIMITS } from '../../engine/core/limits.ts';
import { stretchOf } from '../../engine/job/checkpoint.ts';
import { DEFAULT_POLICY } from '../../engine/job/checkpointer.ts';
import type { ObjectRef } from '../../engine/kv/manifest.ts';

/** As long as a name and a digest get in a job of that size. */
const REF: ObjectRef = { name: 's/123456/1-255-123456-0123456789abcdef.seg', bytes: 12_345_678, digest: 'a'.repeat(64), origin: '01KB8Z6X5V4T3S2R1Q0P9N8M7K', pack: { name: 's/123456/1-w-123456-0123456789abcdef.seg', at: 4_194_303 } };
const refs = (count: number) => Array.from({ length: count }, () => REF);

test('a job that is small is written as its policy says', () => {
  expect(stretchOf({ chains: [{ tokens: 1, finish: null, segments: refs(400), tails: [] }], journal: refs(100) })).toBe(1);
  expect(stretchOf({ chains: [{ tokens: 1, finish: null, segments: refs(1_000), tails: [] }], journal: refs(24) })).toBe(2);
});

test.each([[16, 24], [LIMITS.WIDTH_MAX, 24]])('%i chains for %i hours, a segment each in every delta: the manifest holds them, and the last distance is under a fiftieth of the time', (width, hours) => {
  let [deltas, stretch] = [0, 1];
  const endMs = hours * 3_600_000;
  for (let ms = 0; ms < endMs; ms += DEFAULT_POLICY.deltaMs * stretch, deltas++) {
    // One list is as good as `width` of them.
    stretch = stretchOf({ chains: [{ tokens: 1, finish: null, segments: { length: deltas * width } as unknown as ObjectRef[], tails: [] }], journal: { length: 2 * deltas } as unknown as ObjectRef[] });
  }
  const objects = deltas * (width + 2) + 2 * width;
  expect(objects).toBeLessThan(LIMITS.MANIFEST_OBJECTS_MAX);
  // Each is listed once and pointed to once.
  expect(objects * (JSON.stringify(REF).length + 7)).toBeLessThan(LIMITS.MANIFEST_BYTES_MAX);
  expect(DEFAULT_POLICY.deltaMs * stretch).toBeLessThan(endMs / 50);
});
