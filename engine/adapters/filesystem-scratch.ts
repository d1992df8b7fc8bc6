/**
 * Where the files of a directory store are written before they are linked or renamed into place, and where deleted objects go first.
 * Names are random, so two processes never meet; what a killed process leaves is swept when it is a day old.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat, unlink, type FileHandle } from 'node:fs/promises';
import path from 'node:path';

import { makeFolder } from '../core/disk.ts';
import type { Body } from '../ports/object-store.ts';
import { nullIfGone, removeObject, syncDirectory } from './filesystem-object.ts';
import { throwIfCancelled } from '../core/waiting.ts';

/** Between two looks at the signal; and no system call takes more than 1,024 pieces at once. */
const WRITE_BYTES = 8 << 20;
/** A writer whose scratch is swept fails and says so, so this is economy, not safety. */
const SWEEP_AFTER_MS = 86_400_000;

/** The file of a version that is whole but not yet anywhere. */
export interface Draft {
  readonly file: string;
  /** A directory that can be renamed into place, if the file is in one: as the first version of an object. */
  readonly object: { readonly directory: string; readonly incarnation: string } | null;
}

export class Scratch {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** `make` with a name in the scratch directory that nothing has. That directory is made when it is missed, not asked for each time. */
  async fresh<T>(make: (name: string) => Promise<T>): Promise<T> {
    const name = path.join(this.#directory, randomBytes(16).toString('hex'));
    return await make(name).catch(async (error: unknown) => {
      nullIfGone(error);
      await makeFolder(this.#directory);
      return await make(name);
    });
  }

  /** `fill` makes the file. On disk, not only in the page cache, when this returns. @param asObject there is none yet of which it could be a version. */
  async draft(asObject: boolean, fill: (file: string) => Promise<void>): Promise<Draft> {
    if (asObject) return await this.#object(fill);
    return await this.fresh(async (file) => {
      await fill(file).catch(async (error: unknown) => await this.#failed(file, error));
      return { file, object: null };
    });
  }

  /** The same draft as an object: what it was before is gone. */
  async asObject(draft: Draft): Promise<Draft & { readonly object: NonNullable<Draft['object']> }> {
    const { object } = draft;
    return object === null ? await this.#object((file) => rename(draft.file, file)) : { ...draft, object };
  }

  async discard({ file, object }: Draft): Promise<void> {
    if (object === null) await unlink(file).catch(nullIfGone);
    else await removeObject(object.directory);
  }

  async #object(fill: (file: string) => Promise<void>): Promise<Draft & { readonly object: NonNullable<Draft['object']> }> {
    const incarnation = randomBytes(16).toString('hex');
    return await this.fresh(async (directory) => {
      const home = path.join(directory, incarnation);
      const file = path.join(home, '1');
      await mkdir(directory);
      try {
        await mkdir(home);
        await fill(file);
        await syncDirectory(home);
        await syncDirectory(directory);
      } catch (error) {
        return await this.#failed(directory, error);
      }
      return { file, object: { directory, incarnation } };
    });
  }

  async #failed(left: string, error: unknown): Promise<never> {
    await rm(left, { recursive: true, force: true }).catch(() => undefined);
    throw error;
  }

  /** By the file system's own clock, which gave both times. */
  async sweep(): Promise<void> {
    const reference = await this.fresh(async (name) => {
      await mkdir(name);
      return name;
    });
    const nowMs = (await stat(reference)).mtimeMs;
    await rm(reference, { recursive: true });
    for (const name of await readdir(this.#directory)) {
      const left = path.join(this.#directory, name);
      const info = await stat(left).catch(nullIfGone);
      if (info !== null && nowMs - info.mtimeMs > SWEEP_AFTER_MS) await rm(left, { recursive: true, force: true });
    }
  }
}

/** Synced. The file must not exist. */
export async function writeFileWhole(file: string, body: Body, signal: AbortSignal | undefined): Promise<void> {
  const handle = await open(file, 'wx');
  try {
    for (const chunk of body) {
      for (let at = 0; at < chunk.byteLength; at += WRITE_BYTES) {
        throwIfCancelled(signal);
        await writeAll(handle, chunk.subarray(at, at + WRITE_BYTES));
      }
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.byteLength; ) at += (await handle.write(bytes, at)).bytesWritten;
}
