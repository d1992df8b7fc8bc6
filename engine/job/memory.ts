/** How many bytes this process may still take: the smallest of what the container, the machine and the operator allow. */
import { readFileSync } from 'node:fs';
import { EngineError } from '../core/errors.ts';

/** Reads a small text file, null if it is not there. Tests pass their own. */
export type ReadText = (path: string) => string | null;

/**
 * @param heldBytes what jobs of this process hold: RUMINATE_MEMORY_LIMIT is for all of them, the others are measured and know it.
 * @example admit(quote, availableMemory())
 * @throws EngineError ERR_OPTION if RUMINATE_MEMORY_LIMIT is not a number of bytes.
 */
export function availableMemory(environment: NodeJS.ProcessEnv = process.env, read: ReadText = readSystem, heldBytes = 0): number {
  const limits = [cgroupV2(read), cgroupV1(read), memAvailable(read), configured(environment, heldBytes)].filter((bytes) => bytes !== null);
  return limits.length === 0 ? Number.MAX_SAFE_INTEGER : Math.max(0, Math.min(...limits));
}

function cgroupV2(read: ReadText): number | null {
  const folder = '/sys/fs/cgroup';
  return headroom(read, `${folder}/memory.max`, `${folder}/memory.current`, { path: `${folder}/memory.stat`, line: /^inactive_file (\d+)$/m });
}

function cgroupV1(read: ReadText): number | null {
  const folder = '/sys/fs/cgroup/memory';
  return headroom(read, `${folder}/memory.limit_in_bytes`, `${folder}/memory.usage_in_bytes`, { path: `${folder}/memory.stat`, line: /^total_inactive_file (\d+)$/m });
}

/**
 * "max" (v2) or a number near 2^63 (v1) means no limit; then nothing more is read: a machine's statistics take the system most of a millisecond.
 * Page cache counts as usage but is given back under pressure.
 */
function headroom(read: ReadText, limit: string, usage: string, cached: { readonly path: string; readonly line: RegExp }): number | null {
  const most = bytes(read(limit));
  if (most === null || most > Number.MAX_SAFE_INTEGER) return null;
  const used = bytes(read(usage));
  return used === null ? null : most - Math.max(0, used - Number(cached.line.exec(read(cached.path) ?? '')?.[1] ?? 0));
}

function memAvailable(read: ReadText): number | null {
  const kilobytes = bytes(/^MemAvailable:\s+(\d+) kB$/m.exec(read('/proc/meminfo') ?? '')?.[1] ?? null);
  return kilobytes === null ? null : kilobytes * 1_024;
}

function configured(environment: NodeJS.ProcessEnv, heldBytes: number): number | null {
  const text = environment.RUMINATE_MEMORY_LIMIT;
  if (text === undefined || text === '') return null;
  const limit = bytes(text);
  if (limit === null) throw new EngineError('ERR_OPTION', `RUMINATE_MEMORY_LIMIT must be a number of bytes; got ${JSON.stringify(text.slice(0, 40))}.`);
  return limit - heldBytes;
}

function bytes(text: string | null): number | null {
  const trimmed = text?.trim() ?? '';
  return /^\d+$/.test(trimmed) ? Number(trimmed) : null;
}

function readSystem(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}
