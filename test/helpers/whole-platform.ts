/** The platform and one worker over a store in memory, as `ruminate serve` puts them together over a real one. */
import { createLocalQueue } from '../../engine/adapters/queue-local.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { NativeShelf } from '../../engine/control/native-shelf.ts';
import type { CallerOptions, JobView, PlatformHealth } from '../../engine/control/platform.ts';
import { StorePlatform } from '../../engine/control/store-platform.ts';
import { systemClock, wallClockMs } from '../../engine/core/clock.ts';
import { Worker } from '../../engine/worker/worker.ts';

const CLOSE_MS = 20_000;

export class WholePlatform extends StorePlatform implements AsyncDisposable {
  /** What /health and shedding are told instead of the truth; null: the truth. */
  pretended: PlatformHealth | null = null;
  /** Every job that a call has cancelled, oldest first. */
  readonly cancelled: string[] = [];
  readonly store: MemoryStore;
  readonly #worker: Worker;
  readonly #shelf: NativeShelf;

  constructor() {
    const clock = systemClock;
    const store = new MemoryStore({ nowMs: wallClockMs });
    const queue = createLocalQueue({ clock });
    const worker = new Worker({ store, queue, clock, isQueueNew: true });
    const shelf = new NativeShelf();
    super({ store, keys: null, queue, shelf, feed: worker, workers: worker, clock, onCancelled: (where) => worker.interrupt(where), letGo: (where, options) => worker.letGo(where, options) });
    this.store = store;
    this.#worker = worker;
    this.#shelf = shelf;
    worker.start();
  }

  override async cancel(id: string, options: CallerOptions): Promise<JobView> {
    const before = await this.get(id, options);
    const after = await super.cancel(id, options);
    if (before.state !== 'cancelled' && after.state === 'cancelled') this.cancelled.push(id);
    return after;
  }

  override async health(): Promise<PlatformHealth> {
    return this.pretended ?? (await super.health());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.drain({ deadlineMs: CLOSE_MS });
    this.#shelf[Symbol.dispose]();
  }
}
