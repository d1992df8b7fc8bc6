import { expect, test } from 'vitest';

import { playEngine, story } from './seeded.ts';

const only = process.env['SIM_SEED'];
const SEEDS = only === undefined ? Array.from({ length: 200 }, (_, i) => i + 1) : [Number(only)];

test(`no invariant breaks in ${SEEDS.length} runs by chance`, async () => {
  const states = new Set<string>();
  let steps = 0;
  for (const seed of SEEDS) {
    const world = await playEngine(seed);
    expect(world.violations, story(seed, world)).toEqual([]);
    states.add(world.watch.last?.state ?? 'none');
    steps += world.watch.last?.steps.length ?? 0;
  }
  if (only !== undefined) return;
  // That nothing broke says something only if things happened.
  expect([...states].sort()).toEqual(['cancelled', 'done', 'erased']);
  expect(steps).toBeGreaterThan(SEEDS.length * 3);
});

test('the same seed is the same run', async () => {
  const [one, two] = [await playEngine(7), await playEngine(7)];
  expect(one.trace).toEqual(two.trace);
  expect(one.trace.length).toBeGreaterThan(50);
});
