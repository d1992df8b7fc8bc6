/**
 * A Platform in memory, for tests of the HTTP API alone: real jobs on the real engine (models/countdown), one after the other, but no store,
 * no queue and no recovery. The real Platform is engine/control's; nothing here proves anything about it.
 */
import type {
  CallerOptions, ExtendOptions, ForkOptions, JobEvent, JobView, ListOptions, ModelView, Platform, PlatformHealth, QuoteView, SubmitOptions,
} from '../../engine/control/platform.ts';
import { systemClock } from '../../engine/core/clock.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { linkSignals, throwIfCancelled } from '../../engine/core/waiting.ts';
import type { JobResult } from '../../engine/job/generate.ts';
import { runJob } from '../../engine/job/run.ts';
import { openSession } from '../../engine/job/session.ts';
import { type JobSpec, parseSpec } from '../../engine/job/spec.ts';
import { jobIds } from '../../engine/control/ids.ts';
import type { JobState } from '../../engine/kv/head.ts';
import type { RunReport } from '../../engine/runtime/native.ts';
import { EventLog } from './event-log.ts';

const newJobId = jobIds();

interface Job {
  readonly tenant: string;
  readonly id: string;
  readonly spec: JobSpec;
  readonly createdMs: number;
  readonly parent: JobView['parent'];
  readonly stop: AbortController;
  readonly listeners: Set<() => void>;
  log: EventLog | null;
  state: JobState;
  width: number;
  result: Omit<JobResult, 'timing'> | null;
}

const WAIT_MS = 1_000;

export class EnginePlatform implements Platform {
  readonly #session = openSession();
  readonly #jobs = new Map<string, Job>();
  readonly #keys = new Map<string, { readonly id: string; readonly spec: string }>();
  /** Jobs of one session may not run at the same time. */
  #last: Promise<void> = Promise.resolve();
  /** Tests set what /health and shedding see. */
  health_: PlatformHealth = { state: 'ready', queued: 0, running: 0, queueAgeMs: 0 };
  /** Every job that was cancelled. */
  readonly cancelled: string[] = [];

  async submit(spec: JobSpec, options: SubmitOptions): Promise<JobView> {
    const parsed = parseSpec(spec);
    const asked = JSON.stringify(parsed, (_, value: unknown) => (typeof value === 'bigint' ? `${value}` : value));
    const key = options.id !== undefined ? `${options.tenant}/id/${options.id}` : `${options.tenant}/key/${options.idempotencyKey ?? newJobId(Date.now())}`;
    const known = this.#keys.get(key);
    if (known !== undefined) {
      if (known.spec !== asked) throw new EngineError('ERR_JOB_CONFLICT', 'The job exists with another spec.');
      return viewOf(this.#job(known.id, options));
    }
    const quote = await this.#session.quote(parsed);
    const job = this.#start(options, parsed, quote.lengths.length, options.id ?? newJobId(Date.now()), null);
    this.#keys.set(key, { id: job.id, spec: asked });
    return viewOf(job);
  }

  #start({ tenant }: CallerOptions, spec: JobSpec, width: number, id: string, parent: JobView['parent']): Job {
    const job: Job = { tenant, id, spec, createdMs: Date.now(), parent, stop: new AbortController(), listeners: new Set(), log: null, state: 'queued', width, result: null };
    this.#jobs.set(`${tenant}/${id}`, job);
    this.#last = this.#last.then(() => this.#run(job)).catch(() => tell(job, 'failed'));
    return job;
  }

  async #run(job: Job): Promise<void> {
    if (job.state !== 'queued') return;
    const { job: prepared, ...opened } = await this.#session.open(job.spec);
    const log = new EventLog(prepared);
    job.log = log;
    tell(job, 'running');
    const onBoundary = async (report: RunReport): Promise<void> => {
      log.advance(report);
      tell(job);
      // Between two boundaries others have their turn, as on a real platform.
      await new Promise((resolve) => setImmediate(resolve));
    };
    const { timing: _, ...result } = await runJob(prepared, { ...opened, clock: systemClock, cancelled: job.stop.signal, deadline: null, onProgress: () => undefined, onBoundary });
    job.result = result;
    if (job.stop.signal.aborted) return tell(job, 'cancelled');
    const state = result.chains.some((chain) => chain.finish_reason === 'kv_read_budget') ? 'incomplete' : 'done';
    log.end(result, state);
    tell(job, state);
  }

  async get(id: string, options: CallerOptions): Promise<JobView> {
    return viewOf(this.#job(id, options));
  }

  async list({ tenant, limit, after }: ListOptions): Promise<{ readonly jobs: readonly JobView[]; readonly more: boolean }> {
    const mine = [...this.#jobs.values()].filter((job) => job.tenant === tenant).reverse();
    const from = after === undefined ? 0 : mine.findIndex((job) => job.id === after) + 1;
    return { jobs: mine.slice(from, from + limit).map(viewOf), more: mine.length > from + limit };
  }

  async cancel(id: string, options: CallerOptions): Promise<JobView> {
    const job = this.#job(id, options);
    if (isOver(job)) return viewOf(job);
    this.cancelled.push(id);
    job.stop.abort();
    tell(job, 'cancelled');
    return viewOf(job);
  }

  async erase(id: string, options: CallerOptions): Promise<void> {
    const job = this.#job(id, options);
    if (!isOver(job)) throw new EngineError('ERR_JOB_CONFLICT', 'The job runs; cancel it first.');
    this.#jobs.delete(`${job.tenant}/${id}`);
  }

  async result(id: string, options: CallerOptions): Promise<Omit<JobResult, 'timing'> | null> {
    return this.#job(id, options).result;
  }

  async *events(id: string, { tenant, signal, after = -1 }: CallerOptions & { readonly after?: number | undefined }): AsyncGenerator<JobEvent> {
    const job = this.#job(id, { tenant });
    let next = after + 1;
    yield { kind: 'state', state: job.state };
    for (;;) {
      throwIfCancelled(signal);
      for (; next < (job.log?.events.length ?? 0); next++) {
        const event = job.log?.events[next];
        if (event !== undefined) yield event;
        if (event?.kind === 'result') return;
      }
      if (isOver(job)) {
        yield { kind: 'state', state: job.state };
        return;
      }
      if (!(await changed(job, signal))) yield { kind: 'idle' };
    }
  }

  async fork(id: string, options: ForkOptions): Promise<JobView> {
    this.#job(id, options);
    throw new EngineError('ERR_CHECKPOINT', 'missing: jobs in memory have no tails to fork from.');
  }

  /** More of the same spec: its chains begin with the same tokens. */
  async extend(id: string, options: ExtendOptions): Promise<JobView> {
    const { spec } = this.#job(id, options);
    const budget = { ...spec.budget, ...(options.length === undefined ? {} : { length: options.length }), ...(options.width === undefined ? {} : { width: options.width }) };
    const longer = parseSpec({ ...spec, budget });
    const quote = await this.#session.quote(longer);
    return viewOf(this.#start(options, longer, quote.lengths.length, options.as ?? newJobId(Date.now()), { job: id, kind: 'extend' }));
  }

  async quote(spec: JobSpec): Promise<QuoteView> {
    const quote = await this.#session.quote(parseSpec(spec));
    const side = ({ kv_reads, peak_kv_tokens, peak_kv_bytes }: typeof quote.expected) =>
      ({ completion_tokens: quote.lengths.reduce((a, b) => a + b, 0), kv_reads, peak_kv_tokens, peak_kv_bytes });
    return {
      model: spec.model, prompt_tokens: quote.prompt_tokens, length: Math.max(...quote.lengths), width: quote.lengths.length,
      compression_ratio: spec.budget?.compression_ratio ?? 8, expected: side(quote.expected), worst: side(quote.worst), seconds: null, cost_usd: null, refusal: null,
    };
  }

  async models(): Promise<readonly ModelView[]> {
    return [1, 2, 4, 8].map((cr) => ({ id: cr === 1 ? 'countdown@dense' : `countdown@cr${cr}`, compression_ratio: cr, context: 1_024, default: cr === 8 }));
  }

  health(): PlatformHealth {
    return this.health_;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const job of this.#jobs.values()) job.stop.abort();
    await this.#last;
    this.#session[Symbol.dispose]();
  }

  #job(id: string, { tenant }: CallerOptions): Job {
    const job = this.#jobs.get(`${tenant}/${id}`);
    if (job === undefined) throw new EngineError('ERR_JOB_NOT_FOUND', `No job ${id} of ${tenant}.`);
    return job;
  }
}

function isOver({ state }: Job): boolean {
  return state === 'done' || state === 'incomplete' || state === 'failed' || state === 'cancelled';
}

/** A state that is final stays. */
function tell(job: Job, state?: JobState): void {
  if (state !== undefined && !isOver(job)) job.state = state;
  for (const listener of job.listeners) listener();
}

async function changed(job: Job, signal: AbortSignal | undefined): Promise<boolean> {
  using timer = systemClock.timeout(WAIT_MS);
  using either = linkSignals(timer.signal, signal);
  let told = false;
  await new Promise<void>((resolve) => {
    const done = () => {
      job.listeners.delete(onChange);
      resolve();
    };
    const onChange = () => {
      told = true;
      done();
    };
    job.listeners.add(onChange);
    either.signal.addEventListener('abort', done, { once: true });
  });
  return told;
}

function viewOf(job: Job): JobView {
  const { id, state, spec, createdMs, parent, width, log } = job;
  const chains = Array.from({ length: width }, (_, chain) => log?.chains[chain] ?? { tokens: 0, finish: null });
  const ended = isOver(job) ? (job.result?.chains[0]?.finish_reason ?? state) : null;
  return { id, state, model: spec.model, createdMs, slice: 1, epoch: 1, step: Math.max(0, ...chains.map(({ tokens }) => tokens)), chains, ended, parent };
}
