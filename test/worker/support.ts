/** A platform without its front: a store, a queue, workers, and jobs of the bundled model that were submitted to them. */
import { createLocalQueue } from '../../engine/adapters/queue-local.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { type Clock, systemClock } from '../../engine/core/clock.ts';
import { Session } from '../../engine/job/session.ts';
import { ownerHint } from '../../engine/core/owner.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { resumeStored, runStored } from '../../engine/job/stored.ts';
import { type StoredSpec, storedSpecOf } from '../../engine/job/stored-spec.ts';
import { createJob } from '../../engine/kv/create.ts';
import type { Head } from '../../engine/kv/head.ts';
import type { JobKey } from '../../engine/kv/names.ts';
import { readHead } from '../../engine/kv/read.ts';
import { modelIdOf } from '../../engine/model/identity.ts';
import type { Queue } from '../../engine/ports/queue.ts';
import type { WorkerEvent } from '../../engine/worker/events.ts';
import { Worker, type WorkerOptions } from '../../engine/worker/worker.ts';
import { resultOf } from '../helpers/stored-job.ts';

export const SHORT: JobSpec = { model: 'countdown@cr2', prompt: '4 20 8 13 target 59', seed: 7n, budget: { length: 160, width: 2 } };
const EOS = 2;
/** As long as it may be: whatever happens to it happens before its end. */
export const LONG: JobSpec = { ...SHORT, early_stop: false, sampling: { temperature: 1, logit_bias: [[EOS, -100]] }, budget: { length: 900, width: 2 } };

export const whereIs = (job: string): JobKey => ({ tenant: 'acme', job });

export class Bench {
  readonly store = new MemoryStore();
  readonly queue: Queue;
  readonly clock: Clock;
  readonly events: WorkerEvent[] = [];
  readonly #workers: Worker[] = [];
  readonly #watchers = new Set<() => void>();

  constructor(clock: Clock = systemClock) {
    this.clock = clock;
    this.queue = createLocalQueue({ clock });
  }

  worker(options: Partial<WorkerOptions> = {}): Worker {
    const worker = new Worker({
      store: this.store,
      queue: this.queue,
      clock: this.clock,
      threads: 1,
      policy: { deltaTokens: 40 },
      ...options,
      onEvent: (event) => {
        this.events.push(event);
        for (const watcher of [...this.#watchers]) watcher();
        options.onEvent?.(event);
      },
    });
    this.#workers.push(worker);
    worker.start();
    return worker;
  }

  /** As the control plane does: the job, then its message. `change`: of what is stored. */
  async submit(job: string, spec: JobSpec, { change = (stored) => stored, send = true }: { change?: (stored: StoredSpec) => StoredSpec; send?: boolean } = {}): Promise<JobKey> {
    using session = new Session();
    const opened = await session.open(spec, { threads: 1 });
    const { weightsDigest } = await opened.engine.identity();
    const stored = storedSpecOf(spec, opened.job, modelIdOf(opened.job.model, weightsDigest), null);
    const where = whereIs(job);
    await createJob(this.store, where, JSON.stringify(change(stored)), { shards: spec.shards });
    if (send) await this.send(job);
    return where;
  }

  async send(job: string, slice = 0): Promise<void> {
    await this.queue.send({ v: 1, tenant: 'acme', job, slice });
  }

  /** The first event of that kind, about that job if one is named. */
  async event<K extends WorkerEvent['kind']>(kind: K, job?: string): Promise<Extract<WorkerEvent, { kind: K }>> {
    for (;;) {
      const found = this.events.find((event) => event.kind === kind && (job === undefined || ('where' in event && event.where.job === job)));
      if (found !== undefined) return found as Extract<WorkerEvent, { kind: K }>;
      await new Promise<void>((resolve) => {
        const watcher = () => {
          this.#watchers.delete(watcher);
          resolve();
        };
        this.#watchers.add(watcher);
      });
    }
  }

  /** What became of its slices, and not how far each came. */
  kinds(job: string): readonly WorkerEvent['kind'][] {
    return this.events.filter((event) => 'where' in event && event.where.job === job && event.kind !== 'begun' && event.kind !== 'reached').map(({ kind }) => kind);
  }

  async head(job: string): Promise<Head> {
    const stored = await readHead(this.store, whereIs(job));
    if (stored === null) throw new Error(`no job ${job}`);
    return stored.head;
  }

  async result(job: string): Promise<unknown> {
    return resultOf(await resumeStored({ store: this.store, where: whereIs(job), threads: 1 }));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const worker of this.#workers) await worker.drain({ deadlineMs: 20_000 });
  }
}

/** What a job's result is when nothing disturbs it. */
export async function quiet(spec: JobSpec): Promise<unknown> {
  return resultOf(await runStored(spec, { store: new MemoryStore(), where: whereIs('quiet'), threads: 1 }));
}

/** Resolves when the job that runs here has so many steps. */
export async function reaches(worker: Worker, where: JobKey, step: number): Promise<void> {
  while ((worker.report(where)?.step ?? 0) < step) await worker.changed(where, 100);
}

/** Of this machine, and of a process that is not there. */
export function deadOwner(): string {
  return ownerHint().replace(/^\d+-\d+/, `${2 ** 22 + 1}-1`);
}
