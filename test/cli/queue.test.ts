/** `ruminate queue`: what waits, and what no worker could be done with. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { openDirectoryQueue } from '../../engine/adapters/queue-directory.ts';
import { systemClock } from '../../engine/core/clock.ts';
import { RECEIVES_MAX, type SliceMessage } from '../../engine/ports/queue.ts';
import { ROOT } from '../helpers/setup.ts';

let root: string;
beforeAll(() => {
  root = mkdtempSync(path.join(tmpdir(), 'ruminate-queue-cli-'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const MESSAGE: SliceMessage = { v: 1, tenant: 'acme', job: 'sums', slice: 3 };
const ruminate = (...args: readonly string[]) => spawnSync(process.execPath, [path.join(ROOT, 'bin', 'ruminate.mjs'), 'queue', ...args], { encoding: 'utf8' });

test('dead messages are listed, and sent again', async () => {
  const directory = path.join(root, 'queue');
  const { queue } = await openDirectoryQueue(directory, { clock: systemClock });
  const die = async (each: SliceMessage) => {
    await queue.send(each);
    for (let i = 0; i < RECEIVES_MAX; i++) {
      const [taken] = await queue.receive({ max: 1, waitMs: 0, visibilityMs: 60_000 });
      await queue.release(taken?.receipt ?? '', 0);
    }
  };
  await die(MESSAGE);
  await die({ ...MESSAGE, job: 'more' });
  await queue.send({ ...MESSAGE, job: 'waits', priority: 'batch' });
  const { status, stdout } = ruminate('ls', '--queue', directory);
  expect(status).toBe(0);
  expect(stdout).toMatch(/batch +1 waiting \(the oldest for \d+ s\), 0 being worked on\ndead +2\n/);
  expect(stdout).toMatch(/acme\/sums slice 3 sent 20\S+Z, received 100 times/);
  expect(JSON.parse(ruminate('ls', '--queue', directory, '--json', '--max', '1').stdout)).toMatchObject({ visible: 0, batch: { visible: 1 }, dead: [{ received: 100 }] });
  expect(ruminate('redrive', '--queue', directory).stdout).toBe('2 messages were sent again\n');
  expect(await queue.depth()).toMatchObject({ visible: 2 });
});

test('dead messages are forgotten, and only they', async () => {
  const directory = path.join(root, 'purged');
  const { queue } = await openDirectoryQueue(directory, { clock: systemClock, receivesMax: 1 });
  await queue.send(MESSAGE);
  await queue.receive({ max: 1, waitMs: 0, visibilityMs: 0 });
  await queue.send({ ...MESSAGE, job: 'alive' });
  await queue.depth();
  expect(JSON.parse(ruminate('purge', '--queue', directory, '--json').stdout)).toEqual({ purged: 1 });
  expect(await queue.depth()).toMatchObject({ visible: 1 });
});

test('a queue that is not there is no empty one', () => {
  const { status, stderr } = ruminate('ls', '--queue', path.join(root, 'nowhere'));
  expect([status, stderr]).toEqual([2, expect.stringContaining('ERR_QUEUE_CONFIG')]);
  expect(ruminate('purge').stderr).toContain('--queue or RUMINATE_QUEUE');
});
