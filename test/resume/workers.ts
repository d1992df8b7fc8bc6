/** Processes that run a stored job, seen from outside: what they said, and what the store holds of it at this moment. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { buildSync } from 'esbuild';

import { BUNDLE } from '../../scripts/build.mjs';
import type { SliceOutcome } from '../../engine/job/slice.ts';
import { readJob } from '../../engine/kv/create.ts';
import type { Head } from '../../engine/kv/head.ts';
import type { Manifest } from '../../engine/kv/manifest.ts';
import { readObject } from '../../engine/kv/read.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { decodeJournals } from '../../engine/runtime/native.ts';
import type { Work } from '../helpers/job-worker.ts';
import { ROOT } from '../helpers/setup.ts';

export type Said = SliceOutcome | { readonly kind: 'failed'; readonly code: string | null; readonly message: string };

export interface Worker {
  readonly process: ChildProcess;
  /** Once it has said so often that it committed, or has ended. */
  commits(count: number): Promise<void>;
  /** Once it has stopped itself. */
  readonly stopped: Promise<unknown>;
  /** What it said last; null: it was killed. */
  readonly ended: Promise<Said | null>;
}

let bundled: string | null = null;

/** As JavaScript: compiling the sources again would take longer than most workers live. Below the package, where the addon is found. */
function workerFile(): string {
  if (bundled !== null) return bundled;
  const outdir = path.join(ROOT, 'build', 'test', `job-worker-${process.pid}`);
  buildSync({ ...BUNDLE, sourcemap: false, entryPoints: { worker: path.join(ROOT, 'test', 'helpers', 'job-worker.ts') }, outdir });
  process.once('exit', () => rmSync(outdir, { recursive: true, force: true }));
  return (bundled = path.join(outdir, 'worker.mjs'));
}

export function work(what: Work): Worker {
  const child = spawn(process.execPath, [workerFile(), JSON.stringify(what)], { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  let commits = 0;
  let said: Said | null = null;
  const lines = createInterface({ input: child.stdout });
  lines.on('line', (line) => {
    if (line === 'stopped') return void lines.emit('stopped');
    if (line.startsWith('commit ')) commits += 1;
    else said = JSON.parse(line) as Said;
    lines.emit('heard');
  });
  const closed = Promise.all([once(lines, 'close'), once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>]);
  return {
    process: child,
    commits: (count) => Promise.race([closed.then(() => {}), new Promise<void>((resolve) => {
      const look = () => void (commits >= count && resolve());
      lines.on('heard', look);
      look();
    })]),
    stopped: once(lines, 'stopped'),
    ended: closed.then(([, [, signal]]) => {
      // Nothing but the kill that was meant ends a worker without a word.
      if (said === null && signal !== 'SIGKILL') throw new Error(`a worker ended by ${signal}`);
      return said;
    }),
  };
}

export interface Kept {
  readonly head: Head;
  readonly manifest: Manifest | null;
  /** [chain] What a reader of the store sees. */
  readonly tokens: readonly (readonly number[])[];
}

/** What is committed; null: there is no such job yet. */
export async function keptOf(store: ObjectStore, job: string): Promise<Kept | null> {
  const where = { tenant: 'local', job };
  if ((await store.head(`kv/local/${job}/HEAD`)) === null) return null;
  const { head, manifest } = await readJob(store, where);
  if (manifest === null) return { head, manifest, tokens: [] };
  const refs = [...manifest.journal.flatMap((i) => manifest.objects[i] ?? []), ...head.journal];
  const { report } = await decodeJournals({
    objects: await Promise.all(refs.map(async (ref) => ({ chunks: await readObject(store, where, ref), bytes: ref.bytes, digest: ref.digest, seal: 0 }))),
    seals: [{ digestKey: null, dataKey: null, context: `local\0${job}` }],
    checkDigests: true,
    layoutId: manifest.layoutId,
    vocabSize: 128,
  });
  return { head, manifest, tokens: report.chains.map(({ tokens }) => [...tokens]) };
}
