/** Who runs beside whom, and who makes room. */
import { beforeAll, describe, expect, test } from 'vitest';

import { takeJob } from '../../engine/kv/take.ts';
import { EMPTY_DEPTH } from '../../engine/ports/queue.ts';
import { ManualClock } from '../helpers/clock.ts';
import { through } from '../helpers/through.ts';
import { Bench, deadOwner, LONG, quiet, reaches, SHORT, whereIs } from './support.ts';

let expectedLong: unknown;
beforeAll(async () => {
  expectedLong = await quiet(LONG);
});

describe('turns', () => {
  test('a worker with slots runs so many jobs at a time, each with the tokens it has alone', async () => {
    await using bench = new Bench();
    for (const job of ['a', 'b', 'c']) await bench.submit(job, LONG);
    const worker = bench.worker({ slots: 2 });
    await Promise.all([reaches(worker, whereIs('a'), 20), reaches(worker, whereIs('b'), 20)]);
    expect(worker.running).toBe(2);
    await Promise.all(['a', 'b', 'c'].map((job) => bench.event('ended', job)));
    for (const job of ['a', 'b', 'c']) expect(await bench.result(job)).toEqual(expectedLong);
  });

  test('a job of a batch lets what is interactive go first, and goes on after it', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    const batch = await bench.submit('batch', LONG, { send: false });
    await bench.queue.send({ v: 1, tenant: 'acme', job: 'batch', slice: 0, priority: 'batch' });
    await bench.submit('chat', SHORT, { send: false });
    const worker = bench.worker({ slots: 1, reconcileMs: 1e9 });
    await reaches(worker, batch, 50);
    await bench.send('chat');
    clock.advance(5_000);
    expect((await bench.event('parked', 'batch')).why).toBe('turn');
    await bench.event('ended', 'chat');
    await bench.event('ended', 'batch');
    expect(bench.events.flatMap((event) => (event.kind === 'ended' ? [event.where.job] : []))).toEqual(['chat', 'batch']);
    expect(await bench.result('batch')).toEqual(expectedLong);
  });

  test('a job of a batch that is alone does so too, though its worker has slots to spare', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    const batch = await bench.submit('batch', LONG, { send: false });
    for (let i = 0; i < 2; i++) await takeJob(bench.store, batch, { owner: deadOwner(), force: true });
    await bench.queue.send({ v: 1, tenant: 'acme', job: 'batch', slice: 2, priority: 'batch' });
    await bench.submit('chat', SHORT, { send: false });
    // Nothing forgives its strikes before it parks.
    const worker = bench.worker({ slots: 2, reconcileMs: 1e9, policy: { deltaTokens: 1e6, deltaMs: 1e6, journalMs: 1e6 } });
    await reaches(worker, batch, 50);
    await bench.send('chat');
    // A slot that was asking has had it, and has given it back.
    do await clock.settle();
    while ((await bench.queue.depth()).visible === 0);
    clock.advance(5_000);
    expect((await bench.event('parked', 'batch')).why).toBe('turn');
    await Promise.all(['chat', 'batch'].map((job) => bench.event('ended', job)));
    expect(await bench.result('batch')).toEqual(expectedLong);
  });

  test('of several jobs of batches as many make room as there are to make room for', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    for (const job of ['b1', 'b2', 'b3']) {
      await bench.submit(job, LONG, { send: false });
      await bench.queue.send({ v: 1, tenant: 'acme', job, slice: 0, priority: 'batch' });
    }
    await bench.submit('chat', SHORT, { send: false });
    const worker = bench.worker({ slots: 3, reconcileMs: 1e9 });
    await Promise.all(['b1', 'b2', 'b3'].map((job) => reaches(worker, whereIs(job), 30)));
    await bench.send('chat');
    clock.advance(5_000);
    await bench.event('ended', 'chat');
    await Promise.all(['b1', 'b2', 'b3'].map((job) => bench.event('ended', job)));
    expect(bench.events.filter((event) => event.kind === 'parked')).toHaveLength(1);
    for (const job of ['b1', 'b2', 'b3']) expect(await bench.result(job)).toEqual(expectedLong);
  });

  test('a worker that begins nothing goes on with what has begun, and leaves the rest to others', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    const begun = await bench.submit('begun', LONG);
    const first = bench.worker({ slots: 1, reconcileMs: 1e9 });
    await reaches(first, begun, 50);
    await first.drain({ deadlineMs: 60_000 });
    const last = bench.worker({ slots: 2, reconcileMs: 1e9, begins: false });
    await bench.submit('fresh', SHORT);
    await bench.event('ended', 'begun');
    expect(await bench.result('begun')).toEqual(expectedLong);
    expect((await bench.head('fresh')).state).toBe('queued');
    await last.drain({ deadlineMs: 60_000 });
    bench.worker({ slots: 1, reconcileMs: 1e9 });
    clock.advance(3 * 60_000);
    await bench.event('ended', 'fresh');
  });

  test('jobs of batches do not park for each other in a queue that does not tell them from what is interactive', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    // As SQS without a queue for batches.
    const queue = through(bench.queue, {
      depth: async () => {
        const { visible, batch } = await bench.queue.depth();
        return { ...EMPTY_DEPTH, visible: visible + batch.visible, isMixed: true };
      },
    });
    const worker = bench.worker({ queue, slots: 1, reconcileMs: 1e9 });
    for (const job of ['b1', 'b2']) {
      await bench.submit(job, LONG, { send: false });
      await bench.queue.send({ v: 1, tenant: 'acme', job, slice: 0, priority: 'batch' });
    }
    for (const step of [50, 100]) {
      await reaches(worker, whereIs('b1'), step);
      clock.advance(5_000);
      await clock.settle();
    }
    for (const job of ['b1', 'b2']) await bench.event('ended', job);
    for (const job of ['b1', 'b2']) expect(bench.kinds(job)).toEqual(['started', 'ended']);
  });

  test('a job of a batch that nothing waits behind is not disturbed', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    const batch = await bench.submit('batch', LONG, { send: false });
    await bench.queue.send({ v: 1, tenant: 'acme', job: 'batch', slice: 0, priority: 'batch' });
    const worker = bench.worker({ slots: 1, reconcileMs: 1e9 });
    for (const step of [50, 100, 150]) {
      await reaches(worker, batch, step);
      clock.advance(5_000);
      await clock.settle();
    }
    await bench.event('ended', 'batch');
    expect(bench.kinds('batch')).toEqual(['started', 'ended']);
  });
});
