/** From a source into the cache: list, fetch ranges in parallel, verify every file by its digest, link them into a directory. */
import { symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type Clock, systemClock } from '../core/clock.ts';
import { fresh, makeFolder, remove } from '../core/disk.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { ModelListing, ModelSource, SourceFile } from '../ports/model-source.ts';
import { type Card, NAME_PATTERN, REVISION_PATTERN, parseCard } from './card.ts';
import { type Linked, type ModelCache, digestOfCard, onDisk } from './cache.ts';
import { cardText, describe } from './describe.ts';
import { makeRoom } from './evict.ts';
import { Fetcher } from './fetcher.ts';
import { inFetchOrder, modelFiles } from './files.ts';
import type { PinnedThings } from './pins.ts';

/** Evictions that take what was just fetched: more in a row mean that the cache is too small for what is done with it. */
const TRIES_MAX = 3;

export interface PullOptions {
  /** Which variants, by name; default: all. */
  readonly variants?: ((card: Card) => readonly string[]) | undefined;
  readonly onProgress?: ((progress: PullProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Default: LIMITS.TRANSFER_MS_MAX. What was fetched is kept. */
  readonly deadlineMs?: number | undefined;
  /** Tests pass smaller ones. */
  readonly rangeBytes?: number | undefined;
  readonly clock?: Clock | undefined;
}

/** `fetch`: bytes are on their way, and files that are whole are verified meanwhile; `verify`: only that is left. */
export type PullPhase = 'resolve' | 'fetch' | 'verify' | 'done';

export interface PullProgress {
  readonly phase: PullPhase;
  readonly files: readonly FileProgress[];
}

export interface FileProgress {
  readonly path: string;
  readonly bytes: number;
  /** On this disk, whoever brought them. */
  readonly doneBytes: number;
  /** `peer`: another process is fetching it. */
  readonly state: 'waiting' | 'fetching' | 'peer' | 'verifying' | 'done';
}

export interface PullResult {
  /** Of model.json: the name of the snapshot. */
  readonly digest: string;
  readonly directory: string;
  readonly card: Card;
  readonly timing: PullTiming;
}

export interface PullTiming {
  readonly resolve_ms: number;
  /** Wall time; hashing runs beside it. */
  readonly fetch_ms: number;
  /** What hashing and linking took after the last byte was there. */
  readonly verify_ms: number;
  /** What came over the wire in this pull; the rest was in the cache. */
  readonly fetched_bytes: number;
  readonly bytes: number;
}

/**
 * The model is in use (never evicted) until the pin that `pull` returns beside the result is disposed.
 * @throws EngineError ERR_MODEL_FILE (a file is not what its digest says, or too short), ERR_MODEL_CONFIG, ERR_MODEL_NOT_FOUND,
 * ERR_MODEL_CACHE, ERR_STORE, ERR_STORE_CONFIG, ERR_CANCELLED.
 */
export async function pull(cache: ModelCache, source: ModelSource, options: PullOptions = {}): Promise<PullResult & { readonly pin: AsyncDisposable }> {
  const clock = options.clock ?? systemClock;
  using deadline = clock.timeout(options.deadlineMs ?? LIMITS.TRANSFER_MS_MAX);
  const signal = options.signal === undefined ? deadline.signal : AbortSignal.any([options.signal, deadline.signal]);
  try {
    return await onDisk(cache, () => new Pull(cache, source, options, clock, signal).run());
  } catch (error) {
    if (options.signal?.aborted) {
      throw new EngineError('ERR_CANCELLED', `The pull of ${source.url} was stopped; the next one goes on where it was.`, { cause: error });
    }
    if (deadline.signal.aborted) {
      throw new EngineError('ERR_STORE', `The pull of ${source.url} was not done in time; the next one goes on where it was.`, { cause: error });
    }
    throw error;
  }
}

class Pull {
  readonly #cache: ModelCache;
  readonly #source: ModelSource;
  readonly #options: PullOptions;
  readonly #clock: Clock;
  readonly #signal: AbortSignal;

  constructor(cache: ModelCache, source: ModelSource, options: PullOptions, clock: Clock, signal: AbortSignal) {
    this.#cache = cache;
    this.#source = source;
    this.#options = options;
    this.#clock = clock;
    this.#signal = signal;
  }

  async run(): Promise<PullResult & { readonly pin: AsyncDisposable }> {
    const start = this.#clock.nowMs();
    this.#options.onProgress?.({ phase: 'resolve', files: [] });
    const listing = await this.#source.list({ signal: this.#signal });
    checkListing(listing, this.#source.url);
    const published = listing.card === null ? null : parseCard(listing.card, this.#source.url);
    const wanted = published === null
      ? modelFiles(listing.files, null, this.#source.url)
      : filesOf(published, this.#options.variants?.(published) ?? Object.keys(published.variants));
    const files = inFetchOrder(wanted);
    const resolved = this.#clock.nowMs();

    // Before anything is looked for: what is found then stays.
    await using _held = await this.#cache.pins.pin(thingsOf(listing.card, files), this.#signal);
    const fetcher = new Fetcher(this.#cache, this.#source, files, { ...this.#options, signal: this.#signal, clock: this.#clock });
    const missing = await fetcher.missingBytes();
    if (missing > 0) await makeRoom(this.#cache, missing);
    for (let tries = 1; ; tries++) {
      const blobs = await fetcher.run();
      const card = published ?? (await this.#describe(listing, files, blobs));
      const text = listing.card ?? cardText(card);
      const pin = await this.#cache.pins.pin({ snapshots: [digestOfCard(text)], blobs: [...blobs.values()] }, this.#signal);
      try {
        // Files that a source names by git's digest were not pinned while they came: an eviction may have taken them again.
        if ((await fetcher.missingBytes()) > 0 && tries < TRIES_MAX) {
          await pin[Symbol.asyncDispose]();
          continue;
        }
        const directory = await this.#link(card, text, files, blobs, listing.revision);
        this.#options.onProgress?.({ phase: 'done', files: fetcher.picture() });
        const timing = {
          resolve_ms: resolved - start,
          fetch_ms: fetcher.fetchedAtMs - resolved,
          verify_ms: this.#clock.nowMs() - fetcher.fetchedAtMs,
          fetched_bytes: fetcher.fetchedBytes,
          bytes: files.reduce((sum, file) => sum + file.bytes, 0),
        };
        return { digest: digestOfCard(text), directory, card, timing, pin };
      } catch (error) {
        await pin[Symbol.asyncDispose]();
        throw error;
      }
    }
  }

  /** In a directory of links that nobody else sees: the card is made from what the files say. */
  async #describe(listing: ModelListing, files: readonly SourceFile[], blobs: ReadonlyMap<string, string>): Promise<Card> {
    const folder = join(this.#cache.root, 'staging', fresh());
    await makeFolder(folder);
    try {
      for (const { path } of files) await symlink(this.#cache.blobPath(blobs.get(path) ?? ''), join(folder, path));
      const entries = files.map(({ path, bytes }) => ({ path, bytes, sha256: blobs.get(path) ?? '' }));
      return await describe(folder, { ...listing, source: this.#source.url, files: entries });
    } finally {
      await remove(folder);
    }
  }

  async #link(card: Card, text: string, files: readonly SourceFile[], blobs: ReadonlyMap<string, string>, revision: string | null): Promise<string> {
    const fetched = new Set(files.map(({ path }) => path));
    const folders = new Map<string, Linked[]>([['', linked(card.files ?? [])]]);
    for (const { directory, files: listed } of Object.values(card.variants)) {
      const path = (file: string) => (blobs.has(`${directory}/${file}`) ? `${directory}/${file}` : file);
      if (listed.every((file) => fetched.has(path(file.path)))) folders.set(directory, linked(listed));
    }
    return await this.#cache.addSnapshot(text, folders, { url: this.#source.url, revision });
  }
}

function thingsOf(card: string | null, files: readonly SourceFile[]): PinnedThings {
  return {
    snapshots: card === null ? [] : [digestOfCard(card)],
    blobs: files.filter(({ digest }) => digest.algorithm === 'sha256').map(({ digest }) => digest.hex),
  };
}

const linked = (files: NonNullable<Card['files']>): Linked[] => files.map(({ path, sha256 }) => ({ path, sha256 }));

/** What a card says of some of its variants, and of what they share. */
export function filesOf(card: Card, variants: readonly string[]): SourceFile[] {
  const of = (folder: string, files: NonNullable<Card['files']>) =>
    files.map(({ path, bytes, sha256 }): SourceFile => ({ path: `${folder}${path}`, bytes, digest: { algorithm: 'sha256', hex: sha256 } }));
  return [...of('', card.files ?? []), ...variants.flatMap((name) => {
    const variant = Object.hasOwn(card.variants, name) ? card.variants[name] : undefined;
    if (variant === undefined) {
      throw new EngineError('ERR_MODEL_NOT_FOUND', `${card.name} has no variant ${JSON.stringify(name)}; it has: ${Object.keys(card.variants).join(', ')}.`);
    }
    return of(`${variant.directory}/`, variant.files);
  })];
}

/** Everything from a source is hostile until it is checked. */
function checkListing({ name, revision }: ModelListing, url: string): void {
  if (!NAME_PATTERN.test(name)) {
    throw new EngineError('ERR_MODEL_FILE', `${url} calls its model ${JSON.stringify(name.slice(0, 80))}, which is no name.`);
  }
  if (revision !== null && !REVISION_PATTERN.test(revision)) {
    throw new EngineError('ERR_MODEL_FILE', `${url} has a revision ${JSON.stringify(revision.slice(0, 80))}, which is no name.`);
  }
}
