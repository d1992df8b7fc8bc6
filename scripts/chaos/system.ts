/** The system under test: an API, workers, an S3 server and a queue server, each a process, with a wire of its own between each of ours and each of theirs. */
import { mkdirSync } from 'node:fs';
import path from 'node:path';

import { GetQueueAttributesCommand, PurgeQueueCommand } from '@aws-sdk/client-sqs';

import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { type Elasticmq, startElasticmq } from '../../test/helpers/elasticmq.ts';
import { freePort } from '../../test/helpers/port.ts';
import type { S3Peer } from '../../test/helpers/s3-peer.ts';
import { startVersitygw } from '../../test/helpers/versitygw.ts';
import { canBeApart, Member } from './member.ts';
import type { Plan } from './plan.ts';
import { Wire } from './wire.ts';

export interface SystemOptions {
  readonly plan: Plan;
  readonly folder: string;
  /** Of scripts/peers/build.mjs. */
  readonly gateway: string;
  readonly jars: string;
}

const PREFIX = 'chaos';
/** A worker that writes at least every 3 s counts as gone after 9, and is looked for every 5. */
const WORKER = ['--slots', '4', '--slice-time', '4s', '--checkpoint-time', '3s', '--journal-time', '700ms', '--checkpoint-tokens', '150', '--walk-time', '5s', '--threads', '1', '--webhooks-to-loopback'];

/** One of ours, and what lies between it and the servers. */
interface Wired {
  readonly member: Member;
  readonly wires: readonly Wire[];
}

export class System implements AsyncDisposable {
  readonly url: string;
  readonly front: Wired;
  readonly workers: readonly Wired[];
  readonly s3: S3Peer;
  readonly sqs: Elasticmq;
  /** Of what all have said in their logs. */
  readonly said: ReadonlyMap<string, number>;
  /** Some workers are seen to be dead, the others only to be silent. */
  readonly apart: number;
  readonly #parts: readonly AsyncDisposable[];

  private constructor(parts: Pick<System, 'url' | 'front' | 'workers' | 's3' | 'sqs' | 'said' | 'apart'>, disposables: readonly AsyncDisposable[]) {
    this.url = parts.url;
    this.front = parts.front;
    this.workers = parts.workers;
    this.s3 = parts.s3;
    this.sqs = parts.sqs;
    this.said = parts.said;
    this.apart = parts.apart;
    this.#parts = disposables;
  }

  static async start(options: SystemOptions): Promise<System> {
    const parts: AsyncDisposable[] = [];
    try {
      return await System.#start(options, parts);
    } catch (error) {
      await disposeAll(parts);
      throw error;
    }
  }

  static async #start({ plan, folder, gateway, jars }: SystemOptions, parts: AsyncDisposable[]): Promise<System> {
    const use = <T extends AsyncDisposable>(part: T): T => {
      parts.push(part);
      return part;
    };
    const [data, logs] = [path.join(folder, 's3'), path.join(folder, 'logs')];
    for (const each of [data, logs]) mkdirSync(each, { recursive: true });
    const s3 = use(await startVersitygw(gateway, data));
    const sqs = use(await startElasticmq(jars));
    const said = new Map<string, number>();
    const random = seededRandom(plan.seed + 1);
    /** Most of what passes is not held up; some is, a little or for longer. */
    const delayMs = () => {
      const which = random();
      return which < 0.75 ? 0 : which < 0.97 ? random() * 8 : 20 + random() * 100;
    };
    const queues = ['--queue', sqs.standing.url, '--batch-queue', sqs.standing.batchUrl];
    const wired = async (name: string, args: readonly string[], isApart: boolean): Promise<Wired> => {
      const wires = await Promise.all([s3.endpoint, sqs.endpoint].map(async (endpoint) => use(await Wire.to({ port: Number(new URL(endpoint).port), delayMs }))));
      const [toS3, toSqs] = wires.map(({ endpoint }) => endpoint);
      const env = { ...s3.environment, ...sqs.environment, RUMINATE_S3_ENDPOINT: toS3 ?? '', RUMINATE_SQS_ENDPOINT: toSqs ?? '' };
      return { member: use(new Member({ name, args: [...args, '--store', `s3://${s3.bucket}/${PREFIX}`, ...queues], env, folder: logs, isApart, said })), wires };
    };
    const port = await freePort();
    const front = await wired('front', ['serve', '--no-worker', '--port', `${port}`, '--webhooks-to-loopback'], false);
    const separable = canBeApart();
    const workers = await Promise.all(Array.from({ length: plan.workers }, (_, i) => wired(`worker-${i}`, ['worker', ...WORKER], separable && i % 2 === 1)));
    for (const { member } of [front, ...workers]) member.start();
    const apart = separable ? Math.floor(plan.workers / 2) : 0;
    return new System({ url: `http://127.0.0.1:${port}`, front, workers, s3, sqs, said, apart }, parts);
  }

  /** As the tests see it: nothing lies between. */
  store(): ObjectStore {
    return this.s3.store({ prefix: PREFIX });
  }

  /** Messages that wait, that somebody has, and that are dead. */
  async messages(): Promise<{ readonly visible: number; readonly inFlight: number; readonly dead: number }> {
    const { url, batchUrl, deadUrl } = this.sqs.standing;
    const [interactive, batch, dead] = await Promise.all([url, batchUrl, deadUrl].map(async (QueueUrl) => {
      const { Attributes = {} } = await this.sqs.client.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ['All'] }));
      return { visible: Number(Attributes.ApproximateNumberOfMessages ?? 0), inFlight: Number(Attributes.ApproximateNumberOfMessagesNotVisible ?? 0) };
    }));
    const sum = (of: 'visible' | 'inFlight') => (interactive?.[of] ?? 0) + (batch?.[of] ?? 0);
    return { visible: sum('visible'), inFlight: sum('inFlight'), dead: (dead?.visible ?? 0) + (dead?.inFlight ?? 0) };
  }

  /** Deletes every message, whoever has it. @returns how many there were. */
  async purge(): Promise<number> {
    const { visible, inFlight } = await this.messages();
    const { url, batchUrl } = this.sqs.standing;
    await Promise.all([url, batchUrl].map((QueueUrl) => this.sqs.client.send(new PurgeQueueCommand({ QueueUrl }))));
    return visible + inFlight;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await disposeAll(this.#parts);
  }
}

/** The last first. */
async function disposeAll(parts: readonly AsyncDisposable[]): Promise<void> {
  for (const part of parts.toReversed()) await part[Symbol.asyncDispose]();
}
