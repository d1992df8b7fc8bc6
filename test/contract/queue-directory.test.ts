/** The queue in a directory keeps every promise, among processes, and whatever becomes of those. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { openDirectoryQueue } from '../../engine/adapters/queue-directory.ts';
import { systemClock } from '../../engine/core/clock.ts';
import type { Queue, SliceMessage } from '../../engine/ports/queue.ts';
import { ManualClock } from '../helpers/clock.ts';
import { ROOT } from '../helpers/setup.ts';
import { QUEUE_PROMISES, RECEIVES, type QueueBench } from './queue.ts';

let root: string;
let folders = 0;
const fresh = () => path.join(root, `queue-${folders++}`);
beforeAll(() => {
  root = mkdtempSync(path.join(tmpdir(), 'ruminate-queue-'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

const message: SliceMessage = { v: 1, tenant: 'acme', job: 'sums', slice: 0 };
const HOUR = { max: 1, waitMs: 0, visibilityMs: 3_600_000 };

async function open(directory = fresh(), lateMs = 0): Promise<QueueBench> {
  const clock = new ManualClock();
  const { queue } = await openDirectoryQueue(directory, { clock, nowMs: () => 1_800_000_000_000 + lateMs + clock.nowMs(), receivesMax: RECEIVES });
  const pass = async (delayMs: number) => {
    clock.advance(delayMs);
    await clock.settle();
  };
  return { queue, pass, isExact: true };
}

const now = async (directory: string): Promise<Queue> => (await openDirectoryQueue(directory, { clock: systemClock })).queue;

/** Another process that has the queue as `queue`, does that, and then ends with SIGKILL. */
async function elsewhere(directory: string, script: string): Promise<void> {
  const code = `
    import { openDirectoryQueue } from ${JSON.stringify(path.join(ROOT, 'engine/adapters/queue-directory.ts'))};
    import { systemClock } from ${JSON.stringify(path.join(ROOT, 'engine/core/clock.ts'))};
    const { queue } = await openDirectoryQueue(${JSON.stringify(directory)}, { clock: systemClock });
    const message = ${JSON.stringify(message)};
    ${script}
    process.kill(process.pid, 'SIGKILL');`;
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], { cwd: ROOT, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => { said += chunk.toString(); });
  const signal = await new Promise((resolve) => child.once('close', (_, by) => resolve(by)));
  if (signal !== 'SIGKILL') throw new Error(said);
}

const looks = vi.hoisted(() => ({ count: 0 }));
const reads = vi.hoisted((): string[] => []);
const disk = vi.hoisted(() => ({ isFull: false }));
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  return {
    ...real,
    readdir: (folder: string) => (looks.count++, real.readdir(folder)),
    writeFile: async (file: string, text: string, options: { flag: string }) => {
      await real.writeFile(file, text, options);
      if (disk.isFull) throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
    },
    readFile: (file: string, as: 'utf8') => (reads.push(file), real.readFile(file, as)),
  };
});

describe('the queue in a directory', () => {
  for (const { name, check } of QUEUE_PROMISES) test(name, async () => await check(await open()));

  test('keeps nothing of a message for which its disk was full', async () => {
    const directory = fresh();
    const { queue } = await open(directory);
    disk.isFull = true;
    await expect(queue.send(message)).rejects.toMatchObject({ code: 'ERR_QUEUE' });
    disk.isFull = false;
    expect(readdirSync(directory)).toEqual([]);
    await queue.send(message);
    expect(readdirSync(directory)).toHaveLength(1);
  });

  test('is looked at once for all receivers that wait, and anew after a change of its own', async () => {
    const { queue } = await open();
    const stop = new AbortController();
    looks.count = 0;
    const waiting = Array.from({ length: 8 }, () => queue.receive({ ...HOUR, waitMs: 20_000, signal: stop.signal }).catch(() => []));
    expect(looks.count).toBe(1);
    stop.abort();
    const early = queue.receive(HOUR);
    await queue.send(message);
    expect([...(await early), ...(await queue.receive(HOUR))]).toMatchObject([{ message }]);
    await Promise.all(waiting);
  });

  test('is there again after kill -9, with what it had', async () => {
    const directory = fresh();
    await elsewhere(directory, 'await queue.send(message); await queue.send({ ...message, job: "later", priority: "batch" }, { delayMs: 600_000 });');
    const queue = await now(directory);
    expect(await queue.depth()).toMatchObject({ visible: 1, batch: { visible: 0, inFlight: 0 } });
    expect(await queue.receive(HOUR)).toMatchObject([{ message, received: 1 }]);
  });

  test('gives what a killed process had to the next at once, and counts the receive', async () => {
    const directory = fresh();
    await elsewhere(directory, 'await queue.send(message); await queue.receive({ max: 1, waitMs: 0, visibilityMs: 3_600_000 });');
    expect(await (await now(directory)).receive(HOUR)).toMatchObject([{ message, received: 2 }]);
  });

  test('keeps from one process what another that lives has', async () => {
    const directory = fresh();
    const ours = await now(directory);
    await ours.send(message);
    const [held] = await ours.receive(HOUR);
    await elsewhere(directory, 'if ((await queue.receive({ max: 1, waitMs: 0, visibilityMs: 1_000 })).length > 0) process.exit(1);');
    await ours.remove(held?.receipt ?? '');
    expect(readdirSync(directory)).toEqual([]);
  });

  test('wakes who waits for what another process sends', async () => {
    const directory = fresh();
    const waiting = (await now(directory)).receive({ ...HOUR, waitMs: 60_000 });
    await elsewhere(directory, 'await queue.send(message);');
    expect(await waiting).toMatchObject([{ message }]);
  });

  test('hands each message to one of many who ask at once', async () => {
    const directory = fresh();
    const queues = await Promise.all(Array.from({ length: 6 }, () => now(directory)));
    for (let i = 0; i < 30; i++) await queues[0]?.send({ ...message, job: `job-${i}` });
    const received = await Promise.all(queues.map((queue) => queue.receive({ ...HOUR, max: 10 })));
    const jobs = received.flat().map((each) => each.message?.job);
    expect(jobs.length).toBeGreaterThan(5);
    expect(new Set(jobs).size).toBe(jobs.length);
    const rest: unknown[] = [];
    for (let calls = 0; calls < 30 && jobs.length + rest.length < 30; calls++) rest.push(...(await queues[0]?.receive({ ...HOUR, max: 10 }) ?? []));
    expect(jobs.length + rest.length).toBe(30);
  });

  test('is not stopped by a clock that was set back, or by files that are none of its own', async () => {
    const directory = fresh();
    const { queue } = await openDirectoryQueue(directory, { clock: systemClock, nowMs: () => Date.now() + 86_400_000 * 300 });
    await queue.send(message);
    writeFileSync(path.join(directory, 'notes.txt'), 'x');
    writeFileSync(path.join(directory, '0-0000000000000000,0,0,-,live'), '{"v":1,"ten');
    expect(await (await now(directory)).receive(HOUR)).toMatchObject([{ message }]);
    expect(readdirSync(directory)).toContain('notes.txt');
  });

  test('leaves what it cannot read to whoever can, looks at it once, and lets go of it after a fortnight', async () => {
    const directory = fresh();
    const { queue, pass } = await open(directory);
    const later = '{"v":2,"tenant":"acme","job":"sums","slice":0}';
    const sentMs = 1_800_000_000_000;
    const name = `${sentMs.toString(36)}-0000000000000000,${sentMs},0,-,live`;
    writeFileSync(path.join(directory, name), later);
    reads.length = 0;
    for (let times = 0; times < 5; times++) {
      expect(await queue.receive(HOUR)).toEqual([]);
      expect(await queue.depth()).toMatchObject({ visible: 0, inFlight: 0 });
      await pass(1_000);
    }
    expect(reads.filter((file) => file.endsWith(name))).toHaveLength(1);
    await pass(13 * 86_400_000);
    expect(await queue.receive(HOUR)).toEqual([]);
    expect(readFileSync(path.join(directory, name), 'utf8')).toBe(later);
    await queue.send(message);
    expect(await queue.receive(HOUR)).toMatchObject([{ message }]);
    await pass(86_400_000);
    await (await open(directory, 14 * 86_400_000 + 5_000)).queue.depth();
    expect(readdirSync(directory)).not.toContain(name);
  });

  test('says what is wrong with its place', async () => {
    const file = path.join(root, 'file');
    writeFileSync(file, '');
    await expect(openDirectoryQueue(path.join(file, 'queue'), { clock: systemClock })).rejects.toMatchObject({ code: 'ERR_QUEUE_CONFIG' });
  });
});
