/** Messages are hints and workers are mortal: whatever happens to either, a job runs to the one result it has. */
import { beforeAll, describe, expect, test } from 'vitest';

import { EngineError } from '../../engine/core/errors.ts';
import { ownerHint } from '../../engine/job/slice.ts';
import { endJob } from '../../engine/kv/end.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import type { Queue } from '../../engine/ports/queue.ts';
import type { Worker } from '../../engine/worker/worker.ts';
import { ManualClock } from '../helpers/clock.ts';
import { through } from '../helpers/through.ts';
import { Bench, LONG, quiet, reaches, SHORT, whereIs } from './support.ts';

let expected: unknown;
let expectedLong: unknown;
beforeAll(async () => {
  expected = await quiet(SHORT);
  expectedLong = await quiet(LONG);
});

describe('messages', () => {
  test('a duplicate message runs the job once', async () => {
    await using bench = new Bench();
    let duplicates = 0;
    const again = () => void (duplicates++ < 5 && bench.send('sums'));
    const workers = [0, 1].map(() => bench.worker({ onEvent: ({ kind }) => kind === 'started' && again() }));
    const where = await bench.submit('sums', SHORT);
    while (!bench.kinds('sums').includes('ended')) {
      await Promise.race(workers.map((worker) => worker.changed(where, 50)));
      again();
    }
    await bench.send('sums');
    await bench.event('dropped', 'sums');
    expect(duplicates).toBeGreaterThan(1);
    expect(await bench.head('sums')).toMatchObject({ state: 'done', epoch: 1, slice: 1 });
    expect(bench.kinds('sums').filter((kind) => kind === 'ended')).toHaveLength(1);
    expect(await bench.result('sums')).toEqual(expected);
  });

  test('a message for a job that is gone is removed, and one whose names are no names', async () => {
    await using bench = new Bench();
    await bench.send('nowhere');
    await bench.queue.send({ v: 1, tenant: '../acme', job: 'x', slice: 0 });
    bench.worker();
    expect(await bench.event('dropped', 'nowhere')).toMatchObject({ why: 'no such job' });
    expect(await bench.event('dropped', 'x')).toMatchObject({ why: 'no such job' });
    await bench[Symbol.asyncDispose]();
    expect(await bench.queue.depth()).toMatchObject({ visible: 0, inFlight: 0 });
  });

  test('a message that is older than the head is removed, whatever the job does', async () => {
    await using bench = new Bench();
    await bench.submit('sums', SHORT, { send: false });
    await takeJob(bench.store, whereIs('sums'), { owner: 'someone' });
    await bench.send('sums', 0);
    bench.worker();
    expect(await bench.event('dropped', 'sums')).toMatchObject({ why: 'older slice' });
    expect(await bench.head('sums')).toMatchObject({ state: 'running', epoch: 1 });
  });

  test('a job whose owner may live is left to it, and taken when it has been silent for too long', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    await bench.submit('sums', SHORT, { send: false });
    await takeJob(bench.store, whereIs('sums'), { owner: 'someone elsewhere' });
    await bench.send('sums', 1);
    bench.worker({ reconcileMs: 1e9 });
    for (let waited = 0; bench.kinds('sums').length === 0; waited += 5_000) {
      expect(waited, 'taken at last').toBeLessThan(90_000);
      if (waited > 0 && waited <= 40_000) expect(await bench.head('sums')).toMatchObject({ epoch: 1 });
      await clock.settle();
      clock.advance(5_000);
      await clock.settle();
    }
    await bench.event('ended', 'sums');
    expect(await bench.head('sums')).toMatchObject({ state: 'done', epoch: 2 });
    expect(await bench.result('sums')).toEqual(expected);
  });

  test('the message of a job that runs stays hidden', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    const extended: number[] = [];
    const { queue } = bench;
    const extend: typeof queue.extend = (receipt, visibilityMs, options) => {
      extended.push(visibilityMs);
      return queue.extend(receipt, visibilityMs, options);
    };
    const where = await bench.submit('sums', LONG);
    const worker = bench.worker({ queue: through(queue, { extend }), visibilityMs: 90_000, reconcileMs: 1e9 });
    for (let third = 1; third <= 4; third++) {
      await reaches(worker, where, third * 100);
      clock.advance(30_000);
      await clock.settle();
      expect(extended).toHaveLength(third);
      expect(await queue.depth()).toMatchObject({ visible: 0, inFlight: 1 });
    }
    expect(new Set(extended)).toEqual(new Set([90_000]));
    expect((await bench.event('ended', 'sums')).state).toBe('done');
  });
});

describe('slices', () => {
  test('a job that runs too long is sliced and gives the same result as unsliced', async () => {
    await using bench = new Bench();
    bench.worker({ sliceMs: 0 });
    await bench.submit('sums', LONG);
    await bench.event('ended', 'sums');
    const parked = bench.events.filter((event) => event.kind === 'parked');
    expect(parked.length).toBeGreaterThan(3);
    expect(parked.map(({ why }) => why)).toEqual(parked.map(() => 'slice'));
    expect(await bench.head('sums')).toMatchObject({ state: 'done', slice: parked.length + 1, strikes: 0 });
    expect(await bench.result('sums')).toEqual(expectedLong);
  });

  test('two jobs that are sliced take turns', async () => {
    await using bench = new Bench();
    await bench.submit('a', LONG);
    await bench.submit('b', LONG);
    bench.worker({ sliceMs: 0 });
    await Promise.all([bench.event('ended', 'a'), bench.event('ended', 'b')]);
    const turns = bench.events.flatMap((event) => (event.kind === 'started' ? [event.where.job] : []));
    expect(turns.slice(0, 6)).toEqual(['a', 'b', 'a', 'b', 'a', 'b']);
    for (const job of ['a', 'b']) expect(await bench.result(job)).toEqual(expectedLong);
  });

  test('a worker that drains parks and another goes on with the same tokens', async () => {
    await using bench = new Bench();
    const first = bench.worker();
    const where = await bench.submit('sums', LONG);
    await reaches(first, where, 100);
    expect(await first.drain({ deadlineMs: 20_000 })).toBe(true);
    expect(first.report(where)).toBeNull();
    expect(first).toMatchObject({ state: 'draining', running: 0 });
    expect(await bench.head('sums')).toMatchObject({ state: 'parked', slice: 1 });
    expect(first.tokensPerSecond('countdown@cr2'), 'measured').toBeGreaterThan(1);
    expect(await bench.queue.depth(), 'its continuation').toMatchObject({ visible: 1, inFlight: 0 });
    bench.worker();
    await bench.event('ended', 'sums');
    expect(await bench.head('sums')).toMatchObject({ state: 'done', slice: 2 });
    expect(await bench.result('sums')).toEqual(expectedLong);
  });

  test('a drain that is not waited for says so, and the job is parked all the same', async () => {
    await using bench = new Bench();
    const worker = bench.worker();
    const where = await bench.submit('sums', LONG);
    await reaches(worker, where, 100);
    expect(await worker.drain({ deadlineMs: 20_000, signal: AbortSignal.abort() })).toBe(false);
    expect((await bench.event('parked', 'sums')).why).toBe('drain');
  });

  test('a worker that drains while it still looks at a message gives it back at once', async () => {
    await using bench = new Bench();
    await bench.submit('sums', LONG);
    let worker: Worker | null = null;
    let drained: Promise<boolean> | null = null;
    const get: ObjectStore['get'] = (key, options) => {
      if (key.endsWith('/HEAD')) drained ??= worker?.drain({ deadlineMs: 20_000 }) ?? null;
      return bench.store.get(key, options);
    };
    worker = bench.worker({ store: through(bench.store as ObjectStore, { get }), reconcileMs: 1e9 });
    while (drained === null) await new Promise((resolve) => setImmediate(resolve));
    expect(await drained).toBe(true);
    expect(await bench.head('sums')).toMatchObject({ strikes: 0 });
    expect(await bench.queue.depth()).toMatchObject({ visible: 1, inFlight: 0 });
  });

  test('a worker that has nothing to do drains at once', async () => {
    await using bench = new Bench();
    const worker = bench.worker();
    expect(worker).toMatchObject({ state: 'ready', running: 0 });
    expect(worker.tokensPerSecond('countdown@cr2')).toBeNull();
    expect(await worker.drain({ deadlineMs: 20_000 })).toBe(true);
  });
});

describe('endings from outside', () => {
  test('a cancelled job stops and its worker takes the next', async () => {
    await using bench = new Bench();
    const worker = bench.worker({ policy: { deltaTokens: 1e6, deltaMs: 1e6, journalMs: 1e6 } });
    const where = await bench.submit('long', LONG);
    await bench.submit('next', SHORT);
    await reaches(worker, where, 50);
    await endJob(bench.store, where, 'cancelled');
    worker.interrupt(where);
    expect((await bench.event('fenced', 'long')).step, 'of 900').toBeLessThan(300);
    await bench.event('ended', 'next');
    expect(bench.kinds('long')).toEqual(['started', 'fenced']);
    expect(await bench.head('long')).toMatchObject({ state: 'cancelled' });
    expect(await bench.result('next')).toEqual(expected);
  });

  test('one that was cancelled in another process stops at its next commit', async () => {
    await using bench = new Bench();
    const worker = bench.worker();
    const where = await bench.submit('long', LONG);
    await reaches(worker, where, 50);
    await endJob(bench.store, where, 'cancelled');
    expect((await bench.event('fenced', 'long')).step, 'of 900').toBeLessThan(500);
    expect(await bench.head('long')).toMatchObject({ state: 'cancelled' });
  });
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
    const worker = bench.worker({ reconcileMs: 1e9 });
    await reaches(worker, batch, 50);
    await bench.submit('chat', SHORT);
    clock.advance(5_000);
    expect((await bench.event('parked', 'batch')).why).toBe('turn');
    await bench.event('ended', 'chat');
    await bench.event('ended', 'batch');
    expect(bench.events.flatMap((event) => (event.kind === 'ended' ? [event.where.job] : []))).toEqual(['chat', 'batch']);
    expect(await bench.result('batch')).toEqual(expectedLong);
  });

  test('a job of a batch that nothing waits behind is not disturbed', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    const batch = await bench.submit('batch', LONG, { send: false });
    await bench.queue.send({ v: 1, tenant: 'acme', job: 'batch', slice: 0, priority: 'batch' });
    const worker = bench.worker({ reconcileMs: 1e9 });
    for (const step of [50, 100, 150]) {
      await reaches(worker, batch, step);
      clock.advance(5_000);
      await clock.settle();
    }
    await bench.event('ended', 'batch');
    expect(bench.kinds('batch')).toEqual(['started', 'ended']);
  });
});

describe('faults', () => {
  test('poisoned after N strikes, and not before, with evidence of each', async () => {
    await using bench = new Bench();
    for (const [job, strikes] of [['four', 4], ['five', 5]] as const) {
      await bench.submit(job, SHORT, { send: false });
      // So many workers took it and died.
      for (let i = 0; i < strikes; i++) await takeJob(bench.store, whereIs(job), { owner: deadOwner(), force: true });
      await bench.send(job, strikes);
    }
    bench.worker();
    const { strikes, evidence } = await bench.event('poisoned', 'five');
    expect(strikes).toBe(5);
    expect(evidence).toMatchObject([{ epoch: 5, owner: deadOwner(), code: null }]);
    await bench.event('ended', 'four');
    expect(bench.kinds('five')).toEqual(['poisoned']);
    expect(await bench.head('five')).toMatchObject({ state: 'poisoned' });
    expect(await bench.head('four')).toMatchObject({ state: 'done', strikes: 0 });
  });

  test('a job that fails on its worker again and again is poisoned, and every failure is told', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    const where = await bench.submit('sums', SHORT, { send: false });
    await bench.send('sums');
    // Its first object cannot be written, by a fault that is no machine's.
    const store = through(bench.store as ObjectStore, {
      put: (key, body, options) => (/^kv\/acme\/sums\/[stj]\//.test(key) ? Promise.reject(new EngineError('ERR_INTERNAL', `Broken rule: ${key.length}`)) : bench.store.put(key, body, options)),
    });
    bench.worker({ store, strikesMax: 3, reconcileMs: 1e9 });
    while (!bench.kinds('sums').includes('poisoned')) {
      clock.advance(1_000);
      await clock.settle();
    }
    expect(bench.kinds('sums')).toEqual(['started', 'failed', 'started', 'failed', 'started', 'failed', 'poisoned']);
    expect(bench.events.flatMap((event) => (event.kind === 'started' ? [event.alone] : [])), 'from the second strike on').toEqual([false, false, true]);
    const { evidence } = await bench.event('poisoned', 'sums');
    expect(evidence.map(({ epoch, code }) => [epoch, code])).toEqual([[1, 'ERR_INTERNAL'], [2, 'ERR_INTERNAL'], [3, 'ERR_INTERNAL']]);
    await eraseJob(bench.store, where);
    expect([...bench.store.snapshot().keys()].filter((key) => !key.startsWith('idx/')), 'erased with the job').toEqual(['kv/acme/sums/HEAD']);
  });

  test('a machine that is taken back is never a strike against the job that it ran, however little it had done', async () => {
    await using bench = new Bench();
    await bench.submit('sums', LONG);
    for (let machine = 1; machine <= 6; machine++) {
      // As soon as it has the job.
      const drained = new Promise<boolean>((resolve) => {
        const worker: Worker = bench.worker({ strikesMax: 2, onEvent: ({ kind }) => { if (kind === 'started') resolve(worker.drain({ deadlineMs: 20_000 })); } });
      });
      expect(await drained).toBe(true);
      expect(bench.kinds('sums').filter((kind) => kind === 'started')).toHaveLength(machine);
      expect(await bench.head('sums')).toMatchObject({ strikes: 0 });
    }
    bench.worker({ strikesMax: 2 });
    await bench.event('ended', 'sums');
    expect(await bench.result('sums')).toEqual(expectedLong);
  });

  test('a job that has struck twice runs alone: others make room, and come back when it is done', async () => {
    await using bench = new Bench();
    for (const job of ['a', 'b']) await bench.submit(job, LONG);
    const worker = bench.worker({ slots: 3 });
    await Promise.all([reaches(worker, whereIs('a'), 20), reaches(worker, whereIs('b'), 20)]);
    await bench.submit('suspect', SHORT, { send: false });
    for (let i = 0; i < 2; i++) await takeJob(bench.store, whereIs('suspect'), { owner: deadOwner(), force: true });
    await bench.send('suspect', 2);
    await bench.event('ended', 'suspect');
    await Promise.all(['a', 'b'].map((job) => bench.event('ended', job)));
    const order = bench.events.flatMap((event) => ('where' in event && ['started', 'parked', 'ended'].includes(event.kind) ? [`${event.where.job} ${event.kind}`] : []));
    const [from, to] = [order.indexOf('suspect started'), order.indexOf('suspect ended')];
    expect(to).toBe(from + 1);
    const running = new Set<string>();
    for (const each of order.slice(0, from)) {
      const [job = '', what] = each.split(' ');
      if (what === 'started') running.add(job);
      else running.delete(job);
    }
    expect(running.size, 'nothing beside it').toBe(0);
    for (const job of ['a', 'b']) expect(await bench.result(job)).toEqual(expectedLong);
  });

  test('a job that waited longer than it was to wait is expired, and one that has begun is not', async () => {
    await using bench = new Bench();
    await bench.submit('late', SHORT, { send: false });
    await bench.submit('begun', SHORT, { send: false });
    const lease = await takeJob(bench.store, whereIs('begun'), { owner: 'me' });
    await lease.commit({ state: 'parked', manifest: null, objects: [] });
    for (const [job, slice] of [['late', 0], ['begun', 1]] as const) await bench.queue.send({ v: 1, tenant: 'acme', job, slice, expiresMs: 1 });
    bench.worker();
    await bench.event('expired', 'late');
    await bench.event('ended', 'begun');
    expect(await bench.head('late')).toMatchObject({ state: 'expired', epoch: 1 });
    expect(bench.kinds('late')).toEqual(['expired']);
  });

  test('a message that is none of ours is left for the dead letters, and the next one is taken', async () => {
    await using bench = new Bench();
    const released: [string, number][] = [];
    let handed = 0;
    const receive: Queue['receive'] = async (options) => (handed++ === 0 ? [{ message: null, receipt: 'theirs', received: 7 }] : await bench.queue.receive(options));
    const release: Queue['release'] = async (receipt, delayMs, options) => (receipt === 'theirs' ? void released.push([receipt, delayMs]) : await bench.queue.release(receipt, delayMs, options));
    await bench.submit('sums', SHORT);
    bench.worker({ queue: through(bench.queue, { receive, release }) });
    await bench.event('ended', 'sums');
    expect(await bench.event('foreign')).toMatchObject({ received: 7 });
    expect(released).toEqual([['theirs', 900_000]]);
  });

  test('a job that no machine can run fails once', async () => {
    await using bench = new Bench();
    bench.worker();
    await bench.submit('vast', SHORT, {
      change: (stored) => ({ ...stored, spec: { ...stored.spec, budget: { lengths: [1 << 20, 1 << 20] } }, lengths: [1 << 20, 1 << 20] }),
    });
    expect((await bench.event('refused', 'vast')).error).toMatchObject({ code: 'ERR_PROMPT_TOO_LONG' });
    expect(await bench.head('vast')).toMatchObject({ state: 'failed' });
    await bench.submit('next', SHORT);
    await bench.event('ended', 'next');
    expect(bench.kinds('vast')).toEqual(['started', 'refused']);
  });

  test('what may pass is tried again, later each time, and costs the job nothing', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    let tries = 0;
    bench.worker({
      reconcileMs: 1e9,
      random: () => 1 - 2 ** -53,
      models: { find: () => Promise.reject(new EngineError('ERR_MODEL_NOT_FOUND', `not here: ${++tries}`)) },
    });
    await bench.submit('sums', SHORT);
    for (let count = 1; count <= 4; count++) {
      while (tries < count) {
        clock.advance(1_000);
        await clock.settle();
      }
    }
    const delays = bench.events.flatMap((event) => (event.kind === 'failed' ? [Math.round(event.delayMs)] : []));
    expect(delays.slice(0, 3)).toEqual([2_000, 4_000, 8_000]);
    expect(await bench.head('sums')).toMatchObject({ state: 'queued', strikes: 0 });
  });
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

/** Of this machine, and of a process that is not there. */
function deadOwner(): string {
  return ownerHint().replace(/^\d+-\d+/, `${2 ** 22 + 1}-1`);
}
