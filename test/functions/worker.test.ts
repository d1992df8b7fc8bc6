/** The worker as Lambda's function: events in AWS's own shape, of messages that came from a real queue, and what the service does with the answer. */
import { DeleteMessageCommand, ReceiveMessageCommand, SendMessageCommand, type Message } from '@aws-sdk/client-sqs';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { createSqsQueue, type SqsQueue } from '../../engine/adapters/sqs.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { endJob } from '../../engine/kv/end.ts';
import type { WorkerEvent } from '../../engine/worker/events.ts';
import { consoleLog } from '../../functions/console-log.ts';
import { workerLog } from '../../functions/worker-log.ts';
import { type SqsEvent, type SqsRecord, handler, workerFunction } from '../../functions/worker.ts';
import { startFauxqs } from '../helpers/fauxqs.ts';
import { CREDENTIALS, type SqsPeer } from '../helpers/sqs-peer.ts';
import { Bench, LONG, quiet, SHORT, whereIs } from '../worker/support.ts';

let peer: SqsPeer;
beforeAll(async () => {
  peer = await startFauxqs();
});
afterAll(() => peer[Symbol.asyncDispose]());

/** As long as it takes. */
const AMPLE = { getRemainingTimeInMillis: () => 900_000 };

/** As the documentation has it. https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html */
function recordOf({ MessageId = '', ReceiptHandle = '', Body = '', MD5OfBody = '', Attributes = {} }: Message, queueName: string): SqsRecord {
  const record = {
    messageId: MessageId,
    receiptHandle: ReceiptHandle,
    body: Body,
    attributes: { ApproximateReceiveCount: Attributes.ApproximateReceiveCount ?? '1', SentTimestamp: '1545082649183', SenderId: 'AIDAIENQZJOLO23YVJ4VO', ApproximateFirstReceiveTimestamp: '1545082649185' },
    messageAttributes: {},
    md5OfBody: MD5OfBody,
    eventSource: 'aws:sqs',
    eventSourceARN: `arn:aws:sqs:us-east-1:000000000000:${queueName}`,
    awsRegion: 'us-east-1',
  };
  return record;
}

class Lambda {
  readonly bench = new Bench();
  readonly events: WorkerEvent[] = [];
  readonly url: string;
  readonly queue: SqsQueue;
  readonly #handle: ReturnType<typeof workerFunction>;

  private constructor(url: string, batchUrl: string, graceMs: number) {
    this.url = url;
    this.queue = createSqsQueue({ url, batchUrl, endpoint: peer.endpoint, region: 'us-east-1', credentials: CREDENTIALS });
    this.#handle = workerFunction({ store: this.bench.store, queue: this.queue, graceMs, threads: 1, policy: { deltaTokens: 40 }, onEvent: (event) => void this.events.push(event) });
  }

  static async start({ graceMs = 1_000 } = {}): Promise<Lambda> {
    const { url, batchUrl } = await peer.urls(100);
    return new Lambda(url, batchUrl, graceMs);
  }

  async submit(job: string, spec = SHORT): Promise<void> {
    await this.bench.submit(job, spec, { send: false });
    await this.queue.send({ v: 1, tenant: 'acme', job, slice: 0 });
  }

  /** What the service does: receives, invokes, deletes what did not fail. Ids that failed, by job. */
  async invoke(context = AMPLE): Promise<{ readonly jobs: readonly string[]; readonly failed: readonly string[] }> {
    const { Messages = [] } = await peer.client.send(new ReceiveMessageCommand({ QueueUrl: this.url, MaxNumberOfMessages: 10, WaitTimeSeconds: 1, VisibilityTimeout: 60, MessageSystemAttributeNames: ['All'] }));
    const event: SqsEvent = { Records: Messages.map((message) => recordOf(message, this.url.split('/').at(-1) ?? '')) };
    const { batchItemFailures } = await this.#handle(event, context);
    const ids = new Set(batchItemFailures.map(({ itemIdentifier }) => itemIdentifier));
    for (const { MessageId = '', ReceiptHandle } of Messages) if (!ids.has(MessageId)) await peer.client.send(new DeleteMessageCommand({ QueueUrl: this.url, ReceiptHandle }));
    const jobOf = ({ Body = '' }: Message) => (Body.startsWith('{') ? (JSON.parse(Body) as { job: string }).job : Body);
    return { jobs: Messages.map(jobOf).sort(), failed: Messages.filter(({ MessageId = '' }) => ids.has(MessageId)).map(jobOf).sort() };
  }

  kinds(job: string): readonly string[] {
    return this.events.filter((event) => 'where' in event && event.where.job === job).map(({ kind }) => kind);
  }
}

describe('an invocation', () => {
  test('runs the jobs of its messages, and none of them comes back', async () => {
    const lambda = await Lambda.start();
    await lambda.submit('a');
    await lambda.submit('b');
    const seen: string[] = [];
    while (seen.length < 2) {
      const { jobs, failed } = await lambda.invoke();
      expect(failed).toEqual([]);
      seen.push(...jobs);
    }
    const expected = await quiet(SHORT);
    for (const job of ['a', 'b']) expect(await lambda.bench.result(job)).toEqual(expected);
    expect(await lambda.queue.depth()).toMatchObject({ visible: 0, inFlight: 0 });
  });

  test('that comes to its end parks its job and sends a continuation; the next one goes on with the same tokens', async () => {
    // Of more work than any machine does in the first invocation.
    const longer = { ...LONG, budget: { length: 900, width: 8 } };
    const lambda = await Lambda.start({ graceMs: 100 });
    await lambda.submit('long', longer);
    let invocations = 0;
    while ((await lambda.bench.head('long')).state !== 'done') {
      // So little that it never ends in one, and more each time, for a machine that has much else to do.
      const leftMs = 150 + 50 * invocations++;
      expect((await lambda.invoke({ getRemainingTimeInMillis: () => leftMs })).jobs.length).toBeLessThanOrEqual(1);
      expect(invocations).toBeLessThan(200);
    }
    expect(lambda.kinds('long').filter((kind) => kind === 'parked').length).toBeGreaterThan(0);
    expect(await lambda.bench.head('long')).toMatchObject({ state: 'done', strikes: 0 });
    expect(await lambda.bench.result('long')).toEqual(await quiet(longer));
  });

  test('names the messages that are to come back, and only those', async () => {
    const lambda = await Lambda.start();
    await lambda.submit('fine');
    await lambda.submit('ended');
    await endJob(lambda.bench.store, whereIs('ended'), 'cancelled');
    await lambda.queue.send({ v: 1, tenant: 'acme', job: 'nowhere', slice: 0 });
    await peer.client.send(new SendMessageCommand({ QueueUrl: lambda.url, MessageBody: 'none of ours' }));
    const jobs: string[] = [];
    const failed: string[] = [];
    while (jobs.length < 4) {
      const invoked = await lambda.invoke();
      jobs.push(...invoked.jobs);
      failed.push(...invoked.failed);
    }
    expect(failed).toEqual(['none of ours']);
    expect(await lambda.bench.head('fine')).toMatchObject({ state: 'done' });
    expect(lambda.events.filter(({ kind }) => kind === 'dropped')).toHaveLength(2);
  });

  test('whose grace leaves it no time fails and says so, and its messages do not come back at once', async () => {
    const lambda = await Lambda.start();
    await lambda.submit('sums');
    await expect(lambda.invoke({ getRemainingTimeInMillis: () => 900 })).rejects.toMatchObject({ code: 'ERR_OPTION', message: expect.stringContaining('RUMINATE_GRACE') as string });
    expect(await lambda.bench.head('sums')).toMatchObject({ state: 'queued', epoch: 0 });
    expect(await lambda.queue.depth()).toMatchObject({ visible: 0, inFlight: 1 });
  });

  test('that has no time left after one of its messages gives the others to the next at once', async () => {
    const lambda = await Lambda.start();
    for (const job of ['a', 'b']) await lambda.submit(job);
    let asked = 0;
    const { jobs, failed } = await lambda.invoke({ getRemainingTimeInMillis: () => (asked++ < 2 ? 900_000 : 900) });
    expect(failed).toHaveLength(jobs.length - 1);
    for (let i = 0; i < 5 && (await lambda.queue.depth()).visible > 0; i++) expect((await lambda.invoke()).failed).toEqual([]);
    for (const job of ['a', 'b']) expect(await lambda.bench.head(job)).toMatchObject({ state: 'done' });
  });
});

test('what it says of jobs is lines of JSON on the console, from its level on', () => {
  const written: string[] = [];
  const spy = vi.spyOn(console, 'log').mockImplementation((line: string) => void written.push(line));
  try {
    const log = consoleLog('warn');
    workerLog(log, { kind: 'started', where: whereIs('sums'), slice: 0, alone: false, traceparent: undefined });
    workerLog(log, { kind: 'failed', where: whereIs('sums'), error: new EngineError('ERR_STORE', 'gone'), delayMs: 2_000 });
  } finally {
    spy.mockRestore();
  }
  expect(written.map((line) => JSON.parse(line) as object)).toEqual([expect.objectContaining({ level: 'warn', ...whereIs('sums'), code: 'ERR_STORE', fault: 'gone', delayMs: 2_000, msg: 'slice failed' })]);
});

test('an event of something else than its queue is refused in a sentence', async () => {
  const bench = new Bench();
  const handle = workerFunction({ store: bench.store, queue: {} as SqsQueue, graceMs: 1 });
  for (const event of [{}, null, { source: 'aws.events', detail: {} }]) await expect(handle(event as never, AMPLE)).rejects.toMatchObject({ code: 'ERR_OPTION', message: expect.stringContaining('event source mapping') as unknown });
});

test('a function that is not configured says everything that is wrong, at every invocation', async () => {
  for (let i = 0; i < 2; i++) await expect(handler({ Records: [] }, AMPLE)).rejects.toMatchObject({ code: 'ERR_OPTION', message: expect.stringContaining('RUMINATE_STORE') as unknown });
});
