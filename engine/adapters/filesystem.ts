/**
 * `file:`: objects in a directory of this machine, for any number of processes. filesystem-object.ts says how an object lies there and
 * why conditional writes need no lock; a process killed at any moment leaves every object whole.
 */
import { constants } from 'node:fs';
import { copyFile, open, realpath, rm, type FileHandle } from 'node:fs/promises';
import path from 'node:path';

import { makeFolder, syncFolder } from '../core/disk.ts';
import { EngineError } from '../core/errors.ts';
import { inParallel, throwIfCancelled } from '../core/waiting.ts';
import type {
  Body, CallOptions, GetOptions, ListedObject, ObjectInfo, ObjectStore, PutOptions, PutOutcome, StoredBody,
} from '../ports/object-store.ts';
import { fileSteps, type FileOutcome, type FileStep } from '../runtime/native.ts';
import { bytesOf, wantedOf } from './body.ts';
import { codeOf, nullIfGone, storeError } from './filesystem-errors.ts';
import {
  codeIn, etagOf, failureOf, fileOf, folderOf, look, newest, OBJECT_SUFFIX, SCRATCH, succession, successionOf, type Succession, type Version, versionOf,
} from './filesystem-object.ts';
import { Draft, sweepScratch, writeFileWhole } from './filesystem-scratch.ts';
import { checkKey, checkPrefix } from './keys.ts';
import { probeConditions } from './probe.ts';

/** What is read or written by the call that finds its place, on one thread; more goes in pieces, so that an abort is soon seen. */
const INLINE_BYTES = 1 << 20;
/** One read: large enough that the disk streams, small enough that several are in flight and that an abort is soon seen. */
const READ_BYTES = 8 << 20;
const READS_AT_ONCE = 4;
/** Other writers come first, or prune the folder that was just made, so often only if something else is wrong. */
const TRIES_MAX = 100;
/** Objects of a folder. */
const LOOKS_AT_ONCE = 256;

/** `root` need not exist yet: the first put makes it. @example const store = await openFilesystemStore('/var/kv'); */
export async function openFilesystemStore(root: string): Promise<ObjectStore> {
  const url = `file:${path.resolve(root)}`;
  return await guarded(url, async () => new FilesystemStore(url, await realRoot(path.resolve(root))));
}

class FilesystemStore implements ObjectStore {
  readonly url: string;
  readonly #root: string;

  constructor(url: string, root: string) {
    this.url = url;
    this.#root = root;
  }

  get(key: string, options: GetOptions): Promise<StoredBody | null> {
    return this.#on(key, options, async (object) => {
      const { range, bytesMax, signal } = options;
      for (let tries = 0; tries < TRIES_MAX; tries++) {
        const found = await newest(this.#root, object, range?.offset ?? 0, Math.min(range?.bytes ?? bytesMax, bytesMax, INLINE_BYTES));
        if (found === null) return null;
        const { offset, bytes } = wantedOf(found.size, options, key);
        const etag = etagOf(found);
        if (bytes <= found.bytes.byteLength) return { chunks: bytes === 0 ? [] : [found.bytes.subarray(0, bytes)], bytes, etag };
        const file = await open(path.join(this.#root, fileOf(object, found)), constants.O_RDONLY | constants.O_NOFOLLOW).catch(nullIfGone);
        // Newer ones were written meanwhile.
        if (file === null) continue;
        try {
          return { chunks: await readRange(file, offset, bytes, signal), bytes, etag };
        } finally {
          await file.close();
        }
      }
      throw new EngineError('ERR_STORE', `${key} changed ${TRIES_MAX} times while it was opened.`);
    });
  }

  head(key: string, options: CallOptions = {}): Promise<ObjectInfo | null> {
    return this.#on(key, options, async (object) => {
      const found = await newest(this.#root, object, 0, 0);
      return found === null ? null : { bytes: found.size, etag: etagOf(found) };
    });
  }

  put(key: string, body: Body, options: PutOptions = {}): Promise<PutOutcome> {
    return this.#on(key, options, async (object) => {
      if (bytesOf(body) <= INLINE_BYTES) return await this.#write(object, (file) => ({ call: 'write', path: file, chunks: body }), options);
      return await this.#fromScratch((whole) => writeFileWhole(whole, body, options.signal), (made) => this.#write(object, made, options));
    });
  }

  copy(from: string, to: string, options: CallOptions = {}): Promise<boolean> {
    return this.#on(from, options, (source) => this.#on(to, options, async (target) => {
      const found = await newest(this.#root, source);
      if (found === null) return false;
      const version = fileOf(source, found);
      const write = async (filling: Filling) => {
        await this.#write(target, filling, options);
        return true;
      };
      try {
        // A version never changes, so two objects may share its bytes.
        return await write((file) => ({ call: 'link', path: version, to: file }));
      } catch (error) {
        if (codeOf(error) === 'ENOENT') return false;
        return await this.#fromScratch((whole) => copySynced(path.join(this.#root, version), whole), write).catch((after: unknown) => nullIfGone(after) ?? false);
      }
    }));
  }

  async *list(prefix: string, options: CallOptions = {}): AsyncIterable<ListedObject> {
    checkPrefix(prefix);
    // The deepest folder that holds every key with this prefix.
    const folder = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    try {
      yield* this.#walk(folder, prefix, options.signal);
    } catch (error) {
      throw storeError(this.url, error);
    }
  }

  async delete(keys: readonly string[], options: CallOptions = {}): Promise<void> {
    const folders = new Set<string>();
    for (const key of keys) {
      await this.#on(key, options, async (object) => {
        const grave = new Draft().directory;
        const steps: readonly FileStep[] = [
          // A symbolic link is refused here too, and left as it is.
          { call: 'newest', path: object, offset: 0, bytes: -1, expected: null },
          { call: 'folders', path: SCRATCH }, { call: 'rename', path: object, to: grave }, { call: 'remove', path: grave },
        ];
        const outcome = await fileSteps(this.#root, steps);
        if (outcome.done < steps.length - 1 && codeIn(outcome) === 'ENOENT') return;
        if (outcome.errno !== 0) throw failureOf(outcome, steps.map(({ call }) => call));
        folders.add(folderOf(object));
      });
    }
    await guarded(this.url, async () => {
      for (const folder of folders) {
        const outcome = await fileSteps(this.#root, [{ call: 'sync', path: folder }, { call: 'prune', path: folder }]);
        if (outcome.errno !== 0 && codeIn(outcome) !== 'ENOENT') throw failureOf(outcome, ['sync', 'prune']);
      }
    });
  }

  /** Also sweeps what killed processes left behind. */
  async probe(options: CallOptions = {}): Promise<void> {
    await probeConditions(this, options);
    await guarded(this.url, () => sweepScratch(this.#root));
  }

  /** Makes what `filling` makes the newest version of the object, if the condition allows it. */
  async #write(object: string, filling: Filling, options: PutOptions): Promise<PutOutcome> {
    const { condition, signal } = options;
    const asked = condition?.kind === 'if_match' ? versionOf(condition.etag) : null;
    if (condition?.kind === 'if_match' && asked === null) return { kind: 'refused' };
    const draft = new Draft();
    try {
      for (let tries = 0, seen: Version | null = asked; tries < TRIES_MAX; tries++) {
        throwIfCancelled(signal);
        const outcome = seen === null ? await this.#create(object, draft, filling) : await this.#follow(object, seen, draft, filling);
        if (outcome.kind === 'written') return outcome;
        if (outcome.kind === 'overtaken') {
          // Without a condition it was written just before those: they came after we had looked, so while we were writing.
          if (condition === undefined) return { kind: 'written', etag: outcome.etag };
          return { kind: 'unknown', cause: new Error('Newer versions were written meanwhile.') };
        }
        seen = await newest(this.#root, object);
        if (!holds(options, seen)) return { kind: 'refused' };
      }
      throw new EngineError('ERR_STORE', `Other writers came first ${TRIES_MAX} times.`);
    } finally {
      // What cannot be removed now is swept later.
      if (draft.isLeft) await fileSteps(this.#root, draft.all.map((left) => ({ call: 'remove', path: left }))).catch(() => undefined);
    }
  }

  /** An object where there was none. `taken`: there is one by now, or its folder was pruned at once. */
  async #create(object: string, draft: Draft, filling: Filling): Promise<Succession> {
    const { directory, home, incarnation } = draft;
    const folder = folderOf(object);
    const whole = `${home}/1`;
    const made: readonly FileStep[] = draft.state === 'object' ? [] : [
      look(object, null), { call: 'folders', path: SCRATCH }, { call: 'mkdir', path: directory }, { call: 'mkdir', path: home },
      draft.state === 'file' ? { call: 'rename', path: draft.file, to: whole } : filling(whole),
      { call: 'sync', path: home }, { call: 'sync', path: directory },
    ];
    const steps: readonly FileStep[] = [...made, { call: 'folders', path: folder }, { call: 'rename', path: directory, to: object }, { call: 'sync', path: folder }];
    const outcome = await this.#make(steps);
    const code = codeIn(outcome);
    const placing = outcome.done - made.length;
    draft.isLeft ||= outcome.done >= 2;
    if (placing >= 0) draft.state = 'object';
    if (placing >= 2 && (code === '' || code === 'ENOENT')) {
      draft.isLeft = false;
      return { kind: 'written', etag: etagOf({ incarnation, number: 1 }) };
    }
    if (code === '' || (placing === 0 && code === 'ENOENT') || (placing === 1 && ['ENOTEMPTY', 'EEXIST', 'ENOENT'].includes(code))) return { kind: 'taken' };
    throw failureOf(outcome, steps.map(({ call }) => call));
  }

  /** The version after `seen`. */
  async #follow(object: string, seen: Version, draft: Draft, filling: Filling): Promise<Succession> {
    const { file } = draft;
    // Looked at before, so that what will be refused is not written, and after: there may be much to write.
    const made: readonly FileStep[] = draft.state === 'none' ? [look(object, seen), { call: 'folders', path: SCRATCH }, filling(file), look(object, seen)] : [];
    const steps: readonly FileStep[] = [...made, ...succession(object, seen, file), ...draft.all.map((path): FileStep => ({ call: 'remove', path }))];
    const outcome = await this.#make(steps);
    draft.isLeft = outcome.done < steps.length && (draft.isLeft || outcome.done >= 2);
    if (draft.state === 'none' && outcome.done >= 3) draft.state = 'file';
    if (outcome.done >= made.length) return successionOf(outcome, made.length, seen);
    if (outcome.errno === 0) return { kind: 'taken' };
    throw failureOf(outcome, steps.map(({ call }) => call));
  }

  /** The root itself is made by the first write. */
  async #make(steps: readonly FileStep[]): Promise<FileOutcome> {
    const outcome = await fileSteps(this.#root, steps);
    if (!outcome.rootMissing) return outcome;
    await makeFolder(this.#root);
    await syncFolder(path.dirname(this.#root));
    return await fileSteps(this.#root, steps);
  }

  /** `use` with a filling from a file that `make` makes, in as many calls as it likes. */
  async #fromScratch<T>(make: (file: string) => Promise<void>, use: (filling: Filling) => Promise<T>): Promise<T> {
    const draft = new Draft();
    const whole = path.join(this.#root, draft.file);
    try {
      await makeFolder(path.dirname(whole));
      await make(whole);
      return await use((file) => ({ call: 'rename', path: draft.file, to: file }));
    } finally {
      await rm(whole, { force: true }).catch(() => undefined);
    }
  }

  async *#walk(folder: string, prefix: string, signal: AbortSignal | undefined): AsyncIterable<ListedObject> {
    const listed = await fileSteps(this.#root, [{ call: 'list', path: folder.slice(0, -1) }]);
    if (codeIn(listed) === 'ENOENT') return;
    if (listed.errno !== 0) throw failureOf(listed, [folder]);
    const names = listed.folders.filter((name) => name !== SCRATCH).map((name) => folder + (name.endsWith(OBJECT_SUFFIX) ? name.slice(0, -OBJECT_SUFFIX.length) : `${name}/`));
    // Keys below the folder `a` begin with `a/`, so with that name folders and objects sort as their keys do.
    const wanted = names.filter((name) => name.startsWith(prefix) || (name.endsWith('/') && prefix.startsWith(name))).sort((a, b) => (a < b ? -1 : 1));
    for (let i = 0; i < wanted.length;) {
      throwIfCancelled(signal);
      const name = wanted[i] ?? '';
      if (name.endsWith('/')) {
        yield* this.#walk(name, prefix, signal);
        i++;
        continue;
      }
      const end = wanted.findIndex((other, j) => j >= i && (other.endsWith('/') || j === i + LOOKS_AT_ONCE));
      const objects = wanted.slice(i, end < 0 ? undefined : end);
      const looked = await fileSteps(this.#root, objects.map((object): FileStep => ({ call: 'newest', path: object + OBJECT_SUFFIX, offset: 0, bytes: 0, expected: null })));
      if (looked.errno !== 0) throw failureOf(looked, objects);
      for (const [j, found] of looked.found.entries()) if (found !== null) yield { key: objects[j] ?? '', bytes: found.size, writtenAtMs: found.modifiedMs };
      i += objects.length;
    }
  }

  /** `work` with the object's path, in the language of the port: checked keys, coded errors. */
  #on<T>(key: string, { signal }: CallOptions, work: (object: string) => Promise<T>): Promise<T> {
    return guarded(this.url, async () => {
      checkKey(key);
      throwIfCancelled(signal);
      return await work(key + OBJECT_SUFFIX);
    });
  }
}

/** The step that makes a file. */
type Filling = (file: string) => FileStep;

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
