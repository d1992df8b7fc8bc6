/** Several jobs on models that are loaded once. */
import { availableParallelism } from 'node:os';
import { type Clock, systemClock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { unlessCancelled } from '../core/waiting.ts';
import { localModels } from '../model/finder.ts';
import type { FoundModel, ModelFinder } from '../ports/models.ts';
import type { Prompts } from '../ports/prompts.ts';
import { type NativeEngine, openEngine } from '../runtime/native.ts';
import { type Quote, admit } from './budget.ts';
import type { GenerateOptions, JobResult, ModelTiming } from './generate.ts';
import { Constraints } from './constraint.ts';
import { LoadedModels } from './loaded-models.ts';
import { availableMemory } from './memory.ts';
import { type LoadedModel, type PreparedJob, prepare, promptModel, quoteOf } from './prepare.ts';
import { emptyPicture, fetchPicture } from './progress.ts';
import { promptOf } from './prompt.ts';
import { type RunContext, runJob } from './run.ts';
import { shardJob } from './shards.ts';
import { type JobSpec, modelName, parseSpec, policyOverrides } from './spec.ts';

export interface OpenedJob extends Pick<RunContext, 'engine' | 'threads' | 'loadMs' | 'memoryLimitBytes' | 'constraint'>, Disposable {
  readonly job: PreparedJob;
  readonly timing: ModelTiming;
}

export interface SessionOptions {
  /** Where prompts are encoded. Default: on this thread. */
  readonly prompts?: Prompts | undefined;
  /** Shared with others who use the same models in this process. Default: its own. */
  readonly loaded?: LoadedModels | undefined;
}

/** Memory that a job was admitted with, until it is over. */
interface Share {
  bytes: number;
}

/**
 * Keeps every model and engine that its jobs used until it is disposed. Jobs may follow each other or run at the same time: those of one
 * engine then step together, and each is admitted beside what the others may still take.
 * @example
 * using session = openSession();
 * for (const prompt of prompts) console.log((await session.generate({ model: 'countdown', prompt })).answer);
 */
export class Session {
  /** Promises, so that jobs that begin together find a model once and load it once. */
  readonly #engines = new Map<string, Promise<NativeEngine>>();
  readonly #opened = new Set<NativeEngine>();
  readonly #shares = new Set<Share>();
  readonly #found = new Map<string, Promise<FoundModel>>();
  readonly #constraints = new Constraints();
  readonly #finder: ModelFinder;
  readonly #prompts: Prompts;
  readonly #models: LoadedModels;
  readonly #ownsModels: boolean;
  #disposed = false;

  constructor(finder: ModelFinder = localModels, { prompts = INLINE, loaded }: SessionOptions = {}) {
    this.#finder = finder;
    this.#prompts = prompts;
    this.#models = loaded ?? new LoadedModels();
    this.#ownsModels = loaded === undefined;
  }

  /** What there is to know of a model before its weights are read. */
  async model(name: string, options: GenerateOptions = {}): Promise<LoadedModel> {
    return await this.#models.get((await this.#find({ model: name }, options)).resolved, []);
  }

  /** A spec with nothing left open, without weights being read. */
  async prepare(spec: JobSpec, options: GenerateOptions = {}): Promise<PreparedJob> {
    return (await this.#prepare(spec, options, options.clock ?? systemClock)).job;
  }

  /** What a job would cost, without its weights being read. */
  async quote(spec: JobSpec): Promise<Quote> {
    const job = await this.prepare(spec);
    return quoteOf(job, this.#engines.has(engineKey(job, threadsOf(spec))) ? 0 : job.model.info.fileBytes);
  }

  /** As `generate`, on this session's engines. */
  async generate(spec: JobSpec, options: GenerateOptions = {}): Promise<JobResult> {
    const clock = options.clock ?? systemClock;
    using open = await this.open(spec, options);
    const { job, timing, ...opened } = open;
    using deadline = job.deadlineMs === null ? null : clock.timeout(job.deadlineMs);
    const result = await runJob(job, {
      ...opened,
      clock,
      onProgress: options.onProgress,
      cancelled: options.signal ?? null,
      deadline: deadline?.signal ?? null,
    });
    return { ...result, timing: { ...result.timing, model: timing } };
  }

  /** A job with its engine ready: admitted, nothing run. Its memory is kept free of other jobs until it is disposed. */
  async open(spec: JobSpec, options: GenerateOptions & { readonly shard?: number | undefined } = {}): Promise<OpenedJob> {
    const clock = options.clock ?? systemClock;
    const start = clock.nowMs();
    const { job: whole, ...phases } = await this.#prepare(spec, options, clock);
    const job = options.shard === undefined ? whole : shardJob(whole, options.shard);
    const threads = options.threads ?? threadsOf(spec);
    const key = engineKey(job, threads);
    const weightBytes = this.#engines.has(key) ? 0 : job.model.info.fileBytes;
    const availableBytes = this.#availableBytes;
    const quote = quoteOf(job, weightBytes);
    admit(quote, Math.max(0, availableBytes - this.#promisedBytes));
    const share: Share = { bytes: quote.expected.allocated_bytes };
    this.#shares.add(share);
    const dispose = () => void this.#shares.delete(share);
    try {
      options.onProgress?.(emptyPicture('load', job));
      throwIfCancelled(options.signal);
      const opened = clock.nowMs();
      const engine = await this.#engine(key, job, threads, options.signal);
      const constraint = await this.#constraints.open(job, options.signal);
      share.bytes -= weightBytes;
      return {
        job,
        engine,
        constraint,
        threads,
        loadMs: clock.nowMs() - start,
        // Of all KV of the engine, what other jobs hold included.
        memoryLimitBytes: Math.max(0, engine.memory().kvAllocatedBytes + availableBytes - weightBytes),
        timing: { ...phases, warm_ms: clock.nowMs() - opened },
        [Symbol.dispose]: () => {
          constraint?.[Symbol.dispose]();
          dispose();
        },
      };
    } catch (error) {
      dispose();
      throw error;
    }
  }

  /** Of the memory that KV may take, the part that it has; above 1 is more than there is. */
  get memoryPressure(): number {
    const heldBytes = this.#heldBytes;
    return heldBytes === 0 ? 0 : heldBytes / (heldBytes + this.#availableBytes);
  }

  /** What running jobs were admitted with and have not taken yet. */
  get #promisedBytes(): number {
    return Math.max(0, [...this.#shares].reduce((sum, { bytes }) => sum + bytes, 0) - this.#heldBytes);
  }

  get #availableBytes(): number {
    return availableMemory(process.env, undefined, this.#heldBytes);
  }

  get #heldBytes(): number {
    return [...this.#opened].reduce((sum, engine) => sum + engine.memory().kvAllocatedBytes, 0);
  }

  async #engine(key: string, job: PreparedJob, threads: number, signal: AbortSignal | undefined): Promise<NativeEngine> {
    return await shared(this.#engines, key, () => this.#openEngine(job, threads, signal), signal);
  }

  async #openEngine(job: PreparedJob, threads: number, signal: AbortSignal | undefined): Promise<NativeEngine> {
    const engine = await openEngine({
      directory: job.model.resolved.directory,
      overrides: job.model.overrides,
      backend: job.backend,
      kv: job.kv,
      pageSlots: job.pageSlots,
      threads,
      isa: null,
    }, signal);
    if (this.#disposed) {
      engine.close();
      throw disposed();
    }
    this.#opened.add(engine);
    return engine;
  }

  async #prepare(spec: JobSpec, options: GenerateOptions, clock: Clock): Promise<{ readonly job: PreparedJob } & Omit<ModelTiming, 'warm_ms'>> {
    const parsed = parseSpec(spec);
    const start = clock.nowMs();
    const { timing, ...found } = await this.#find(parsed, options);
    const here = clock.nowMs();
    const model = await this.#models.get(found.resolved, policyOverrides(parsed));
    const job = prepare(parsed, model, await this.#prompts.encode(parsed, model, { signal: options.signal }));
    const fetched = timing ?? { resolve_ms: here - start, fetch_ms: 0, verify_ms: 0, fetched_bytes: 0, bytes: model.info.fileBytes };
    return { job, ...fetched, map_ms: clock.nowMs() - here };
  }

  /** A model that was found stays where it is, and is not looked for again, while the session lasts. */
  async #find(spec: Pick<JobSpec, 'model' | 'variant' | 'budget'>, { signal, onProgress }: GenerateOptions): Promise<Pick<FoundModel, 'resolved' | 'timing'>> {
    if (this.#disposed) throw disposed();
    const name = modelName(spec);
    const cr = spec.budget?.compression_ratio;
    const key = JSON.stringify([name, cr]);
    let isFirst = false;
    const found = await shared(this.#found, key, () => {
      isFirst = true;
      return this.#finder.find(name, { cr, signal, onProgress: (fetch) => onProgress?.(fetchPicture(fetch)) });
    }, signal);
    if (this.#disposed) throw disposed();
    return { resolved: found.resolved, timing: isFirst ? found.timing : null };
  }

  /** Idempotent. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    this.#constraints[Symbol.dispose]();
    for (const engine of this.#opened) engine.close();
    this.#opened.clear();
    this.#engines.clear();
    if (this.#ownsModels) this.#models.clear();
    // A pin that is not taken back in time ends with this process.
    for (const finding of this.#found.values()) finding.then((found) => found[Symbol.asyncDispose]()).catch(() => undefined);
    this.#found.clear();
  }
}

/** @param finder default: what is on this machine. */
export function openSession(finder?: ModelFinder): Session {
  return new Session(finder);
}

const INLINE: Prompts = { encode: async (spec, model) => promptOf(spec, promptModel(model)) };

/** What is begun once for all who ask for it; one that failed is begun again by whoever comes next. */
async function shared<T>(all: Map<string, Promise<T>>, key: string, begin: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  for (;;) {
    const others = all.get(key);
    if (others === undefined) {
      const begun = begin();
      all.set(key, begun);
      begun.catch(() => {
        if (all.get(key) === begun) all.delete(key);
      });
      return await begun;
    }
    try {
      return await unlessCancelled(others, signal);
    } catch (error) {
      // Another job's signal is none of ours.
      if (signal?.aborted || !(error instanceof EngineError) || error.code !== 'ERR_CANCELLED') throw error;
    }
  }
}

function disposed(): EngineError {
  return new EngineError('ERR_DISPOSED', 'The session was used after it was disposed.');
}

function threadsOf(spec: JobSpec): number {
  return spec.threads ?? availableParallelism();
}

function engineKey(job: PreparedJob, threads: number): string {
  return JSON.stringify([job.model.resolved.directory, job.model.overrides, job.backend, job.kv, job.pageSlots, threads]);
}

function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new EngineError('ERR_CANCELLED', 'The job was cancelled before its model was loaded.');
}
