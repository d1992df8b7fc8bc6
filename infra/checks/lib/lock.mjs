/** One at a time: what a run of the checks installs and builds is shared by all of a checkout. */
import { linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/**
 * Held until the process ends, or `release` is called; that of a process which is gone is taken over.
 * @throws Error with who has it.
 */
export function takeLock(file) {
  mkdirSync(path.dirname(file), { recursive: true });
  // It has its holder's name from the first moment on.
  const mine = `${file}.${process.pid}`;
  writeFileSync(mine, String(process.pid));
  try {
    while (!isLinked(mine, file)) {
      const holder = holderOf(file);
      if (holder !== null) throw new Error(`the checks of this checkout are run by process ${holder} now: wait for its end, or end it`);
      rmSync(file, { force: true });
    }
  } finally {
    rmSync(mine, { force: true });
  }
  const release = () => {
    process.off('exit', release);
    rmSync(file, { force: true });
  };
  process.once('exit', release);
  return release;
}

function isLinked(from, to) {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
    return false;
  }
}

/** null: nobody who lives. */
function holderOf(file) {
  try {
    const pid = Number(readFileSync(file, 'utf8'));
    if (!(Number.isInteger(pid) && pid > 0)) return null;
    process.kill(pid, 0);
    return pid;
  } catch (error) {
    return error.code === 'EPERM' ? 'of another user' : null;
  }
}
