import { expect, test } from 'vitest';

import { playBirth } from './birth.ts';
import { story } from './seeded.ts';

const only = process.env['SIM_SEED'];
const SEEDS = only === undefined ? Array.from({ length: 300 }, (_, i) => i + 1) : [Number(only)];

test(`one key makes one job that is found, in ${SEEDS.length} runs by chance`, async () => {
  const states = new Map<string, number>();
  for (const seed of SEEDS) {
    const world = await playBirth(seed);
    expect(world.violations, story(seed, world, 'test/sim/birth.test.ts')).toEqual([]);
    const state = world.watch.last?.state ?? 'not born';
    states.set(state, (states.get(state) ?? 0) + 1);
  }
  if (only !== undefined) return;
  // That nothing broke says something only if things happened.
  expect([...states.keys()].sort()).toEqual(['done', 'erased', 'not born', 'queued', 'running']);
});

test('the same seed is the same run', async () => {
  expect((await playBirth(7)).trace).toEqual((await playBirth(7)).trace);
});
