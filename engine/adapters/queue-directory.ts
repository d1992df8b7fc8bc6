/**
 * `file:`: a queue in a directory, for any number of processes of this machine. A message is a file: what it says never changes, how it stands is
 * its name, and so every change is one rename, which exactly one of those who try it wins. What a killed process had is there again at
 * once, because its name tells who had it. Nothing is synced: a power cut may lose messages, which are hints.
 */
import { randomBytes } from 'node:crypto';
import { readdir, readFile, rename, unlink, writeFile } from 'node:fs/promises';
import path from 'node:path';

import { type Clock, wallClockMs } from '../core/clock.ts';
import { hasCode, makeFolder, removeOlder, statOf } from '../core/disk.ts';
import { EngineError } from '../core/errors.ts';
import { stateOf, thisOwner } from '../core/owner.ts';
import { inParallel, throwIfCancelled, unlessCancelled } from '../core/waiting.ts';
import type { Queue, SliceMessage } from '../ports/queue.ts';
import { storeError } from './filesystem-errors.ts';
import { type Entry, type EntryTable, LocalQueue } from './queue-local.ts';
import { formatMessage, parseMessage } from './queue-message.ts';

export interface DirectoryQueueOptions {
  readonly clock: Clock;
  /** Who only looks: a directory that is not there is a mistake, not an empty queue. */
  readonly mustExist?: boolean | undefined;
  readonly receivesMax?: number | undefined;
  /** Of the wall clock, which is what the processes of a machine have in common, also after a restart. */
  readonly nowMs?: (() => number) | undefined;
}

export interface OpenedQueue {
  readonly queue: Queue;
  /** It knows nothing of what was sent before this process. */
  readonly isNew: boolean;
}

/** How long what another process sent may go unseen. */
const LOOK_MS = 100;
/** A file that was renamed since its folder was read is looked for so often. */
const LISTS_MAX = 3;
/** What a process left that died while it wrote. */
const LEFT_MS = 60_000;
const READS_AT_ONCE = 16;
const HIDDEN = '.';
/** A file with a name of ours that says nothing to us, a later version's or half of one that a power cut has left, stays for so long: as long as SQS keeps a message. */
const UNREAD_MS_MAX = 14 * 86_400_000;

/** @example const { queue } = await openDirectoryQueue('/var/lib/ruminate/queue', { clock: systemClock }); @throws EngineError ERR_QUEUE_CONFIG, ERR_QUEUE. */
export async function openDirectoryQueue(directory: string, { nowMs = wallClockMs, mustExist = false, ...options }: DirectoryQueueOptions): Promise<OpenedQueue> {
  const url = `file:${directory}`;
  return await guarded(url, async () => {
    const isNew = (await statOf(directory)) === null;
    if (isNew && mustExist) throw new EngineError('ERR_QUEUE_CONFIG', `${url}: there is no such queue.`);
    await makeFolder(directory);
    await removeOlder(directory, LEFT_MS, (name) => name.startsWith(HIDDEN));
    return { queue: new LocalQueue(url, new DirectoryTable(url, directory, nowMs, options.clock), options), isNew };
  });
}

class DirectoryTable implements EntryTable {
  readonly lookMs = LOOK_MS;
  readonly nowMs: () => number;
  readonly #url: string;
  readonly #directory: string;
  readonly #clock: Clock;
  /** As they were at the last look, with our own changes since, by name: a long queue is not read again for every message that is taken from it. */
  #known = new Map<string, Entry>();
  /** Of that look; it is as good as a new one for as long as others' changes may go unseen. */
  #lookedMs = -Infinity;
  /** Our changes since a look began that has not ended. */
  #since: Change[] = [];
  /** What messages say, by id: that stays when a name changes. */
  #said = new Map<string, SliceMessage>();
  /** Names of files that say nothing to us, as of the last look: they are read once. */
  #unread = new Set<string>();
  #looking: Promise<void> | null = null;
  /** For names: those of another table never have it. */
  readonly #mark = randomBytes(5).toString('hex');
  #holders = 0;
  #sent = 0;

  constructor(url: string, directory: string, nowMs: () => number, clock: Clock) {
    this.#url = url;
    this.#directory = directory;
    this.#clock = clock;
    this.nowMs = nowMs;
  }

  /** Whoever looks while another does sees the same: the slots of a worker that has nothing to do look as one. */
  async list(signal: AbortSignal | undefined): Promise<ReadonlyMap<string, Entry>> {
    throwIfCancelled(signal);
    if (this.#clock.nowMs() - this.#lookedMs >= LOOK_MS) await unlessCancelled(this.#looking ?? this.#look(), signal);
    return this.#known;
  }

  #look(): Promise<void> {
    const looking = guarded(this.#url, async () => {
      for (let lists = 1; (await this.#listOnce()) > 0 && lists < LISTS_MAX; lists++);
    }).finally(() => {
      this.#looking = null;
    });
    return (this.#looking = looking);
  }

  /** @returns how many were renamed before they were read. */
  async #listOnce(): Promise<number> {
    const begunMs = this.#clock.nowMs();
    this.#since = [];
    const known = new Map<string, Entry>();
    const unread = new Set<string>();
    const fresh: (State & { readonly name: string })[] = [];
    for (const name of await readdir(this.#directory)) {
      const entry = this.#known.get(name);
      if (entry !== undefined) known.set(name, entry);
      else if (this.#unread.has(name)) unread.add(name);
      else {
        const state = parseName(name);
        if (state !== null) fresh.push({ ...state, name });
      }
    }
    const messages = await inParallel(fresh.length, READS_AT_ONCE, undefined, async (i, stop) => {
      const { id, name, sentMs } = fresh[i] as (typeof fresh)[number];
      return this.#said.get(id) ?? (await this.#messageOf(name, sentMs, stop));
    });
    for (const [i, { name, ...state }] of fresh.entries()) {
      const message = messages[i] ?? null;
      if (message === UNREAD) unread.add(name);
      else if (message !== null) known.set(name, { ...state, message });
    }
    for (const change of this.#since) apply(known, change);
    this.#known = known;
    this.#unread = unread;
    this.#lookedMs = begunMs;
    this.#said = new Map([...known.values()].map(({ id, message }) => [id, message]));
    return messages.filter((message) => message === null).length;
  }

  /** Who only sends, and never looks, remembers nothing. */
  #note(change: Change): void {
    if (this.#clock.nowMs() - this.#lookedMs < LOOK_MS) apply(this.#known, change);
    if (this.#looking !== null) this.#since.push(change);
  }

  /** null: it has another name by now, or was there for too long without saying anything to us. */
  async #messageOf(name: string, sentMs: number, signal: AbortSignal | undefined): Promise<SliceMessage | typeof UNREAD | null> {
    throwIfCancelled(signal);
    const file = path.join(this.#directory, name);
    const text = await readFile(file, 'utf8').catch(unlessGone);
    if (text === false) return null;
    const message = parseMessage(text);
    if (message !== null) return message;
    if (this.nowMs() - sentMs < UNREAD_MS_MAX) return UNREAD;
    await unlink(file).catch(unlessGone);
    return null;
  }

  add({ message, ...state }: Omit<Entry, 'id'>): Promise<void> {
    return guarded(this.#url, async () => {
      // What one process sends within a millisecond stays in order.
      const count = (this.#sent++ & 0xffffff).toString(16).padStart(6, '0');
      const id = `${Math.round(state.sentMs).toString(36)}-${count}${this.#mark}`;
      const draft = path.join(this.#directory, `${HIDDEN}${id}`);
      const name = formatName({ ...state, id });
      try {
        await writeFile(draft, formatMessage(message), { flag: 'wx' });
        await rename(draft, path.join(this.#directory, name));
      } catch (error) {
        // Of a full disk: else each try would leave one, until somebody opens the queue anew.
        await unlink(draft).catch(() => undefined);
        throw error;
      }
      this.#note({ gone: null, come: { name, entry: { ...state, id, message } } });
    });
  }

  swap(from: Entry, to: Entry | null): Promise<boolean> {
    return guarded(this.#url, async () => {
      const [before, after] = [formatName(from), to === null ? null : { name: formatName(to), entry: to }];
      const file = path.join(this.#directory, before);
      const done = after === null ? unlink(file) : rename(file, path.join(this.#directory, after.name));
      const isDone = (await done.catch(unlessGone)) !== false;
      // Somebody else was first, with whatever it is now.
      if (!isDone) this.#lookedMs = -Infinity;
      this.#note({ gone: before, come: isDone ? after : null });
      return isDone;
    });
  }

  newHolder(): string {
    return `${thisOwner()}-${++this.#holders}-${this.#mark.slice(0, 8)}`;
  }

  isGone(holder: string): boolean {
    return stateOf(holder.split('-').slice(0, 3).join('-')) === 'dead';
  }
}

const UNREAD = Symbol('none of ours');

interface Change {
  readonly gone: string | null;
  readonly come: { readonly name: string; readonly entry: Entry } | null;
}

function apply(known: Map<string, Entry>, { gone, come }: Change): void {
  if (gone !== null) known.delete(gone);
  if (come !== null) known.set(come.name, come.entry);
}

type State = Omit<Entry, 'message'>;

const NAME = /^([0-9a-z]{1,12})-([0-9a-f]{16}),(\d{1,16}),(\d{1,9}),(-|[\d-]+[0-9a-f]{8}@\d{1,16}),(live|dead)$/;

/** `<sent>-<count and chance>,<visible>,<received>,<holder>@<since>,live`; `-` for a holder: nobody has it. */
function formatName({ id, visibleMs, received, held, isDead }: State): string {
  return [id, Math.round(visibleMs), received, held === null ? '-' : `${held.by}@${Math.round(held.sinceMs)}`, isDead ? 'dead' : 'live'].join(',');
}

/** null: none of ours. */
function parseName(name: string): State | null {
  const [, sent = '', chance, visible, received, holder = '-', state] = NAME.exec(name) ?? [];
  if (state === undefined) return null;
  const [by = '', since] = holder.split('@');
  return {
    id: `${sent}-${chance}`,
    sentMs: Number.parseInt(sent, 36),
    visibleMs: Number(visible),
    received: Number(received),
    held: since === undefined ? null : { by, sinceMs: Number(since) },
    isDead: state === 'dead',
  };
}

function unlessGone(error: unknown): false {
  if (hasCode(error, 'ENOENT')) return false;
  throw error;
}

async function guarded<T>(url: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof EngineError) throw error;
    const { code, message } = storeError(url, error);
    throw new EngineError(code === 'ERR_STORE_CONFIG' ? 'ERR_QUEUE_CONFIG' : 'ERR_QUEUE', message, { cause: error });
  }
}
