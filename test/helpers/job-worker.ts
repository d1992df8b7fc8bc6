/**
 * A stored job in a process of its own that dies when it is told to: `job-worker.ts <json of Work>`. Prints `commit <step>` after every commit
 * and, at its end, its outcome as one line of JSON, or its error's code.
 */
import { writeSync } from 'node:fs';

import { openStore } from '../../engine/adapters/store-url.ts';
import type { CheckpointPolicy } from '../../engine/job/checkpointer.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { runStored } from '../../engine/job/stored.ts';
import { parseName } from '../../engine/kv/names.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';

export interface KillPoint {
  readonly when: 'before' | 'after';
  /** A put of an object of this kind. */
  readonly kind: 'segment' | 'tail' | 'journal' | 'manifest' | 'head';
  /** Counting from 1. */
  readonly nth: number;
  /** SIGSTOP: says `stopped`, and goes on when it is continued. Default: SIGKILL. */
  readonly signal?: 'SIGKILL' | 'SIGSTOP';
}

export interface Work {
  readonly store: string;
  readonly job: string;
  readonly spec: JobSpec;
  readonly policy: Partial<CheckpointPolicy>;
  readonly take: boolean;
  readonly kill: KillPoint | null;
}

function dying(store: ObjectStore, job: string, { when, kind, nth, signal = 'SIGKILL' }: KillPoint): ObjectStore {
  const prefix = `kv/local/${job}/`;
  let seen = 0;
  const put: ObjectStore['put'] = async (key, body, options) => {
    const isDue = key.startsWith(prefix) && parseName(key.slice(prefix.length))?.kind === kind && ++seen === nth;
    if (isDue && when === 'before') await halt(signal);
    const outcome = await store.put(key, body, options);
    if (isDue && when === 'after') await halt(signal);
    return outcome;
  };
  return new Proxy(store, {
    get(target, key) {
      if (key === 'put') return put;
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** Without notice: no handler runs, nothing is flushed. */
async function halt(signal: 'SIGKILL' | 'SIGSTOP'): Promise<void> {
  if (signal === 'SIGSTOP') say('stopped');
  process.kill(process.pid, signal);
  if (signal === 'SIGKILL') await new Promise(() => {});
}

// Not through a stream: what was said before a kill must have been said.
function say(line: string): void {
  writeSync(1, `${line}\n`);
}

const { store: url, job, spec, policy, take, kill } = JSON.parse(process.argv[2] ?? '') as Work;
const real = await openStore(url);
const stop = new AbortController();
process.on('SIGTERM', () => stop.abort());
try {
  const outcome = await runStored(spec, {
    store: kill === null ? real : dying(real, job, kill),
    where: { tenant: 'local', job },
    policy,
    take,
    signal: stop.signal,
    // Watched jobs come to a boundary, and so to a commit, more often.
    onProgress: () => {},
    onCommit: (step) => say(`commit ${step}`),
  });
  say(JSON.stringify(outcome));
} catch (error) {
  say(JSON.stringify({ kind: 'failed', code: (error as { code?: string }).code ?? null, message: (error as Error).message }));
}
