/** What the operating system says, as what a person can do about it. */
import { EngineError } from '../core/errors.ts';

const ADVICE: Readonly<Record<string, readonly ['ERR_STORE' | 'ERR_STORE_CONFIG', string]>> = {
  EACCES: ['ERR_STORE_CONFIG', 'Access is denied: give this user read, write and search rights to the directory.'],
  EPERM: ['ERR_STORE_CONFIG', 'The file system does not allow this: give this user rights to it, and use one with hard links (not exFAT).'],
  ENOTSUP: ['ERR_STORE_CONFIG', 'The file system has no hard links: use another one.'],
  EROFS: ['ERR_STORE_CONFIG', 'The file system is read-only.'],
  ENOTDIR: ['ERR_STORE_CONFIG', 'A part of the path is a file, not a directory.'],
  ELOOP: ['ERR_STORE_CONFIG', 'The path leads through a symbolic link: a store follows none.'],
  ENOENT: ['ERR_STORE', 'A directory or file cannot be made or found there: use a directory of a disk.'],
  ENAMETOOLONG: ['ERR_STORE_CONFIG', 'The path is too long for this file system: use a directory nearer to its root.'],
  ENOSPC: ['ERR_STORE', 'The disk is full: free space, or use another directory. Nothing that was stored is lost.'],
  EDQUOT: ['ERR_STORE', 'The disk quota is used up: free space, or use another directory. Nothing that was stored is lost.'],
  EFBIG: ['ERR_STORE', 'The file is larger than this system allows (`ulimit -f`).'],
  EMFILE: ['ERR_STORE', 'This process has too many files open: raise `ulimit -n`.'],
  ENFILE: ['ERR_STORE', 'This machine has too many files open.'],
};

export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : '';
}

export function nullIfGone(error: unknown): null {
  if (codeOf(error) === 'ENOENT') return null;
  throw error;
}

/** An EngineError stays as it is; anything else becomes one. */
export function storeError(url: string, cause: unknown): EngineError {
  if (cause instanceof EngineError) return cause;
  const [code, advice] = ADVICE[codeOf(cause)] ?? ['ERR_STORE', cause instanceof Error ? cause.message : String(cause)];
  return new EngineError(code, `${url}: ${advice}`, { cause });
}
