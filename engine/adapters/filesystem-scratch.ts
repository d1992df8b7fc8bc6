/**
 * Where the files of a directory store are written before they are linked or renamed into place, and where deleted objects go first.
 * Names are random, so two processes never meet; what a killed process leaves is swept when it is a day old.
 */
import { randomUUID } from 'node:crypto';
import { open, readdir, rm, stat, type FileHandle } from 'node:fs/promises';
import path from 'node:path';

import { makeFolder } from '../core/disk.ts';
import type { Body } from '../ports/object-store.ts';
import { nullIfGone } from './filesystem-errors.ts';
import { SCRATCH } from './filesystem-object.ts';
import { throwIfCancelled } from '../core/waiting.ts';

/** Between two looks at the signal; and no system call takes more than 1,024 pieces at once. */
const WRITE_BYTES = 8 << 20;
/** A writer whose scratch is swept fails and says so, so this is economy, not safety. */
const SWEEP_AFTER_MS = 86_400_000;

/** 122 random bits, of which Node keeps many at hand: asking the system for 16 bytes takes as long as a small read. */
const freshName = (): string => randomUUID().replaceAll('-', '');

/** Of one write: a version that is whole but not yet anywhere. Paths are those of steps. */
export class Draft {
  readonly #name = `${SCRATCH}/${freshName()}`;
  readonly incarnation = freshName();
  /** How much of it is there: nothing, a file, or an object whose first version is that file. */
  state: 'none' | 'file' | 'object' = 'none';
  /** Something of it may be left in the scratch directory. */
  isLeft = false;

  /** Of the version. */
  get file(): string {
    return this.state === 'object' ? `${this.home}/1` : this.#name;
  }

  /** For one rename into place. */
  get directory(): string {
    return `${this.#name}-object`;
  }

  get home(): string {
    return `${this.directory}/${this.incarnation}`;
  }

  get all(): readonly string[] {
    return [this.#name, this.directory];
  }
}

/** Removes what is a day old. By the file system's own clock, which gave both times. @param root of the store. */
export async function sweepScratch(root: string): Promise<void> {
  const scratch = path.join(root, SCRATCH);
  const reference = path.join(scratch, freshName());
  await makeFolder(reference);
  const nowMs = (await stat(reference)).mtimeMs;
  await rm(reference, { recursive: true });
  for (const name of await readdir(scratch)) {
    const left = path.join(scratch, name);
    const info = await stat(left).catch(nullIfGone);
    if (info !== null && nowMs - info.mtimeMs > SWEEP_AFTER_MS) await rm(left, { recursive: true, force: true });
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
