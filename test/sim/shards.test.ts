import { expect, test } from 'vitest';

import { story } from './seeded.ts';
import { playShards } from './shards.ts';

const only = process.env['SIM_SEED'];
const SEEDS = only === undefined ? Array.from({ length: 80 }, (_, i) => i + 1) : [Number(only)];

test(`every shard is counted once and the job ends as one run would, in ${SEEDS.length} runs by chance`, async () => {
  const states = new Map<string, number>();
  for (const seed of SEEDS) {
    const world = await playShards(seed);
    expect(world.violations, story(seed, world, 'test/sim/shards.test.ts')).toEqual([]);
    const state = world.watch.last?.state ?? 'not born';
    states.set(state, (states.get(state) ?? 0) + 1);
  }
  if (only !== undefined) return;
  // That nothing broke says something only if things happened.
  expect([...states.keys()].sort()).toEqual(['cancelled', 'done', 'erased', 'poisoned']);
});

test('the same seed is the same run', async () => {
  expect((await playShards(7)).trace).toEqual((await playShards(7)).trace);
});
