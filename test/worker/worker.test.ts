/** Messages are hints and workers are mortal: whatever happens to either, a job runs to the one result it has. */
import { beforeAll, describe, expect, test } from 'vitest';

import { EngineError } from '../../engine/core/errors.ts';
import { endJob } from '../../engine/kv/end.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import type { Queue } from '../../engine/ports/queue.ts';
import { verdictOf } from '../../engine/worker/verdict.ts';
import type { Worker } from '../../engine/worker/worker.ts';
import { ManualClock } from '../helpers/clock.ts';
import { through } from '../helpers/through.ts';
import { type JobStatus, STATUS } from '../../functions/jobs/views.ts';
import { Bench, deadOwner, LONG, quiet, reaches, SHORT, whereIs } from './support.ts';

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

  test('the message of a worker that was killed comes back, and the next one goes on at once, without the walk', async () => {
    await using bench = new Bench();
    await bench.submit('sums', SHORT);
    // Received and taken, and then nothing more.
    const [lost] = await bench.queue.receive({ max: 1, waitMs: 0, visibilityMs: 0 });
    await takeJob(bench.store, whereIs('sums'), { owner: deadOwner() });
    expect(lost).toMatchObject({ message: { slice: 0 }, received: 1 });
    bench.worker({ reconcileMs: 1e9 });
    await bench.event('ended', 'sums');
    expect(bench.kinds('sums')).toEqual(['started', 'ended']);
    expect(await bench.head('sums')).toMatchObject({ state: 'done', slice: 2 });
    expect(await bench.queue.depth()).toMatchObject({ visible: 0, inFlight: 0 });
    expect(await bench.result('sums')).toEqual(expected);
  });

  test.each([
    ['could not be sent', true], ['was never sent, as its worker was killed after the commit', false],
  ])('a continuation that %s is made up for by the message that comes back, without the walk', async (_, isTried) => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    const where = await bench.submit('sums', LONG);
    let failures = 0;
    const send: Queue['send'] = async () => {
      failures++;
      throw new EngineError('ERR_QUEUE', 'No answer in 60 s.');
    };
    if (isTried) {
      const worker = bench.worker({ slots: 1, sliceMs: 5_000, reconcileMs: 1e9, queue: through(bench.queue, { send }) });
      await reaches(worker, where, 50);
      clock.advance(5_000);
      await bench.event('parked', 'sums');
      while (failures === 0) await clock.settle();
      await worker.drain({ deadlineMs: 1e9 });
    } else {
      await bench.queue.receive({ max: 1, waitMs: 0, visibilityMs: 120_000 });
      await (await takeJob(bench.store, where, { owner: deadOwner() })).commit({ state: 'parked', manifest: null, objects: [] });
    }
    expect(await bench.head('sums')).toMatchObject({ state: 'parked', slice: 1 });
    expect(await bench.queue.depth()).toMatchObject({ visible: 0, inFlight: 1 });
    bench.worker({ reconcileMs: 1e9 });
    await clock.settle();
    clock.advance(120_000);
    await bench.event('ended', 'sums');
    expect(bench.kinds('sums').slice(-2)).toEqual(['started', 'ended']);
    expect(await bench.head('sums')).toMatchObject({ state: 'done', slice: 2 });
    expect(await bench.queue.depth()).toMatchObject({ visible: 0, inFlight: 0 });
    expect(await bench.result('sums')).toEqual(expectedLong);
  });

  test('a message that comes back although its continuation was sent makes no slice run twice', async () => {
    await using bench = new Bench();
    const where = await bench.submit('sums', SHORT);
    await bench.queue.receive({ max: 1, waitMs: 0, visibilityMs: 0 });
    await (await takeJob(bench.store, where, { owner: 'someone' })).commit({ state: 'parked', manifest: null, objects: [] });
    await bench.send('sums', 1);
    // Both at once, to two workers, whichever of them is the first to swap the head.
    for (let i = 0; i < 2; i++) bench.worker({ slots: 1, reconcileMs: 1e9 });
    await bench.event('ended', 'sums');
    await bench[Symbol.asyncDispose]();
    expect(await bench.head('sums')).toMatchObject({ state: 'done', epoch: 2, slice: 2 });
    expect(bench.kinds('sums').filter((kind) => kind === 'ended')).toHaveLength(1);
    expect(await bench.result('sums')).toEqual(expected);
  });

  test('of a parked job an older message runs what it led to itself, and nothing that another has', async () => {
    await using bench = new Bench();
    await bench.submit('sums', SHORT, { send: false });
    const lease = await takeJob(bench.store, whereIs('sums'), { owner: 'someone' });
    const parked = { ...(await lease.commit({ state: 'parked', manifest: null, objects: [] })), slice: 4 };
    const kinds = (slice: number) => [1, 2, 3, 4].map((received) => verdictOf({ v: 1, tenant: 'acme', job: 'sums', slice }, parked, { received, strikesMax: 5, isUnmoved: () => false, isLate: false }).kind);
    expect(kinds(4), 'its continuation').toEqual(['run', 'run', 'run', 'run']);
    expect(kinds(3), 'the message of its last take, which has come back').toEqual(['drop', 'run', 'run', 'run']);
    expect(kinds(2), 'that of the take before, if it led to the last one too').toEqual(['drop', 'drop', 'run', 'run']);
  });

  test('one that comes back while its job runs elsewhere waits, and is removed when the job has ended', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    await bench.submit('sums', SHORT);
    await bench.queue.receive({ max: 1, waitMs: 0, visibilityMs: 0 });
    const lease = await takeJob(bench.store, whereIs('sums'), { owner: 'someone elsewhere' });
    bench.worker({ reconcileMs: 1e9 });
    await clock.settle();
    expect(await bench.queue.depth()).toMatchObject({ visible: 0, inFlight: 0 });
    await lease.commit({ state: 'done', manifest: null, objects: [] });
    clock.advance(15_000);
    expect(await bench.event('dropped', 'sums')).toMatchObject({ why: 'ended' });
    expect(bench.kinds('sums')).toEqual(['dropped']);
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

  test('every phase of a cold start is said: what finding, fetching and reading the model took, then the prompt, then the first token', async () => {
    await using bench = new Bench();
    bench.worker();
    await bench.submit('sums', SHORT);
    await bench.event('ended', 'sums');
    const reached = bench.events.filter((event) => event.kind === 'reached');
    expect(reached.map(({ phase }) => phase)).toEqual(['loaded', 'prefilled', 'first_token']);
    expect(Object.keys(reached[0]?.load ?? {}).sort()).toEqual(['bytes', 'fetch_ms', 'fetched_bytes', 'map_ms', 'resolve_ms', 'verify_ms', 'warm_ms']);
    expect(reached[0]?.load?.bytes).toBeGreaterThan(3_000_000);
  });

  test('the status of a job only goes forward, whatever happens to its slices', async () => {
    await using bench = new Bench();
    const order: readonly JobStatus[] = ['queued', 'in_progress', 'completed'];
    const seen: JobStatus[] = [];
    const store = through(bench.store as ObjectStore, {
      put: async (key, body, options) => {
        const outcome = await bench.store.put(key, body, options);
        if (key.endsWith('/HEAD')) seen.push(STATUS[(await bench.head('sums')).state]);
        return outcome;
      },
    });
    await bench.submit('sums', LONG);
    seen.push(STATUS[(await bench.head('sums')).state]);
    // A machine that is taken back at once, one that slices, and messages that come twice.
    const drained = new Promise((resolve) => {
      const first: Worker = bench.worker({ store, onEvent: ({ kind }) => { if (kind === 'started') resolve(first.drain({ deadlineMs: 20_000 })); } });
    });
    await drained;
    bench.worker({ store, sliceMs: 0, onEvent: ({ kind }) => { if (kind === 'started') void bench.send('sums'); } });
    await bench.event('ended', 'sums');
    expect(seen.length).toBeGreaterThan(10);
    expect(seen).toEqual(seen.toSorted((a, b) => order.indexOf(a) - order.indexOf(b)));
    expect(new Set(seen)).toEqual(new Set(order));
  });

  test('two jobs that are sliced take turns', async () => {
    await using bench = new Bench();
    await bench.submit('a', LONG);
    await bench.submit('b', LONG);
    bench.worker({ sliceMs: 0, slots: 1 });
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
    expect(first.speed('countdown@cr2', 2), 'measured').toMatchObject({ tokensPerSecond: expect.toSatisfy((rate: number) => rate > 1), basis: 'jobs' });
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
    expect(worker.speed('countdown@cr2', 2)).toBeNull();
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
    expect((await bench.event('fenced', 'long')).step, 'not its end').toBeLessThan(900);
    await bench.event('ended', 'next');
    expect(bench.kinds('long')).toEqual(['started', 'fenced']);
    expect(await bench.head('long')).toMatchObject({ state: 'cancelled' });
    expect(await bench.result('next')).toEqual(expected);
  });

  test('one that was cancelled in another process stops at its next commit', async () => {
    await using bench = new Bench();
    const where = whereIs('long');
    // Ended while it writes: a commit is what finds out.
    let ended: Promise<unknown> | null = null;
    const put: ObjectStore['put'] = async (key, chunks, options) => {
      if (ended === null && (worker.report(where)?.step ?? 0) >= 50) await (ended = endJob(bench.store, where, 'cancelled'));
      return await bench.store.put(key, chunks, options);
    };
    const worker = bench.worker({ store: through(bench.store as ObjectStore, { put }) });
    await bench.submit('long', LONG);
    expect((await bench.event('fenced', 'long')).step, 'not its end').toBeLessThan(900);
    expect(ended).not.toBeNull();
    expect(await bench.head('long')).toMatchObject({ state: 'cancelled' });
  });
});
