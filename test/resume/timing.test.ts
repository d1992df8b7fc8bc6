/** What a resumed run says of its own pace is about its own tokens. */
import { expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import type { Clock } from '../../engine/core/clock.ts';
import type { StoredResult } from '../../engine/job/slice.ts';
import { begin, expectUndisturbed, park, resume } from '../failures/support.ts';
import { ManualClock } from '../helpers/clock.ts';

/** A second passes whenever someone asks for the time, so that every phase takes some. */
function ticking(): Clock {
  const clock = new ManualClock();
  return { nowMs: () => (clock.advance(1_000), clock.nowMs()), timeout: (delayMs) => clock.timeout(delayMs * 1e6) };
}

const counted = ({ timing }: StoredResult): number => Math.round((timing.tokens_per_second * timing.decode_ms) / 1_000);

test('tokens per second of a resumed run count the tokens of its slice, and of one that was never stopped all', async () => {
  const whole = await expectUndisturbed(await begin({ store: new MemoryStore(), clock: ticking() }));
  expect(counted(whole)).toBe(whole.usage.completion_tokens);

  const store = new MemoryStore();
  await park({ store });
  const rest = await expectUndisturbed(await resume({ store, clock: ticking() }));
  // Parked at step 36, when the chain of 20 tokens had ended.
  expect(counted(rest)).toBe(whole.usage.completion_tokens - (36 + 20 + 36));
});
