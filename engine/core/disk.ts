/** Small steps on disk that are whole or not at all. */
import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';

/** For names that must not meet. */
export const fresh = (): string => randomBytes(8).toString('hex');

export const hasCode = (error: unknown, ...codes: readonly string[]): boolean => codes.includes((error as NodeJS.ErrnoException | null)?.code ?? '');

/** Someone may remove an empty folder just when another is made in it; a place where none can be made (/proc) says the same, for ever. */
const TRIES_MAX = 10;

/** With those above it, unless it is there. Node's own `recursive` goes round without end where a folder cannot be made though the one above it is there. */
export async function makeFolder(path: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await mkdir(path);
      return;
    } catch (error) {
      if (hasCode(error, 'EEXIST') && (await isFolder(path))) return;
      if (!hasCode(error, 'ENOENT') || tries === TRIES_MAX || dirname(path) === path) throw error;
    }
    await makeFolder(dirname(path));
  }
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path)).isDirectory();
}

/** Readers see the old file, the new one, or none: never half of one. */
export async function writeWhole(path: string, content: string): Promise<void> {
  const temporary = `${path}.${fresh()}.tmp`;
  await makeFolder(dirname(path));
  const file = await open(temporary, 'wx');
  try {
    await file.writeFile(content);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  await syncFolder(dirname(path));
}

/** Makes renames and links in a folder survive a power cut; some systems cannot open folders, and there it is as good as it gets. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r').catch(() => null);
  try {
    await folder?.sync();
  } catch (error) {
    if (!hasCode(error, 'EINVAL', 'EPERM', 'EISDIR', 'EBADF')) throw error;
  } finally {
    await folder?.close();
  }
}

/** Names in a folder, sorted; a folder that is not there has none. */
export async function namesIn(path: string): Promise<readonly string[]> {
  try {
    return (await readdir(path)).sort();
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR')) return [];
    throw error;
  }
}

/** null: there is none (of a link: where it points). */
export async function statOf(path: string): Promise<{ readonly bytes: number; readonly modifiedMs: number; readonly isFile: boolean } | null> {
  try {
    const found = await stat(path);
    return { bytes: found.size, modifiedMs: found.mtimeMs, isFile: found.isFile() };
  } catch (error) {
    if (hasCode(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return null;
    throw error;
  }
}

export async function remove(path: string): Promise<void> {
  await rm(path, { recursive: true, force: true });
}

/** What a killed process left half done: names that nothing knows any more. */
export async function removeOlder(folder: string, ageMs: number, isLeft: (name: string) => boolean = () => true): Promise<void> {
  for (const name of await namesIn(folder)) {
    const path = join(folder, name);
    const found = isLeft(name) ? await statOf(path) : null;
    if (found !== null && Date.now() - found.modifiedMs > ageMs) await remove(path);
  }
}
