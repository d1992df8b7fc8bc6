/** How much waits, as a front is told it. */
import { expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { Backlog } from '../../engine/control/backlog.ts';
import { systemClock } from '../../engine/core/clock.ts';
import { EMPTY_DEPTH, type QueueDepth } from '../../engine/ports/queue.ts';

const BUSY: QueueDepth = { ...EMPTY_DEPTH, visible: 7, oldestAgeMs: 90_000 };
const WHERE = { tenant: 'acme', job: 'sums' };

test('a job that is sent makes nobody ask the queue again before its answer is old', async () => {
  let asked = 0;
  const backlog = new Backlog({ queue: { depth: async () => (asked++, BUSY) }, store: new MemoryStore(), clock: systemClock, freshMs: 600_000 });
  for (let i = 0; i < 5; i++) {
    expect(await backlog.now()).toEqual({ queued: 7, queueAgeMs: 90_000 });
    backlog.sent(WHERE, 'interactive');
  }
  expect(asked).toBe(1);
});

test('a queue that does not answer is taken to be as it was, also after a job was sent', async () => {
  let asked = 0;
  const depth = async (): Promise<QueueDepth> => (asked++ === 0 ? BUSY : await new Promise<never>(() => undefined));
  const backlog = new Backlog({ queue: { depth }, store: new MemoryStore(), clock: systemClock, freshMs: 0 });
  await backlog.now();
  backlog.sent(WHERE, 'interactive');
  expect(await backlog.now()).toEqual({ queued: 7, queueAgeMs: 90_000 });
  expect(asked).toBe(2);
});
