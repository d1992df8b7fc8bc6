/** What Prometheus is told of a process: prom-client, so Node only. Names are vLLM's where it has them, behind our own prefix; labels never carry ids. */
import type { EventEmitter } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';

import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from 'prom-client';

import { timeOf } from '../engine/control/ids.ts';
import type { PlatformHealth } from '../engine/control/platform.ts';
import type { Work } from '../engine/control/work.ts';
import { wallClockMs } from '../engine/core/clock.ts';
import { EngineError } from '../engine/core/errors.ts';
import { type JobKey, shardOf } from '../engine/kv/names.ts';
import type { ObjectStore, StoredBody } from '../engine/ports/object-store.ts';
import type { DelivererEvent } from '../engine/webhook/deliverer.ts';
import type { WorkerEvent } from '../engine/worker/events.ts';
import type { Worker } from '../engine/worker/worker.ts';

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600];
/** A job may take days. */
const JOB_SECONDS = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 14_400, 86_400];
const TOKEN_SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];
const VOTES = [0, 1, 2, 4, 8, 16, 32, 64];
/** Addresses have ids in them, and anyone may ask for anything: only these make a label. */
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);
const PATHS = /^(?:\/v1\/(?:chat\/completions|completions|responses|models|jobs|checkpoints|quotes|batches|files|webhooks)|\/health(?:\/(?:live|ready|startup))?|\/metrics|\/openapi\.json|\/docs)(?=\/|$)/;

export interface MetricsOptions {
  /** Asked at each scrape. */
  readonly health: () => Promise<PlatformHealth>;
  /** Of the worker in this process; default: it has none. */
  readonly occupancy?: (() => Worker['occupancy']) | undefined;
  /** Of that worker, too. */
  readonly memoryPressure?: (() => Worker['memoryPressure']) | undefined;
}

export class Metrics {
  readonly #registry = new Registry();
  readonly #requests = this.#counter('http_requests_total', 'Requests that were answered.', ['method', 'path', 'status']);
  readonly #requestSeconds = this.#histogram('http_request_duration_seconds', 'Until the answer was written; streams as long as they last.', ['method', 'path']);
  readonly #open = this.#gauge('http_responses_open', 'Requests that are being answered, streams among them.');
  readonly #slices = this.#counter('slices_total', 'Slices that were run, by how they ended.', ['outcome']);
  readonly #sliceSeconds = this.#histogram('slice_seconds', 'How long slices ran.', ['outcome']);
  readonly #jobs = this.#counter('jobs_ended_total', 'Jobs that ended here, by state.', ['state']);
  readonly #prompt = this.#counter('prompt_tokens_total', 'Prompt tokens of jobs that ended here.');
  readonly #generated = this.#counter('generation_tokens_total', 'Generated tokens of jobs that ended here.');
  readonly #reads = this.#counter('kv_reads_total', 'KV reads of decode steps of jobs that ended here.');
  readonly #prefillReads = this.#counter('kv_reads_prefill_total', 'KV reads of prefills of jobs that ended here.');
  readonly #messages = this.#counter('messages_dropped_total', 'Queue messages that nothing was to be done for.', ['why']);
  readonly #reconciled = this.#counter('reconciled_total', 'Messages that the reconciler sent again.');
  readonly #trouble = this.#counter('trouble_total', 'Failures of queue or store that a worker met.', ['doing']);
  readonly #webhooks = this.#counter('webhook_attempts_total', 'Attempts to deliver a webhook, by the answer.', ['answer']);
  readonly #webhookSeconds = this.#histogram('webhook_attempt_seconds', 'How long receivers took.', []);
  readonly #webhooksEnded = this.#counter('webhook_deliveries_total', 'Webhooks that were delivered or given up here.', ['state']);
  readonly #resumed = this.#counter('resume_total', 'Takes of jobs that began here, by how: for the first time (started), from the store, by computing again, or from the beginning after one that left nothing (restarted).', ['mode', 'result']);
  readonly #exhausted = this.#counter('kv_budget_exhausted_total', 'Jobs that ended here because their KV-read budget was spent.');
  readonly #margin = this.#histogram('vote_margin', 'Votes of the elected answer over those of the next, of jobs of several chains.', [], VOTES);
  readonly #firstToken = this.#histogram('time_to_first_token_seconds', 'From the making of a job to its first token, queue and model included.', []);
  readonly #coldStart = this.#histogram('cold_start_seconds', 'Parts of the start of a process; `load`: until a slice had its model, next to nothing where it was loaded.', ['phase']);
  readonly #checkpointSeconds = this.#histogram('checkpoint_seconds', 'Requests of the store for objects of jobs.', ['op']);
  readonly #bytes = this.#counter('checkpoint_bytes_total', 'Bytes of jobs that went to the store or came from it.', ['op']);
  readonly #objects = this.#counter('checkpoint_objects_total', 'Objects of jobs that went to the store or came from it.', ['op']);

  readonly #tokenSeconds = this.#histogram('request_time_per_output_token_seconds', 'Of one chain, in the mean over the last slice of a job that ended here.', [], TOKEN_SECONDS);
  readonly #jobSeconds = this.#histogram('e2e_request_latency_seconds', 'From the making of a job to its end here, queue and all its slices included.', [], JOB_SECONDS);
  readonly #queueSeconds = this.#histogram('request_queue_time_seconds', 'From the making of a job to its first slice, here.', [], JOB_SECONDS);
  readonly #backlog = this.#gauge('backlog_seconds', 'Work of all jobs that have not ended, in seconds of one worker; as of the last walk.');
  readonly #waiting = this.#gauge('waiting_seconds', 'The part of it that no worker has now.');
  readonly #whole = this.#gauge('backlog_whole', '1: the last walk has met all jobs; 0: it failed or had no time, and the backlog is at least what is told; never less than the last whole one.');
  #work: Pick<Work, 'backlogSeconds' | 'waitingSeconds'> = { backlogSeconds: 0, waitingSeconds: 0 };

  constructor({ health, occupancy, memoryPressure }: MetricsOptions) {
    collectDefaultMetrics({ register: this.#registry, prefix: PREFIX });
    this.#asked('num_requests_running', 'Jobs that a worker runs.', async () => (await health()).running);
    if (memoryPressure !== undefined) this.#asked('kv_cache_usage_perc', 'Of the memory that KV may take in this process, by what admission counts with, the part that it has: 0 to 1.', async () => memoryPressure());
    if (occupancy !== undefined) {
      this.#asked('worker_slots', 'Jobs that the worker of this process runs at a time, at most.', async () => occupancy().slots);
      this.#asked('worker_occupancy', 'Of its slots, the part that has a job now.', async () => (await health()).running / occupancy().slots);
      const busy = this.#counter('worker_slot_seconds_total', 'How long its slots have had jobs, all of them together.', [], () => {
        busy.reset();
        busy.inc(occupancy().slotMs / 1_000);
      });
    }
    this.#asked('num_requests_waiting', 'Jobs that wait for a worker.', async () => (await health()).queued);
    this.#asked('queue_age_seconds', 'How long the oldest of them has waited that is of no batch.', async () => (await health()).queueAgeMs / 1_000);
  }

  readonly scrape = async (): Promise<{ readonly contentType: string; readonly body: string }> => {
    return { contentType: this.#registry.contentType, body: await this.#registry.metrics() };
  };

  /** Counts below the application, whose answers then are what the server makes fast. */
  watch(server: EventEmitter): void {
    server.prependListener('request', ({ method = '', url = '' }: IncomingMessage, response: ServerResponse) => {
      const labels = { method: METHODS.has(method) ? method : 'other', path: PATHS.exec(url.split('?', 1)[0] ?? '')?.[0] ?? 'other' };
      const end = this.#requestSeconds.startTimer(labels);
      this.#open.inc();
      response.once('close', () => {
        end();
        this.#open.dec();
        this.#requests.inc({ ...labels, status: response.statusCode });
      });
    });
  }

  readonly worker = (event: WorkerEvent): void => {
    if ('ranMs' in event && event.kind !== 'reached') {
      this.#slices.inc({ outcome: event.kind });
      this.#sliceSeconds.observe({ outcome: event.kind }, event.ranMs / 1_000);
    }
    switch (event.kind) {
      case 'ended': {
        this.#prompt.inc(event.usage.prompt_tokens);
        this.#generated.inc(event.usage.completion_tokens);
        this.#reads.inc(event.usage.kv_reads);
        this.#prefillReads.inc(event.usage.kv_reads_prefill);
        if (event.tokenMs !== null) this.#tokenSeconds.observe({}, event.tokenMs / 1_000);
        // Of a shard its tokens are what was done here; its job ends once, and is `joined` then.
        if (shardOf(event.where) !== null) return;
        this.#over(event);
        if (event.margin !== null && event.finishes.length > 1) this.#margin.observe({}, event.margin);
        return;
      }
      case 'joined': return this.#over(event);
      case 'started': return void (event.slice === 0 && this.#since(event.where, this.#queueSeconds));
      case 'counted': return this.#counted(event.work);
      case 'begun': return void this.#resumed.inc({ mode: event.mode, result: 'ok' });
      case 'reached': return this.#reached(event);
      case 'refused': return void (shardOf(event.where) === null && this.#jobs.inc({ state: 'failed' }));
      case 'expired': return void this.#jobs.inc({ state: 'expired' });
      case 'foreign': return void this.#messages.inc({ why: 'foreign' });
      case 'poisoned': return void (shardOf(event.where) === null && this.#jobs.inc({ state: 'poisoned' }));
      case 'failed': {
        this.#slices.inc({ outcome: 'failed' });
        // Nothing of the checkpoint could be gone on from.
        if (event.error instanceof EngineError && event.error.code === 'ERR_CHECKPOINT') this.#resumed.inc({ mode: 'none', result: 'refused' });
        return;
      }
      case 'dropped': return void this.#messages.inc({ why: event.why });
      case 'reconciled': return void this.#reconciled.inc(event.sent);
      case 'trouble': return void this.#trouble.inc({ doing: event.doing });
    }
  };

  /** Of a walk that could not be through the last whole one stands, unless what was met is more. */
  #counted({ backlogSeconds, waitingSeconds, isWhole }: Work): void {
    this.#whole.set(isWhole ? 1 : 0);
    this.#work = isWhole ? { backlogSeconds, waitingSeconds } : { backlogSeconds: Math.max(backlogSeconds, this.#work.backlogSeconds), waitingSeconds: Math.max(waitingSeconds, this.#work.waitingSeconds) };
    this.#backlog.set(this.#work.backlogSeconds);
    this.#waiting.set(this.#work.waitingSeconds);
  }

  /** A job has ended here. */
  #over({ where, state, finishes }: Pick<Extract<WorkerEvent, { kind: 'joined' }>, 'where' | 'state' | 'finishes'>): void {
    this.#jobs.inc({ state });
    if (finishes.includes('kv_read_budget')) this.#exhausted.inc();
    this.#since(where, this.#jobSeconds);
  }

  #reached({ where, phase, ranMs }: Extract<WorkerEvent, { kind: 'reached' }>): void {
    if (phase === 'loaded') this.#coldStart.observe({ phase: 'load' }, ranMs / 1_000);
    if (phase === 'first_token') this.#since(where, this.#firstToken);
  }

  /** A job that its client has named does not say when it was made. */
  #since({ job }: JobKey, histogram: Histogram): void {
    const madeMs = timeOf(job);
    if (madeMs !== null) histogram.observe({}, Math.max(0, wallClockMs() - madeMs) / 1_000);
  }

  /** How long a part of the start took. */
  coldStart(phase: 'process' | 'store' | 'models' | 'listen', ms: number): void {
    this.#coldStart.observe({ phase }, ms / 1_000);
  }

  readonly webhook = (event: DelivererEvent): void => {
    if (event.kind !== 'sent') return;
    const answer = event.status === null ? (event.fault ?? 'none') : `${Math.floor(event.status / 100)}xx`;
    this.#webhooks.inc({ answer });
    this.#webhookSeconds.observe({}, event.ranMs / 1_000);
    if (event.state !== 'pending') this.#webhooksEnded.inc({ state: event.state });
  };

  /** The same store, with what goes through it counted. */
  store(store: ObjectStore): ObjectStore {
    const count = (op: 'write' | 'read', key: string, bytes: number, startMs: number) => {
      if (!key.startsWith('kv/')) return;
      this.#objects.inc({ op });
      this.#bytes.inc({ op }, bytes);
      this.#checkpointSeconds.observe({ op }, (performance.now() - startMs) / 1_000);
    };
    return {
      url: store.url,
      get: async (key, options) => {
        const startMs = performance.now();
        const found: StoredBody | null = await store.get(key, options);
        if (found !== null) count('read', key, found.bytes, startMs);
        return found;
      },
      put: async (key, body, options) => {
        const startMs = performance.now();
        const outcome = await store.put(key, body, options);
        if (outcome.kind === 'written') count('write', key, body.reduce((sum, { byteLength }) => sum + byteLength, 0), startMs);
        return outcome;
      },
      head: (key, options) => store.head(key, options),
      copy: (from, to, options) => store.copy(from, to, options),
      list: (prefix, options) => store.list(prefix, options),
      delete: (keys, options) => store.delete(keys, options),
      probe: (options) => store.probe(options),
    };
  }

  #asked(name: string, help: string, ask: () => Promise<number>): void {
    const gauge = this.#gauge(name, help, async () => gauge.set(await ask()));
  }

  #counter<T extends string = never>(name: string, help: string, labelNames: readonly T[] = [], collect?: () => void): Counter<T> {
    return new Counter({ name: PREFIX + name, help, labelNames, registers: [this.#registry], ...(collect === undefined ? {} : { collect }) });
  }

  #histogram<T extends string = never>(name: string, help: string, labelNames: readonly T[], buckets: readonly number[] = SECONDS): Histogram<T> {
    return new Histogram({ name: PREFIX + name, help, labelNames, buckets: [...buckets], registers: [this.#registry] });
  }

  #gauge(name: string, help: string, collect?: () => Promise<void>): Gauge {
    return new Gauge({ name: PREFIX + name, help, registers: [this.#registry], ...(collect === undefined ? {} : { collect }) });
  }
}

const PREFIX = 'ruminate_';
