/** The simulation can see: with a rule broken it finds what the model checker found, by chance alone. */
import { expect, test } from 'vitest';

import { doublePlay, type Broken } from './double.ts';
import { playRule, PREFIX, story } from './seeded.ts';

const SEEDS_MAX = 400;
const RULES: readonly Broken[] = ['C1', 'E1', 'G1', 'G2', 'N1', 'N2', 'N3', 'N4', 'F1', 'F2', 'F4'];

test.each(RULES)('a protocol without the rule of %s is found out', async (rule) => {
  for (let seed = 1; seed <= SEEDS_MAX; seed++) {
    const { violations, trace } = await playRule(doublePlay(PREFIX, rule), seed);
    const found = violations.map(({ invariant }) => invariant);
    expect(found, story(seed, { violations, trace })).not.toContain('stuck');
    if (found.length > 0) return;
  }
  expect.fail(`not in ${SEEDS_MAX} runs`);
});

test('the same protocol with all rules is not', async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const world = await playRule(doublePlay(PREFIX), seed);
    expect(world.violations, story(seed, world)).toEqual([]);
  }
});
