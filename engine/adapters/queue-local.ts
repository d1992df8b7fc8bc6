/**
 * Queues of one machine: all that a queue does, over a table of entries that is in memory (here) or in a directory (queue-directory.ts).
 * An entry is a value, and every change a swap that one of those who try wins.
 */
import type { Clock } from '../core/clock.ts';
import { Bell, InOrder, throwIfCancelled, untilAborted } from '../core/waiting.ts';
import type { CallOptions } from '../ports/object-store.ts';
import {
  DELAY_MS_MAX, HELD_MS_MAX, RECEIVES_MAX, priorityOf,
  type ClassDepth, type DeadLetters, type DeadMessage, type Priority, type Queue, type QueueDepth, type ReceivedMessage, type SendOptions, type SliceMessage,
} from '../ports/queue.ts';
import { Turns, byAge } from './queue-turns.ts';

export interface Entry {
  /** Later ones of the same sender sort after earlier ones. */
  readonly id: string;
  readonly message: SliceMessage;
  readonly sentMs: number;
  /** Nobody sees it before. */
  readonly visibleMs: number;
  readonly received: number;
  /** Who has it, and since when; null: nobody. */
  readonly held: { readonly by: string; readonly sinceMs: number } | null;
  readonly isDead: boolean;
}

export interface EntryTable {
  /** As entries count it. */
  nowMs(): number;
  /** As they are now, not copied: to be gone through at once. */
  list(signal: AbortSignal | undefined): Promise<ReadonlyMap<string, Entry>>;
  add(entry: Omit<Entry, 'id'>): Promise<void>;
  /** null: it goes. false: it is not any more what it was. */
  swap(from: Entry, to: Entry | null): Promise<boolean>;
  /** A name that no other receiver has. */
  newHolder(): string;
  isGone(holder: string): boolean;
  /** How long others' changes may go unseen; null: there are no others. */
  readonly lookMs: number | null;
}

export interface LocalQueueOptions {
  readonly clock: Clock;
  readonly receivesMax?: number | undefined;
}

/** In one process and its memory: what is lost with it, the reconciler sends again. @example const queue = createLocalQueue({ clock: systemClock }); */
export function createLocalQueue(options: LocalQueueOptions): Queue {
  return new LocalQueue('local:', new MemoryTable(options.clock), options);
}

export class LocalQueue implements Queue {
  readonly url: string;
  readonly #table: EntryTable;
  readonly #clock: Clock;
  readonly #receivesMax: number;
  readonly #turns = new Turns();
  /** By receipt, as they are while this process has them. */
  readonly #held = new Map<string, Entry>();
  /** By receipt: the second of two changes begins with what the first has made of it. */
  readonly #changes = new InOrder();
  /** By id, what is being taken here: the slots of a worker do not race each other for the same one. */
  readonly #taking = new Set<string>();
  readonly #changed = new Bell();

  constructor(url: string, table: EntryTable, { clock, receivesMax = RECEIVES_MAX }: LocalQueueOptions) {
    this.url = url;
    this.#table = table;
    this.#clock = clock;
    this.#receivesMax = receivesMax;
  }

  async send(message: SliceMessage, { signal, delayMs = 0 }: SendOptions = {}): Promise<void> {
    throwIfCancelled(signal);
    const sentMs = this.#table.nowMs();
    await this.#table.add({ message, sentMs, visibleMs: sentMs + Math.min(delayMs, DELAY_MS_MAX), received: 0, held: null, isDead: false });
    this.#changed.ring();
  }

  async sendAll(messages: readonly SliceMessage[], options: CallOptions = {}): Promise<void> {
    for (const message of messages) await this.send(message, options);
  }

  async receive({ signal, max, waitMs, visibilityMs }: Parameters<Queue['receive']>[0]): Promise<readonly ReceivedMessage[]> {
    const endsMs = this.#clock.nowMs() + waitMs;
    for (;;) {
      throwIfCancelled(signal);
      using changed = this.#changed.listen();
      const { taken, soonestMs } = await this.#take(await this.#look(signal), max, visibilityMs);
      if (taken.length > 0) return taken;
      const nowMs = this.#clock.nowMs();
      if (nowMs >= endsMs) return [];
      await untilAborted(this.#clock, Math.min(soonestMs, this.#table.lookMs ?? Infinity, endsMs - nowMs), changed.signal, signal);
    }
  }

  async extend(receipt: string, visibilityMs: number, { signal }: CallOptions = {}): Promise<void> {
    await this.#change(receipt, signal, (entry, sinceMs) => ({ ...entry, visibleMs: Math.min(this.#table.nowMs() + visibilityMs, sinceMs + HELD_MS_MAX) }));
  }

  async release(receipt: string, delayMs: number, { signal }: CallOptions = {}): Promise<void> {
    await this.#change(receipt, signal, (entry) => ({ ...entry, held: null, visibleMs: this.#table.nowMs() + delayMs }));
  }

  async remove(receipt: string, { signal }: CallOptions = {}): Promise<void> {
    await this.#change(receipt, signal, () => null);
  }

  async depth({ signal }: CallOptions = {}): Promise<QueueDepth> {
    throwIfCancelled(signal);
    const entries = [...(await this.#look(signal)).values()].filter(({ isDead }) => !isDead);
    return { ...this.#depthOf(entries, 'interactive'), batch: this.#depthOf(entries, 'batch') };
  }

  get dead(): DeadLetters {
    const dead = async ({ signal }: CallOptions = {}) => {
      throwIfCancelled(signal);
      return [...(await this.#look(signal)).values()].filter(({ isDead }) => isDead).sort(byAge);
    };
    const count = async (swaps: readonly Promise<boolean>[]) => (await Promise.all(swaps)).filter((won) => won).length;
    return {
      list: async ({ max, ...options }) => (await dead(options)).slice(0, max).map(({ message, received, sentMs }): DeadMessage => ({ message, received, sentMs })),
      redrive: async (options) => {
        const visibleMs = this.#table.nowMs();
        const sent = await count((await dead(options)).map((entry) => this.#table.swap(entry, { ...entry, isDead: false, received: 0, visibleMs })));
        this.#changed.ring();
        return sent;
      },
      purge: async (options) => await count((await dead(options)).map((entry) => this.#table.swap(entry, null))),
    };
  }

  /** What nobody has any more, because its time is over or its process has ended, is let go; what was had too often is dead. */
  async #look(signal: AbortSignal | undefined): Promise<ReadonlyMap<string, Entry>> {
    const nowMs = this.#table.nowMs();
    const entries = await this.#table.list(signal);
    const changed: (readonly [Entry, Entry])[] = [];
    for (const entry of entries.values()) {
      const now = this.#asOf(nowMs, entry);
      if (now !== entry) changed.push([entry, now]);
    }
    if (changed.length === 0) return entries;
    for (const [entry, now] of changed) await this.#table.swap(entry, now);
    return await this.#table.list(signal);
  }

  #asOf(nowMs: number, entry: Entry): Entry {
    // Over: or the clock was set back since, for nothing is hidden for so long.
    const isOver = entry.visibleMs <= nowMs || entry.visibleMs > nowMs + HELD_MS_MAX;
    const isFree = entry.held !== null && (isOver || this.#table.isGone(entry.held.by));
    const free: Entry = isFree || (isOver && entry.visibleMs > nowMs) ? { ...entry, held: null, visibleMs: Math.min(entry.visibleMs, nowMs) } : entry;
    return free.held === null && !free.isDead && free.received >= this.#receivesMax ? { ...free, isDead: true } : free;
  }

  /** In one pass, because a queue may be long. `soonestMs`: until something that is hidden may be seen. */
  async #take(entries: ReadonlyMap<string, Entry>, max: number, visibilityMs: number): Promise<{ readonly taken: readonly ReceivedMessage[]; readonly soonestMs: number }> {
    const nowMs = this.#table.nowMs();
    // Of whoever let its time pass: worth nothing any more.
    for (const [receipt, { visibleMs }] of this.#held) if (visibleMs <= nowMs) this.#held.delete(receipt);
    const [waiting, later, inFlight]: [Entry[], Entry[], Entry[]] = [[], [], []];
    let soonestMs = Infinity;
    for (const entry of entries.values()) {
      if (entry.held !== null) inFlight.push(entry);
      else if (entry.isDead || this.#taking.has(entry.id)) continue;
      else (entry.visibleMs <= nowMs ? waiting : later).push(entry);
      if (entry.visibleMs > nowMs) soonestMs = Math.min(soonestMs, entry.visibleMs - nowMs);
    }
    const taken: ReceivedMessage[] = [];
    while (taken.length < max) {
      const entry = this.#turns.next(waiting, inFlight);
      if (entry === null) break;
      waiting.splice(waiting.indexOf(entry), 1);
      const by = this.#table.newHolder();
      const held = { ...entry, held: { by, sinceMs: nowMs }, received: entry.received + 1, visibleMs: nowMs + Math.min(visibilityMs, HELD_MS_MAX) };
      if (!(await this.#claim(entry, held))) continue;
      this.#held.set(by, held);
      inFlight.push(held);
      taken.push({ message: held.message, receipt: by, received: held.received });
      // Two that say the same and wait are one: a reconciler that repeats itself for hours fills no memory.
      for (const same of [waiting, later]) {
        for (const other of same.filter(({ message }) => isSame(message, entry.message))) if (await this.#table.swap(other, null)) same.splice(same.indexOf(other), 1);
      }
    }
    return { taken, soonestMs: Math.max(1, soonestMs) };
  }

  async #claim(entry: Entry, held: Entry): Promise<boolean> {
    this.#taking.add(entry.id);
    try {
      return await this.#table.swap(entry, held);
    } finally {
      this.#taking.delete(entry.id);
    }
  }

  /** A receipt whose time is over, or that another process has got since, changes nothing. */
  async #change(receipt: string, signal: AbortSignal | undefined, to: (entry: Entry, sinceMs: number) => Entry | null): Promise<void> {
    await this.#changes.take(receipt, signal, async () => {
      const entry = this.#held.get(receipt);
      if (entry === undefined || entry.held === null) return;
      const isHeld = entry.visibleMs > this.#table.nowMs();
      const changed = to(entry, entry.held.sinceMs);
      const done = isHeld && (await this.#table.swap(entry, changed));
      if (done && changed?.held?.by === receipt) return void this.#held.set(receipt, changed);
      this.#held.delete(receipt);
      if (changed?.held === null) this.#changed.ring();
    });
  }

  #depthOf(entries: readonly Entry[], priority: Priority): ClassDepth {
    const nowMs = this.#table.nowMs();
    const ours = entries.filter(({ message }) => priorityOf(message) === priority);
    const waiting = new Map(ours.filter((entry) => isWaiting(entry) && entry.visibleMs <= nowMs).map((entry) => [keyOf(entry.message), entry]));
    return {
      visible: waiting.size,
      inFlight: ours.filter(({ held }) => held !== null).length,
      oldestAgeMs: [...waiting.values()].reduce((oldestMs, { visibleMs }) => Math.max(oldestMs, nowMs - visibleMs), 0),
    };
  }
}

class MemoryTable implements EntryTable {
  readonly lookMs = null;
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();
  #ids = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  nowMs(): number {
    return this.#clock.nowMs();
  }

  async list(): Promise<ReadonlyMap<string, Entry>> {
    return this.#entries;
  }

  async add(entry: Omit<Entry, 'id'>): Promise<void> {
    const id = this.newHolder().padStart(15, '0');
    this.#entries.set(id, { ...entry, id });
  }

  async swap(from: Entry, to: Entry | null): Promise<boolean> {
    if (this.#entries.get(from.id) !== from) return false;
    if (to === null) this.#entries.delete(from.id);
    else this.#entries.set(from.id, to);
    return true;
  }

  newHolder(): string {
    return `${++this.#ids}`;
  }

  isGone(): boolean {
    return false;
  }
}

function isWaiting({ held, isDead }: Entry): boolean {
  return held === null && !isDead;
}

function isSame(a: SliceMessage, b: SliceMessage): boolean {
  return a.job === b.job && a.slice === b.slice && a.tenant === b.tenant;
}

function keyOf({ tenant, job, slice }: SliceMessage): string {
  return `${tenant}/${job}/${slice}`;
}
