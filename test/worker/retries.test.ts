/** Retries by cause: what can never run fails once, what may pass is tried again, what strikes is poisoned, and a machine's end is nobody's fault. */
import { beforeAll, describe, expect, test } from 'vitest';

import { jobIds } from '../../engine/control/ids.ts';
import { readLive } from '../../engine/control/record.ts';
import { codeOf, EngineError } from '../../engine/core/errors.ts';
import { extendJob, forkJob } from '../../engine/job/children.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { runStored } from '../../engine/job/stored.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import type { Head } from '../../engine/kv/head.ts';
import { readStrikes } from '../../engine/kv/strikes.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import type { Queue } from '../../engine/ports/queue.ts';
import type { Worker } from '../../engine/worker/worker.ts';
import { ManualClock } from '../helpers/clock.ts';
import { through } from '../helpers/through.ts';
import { Bench, deadOwner, LONG, quiet, reaches, SHORT, whereIs } from './support.ts';

const anHourAgo = jobIds();

/** The queue of a worker, and how often each message that it got had been received. */
function counted({ queue }: Bench) {
  const counts: number[] = [];
  const receive: Queue['receive'] = async (options) => {
    const received = await queue.receive(options);
    counts.push(...received.map((each) => each.received));
    return received;
  };
  return { counts, queue: through(queue, { receive }) };
}

let expectedLong: unknown;
beforeAll(async () => {
  expectedLong = await quiet(LONG);
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
    // The walk may have sent it once more.
    expect(bench.kinds('five').filter((kind) => kind !== 'dropped')).toEqual(['poisoned']);
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
    expect([...bench.store.snapshot().keys()].filter((key) => !/^(idx|expire)\//.test(key)), 'erased with the job').toEqual(['kv/acme/sums/HEAD']);
  });

  test.each([['spec', /\/spec-/], ['manifest', /\/m\//]])('a job whose %s is damaged for good is poisoned, with the evidence, though nobody can take it', async (_, damaged) => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    const where = await bench.submit('sums', LONG);
    const first = bench.worker({ slots: 1, reconcileMs: 1e9 });
    await reaches(first, where, 50);
    await first.drain({ deadlineMs: 60_000 });
    for (const key of bench.store.snapshot().keys()) if (damaged.test(key)) await bench.store.put(key, [Buffer.from('{}')]);
    bench.events.length = 0;
    bench.worker({ strikesMax: 3, reconcileMs: 1e9 });
    while (!bench.kinds('sums').includes('poisoned')) {
      clock.advance(1_000);
      await clock.settle();
    }
    expect(bench.kinds('sums')).toEqual(['started', 'failed', 'started', 'failed', 'started', 'poisoned']);
    const { evidence } = await bench.event('poisoned', 'sums');
    expect(evidence).toMatchObject([{ epoch: 2, code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^(damaged|truncated):/) as unknown }]);
    expect(await readLive(bench.store, where).catch(codeOf), 'whoever asks for it is told').toMatchObject({ head: { state: 'poisoned', strikes: 0 } });
  });

  test('a message that only waited counts as none that failed: it is no dead letter, and one unreadable answer after it poisons nothing', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    await bench.submit('sums', SHORT);
    const { counts, queue } = counted(bench);
    const waiting = bench.worker({ reconcileMs: 1e9, begins: false, queue });
    while (counts.length < 12) {
      clock.advance(30_000);
      await clock.settle();
    }
    await waiting.drain({ deadlineMs: 60_000 });
    expect(new Set(counts)).toEqual(new Set([1]));
    let isLost = true;
    const get: ObjectStore['get'] = async (key, options) => {
      const found = await bench.store.get(key, options);
      // The walk reads it, too.
      if (!isLost || !key.includes('/spec-') || !bench.kinds('sums').includes('started')) return found;
      isLost = false;
      return found === null ? null : { ...found, bytes: 2, chunks: [Buffer.from('{}')] };
    };
    bench.worker({ store: through(bench.store as ObjectStore, { get }), reconcileMs: 1e9 });
    while (!bench.kinds('sums').includes('ended')) {
      clock.advance(1_000);
      await clock.settle();
    }
    expect(isLost).toBe(false);
    expect(bench.kinds('sums').filter((kind) => kind === 'failed' || kind === 'poisoned')).toEqual(['failed']);
  });

  test.each(['elsewhere', 'here'])('a message of a job whose owner lives %s waits as long as that runs, and is no dead letter', async (place) => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    const where = await bench.submit('sums', SHORT, { send: place === 'here' });
    const { counts, queue } = counted(bench);
    let goOn: () => void = () => undefined;
    const held = new Promise<void>((resolve) => (goOn = resolve));
    using _ = { [Symbol.dispose]: () => goOn() };
    const store = through(bench.store as ObjectStore, {
      put: async (key, body, options) => {
        if (/^kv\/acme\/sums\/[stjm]\//.test(key)) await held;
        return await bench.store.put(key, body, options);
      },
    });
    const lease = place === 'here' ? null : await takeJob(bench.store, where, { owner: 'someone elsewhere' });
    bench.worker({ store, reconcileMs: 1e9, queue, slots: 2, sliceMs: 1e9 });
    while ((await bench.head('sums')).state !== 'running') await clock.settle();
    await bench.send('sums', 1);
    const dead = () => bench.queue.dead.list({ max: 1 });
    while (counts.length < 110 && (await dead()).length === 0) {
      await lease?.touch();
      clock.advance(5_000);
      await clock.settle();
    }
    expect(new Set(counts)).toEqual(new Set([1]));
    expect(await dead()).toEqual([]);
    await lease?.commit({ state: 'done', manifest: null, objects: [] });
    goOn();
    while ((await bench.queue.depth()).inFlight > 0 || !bench.kinds('sums').includes('dropped')) {
      clock.advance(15_000);
      await clock.settle();
    }
  });

  test('a shard whose spec is damaged for good ends its job as poisoned, and the others with it', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    await bench.submit('sums', { ...SHORT, shards: 2 });
    for (const key of bench.store.snapshot().keys()) if (key.includes('/spec-')) await bench.store.put(key, [Buffer.from('{}')]);
    bench.worker({ strikesMax: 3, reconcileMs: 1e9, slots: 1 });
    while ((await bench.head('sums')).state !== 'poisoned') {
      clock.advance(1_000);
      await clock.settle();
    }
    expect(await readStrikes(bench.store, whereIs('sums'))).toMatchObject([{ code: 'ERR_CHECKPOINT' }]);
    expect([await bench.head('sums'), await bench.head('sums/0'), await bench.head('sums/1')].map(({ state }) => state).toSorted()).toEqual(['cancelled', 'poisoned', 'poisoned']);
    while ([...bench.store.snapshot().keys()].some((key) => key.startsWith('live/'))) {
      clock.advance(1_000);
      await clock.settle();
    }
  });

  test('a store that takes small objects and no large ones, as a full disk, is no strike, and is tried again later each time', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    await bench.submit('sums', LONG);
    let isFull = true;
    const store = through(bench.store as ObjectStore, {
      put: (key, body, options) => (isFull && key.includes('/s/') ? Promise.reject(new EngineError('ERR_STORE', 'The disk is full.')) : bench.store.put(key, body, options)),
    });
    bench.worker({ store, strikesMax: 3, reconcileMs: 1e9, random: () => 1 - 2 ** -53 });
    const delays = () => bench.events.flatMap((event) => (event.kind === 'failed' ? [Math.round(event.delayMs)] : []));
    while (delays().length < 4) {
      clock.advance(1_000);
      await clock.settle();
    }
    expect(delays()).toEqual([2_000, 4_000, 8_000, 16_000]);
    expect(await bench.head('sums')).toMatchObject({ state: 'parked', strikes: 0 });
    isFull = false;
    while (!bench.kinds('sums').includes('ended')) {
      clock.advance(1_000);
      await clock.settle();
    }
    expect(await bench.result('sums')).toEqual(expectedLong);
  });

  test('a machine that is taken back is never a strike against the job that it ran, however little it had done', async () => {
    await using bench = new Bench();
    await bench.submit('sums', LONG);
    for (let machine = 1; machine <= 6; machine++) {
      // As soon as the job is taken: nothing of it is restored yet, or computed.
      let drained: Promise<boolean> | null = null;
      const put: ObjectStore['put'] = async (key, body, options) => {
        const outcome = await bench.store.put(key, body, options);
        if (key.endsWith('/HEAD')) drained ??= worker.drain({ deadlineMs: 20_000 });
        return outcome;
      };
      const worker: Worker = bench.worker({ strikesMax: 2, store: through(bench.store as ObjectStore, { put }) });
      while (drained === null) await new Promise((resolve) => setImmediate(resolve));
      expect(await drained).toBe(true);
      expect(await bench.head('sums')).toMatchObject({ epoch: machine, strikes: 0, manifest: null });
    }
    bench.worker({ strikesMax: 2 });
    await bench.event('ended', 'sums');
    expect(await bench.result('sums')).toEqual(expectedLong);
  });

  /** A job that two workers had and died of. */
  const suspected = async (bench: Bench, spec: JobSpec) => {
    await bench.submit('suspect', spec, { send: false });
    for (let i = 0; i < 2; i++) await takeJob(bench.store, whereIs('suspect'), { owner: deadOwner(), force: true });
  };

  test('a job that has struck twice runs alone until it gets further: others make room, and come back', async () => {
    await using bench = new Bench();
    for (const job of ['a', 'b']) await bench.submit(job, LONG);
    const beside: (number | undefined)[] = [];
    const strikes = () => (JSON.parse(Buffer.from(bench.store.snapshot().get('kv/acme/suspect/HEAD') ?? []).toString()) as Head).strikes;
    const worker = bench.worker({ slots: 3, onEvent: ({ kind }) => void (kind === 'started' && bench.kinds('suspect').includes('started') && beside.push(strikes())) });
    await Promise.all([reaches(worker, whereIs('a'), 20), reaches(worker, whereIs('b'), 20)]);
    await suspected(bench, SHORT);
    await bench.send('suspect', 2);
    await bench.event('ended', 'suspect');
    await Promise.all(['a', 'b'].map((job) => bench.event('ended', job)));
    const order = bench.events.flatMap((event) => ('where' in event && ['started', 'parked', 'ended'].includes(event.kind) ? [`${event.where.job} ${event.kind}`] : []));
    const running = new Set<string>();
    for (const each of order.slice(0, order.indexOf('suspect started'))) {
      const [job = '', what] = each.split(' ');
      if (what === 'started') running.add(job);
      else running.delete(job);
    }
    expect(running.size, 'nothing beside it').toBe(0);
    expect(beside, 'and nothing begins before its strikes are forgiven').toEqual([2, ...beside.slice(1).map(() => 0)]);
    for (const job of ['a', 'b']) expect(await bench.result(job)).toEqual(expectedLong);
  });

  test('while a job is alone its worker keeps no message that another could have, and takes them when the job has got further, before its end', async () => {
    const clock = new ManualClock();
    await using bench = new Bench(clock);
    await suspected(bench, LONG);
    let goOn: () => void = () => undefined;
    let end: () => void = () => undefined;
    const gates = [new Promise<void>((resolve) => (goOn = resolve)), new Promise<void>((resolve) => (end = resolve))];
    using _ = { [Symbol.dispose]: () => { goOn(); end(); } };
    let commits = 0;
    const store = through(bench.store as ObjectStore, {
      put: async (key, body, options) => {
        if (key.startsWith('kv/acme/suspect/m/')) await gates[Math.min(commits++, 1)];
        return await bench.store.put(key, body, options);
      },
    });
    const short = ['a', 'b', 'c'];
    for (const job of short) await bench.submit(job, SHORT, { send: false });
    bench.worker({ store, slots: 4, reconcileMs: 1e9 });
    await bench.send('suspect', 2);
    await bench.event('started', 'suspect');
    for (const job of short) await bench.send(job);
    for (let i = 0; i < 20; i++) await clock.settle();
    expect(await bench.queue.depth()).toMatchObject({ visible: 3, inFlight: 1 });
    expect(short.flatMap((job) => bench.kinds(job))).toEqual([]);
    goOn();
    await Promise.all(short.map((job) => bench.event('ended', job)));
    expect(bench.kinds('suspect')).toEqual(['started']);
    expect(await bench.head('suspect')).toMatchObject({ state: 'running', strikes: 0 });
    end();
    await bench.event('ended', 'suspect');
    expect(await bench.result('suspect')).toEqual(expectedLong);
  });

  test('a job that waited longer than it was to wait is expired, and one that has begun is not; nor is one of which only a message says so', async () => {
    await using bench = new Bench();
    const [late, begun, forged, patient] = Array.from({ length: 4 }, () => anHourAgo(Date.now() - 3_600_000)) as [string, string, string, string];
    for (const job of [late, begun]) await bench.submit(job, { ...SHORT, wait_ms_max: 1_000 }, { send: false });
    await bench.submit(forged, SHORT, { send: false });
    await bench.submit(patient, { ...SHORT, wait_ms_max: 86_400_000 }, { send: false });
    const lease = await takeJob(bench.store, whereIs(begun), { owner: 'me' });
    await lease.commit({ state: 'parked', manifest: null, objects: [] });
    for (const job of [late, begun, forged, patient]) await bench.queue.send({ v: 1, tenant: 'acme', job, slice: job === begun ? 1 : 0, expiresMs: 1 });
    // No walk comes before it.
    bench.worker({ store: through(bench.store as ObjectStore, { list: async function* () { /* Nothing lives. */ } }) });
    await bench.event('expired', late);
    for (const job of [begun, forged, patient]) await bench.event('ended', job);
    expect(await bench.head(late)).toMatchObject({ state: 'expired', epoch: 1 });
    expect(bench.kinds(late)).toEqual(['expired']);
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
    expect(await readStrikes(bench.store, whereIs('vast'))).toMatchObject([{ code: 'ERR_PROMPT_TOO_LONG' }]);
    await bench.submit('next', SHORT);
    await bench.event('ended', 'next');
    expect(bench.kinds('vast')).toEqual(['started', 'refused']);
  });

  test.each(['a fork', 'an extension'] as const)('%s whose parent is erased before it begins fails once, and says why', async (kind) => {
    await using bench = new Bench();
    const { store } = bench;
    const where = whereIs('parent');
    await runStored(SHORT, { store, where, threads: 1 });
    if (kind === 'a fork') await forkJob({ at: 2, chain: 0, width: 1, seed: undefined, length: undefined, as: 'child' }, { store, where });
    else await extendJob({ length: undefined, width: '4', kvReadBudget: undefined, as: 'child' }, { store, where });
    await eraseJob(store, where);
    bench.worker();
    await bench.send('child');
    expect((await bench.event('refused', 'child')).error).toMatchObject({ code: 'ERR_PARENT_ERASED' });
    expect(await bench.head('child')).toMatchObject({ state: 'failed' });
    expect(await readStrikes(store, whereIs('child'))).toMatchObject([{ code: 'ERR_PARENT_ERASED' }]);
    expect(bench.kinds('child')).toEqual(['started', 'refused']);
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
