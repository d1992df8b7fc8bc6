/** The parts of `ruminate serve`, put together: the one place that knows all of them. */
import pino from 'pino';

import { keyProviderOf } from '../engine/adapters/key-url.ts';
import { PromptThreads } from '../engine/adapters/prompt-threads.ts';
import { createLocalQueue } from '../engine/adapters/queue-local.ts';
import { openStore } from '../engine/adapters/store-url.ts';
import { WholeCatalogue } from '../engine/checkpoint/whole-catalogue.ts';
import { NativeShelf } from '../engine/control/native-shelf.ts';
import type { Retention } from '../engine/control/retention.ts';
import { StorePlatform } from '../engine/control/store-platform.ts';
import { NO_WORKERS, type WorkerState } from '../engine/control/workers.ts';
import { systemClock } from '../engine/core/clock.ts';
import { PRICES } from '../engine/core/prices.ts';
import type { CheckpointPolicy } from '../engine/job/checkpointer.ts';
import { LoadedModels } from '../engine/job/loaded-models.ts';
import { SliceSpans } from '../engine/telemetry/slices.ts';
import { Webhooks } from '../engine/webhook/webhooks.ts';
import { Worker } from '../engine/worker/worker.ts';
import { createApp } from '../functions/app.ts';
import type { KeyLookup } from '../functions/auth.ts';
import { Emf } from '../functions/emf.ts';
import { Metrics } from '../functions/metrics.ts';
import { listen } from '../functions/node.ts';
import { openBatches } from '../functions/open-batches.ts';
import { workerLog } from '../functions/worker-log.ts';
import { Chores } from './chores.ts';
import { modelFinder } from './finder.ts';
import { type QueueFlags, depthFreshMs, openQueueFor, requireQueueFor } from './queue-options.ts';
import { openTracing } from './tracing.ts';
import { versionOf } from './version.ts';

export interface ServerOptions {
  readonly host: string;
  readonly port: number;
  readonly store: string;
  readonly queue: QueueFlags;
  /** false: jobs run elsewhere. */
  readonly worker: boolean;
  /** null: what the registry lists. */
  readonly names: readonly string[] | null;
  readonly threads: number | null;
  readonly sliceMs: number | null;
  readonly policy: Partial<CheckpointPolicy>;
  /** null: whoever reaches it is the one tenant. */
  readonly auth: KeyLookup | null;
  /** Of ours, before it. */
  readonly proxies: number;
  /** As what clients know it; null: not known, and webhooks link by path. */
  readonly publicUrl: string | null;
  /** Of a worker, for quotes; null: not known. */
  readonly usdPerHour: number | null;
  /** Scaling signals go to standard output for CloudWatch, as metrics of it; null: they do not. */
  readonly emfNamespace: string | null;
  /** For development: webhooks may go to this machine, and without TLS. */
  readonly webhooksToLoopback: boolean;
  /** How long what a job leaves is kept. */
  readonly retention: Retention;
  readonly logLevel: string;
  readonly signal: AbortSignal;
}

export interface OpenServer {
  readonly url: string;
  readonly store: string;
  readonly queue: string;
  readonly models: readonly string[];
  /** Stops accepting, parks what runs, ends every stream: their readers come back to whoever serves the store next. */
  close(deadlineMs: number): Promise<{ readonly isDrained: boolean; readonly parked: number }>;
}

/** Of weights that are loaded before anybody asks for them, so that a first quote has seconds: what takes a second or two. */
const PROBED_BYTES_MAX = 2 ** 30;

/** @throws EngineError ERR_STORE_CONFIG, ERR_STORE, ERR_QUEUE_CONFIG, ERR_QUEUE, ERR_KEY, ERR_OPTION, ERR_CANCELLED: before anything listens. */
export async function openServer({ host, port, store: url, queue: queueFlags, worker: works, names, threads, sliceMs, policy, auth, proxies, publicUrl, usdPerHour, emfNamespace, webhooksToLoopback, retention, logLevel, signal }: ServerOptions): Promise<OpenServer> {
  const clock = systemClock;
  // Not synchronous: a reader of the log that is slow must not stop requests.
  const lines = pino.destination({ dest: 2, sync: false });
  const log = pino({ level: logLevel }, lines);
  const tracing = await openTracing(process.env, (why) => log.warn({ why }, 'spans could not be sent'));
  const { telemetry } = tracing;
  const slices = new SliceSpans(telemetry);
  const metrics: Metrics = new Metrics({ health: () => platform.health(), ...(works ? { occupancy: () => worker.occupancy, memoryPressure: () => worker.memoryPressure } : {}) });
  const emf = emfNamespace === null ? null : new Emf({ namespace: emfNamespace, service: 'serve', clock });
  let phaseMs = clock.nowMs();
  metrics.coldStart('process', phaseMs);
  const passed = (phase: 'store' | 'models' | 'listen') => {
    metrics.coldStart(phase, clock.nowMs() - phaseMs);
    phaseMs = clock.nowMs();
  };
  const store = metrics.store(await openStore(url));
  await store.probe({ signal });
  passed('store');
  const keys = await keyProviderOf();
  const finder = modelFinder();
  const prompts = new PromptThreads({ clock });
  const loaded = new LoadedModels();
  // A worker in this process can do with a queue in its memory.
  const { queue, isNew } = works ? await openQueueFor(store.url, queueFlags) ?? { queue: createLocalQueue({ clock }), isNew: true } : await requireQueueFor(store.url, queueFlags);
  await queue.depth({ signal });
  const chores = new Chores({ store, keys, publicUrl, webhooksToLoopback, retention, collects: true, log, clock, onWebhook: metrics.webhook });
  const { outbox } = chores;
  let parked = 0;
  const worker = new Worker({
    store,
    queue,
    keys,
    models: finder,
    prompts,
    loaded,
    policy,
    clock,
    isQueueNew: isNew,
    outbox,
    ...(threads === null ? {} : { threads }),
    ...(sliceMs === null ? {} : { sliceMs }),
    onEvent: (event) => {
      if (event.kind === 'parked' && event.why === 'drain') parked++;
      metrics.worker(event);
      if (event.kind === 'counted') emf?.counted(event.work, worker.occupancy);
      slices.worker(event);
      workerLog(log, event);
    },
  });
  const shelf = new NativeShelf({ finder, prompts, loaded, ...(names === null ? {} : { names: () => names }) });
  let isClosing = false;
  const nowhere: WorkerState = { ...NO_WORKERS, get state() { return isClosing ? 'draining' as const : 'ready' as const; } };
  const platform = new StorePlatform({
    store, keys, queue, shelf, clock, usdPerHour,
    feed: works ? worker : null,
    workers: works ? worker : nowhere,
    letGo: (where, options) => worker.letGo(where, options),
    onCancelled: (where) => worker.interrupt(where),
    outbox,
    telemetry,
    depthFreshMs: depthFreshMs(queue),
  });
  const catalogue = new WholeCatalogue({ store, keys, usdPerGbMonth: store.url.startsWith('s3:') ? PRICES.s3.gibMonth : null });
  const models = (await platform.models({ tenant: 'local', signal })).toSorted((a, b) => Number(b.default) - Number(a.default)).map(({ id }) => id);
  passed('models');
  const storage = openBatches({ store, keys, platform, outbox, log, clock });
  const webhooks = new Webhooks({ store, keys, clock, onRecorded: chores.ring, allowLoopback: webhooksToLoopback });
  const app = createApp({ platform, checkpoints: catalogue, storage, webhooks, auth, log, metrics: metrics.scrape, telemetry, clock, version: versionOf() });
  const listening = await listen({ fetch: (request, from) => app.fetch(request, from), host, port, proxies, onServer: (server) => metrics.watch(server) });
  passed('listen');
  if (works) worker.start(await probedOf(models, shelf));
  chores.start(storage.batches);
  return {
    url: listening.url,
    store: store.url,
    queue: queue.url,
    models,
    async close(deadlineMs) {
      isClosing = true;
      listening.close();
      const [isDrained] = await Promise.all([worker.drain({ deadlineMs }), chores.stop(deadlineMs)]);
      await listening.end();
      shelf[Symbol.dispose]();
      prompts[Symbol.dispose]();
      slices.close();
      await tracing.close();
      lines.flushSync();
      return { isDrained, parked };
    },
  };
}

/** In the order in which they are listed, the default first. */
async function probedOf(models: readonly string[], shelf: NativeShelf): Promise<readonly string[]> {
  let bytes = 0;
  const probed: string[] = [];
  for (const name of models) {
    // Gone since it was listed: no reason not to start.
    bytes += (await shelf.model(name).catch(() => null))?.info.fileBytes ?? Infinity;
    if (bytes <= PROBED_BYTES_MAX) probed.push(name);
  }
  return probed;
}
