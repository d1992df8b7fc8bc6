import { describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { readJob } from '../../engine/kv/create.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { ManualClock } from '../helpers/clock.ts';
import { code, commitSteps, content, createdJob, HEAD_KEY, headOf, onTop, SPEC, step, stepsOf, storeWith, takenJob, WHERE } from './support.ts';

const objectsOf = (store: MemoryStore) => [...store.snapshot().keys()].filter((key) => /\/[mstj]\//.test(key));

/** In small steps, so that whoever waits for less wakes in between. */
async function passed(clock: ManualClock, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 100) {
    clock.advance(100);
    await clock.settle();
  }
}

describe('taking', () => {
  test('a take raises epoch and slice, and counts a strike until tokens advance', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const lease = await takenJob(store);
    expect(lease.head).toMatchObject({ state: 'running', epoch: 1, slice: 1, strikes: 1, owner: 'test' });
    expect(lease).toMatchObject({ manifest: null, spec: SPEC });
    expect(await commitSteps(lease, 0)).toMatchObject({ strikes: 0, version: 2 });
  });

  test('no job: ERR_JOB_NOT_FOUND; one that has ended: ERR_JOB_CONFLICT with its state', async () => {
    const store = new MemoryStore();
    await expect(takenJob(store)).rejects.toMatchObject(code('ERR_JOB_NOT_FOUND'));
    await createdJob(store);
    const lease = await takenJob(store);
    await lease.commit({ state: 'done', manifest: onTop(lease), objects: [step(0)] });
    await expect(takenJob(store, { force: true })).rejects.toMatchObject({ ...code('ERR_JOB_CONFLICT'), message: expect.stringContaining('done') as string });
  });

  test('a running job is left to an owner that lives, and taken from one that has been still for three intervals', async () => {
    const store: MemoryStore = new MemoryStore({
      before: async ({ kind, key, actor }) => {
        if (actor === 'second' && kind === 'get' && key === HEAD_KEY && lives) await commitSteps(first, n++);
      },
    });
    let [lives, n] = [true, 0];
    await createdJob(store);
    const first = await takenJob(store);
    const second = store.as('second');
    await expect(takenJob(second, { commitIntervalMs: 1_000, waitMs: 20_000 })).rejects.toMatchObject({ ...code('ERR_JOB_CONFLICT'), message: expect.stringContaining('running') as string });
    expect(n).toBeGreaterThan(10);
    await expect(takenJob(second, { waitMs: 0 })).rejects.toMatchObject(code('ERR_JOB_CONFLICT'));
    lives = false;
    expect((await takenJob(second, { commitIntervalMs: 1_000 })).head.epoch).toBe(2);
    await expect(commitSteps(first, n)).rejects.toMatchObject(code('ERR_FENCED'));
  });

  test('an owner that commits every 2.9 intervals keeps its job, one that is still for 4 has lost it', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const [clock, first] = [new ManualClock(), await takenJob(store)];
    const taking = takenJob(store, { clock, commitIntervalMs: 1_000, waitMs: 60_000 });
    let taken = false;
    void taking.then(() => (taken = true));
    for (let n = 0; n < 4; n++) {
      await passed(clock, 2_900);
      expect(taken).toBe(false);
      await commitSteps(first, n);
    }
    await passed(clock, 3_000);
    expect(taken).toBe(false);
    // The taker looks once an interval, so it may learn of the last commit as late as that.
    await passed(clock, 1_000);
    expect((await taking).head.epoch).toBe(2);
  });

  test('a taker counts in the interval of the owner that it watches, whatever its own', async () => {
    for (const [theirs, mine] of [[30_000, 1_000], [1_000, 30_000]] as const) {
      const store = new MemoryStore();
      await createdJob(store);
      const [clock, first] = [new ManualClock(), await takenJob(store, { commitIntervalMs: theirs })];
      expect(first.head.owner).toBe(`test, ${theirs} ms`);
      let taken = false;
      const taking = takenJob(store, { clock, commitIntervalMs: mine, waitMs: 100 * theirs }).then((lease) => ((taken = true), lease));
      for (let n = 0; n < 3; n++) {
        await passed(clock, 2.9 * theirs);
        expect(taken).toBe(false);
        await first.touch();
      }
      await passed(clock, 4.1 * theirs);
      expect((await taking).head).toMatchObject({ epoch: 2, owner: `test, ${mine} ms` });
    }
  });

  test.each([0, -1, Number.NaN, 1_000_000])('%d ms is no interval, and nobody waits in one that a head cannot say', async (commitIntervalMs) => {
    const store = new MemoryStore();
    await createdJob(store);
    await expect(takenJob(store, { commitIntervalMs })).rejects.toMatchObject(code('ERR_OPTION'));
    await expect(takenJob(store, { owner: 'x'.repeat(113) })).rejects.toMatchObject(code('ERR_OPTION'));
    const clock = new ManualClock();
    await takenJob(store, { owner: 'x, 0 ms' });
    const taking = takenJob(store, { clock, commitIntervalMs: 1_000 });
    await passed(clock, 2_900);
    expect(headOf(store).epoch).toBe(1);
    await passed(clock, 1_200);
    expect((await taking).head.epoch).toBe(2);
  });

  test('of takers at once each gets an epoch of its own, and only the last owns the job', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const leases = await Promise.all([1, 2, 3].map(() => takenJob(store, { force: true })));
    expect(leases.map(({ head }) => head.epoch).sort()).toEqual([1, 2, 3]);
    const outcomes = await Promise.allSettled(leases.map((lease) => commitSteps(lease, 0)));
    expect(outcomes.map(({ status }) => status === 'fulfilled')).toEqual(leases.map(({ head }) => head.epoch === 3));
  });

  test.each(['lost_ack', 'late', 'refuse'] as const)('a take whose answer is %s is one take', async (kind) => {
    const store = storeWith({ 0: { kind } });
    await createdJob(store);
    const lease = await takenJob(store);
    store.late.forEach((put) => put.apply());
    expect(lease.head).toEqual(headOf(store));
    expect(lease.head).toMatchObject({ epoch: 1, slice: 1, version: 1 });
  });

  test('a job whose manifest is gone is refused, and left as it is', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const lease = await takenJob(store);
    const { manifest } = await commitSteps(lease, 0);
    await store.delete([`kv/acme/sums/${manifest?.name}`]);
    const before = headOf(store);
    await expect(takenJob(store, { force: true })).rejects.toMatchObject({ ...code('ERR_CHECKPOINT'), message: expect.stringMatching(/^missing: /) as string });
    expect(headOf(store)).toEqual(before);
  });
});

describe('committing', () => {
  test('what is committed is what the next owner reads', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const first = await takenJob(store);
    await commitSteps(first, 0, 1);
    await first.flushJournal(step(2));
    await commitSteps(first, 3);
    expect(await first.commit({ state: 'parked', manifest: null, objects: [] })).toMatchObject({ state: 'parked', journal: [] });
    await expect(commitSteps(first, 4)).rejects.toMatchObject(code('ERR_JOB_CONFLICT'));
    expect(await stepsOf(await takenJob(store))).toEqual([0, 1, 2, 3]);
  });

  test.each(['lost_ack', 'late', 'refuse'] as const)('a commit whose answer is %s is one commit', async (kind) => {
    const store = storeWith({ 1: { kind }, 2: { kind }, 4: { kind } });
    await createdJob(store);
    const lease = await takenJob(store);
    await commitSteps(lease, 0);
    await lease.flushJournal(step(1));
    await commitSteps(lease, 2);
    store.late.forEach((put) => put.apply());
    expect(lease.head).toEqual(headOf(store));
    expect(await stepsOf(lease)).toEqual([0, 1, 2]);
  });

  test('an owner fenced during an upload writes nothing more, not even what it had begun', async () => {
    let second: Promise<unknown> | null = null;
    const store: MemoryStore = new MemoryStore({
      before: async ({ kind, key, actor }) => {
        if (actor === 'first' && kind === 'put' && key.includes('/j/')) await (second ??= takenJob(store, { force: true }));
      },
    });
    await createdJob(store);
    const first = await takenJob(store.as('first'));
    await expect(first.commit({ state: 'running', manifest: onTop(first), objects: [step(0), step(1)] })).rejects.toMatchObject(code('ERR_FENCED'));
    const [writes, log] = [headOf(store), store.log.length];
    await expect(commitSteps(first, 2)).rejects.toMatchObject(code('ERR_FENCED'));
    await expect(first.flushJournal(step(3))).rejects.toMatchObject(code('ERR_FENCED'));
    await expect(first.read({ name: 'j/0/1-0-0000000000000000.jrn', bytes: 1, digest: '' })).rejects.toMatchObject(code('ERR_FENCED'));
    expect(store.log.length).toBe(log);
    expect(writes).toMatchObject({ epoch: 2, manifest: null });
  });

  test('the head takes 16 journals, then says that a delta is due; the delta folds them', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const lease = await takenJob(store);
    for (let n = 0; n < 16; n++) expect(await lease.flushJournal(step(n))).toEqual({ written: true, deltaDue: n === 15 });
    expect(await lease.flushJournal(step(16))).toEqual({ written: false, deltaDue: true });
    expect((await commitSteps(lease, 16)).journal).toEqual([]);
    expect(await stepsOf(lease)).toEqual([...Array(17).keys()]);
  });

  test('a manifest that leaves out what was flushed leaves it in the head', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const lease = await takenJob(store);
    await lease.flushJournal(step(0));
    const flushed = lease.head.journal;
    await lease.commit({ state: 'running', manifest: (refs) => content(refs), objects: [step(1)] });
    expect(lease.head.journal).toEqual(flushed);
    expect(await stepsOf(await takenJob(store, { force: true }))).toEqual([1, 0]);
  });

  test('a strike stays until tokens advance, by a manifest or a flush', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    await takenJob(store);
    const second = await takenJob(store, { force: true });
    expect(second.head.strikes).toBe(2);
    await second.commit({ state: 'running', manifest: (refs) => content(refs, { step: 0 }), objects: [step(0)] });
    expect(second.head.strikes).toBe(2);
    await second.commit({ state: 'running', manifest: null, objects: [] });
    expect(second.head.strikes).toBe(2);
    await second.flushJournal(step(1));
    expect(second.head.strikes).toBe(0);
  });

  test('overlapping calls publish in the order in which they were made', async () => {
    let held: (() => void) | null = null;
    const store = new MemoryStore({ before: ({ key }) => (key.endsWith(`-0-${step(0).nonce}.jrn`) && held === null ? new Promise((resolve) => (held = resolve)) : undefined) });
    await createdJob(store);
    const lease = await takenJob(store);
    const calls = [commitSteps(lease, 0), lease.flushJournal(step(1)), lease.flushJournal(step(2))];
    while (objectsOf(store).length < 2) await new Promise(setImmediate);
    expect(headOf(store).version).toBe(1);
    (held as (() => void) | null)?.();
    await Promise.all(calls);
    expect(await stepsOf(lease)).toEqual([0, 1, 2]);
  });

  test('a call that fails fails those behind it, and the next one may try again', async () => {
    let fails = true;
    const store = new MemoryStore({ faults: ({ kind, key }) => (fails && kind === 'put' && key.includes('/j/') ? { kind: 'fail' } : null) });
    await createdJob(store);
    const lease = await takenJob(store);
    const calls = await Promise.allSettled([commitSteps(lease, 0), lease.commit({ state: 'running', manifest: onTop(lease), objects: [] })]);
    expect(calls.map((call) => (call.status === 'rejected' ? (call.reason as { code: string }).code : call.status))).toEqual(['ERR_STORE', 'ERR_STORE']);
    fails = false;
    await commitSteps(lease, 0);
    expect(await stepsOf(lease)).toEqual([0]);
  });

  test('after a commit whose outcome cannot be found out, nothing is written until the job is taken again', async () => {
    let down = false;
    const store = new MemoryStore({ faults: ({ kind, key, condition }) => (down && key === HEAD_KEY ? (condition === null && kind === 'get' ? { kind: 'fail' } : { kind: 'late' }) : null) });
    await createdJob(store);
    const lease = await takenJob(store);
    down = true;
    await expect(commitSteps(lease, 0)).rejects.toMatchObject({ ...code('ERR_STORE'), message: expect.stringContaining('not known') as string });
    down = false;
    await expect(commitSteps(lease, 0)).rejects.toMatchObject(code('ERR_STORE'));
    const next = await takenJob(store, { force: true });
    expect(store.late.map((put) => put.apply().kind)).toEqual(['refused']);
    await commitSteps(next, 0);
    expect(await stepsOf(next)).toEqual([0]);
  });

  describe('a commit whose outcome cannot be found out, and then the job is given back', () => {
    const undecided = async (state: 'running' | 'done') => {
      let down = false;
      const store = new MemoryStore({ faults: ({ kind, key, condition }) => (down && key === HEAD_KEY ? (condition === null && kind === 'get' ? { kind: 'fail' } : { kind: 'late' }) : null) });
      await createdJob(store);
      const lease = await takenJob(store);
      down = true;
      await expect(lease.commit({ state, manifest: onTop(lease), objects: [step(0)] })).rejects.toMatchObject(code('ERR_STORE'));
      await expect(lease.release({ isStrike: false })).rejects.toMatchObject(code('ERR_STORE'));
      down = false;
      return { store, lease };
    };
    const applied = (store: MemoryStore) => store.late.map((put) => put.apply().kind);

    test('never applied, it never is, and the take was none', async () => {
      const { store, lease } = await undecided('running');
      expect(await lease.release({ isStrike: false })).toMatchObject({ state: 'parked', slice: 0, strikes: 0, manifest: null });
      expect(new Set(applied(store))).toEqual(new Set(['refused']));
      await expect(commitSteps(lease, 0)).rejects.toMatchObject(code('ERR_JOB_CONFLICT'));
      const next = await takenJob(store);
      await commitSteps(next, 0);
      expect(await stepsOf(next)).toEqual([0]);
    });

    test('applied late but before, it stays, and the take counts', async () => {
      const { store, lease } = await undecided('running');
      expect(applied(store)[0]).toBe('written');
      expect(await lease.release({ isStrike: false })).toMatchObject({ state: 'parked', slice: 1 });
      expect(await stepsOf(await takenJob(store))).toEqual([0]);
    });

    test('if it ended the job, that is not undone', async () => {
      const { store, lease } = await undecided('done');
      expect(applied(store)[0]).toBe('written');
      expect(await lease.release({ isStrike: false })).toMatchObject({ state: 'done', slice: 1 });
      expect((await readJob(store, WHERE)).head.state).toBe('done');
    });

    test('and if another has the job by then, nothing is written', async () => {
      const { store, lease } = await undecided('running');
      const next = await takenJob(store, { force: true });
      await expect(lease.release({ isStrike: false })).rejects.toMatchObject(code('ERR_FENCED'));
      expect((await readJob(store, WHERE)).head).toMatchObject({ state: 'running', epoch: next.head.epoch });
    });
  });

  test('a manifest may not name what the head has stopped naming', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const lease = await takenJob(store);
    await commitSteps(lease, 0);
    const dropped = lease.manifest?.objects ?? [];
    await lease.commit({ state: 'running', manifest: (refs) => content(refs), objects: [step(1)] });
    await expect(lease.commit({ state: 'running', manifest: () => content(dropped), objects: [] })).rejects.toMatchObject(code('ERR_INTERNAL'));
  });

  test('a call that is cancelled ends with ERR_CANCELLED', async () => {
    const store: ObjectStore = new MemoryStore();
    await createdJob(store);
    const lease = await takenJob(store);
    await expect(lease.commit({ state: 'running', manifest: onTop(lease), objects: [step(0)] }, { signal: AbortSignal.abort() })).rejects.toMatchObject(code('ERR_CANCELLED'));
  });
});
