/** The queue of one process keeps every promise, and a suite that says so can tell one that does not. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, test } from 'vitest';

import { createLocalQueue } from '../../engine/adapters/queue-local.ts';
import { HELD_MS_MAX, type Queue } from '../../engine/ports/queue.ts';
import { ManualClock } from '../helpers/clock.ts';
import { through } from '../helpers/through.ts';
import { QUEUE_PROMISES, RECEIVES, type QueueBench } from './queue.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

function bench(change: (queue: Queue) => Partial<Queue> = () => ({})): QueueBench {
  const clock = new ManualClock();
  const queue = createLocalQueue({ clock, receivesMax: RECEIVES });
  const pass = async (delayMs: number) => {
    clock.advance(delayMs);
    await clock.settle();
  };
  return { pass, isExact: true, queue: through(queue, change(queue)) };
}

describe('the local queue', () => {
  for (const { name, check } of QUEUE_PROMISES) test(name, () => check(bench()));

  test('two messages that say the same and wait are one, and the sooner one', async () => {
    const { queue } = bench();
    const message = { v: 1, tenant: 'acme', job: 'sums', slice: 0 } as const;
    await queue.send(message, { delayMs: 60_000 });
    for (let i = 0; i < 1_000; i++) await queue.send(message);
    expect(await queue.depth()).toMatchObject({ visible: 1 });
  });

  test('a message sent again while someone works on it is another one', async () => {
    const { queue } = bench();
    const message = { v: 1, tenant: 'acme', job: 'sums', slice: 0 } as const;
    await queue.send(message);
    await queue.receive({ max: 1, waitMs: 0, visibilityMs: 1_000 });
    await queue.send(message);
    expect(await queue.depth()).toMatchObject({ visible: 1, inFlight: 1 });
  });

  test('who waits beside a dead letter waits, and does not look again each millisecond', async () => {
    const waitsMs: number[] = [];
    const clock = new (class extends ManualClock {
      override timeout(delayMs: number): ReturnType<ManualClock['timeout']> {
        waitsMs.push(delayMs);
        return super.timeout(delayMs);
      }
    })();
    const queue = createLocalQueue({ clock, receivesMax: 1 });
    await queue.send({ v: 1, tenant: 'acme', job: 'sums', slice: 0 });
    await queue.receive({ max: 1, waitMs: 0, visibilityMs: 1_000 });
    clock.advance(2_000);
    const waiting = queue.receive({ max: 1, waitMs: 10_000, visibilityMs: 1_000 });
    await clock.settle();
    expect(waitsMs).toEqual([10_000]);
    clock.advance(10_000);
    expect(await waiting).toEqual([]);
    expect(await queue.dead.list({ max: 9 })).toHaveLength(1);
  });

  test('slots that receive at once take a message each, and lose no time over the same one', async () => {
    const { queue } = bench();
    for (let i = 0; i < 8; i++) await queue.send({ v: 1, tenant: 'acme', job: `sums-${i}`, slice: 0 });
    const received = await Promise.all(Array.from({ length: 8 }, () => queue.receive({ max: 1, waitMs: 0, visibilityMs: 1_000 })));
    expect(new Set(received.map(([taken]) => taken?.message?.job)).size).toBe(8);
  });

  test('nothing is kept of a receipt that is worth nothing any more, whoever let it go and how', async () => {
    const { queue, pass } = bench();
    const take = async () => (await queue.receive({ max: 1, waitMs: 0, visibilityMs: 1_000 }))[0]?.receipt ?? '';
    /** Sent, and not to be found in the queue any more. */
    const over = async (end: (receipt: string) => Promise<unknown>): Promise<WeakRef<object>> => {
      const message = { v: 1, tenant: 'acme', job: 'sums', slice: 0 } as const;
      await queue.send(message);
      await end(await take());
      await pass(2_000);
      const left = await take();
      if (left !== '') await queue.remove(left);
      expect(await queue.depth()).toMatchObject({ visible: 0, inFlight: 0 });
      return new WeakRef(message);
    };
    const messages = [
      await over(async () => undefined),
      await over(async (receipt) => await Promise.all([queue.extend(receipt, 1_000), queue.remove(receipt)])),
      await over(async (receipt) => await Promise.all([queue.extend(receipt, 1_000), queue.release(receipt, 0)])),
    ];
    // What a WeakRef was made of lives until the next turn.
    await pass(0);
    collectGarbage();
    expect(messages.map((each) => each.deref())).toEqual([undefined, undefined, undefined]);
  });

  test('a receipt whose visibility is over removes nothing', async () => {
    const { queue, pass } = bench();
    await queue.send({ v: 1, tenant: 'acme', job: 'sums', slice: 0 });
    const [taken] = await queue.receive({ max: 1, waitMs: 0, visibilityMs: 1_000 });
    await pass(1_000);
    await queue.remove(taken?.receipt ?? '');
    expect(await queue.receive({ max: 1, waitMs: 0, visibilityMs: 1_000 })).toHaveLength(1);
  });
});

describe('every queue of ours', () => {
  test('keeps a message from others for twelve hours at most, however often it is extended', async () => {
    const { queue, pass } = bench();
    await queue.send({ v: 1, tenant: 'acme', job: 'sums', slice: 0 });
    const [taken] = await queue.receive({ max: 1, waitMs: 0, visibilityMs: 3_600_000 });
    for (let hours = 0; hours < 11; hours++) {
      await pass(3_500_000);
      await queue.extend(taken?.receipt ?? '', 7_200_000);
    }
    await pass(HELD_MS_MAX - 11 * 3_500_000 - 1_000);
    expect(await queue.receive({ max: 1, waitMs: 0, visibilityMs: 1_000 })).toEqual([]);
    await pass(1_000);
    expect(await queue.receive({ max: 1, waitMs: 0, visibilityMs: 1_000 })).toHaveLength(1);
  });
});

describe('the contract suite', () => {
  const broken = async (change: (queue: Queue) => Partial<Queue>) =>
    (await Promise.all(QUEUE_PROMISES.map(async ({ name, check }) => ({ name, ok: await check(bench(change)).then(() => true, () => false) }))))
      .filter(({ ok }) => !ok).map(({ name }) => name);

  test('fails a queue that forgets to hide what someone has', async () => {
    expect(await broken((queue) => ({ receive: (options) => queue.receive({ ...options, visibilityMs: 0 }) }))).toContain(
      'a message that someone has is seen by nobody else until its visibility is over, and then its count is raised',
    );
  });

  test('fails a queue that knows no delays, one that extends nothing, and one that removes nothing', async () => {
    expect(await broken((queue) => ({ send: (message, options) => queue.send(message, { signal: options?.signal }) }))).toEqual(['a delayed message waits for its delay']);
    expect(await broken(() => ({ extend: () => Promise.resolve() }))).toContain('extending keeps a message, counted from then');
    expect(await broken(() => ({ remove: () => Promise.resolve() }))).toContain('a message that was removed never comes back');
  });
});
