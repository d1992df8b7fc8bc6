/** What every function stands on: store, queue, keys and models over fetch, and the platform of them. Nothing here is Node's. */
import { KmsKeys } from '../engine/adapters/kms.ts';
import { MemoryStore } from '../engine/adapters/memory.ts';
import { S3Store } from '../engine/adapters/s3.ts';
import { createSqsQueue } from '../engine/adapters/sqs.ts';
import { StorePlatform } from '../engine/control/store-platform.ts';
import { StoreShelf } from '../engine/control/store-shelf.ts';
import type { KeyProvider } from '../engine/ports/keys.ts';
import type { ObjectStore } from '../engine/ports/object-store.ts';
import { EMPTY_DEPTH, type Queue } from '../engine/ports/queue.ts';
import { Outbox } from '../engine/webhook/outbox.ts';
import { consoleLog } from './console-log.ts';
import type { WorkerLog } from './context.ts';
import type { PlatformConfig, StorePlace } from './env.ts';

export interface OpenServices {
  readonly store: ObjectStore;
  /** null: jobs are stored in the clear. */
  readonly keys: KeyProvider | null;
  readonly queue: Pick<Queue, 'send' | 'sendAll' | 'depth'>;
  /** Who is told that a job has ended. */
  readonly outbox: Outbox;
  readonly platform: StorePlatform;
  readonly log: WorkerLog;
}

export function openServices(config: PlatformConfig): OpenServices {
  const { aws, usdPerHour } = config;
  const store = storeAt(config.store, config);
  const keys = config.keyId === null ? null : new KmsKeys({ keyId: config.keyId, endpoint: aws.kmsEndpoint, region: aws.region, ...(aws.credentials === null ? {} : { credentials: aws.credentials }) });
  const shelf = new StoreShelf({ models: storeAt(config.models, config), names: config.modelNames, workerBytes: config.workerBytes });
  const queue = queueAt(config);
  const outbox = new Outbox({ store, retention: config.retention });
  const platform = new StorePlatform({ store, keys, queue, shelf, feed: null, usdPerHour, outbox, depthFreshMs: DEPTH_FRESH_MS });
  return { store, keys, queue, outbox, platform, log: consoleLog(config.logLevel) };
}

/** Every request for work asks how long others wait. */
const DEPTH_FRESH_MS = 1_000;

function queueAt({ queue, aws: { credentials, region, sqsEndpoint } }: PlatformConfig): Pick<Queue, 'send' | 'sendAll' | 'depth'> {
  if (queue === null) return NO_QUEUE;
  return createSqsQueue({ ...queue, region, ...(credentials === null ? {} : { credentials }), ...(sqsEndpoint === null ? {} : { endpoint: sqsEndpoint }) });
}

/** Workers find jobs by their walk. */
const NO_QUEUE = { send: async () => undefined, sendAll: async () => undefined, depth: async () => EMPTY_DEPTH };

function storeAt(place: StorePlace, { aws }: PlatformConfig): ObjectStore {
  if (place.kind === 'memory') return new MemoryStore();
  const { credentials, region, s3Endpoint, s3PathStyle } = aws;
  return new S3Store({ bucket: place.bucket, prefix: place.prefix, endpoint: s3Endpoint, pathStyle: s3PathStyle, region, ...(credentials === null ? {} : { credentials }) });
}
