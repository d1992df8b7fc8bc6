/**
 * SQS, through AWS's SDK: a standard queue, and another for batches if they are to wait for everything interactive. Tenants are message
 * groups, which is what SQS's fair queues go by. The SDK tries nothing again by itself (sqs-calls.ts does). Knows nothing of Node: with a
 * handler over fetch and a clock of the web it runs on workerd.
 */
import {
  ChangeMessageVisibilityCommand, DeleteMessageCommand, GetQueueAttributesCommand, ReceiveMessageCommand, SendMessageBatchCommand, SendMessageCommand, SQSClient,
  type Message, type SQSClientConfig,
} from '@aws-sdk/client-sqs';

import { type Clock, systemClock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { InOrder } from '../core/waiting.ts';
import type { CallOptions } from '../ports/object-store.ts';
import {
  DELAY_MS_MAX, EMPTY_DEPTH, HELD_MS_MAX, priorityOf,
  type ClassDepth, type DeadLetters, type Priority, type Queue, type QueueDepth, type ReceivedMessage, type SendOptions, type SliceMessage,
} from '../ports/queue.ts';
import { formatMessage, parseMessage } from './queue-message.ts';
import { SqsDeadLetters } from './sqs-dead.ts';
import { type Abortable, type SqsCalls, insistOnSqs } from './sqs-calls.ts';

export interface SqsOptions {
  /** `https://sqs.eu-central-1.amazonaws.com/123456789012/jobs` */
  readonly url: string;
  /** null: messages of batches go with the others. */
  readonly batchUrl: string | null;
  /** Where calls go. Default: where the addresses say. */
  readonly endpoint?: string | undefined;
  /** Default: that of the address, else AWS's standard chain. */
  readonly region?: string | undefined;
  /** Default: AWS's standard chain. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken?: string } | undefined;
  /** Default: the SDK's own for where it runs. */
  readonly requestHandler?: SQSClientConfig['requestHandler'] | undefined;
  readonly clock?: Clock | undefined;
  /** From 0 to below 1, for the jitter of the backoff. */
  readonly random?: (() => number) | undefined;
  /** For one call with all its attempts, beside what it waits on purpose. */
  readonly deadlineMs?: number | undefined;
}

const DEADLINE_MS = 60_000;
const CONNECT_MS = 5_000;
/** SQS's own longest wait, and time for the answer. */
const IDLE_MS = 35_000;
const SEND_MAX = 10;
const RECEIVE_MAX = 10;
const WAIT_MS_MAX = 20_000;
/** With two queues: how long one is waited for while the other is not looked at. */
const LOOK_MS = 4_000;

/** @example const queue = createSqsQueue({ url: 'https://sqs.eu-central-1.amazonaws.com/123456789012/jobs', batchUrl: null }); */
export function createSqsQueue(options: SqsOptions): SqsQueue {
  return new SqsQueue(options);
}

export function sqsClient(url: string, { endpoint, region, credentials, requestHandler }: Pick<SqsOptions, 'endpoint' | 'region' | 'credentials' | 'requestHandler'>): SQSClient {
  const at = region ?? regionOf(url);
  return new SQSClient({
    maxAttempts: 1,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(at === null ? {} : { region: at }),
    ...(credentials === undefined ? {} : { credentials }),
    requestHandler: requestHandler ?? { connectionTimeout: CONNECT_MS, socketTimeout: IDLE_MS },
  });
}

export class SqsQueue implements Queue {
  readonly url: string;
  readonly dead: DeadLetters;
  readonly #batchUrl: string | null;
  readonly #calls: SqsCalls;
  readonly #changes = new InOrder();

  constructor({ url, batchUrl, endpoint, region, credentials, requestHandler, clock = systemClock, random = Math.random, deadlineMs = DEADLINE_MS }: SqsOptions) {
    this.url = url;
    this.#batchUrl = batchUrl;
    const client = sqsClient(url, { endpoint, region, credentials, requestHandler });
    this.#calls = { client, clock, random, deadlineMs };
    this.dead = new SqsDeadLetters(this.#calls, batchUrl === null ? [url] : [url, batchUrl], (messages, call) => this.sendAll(messages, call));
  }

  async send(message: SliceMessage, { signal, delayMs = 0 }: SendOptions = {}): Promise<void> {
    const url = this.#urlOf(message);
    const { client } = this.#calls;
    const command = () => new SendMessageCommand({ QueueUrl: url, ...entryOf(message), DelaySeconds: seconds(Math.min(delayMs, DELAY_MS_MAX)) });
    await insistOnSqs(this.#calls, { url, signal }, (options) => client.send(command(), options));
  }

  async sendAll(messages: readonly SliceMessage[], { signal }: CallOptions = {}): Promise<void> {
    for (const url of new Set(messages.map((message) => this.#urlOf(message)))) {
      const ours = messages.filter((message) => this.#urlOf(message) === url);
      for (let at = 0; at < ours.length; at += SEND_MAX) await this.#sendBatch(url, ours.slice(at, at + SEND_MAX), signal);
    }
  }

  /** With two queues, the one of batches is asked only when the other has just had nothing. */
  async receive({ signal, max, waitMs, visibilityMs }: Parameters<Queue['receive']>[0]): Promise<readonly ReceivedMessage[]> {
    const { clock } = this.#calls;
    const endsMs = clock.nowMs() + waitMs;
    const ask = (url: string, askMs: number) => this.#receive(url, { signal, max: Math.min(max, RECEIVE_MAX), waitMs: Math.max(0, askMs), visibilityMs });
    const url = this.#batchUrl;
    for (let isFirst = true; ; isFirst = false) {
      const leftMs = endsMs - clock.nowMs();
      const interactive = await ask(this.url, url === null ? Math.min(leftMs, WAIT_MS_MAX) : isFirst ? 0 : Math.min(leftMs, LOOK_MS));
      if (interactive.length > 0) return interactive;
      const batch = url === null ? [] : await ask(url, 0);
      if (batch.length > 0 || endsMs <= clock.nowMs()) return batch;
    }
  }

  async extend(receipt: string, visibilityMs: number, { signal }: CallOptions = {}): Promise<void> {
    const held = heldOf(receipt);
    if (held === null) return;
    // SQS refuses what would be more in all.
    const leftMs = held.sinceMs + HELD_MS_MAX - this.#calls.clock.nowMs();
    await this.#show(receipt, Math.floor(Math.max(0, Math.min(visibilityMs, leftMs)) / 1_000), signal);
  }

  async release(receipt: string, delayMs: number, { signal }: CallOptions = {}): Promise<void> {
    await this.#show(receipt, seconds(Math.min(delayMs, HELD_MS_MAX / 2)), signal);
  }

  async remove(receipt: string, { signal }: CallOptions = {}): Promise<void> {
    const { client } = this.#calls;
    await this.#change(receipt, signal, (message, options) => client.send(new DeleteMessageCommand(message), options));
  }

  async depth({ signal }: CallOptions = {}): Promise<QueueDepth> {
    const [interactive, batch] = await Promise.all([this.#depthOf(this.url, signal), this.#batchUrl === null ? EMPTY_DEPTH.batch : this.#depthOf(this.#batchUrl, signal)]);
    return { ...interactive, batch, ...(this.#batchUrl === null ? { isMixed: true } : {}) };
  }

  /** A record of Lambda's event, as if this queue had received it. @param source the end of its eventSourceARN: the queue's name. */
  received({ body, receiptHandle, receiveCount, source }: { readonly body: string; readonly receiptHandle: string; readonly receiveCount: number; readonly source: string }): ReceivedMessage {
    const isBatch = this.#batchUrl !== null && this.#batchUrl.endsWith(`/${source}`);
    return { message: parseMessage(body), receipt: this.#receiptOf(isBatch ? 'batch' : 'interactive', receiptHandle), received: receiveCount };
  }

  #urlOf(message: Pick<SliceMessage, 'priority'>): string {
    return priorityOf(message) === 'batch' ? (this.#batchUrl ?? this.url) : this.url;
  }

  async #sendBatch(url: string, messages: readonly SliceMessage[], signal: AbortSignal | undefined): Promise<void> {
    const { client } = this.#calls;
    let left = messages.map((message, i) => ({ Id: `${i}`, ...entryOf(message) }));
    await insistOnSqs(this.#calls, { url, signal }, async (options) => {
      const { Failed = [] } = await client.send(new SendMessageBatchCommand({ QueueUrl: url, Entries: left }), options);
      const refused = Failed.find(({ SenderFault }) => SenderFault === true);
      if (refused !== undefined) throw new EngineError('ERR_QUEUE', `${url}: the queue refused a message (${refused.Code}: ${refused.Message}).`);
      left = left.filter(({ Id }) => Failed.some((failed) => failed.Id === Id));
      if (left.length > 0) throw new Error(Failed[0]?.Code ?? 'a message was not sent');
    });
  }

  async #receive(url: string, { signal, max, waitMs, visibilityMs }: Parameters<Queue['receive']>[0]): Promise<readonly ReceivedMessage[]> {
    const { client } = this.#calls;
    const command = () => new ReceiveMessageCommand({
      QueueUrl: url, MaxNumberOfMessages: max, VisibilityTimeout: seconds(Math.min(visibilityMs, HELD_MS_MAX)), WaitTimeSeconds: seconds(waitMs),
      MessageSystemAttributeNames: ['ApproximateReceiveCount'],
    });
    const answer = await insistOnSqs(this.#calls, { url, waitMs, signal }, (options) => client.send(command(), options));
    const priority = url === this.#batchUrl ? 'batch' : 'interactive';
    return (answer?.Messages ?? []).map(({ Body = '', ReceiptHandle = '', Attributes }: Message) => ({
      message: parseMessage(Body), receipt: this.#receiptOf(priority, ReceiptHandle), received: Number(Attributes?.ApproximateReceiveCount ?? 1),
    }));
  }

  async #show(receipt: string, VisibilityTimeout: number, signal: AbortSignal | undefined): Promise<void> {
    const { client } = this.#calls;
    await this.#change(receipt, signal, (message, options) => client.send(new ChangeMessageVisibilityCommand({ ...message, VisibilityTimeout }), options));
  }

  /** One at a time of a receipt: side by side, SQS might see the last one first. */
  async #change(receipt: string, signal: AbortSignal | undefined, attempt: (message: { readonly QueueUrl: string; readonly ReceiptHandle: string }, options: Abortable) => Promise<unknown>): Promise<void> {
    const held = heldOf(receipt);
    if (held === null) return;
    const url = this.#urlOf({ priority: held.priority });
    await this.#changes.take(receipt, signal, () => insistOnSqs(this.#calls, { url, signal }, (options) => attempt({ QueueUrl: url, ReceiptHandle: held.handle }, options)));
  }

  async #depthOf(url: string, signal: AbortSignal | undefined): Promise<ClassDepth> {
    const { client } = this.#calls;
    const command = () => new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ['ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible'] });
    const { Attributes = {} } = (await insistOnSqs(this.#calls, { url, signal }, (options) => client.send(command(), options))) ?? {};
    const visible = Number(Attributes.ApproximateNumberOfMessages ?? 0);
    // Only CloudWatch is told the age.
    return { visible, inFlight: Number(Attributes.ApproximateNumberOfMessagesNotVisible ?? 0), oldestAgeMs: visible === 0 ? 0 : null };
  }

  #receiptOf(priority: Priority, handle: string): string {
    return `${priority === 'batch' ? 'b' : 'i'}:${Math.round(this.#calls.clock.nowMs())}:${handle}`;
  }
}

interface Held {
  readonly priority: 'batch' | undefined;
  readonly sinceMs: number;
  readonly handle: string;
}

/** null: none of ours. */
function heldOf(receipt: string): Held | null {
  const [, letter, since, handle] = /^([bi]):(\d+):(.+)$/s.exec(receipt) ?? [];
  return handle === undefined ? null : { priority: letter === 'b' ? 'batch' : undefined, sinceMs: Number(since), handle };
}

function entryOf(message: SliceMessage): { readonly MessageBody: string; readonly MessageGroupId: string } {
  return { MessageBody: formatMessage(message), MessageGroupId: message.tenant };
}

/** SQS counts in whole seconds; never sooner than asked. */
function seconds(ms: number): number {
  return Math.ceil(ms / 1_000);
}

function regionOf(url: string): string | null {
  return /^https:\/\/sqs\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?\//.exec(url)?.[1] ?? null;
}
