/** What one reader of a job gets: its events from where he left off, and beside them how the job fares. All readers of a job share what is behind it. */
import { areRequestsIsolated } from '../core/host.ts';
import { nextTurn } from '../core/turns.ts';
import { throwIfCancelled, unlessCancelled } from '../core/waiting.ts';
import { jobPrefix, type JobKey } from '../kv/names.ts';
import { EVENTS_A_TURN, FollowedJob } from './followed.ts';
import type { FollowOptions } from './follower.ts';
import type { CallerOptions, JobEvent } from './platform.ts';
import { keyOf, readRecord, requireThere } from './record.ts';
import type { RestoredJobs } from './restored.ts';

export interface StreamsOptions extends Omit<FollowOptions, 'signal'> {
  readonly jobs: RestoredJobs;
  /** Events of a job that are kept for readers who are behind. */
  readonly eventsMax?: number | undefined;
}

export interface EventOptions extends CallerOptions {
  readonly after?: number | undefined;
}

interface Shared {
  readonly opening: Promise<FollowedJob>;
  readonly stop: AbortController;
  readers: number;
}

/** The readers of one platform. */
export class Streams {
  readonly #options: StreamsOptions;
  readonly #shared = new Map<string, Shared>();

  constructor(options: StreamsOptions) {
    this.#options = options;
  }

  /**
   * Reports of a live run and of the store are made into the same events, so that going from one to the other neither misses nor repeats any.
   * @param options `after`: the last number that the reader has; default: none.
   * @throws EngineError ERR_JOB_NOT_FOUND (also when it is erased meanwhile), ERR_CHECKPOINT, ERR_KEY, ERR_STORE, ERR_CANCELLED.
   */
  async *read(id: string, { tenant, after = -1, signal }: EventOptions): AsyncGenerator<JobEvent, void, undefined> {
    throwIfCancelled(signal);
    const where = keyOf(tenant, id);
    const key = jobPrefix(where);
    const known = this.#shared.get(key);
    const shared = known ?? this.#open(where);
    if (!areRequestsIsolated) this.#shared.set(key, shared);
    shared.readers += 1;
    try {
      // Erased since it was opened?
      if (known !== undefined) await requireThere(this.#options.store, where, signal);
      yield* eventsOf(await unlessCancelled(shared.opening, signal), after, signal);
    } finally {
      shared.readers -= 1;
      if (shared.readers === 0) this.#close(key, shared);
    }
  }

  #open(where: JobKey): Shared {
    const stop = new AbortController();
    // What failed may succeed for the next who asks.
    const forget = (): void => this.#forget(jobPrefix(where), shared);
    const opening = (async () => {
      const { jobs, ...options } = this.#options;
      const record = await readRecord(options.store, where, { signal: stop.signal });
      const job = await jobs.restore(record, stop.signal);
      throwIfCancelled(stop.signal);
      return new FollowedJob(record, job, { ...options, onFailure: forget });
    })();
    const shared: Shared = { opening, stop, readers: 0 };
    opening.catch(forget);
    return shared;
  }

  #close(key: string, shared: Shared): void {
    this.#forget(key, shared);
    shared.stop.abort();
    void shared.opening.then((job) => job[Symbol.dispose](), () => undefined);
  }

  #forget(key: string, shared: Shared): void {
    if (this.#shared.get(key) === shared) this.#shared.delete(key);
  }
}

async function* eventsOf(job: FollowedJob, after: number, signal: AbortSignal | undefined): AsyncGenerator<JobEvent, void, undefined> {
  using waiter = job.reader(signal);
  let { state, idles }: Pick<FollowedJob, 'idles'> & { state: FollowedJob['state'] } = { state: null, idles: job.idles };
  for (let next = after + 1; ;) {
    await waiter.news();
    await nextTurn();
    const { end, failure } = job;
    if (job.state !== state) {
      state = job.state;
      if (state !== null) yield { kind: 'state', state };
    }
    for (;;) {
      while (!job.keeps(next)) next = yield* behind(job, next, signal);
      const events = job.read(next);
      if (events.length === 0) break;
      yield* events;
      next += events.length;
      await nextTurn();
      throwIfCancelled(signal);
    }
    if (end !== null) {
      const { result, fault } = end;
      if (result === null) yield { kind: 'state', state: end.state, ...(fault === null ? {} : { fault }) };
      else if (result.seq > after) yield result;
      return;
    }
    if (failure !== null) throw failure;
    if (job.idles === idles) continue;
    idles = job.idles;
    yield { kind: 'idle' };
  }
}

/** Events that are not kept any more, as far as they are known now. @returns the number after the last. */
async function* behind(job: FollowedJob, from: number, signal: AbortSignal | undefined): AsyncGenerator<JobEvent, number, undefined> {
  let next = from;
  for (const event of job.again()) {
    if (event.seq >= next) {
      yield event;
      next = event.seq + 1;
    }
    if (job.keeps(next)) return next;
    if (event.seq % EVENTS_A_TURN !== 0) continue;
    await nextTurn();
    throwIfCancelled(signal);
  }
  return next;
}
