/** `ruminate run --shards`: a command, stopped and gone on with, and what it says is what the job without shards says. */
import { afterAll, expect, test } from 'vitest';

import { openStore } from '../../engine/adapters/store-url.ts';
import { readJob } from '../../engine/kv/create.ts';
import { folder, removeFolders } from '../helpers/models.ts';
import { ruminate } from '../resume/processes.ts';

afterAll(removeFolders);

const ASKED = ['4 20 8 13 target 59', '--model', 'countdown@cr2', '--seed', '2', '--width', '8', '--length', '700', '--vote', 'first', '--threads', '1', '--json'];
const ENV = { NODE_NO_WARNINGS: '1' };

/** Some shard has tokens in the store. */
async function hasCommitted(folder: string): Promise<boolean> {
  const found = await readJob(await openStore(folder), { tenant: 'local', job: 'sums/0' }).catch(() => null);
  return (found?.manifest?.step ?? 0) > 0;
}

/** All that is a function of the job. */
function said(stdout: string): unknown {
  const { answer, ballots, chains, usage } = JSON.parse(stdout) as Record<string, unknown>;
  return { answer, ballots, chains, usage };
}

test('with a store or without one, in one shard or in eight, it is the same job', { timeout: 300_000 }, async () => {
  const whole = said((await ruminate(['run', ...ASKED], ENV)).stdout);
  expect(said((await ruminate(['run', ...ASKED, '--shards', '3'], ENV)).stdout)).toEqual(whole);
  for (const shards of ['1', '8']) {
    const store = folder();
    const { stdout, status } = await ruminate(['run', ...ASKED, '--shards', shards, '--store', store, '--job', 'sums'], ENV);
    expect([status, said(stdout)]).toEqual([0, whole]);
    expect(said((await ruminate(['resume', 'sums', '--store', store, '--json'], ENV)).stdout)).toEqual(whole);
    expect((await ruminate(['checkpoint', 'verify', 'sums', '--store', store], ENV)).stdout).toMatch(/^sums: right,/);
    expect((await ruminate(['checkpoint', 'ls', '--store', store], ENV)).stdout).toMatch(/^1 job,/m);
  }
});

test('extended it is what the job without shards is when it is extended so', { timeout: 300_000 }, async () => {
  const extended = async (...shards: readonly string[]) => {
    const store = folder();
    await ruminate(['run', ...ASKED, ...shards, '--store', store, '--job', 'sums'], ENV);
    const { stdout, status, stderr } = await ruminate(['extend', 'sums', '--length', '800', '--width', '+3', '--store', store, '--json'], ENV);
    expect([status, stderr]).toEqual([0, '']);
    expect((await ruminate(['checkpoint', 'verify', 'sums-extend-800-plus3', '--store', store], ENV)).stdout).toMatch(/: right,/);
    return said(stdout);
  };
  const whole = await extended();
  expect(await extended('--shards', '3')).toEqual(whole);
});

test('Ctrl-C parks every shard, and the same command goes on', { timeout: 300_000 }, async () => {
  const store = folder();
  const args = ['run', ...ASKED.filter((arg) => arg !== '--json'), '--no-early-stop', '--shards', '3', '--store', store, '--job', 'sums', '--checkpoint-tokens', '20', '--json'];
  let pid = 0;
  let isOver = false;
  const stopping = ruminate(args, ENV, (started) => (pid = started)).finally(() => (isOver = true));
  while (!isOver && !(await hasCommitted(store))) await new Promise((resolve) => setTimeout(resolve, 20));
  if (!isOver) process.kill(pid, 'SIGINT');
  const { status, stdout, stderr } = await stopping;
  // However fast the machine is: it was parked, or it had come to its end.
  if (status !== 0) expect([status, stderr, stdout]).toEqual([130, expect.stringContaining('`ruminate resume sums'), expect.stringContaining('"state":"parked"')]);
  if (status !== 0) expect(JSON.parse(stdout)).toEqual({ job: 'sums', state: 'parked', step: expect.any(Number) as number, tokens: expect.any(Number) as number });
  const [whole, again] = [await ruminate(['run', ...ASKED, '--no-early-stop'], ENV), await ruminate(args, ENV)];
  expect([whole.stderr, again.stderr]).toEqual(['', '']);
  expect(said(again.stdout)).toEqual(said(whole.stdout));
});

test('what cannot be divided is refused, by a sentence that says why', async () => {
  const { status, stderr } = await ruminate(['run', ...ASKED, '--shards', '9'], ENV);
  expect([status === 0, stderr]).toEqual([false, expect.stringContaining('shards must be at most 8, one for each chain; got 9.')]);
}, 60_000);
