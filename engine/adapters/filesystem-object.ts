/**
 * One object of a directory: versions that never change, of which the one with the highest number counts.
 *
 *   HEAD#/                      the object `HEAD`; appears and vanishes whole, by rename
 *     3f9a0c…/                  its incarnation: a random name, so that an object created again has none of the old paths
 *       17                      version 17: plain bytes, linked here whole
 *
 * Why this is a compare-and-swap without any lock:
 * - Version n+1 is made by link(2), which fails if the name exists: of all who saw n, one gets n+1.
 * - The highest version is never removed (but with the whole incarnation), so the highest number never falls.
 * - Older versions are removed, so a writer who slept may find n+1 free again although n+2 and more have been. Its link then makes a file
 *   below the highest, which nobody reads; and it looks before it says `written`: if the highest is its own number, no higher one was ever
 *   there, so its number had never been given away. If not, the answer is `unknown`.
 * - A name is read as the highest only once in its life, so (incarnation, number) is an etag that is never used twice.
 * - A writer who slept through a delete finds the incarnation's path gone, even if the object exists again.
 * - Whoever is killed at any moment leaves a whole version or none; what lies in the scratch directory is swept later.
 * Looking is one readdir of a handful of names: one system call, which the kernel serves under the directory's lock.
 */
import { constants } from 'node:fs';
import { link, open, readdir, realpath, rm, rmdir, unlink, type FileHandle } from 'node:fs/promises';
import path from 'node:path';

import { EngineError } from '../core/errors.ts';
import { codeOf } from './filesystem-errors.ts';

export const OBJECT_SUFFIX = '#';

/** Kept below the newest, so that a reader who has just seen it still finds it. */
const VERSIONS_BEHIND = 1;
/** A reader is overtaken only by a writer who commits between its readdir and its open; this often in a row it is something else. */
const OVERTAKEN_MAX = 100;

export interface Version {
  readonly incarnation: string;
  readonly number: number;
  readonly file: string;
}

export function etagOf({ incarnation, number }: Pick<Version, 'incarnation' | 'number'>): string {
  return `${incarnation}-${number}`;
}

/** The version that counts. null: there is no such object. */
export async function newest(directory: string): Promise<Version | null> {
  for (let tries = 0; tries < OVERTAKEN_MAX; tries++) {
    const incarnation = await onlyChild(directory);
    if (incarnation === null) return null;
    const number = await highest(path.join(directory, incarnation));
    if (number !== null) return { incarnation, number, file: path.join(directory, incarnation, String(number)) };
  }
  // Somebody deleted its files: it is not there, whatever the folder says.
  return null;
}

/** Runs `use` on the open file of the version that counts. null: there is no such object. */
export async function withNewest<T>(directory: string, use: (file: FileHandle, version: Version) => Promise<T>): Promise<T | null> {
  for (let tries = 0; tries < OVERTAKEN_MAX; tries++) {
    const version = await newest(directory);
    if (version === null) return null;
    const file = await open(version.file, constants.O_RDONLY | constants.O_NOFOLLOW).catch(nullIfGone);
    if (file === null) continue;
    try {
      return await use(file, version);
    } finally {
      await file.close();
    }
  }
  throw new EngineError('ERR_STORE', `${directory} changed ${OVERTAKEN_MAX} times while it was opened.`);
}

export type Succession = { readonly kind: 'written'; readonly etag: string } | { readonly kind: 'overtaken'; readonly etag: string } | { readonly kind: 'taken' };

/**
 * Makes the file at `scratch` the version after `seen`. `taken`: another writer was first, or the object is gone. `overtaken`: it was
 * linked, but newer versions are there: perhaps on top of it, perhaps from before.
 */
export async function succeed(directory: string, seen: Version, scratch: string): Promise<Succession> {
  const home = path.join(directory, seen.incarnation);
  const mine = { incarnation: seen.incarnation, number: seen.number + 1, file: path.join(home, String(seen.number + 1)) };
  try {
    await link(scratch, mine.file);
  } catch (error) {
    if (codeOf(error) === 'EEXIST' || (codeOf(error) === 'ENOENT' && (await highest(home)) === null)) return { kind: 'taken' };
    throw error;
  }
  const there = (await syncDirectory(home).then(() => true, falseIfGone)) ? await numbers(home) : [];
  if (Math.max(...there) !== mine.number) return { kind: 'overtaken', etag: etagOf(mine) };
  for (const number of there) if (number < mine.number - VERSIONS_BEHIND) await unlink(path.join(home, String(number))).catch(nullIfGone);
  return { kind: 'written', etag: etagOf(mine) };
}

/** Of one that nobody finds any more: in the scratch directory. What is not as versions are goes too. */
export async function removeObject(directory: string): Promise<void> {
  try {
    const incarnation = await onlyChild(directory);
    if (incarnation !== null) {
      const home = path.join(directory, incarnation);
      for (const number of await numbers(home)) await unlink(path.join(home, String(number)));
      await rmdir(home);
    }
    await rmdir(directory);
  } catch {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Directories that do not lead through a symbolic link are their own real path. */
export async function refuseSymlinks(directory: string): Promise<void> {
  const real = await realpath(directory).catch(nullIfGone);
  if (real !== null && real !== directory) throw new EngineError('ERR_STORE_CONFIG', `${directory} leads through a symbolic link: a store follows none.`);
}

export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export function nullIfGone(error: unknown): null {
  if (codeOf(error) === 'ENOENT') return null;
  throw error;
}

function falseIfGone(error: unknown): false {
  nullIfGone(error);
  return false;
}

async function onlyChild(directory: string): Promise<string | null> {
  const entries = await readdir(directory, { withFileTypes: true }).catch(nullIfGone);
  return entries?.find((entry) => entry.isDirectory())?.name ?? null;
}

async function numbers(home: string): Promise<readonly number[]> {
  const entries = (await readdir(home, { withFileTypes: true }).catch(nullIfGone)) ?? [];
  return entries.filter((entry) => entry.isFile() && /^[1-9]\d{0,14}$/.test(entry.name)).map((entry) => Number(entry.name));
}

/** null: the incarnation is gone. */
async function highest(home: string): Promise<number | null> {
  const found = await numbers(home);
  return found.length === 0 ? null : Math.max(...found);
}

