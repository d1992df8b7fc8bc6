/** A commit that takes longer than an owner may be silent, beside workers that look for jobs whose owner is gone. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';

import { pause } from '../../engine/core/waiting.ts';
import { ManualClock } from '../helpers/clock.ts';
import { through } from '../helpers/through.ts';
import { Bench, LONG } from './support.ts';

test('a job whose uploads take minutes stays with its owner, and nobody takes it for dead', async () => {
  const clock = new ManualClock();
  await using bench = new Bench(clock);
  await bench.submit('big', LONG);
  const store = through(bench.store, { put: async (key, body, options) => {
    if (/\/[st]\/\d/.test(key)) await pause(clock, 150_000, options?.signal);
    return await bench.store.put(key, body, options);
  } });
  for (let i = 0; i < 2; i++) bench.worker({ store, reconcileMs: 60_000, slots: 1, policy: { deltaTokens: 300, firstMs: 0 } });
  const isOver = () => bench.kinds('big').some((kind) => kind === 'ended' || kind === 'poisoned' || kind === 'fenced');
  while (!isOver()) {
    // The engine works in real time.
    await sleep(5);
    await clock.settle();
    clock.advance(5_000);
  }
  expect(clock.nowMs()).toBeGreaterThan(150_000);
  expect(bench.kinds('big')).toEqual(['started', 'ended']);
  expect(await bench.head('big')).toMatchObject({ state: 'done', epoch: 1 });
});
