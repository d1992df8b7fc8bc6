/**
 * Who uses what of the cache, and who is deleting from it, as files, so that any number of processes agree without a lock.
 * A user writes its pin and then looks for evictions; an eviction writes its mark and then looks for pins. Whichever of the two comes
 * second sees the other: the eviction leaves alone what is pinned, the user waits until the eviction is over. A kill leaves a file
 * whose owner is dead, which counts for nothing.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fresh, hasCode, namesIn, remove, statOf, writeWhole } from '../core/disk.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { stateOf, thisOwner } from '../core/owner.ts';

const POLL_MS = 20;

export interface Pinned {
  /** By digest of the card. */
  readonly snapshots: ReadonlySet<string>;
  /** By SHA-256. */
  readonly blobs: ReadonlySet<string>;
}

export interface PinnedThings {
  readonly snapshots: readonly string[];
  readonly blobs: readonly string[];
}

export class Pins {
  readonly #pins: string;
  readonly #evictions: string;

  constructor(root: string) {
    this.#pins = join(root, 'pins');
    this.#evictions = join(root, 'evictions');
  }

  /**
   * From its return until it is disposed (or this process ends) none of these is deleted, if it is there; look only then.
   * @throws EngineError ERR_MODEL_CACHE if an eviction does not end.
   */
  async pin(things: PinnedThings, signal?: AbortSignal): Promise<AsyncDisposable> {
    const path = join(this.#pins, `${thisOwner()}~${fresh()}`);
    await writeWhole(path, JSON.stringify(things));
    try {
      await this.#evictionsOver(signal);
    } catch (error) {
      await remove(path);
      throw error;
    }
    return { [Symbol.asyncDispose]: () => remove(path) };
  }

  /** Runs `work` with all that must stay. */
  async evict<T>(work: (pinned: Pinned) => Promise<T>): Promise<T> {
    const path = join(this.#evictions, `${thisOwner()}~${fresh()}`);
    await writeWhole(path, '');
    try {
      return await work(await this.#pinned());
    } finally {
      await remove(path);
    }
  }

  async #evictionsOver(signal: AbortSignal | undefined): Promise<void> {
    const end = performance.now() + LIMITS.EVICTION_MS_MAX;
    for (;;) {
      if ((await liveIn(this.#evictions)).length === 0) return;
      if (performance.now() > end) {
        throw new EngineError('ERR_MODEL_CACHE', `Another process has been deleting from the cache for ${LIMITS.EVICTION_MS_MAX / 1_000} s: see ${this.#evictions}.`);
      }
      signal?.throwIfAborted();
      await sleep(POLL_MS);
    }
  }

  async #pinned(): Promise<Pinned> {
    const snapshots = new Set<string>();
    const blobs = new Set<string>();
    for (const name of await liveIn(this.#pins)) {
      const things = await readPin(join(this.#pins, name));
      for (const snapshot of things.snapshots) snapshots.add(snapshot);
      for (const blob of things.blobs) blobs.add(blob);
    }
    return { snapshots, blobs };
  }
}

async function readPin(path: string): Promise<PinnedThings> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as PinnedThings;
  } catch (error) {
    // Unpinned since the folder was read.
    if (hasCode(error, 'ENOENT')) return { snapshots: [], blobs: [] };
    throw new EngineError('ERR_MODEL_CACHE', `${path} is not a pin; remove it if no process uses the cache.`, { cause: error });
  }
}

/** Names whose owner lives; those of the dead are removed, so that a process id that comes again finds nothing. */
async function liveIn(folder: string): Promise<string[]> {
  const live: string[] = [];
  for (const name of await namesIn(folder)) {
    // Half a write of a process that may have been killed in it: not a pin yet.
    if (name.endsWith('.tmp')) continue;
    const written = await statOf(join(folder, name));
    if (written === null) continue;
    const state = stateOf(name.split('~')[0] ?? '');
    if (state === 'alive' || (state === 'foreign' && Date.now() - written.modifiedMs < LIMITS.FOREIGN_OWNER_MS)) live.push(name);
    else await remove(join(folder, name));
  }
  return live;
}
