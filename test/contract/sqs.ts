/** The contract suite on an SQS server, and what only SQS has. */
import { DeleteMessageCommand, GetQueueAttributesCommand, type Message, ReceiveMessageCommand, SendMessageCommand } from '@aws-sdk/client-sqs';
import { FetchHttpHandler } from '@smithy/fetch-http-handler';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { untilNoticed } from '../../engine/adapters/notices.ts';
import { createSqsQueue, type SqsQueue } from '../../engine/adapters/sqs.ts';
import type { Abortable } from '../../engine/adapters/sqs-calls.ts';
import { systemClock } from '../../engine/core/clock.ts';
import type { SliceMessage } from '../../engine/ports/queue.ts';
import { ManualClock } from '../helpers/clock.ts';
import type { SqsPeer } from '../helpers/sqs-peer.ts';
import { through } from '../helpers/through.ts';
import { QUEUE_PROMISES, RECEIVES, type QueuePromise } from './queue.ts';

const message: SliceMessage = { v: 1, tenant: 'acme', job: 'sums', slice: 0 };
const ONCE = { max: 1, waitMs: 1_000, visibilityMs: 30_000 };
/** So many times as long is everything where time is real: what is done at once is done before, on a slow machine too. */
const SLOWER = 4;

function slower(queue: SqsQueue): SqsQueue {
  return through(queue, {
    send: (sent, options) => queue.send(sent, options?.delayMs === undefined ? options : { ...options, delayMs: options.delayMs * SLOWER }),
    receive: (options) => queue.receive({ ...options, visibilityMs: options.visibilityMs * SLOWER }),
    extend: (receipt, visibilityMs, options) => queue.extend(receipt, visibilityMs * SLOWER, options),
    release: (receipt, delayMs, options) => queue.release(receipt, delayMs * SLOWER, options),
  });
}

/**
 * @param start null: there is no such server here.
 * @param isHere it runs in this process, so that its time can be set: nothing is over because the machine was slow.
 */
export function describeSqs(name: string, start: (() => Promise<SqsPeer>) | null, { isHere = false } = {}): void {
  describe.skipIf(start === null)(`SQS on ${name}`, () => {
    let peer: SqsPeer;
    beforeAll(async () => {
      if (start !== null) peer = await start();
    }, 120_000);
    afterAll(() => peer[Symbol.asyncDispose]());

    const checkHere = async ({ check }: QueuePromise) => {
      vi.useFakeTimers({ toFake: ['Date'] });
      try {
        await check({ queue: await peer.queue(RECEIVES), isExact: false, pass: async (delayMs) => void vi.setSystemTime(Date.now() + delayMs) });
      } finally {
        vi.useRealTimers();
      }
    };
    const checkThere = async ({ check }: QueuePromise) => await check({ queue: slower(await peer.queue(RECEIVES)), isExact: false, pass: (delayMs) => sleep(delayMs * SLOWER) });
    // Where their time is real each has a queue of its own: side by side they take as long as the longest.
    const checked = new Map<string, Promise<unknown>>();
    test.each(QUEUE_PROMISES)('$name', { timeout: 120_000 }, async (each) => {
      if (isHere) return await checkHere(each);
      if (checked.size === 0) for (const promise of QUEUE_PROMISES) checked.set(promise.name, checkThere(promise).then(() => null, (error: unknown) => error));
      const failure = await checked.get(each.name);
      if (failure !== null) throw failure;
    });

    test('a tenant is a message group', async ({ skip }) => {
      if (!peer.tellsGroups) skip(`${name} does not tell it`);
      const { url } = await peer.urls(RECEIVES);
      await createSqsQueue({ url, batchUrl: null, endpoint: peer.endpoint, region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'test' } }).send(message);
      const { Messages = [] } = await peer.client.send(new ReceiveMessageCommand({ QueueUrl: url, MessageSystemAttributeNames: ['MessageGroupId'] }));
      expect(Messages[0]?.Attributes?.MessageGroupId).toBe('acme');
    });

    test('a notice of EventBridge reaches the worker that it is about, whoever reads it first; what is about nobody is removed', { timeout: 30_000 }, async () => {
      const { url } = await peer.urls(RECEIVES);
      const nowMs = Date.parse('2026-11-25T12:00:00Z');
      const notice = (instance: string, time: string) => ({ source: 'aws.ec2', 'detail-type': 'EC2 Spot Instance Interruption Warning', time, detail: { 'instance-id': instance, 'instance-action': 'terminate' } });
      const stop = new AbortController();
      const listen = (instance: string) => untilNoticed({ client: peer.client, url, self: { instance, task: null }, clock: systemClock, signal: stop.signal, nowMs: () => nowMs });
      const other = listen('i-1');
      for (const body of [{ source: 'aws.ec2', 'detail-type': 'EC2 Instance State-change Notification' }, notice('i-3', '2026-11-25T11:50:00Z'), notice('i-2', '2026-11-25T11:59:59Z')]) {
        await peer.client.send(new SendMessageCommand({ QueueUrl: url, MessageBody: JSON.stringify(body) }));
      }
      expect(await listen('i-2')).toMatchObject({ action: 'terminate', at: '2026-11-25T11:59:59Z', instance: 'i-2', task: null });
      await vi.waitFor(async () => {
        const { Attributes = {} } = await peer.client.send(new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ['All'] }));
        expect([Attributes.ApproximateNumberOfMessages, Attributes.ApproximateNumberOfMessagesNotVisible]).toEqual(['0', '0']);
      }, { timeout: 15_000, interval: 100 });
      stop.abort();
      expect(await other).toBeNull();
    });

    test('a notice stops its worker at once, whatever becomes of the others that came with it, and is removed', async () => {
      const notice = (instance: string) => JSON.stringify({ source: 'aws.ec2', 'detail-type': 'EC2 Spot Instance Interruption Warning', time: new Date().toISOString(), detail: { 'instance-id': instance, 'instance-action': 'terminate' } });
      const refused = () => Promise.reject(Object.assign(new Error('denied'), { name: 'AccessDenied', $metadata: { httpStatusCode: 403 } }));
      const hangs = (signal: AbortSignal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('aborted'))));
      for (const pass of [refused, hangs]) {
        const { url } = await peer.urls(RECEIVES);
        for (const instance of ['i-1', 'i-2']) await peer.client.send(new SendMessageCommand({ QueueUrl: url, MessageBody: notice(instance) }));
        const clock = new ManualClock();
        const stop = new AbortController();
        /** Whoever waits for what cannot be done, or goes on without the notice, gets none. */
        const stopSoon = () => void clock.settle().then(() => stop.abort());
        const together = async (command: ReceiveMessageCommand, options: Abortable) => {
          const Messages: Message[] = [];
          while (Messages.length < 2) Messages.push(...((await peer.client.send(command, options)).Messages ?? []));
          return { Messages };
        };
        let removed: Promise<unknown> | null = null;
        const client = through(peer.client, {
          send: ((command: object, options: Abortable) => {
            if (command instanceof ReceiveMessageCommand) return together(command, options);
            if (command instanceof DeleteMessageCommand) return (removed = peer.client.send(command, options));
            stopSoon();
            return pass(options.abortSignal);
          }) as never,
        });
        const troubles: unknown[] = [];
        const noticed = await untilNoticed({ client, url, self: { instance: 'i-1', task: null }, clock, signal: stop.signal, onTrouble: (error) => troubles.push(error) });
        expect(noticed).toMatchObject({ action: 'terminate', instance: 'i-1' });
        await removed;
        // Where it hangs: no longer than others have to wait for it.
        clock.advance(5_000);
        await noticed?.settled;
        expect(troubles).toHaveLength(1);
        const { Attributes = {} } = await peer.client.send(new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ['All'] }));
        expect(Number(Attributes.ApproximateNumberOfMessages) + Number(Attributes.ApproximateNumberOfMessagesNotVisible), 'the other is left').toBe(1);
      }
    });

    test('without a queue for batches their messages go with the others', async () => {
      const queue = await peer.queue(RECEIVES, { batchUrl: null });
      await queue.send({ ...message, priority: 'batch' });
      expect(await queue.receive(ONCE)).toMatchObject([{ message: { priority: 'batch' } }]);
      expect(await queue.depth()).toMatchObject({ inFlight: 1, batch: { inFlight: 0 }, isMixed: true });
    });

    test('what is none of ours is handed out as such, and redriving and purging leave it where it is', async () => {
      const { url, batchUrl, deadUrl } = await peer.urls(1);
      const queue = createSqsQueue({ url, batchUrl, endpoint: peer.endpoint, region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'test' } });
      const bodies = ['{}', '[]', 'null', '{"v":2,"tenant":"acme","job":"sums","slice":0}', '{"v":1,"tenant":"../acme","job":"sums","slice":0}', JSON.stringify({ ...message, more: 'x'.repeat(2_000) })];
      for (const body of bodies) await peer.client.send(new SendMessageCommand({ QueueUrl: url, MessageBody: body }));
      let seen = 0;
      for (let calls = 0; calls < 20 && seen < bodies.length; calls++) {
        for (const { message: found } of await queue.receive({ ...ONCE, max: 10, visibilityMs: 1_000 })) {
          expect(found).toBeNull();
          seen++;
        }
      }
      expect(seen).toBe(bodies.length);
      await peer.client.send(new SendMessageCommand({ QueueUrl: deadUrl, MessageBody: 'none of ours' }));
      expect(await queue.dead.redrive()).toBe(0);
      await peer.client.send(new SendMessageCommand({ QueueUrl: deadUrl, MessageBody: JSON.stringify(message) }));
      expect(await queue.dead.purge()).toBe(1);
      const left = await queue.dead.list({ max: 10 });
      expect(left.map((each) => each.message)).toContain(null);
      expect(left.filter((each) => each.message !== null)).toEqual([]);
    });

    test('a message is never asked to be hidden for more than twelve hours in all', async () => {
      const clock = new ManualClock();
      const { url } = await peer.urls(RECEIVES);
      const queue = createSqsQueue({ url, batchUrl: null, endpoint: peer.endpoint, region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'test' }, clock });
      await queue.send(message);
      const [taken] = await queue.receive(ONCE);
      clock.advance(12 * 3_600_000 - 1_500);
      // SQS refuses more than 43,200 s; one second is left of them, and then the message is there again.
      await queue.extend(taken?.receipt ?? '', 7_200_000);
      await sleep(1_500);
      expect(await queue.receive(ONCE)).toMatchObject([{ received: 2 }]);
    });

    test('changes of a receipt reach the server in the order in which they were asked for, however slow the first is', async () => {
      const seen: (number | undefined)[] = [];
      class Slow extends FetchHttpHandler {
        override async handle(...[request, options]: Parameters<FetchHttpHandler['handle']>) {
          const { VisibilityTimeout } = JSON.parse(String(request.body)) as { readonly VisibilityTimeout?: number };
          if (VisibilityTimeout === 20) await sleep(50);
          if (request.headers['x-amz-target'] !== 'AmazonSQS.ReceiveMessage') seen.push(VisibilityTimeout);
          return await super.handle(request, options);
        }
      }
      const queue = await peer.queue(RECEIVES, { requestHandler: new Slow() });
      await queue.send(message);
      const [taken] = await queue.receive(ONCE);
      const receipt = taken?.receipt ?? '';
      const stop = new AbortController();
      const changes = [queue.extend(receipt, 20_000), queue.extend(receipt, 30_000, { signal: stop.signal }), queue.release(receipt, 7_000), queue.remove(receipt)];
      stop.abort();
      await expect(changes[1]).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
      await Promise.allSettled(changes);
      expect(seen).toEqual([undefined, 20, 7, undefined]);
    });

    test('a queue that is not there and a server that is not there are told apart', async () => {
      const { url } = await peer.urls(RECEIVES);
      const options = { batchUrl: null, endpoint: peer.endpoint, region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'test' } };
      await expect(createSqsQueue({ ...options, url: `${url}-not` }).send(message)).rejects.toMatchObject({ code: 'ERR_QUEUE_CONFIG', message: expect.stringContaining('no such queue') as unknown });
      await expect(createSqsQueue({ ...options, url, endpoint: 'http://127.0.0.1:1', deadlineMs: 300 }).depth()).rejects.toMatchObject({ code: 'ERR_QUEUE' });
    });

    test('by fetch it does the same, as where there is no Node', async () => {
      const { url, batchUrl } = await peer.urls(RECEIVES);
      const queue = createSqsQueue({ url, batchUrl, endpoint: peer.endpoint, region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'test' }, requestHandler: new FetchHttpHandler() });
      await queue.sendAll([message, { ...message, job: 'more', priority: 'batch' }]);
      expect(await queue.depth()).toMatchObject({ visible: 1, batch: { visible: 1 } });
      const [taken] = await queue.receive(ONCE);
      await queue.extend(taken?.receipt ?? '', 60_000);
      await queue.remove(taken?.receipt ?? '');
      await expect(queue.receive({ ...ONCE, signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
      expect(await queue.receive(ONCE)).toMatchObject([{ message: { job: 'more' } }]);
    });

    test('without dead letters it says how to get them', async () => {
      const { deadUrl } = await peer.urls(RECEIVES);
      const queue = createSqsQueue({ url: deadUrl, batchUrl: null, endpoint: peer.endpoint, region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'test' } });
      await expect(queue.dead.list({ max: 1 })).rejects.toMatchObject({ code: 'ERR_QUEUE_CONFIG', message: expect.stringContaining('redrive policy') as unknown });
      const { Attributes } = await peer.client.send(new GetQueueAttributesCommand({ QueueUrl: deadUrl, AttributeNames: ['QueueArn'] }));
      expect(Attributes?.QueueArn).toContain('-dead');
    });
  });
}
