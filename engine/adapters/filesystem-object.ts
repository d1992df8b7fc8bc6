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
 * Looking is one reading of a handful of names, which the kernel serves under the directory's lock.
 *
 * What is done for one object in a row is done by one call of the native side, on one thread: of a write of some hundred bytes, going from
 * thread to thread between its twenty system calls would be nearly all that it costs. That side follows no symbolic link below the root.
 */
import { getSystemErrorName } from 'node:util';

import { fileSteps, type FileOutcome, type FileStep, type FileVersion } from '../runtime/native.ts';

export const OBJECT_SUFFIX = '#';
export const SCRATCH = `${OBJECT_SUFFIX}tmp`;

export type Version = Pick<FileVersion, 'incarnation' | 'number'>;

export function etagOf({ incarnation, number }: Version): string {
  return `${incarnation}-${number}`;
}

/** null: no version of ours has such an etag. */
export function versionOf(etag: string): Version | null {
  const [, incarnation, number] = /^([0-9a-f]{32})-([1-9]\d{0,14})$/.exec(etag) ?? [];
  return incarnation === undefined ? null : { incarnation, number: Number(number) };
}

export function fileOf(object: string, { incarnation, number }: Version): string {
  return `${object}/${incarnation}/${number}`;
}

export function folderOf(object: string): string {
  return object.slice(0, Math.max(0, object.lastIndexOf('/')));
}

/** Ends the steps if another version than `expected` is there. null: none may be. */
export function look(object: string, expected: Version | null): FileStep {
  return { call: 'newest', path: object, offset: 0, bytes: -1, expected: expected === null ? '' : `${expected.incarnation}/${expected.number}` };
}

/** The version that counts, and of it `bytes` from `offset` on (-1: nothing, not even its size). null: there is no such object. */
export async function newest(root: string, object: string, offset = 0, bytes = -1): Promise<FileVersion | null> {
  const outcome = await fileSteps(root, [{ call: 'newest', path: object, offset, bytes, expected: null }]);
  if (outcome.errno !== 0) throw failureOf(outcome, [object]);
  return outcome.found[0] ?? null;
}

/** What is in place: `written`; was linked, but newer versions are there, perhaps on top of it, perhaps from before: `overtaken`; another writer was first, or the object is gone: `taken`. */
export type Succession = { readonly kind: 'written'; readonly etag: string } | { readonly kind: 'overtaken'; readonly etag: string } | { readonly kind: 'taken' };

/** Makes the file the version after `seen`. The last of them is economy: older ones go, but the one just seen stays, so that its readers still find it. */
export function succession(object: string, seen: Version, file: string): readonly FileStep[] {
  const mine = { ...seen, number: seen.number + 1 };
  const home = folderOf(fileOf(object, mine));
  return [{ call: 'link', path: file, to: fileOf(object, mine) }, { call: 'sync', path: home }, look(object, mine), { call: 'older', path: home, number: seen.number }];
}

/** @param first the index of the first of `succession` among all steps. @throws what a call met that says nothing of the object. */
export function successionOf(outcome: FileOutcome, first: number, seen: Version): Succession {
  const etag = etagOf({ ...seen, number: seen.number + 1 });
  const [code, done] = [codeIn(outcome), outcome.done - first];
  if (done >= 3) return { kind: 'written', etag };
  if (done === 2 || (done === 1 && code === 'ENOENT')) return { kind: 'overtaken', etag };
  if (done === 0 && (code === 'EEXIST' || code === 'ENOENT')) return { kind: 'taken' };
  throw failureOf(outcome);
}

/** The error of the step that failed, with its code as Node's own have it; '' if none has. */
export function codeIn({ errno }: FileOutcome): string {
  return errno === 0 ? '' : getSystemErrorName(-errno);
}

export function failureOf(outcome: FileOutcome, steps: readonly unknown[] = []): Error {
  const code = codeIn(outcome);
  return Object.assign(new Error(`${code}, ${JSON.stringify(steps[outcome.done] ?? null)}`), { code });
}
