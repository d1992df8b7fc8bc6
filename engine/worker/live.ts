/** What the worker of this process tells readers of this process, ahead of the store. */
import type { LiveFeed } from '../control/feed.ts';
import type { Clock } from '../core/clock.ts';
import { Bell, throwIfCancelled, untilAborted } from '../core/waiting.ts';
import { jobPrefix, type JobKey } from '../kv/names.ts';
import type { RunReport } from '../runtime/native.ts';

/** A reader that handles what it got will be back. */
const FOLLOWED_MS = 2_000;

interface Readers {
  readonly bell: Bell;
  waiting: number;
  askedMs: number;
}

export class Live implements LiveFeed {
  readonly #clock: Clock;
  readonly #reports = new Map<string, RunReport>();
  readonly #readers = new Map<string, Readers>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  report(where: JobKey): RunReport | null {
    return this.#reports.get(jobPrefix(where)) ?? null;
  }

  async changed(where: JobKey, waitMs: number, signal?: AbortSignal): Promise<void> {
    throwIfCancelled(signal);
    const key = jobPrefix(where);
    const readers = this.#readers.get(key) ?? { bell: new Bell(), waiting: 0, askedMs: 0 };
    this.#readers.set(key, readers);
    readers.waiting++;
    using rung = readers.bell.listen();
    try {
      await untilAborted(this.#clock, waitMs, rung.signal, signal);
    } finally {
      readers.waiting--;
      readers.askedMs = this.#clock.nowMs();
      // What runs here is forgotten when it stops.
      if (readers.waiting === 0 && !this.#reports.has(key)) this.#readers.delete(key);
    }
    throwIfCancelled(signal);
  }

  isFollowed(where: JobKey): boolean {
    const readers = this.#readers.get(jobPrefix(where));
    return readers !== undefined && (readers.waiting > 0 || this.#clock.nowMs() - readers.askedMs < FOLLOWED_MS);
  }

  publish(where: JobKey, report: RunReport): void {
    const key = jobPrefix(where);
    this.#reports.set(key, report);
    this.#readers.get(key)?.bell.ring();
  }

  /** The job does not run here any more: the store knows how it stands. */
  stop(where: JobKey): void {
    const key = jobPrefix(where);
    this.#reports.delete(key);
    const readers = this.#readers.get(key);
    readers?.bell.ring();
    if (readers?.waiting === 0) this.#readers.delete(key);
  }
}
