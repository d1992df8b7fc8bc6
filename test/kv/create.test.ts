import { describe, expect, test } from 'vitest';

import { plannedFaults } from '../../engine/adapters/memory-faults.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import { createJob, listJobs, readJob } from '../../engine/kv/create.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { code, createdJob, HEAD_KEY, headOf, options, SPEC, takenJob, WHERE } from './support.ts';

describe('creating', () => {
  test('a job is created once: the same spec finds it, another is refused', async () => {
    const store = new MemoryStore();
    expect(await createdJob(store)).toMatchObject({ state: 'queued', version: 0, epoch: 0 });
    expect(await createdJob(store)).toEqual(headOf(store));
    await expect(createJob(store, WHERE, '{}', options())).rejects.toMatchObject(code('ERR_JOB_CONFLICT'));
    expect((await readJob(store, WHERE)).manifest).toBeNull();
    const found = [];
    for await (const where of listJobs(store, 'acme')) found.push(where);
    expect(found).toEqual([WHERE]);
  });

  test('one idempotency key makes one job, whatever id is asked for, and takes no other spec', async () => {
    const store = new MemoryStore();
    const once = { ...options(), idempotencyKey: 'a b/c' };
    const [first, second] = await Promise.all(['x', 'y'].map((job) => createJob(store, { tenant: 'acme', job }, SPEC, { ...once, ...options() })));
    expect(second?.where).toEqual(first?.where);
    expect([...store.snapshot().keys()].filter((key) => key.endsWith('/HEAD'))).toHaveLength(1);
    await expect(createJob(store, { tenant: 'acme', job: 'z' }, '{}', once)).rejects.toMatchObject(code('ERR_JOB_CONFLICT'));
  });

  test.each([['x', SPEC], ['x', '{}'], [WHERE.job, '{}']])('who loses the race for a key, as %s with %s, leaves no prompt behind', async (job, spec) => {
    const once = { ...options(), idempotencyKey: 'k' };
    let first = true;
    const store: MemoryStore = new MemoryStore({
      before: async ({ kind, key }) => {
        if (!first || kind !== 'put' || !key.startsWith('idem/')) return;
        first = false;
        await createJob(store, WHERE, SPEC, { ...once, ...options() });
      },
    });
    const late = createJob(store, { ...WHERE, job }, spec, once);
    if (spec === SPEC) expect((await late).where).toEqual(WHERE);
    else await expect(late).rejects.toMatchObject({ ...code('ERR_JOB_CONFLICT'), why: 'other' });
    expect([...store.snapshot().keys()].filter((key) => key.startsWith('kv/')).sort()).toEqual([HEAD_KEY, `kv/acme/sums/spec-${sha256(SPEC)}.json`]);
    expect((await takenJob(store)).spec).toBe(SPEC);
  });

  test('who loses the race against a creator, even one that was erased again, leaves no prompt behind', async () => {
    let erased = false;
    const store: MemoryStore = new MemoryStore({
      before: async ({ kind, key, actor }) => {
        if (actor !== 'late' || kind !== 'put' || key !== HEAD_KEY || erased) return;
        erased = true;
        await createdJob(store);
        await eraseJob(store, WHERE, options());
      },
    });
    await expect(createJob(store.as('late'), WHERE, '{"prompt":"secret"}', options())).rejects.toMatchObject(code('ERR_JOB_CONFLICT'));
    // The listing by day knows the name, as the tombstone does.
    expect([...store.snapshot().keys()].filter((key) => !key.startsWith('idx/'))).toEqual([HEAD_KEY]);
  });

  test('a key whose job was never born takes no other spec either', async () => {
    const store = new MemoryStore({ faults: ({ kind, key }) => (dies && kind === 'put' && key === HEAD_KEY ? { kind: 'fail' } : null) });
    let dies = true;
    const once = { ...options(), idempotencyKey: 'k' };
    await expect(createJob(store, WHERE, SPEC, once)).rejects.toMatchObject(code('ERR_STORE'));
    dies = false;
    await expect(createJob(store, WHERE, '{}', once)).rejects.toMatchObject(code('ERR_JOB_CONFLICT'));
    expect((await createJob(store, WHERE, SPEC, once)).head.state).toBe('queued');
  });

  test('a crash at any call of the store is finished by the next attempt', async () => {
    for (let at = 0; at < 5; at++) {
      const store = new MemoryStore({ faults: plannedFaults({ [at]: { kind: 'fail' } }) });
      const create = () => createJob(store, WHERE, SPEC, { ...options(), idempotencyKey: 'k' });
      await create().catch((error: unknown) => expect(error).toMatchObject(code('ERR_STORE')));
      expect((await create()).head.state).toBe('queued');
    }
  });

  test.each(['lost_ack', 'late'] as const)('a creation whose answer was lost (%s) is found to be made, or made', async (kind) => {
    for (let at = 0; at < 8; at++) {
      const store = new MemoryStore({ faults: (operation) => (operation.index === at && operation.condition !== null ? { kind } : null) });
      await createdJob(store);
      store.late.forEach((put) => put.apply());
      expect(headOf(store).state).toBe('queued');
    }
  });

  test.each(['', '..', 'a/b', '-a', 'a'.repeat(65), 'ä'])('%j is no name of a job', async (job) => {
    await expect(createJob(new MemoryStore(), { tenant: 'acme', job }, SPEC)).rejects.toMatchObject(code('ERR_OPTION'));
    await expect(createJob(new MemoryStore(), { tenant: job, job: 'a' }, SPEC)).rejects.toMatchObject(code('ERR_OPTION'));
  });
});
