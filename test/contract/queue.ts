/**
 * What engine/ports/queue.ts promises, once, for every adapter. Times are whole seconds, which is what queues count in. Each promise gets
 * a queue of its own that is empty.
 */
import { expect } from 'vitest';

import type { Queue, ReceivedMessage, SliceMessage } from '../../engine/ports/queue.ts';

export interface QueueBench {
  /** A message is dead after RECEIVES receives. */
  readonly queue: Queue;
  /** Its messages are handed out in turns, exactly; of SQS that is only likely. */
  readonly isExact: boolean;
  /** Lets so much of the queue's time pass. */
  pass(delayMs: number): Promise<void>;
}

export interface QueuePromise {
  readonly name: string;
  readonly check: (bench: QueueBench) => Promise<void>;
}

export const RECEIVES = 3;
const S = 1_000;
const message = (job: string, slice = 0): SliceMessage => ({ v: 1, tenant: 'acme', job, slice });
const jobs = (received: readonly ReceivedMessage[]) => received.map((each) => each.message?.job ?? '').sort();

function receive(queue: Queue, { max = 1, waitMs = 0, visibilityMs = 30 * S } = {}): Promise<readonly ReceivedMessage[]> {
  return queue.receive({ max, waitMs, visibilityMs });
}

async function one(queue: Queue, options: Parameters<typeof receive>[1] = {}): Promise<ReceivedMessage> {
  const [first] = await receive(queue, options);
  if (first === undefined) throw new Error('nothing was received');
  return first;
}

export const QUEUE_PROMISES: readonly QueuePromise[] = [
  {
    name: 'what was sent is received as it was sent, and counted',
    async check({ queue }) {
      await queue.send(message('sums', 7));
      expect(await one(queue)).toMatchObject({ message: { v: 1, tenant: 'acme', job: 'sums', slice: 7 }, received: 1 });
      const whole: SliceMessage = { v: 1, tenant: 't'.repeat(64), job: 'j'.repeat(64), slice: Number.MAX_SAFE_INTEGER, priority: 'batch', expiresMs: 1_900_000_000_000 };
      await queue.send(whole);
      expect((await one(queue)).message).toEqual(whole);
    },
  },
  {
    name: 'what was sent together is received, all of it',
    async check({ queue }) {
      const names = Array.from({ length: 23 }, (_, i) => `job-${i}`);
      await queue.sendAll(names.map((name, i) => ({ ...message(name), ...(i % 5 === 0 ? { priority: 'batch' } : {}) })));
      const seen: string[] = [];
      for (let calls = 0; calls < 60 && seen.length < names.length; calls++) seen.push(...jobs(await receive(queue, { max: 10 })));
      expect(seen.sort()).toEqual(names.sort());
    },
  },
  {
    name: 'interactive messages come before those of batches, whichever was first',
    async check({ queue }) {
      for (const job of ['b1', 'b2', 'b3']) await queue.send({ ...message(job), priority: 'batch' });
      for (const job of ['i1', 'i2']) await queue.send(message(job));
      const order: string[] = [];
      for (let calls = 0; calls < 20 && order.length < 5; calls++) order.push(...jobs(await receive(queue)));
      expect(order.map((job) => job[0])).toEqual(['i', 'i', 'b', 'b', 'b']);
    },
  },
  {
    name: 'whoever waits is woken by a message of a batch too',
    async check({ queue }) {
      const waiting = receive(queue, { waitMs: 20 * S });
      await queue.send({ ...message('sums'), priority: 'batch' });
      expect(jobs(await waiting)).toEqual(['sums']);
    },
  },
  {
    name: 'many messages of one tenant hold up no other\'s',
    async check({ queue, isExact }) {
      for (let i = 0; i < 6; i++) await queue.send(message(`many-${i}`));
      await queue.send({ ...message('few-0'), tenant: 'other' });
      await queue.send({ ...message('few-1'), tenant: 'other' });
      const order: string[] = [];
      for (let calls = 0; calls < 30 && order.length < 8; calls++) {
        const received = await receive(queue);
        order.push(...jobs(received));
        for (const { receipt } of received) await queue.remove(receipt);
      }
      expect(order).toHaveLength(8);
      if (isExact) expect(order.slice(0, 4)).toEqual(['many-0', 'few-0', 'many-1', 'few-1']);
    },
  },
  {
    name: 'a message that was received too often is dead: it is listed, and redriving makes it a new one',
    async check({ queue, pass }) {
      await queue.send(message('sums', 4));
      for (let count = 1; count <= RECEIVES; count++) {
        expect(await one(queue, { visibilityMs: 1 * S, waitMs: 1 * S })).toMatchObject({ received: count });
        await pass(2 * S);
      }
      expect(await receive(queue)).toEqual([]);
      expect(await queue.dead.list({ max: 10 })).toMatchObject([{ message: { job: 'sums', slice: 4 } }]);
      expect(await queue.depth(), 'it waits for nobody').toMatchObject({ visible: 0, inFlight: 0 });
      expect(await queue.dead.redrive()).toBe(1);
      const again = await one(queue, { waitMs: 2 * S });
      expect(again).toMatchObject({ message: { job: 'sums', slice: 4 }, received: 1 });
      await queue.remove(again.receipt);
      expect(await queue.dead.list({ max: 10 })).toEqual([]);
      expect(await queue.dead.redrive()).toBe(0);
    },
  },
  {
    name: 'dead messages that are purged are gone, and others are not',
    async check({ queue, pass }) {
      await queue.send(message('dead'));
      for (let count = 1; count <= RECEIVES; count++) {
        await one(queue, { visibilityMs: 1 * S, waitMs: 1 * S });
        await pass(2 * S);
      }
      await queue.send(message('alive'));
      expect(jobs(await receive(queue, { waitMs: 1 * S, visibilityMs: 1 * S }))).toEqual(['alive']);
      await queue.dead.purge();
      await pass(2 * S);
      expect(await queue.dead.list({ max: 10 })).toEqual([]);
      expect(jobs(await receive(queue, { waitMs: 1 * S }))).toEqual(['alive']);
    },
  },
  {
    name: 'a message that someone has is seen by nobody else until its visibility is over, and then its count is raised',
    async check({ queue, pass }) {
      await queue.send(message('sums'));
      await one(queue, { visibilityMs: 3 * S });
      expect(await receive(queue)).toEqual([]);
      await pass(4 * S);
      expect(await one(queue)).toMatchObject({ message: { job: 'sums' }, received: 2 });
    },
  },
  {
    name: 'a message that was removed never comes back',
    async check({ queue, pass }) {
      await queue.send(message('sums'));
      await queue.remove((await one(queue, { visibilityMs: 2 * S })).receipt);
      await pass(3 * S);
      expect(await receive(queue)).toEqual([]);
    },
  },
  {
    name: 'extending keeps a message, counted from then',
    async check({ queue, pass }) {
      await queue.send(message('sums'));
      const { receipt } = await one(queue, { visibilityMs: 4 * S });
      await pass(2 * S);
      await queue.extend(receipt, 6 * S);
      await pass(3 * S);
      expect(await receive(queue)).toEqual([]);
      await pass(4 * S);
      expect(await one(queue)).toMatchObject({ received: 2 });
    },
  },
  {
    name: 'a released message is there at once, or after its delay',
    async check({ queue, pass }) {
      await queue.send(message('sums'));
      await queue.release((await one(queue)).receipt, 0);
      const again = await one(queue, { waitMs: 2 * S });
      expect(again.received).toBe(2);
      await queue.release(again.receipt, 3 * S);
      expect(await receive(queue)).toEqual([]);
      await pass(4 * S);
      expect(await one(queue)).toMatchObject({ received: 3 });
    },
  },
  {
    name: 'what is removed or released while it is being extended is removed or released',
    async check({ queue, pass }) {
      await queue.send(message('gone'));
      const gone = await one(queue, { visibilityMs: 10 * S });
      await Promise.all([queue.extend(gone.receipt, 20 * S), queue.remove(gone.receipt)]);
      expect(await queue.depth()).toMatchObject({ visible: 0, inFlight: 0 });
      await queue.send(message('back'));
      const back = await one(queue, { visibilityMs: 10 * S });
      await Promise.all([queue.extend(back.receipt, 20 * S), queue.release(back.receipt, 0)]);
      const again = await one(queue, { visibilityMs: 10 * S, waitMs: 2 * S });
      expect(again).toMatchObject({ message: { job: 'back' }, received: 2 });
      await Promise.all([queue.extend(again.receipt, 20 * S), queue.release(again.receipt, 1 * S)]);
      await pass(2 * S);
      expect(await one(queue, { waitMs: 1 * S })).toMatchObject({ message: { job: 'back' }, received: 3 });
    },
  },
  {
    name: 'a delayed message waits for its delay',
    async check({ queue, pass }) {
      await queue.send(message('sums'), { delayMs: 3 * S });
      expect(await receive(queue)).toEqual([]);
      await pass(4 * S);
      expect(await one(queue)).toMatchObject({ message: { job: 'sums' }, received: 1 });
    },
  },
  {
    name: 'a receipt whose visibility is over extends and releases nothing',
    async check({ queue, pass }) {
      await queue.send(message('sums'));
      const { receipt } = await one(queue, { visibilityMs: 2 * S });
      await pass(3 * S);
      const { receipt: current } = await one(queue, { visibilityMs: 3 * S });
      await queue.release(receipt, 0);
      expect(await receive(queue), 'the one who has it now keeps it').toEqual([]);
      await queue.extend(receipt, 60 * S);
      await pass(4 * S);
      expect(await one(queue), 'and no longer than it asked for').toMatchObject({ received: 3 });
      expect(current).not.toBe(receipt);
    },
  },
  {
    name: 'at most max messages at once, each to one receiver',
    async check({ queue }) {
      for (const job of ['a', 'b', 'c', 'd', 'e']) await queue.send(message(job));
      const seen: string[] = [];
      for (let calls = 0; calls < 20 && seen.length < 5; calls++) {
        const some = await receive(queue, { max: 2 });
        expect(some.length).toBeLessThanOrEqual(2);
        seen.push(...jobs(some));
      }
      expect(seen.sort()).toEqual(['a', 'b', 'c', 'd', 'e']);
    },
  },
  {
    name: 'whoever waits is woken by a send',
    async check({ queue }) {
      const waiting = receive(queue, { waitMs: 20 * S });
      await queue.send(message('sums'));
      expect(jobs(await waiting)).toEqual(['sums']);
    },
  },
  {
    name: 'whoever waits in vain gets nothing when its time is over',
    async check({ queue, pass }) {
      const waiting = receive(queue, { waitMs: 1 * S });
      await pass(1 * S);
      expect(await waiting).toEqual([]);
    },
  },
  {
    name: 'depth counts what waits and what is being worked on, and says how long the oldest has waited',
    async check({ queue, pass, isExact }) {
      const none = { visible: 0, inFlight: 0, oldestAgeMs: 0 };
      expect(await queue.depth()).toEqual({ ...none, batch: none });
      await queue.send(message('a'));
      await pass(2 * S);
      await queue.send(message('b'));
      await queue.send({ ...message('c'), priority: 'batch' });
      const waiting = await queue.depth();
      expect(waiting).toMatchObject({ visible: 2, inFlight: 0, batch: { visible: 1, inFlight: 0 } });
      if (isExact) {
        expect(waiting.oldestAgeMs).toBeGreaterThanOrEqual(2 * S);
        expect(waiting.batch.oldestAgeMs, 'a batch waits apart').toBeLessThan(2 * S);
      }
      const taken = await one(queue);
      expect(await queue.depth()).toMatchObject({ visible: 1, inFlight: 1 });
      await queue.remove(taken.receipt);
      expect(await queue.depth()).toMatchObject({ visible: 1, inFlight: 0 });
    },
  },
  {
    name: 'every call that was cancelled says so, and a receiver that waits stops waiting',
    async check({ queue }) {
      const cancelled = { code: 'ERR_CANCELLED' };
      const signal = AbortSignal.abort();
      await expect(queue.send(message('sums'), { signal })).rejects.toMatchObject(cancelled);
      await expect(queue.receive({ max: 1, waitMs: 0, visibilityMs: S, signal })).rejects.toMatchObject(cancelled);
      await expect(queue.sendAll([message('sums')], { signal })).rejects.toMatchObject(cancelled);
      await expect(queue.depth({ signal })).rejects.toMatchObject(cancelled);
      await expect(queue.dead.list({ max: 1, signal })).rejects.toMatchObject(cancelled);
      await expect(queue.dead.redrive({ signal })).rejects.toMatchObject(cancelled);
      await expect(queue.dead.purge({ signal })).rejects.toMatchObject(cancelled);
      const stop = new AbortController();
      const waiting = queue.receive({ max: 1, waitMs: 20 * S, visibilityMs: S, signal: stop.signal });
      stop.abort();
      await expect(waiting).rejects.toMatchObject(cancelled);
      expect(await receive(queue), 'what was cancelled was not sent').toEqual([]);
      await queue.send(message('sums'));
      const { receipt } = await one(queue);
      await expect(queue.extend(receipt, S, { signal })).rejects.toMatchObject(cancelled);
      await expect(queue.release(receipt, 0, { signal })).rejects.toMatchObject(cancelled);
      await expect(queue.remove(receipt, { signal })).rejects.toMatchObject(cancelled);
    },
  },
];
