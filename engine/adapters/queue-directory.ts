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

/** @example const { queue } = await openDirectoryQueue('/var/lib/ruminate/queue', { clock: systemClock }); @throws EngineError ERR_QUEUE_CONFIG, ERR_QUEUE. */
export async function openDirectoryQueue(directory: string, { nowMs = wallClockMs, mustExist = false, ...options }: DirectoryQueueOptions): Promise<OpenedQueue> {
  const url = `file:${directory}`;
  return await guarded(url, async () => {
    const isNew = (await statOf(directory)) === null;
    if (isNew && mustExist) throw new EngineError('ERR_QUEUE_CONFIG', `${url}: there is no such queue.`);
    await makeFolder(directory);
    await removeOlder(directory, LEFT_MS, (name) => name.startsWith(HIDDEN));
    return { queue: new LocalQueue(url, new DirectoryTable(url, directory, nowMs), options), isNew };
  });
}

class DirectoryTable implements EntryTable {
  readonly lookMs = LOOK_MS;
  readonly nowMs: () => number;
  readonly #url: string;
  readonly #directory: string;
  /** As they were at the last look, by name: a long queue is not read again for every message that is taken from it. */
  #known = new Map<string, Entry>();
  /** What messages say, by id: that stays when a name changes. */
  #said = new Map<string, SliceMessage>();
  /** Since before nothing of ours has changed. */
  #looking: Promise<readonly Entry[]> | null = null;
  #holders = 0;
  #sent = 0;

  constructor(url: string, directory: string, nowMs: () => number) {
    this.#url = url;
    this.#directory = directory;
    this.nowMs = nowMs;
  }

  /** Whoever looks while another does sees the same: the slots of a worker that has nothing to do look as one. */
  async list(signal: AbortSignal | undefined): Promise<readonly Entry[]> {
    throwIfCancelled(signal);
    return await unlessCancelled(this.#looking ?? this.#look(), signal);
  }

  #look(): Promise<readonly Entry[]> {
    const looking = guarded(this.#url, async () => {
      for (let lists = 1; ; lists++) {
        const { entries, missed } = await this.#listOnce();
        if (missed === 0 || lists === LISTS_MAX) return entries;
      }
    }).finally(() => {
      if (this.#looking === looking) this.#looking = null;
    });
    return (this.#looking = looking);
  }

  async #listOnce(): Promise<{ readonly entries: readonly Entry[]; readonly missed: number }> {
    const known = new Map<string, Entry>();
    const fresh: (State & { readonly name: string })[] = [];
    for (const name of await readdir(this.#directory)) {
      const entry = this.#known.get(name);
      if (entry !== undefined) known.set(name, entry);
      else {
        const state = parseName(name);
        if (state !== null) fresh.push({ ...state, name });
      }
    }
    const messages = await inParallel(fresh.length, READS_AT_ONCE, undefined, async (i, stop) => {
      const { id, name } = fresh[i] ?? { id: '', name: '' };
      return this.#said.get(id) ?? (await this.#messageOf(name, stop));
    });
    for (const [i, { name, ...state }] of fresh.entries()) {
      const message = messages[i] ?? null;
      if (message !== null) known.set(name, { ...state, message });
    }
    this.#known = known;
    const entries = [...known.values()];
    this.#said = new Map(entries.map(({ id, message }) => [id, message]));
    return { entries, missed: messages.filter((message) => message === null).length };
  }

  /** null: it has another name by now, or is half of one that a power cut has left, and then it goes. */
  async #messageOf(name: string, signal: AbortSignal | undefined): Promise<SliceMessage | null> {
    throwIfCancelled(signal);
    const file = path.join(this.#directory, name);
    const text = await readFile(file, 'utf8').catch(unlessGone);
    if (text === false) return null;
    const message = parseMessage(text);
    if (message === null) await unlink(file).catch(unlessGone);
    return message;
  }

  add({ message, ...state }: Omit<Entry, 'id'>): Promise<void> {
    return guarded(this.#url, async () => {
      // What one process sends within a millisecond stays in order.
      const count = (this.#sent++ & 0xffffff).toString(16).padStart(6, '0');
      const id = `${Math.round(state.sentMs).toString(36)}-${count}${randomBytes(5).toString('hex')}`;
      const draft = path.join(this.#directory, `${HIDDEN}${id}`);
      await writeFile(draft, formatMessage(message), { flag: 'wx' });
      await rename(draft, path.join(this.#directory, formatName({ ...state, id })));
      this.#looking = null;
    });
  }

  swap(from: Entry, to: Entry | null): Promise<boolean> {
    return guarded(this.#url, async () => {
      const file = path.join(this.#directory, formatName(from));
      const done = to === null ? unlink(file) : rename(file, path.join(this.#directory, formatName(to)));
      const isDone = (await done.catch(unlessGone)) !== false;
      if (isDone) this.#looking = null;
      return isDone;
    });
  }

  newHolder(): string {
    return `${thisOwner()}-${++this.#holders}-${randomBytes(4).toString('hex')}`;
  }

  isGone(holder: string): boolean {
    return stateOf(holder.split('-').slice(0, 3).join('-')) === 'dead';
  }
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
