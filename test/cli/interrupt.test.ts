/** Ctrl-C before a stored job runs: what is said is what is in the store. The model is asked of a server that never answers. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, expect, test } from 'vitest';

import { openStore } from '../../engine/adapters/store-url.ts';
import { readJob } from '../../engine/kv/create.ts';
import { folder, removeFolders } from '../helpers/models.ts';
import { storedJob } from '../helpers/stored-job.ts';
import { type Ended, ruminate } from '../resume/processes.ts';

afterAll(removeFolders);

/** The command, interrupted as soon as it has asked for its model. */
async function interrupted(args: readonly string[], store: string): Promise<Ended> {
  let pid = 0;
  const server = createServer().listen(0, '127.0.0.1');
  server.once('request', () => void process.kill(pid, 'SIGINT'));
  await new Promise((resolve) => server.once('listening', resolve));
  const environment = {
    RUMINATE_S3_ENDPOINT: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, RUMINATE_CACHE: folder(),
    AWS_ACCESS_KEY_ID: 'nobody', AWS_SECRET_ACCESS_KEY: 'nothing', AWS_REGION: 'us-east-1',
    // What the SDK thinks of this Node is none of our lines.
    NODE_NO_WARNINGS: '1',
  };
  try {
    return await ruminate([...args, '--model', 's3://models/countdown', '--store', store, '--json'], environment, (started) => { pid = started; });
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test('a job that was not begun is said not to be stored, and is not', async () => {
  const store = folder();
  const { status, stdout, stderr } = await interrupted(['run', '4 20 8 13 target 59', '--job', 'sums'], store);
  expect([status, stdout]).toEqual([130, '']);
  expect(stderr).toBe('ruminate: stopping; again to leave at once\nruminate: ERR_CANCELLED: The job sums was not begun; nothing was stored.\n');
  await expect(readJob(await openStore(store), { tenant: 'local', job: 'sums' })).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
}, 120_000);

test('a job that was parked before is said to stay so, and does', async () => {
  const store = folder();
  expect((await storedJob(await openStore(store))).kind).toBe('parked');
  const before = await readJob(await openStore(store), { tenant: 'local', job: 'sums' });
  const { status, stdout, stderr } = await interrupted(['resume', 'sums'], store);
  expect([status, stdout]).toEqual([130, '']);
  expect(stderr).toBe('ruminate: stopping; again to leave at once\nruminate: ERR_CANCELLED: The job sums was not run; it stays in the store (parked).\n');
  expect(await readJob(await openStore(store), { tenant: 'local', job: 'sums' })).toEqual(before);
}, 120_000);
