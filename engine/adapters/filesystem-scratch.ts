/**
 * Where the files of a directory store are written before they are linked or renamed into place, and where deleted objects go first.
 * Names are random, so two processes never meet; what a killed process leaves is swept when it is a day old.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rm, stat, type FileHandle } from 'node:fs/promises';
import path from 'node:path';

import { makeFolder } from '../core/disk.ts';
import type { Body } from '../ports/object-store.ts';
import { nullIfGone, syncDirectory } from './filesystem-object.ts';
import { throwIfCancelled } from '../core/waiting.ts';

/** Between two looks at the signal; and no system call takes more than 1,024 pieces at once. */
const WRITE_BYTES = 8 << 20;
/** A writer whose scratch is swept fails and says so, so this is economy, not safety. */
const SWEEP_AFTER_MS = 86_400_000;

/** An object that is whole but not yet anywhere: a directory that can be renamed into place, and in it the file of its first version. */
export interface Draft extends AsyncDisposable {
  readonly directory: string;
  readonly incarnation: string;
  readonly file: string;
}

export class Scratch {
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /** A name in the scratch directory that nothing has. */
  async freshName(): Promise<string> {
    await makeFolder(this.#directory);
    return path.join(this.#directory, randomBytes(16).toString('hex'));
  }

  /** `fill` makes the file. On disk, not only in the page cache, when this returns. */
  async draft(fill: (file: string) => Promise<void>): Promise<Draft> {
    const directory = await this.freshName();
    const incarnation = randomBytes(16).toString('hex');
    const file = path.join(directory, incarnation, '1');
    const remove = () => rm(directory, { recursive: true, force: true });
    try {
      await makeFolder(path.dirname(file));
      await fill(file);
      await syncDirectory(path.dirname(file));
      await syncDirectory(directory);
    } catch (error) {
      await remove().catch(() => undefined);
      throw error;
    }
    return { directory, incarnation, file, [Symbol.asyncDispose]: remove };
  }

  /** By the file system's own clock, which gave both times. */
  async sweep(): Promise<void> {
    const reference = await this.freshName();
    await mkdir(reference);
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
