/** What the system under test stands on: a store and queues, of this run or of somebody else, and how its processes are started over them. */
import { readFileSync } from 'node:fs';
import { parseEnv } from 'node:util';

import { GetQueueAttributesCommand, GetQueueUrlCommand, PurgeQueueCommand, SQSClient } from '@aws-sdk/client-sqs';

import { openStore } from '../../engine/adapters/store-url.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { startElasticmq } from '../../test/helpers/elasticmq.ts';
import { startVersitygw } from '../../test/helpers/versitygw.ts';
import { FAULTS, type FaultKind } from './plan.ts';

type Environment = Readonly<Record<string, string>>;

/** Somebody else's: with what its workers are started, and where its API is. */
export interface Outside {
  /** All of a worker's environment but PATH. */
  readonly worker: Environment;
  readonly url: string;
  /** '': it asks for none. */
  readonly apiKey: string;
}

/** Servers of this run's own. */
export interface Own {
  /** Of scripts/peers/build.mjs: a program, and a folder. */
  readonly gateway: string;
  readonly jars: string;
}

export interface Site extends AsyncDisposable {
  /** Of a process of ours, whole. */
  readonly environment: Environment;
  readonly apiKey: string;
  /** null: it is for the run to start one. */
  readonly url: string | null;
  /** As the tests see it: nothing lies between, and nobody's role is asked. */
  readonly store: ObjectStore;
  /** Messages that wait, that somebody has, and that are dead. */
  messages(): Promise<{ readonly visible: number; readonly inFlight: number; readonly dead: number }>;
  /** Deletes every message, whoever has it. @returns how many there were. */
  purge(): Promise<number>;
  restartStore(downMs: number): Promise<void>;
  restartQueue(downMs: number): Promise<void>;
}

const PREFIX = 'chaos';
/** What only its owner may do to a server, and to an API. */
const OF_OWNERS: readonly FaultKind[] = ['front', 'store', 'queue', 'purge'];
export const OUTSIDE_FAULTS: readonly FaultKind[] = FAULTS.filter((kind) => !OF_OWNERS.includes(kind));
const NEEDED = ['RUMINATE_STORE', 'RUMINATE_QUEUE'] as const;

/** @param file lines of NAME=value. @throws Error: it cannot be read, or names no store or queue. */
export function workerEnvironment(file: string): Environment {
  const read = parseEnv(readFileSync(file, 'utf8')) as Environment;
  const missing = NEEDED.filter((name) => (read[name] ?? '') === '');
  if (missing.length > 0) throw new Error(`${file} says nothing of ${missing.join(', ')}`);
  return read;
}

export async function ownSite({ gateway, jars }: Own, data: string): Promise<Site> {
  const s3 = await startVersitygw(gateway, data);
  const sqs = await startElasticmq(jars).catch(async (error: unknown) => {
    await s3[Symbol.asyncDispose]();
    throw error;
  });
  const { url, batchUrl, deadUrl } = sqs.standing;
  return {
    environment: { ...process.env as Environment, ...s3.environment, ...sqs.environment, RUMINATE_STORE: `s3://${s3.bucket}/${PREFIX}`, RUMINATE_QUEUE: url, RUMINATE_BATCH_QUEUE: batchUrl },
    apiKey: '', url: null, store: s3.store({ prefix: PREFIX }),
    messages: () => counted(sqs.client, [url, batchUrl], [deadUrl]),
    async purge() {
      const { visible, inFlight } = await counted(sqs.client, [url, batchUrl], []);
      await Promise.all([url, batchUrl].map((QueueUrl) => sqs.client.send(new PurgeQueueCommand({ QueueUrl }))));
      return visible + inFlight;
    },
    restartStore: (downMs) => s3.restart(downMs),
    restartQueue: (downMs) => sqs.restart(downMs),
    async [Symbol.asyncDispose]() {
      await sqs[Symbol.asyncDispose]();
      await s3[Symbol.asyncDispose]();
    },
  };
}

/** What the run itself asks of them goes by its own environment, as whoever operates them. */
export async function outsideSite({ worker, url, apiKey }: Outside): Promise<Site> {
  const endpoint = process.env.RUMINATE_SQS_ENDPOINT;
  const client = new SQSClient({ ...(endpoint === undefined ? {} : { endpoint }) });
  const queues = [worker.RUMINATE_QUEUE ?? '', worker.RUMINATE_BATCH_QUEUE ?? ''].map((queue) => queue.replace(/^sqs:/, '')).filter((queue) => queue !== '');
  const notOurs = () => Promise.reject(new Error('The store and the queue are somebody else\'s.'));
  return {
    environment: { PATH: process.env.PATH ?? '', ...worker },
    apiKey, url, store: await openStore(worker.RUMINATE_STORE ?? ''),
    messages: async () => await counted(client, queues, (await Promise.all(queues.map((queue) => deadOf(client, queue)))).filter((dead) => dead !== null)),
    purge: notOurs, restartStore: notOurs, restartQueue: notOurs,
    [Symbol.asyncDispose]: () => Promise.resolve(client.destroy()),
  };
}

/** null: its dead go nowhere. */
async function deadOf(client: SQSClient, QueueUrl: string): Promise<string | null> {
  const { Attributes = {} } = await client.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ['RedrivePolicy'] }));
  const { deadLetterTargetArn } = JSON.parse(Attributes.RedrivePolicy ?? '{}') as { readonly deadLetterTargetArn?: string };
  if (deadLetterTargetArn === undefined) return null;
  return (await client.send(new GetQueueUrlCommand({ QueueName: deadLetterTargetArn.split(':').at(-1) }))).QueueUrl ?? null;
}

async function counted(client: SQSClient, queues: readonly string[], dead: readonly string[]): Promise<{ readonly visible: number; readonly inFlight: number; readonly dead: number }> {
  const of = async (urls: readonly string[]) => await Promise.all(urls.map(async (QueueUrl) => (await client.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ['All'] }))).Attributes ?? {}));
  const sum = (found: readonly Readonly<Record<string, string>>[], name: string) => found.reduce((total, attributes) => total + Number(attributes[name] ?? 0), 0);
  const [alive, gone] = await Promise.all([of(queues), of(dead)]);
  const [visible, inFlight] = ['ApproximateNumberOfMessages', 'ApproximateNumberOfMessagesNotVisible'] as const;
  return { visible: sum(alive, visible), inFlight: sum(alive, inFlight), dead: sum(gone, visible) + sum(gone, inFlight) };
}
