/** The parts of `ruminate worker`, put together. */
import pino from 'pino';

import { keyProviderOf } from '../engine/adapters/key-url.ts';
import type { NoticesOptions } from '../engine/adapters/notices.ts';
import { PromptThreads } from '../engine/adapters/prompt-threads.ts';
import { openNotices } from '../engine/adapters/queue-url.ts';
import { whoami } from '../engine/adapters/spot.ts';
import { openStore } from '../engine/adapters/store-url.ts';
import { protectWhileBusy } from '../engine/adapters/task-protection.ts';
import { NativeShelf } from '../engine/control/native-shelf.ts';
import { StorePlatform } from '../engine/control/store-platform.ts';
import { systemClock } from '../engine/core/clock.ts';
import { EngineError } from '../engine/core/errors.ts';
import { LoadedModels } from '../engine/job/loaded-models.ts';
import { SliceSpans } from '../engine/telemetry/slices.ts';
import { Worker } from '../engine/worker/worker.ts';
import { assemble } from '../functions/assemble.ts';
import { Emf } from '../functions/emf.ts';
import { metrics as metricsEndpoint } from '../functions/health.ts';
import { Metrics } from '../functions/metrics.ts';
import { listen } from '../functions/node.ts';
import { openBatches } from '../functions/open-batches.ts';
import type { WorkerConfig } from '../functions/worker-env.ts';
import { workerLog } from '../functions/worker-log.ts';
import { Chores } from './chores.ts';
import { modelFinder } from './finder.ts';
import { type QueueFlags, depthFreshMs, requireQueueFor } from './queue-options.ts';
import { type Notices, checkMemory, tooLittleMemory, untilStopped } from './stopping.ts';
import { openTracing } from './tracing.ts';
import { versionOf } from './version.ts';

export interface WorkerHost {
  /** SIGTERM or Ctrl-C. */
  readonly signal: AbortSignal;
  readonly say: (line: string) => void;
}

/** Resolves when it has stopped. @throws EngineError ERR_OPTION: its memory limit leaves no room for a job; ERR_STORE_CONFIG, ERR_STORE, ERR_QUEUE_CONFIG, ERR_QUEUE, ERR_KEY, ERR_MODEL_…, ERR_CANCELLED: before it takes a message. */
export async function runWorker(config: WorkerConfig, flags: QueueFlags, { signal, say }: WorkerHost): Promise<{ readonly isDrained: boolean; readonly parked: number }> {
  const clock = systemClock;
  const startMs = clock.nowMs();
  const began = { process_ms: Math.round(startMs), store_ms: 0, queue_ms: 0, models_ms: 0 };
  let phaseMs = startMs;
  const passed = (phase: 'store_ms' | 'queue_ms' | 'models_ms') => {
    began[phase] = Math.round(clock.nowMs() - phaseMs);
    phaseMs = clock.nowMs();
  };
  const lines = pino.destination({ dest: 2, sync: false });
  const log = pino({ level: config.logLevel }, lines);
  const tracing = await openTracing(process.env, (why) => log.warn({ why }, 'spans could not be sent'));
  const slices = new SliceSpans(tracing.telemetry);
  const { emfNamespace } = config;
  const emf = emfNamespace === null ? null : new Emf({ namespace: emfNamespace, service: 'worker', clock });
  const metrics: Metrics = new Metrics({ health: () => platform.health(), occupancy: () => worker.occupancy, memoryPressure: () => worker.memoryPressure });
  metrics.coldStart('process', startMs);
  const store = metrics.store(await openStore(config.store));
  await store.probe({ signal });
  passed('store_ms');
  metrics.coldStart('store', began.store_ms);
  const { queue, isNew } = await requireQueueFor(store.url, flags);
  // Whether it is there and lets us in is better said now than by a worker that waits for ever.
  await queue.depth({ signal });
  passed('queue_ms');
  const notices = config.notices === null ? null : await noticesOf(config.notices, { clock, signal });
  const keys = await keyProviderOf();
  const finder = modelFinder();
  using prompts = new PromptThreads({ clock });
  const loaded = new LoadedModels();
  const chores = new Chores({ store, keys, publicUrl: config.publicUrl, webhooksToLoopback: config.webhooksToLoopback, delivers: config.delivers, retention: config.retention, collects: false, log, clock, onWebhook: metrics.webhook });
  const { outbox } = chores;
  let parked = 0;
  let hasBegun = false;
  const worker: Worker = new Worker({
    store,
    queue,
    isQueueNew: isNew,
    keys,
    models: finder,
    prompts,
    loaded,
    outbox,
    policy: config.policy,
    threads: config.threads,
    slots: config.slots,
    sliceMs: config.sliceMs,
    begins: config.begins,
    reconcileMs: config.walkMs,
    clock,
    onEvent: (event) => {
      if (event.kind === 'parked' && event.why === 'drain') parked++;
      if (event.kind === 'begun') hasBegun = true;
      if (event.kind === 'counted') emf?.counted(event.work, worker.occupancy);
      metrics.worker(event);
      workerLog(log, event);
      slices.worker(event);
    },
  });
  using shelf = new NativeShelf({ finder, prompts, loaded });
  // For batches whose front only answers while it is asked.
  const platform = new StorePlatform({ store, keys, queue, shelf, feed: worker, workers: worker, outbox, clock, depthFreshMs: depthFreshMs(queue) });
  // Before models are loaded: it is not ready then, and says so.
  const listening = config.metrics === null ? null : await listen({ ...config.metrics, option: '--metrics-port', fetch: assemble({ platform, auth: null, log, clock, version: versionOf() }, (registry) => metricsEndpoint(registry, metrics.scrape)).fetch });
  await using _ = { [Symbol.asyncDispose]: async () => await listening?.end() };
  if (listening !== null) say(`metrics and health at ${listening.url}`);
  await worker.warm(config.models, { signal });
  passed('models_ms');
  metrics.coldStart('models', began.models_ms);
  log.info(began, 'worker started');
  checkMemory(config);
  worker.start(config.models);
  chores.start(openBatches({ store, keys, platform, outbox, log, clock }).batches);
  say(`working for ${store.url} from ${queue.url}${config.models.length === 0 ? '' : `, with ${config.models.join(', ')} loaded`}`);
  const released = new AbortController();
  const { taskAgent } = config;
  const protection = taskAgent === null ? null : protectWhileBusy({
    clock, agent: taskAgent, signal: released.signal, longestMs: config.sliceMs, isBusy: () => worker.running > 0, onTrouble: (error) => log.warn({ err: error }, 'this task is not protected while it works'),
  });
  const stopped = await untilStopped(config, { clock, startMs, signal, notices, onTrouble: (error, of) => log.warn({ err: error }, `the ${of} does not answer`) });
  if (stopped !== null) say(`stopping: ${stopped.why}; handing back what runs`);
  released.abort();
  const [isDrained] = await Promise.all([worker.drain({ deadlineMs: config.graceMs }), chores.stop(config.graceMs), protection, stopped?.settled]);
  if (!isDrained) say(`the grace of ${config.graceMs} ms was too short; what is committed stays, and another worker goes on`);
  slices.close();
  await tracing.close();
  lines.flushSync();
  // Whoever starts it again would only see the same again.
  if (stopped !== null && stopped.residentBytes !== null && !hasBegun) throw tooLittleMemory(config, stopped.residentBytes);
  return { isDrained, parked };
}

/** @throws EngineError ERR_QUEUE_CONFIG; ERR_OPTION: it does not know about whom to listen. */
async function noticesOf(url: string, { clock, signal }: Pick<NoticesOptions, 'clock' | 'signal'>): Promise<Notices> {
  const { client, url: address } = await openNotices(url);
  const self = await whoami({ clock, signal });
  if (self.instance === null && self.task === null) throw new EngineError('ERR_OPTION', 'A worker with --notices must know which machine it is on, and no metadata service tells: set RUMINATE_INSTANCE to the id of its EC2 instance.');
  // The SDK is loaded only where there are notices.
  const { untilNoticed } = await import('../engine/adapters/notices.ts');
  return (options) => untilNoticed({ client, url: address, self, clock, ...options });
}
