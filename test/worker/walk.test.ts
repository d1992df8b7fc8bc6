/** What lost its message is found; what only waits is not sent again and again. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';

import { ownerHint } from '../../engine/core/owner.ts';
import { takeJob } from '../../engine/kv/take.ts';
import { ManualClock } from '../helpers/clock.ts';
import { through } from '../helpers/through.ts';
import { Bench, deadOwner, quiet, SHORT, whereIs } from './support.ts';

let expected: unknown;
beforeAll(async () => {
  expected = await quiet(SHORT);
});

describe('reconciling', () => {
  test('a worker with a new queue finds what lives in the store, and takes at once what a dead process had', async () => {
    await using bench = new Bench();
    await bench.submit('queued', SHORT, { send: false });
    await bench.submit('orphan', SHORT, { send: false });
    await takeJob(bench.store, whereIs('orphan'), { owner: deadOwner() });
    bench.worker({ isQueueNew: true });
    await Promise.all([bench.event('ended', 'queued'), bench.event('ended', 'orphan')]);
    expect(bench.events.find(({ kind }) => kind === 'reconciled')).toMatchObject({ sent: 2 });
    for (const job of ['queued', 'orphan']) expect(await bench.result(job)).toEqual(expected);
  });

  test('a worker notices that another process of its machine has died, and takes what that one had', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    await bench.submit('seen', SHORT, { send: false });
    await bench.submit('unseen', SHORT, { send: false });
    const neighbour = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e9)'], { stdio: 'ignore' });
    const exit = new Promise((resolve) => neighbour.once('exit', resolve));
    const owner = ownerHint().replace(/^\d+-\d+/, `${neighbour.pid}-${startOf(neighbour.pid ?? 0)}`);
    await takeJob(bench.store, whereIs('seen'), { owner });
    bench.worker({ reconcileMs: 1e9, isQueueNew: true });
    for (let seconds = 0; seconds < 5; seconds++) {
      await clock.settle();
      clock.advance(1_000);
    }
    await bench.event('ended', 'unseen');
    expect(await bench.head('seen')).toMatchObject({ state: 'running', epoch: 1, owner });
    neighbour.kill('SIGKILL');
    await exit;
    while (bench.kinds('seen').length === 0) {
      expect(clock.nowMs(), 'taken at last').toBeLessThan(40_000);
      await clock.settle();
      // Nobody counts on less than a second.
      clock.advance(1_000);
    }
    // Which needs no clock, and takes as long as it takes.
    await bench.event('ended', 'seen');
    expect(await bench.result('seen')).toEqual(expected);
  });

  test('the message of a worker that was killed comes again, and its job is taken', async () => {
    await using bench = new Bench();
    await bench.submit('sums', SHORT, { send: false });
    await takeJob(bench.store, whereIs('sums'), { owner: deadOwner() });
    await bench.send('sums', 0);
    bench.worker({ reconcileMs: 1e9 });
    await bench.event('ended', 'sums');
    expect(await bench.result('sums')).toEqual(expected);
  });

  test('a job that lost its message is found by the walk that comes every minute', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    await bench.submit('lost', SHORT, { send: false });
    bench.worker();
    for (let waited = 0; bench.kinds('lost').length === 0; waited += 10_000) {
      expect(waited).toBeLessThan(180_000);
      await clock.settle();
      clock.advance(10_000);
    }
    await bench.event('ended', 'lost');
    expect(await bench.result('lost')).toEqual(expected);
  });
});

describe('the walk', () => {
  const sentTo = (bench: Bench, depth: () => { readonly visible: number }) => {
    const sent: string[] = [];
    const queue = through(bench.queue, {
      sendAll: async (messages) => void sent.push(...messages.map(({ job, priority = 'interactive' }) => `${job} ${priority}`)),
      depth: async () => ({ ...depth(), inFlight: 0, oldestAgeMs: 0, batch: { visible: 0, inFlight: 0, oldestAgeMs: 0 } }),
    });
    return { sent, queue };
  };
  const pass = async (clock: ManualClock, minutes: number) => {
    for (let i = 0; i < minutes; i++) {
      await clock.settle();
      clock.advance(60_000);
      await clock.settle();
    }
  };

  test('sends what waits again only when the queue is empty, or after half an hour', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    await bench.submit('waits', SHORT, { send: false });
    let visible = 5_000;
    const { sent, queue } = sentTo(bench, () => ({ visible }));
    bench.worker({ queue });
    await pass(clock, 20);
    expect(sent).toEqual([]);
    visible = 0;
    await pass(clock, 1);
    expect(sent).toEqual(['waits interactive']);
    visible = 5_000;
    await bench.submit('also', SHORT, { send: false });
    await pass(clock, 40);
    expect(sent.filter((each) => each.startsWith('also')).length).toBe(4);
  });

  test('sends the same thing again later each time, in its own class', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    await bench.submit('lost', { ...SHORT, priority: 'batch' }, { send: false });
    const { sent, queue } = sentTo(bench, () => ({ visible: 0 }));
    bench.worker({ queue });
    await pass(clock, 100);
    expect(new Set(sent)).toEqual(new Set(['lost batch']));
    // After 1, 2, 4, … minutes, and not a hundred times.
    expect(sent.length).toBe(7);
  });
});

/** Clock ticks since boot, as /proc says. */
function startOf(pid: number): string {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
}
