/** 200 jobs and 100 kills, for ten minutes and as long as it then takes. */
import { describe, expect, test } from 'vitest';

import { chaos, missingForChaos } from '../helpers/chaos.ts';

describe.skipIf(missingForChaos() !== null)('200 jobs, and 100 kills', () => {
  // Another seed each time would find more; a seed that found something belongs here.
  test.each([1, 2])('seed %i: each has one result, one bill and one webhook', { timeout: 3_600_000 }, async (seed) => {
    const { code, output, last } = await chaos('--seed', `${seed}`, '--jobs', '200', '--kills', '100', '--minutes', '10');
    process.stdout.write(output);
    expect(code, output).toBe(0);
    expect(last).toMatchObject({ chaos: 'passed', jobs: 200, broken: 0, done: { kill: 100 } });
  });
});
