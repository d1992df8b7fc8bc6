/** A queue in one process and its memory: for one process that sends, works and answers. What is lost with it, the reconciler sends again. */
import type { Clock } from '../core/clock.ts';
import { Bell, throwIfCancelled, untilAborted } from '../core/waiting.ts';
import type { CallOptions } from '../ports/object-store.ts';
import type { Queue, QueueDepth, ReceivedMessage, SliceMessage } from '../ports/queue.ts';

export interface LocalQueueOptions {
  readonly clock: Clock;
}

interface Entry {
  readonly message: SliceMessage;
  /** Nobody sees it before. */
  visibleMs: number;
  received: number;
  /** Of who has it or had it last; null: nobody. */
  receipt: string | null;
}

/** @example const queue = createLocalQueue({ clock: systemClock }); */
export function createLocalQueue({ clock }: LocalQueueOptions): Queue {
  return new LocalQueue(clock);
}

class LocalQueue implements Queue {
  readonly url = 'local:';
  readonly #clock: Clock;
  /** In the order in which they were sent. */
  readonly #entries = new Set<Entry>();
  readonly #changed = new Bell();
  #receipts = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  async send(message: SliceMessage, { signal, delayMs = 0 }: CallOptions & { readonly delayMs?: number | undefined } = {}): Promise<void> {
    throwIfCancelled(signal);
    const visibleMs = this.#clock.nowMs() + delayMs;
    const waiting = [...this.#entries].find((entry) => !this.#isInFlight(entry) && isSame(entry.message, message));
    // Two that say the same and wait are one: a reconciler that repeats itself for hours fills no memory.
    if (waiting === undefined) this.#entries.add({ message, visibleMs, received: 0, receipt: null });
    else waiting.visibleMs = Math.min(waiting.visibleMs, visibleMs);
    this.#changed.ring();
  }

  async receive({ signal, max, waitMs, visibilityMs }: Parameters<Queue['receive']>[0]): Promise<readonly ReceivedMessage[]> {
    const endsMs = this.#clock.nowMs() + waitMs;
    for (;;) {
      throwIfCancelled(signal);
      using changed = this.#changed.listen();
      const nowMs = this.#clock.nowMs();
      const taken = [...this.#entries].filter(({ visibleMs }) => visibleMs <= nowMs).slice(0, max);
      if (taken.length > 0) return taken.map((entry) => this.#handOut(entry, nowMs + visibilityMs));
      const soonestMs = Math.min(endsMs, ...[...this.#entries].map(({ visibleMs }) => visibleMs));
      if (nowMs >= endsMs) return [];
      await untilAborted(this.#clock, soonestMs - nowMs, changed.signal, signal);
    }
  }

  async extend(receipt: string, visibilityMs: number, { signal }: CallOptions = {}): Promise<void> {
    throwIfCancelled(signal);
    const entry = this.#heldBy(receipt);
    if (entry !== null) entry.visibleMs = this.#clock.nowMs() + visibilityMs;
  }

  async release(receipt: string, delayMs: number, { signal }: CallOptions = {}): Promise<void> {
    throwIfCancelled(signal);
    const entry = this.#heldBy(receipt);
    if (entry === null) return;
    entry.receipt = null;
    entry.visibleMs = this.#clock.nowMs() + delayMs;
    this.#changed.ring();
  }

  async remove(receipt: string, { signal }: CallOptions = {}): Promise<void> {
    throwIfCancelled(signal);
    const entry = this.#heldBy(receipt);
    if (entry !== null) this.#entries.delete(entry);
  }

  async depth({ signal }: CallOptions = {}): Promise<QueueDepth> {
    throwIfCancelled(signal);
    const nowMs = this.#clock.nowMs();
    const entries = [...this.#entries];
    const visible = entries.filter(({ visibleMs }) => visibleMs <= nowMs);
    return {
      visible: visible.length,
      inFlight: entries.filter((entry) => this.#isInFlight(entry)).length,
      oldestAgeMs: visible.reduce((oldestMs, { visibleMs }) => Math.max(oldestMs, nowMs - visibleMs), 0),
    };
  }

  #handOut(entry: Entry, visibleMs: number): ReceivedMessage {
    const receipt = `${++this.#receipts}`;
    Object.assign(entry, { receipt, visibleMs, received: entry.received + 1 });
    return { message: entry.message, receipt, received: entry.received };
  }

  /** null: it was removed, let go, or its visibility timeout is over. */
  #heldBy(receipt: string): Entry | null {
    return [...this.#entries].find((entry) => entry.receipt === receipt && this.#isInFlight(entry)) ?? null;
  }

  #isInFlight({ receipt, visibleMs }: Entry): boolean {
    return receipt !== null && visibleMs > this.#clock.nowMs();
  }
}

function isSame(a: SliceMessage, b: SliceMessage): boolean {
  return a.tenant === b.tenant && a.job === b.job && a.slice === b.slice;
}
