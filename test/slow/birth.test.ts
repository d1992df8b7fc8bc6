import { expect, test } from 'vitest';

import { playBirth } from '../sim/birth.ts';
import { story } from '../sim/seeded.ts';

/** The fast suite has the seeds below 1,000. */
const BLOCKS = Array.from({ length: 10 }, (_, i) => (i + 1) * 1_000);

test.each(BLOCKS)('one key makes one job that is found, in 1,000 runs by chance from seed %i', { timeout: 600_000 }, async (first) => {
  for (let seed = first; seed < first + 1_000; seed++) {
    const world = await playBirth(seed);
    expect(world.violations, story(seed, world, 'test/sim/birth.test.ts')).toEqual([]);
  }
});
