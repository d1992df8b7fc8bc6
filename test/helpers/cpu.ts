import { readFileSync } from 'node:fs';

/** Milliseconds that this process has worked: a machine that is busy elsewhere adds none. */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

/** The same of its children that have ended, and of theirs; Linux counts in hundredths of a second. */
export function childrenCpuMs(): number {
  const stat = readFileSync('/proc/self/stat', 'utf8');
  // Fields from the third on; what children worked in user and in system are the 16th and the 17th.
  const [user, system] = stat.slice(stat.lastIndexOf(')') + 2).split(' ').slice(13, 15).map(Number);
  return ((user ?? NaN) + (system ?? NaN)) * 10;
}
