/** How much waits for workers, and for how long: what a front goes by when it sends work away. Jobs of batches are counted and never make it do so. */
import type { Clock } from '../core/clock.ts';
import { areRequestsIsolated } from '../core/host.ts';
import { unlessLater } from '../core/waiting.ts';
import type { JobKey } from '../kv/names.ts';
import { readHead } from '../kv/read.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import { EMPTY_DEPTH, type Priority, type Queue } from '../ports/queue.ts';

export interface BacklogOptions {
  readonly queue: Pick<Queue, 'depth'>;
  readonly store: ObjectStore;
  readonly clock: Clock;
  /** An answer of the queue's that is no older is as good as a new one. */
  readonly freshMs: number;
}

export interface BacklogNow {
  readonly queued: number;
  readonly queueAgeMs: number;
}

/** A probe must not wait for a queue that does not answer: then what it said last is told, if it is not too long ago. */
const WAIT_MS = 500;
const KNOWN_MS = 60_000;
/** Jobs sent from here that are remembered, and those of them that are looked at for one answer. */
const SENT_MAX = 1_000;
const LOOKS_MAX = 4;

export class Backlog {
  readonly #o: BacklogOptions;
  #last: { readonly now: BacklogNow; readonly atMs: number } | null = null;
  #asking: Promise<BacklogNow> | null = null;
  /** Interactive jobs that were sent from here and not seen to be taken, oldest first. */
  readonly #sent: { readonly where: JobKey; readonly atMs: number }[] = [];

  constructor(options: BacklogOptions) {
    this.#o = options;
  }

  /** A job was sent to the queue. */
  sent(where: JobKey, priority: Priority): void {
    if (priority === 'interactive' && this.#sent.length < SENT_MAX) this.#sent.push({ where, atMs: this.#o.clock.nowMs() });
  }

  async now(): Promise<BacklogNow> {
    const { clock, freshMs } = this.#o;
    const last = this.#last;
    const ageMs = last === null ? Infinity : clock.nowMs() - last.atMs;
    if (last !== null && ageMs < freshMs) return last.now;
    const asking = this.#asking ?? this.#ask().finally(() => {
      this.#asking = null;
    });
    if (!areRequestsIsolated) this.#asking = asking;
    return (await unlessLater(clock, WAIT_MS, asking)) ?? (last !== null && ageMs < KNOWN_MS ? last.now : { queued: 0, queueAgeMs: 0 });
  }

  async #ask(): Promise<BacklogNow> {
    const depth = await this.#o.queue.depth().catch(() => EMPTY_DEPTH);
    const now = { queued: depth.visible + depth.batch.visible, queueAgeMs: depth.oldestAgeMs ?? (await this.#ageOfSent().catch(() => 0)) };
    this.#last = { now, atMs: this.#o.clock.nowMs() };
    return now;
  }

  /** For queues that do not tell: since when the oldest job that was sent from here has waited to be taken. */
  async #ageOfSent(): Promise<number> {
    for (let looks = 0; looks < LOOKS_MAX; looks++) {
      const [oldest] = this.#sent;
      if (oldest === undefined) return 0;
      const found = await readHead(this.#o.store, oldest.where);
      if (found?.head.state === 'queued') return this.#o.clock.nowMs() - oldest.atMs;
      this.#sent.shift();
    }
    return 0;
  }
}
