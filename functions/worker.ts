/**
 * The worker as a function: Lambda hands it a queue's messages, and it runs a slice for each, as long as the invocation lasts. What it says of each
 * message is Lambda's partial batch response (`ReportBatchItemFailures`): those that it names come back, the others are deleted. A long job
 * crosses as many invocations as it needs, by continuations that it sends. It needs the native engine, and so an image; docs/QUEUE.md.
 */
import { keyProviderOf } from '../engine/adapters/key-url.ts';
import { openModelSource } from '../engine/adapters/model-source.ts';
import { openQueue } from '../engine/adapters/queue-url.ts';
import { SqsQueue } from '../engine/adapters/sqs.ts';
import { openStore } from '../engine/adapters/store-url.ts';
import { type Clock, systemClock } from '../engine/core/clock.ts';
import { EngineError } from '../engine/core/errors.ts';
import { ModelCache } from '../engine/model/cache.ts';
import { CachingFinder } from '../engine/model/finder.ts';
import type { Queue } from '../engine/ports/queue.ts';
import { Outbox } from '../engine/webhook/outbox.ts';
import { Worker, type WorkerOptions } from '../engine/worker/worker.ts';
import { consoleLog } from './console-log.ts';
import { workerConfig } from './worker-env.ts';
import { workerLog } from './worker-log.ts';

/** What is used of it. https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html */
export interface SqsRecord {
  readonly messageId: string;
  readonly receiptHandle: string;
  readonly body: string;
  readonly attributes: { readonly ApproximateReceiveCount: string };
  readonly eventSourceARN: string;
}

export interface SqsEvent {
  readonly Records: readonly SqsRecord[];
}

export interface LambdaContext {
  getRemainingTimeInMillis(): number;
}

export interface SqsBatchResponse {
  readonly batchItemFailures: readonly { readonly itemIdentifier: string }[];
}

export type SqsHandler = (event: SqsEvent, context: LambdaContext) => Promise<SqsBatchResponse>;

export interface WorkerFunctionOptions extends Omit<WorkerOptions, 'queue' | 'slots' | 'isQueueNew' | 'reconcileMs'> {
  readonly queue: SqsQueue;
  /** For committing and handing back: before the end of an invocation. */
  readonly graceMs: number;
}

/** @example export const handler = workerFunction({ store, queue, graceMs: 20_000 }); */
export function workerFunction({ queue, graceMs, ...options }: WorkerFunctionOptions): SqsHandler {
  const clock: Clock = options.clock ?? systemClock;
  // Its models stay loaded while the instance is kept. It takes nothing by itself: it is not started.
  const worker = new Worker({ ...options, queue: settledByLambda(queue) });
  return async (event, context) => {
    const { Records } = event ?? {};
    if (!Array.isArray(Records)) throw new EngineError('ERR_OPTION', 'The event has no Records of SQS: this function is for an event source mapping of its queue.');
    const beginMs = context.getRemainingTimeInMillis();
    // Given back at once they would be here again at once, a hundred times within seconds, and then dead, without a word.
    if (beginMs <= graceMs) throw new EngineError('ERR_OPTION', `RUMINATE_GRACE must be below the function's timeout: it is ${graceMs} ms, and this invocation had ${Math.max(0, beginMs)} ms when it began.`);
    const batchItemFailures: { readonly itemIdentifier: string }[] = [];
    for (const { messageId, body, receiptHandle, attributes, eventSourceARN } of Records) {
      const leftMs = context.getRemainingTimeInMillis() - graceMs;
      const received = queue.received({ body, receiptHandle, receiveCount: Number(attributes.ApproximateReceiveCount), source: eventSourceARN.split(':').at(-1) ?? '' });
      if (leftMs <= 0) {
        // Not begun: another invocation may have it at once.
        await queue.release(received.receipt, 0).catch(() => undefined);
        batchItemFailures.push({ itemIdentifier: messageId });
        continue;
      }
      using timer = clock.timeout(leftMs);
      if ((await worker.handle(received, timer.signal)) === 'again') batchItemFailures.push({ itemIdentifier: messageId });
    }
    return { batchItemFailures };
  };
}

/** Lambda deletes what was not said to have failed: deleting it here too would only need one more right. */
function settledByLambda(queue: SqsQueue): Queue {
  return {
    url: queue.url,
    dead: queue.dead,
    send: (message, options) => queue.send(message, options),
    sendAll: (messages, options) => queue.sendAll(messages, options),
    receive: (options) => queue.receive(options),
    extend: (receipt, visibilityMs, options) => queue.extend(receipt, visibilityMs, options),
    release: (receipt, delayMs, options) => queue.release(receipt, delayMs, options),
    remove: async () => undefined,
    depth: (options) => queue.depth(options),
  };
}

let opened: Promise<SqsHandler> | null = null;

/** From RUMINATE_* and AWS's own variables; while the configuration is wrong every invocation fails and says what is. */
export const handler: SqsHandler = async (event, context) => {
  opened ??= open(process.env);
  return await (await opened.catch((error: unknown) => {
    opened = null;
    throw error;
  }))(event, context);
};

async function open(environment: NodeJS.ProcessEnv): Promise<SqsHandler> {
  const { store: url, policy, threads, sliceMs, begins, graceMs, retention, logLevel } = workerConfig({}, environment);
  const store = await openStore(url, { environment });
  await store.probe();
  const { queue } = await openQueue(environment.RUMINATE_QUEUE ?? '', { batchUrl: environment.RUMINATE_BATCH_QUEUE || null, environment });
  if (!(queue instanceof SqsQueue)) throw new EngineError('ERR_QUEUE_CONFIG', `RUMINATE_QUEUE must be the address of the SQS queue whose messages this function is given; got ${queue.url}.`);
  const log = consoleLog(logLevel);
  return workerFunction({
    store, queue, policy, threads, sliceMs, begins, graceMs,
    outbox: new Outbox({ store, retention }),
    onEvent: (event) => workerLog(log, event),
    keys: await keyProviderOf(),
    models: new CachingFinder({ cache: new ModelCache(), open: openModelSource, store: environment.RUMINATE_MODELS_STORE }),
  });
}
