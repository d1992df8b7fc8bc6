/** Several jobs on models that are loaded once. */
import { availableParallelism } from 'node:os';
import { systemClock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { type NativeEngine, openEngine } from '../runtime/native.ts';
import { type Quote, admit } from './budget.ts';
import type { GenerateOptions, JobResult } from './generate.ts';
import { availableMemory } from './memory.ts';
import { type LoadedModel, type PreparedJob, loadModel, prepare, quoteOf, resolveSpec } from './prepare.ts';
import { emptyPicture } from './progress.ts';
import { runJob } from './run.ts';
import { type JobSpec, parseSpec, policyOverrides } from './spec.ts';

/**
 * Keeps every model and engine that its jobs used until it is disposed. Jobs may follow each other; they are not run at the same time.
 * @example
 * using session = openSession();
 * for (const prompt of prompts) console.log((await session.generate({ model: 'countdown', prompt })).answer);
 */
export class Session {
  readonly #models = new Map<string, LoadedModel>();
  readonly #engines = new Map<string, NativeEngine>();
  #disposed = false;

  /** What a job would cost, without its weights being read. */
  async quote(spec: JobSpec): Promise<Quote> {
    const job = await this.#prepare(spec);
    return quoteOf(job, this.#engines.has(engineKey(job, threadsOf(spec))) ? 0 : job.model.info.fileBytes);
  }

  /** As `generate`, on this session's engines. */
  async generate(spec: JobSpec, options: GenerateOptions = {}): Promise<JobResult> {
    const clock = options.clock ?? systemClock;
    const start = clock.nowMs();
    const job = await this.#prepare(spec);
    const threads = options.threads ?? threadsOf(spec);
    const key = engineKey(job, threads);
    const weightBytes = this.#engines.has(key) ? 0 : job.model.info.fileBytes;
    const freeBytes = availableMemory();
    admit(quoteOf(job, weightBytes), freeBytes);
    using deadline = job.deadlineMs === null ? null : clock.timeout(job.deadlineMs);
    options.onProgress?.(emptyPicture('load', job));
    throwIfCancelled(options.signal);
    const engine = this.#engines.get(key) ?? (await openEngine({
      directory: job.model.resolved.directory,
      overrides: job.model.overrides,
      backend: job.backend,
      kv: job.kv,
      pageSlots: job.pageSlots,
      threads,
      isa: null,
    }, options.signal));
    this.#engines.set(key, engine);
    return await runJob(job, {
      engine,
      threads,
      loadMs: clock.nowMs() - start,
      memoryLimitBytes: Math.max(0, freeBytes - weightBytes),
      clock,
      onProgress: options.onProgress,
      cancelled: options.signal ?? null,
      deadline: deadline?.signal ?? null,
    });
  }

  async #prepare(spec: JobSpec): Promise<PreparedJob> {
    if (this.#disposed) throw new EngineError('ERR_DISPOSED', 'The session was used after it was disposed.');
    const parsed = parseSpec(spec);
    const resolved = resolveSpec(parsed);
    const overrides = policyOverrides(parsed);
    const key = JSON.stringify([resolved.directory, overrides]);
    const model = this.#models.get(key) ?? (await loadModel(resolved, overrides));
    this.#models.set(key, model);
    // The same directory may be asked for by another name: with a card or without.
    return prepare(parsed, { ...model, resolved });
  }

  /** Idempotent. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    for (const engine of this.#engines.values()) engine.close();
    this.#engines.clear();
    this.#models.clear();
  }
}

export function openSession(): Session {
  return new Session();
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
