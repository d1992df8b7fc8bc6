import { expect, test } from 'vitest';

import { playEngine, story } from '../sim/seeded.ts';
import { playShards } from '../sim/shards.ts';

/** Blocks of their own, so that the report says how far it came. The fast suite has the seeds below 1,000. */
const BLOCKS = Array.from({ length: 4 }, (_, i) => (i + 1) * 1_000);

test.each(BLOCKS)('no invariant of the protocol breaks in 500 runs by chance from seed %i', { timeout: 600_000 }, async (first) => {
  for (let seed = first; seed < first + 500; seed++) {
    const world = await playEngine(seed);
    expect(world.violations, story(seed, world)).toEqual([]);
  }
});

test.each(BLOCKS)('no shard is lost or counted twice in 200 runs by chance from seed %i', { timeout: 600_000 }, async (first) => {
  for (let seed = first; seed < first + 200; seed++) {
    const world = await playShards(seed);
    expect(world.violations, story(seed, world, 'test/sim/shards.test.ts')).toEqual([]);
  }
});
