/**
 * `file:`: objects in a directory of this machine, for any number of processes. filesystem-object.ts says how an object lies there and
 * why conditional writes need no lock; a process killed at any moment leaves every object whole.
 */
import { copyFile, link, mkdir, open, readdir, realpath, rename, rmdir, stat, type FileHandle } from 'node:fs/promises';
import path from 'node:path';

import { makeFolder } from '../core/disk.ts';
import { EngineError } from '../core/errors.ts';
import type {
  Body, CallOptions, GetOptions, ListedObject, ObjectInfo, ObjectStore, PutOptions, PutOutcome, StoredBody,
} from '../ports/object-store.ts';
import { wantedOf } from './body.ts';
import { codeOf, storeError } from './filesystem-errors.ts';
import { etagOf, newest, nullIfGone, OBJECT_SUFFIX, refuseSymlinks, removeObject, succeed, syncDirectory, withNewest, type Version } from './filesystem-object.ts';
import { Scratch, writeFileWhole, type Draft } from './filesystem-scratch.ts';
import { checkKey, checkPrefix } from './keys.ts';
import { probeConditions } from './probe.ts';
import { inParallel, throwIfCancelled } from '../core/waiting.ts';

const SCRATCH = `${OBJECT_SUFFIX}tmp`;
/** One read: large enough that the disk streams, small enough that several are in flight and that an abort is soon seen. */
const READ_BYTES = 8 << 20;
const READS_AT_ONCE = 4;
/** Other writers come first, or prune the folder that was just made, so often only if something else is wrong. */
const TRIES_MAX = 100;

/** `root` need not exist yet: the first put makes it. @example const store = await openFilesystemStore('/var/kv'); */
export async function openFilesystemStore(root: string): Promise<ObjectStore> {
  const url = `file:${path.resolve(root)}`;
  return await guarded(url, async () => new FilesystemStore(url, await realRoot(path.resolve(root))));
}

class FilesystemStore implements ObjectStore {
  readonly url: string;
  readonly #root: string;
  readonly #scratch: Scratch;

  constructor(url: string, root: string) {
    this.url = url;
    this.#root = root;
    this.#scratch = new Scratch(path.join(root, SCRATCH));
  }

  get(key: string, options: GetOptions): Promise<StoredBody | null> {
    return this.#on(key, options, async (directory, isThere) => !isThere ? null : await withNewest(directory, async (file, version) => {
      const { offset, bytes } = wantedOf((await file.stat()).size, options, key);
      return { chunks: await readRange(file, offset, bytes, options.signal), bytes, etag: etagOf(version) };
    }));
  }

  head(key: string, options: CallOptions = {}): Promise<ObjectInfo | null> {
    return this.#on(key, options, async (directory, isThere) => !isThere ? null : await withNewest(directory, async (file, version) => ({ bytes: (await file.stat()).size, etag: etagOf(version) })));
  }

  put(key: string, body: Body, options: PutOptions = {}): Promise<PutOutcome> {
    return this.#on(key, options, async (directory, isThere) => {
      // What is refused in the end is seldom refused from the beginning; who makes what is there already may have much to write.
      const isRefused = isThere ? options.condition?.kind === 'if_absent' && (await newest(directory)) !== null : options.condition?.kind === 'if_match';
      if (isRefused) return { kind: 'refused' };
      const draft = await this.#scratch.draft(!isThere, (file) => writeFileWhole(file, body, options.signal));
      return await this.#place(directory, isThere, draft, options);
    });
  }

  copy(from: string, to: string, options: CallOptions = {}): Promise<boolean> {
    return this.#on(from, options, (source) => this.#on(to, options, async (target, isThere) => {
      const copied = await withNewest(source, async (_, version) => {
        // A version never changes, so two objects may share its bytes.
        const draft = await this.#scratch.draft(!isThere, (file) => link(version.file, file).catch(() => copySynced(version.file, file)));
        await this.#place(target, isThere, draft, options);
        return true;
      }).catch(nullIfGone);
      return copied ?? false;
    }));
  }

  async *list(prefix: string, options: CallOptions = {}): AsyncIterable<ListedObject> {
    checkPrefix(prefix);
    // The deepest folder that holds every key with this prefix.
    const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    try {
      await refuseSymlinks(path.resolve(this.#root, folder));
      yield* this.#walk(folder, prefix, options.signal);
    } catch (error) {
      throw storeError(this.url, error);
    }
  }

  async delete(keys: readonly string[], options: CallOptions = {}): Promise<void> {
    const parents = new Set<string>();
    for (const key of keys) {
      await this.#on(key, options, async (directory, isThere) => {
        if (!isThere) return;
        const grave = await this.#scratch.fresh(async (name) => {
          await rename(directory, name);
          return name;
        }).catch(nullIfGone);
        if (grave === null) return;
        await removeObject(grave);
        parents.add(path.dirname(directory));
      });
    }
    await guarded(this.url, async () => {
      for (const parent of parents) await this.#syncAndPrune(parent);
    });
  }

  /** Also sweeps what killed processes left behind. */
  async probe(options: CallOptions = {}): Promise<void> {
    await probeConditions(this, options);
    await guarded(this.url, () => this.#scratch.sweep());
  }

  /** Makes the draft the newest version of the object, if the condition allows it. Nothing is left of it elsewhere. @param isThere else it is to be made: whether it is there by now, that will say. */
  async #place(directory: string, isThere: boolean, draft: Draft, options: PutOptions): Promise<PutOutcome> {
    let [own, isPlaced] = [draft, false];
    try {
      for (let tries = 0; tries < TRIES_MAX; tries++) {
        throwIfCancelled(options.signal);
        const current = isThere || tries > 0 ? await newest(directory) : null;
        if (!holds(options, current)) return { kind: 'refused' };
        if (current === null) {
          const { object } = (own = await this.#scratch.asObject(own));
          isPlaced = await this.#create(directory, object.directory);
          if (isPlaced) return { kind: 'written', etag: etagOf({ incarnation: object.incarnation, number: 1 }) };
        } else {
          const outcome = await succeed(directory, current, own.file);
          if (outcome.kind === 'written') return outcome;
          if (outcome.kind === 'overtaken') {
            // Without a condition it was written just before those: they came after we had looked, so while we were writing.
            if (options.condition === undefined) return { kind: 'written', etag: outcome.etag };
            return { kind: 'unknown', cause: new Error('Newer versions were written meanwhile.') };
          }
        }
      }
      throw new EngineError('ERR_STORE', `Other writers came first ${TRIES_MAX} times.`);
    } finally {
      if (!isPlaced) await this.#scratch.discard(own);
    }
  }

  /** false: the object is there, or its folder was pruned meanwhile. */
  async #create(directory: string, draft: string): Promise<boolean> {
    const folder = path.dirname(directory);
    const isPlaced = async () => await rename(draft, directory).then(() => true, (error: unknown) => {
      if (['ENOTEMPTY', 'EEXIST'].includes(codeOf(error))) return false;
      return nullIfGone(error);
    });
    let placed = await isPlaced();
    if (placed === null) {
      // The folder was never made, or pruned; or the draft is gone, and then stat says so.
      await stat(draft);
      await this.#makeFolder(folder);
      placed = await isPlaced();
    }
    if (placed === true) await syncDirectory(folder).catch(nullIfGone);
    return placed === true;
  }

  /** With those above it. Each is on disk in the one above it when this returns. */
  async #makeFolder(folder: string): Promise<void> {
    const above = path.dirname(folder);
    const isMade = async () => await (folder === this.#root ? makeFolder(folder) : mkdir(folder)).then(() => true, (error: unknown) => {
      if (codeOf(error) === 'EEXIST') return true;
      return nullIfGone(error);
    });
    if ((await isMade()) === null && folder !== this.#root) {
      await this.#makeFolder(above);
      // Pruned at once: whoever asked for it looks again.
      await isMade();
    }
    await syncDirectory(above).catch(nullIfGone);
  }

  async #syncAndPrune(folder: string): Promise<void> {
    await syncDirectory(folder).catch(nullIfGone);
    for (let at = folder; at !== this.#root; at = path.dirname(at)) {
      if (!(await rmdir(at).then(() => true, () => false))) return;
    }
  }

  async *#walk(folder: string, prefix: string, signal: AbortSignal | undefined): AsyncIterable<ListedObject> {
    const directory = path.join(this.#root, folder);
    const entries = (await readdir(directory, { withFileTypes: true }).catch(nullIfGone)) ?? [];
    const folders = entries.filter((entry) => entry.isDirectory() && entry.name !== SCRATCH);
    const names = folders.map(({ name }) => folder + (name.endsWith(OBJECT_SUFFIX) ? name.slice(0, -OBJECT_SUFFIX.length) : `${name}/`));
    // Keys below the folder `a` begin with `a/`, so with that name folders and objects sort as their keys do.
    for (const name of names.sort((a, b) => (a < b ? -1 : 1))) {
      throwIfCancelled(signal);
      if (name.endsWith('/')) {
        if (name.startsWith(prefix) || prefix.startsWith(name)) yield* this.#walk(name, prefix, signal);
      } else if (name.startsWith(prefix)) {
        const found = await withNewest(path.join(this.#root, name + OBJECT_SUFFIX), (file) => file.stat());
        if (found !== null) yield { key: name, bytes: found.size, writtenAtMs: found.mtimeMs };
      }
    }
  }

  /** `work` with the directory of the object, in the language of the port: checked keys, coded errors. */
  #on<T>(key: string, { signal }: CallOptions, work: (directory: string, isThere: boolean) => Promise<T>): Promise<T> {
    return guarded(this.url, async () => {
      checkKey(key);
      throwIfCancelled(signal);
      const directory = path.join(this.#root, key) + OBJECT_SUFFIX;
      return await work(directory, await this.#isThere(directory));
    });
  }

  /** Refuses what leads out of the root, by the deepest part of the path that exists: what does not exist leads nowhere. */
  async #isThere(directory: string): Promise<boolean> {
    for (let at = directory; at !== this.#root; at = path.dirname(at)) {
      const real = await realpath(at).catch(nullIfGone);
      if (real !== null && real !== at) await refuseSymlinks(at);
      if (real !== null) return at === directory;
    }
    return false;
  }
}

function holds({ condition }: PutOptions, current: Version | null): boolean {
  if (condition === undefined) return true;
  if (condition.kind === 'if_absent') return current === null;
  return current !== null && etagOf(current) === condition.etag;
}

async function readRange(file: FileHandle, offset: number, bytes: number, signal: AbortSignal | undefined): Promise<Body> {
  return await inParallel(Math.ceil(bytes / READ_BYTES), READS_AT_ONCE, signal, async (i, either) => {
    throwIfCancelled(either);
    // Not zeroed: every byte is read or the call fails.
    const chunk = Buffer.allocUnsafeSlow(Math.min(READ_BYTES, bytes - i * READ_BYTES));
    for (let at = 0; at < chunk.byteLength; ) {
      const { bytesRead } = await file.read(chunk, at, chunk.byteLength - at, offset + i * READ_BYTES + at);
      if (bytesRead === 0) throw new EngineError('ERR_STORE', 'A stored file became shorter while it was read.');
      at += bytesRead;
    }
    return chunk;
  });
}

async function copySynced(from: string, to: string): Promise<void> {
  await copyFile(from, to);
  const handle = await open(to, 'r+');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** The root as the system sees it: symbolic links above and at the root are the owner's choice, below it there are none. */
async function realRoot(root: string): Promise<string> {
  const real = await realpath(root).catch(nullIfGone);
  return real ?? path.join(await realRoot(path.dirname(root)), path.basename(root));
}

async function guarded<T>(url: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw storeError(url, error);
  }
}
