/** KV.md 7, the commit path as a user meets it: signals to the real command, on a directory. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { openFilesystemStore } from '../../engine/adapters/filesystem.ts';
import { generate } from '../../engine/job/generate.ts';
import type { StoredResult } from '../../engine/job/slice.ts';
import { readJob } from '../../engine/kv/create.ts';
import { ROOT } from '../helpers/setup.ts';
import { type Answer, answerOf, PROMPT } from '../failures/support.ts';

const BIN = path.join(ROOT, 'bin', 'ruminate.mjs');
/** Seconds of work, on a fast machine too. */
const [LENGTH, WIDTH] = [900, 64];
const RUN = ['run', PROMPT, '--cr', '8', '--length', `${LENGTH}`, '--width', `${WIDTH}`, '--seed', '7', '--no-early-stop', '--threads', '1', '--json', '--checkpoint-tokens', '100'];

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'ruminate-signals-'));
  // In a fresh checkout the first run builds.
  await ruminate(['--version']);
}, 600_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** `signals` are sent once the job that the last argument names has a checkpoint; it has most of its work before it then. */
async function ruminate(args: readonly string[], signals: readonly NodeJS.Signals[] = []): Promise<Ended> {
  const child = spawn(process.execPath, [BIN, ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  const [out, err]: [Buffer[], Buffer[]] = [[], []];
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
  const closed = once(child, 'close') as Promise<[number | null]>;
  if (signals.length > 0) {
    const store = await openFilesystemStore(path.join(folder, 'jobs'));
    const where = { tenant: 'local', job: args.at(-1) ?? '' };
    while (child.exitCode === null && !(await readJob(store, where).then(({ manifest }) => manifest !== null, () => false))) await sleep(2);
    for (const signal of signals) child.kill(signal);
  }
  const [status] = await closed;
  return { status, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() };
}

let whole: Answer | null = null;

async function expectWhole({ status, stdout, stderr }: Ended): Promise<StoredResult> {
  expect([status, stderr]).toEqual([0, '']);
  const result = JSON.parse(stdout) as StoredResult;
  whole ??= answerOf(await generate({ model: 'countdown', prompt: PROMPT, seed: 7, early_stop: false, threads: 1, budget: { length: LENGTH, width: WIDTH, compression_ratio: 8 } }));
  expect(answerOf(result)).toEqual(whole);
  return result;
}

test('SIGTERM parks the job, and the same command goes on with it', async () => {
  const command = [...RUN, '--store', 'jobs', '--job', 'parked'];
  const { status, stdout, stderr } = await ruminate(command, ['SIGTERM']);
  expect([status, stderr]).toEqual([130, expect.stringContaining('parked at step') as string]);
  expect(JSON.parse(stdout)).toMatchObject({ job: 'parked', state: 'parked' });
  const { resumed } = await expectWhole(await ruminate(command));
  expect(resumed).toMatchObject([{ outcome: 'restored', reason: null, tokens_recomputed: 0 }]);
});

// Two different signals: a second of the same kind right after the first could be merged into it.
test('a second signal leaves at once, and what was committed goes on', async () => {
  const command = [...RUN, '--store', 'jobs', '--job', 'killed'];
  const { status, stdout } = await ruminate(command, ['SIGINT', 'SIGTERM']);
  expect([status, stdout]).toEqual([130, '']);
  const { resumed } = await expectWhole(await ruminate(command));
  expect(resumed).toHaveLength(1);
});
