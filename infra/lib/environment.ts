/** What each kind of process is told: the one place where names of variables stand in infra. docs/FUNCTIONS.md and `ruminate worker --help` say what they mean. */
import { GRACE_SECONDS, GPUS, type PoolConfig, type StageConfig } from '../config.ts';
import { MODELS_PREFIX, STORE_PREFIX } from './data.ts';
import { needsOf, type Places } from './rights.ts';
import { namespaceOf } from './signals.ts';

type Environment = Record<string, string>;

const GIB = 2 ** 30;
const MIB = 2 ** 20;

function common({ store, models, interactive, batch, jobsKey }: Places): Environment {
  return {
    RUMINATE_STORE: `s3://${store.bucketName}/${STORE_PREFIX}`,
    RUMINATE_MODELS_STORE: `s3://${models.bucketName}/${MODELS_PREFIX}`,
    RUMINATE_QUEUE: interactive.queueUrl,
    RUMINATE_BATCH_QUEUE: batch.queueUrl,
    ...(jobsKey === null ? {} : { RUMINATE_KEY: `kms:${jobsKey.keyArn}` }),
  };
}

export interface FrontOptions {
  readonly config: StageConfig;
  readonly places: Places;
  /** JSON of keys. */
  readonly apiKeys: string;
}

export function frontEnvironment(name: string, { config, places, apiKeys }: FrontOptions): Environment {
  const { RUMINATE_BATCH_QUEUE = '', RUMINATE_QUEUE = '', RUMINATE_KEY, ...rest } = common(places);
  const { queue, store } = needsOf(name);
  const { usdPerHour } = config;
  return {
    ...rest,
    ...(queue ? { RUMINATE_QUEUE, RUMINATE_BATCH_QUEUE } : { RUMINATE_QUEUE: 'none' }),
    ...(RUMINATE_KEY === undefined || store !== 'write' ? {} : { RUMINATE_KEY }),
    RUMINATE_API_KEYS: apiKeys,
    RUMINATE_MODEL_NAMES: config.models.join(','),
    RUMINATE_WORKER_BYTES: String(workerBytes(config)),
    ...(usdPerHour === null ? {} : { RUMINATE_USD_PER_HOUR: String(usdPerHour) }),
  };
}

/** Of `ruminate serve`; its keys come as a secret. */
export function serverEnvironment({ config: { usdPerHour }, places, publicUrl }: { readonly config: StageConfig; readonly places: Places; readonly publicUrl: string }): Environment {
  return { ...common(places), RUMINATE_CACHE: CACHE, RUMINATE_PUBLIC_URL: publicUrl, ...(usdPerHour === null ? {} : { RUMINATE_USD_PER_HOUR: String(usdPerHour) }) };
}

/** Of a worker that takes messages itself. */
export function workerEnvironment({ stage, config, places, pool, isSpot, publicUrl, begin }: { readonly stage: string; readonly config: StageConfig; readonly places: Places; readonly pool: PoolConfig; readonly isSpot: boolean; readonly publicUrl: string; readonly begin: string }): Environment {
  return {
    ...common(places),
    RUMINATE_SLOTS: String(pool.slots),
    RUMINATE_SLICE_TIME: pool.sliceTime,
    RUMINATE_BEGIN: begin,
    RUMINATE_GRACE: `${GRACE_SECONDS}s`,
    RUMINATE_SPOT: isSpot ? '1' : '0',
    RUMINATE_CACHE: CACHE,
    RUMINATE_PUBLIC_URL: publicUrl,
    // Without a way out an attempt would fail, and use up those that a delivery has: the reconciler sends them.
    ...(config.network.access === 'private' ? { RUMINATE_WEBHOOKS: '0' } : {}),
    RUMINATE_EMF: namespaceOf(stage),
    RUMINATE_METRICS_PORT: String(METRICS_PORT),
    // The image says 0.0.0.0: here a task may have its machine's network, and whoever asks for its health is on it.
    RUMINATE_METRICS_HOST: '127.0.0.1',
  };
}

/** Of the worker that Lambda gives its messages. */
export function lambdaWorkerEnvironment({ places, begin }: { readonly places: Places; readonly begin: string }): Environment {
  return { ...common(places), RUMINATE_GRACE: '60s', RUMINATE_SLICE_TIME: '13m', RUMINATE_BEGIN: begin, RUMINATE_CACHE: '/tmp' };
}

/** Of the reconciler, which asks nobody for a key: it has no door. */
export function reconcilerEnvironment({ stage, config, places, publicUrl }: { readonly stage: string; readonly config: StageConfig; readonly places: Places; readonly publicUrl: string }): Environment {
  return { ...common(places), RUMINATE_MODEL_NAMES: config.models.join(','), RUMINATE_PUBLIC_URL: publicUrl, RUMINATE_EMF: namespaceOf(stage) };
}

export function collectorEnvironment({ config, places }: { readonly config: StageConfig; readonly places: Places }): Environment {
  return { ...common(places), RUMINATE_MODEL_NAMES: config.models.join(',') };
}

/** The one folder that a worker may write, as the image has it; models are pulled into `ruminate` in it. */
export const CACHE = '/var/cache';
/** On the task's own loopback, for its health check. */
export const METRICS_PORT = 8787;

/** What an idle worker has for a job: its GPU's memory if it has one, less a tenth for the runtime. */
function workerBytes({ workers: { pool, lambda } }: StageConfig): number {
  const bytes = pool?.gpu != null ? GPUS[pool.gpu].memoryGiB * GIB : (pool?.memoryMiB ?? lambda?.memoryMiB ?? 0) * MIB;
  return Math.floor(bytes * 0.9);
}
