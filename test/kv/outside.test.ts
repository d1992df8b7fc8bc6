import { describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { adopt } from '../../engine/kv/adopt.ts';
import { createJob, readJob } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import { takeJob } from '../../engine/kv/take.ts';
import { code, commitSteps, content, createdJob, HEAD_KEY, headOf, onTop, options, SPEC, step, stepsOf, takenJob, WHERE } from './support.ts';

/** Of the job itself: markers and listings lie elsewhere. */
const keysOf = (store: MemoryStore) => [...store.snapshot().keys()].filter((key) => key.startsWith('kv/')).sort();

describe('ending from outside', () => {
  test.each(['cancelled', 'expired', 'poisoned'] as const)('a running job that is %s fences its owner and keeps what was committed', async (state) => {
    const store = new MemoryStore();
    await createdJob(store);
    const lease = await takenJob(store);
    await commitSteps(lease, 0);
    const { head, changed } = await endJob(store, WHERE, state, options());
    expect({ changed, head: { state: head.state, epoch: head.epoch, manifest: head.manifest } }).toEqual({ changed: true, head: { state, epoch: 2, manifest: lease.head.manifest } });
    await expect(commitSteps(lease, 1)).rejects.toMatchObject(code('ERR_FENCED'));
    expect(headOf(store)).toEqual(head);
  });

  test('a job that has ended stays as it ended', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const lease = await takenJob(store);
    await lease.commit({ state: 'done', manifest: onTop(lease), objects: [step(0)] });
    const before = headOf(store);
    expect(await endJob(store, WHERE, 'cancelled', options())).toEqual({ head: before, changed: false });
    expect(headOf(store)).toEqual(before);
  });

  test.each(['lost_ack', 'late', 'refuse'] as const)('a cancellation whose answer is %s cancels once', async (kind) => {
    let faults = 1;
    const store = new MemoryStore({ faults: ({ key, condition }) => (key === HEAD_KEY && condition === 'if_match' && faults-- > 0 ? { kind } : null) });
    await createdJob(store);
    expect(await endJob(store, WHERE, 'cancelled', options())).toMatchObject({ changed: true, head: { epoch: 1, version: 1 } });
    store.late.forEach((put) => put.apply());
    expect(headOf(store).version).toBe(1);
  });
});

describe('erasing', () => {
  test('nothing is left but a tombstone without the digest of the prompt, and the name is not used again', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const lease = await takenJob(store);
    await commitSteps(lease, 0, 1);
    expect(await eraseJob(store, WHERE, options())).toMatchObject({ objects: 4, head: { state: 'erased', epoch: 2 } });
    expect(keysOf(store)).toEqual([HEAD_KEY]);
    expect(JSON.stringify(headOf(store))).not.toContain(lease.head.spec);
    await expect(commitSteps(lease, 2)).rejects.toMatchObject(code('ERR_FENCED'));
    await expect(createdJob(store)).rejects.toMatchObject(code('ERR_JOB_CONFLICT'));
    await expect(takenJob(store)).rejects.toMatchObject(code('ERR_JOB_CONFLICT'));
    // What the fenced owner had uploaded goes with the next sweep, of either kind.
    expect(keysOf(store).length).toBeGreaterThan(1);
    await collectGarbage(store, WHERE, options());
    expect(keysOf(store)).toEqual([HEAD_KEY]);
    expect(await eraseJob(store, WHERE, options())).toMatchObject({ objects: 0 });
  });

  test('a job whose head cannot be read can be erased all the same, and its owner is fenced', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const lease = await takenJob(store);
    await commitSteps(lease, 0);
    await store.put(HEAD_KEY, [Buffer.from('{"format":')]);
    expect((await eraseJob(store, WHERE, options())).head.state).toBe('erased');
    expect(keysOf(store)).toEqual([HEAD_KEY]);
    await expect(commitSteps(lease, 1)).rejects.toMatchObject(code('ERR_FENCED'));
    await expect(createdJob(store)).rejects.toMatchObject(code('ERR_JOB_CONFLICT'));
    await expect(eraseJob(store, { ...WHERE, job: 'none' }, options())).rejects.toMatchObject(code('ERR_JOB_NOT_FOUND'));
  });

  test('the manifests, which hold the wrapped keys, go before anything else', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    await commitSteps(await takenJob(store), 0);
    const before = store.log.length;
    await eraseJob(store, WHERE, options());
    const deletes = store.log.slice(before).filter(({ kind }) => kind === 'delete').map(({ key }) => key.split('/').slice(key.startsWith('kv/') ? 3 : 0)[0]?.slice(0, 4));
    expect(deletes).toEqual(['m', 'spec', 'j', 'live']);
  });

  test('one that died half way is finished by the next', async () => {
    for (let at = 0; at < 6; at++) {
      let failsAt = -1;
      const store = new MemoryStore({ faults: ({ index }) => (index === failsAt ? { kind: 'fail' } : null) });
      await createdJob(store);
      await commitSteps(await takenJob(store), 0);
      failsAt = store.log.length + at;
      await eraseJob(store, WHERE, options()).catch((error: unknown) => expect(error).toMatchObject(code('ERR_STORE')));
      await eraseJob(store, WHERE, options());
      expect(keysOf(store)).toEqual([HEAD_KEY]);
    }
  });
});

describe('collecting garbage', () => {
  async function withGarbage(store: MemoryStore) {
    await createdJob(store);
    const lease = await takenJob(store);
    await commitSteps(lease, 0);
    await lease.commit({ state: 'running', manifest: (refs) => content(refs), objects: [step(1)] });
    await lease.flushJournal(step(2));
    return lease;
  }

  test('what no head names goes, what it names stays, and the owner never notices', async () => {
    const store = new MemoryStore();
    const lease = await withGarbage(store);
    const garbage = { objects: 2, kept: 5, unknown: [] };
    expect(await collectGarbage(store, WHERE, { ...options(), dryRun: true })).toMatchObject(garbage);
    expect(headOf(store)).toEqual(lease.head);
    expect(await collectGarbage(store, WHERE, options())).toMatchObject(garbage);
    expect(headOf(store)).toMatchObject({ version: lease.head.version + 1, gc: lease.head.version + 1, writeNonce: lease.head.writeNonce });
    await commitSteps(lease, 3);
    expect(await stepsOf(lease)).toEqual([1, 2, 3]);
    // The manifest before, the one that the fence refused, and the journal under its first name.
    expect(await collectGarbage(store, WHERE, options())).toMatchObject({ objects: 3 });
  });

  test('keys that are none of the format\'s are named and left alone', async () => {
    const store = new MemoryStore();
    await withGarbage(store);
    await store.put('kv/acme/sums/notes.txt', []);
    expect((await collectGarbage(store, WHERE, options())).unknown).toEqual(['kv/acme/sums/notes.txt']);
    expect(keysOf(store)).toContain('kv/acme/sums/notes.txt');
  });

  test('where the manifest cannot be read, nothing is deleted', async () => {
    const store = new MemoryStore();
    const lease = await withGarbage(store);
    await store.put(`kv/acme/sums/${lease.head.manifest?.name}`, [Buffer.alloc(lease.head.manifest?.bytes ?? 0)]);
    const before = keysOf(store);
    await expect(collectGarbage(store, WHERE, options())).rejects.toMatchObject(code('ERR_CHECKPOINT'));
    expect(keysOf(store)).toEqual(before);
  });

  test('two at once, and one that died after its fence, leave the job whole', async () => {
    let fails = 1;
    const store = new MemoryStore({ faults: ({ kind }) => (kind === 'delete' && fails-- > 0 ? { kind: 'fail' } : null) });
    const lease = await withGarbage(store);
    await expect(collectGarbage(store, WHERE, options())).rejects.toMatchObject(code('ERR_STORE'));
    await Promise.all([collectGarbage(store, WHERE, options()), collectGarbage(store, WHERE, options()), lease.flushJournal(step(3))]);
    expect(await stepsOf(lease)).toEqual([1, 2, 3]);
    expect(await stepsOf(await takenJob(store, { force: true }))).toEqual([1, 2, 3]);
  });
});

describe('forking', () => {
  test('a child has copies of its ancestor\'s objects, and outlives it', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    await commitSteps(await takenJob(store), 0, 1);
    const { manifest } = await readJob(store, WHERE);
    const child = { tenant: 'acme', job: 'child' };
    await createJob(store, child, SPEC, options());
    const lease = await takeJob(store, child, options());
    const objects = [...adopt(WHERE, manifest?.objects ?? []), step(2)];
    await lease.commit({ state: 'running', manifest: (refs) => content(refs), objects });
    expect(lease.manifest?.objects.map(({ origin }) => origin)).toEqual(['sums', 'sums', 'child']);
    await eraseJob(store, WHERE, options());
    await collectGarbage(store, child, options());
    expect(await stepsOf(lease)).toEqual([0, 1, 2]);
  });

  test('an ancestor that is gone is said to be missing, and the child goes on without', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    await commitSteps(await takenJob(store), 0);
    const { manifest } = await readJob(store, WHERE);
    await eraseJob(store, WHERE, options());
    const child = { tenant: 'acme', job: 'child' };
    await createJob(store, child, SPEC, options());
    const lease = await takeJob(store, child, options());
    await expect(lease.commit({ state: 'running', manifest: (refs) => content(refs), objects: adopt(WHERE, manifest?.objects ?? []) }))
      .rejects.toMatchObject({ ...code('ERR_CHECKPOINT'), message: expect.stringMatching(/^missing: /) as string });
    await commitSteps(lease, 0);
  });
});
