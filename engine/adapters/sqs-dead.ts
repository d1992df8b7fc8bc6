/**
 * The dead-letter queues that SQS queues name in their redrive policies. Messages are received, sent again and then deleted, rather than by
 * StartMessageMoveTask: what is none of ours stays where it is, and whoever stopped half way goes on.
 */
import {
  ChangeMessageVisibilityBatchCommand, DeleteMessageBatchCommand, GetQueueAttributesCommand, ReceiveMessageCommand, type Message,
} from '@aws-sdk/client-sqs';

import { EngineError } from '../core/errors.ts';
import type { CallOptions } from '../ports/object-store.ts';
import type { DeadLetters, DeadMessage, SliceMessage } from '../ports/queue.ts';
import { parseMessage } from './queue-message.ts';
import { type SqsCalls, insistOnSqs } from './sqs-calls.ts';

/** Looking, or sending ten of them again. */
const HELD_S = 60;
const AT_ONCE = 10;
/** So that an empty answer means an empty queue: a call without waiting asks some of SQS's machines only. */
const WAIT_S = 1;

export class SqsDeadLetters implements DeadLetters {
  readonly #calls: SqsCalls;
  readonly #sources: readonly string[];
  readonly #sendAll: (messages: readonly SliceMessage[], options: CallOptions) => Promise<void>;

  constructor(calls: SqsCalls, sources: readonly string[], sendAll: (messages: readonly SliceMessage[], options: CallOptions) => Promise<void>) {
    this.#calls = calls;
    this.#sources = sources;
    this.#sendAll = sendAll;
  }

  async list({ max, signal }: CallOptions & { readonly max: number }): Promise<readonly DeadMessage[]> {
    const found: DeadMessage[] = [];
    for (const url of await this.#urls(signal)) {
      const seen: Message[] = [];
      while (found.length + seen.length < max) {
        const some = await this.#receive(url, Math.min(AT_ONCE, max - found.length - seen.length), signal);
        if (some.length === 0) break;
        seen.push(...some);
      }
      found.push(...seen.map(({ Body = '', Attributes }) => ({ message: parseMessage(Body), received: null, sentMs: Number(Attributes?.SentTimestamp ?? 0) })));
      await this.#show(url, seen, signal);
    }
    return found;
  }

  async redrive({ signal }: CallOptions = {}): Promise<number> {
    return await this.#empty(async (ours) => await this.#sendAll(ours.flatMap(({ Body = '' }) => parseMessage(Body) ?? []), { signal }), signal);
  }

  async purge({ signal }: CallOptions = {}): Promise<number> {
    return await this.#empty(async () => undefined, signal);
  }

  /** What is ours is deleted once `before` is done with it. @returns how many. */
  async #empty(before: (ours: readonly Message[]) => Promise<void>, signal: AbortSignal | undefined): Promise<number> {
    let deleted = 0;
    for (const url of await this.#urls(signal)) {
      const foreign = new Map<string | undefined, Message>();
      for (;;) {
        const some = await this.#receive(url, AT_ONCE, signal);
        const ours = some.filter(({ Body = '' }) => parseMessage(Body) !== null);
        const theirs = some.filter((message) => !ours.includes(message));
        // Nothing is left, or so much of others that what came first is seen again.
        if (ours.length === 0 && theirs.every(({ MessageId }) => foreign.has(MessageId))) break;
        for (const message of theirs) foreign.set(message.MessageId, message);
        await before(ours);
        deleted += await this.#delete(url, ours, signal);
      }
      await this.#show(url, [...foreign.values()], signal);
    }
    return deleted;
  }

  /** SQS has them in the account and region of their sources. */
  async #urls(signal: AbortSignal | undefined): Promise<readonly string[]> {
    const urls = new Set<string>();
    for (const url of this.#sources) {
      const command = () => new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ['RedrivePolicy'] });
      const answer = await insistOnSqs(this.#calls, { url, signal }, (options) => this.#calls.client.send(command(), options));
      const name = /"deadLetterTargetArn"\s*:\s*"[^"]*:([\w.-]+)"/.exec(answer?.Attributes?.RedrivePolicy ?? '')?.[1];
      if (name === undefined) throw new EngineError('ERR_QUEUE_CONFIG', `${url}: it has no dead-letter queue; give it a redrive policy (maxReceiveCount 100).`);
      urls.add(url.replace(/[^/]+$/, name));
    }
    return [...urls];
  }

  async #receive(url: string, max: number, signal: AbortSignal | undefined): Promise<readonly Message[]> {
    const command = () => new ReceiveMessageCommand({
      QueueUrl: url, MaxNumberOfMessages: max, VisibilityTimeout: HELD_S, WaitTimeSeconds: WAIT_S, MessageSystemAttributeNames: ['SentTimestamp'],
    });
    const answer = await insistOnSqs(this.#calls, { url, waitMs: WAIT_S * 1_000, signal }, (options) => this.#calls.client.send(command(), options));
    return answer?.Messages ?? [];
  }

  /** What does not arrive is seen again when its time is over, and what is not deleted is sent twice: both are harmless. */
  async #show(url: string, messages: readonly Message[], signal: AbortSignal | undefined): Promise<void> {
    for (const Entries of batches(messages)) {
      const command = () => new ChangeMessageVisibilityBatchCommand({ QueueUrl: url, Entries: Entries.map((entry) => ({ ...entry, VisibilityTimeout: 0 })) });
      await insistOnSqs(this.#calls, { url, signal }, (options) => this.#calls.client.send(command(), options));
    }
  }

  /** Returns how many are gone: SQS answers for each by itself. */
  async #delete(url: string, messages: readonly Message[], signal: AbortSignal | undefined): Promise<number> {
    let gone = 0;
    for (const Entries of batches(messages)) {
      const answer = await insistOnSqs(this.#calls, { url, signal }, (options) => this.#calls.client.send(new DeleteMessageBatchCommand({ QueueUrl: url, Entries: [...Entries] }), options));
      gone += answer?.Successful?.length ?? 0;
    }
    return gone;
  }
}

function batches(messages: readonly Message[]): readonly (readonly { readonly Id: string; readonly ReceiptHandle: string | undefined }[])[] {
  const entries = messages.map(({ ReceiptHandle }, i) => ({ Id: `${i}`, ReceiptHandle }));
  return Array.from({ length: Math.ceil(entries.length / AT_ONCE) }, (_, i) => entries.slice(i * AT_ONCE, (i + 1) * AT_ONCE));
}
