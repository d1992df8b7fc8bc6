/** What was made once and may be asked for often: how much of it is kept. */
import { expect, test } from 'vitest';

import { Kept } from '../../engine/core/kept.ts';
import { ManualClock } from '../helpers/clock.ts';

test('the ones asked for longest ago are forgotten when all together are too many, or too heavy', async () => {
  const made: string[] = [];
  const kept = new Kept<string>({ most: 3, weigh: ({ length }) => length, weightMax: 10, clock: new ManualClock() });
  const get = async (key: string, value = key) => await kept.get(key, async () => (made.push(key), value));
  for (const key of ['a', 'b', 'c', 'a', 'd']) await get(key);
  expect(made.splice(0)).toEqual(['a', 'b', 'c', 'd']);
  // `b` was asked for longest ago.
  for (const key of ['a', 'c', 'd', 'b']) await get(key);
  expect(made.splice(0)).toEqual(['b']);
  await get('heavy', 'x'.repeat(9));
  await get('b');
  for (const key of ['c', 'd']) await get(key);
  expect(made.splice(0)).toEqual(['heavy', 'c', 'd']);
  // What is heavier than all may be is given and not kept.
  expect(await get('heaviest', 'x'.repeat(11))).toHaveLength(11);
  await get('heaviest', 'x'.repeat(11));
  expect(made).toEqual(['heaviest', 'heaviest']);
});
