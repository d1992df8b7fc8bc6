import { expect, test } from 'vitest';

import { nextTurn } from '../../engine/core/turns.ts';

test('whoever works in turns lets one other go between two of them, and none is passed over', async () => {
  const order: string[] = [];
  const work = async (name: string): Promise<void> => {
    for (let i = 0; i < 3; i++) {
      await nextTurn();
      order.push(`${name}${i}`);
    }
  };
  // Asked for at the beginning: between the turns of the first round, not after all of them.
  const soon = new Promise<void>((resolve) => setImmediate(() => setImmediate(() => resolve(void order.push('timer')))));
  await Promise.all([work('a'), work('b'), work('c'), soon]);
  expect(order.filter((what) => what !== 'timer')).toEqual(['a0', 'b0', 'c0', 'a1', 'b1', 'c1', 'a2', 'b2', 'c2']);
  expect(order.indexOf('timer')).toBeLessThan(4);
});
