/**
 * A function: some endpoints over a store and a queue that are reached by fetch. Nothing here is Node's, so the same bundle is a Worker
 * (`export default`), the inside of a Lambda handler (lambda.ts) and a server on Node (`node bundle.mjs`'s fetch with any adapter). Its state is
 * in the store: an instance keeps connections, caches and rates only.
 */
import { KmsKeys } from '../engine/adapters/kms.ts';
import { MemoryStore } from '../engine/adapters/memory.ts';
import { S3Store } from '../engine/adapters/s3.ts';
import { StorePlatform } from '../engine/control/store-platform.ts';
import { StoreShelf } from '../engine/control/store-shelf.ts';
import type { ObjectStore } from '../engine/ports/object-store.ts';
import { type AddEndpoints, assemble } from './assemble.ts';
import { consoleLog } from './console-log.ts';
import type { App, AppOptions } from './context.ts';
import { type Environment, type FrontConfig, type StorePlace, readEnv } from './env.ts';
import type { OpenBatchesOptions } from './open-batches.ts';
import { sqsSender } from './sqs-send.ts';

export interface Function_ {
  readonly add: AddEndpoints;
  /** Of a function with files and batches. */
  readonly storage?: ((options: OpenBatchesOptions) => AppOptions['storage']) | undefined;
}

export interface Front {
  /** @param environment of a Worker; default: the process's. */
  fetch(request: Request, environment?: Environment, context?: ExecutionContext): Promise<Response>;
  /** What a host that starts before it serves does first. @throws EngineError ERR_OPTION: the configuration is wrong. */
  open(environment?: Environment): void;
}

/** Of a Worker. */
interface ExecutionContext {
  waitUntil(work: Promise<unknown>): void;
  passThroughOnException(): void;
  readonly props: unknown;
}

declare const VERSION: string | undefined;

/** @example export default front({ add: chatCompletions }); */
export function front(made: Function_): Front {
  let app: App | null = null;
  const opened = (environment: Environment | undefined): App => (app ??= openApp(readEnv(environment ?? processEnvironment()), made));
  return {
    open: (environment) => void opened(environment),
    async fetch(request, environment, context) {
      let ready: App;
      try {
        ready = opened(environment);
      } catch (error) {
        // A Worker has no start of its own at which to refuse.
        console.error((error as Error).message);
        return Response.json({ error: { message: 'The function is not configured; its log says what is wrong.', type: 'server_error', param: null, code: 'misconfigured' } }, { status: 500 });
      }
      return await ready.fetch(request, environment, context);
    },
  };
}

function openApp(config: FrontConfig, { add, storage }: Function_): App {
  const log = consoleLog(config.logLevel);
  const { aws, auth, usdPerHour } = config;
  const store = storeAt(config.store, config);
  const keys = config.keyId === null ? null : new KmsKeys({ keyId: config.keyId, endpoint: aws.kmsEndpoint, region: aws.region, ...(aws.credentials === null ? {} : { credentials: aws.credentials }) });
  const shelf = new StoreShelf({ models: storeAt(config.models, config), names: config.modelNames, workerBytes: config.workerBytes });
  const queue = config.queue === null ? NO_QUEUE : sqsSender(config.queue.url, aws);
  const platform = new StorePlatform({ store, keys, queue, shelf, feed: null, usdPerHour });
  const opened = storage?.({ store, keys, platform, log });
  return assemble({ platform, auth, log, version: typeof VERSION === 'string' ? VERSION : '0', ...(opened === undefined ? {} : { storage: opened }) }, add);
}

const NOTHING = { visible: 0, inFlight: 0, oldestAgeMs: 0 };
const NO_QUEUE = { send: async () => undefined, depth: async () => ({ ...NOTHING, batch: NOTHING }) };

function storeAt(place: StorePlace, { aws }: FrontConfig): ObjectStore {
  if (place.kind === 'memory') return new MemoryStore();
  const { credentials, region, s3Endpoint, s3PathStyle } = aws;
  return new S3Store({ bucket: place.bucket, prefix: place.prefix, endpoint: s3Endpoint, pathStyle: s3PathStyle, region, ...(credentials === null ? {} : { credentials }) });
}

function processEnvironment(): Environment {
  return (globalThis as { readonly process?: { readonly env?: Environment } }).process?.env ?? {};
}
