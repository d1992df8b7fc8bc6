/** A short chaos run: everything is broken at least once. The long one is in the soak; docs/CHAOS.md. */
import { describe, expect, test } from 'vitest';

import { chaos, missingForChaos } from '../helpers/chaos.ts';

describe.skipIf(missingForChaos() !== null)('jobs on real workers, a real store and a real queue, all of which are broken', () => {
  test('have each one result, that of a run that nothing disturbed, one bill and one webhook', { timeout: 600_000 }, async () => {
    const { code, output, last } = await chaos('--seed', '8', '--jobs', '16', '--kills', '6', '--minutes', '0.5');
    expect(code, output).toBe(0);
    expect(last).toMatchObject({ chaos: 'passed', jobs: 16, broken: 0 });
    // What a fault meets depends on the machine: how many slices and messages were there to be lost.
    const { interrupted: _i, messagesDeleted: _m, ...kinds } = last.done;
    expect(Object.entries(kinds).filter(([, count]) => count === 0), 'none was left out').toEqual([]);
  });
});

test('a chaos run says what is wrong with what it is asked for', async () => {
  for (const args of [['--jobs', '0'], ['--kills', 'many'], ['--minutes', '-1'], ['--workers', '1'], ['--size', '3']]) {
    const { code, output } = await chaos(...args);
    expect(code, output).toBe(2);
    expect(output).toContain('Usage: npm run chaos');
  }
});
