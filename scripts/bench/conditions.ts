/** Under what a figure was measured: without this it means nothing on another day. */
import { execFileSync } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { nativeInfo } from '../../engine/runtime/native.ts';

export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');

export interface Conditions {
  readonly cpu: string;
  readonly cores: number;
  readonly isas: readonly string[];
  readonly memory_gib: number;
  /** Of the last minute: above `cores`, others were waiting for this machine too. */
  readonly load: number;
  readonly node: string;
  readonly system: string;
  readonly commit: string;
}

export function conditions(): Conditions {
  return {
    cpu: os.cpus()[0]?.model ?? 'unknown',
    cores: os.availableParallelism(),
    isas: nativeInfo().isas,
    memory_gib: Math.round(os.totalmem() / 2 ** 30),
    load: Math.round((os.loadavg()[0] ?? 0) * 10) / 10,
    node: process.versions.node,
    system: `${os.type()} ${os.release()} ${os.arch()}`,
    commit: commit(),
  };
}

export function conditionLine({ cpu, cores, isas, memory_gib, load, node, system, commit: at }: Conditions): string {
  return `${cpu}, ${cores} cores, ${isas.at(-1)}, ${memory_gib} GiB, load ${load}; ${system}, Node ${node}, commit ${at}`;
}

/** `+`: with changes that are not committed. */
function commit(): string {
  const git = (...args: readonly string[]) => execFileSync('git', [...args], { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') === '' ? '' : '+');
  } catch {
    return 'unknown';
  }
}
