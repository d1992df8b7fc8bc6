/**
 * A worker on a machine of its own: `tsx sqs-worker.ts <json of SqsWork>`. It knows a store, an SQS queue and the models store. Says `ready`, and
 * `stopped` before it stops itself (SIGSTOP) where it was told to.
 */
import { writeSync } from 'node:fs';

import { ChangeMessageVisibilityCommand, DeleteMessageCommand, ReceiveMessageCommand, SQSClient, SendMessageCommand } from '@aws-sdk/client-sqs';

import { openModelSource } from '../../engine/adapters/model-source.ts';
import { openStore } from '../../engine/adapters/store-url.ts';
import { CachingFinder } from '../../engine/model/finder.ts';
import { ModelCache } from '../../engine/model/cache.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import type { Queue, SliceMessage } from '../../engine/ports/queue.ts';
import { Worker } from '../../engine/worker/worker.ts';

export interface SqsWork {
  readonly store: string;
  readonly models: string;
  readonly queue: string;
  /** Stops itself after so many writes of heads; null: never. */
  readonly stopAfterHeads: number | null;
}

const { store: url, models, queue: queueUrl, stopAfterHeads } = JSON.parse(process.argv[2] ?? '') as SqsWork;

function stopping(store: ObjectStore, heads: number): ObjectStore {
  let seen = 0;
  const put: ObjectStore['put'] = async (key, body, options) => {
    const outcome = await store.put(key, body, options);
    if (key.endsWith('/HEAD') && ++seen === heads) {
      say('stopped');
      process.kill(process.pid, 'SIGSTOP');
    }
    return outcome;
  };
  return new Proxy(store, { get: (target, key) => (key === 'put' ? put : ((value: unknown) => (typeof value === 'function' ? value.bind(target) as unknown : value))(Reflect.get(target, key, target))) });
}

const sqs = new SQSClient({});
const queue: Queue = {
  url: queueUrl,
  send: async (message) => void (await sqs.send(new SendMessageCommand({ QueueUrl: queueUrl, MessageBody: JSON.stringify(message) }))),
  async receive({ max, waitMs, visibilityMs, signal }) {
    const command = new ReceiveMessageCommand({ QueueUrl: queueUrl, MaxNumberOfMessages: Math.min(10, max), WaitTimeSeconds: Math.min(2, Math.floor(waitMs / 1_000)), VisibilityTimeout: Math.ceil(visibilityMs / 1_000) });
    const { Messages = [] } = await sqs.send(command, signal === undefined ? {} : { abortSignal: signal });
    return Messages.map(({ Body = '', ReceiptHandle = '' }) => ({ message: JSON.parse(Body) as SliceMessage, receipt: ReceiptHandle, received: 1 }));
  },
  extend: async (receipt, ms) => void (await sqs.send(new ChangeMessageVisibilityCommand({ QueueUrl: queueUrl, ReceiptHandle: receipt, VisibilityTimeout: Math.ceil(ms / 1_000) }))),
  release: async (receipt, ms) => void (await sqs.send(new ChangeMessageVisibilityCommand({ QueueUrl: queueUrl, ReceiptHandle: receipt, VisibilityTimeout: Math.ceil(ms / 1_000) }))),
  remove: async (receipt) => void (await sqs.send(new DeleteMessageCommand({ QueueUrl: queueUrl, ReceiptHandle: receipt }))),
  depth: async () => ({ visible: 0, inFlight: 0, oldestAgeMs: 0, batch: { visible: 0, inFlight: 0, oldestAgeMs: 0 } }),
};

// Not through a stream: what was said before it stopped must have been said.
function say(line: string): void {
  writeSync(1, `${line}\n`);
}

const store = await openStore(url);
const worker = new Worker({
  store: stopAfterHeads === null ? store : stopping(store, stopAfterHeads),
  queue,
  models: new CachingFinder({ cache: new ModelCache(), open: openModelSource, store: models }),
  threads: 1,
  policy: { deltaTokens: 40 },
  onEvent: (event) => { if (process.env.DEBUG_WORKER) process.stderr.write(`${JSON.stringify(event, (_, v: unknown) => (v instanceof Error ? v.message : v))}\n`); },
});
worker.start();
say('ready');
process.once('SIGTERM', () => void worker.drain({ deadlineMs: 10_000 }).then(() => process.exit(0)));
