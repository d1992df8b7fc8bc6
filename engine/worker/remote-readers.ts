/** Whether somebody elsewhere reads a job that runs here, by the sign that a reader leaves in the store and writes anew while he is there. */
import type { Clock } from '../core/clock.ts';
import { untilAborted } from '../core/waiting.ts';
import { READING_MS, readingKey } from '../kv/hints.ts';
import type { JobKey } from '../kv/names.ts';
import type { ObjectStore } from '../ports/object-store.ts';

/** Between two looks: one request in so long is the price of a job that nobody reads. */
const LOOK_MS = 10_000;

/** What a job has after so long is written then anyway (job/checkpointer.ts), and many are over by then. */
const FIRST_MS = 1_000;

/** Looks until it is disposed. A sign that was left behind counts once. */
export class RemoteReaders implements Disposable {
  readonly #stop = new AbortController();
  readonly #clock: Clock;
  #etag: string | null = null;
  #untilMs = -Infinity;

  constructor(store: ObjectStore, where: JobKey, clock: Clock) {
    this.#clock = clock;
    void this.#look(store, readingKey(where));
  }

  get areThere(): boolean {
    return this.#clock.nowMs() < this.#untilMs;
  }

  async #look(store: ObjectStore, key: string): Promise<void> {
    const { signal } = this.#stop;
    await untilAborted(this.#clock, FIRST_MS, signal);
    while (!signal.aborted) {
      // A store that fails now says so to the job's next commit.
      const sign = await store.head(key, { signal }).catch(() => null);
      if (sign !== null && sign.etag !== this.#etag) this.#untilMs = this.#clock.nowMs() + READING_MS + LOOK_MS;
      this.#etag = sign?.etag ?? null;
      await untilAborted(this.#clock, LOOK_MS, signal);
    }
  }

  [Symbol.dispose](): void {
    this.#stop.abort();
  }
}
