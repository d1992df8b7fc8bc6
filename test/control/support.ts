/** A platform over a store in memory with the bundled model, and what stands in for workers: each slice is a real one. */
import { createHash } from 'node:crypto';

import type { MemoryStore } from '../../engine/adapters/memory.ts';
import type { LiveFeed } from '../../engine/control/feed.ts';
import { NativeShelf } from '../../engine/control/native-shelf.ts';
import type { JobEvent } from '../../engine/control/platform.ts';
import { StorePlatform, type StorePlatformOptions } from '../../engine/control/store-platform.ts';
import { type Clock, systemClock } from '../../engine/core/clock.ts';
import { throwIfCancelled } from '../../engine/core/waiting.ts';
import { type CheckpointPolicy, DEFAULT_POLICY } from '../../engine/job/checkpointer.ts';
import { Session } from '../../engine/job/session.ts';
import { type SliceOutcome, runSlice } from '../../engine/job/slice.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { jobSpecOf, parseStoredSpec } from '../../engine/job/stored-spec.ts';
import { resumeStored } from '../../engine/job/stored.ts';
import type { JobKey } from '../../engine/kv/names.ts';
import { readSpec, requireHead } from '../../engine/kv/read.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import type { QueueDepth, SliceMessage } from '../../engine/ports/queue.ts';
import type { NativeEngine, NativeRun, RunReport } from '../../engine/runtime/native.ts';
import { HastyClock } from '../helpers/clock.ts';
import { changed } from '../resume/jobs.ts';

export const TENANT = 'acme';
export const SPEC: JobSpec = { model: 'countdown@cr2', prompt: '4 20 8 13 target 59', seed: 7n, budget: { length: 160, width: 2 } };

/** What was sent, oldest first. */
export class SentQueue {
  readonly sent: SliceMessage[] = [];

  async send(message: SliceMessage): Promise<void> {
    this.sent.push(message);
  }

  async depth(): Promise<QueueDepth> {
    return { visible: this.sent.length, inFlight: 0, oldestAgeMs: this.sent.length === 0 ? 0 : 5_000, batch: { visible: 0, inFlight: 0, oldestAgeMs: 0 } };
  }
}

/** A platform whose pauses take no time. */
export function platformOn(store: ObjectStore, shelf: NativeShelf, more: Partial<StorePlatformOptions> = {}) {
  const queue = new SentQueue();
  return { queue, platform: new StorePlatform({ store, keys: null, queue, shelf, feed: null, clock: new HastyClock(60_000), ...more }) };
}

/** One slice to the job's end, with a delta every 40 tokens. */
export async function runToEnd(store: ObjectStore, job: string, { parkAt = Infinity } = {}): Promise<void> {
  const stop = new AbortController();
  await resumeStored({
    store,
    where: { tenant: TENANT, job },
    threads: 1,
    policy: { deltaTokens: 40 },
    signal: stop.signal,
    onProgress: ({ chains }) => {
      if (chains.some(({ tokens }) => tokens >= parkAt)) stop.abort();
    },
  });
}

/** Of all that is stored: two stores with one fingerprint hold the same. */
export function fingerprint(store: MemoryStore): string {
  const hash = createHash('sha256');
  for (const [key, bytes] of [...store.snapshot()].sort(([a], [b]) => (a < b ? -1 : 1))) hash.update(`${key} ${bytes.byteLength} `).update(bytes);
  return hash.digest('hex');
}

export async function eventsOf(events: AsyncIterable<JobEvent>): Promise<readonly JobEvent[]> {
  const all: JobEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

export type Numbered = Extract<JobEvent, { readonly seq: number }>;

export const numbered = (events: readonly JobEvent[]): readonly Numbered[] => events.filter((event) => 'seq' in event);

/** Reports as a worker in this process would publish them. */
export class TestFeed implements LiveFeed {
  readonly #reports = new Map<string, RunReport>();
  readonly #waiting = new Set<() => void>();

  publish({ tenant, job }: JobKey, report: RunReport | null): void {
    if (report === null) this.#reports.delete(`${tenant}/${job}`);
    else this.#reports.set(`${tenant}/${job}`, report);
    for (const wake of [...this.#waiting]) wake();
  }

  report({ tenant, job }: JobKey): RunReport | null {
    return this.#reports.get(`${tenant}/${job}`) ?? null;
  }

  async changed(_where: JobKey, waitMs: number, signal?: AbortSignal): Promise<void> {
    throwIfCancelled(signal);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => wake(), waitMs);
      const wake = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', wake);
        this.#waiting.delete(wake);
        resolve();
      };
      this.#waiting.add(wake);
      signal?.addEventListener('abort', wake);
    });
    throwIfCancelled(signal);
  }

  get waiting(): number {
    return this.#waiting.size;
  }
}

export interface LiveOptions {
  readonly stepsMax?: number;
  /** Between two steps: whoever waits for it holds the run. */
  readonly onReport?: (report: RunReport) => Promise<void> | void;
  readonly clock?: Clock;
  readonly policy?: Partial<CheckpointPolicy>;
  readonly isFollowed?: () => boolean;
}

/** One slice that publishes every report. */
export async function runLive(store: ObjectStore, where: JobKey, feed: TestFeed, { stepsMax = 5, onReport, clock = systemClock, policy, isFollowed }: LiveOptions = {}): Promise<SliceOutcome> {
  const { head } = await requireHead(store, where);
  const stored = parseStoredSpec(await readSpec(store, where, head.spec));
  using session = new Session();
  const opened = await session.open(jobSpecOf(stored, null), { threads: 1 });
  const lease = await takeJob(store, where, { owner: 'test', force: true });
  const publishing = (run: NativeRun): NativeRun => {
    const publish = async (): Promise<void> => {
      feed.publish(where, run.report());
      await onReport?.(run.report());
    };
    return changed(run, {
      prefill: async (signal) => {
        await run.prefill(signal);
        await publish();
      },
      step: async (maxSteps, signal) => {
        await run.step(Math.min(maxSteps, stepsMax), signal);
        await publish();
      },
    });
  };
  const engine: NativeEngine = changed(opened.engine, {
    createRun: (options) => publishing(opened.engine.createRun(options)),
    restoreRun: async (options, signal) => publishing(await opened.engine.restoreRun(options, signal)),
  });
  try {
    return await runSlice(opened.job, lease, stored.parent, {
      ...opened,
      engine,
      store,
      keys: null,
      identity: await opened.engine.identity(),
      modelId: stored.model_id,
      policy: { ...DEFAULT_POLICY, deltaTokens: 40, ...policy },
      isFollowed,
      clock,
      cancelled: null,
      deadline: null,
    });
  } finally {
    feed.publish(where, null);
  }
}
