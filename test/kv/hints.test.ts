import { describe, expect, test } from 'vitest';

import type { FaultPlan } from '../../engine/adapters/memory-faults.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import { createJob, readJob } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import { LIVE_SHARDS, firstDay, isListed, listDay, liveKey, parseLiveKey, readingKey } from '../../engine/kv/hints.ts';
import { reconcile, type Finding, type ReconcileOptions, type Sightings } from '../../engine/kv/reconcile.ts';
import { takeJob } from '../../engine/kv/take.ts';
import { ManualClock } from '../helpers/clock.ts';
import { code, commitSteps, content, createdJob, HEAD_KEY, headOf, onTop, options, SPEC, step, stepsOf, takenJob, WHERE } from './support.ts';

const NOON = Date.UTC(2026, 10, 25, 12);
const MARKER = liveKey(WHERE);
const JOBS = Array.from({ length: 40 }, (_, i) => ({ tenant: 'acme', job: `job-${i}` }));

async function all<T>(items: AsyncIterable<T>): Promise<readonly T[]> {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
}

/** One walk at a time of a clock that the test moves. */
function walker(store: MemoryStore, more: ReconcileOptions = {}) {
  const [clock, seen]: [ManualClock, Sightings] = [new ManualClock(), new Map()];
  return { clock, seen, walk: () => all(reconcile(store, seen, { ...options(), clock, unmovedMs: 1_000, ...more })) };
}

const jobsOf = (findings: readonly Finding[]) => findings.map((found) => (found.kind === 'unmoved' ? found.where.job : found.error.message.split(':')[0]));

describe('markers and listings', () => {
  test('a job is listed on the day of its creation, in its tenant', async () => {
    const store = new MemoryStore();
    for (const [i, where] of JOBS.slice(0, 3).entries()) await createJob(store, where, SPEC, { ...options(), createdMs: NOON + i * 11 * 3_600_000 });
    expect(await all(listDay(store, 'acme', '2026-11-25'))).toEqual([JOBS[0], JOBS[1]]);
    expect(await all(listDay(store, 'acme', '2026-11-26'))).toEqual([JOBS[2]]);
    expect(await all(listDay(store, 'acm', '2026-11-25'))).toEqual([]);
    expect(await firstDay(store, 'acme')).toBe('2026-11-25');
    expect(await firstDay(store, 'acm')).toBeNull();
    expect(await isListed(store, WHERE, '2026-11-25')).toBe(false);
    expect(await isListed(store, { tenant: 'acme', job: 'job-0' }, '2026-11-25')).toBe(true);
  });

  test.each(['', '2026-11', '../2026-11-25', '2026-11-25/'])('%j is no day', async (day) => {
    await expect(all(listDay(new MemoryStore(), 'acme', day))).rejects.toMatchObject(code('ERR_OPTION'));
  });

  test('a key is the marker of one job of one tenant in one shard, or none', () => {
    expect(parseLiveKey(MARKER)).toEqual(WHERE);
    const shards = new Set(JOBS.map((where) => liveKey(where).split('/')[1]));
    expect(shards.size).toBeGreaterThan(LIVE_SHARDS / 2);
    const other = MARKER.startsWith('live/0') ? 'live/1' : 'live/0';
    for (const key of [`${other}${MARKER.slice(6)}`, `${MARKER}/x`, MARKER.slice(0, -5), 'live/0/acme/', 'live/0']) expect(parseLiveKey(key), key).toBeNull();
  });

  test('wherever its creation dies, a job that was born has a marker, and one with a marker can be born without its client', async () => {
    const died: string[] = [];
    for (let at = 0; at < 8; at++) {
      let dies = true;
      const store = new MemoryStore({ faults: ({ index }) => (dies && index === at ? { kind: 'fail' } : null) });
      const created = await createJob(store, WHERE, SPEC, { ...options(), idempotencyKey: 'k' }).then(() => true, () => false);
      dies = false;
      const keys = store.snapshot();
      died.push(`${created ? 'created' : 'died'}${keys.has(MARKER) ? ' marked' : ''}${keys.has(HEAD_KEY) ? ' born' : ''}`);
      if (keys.has(HEAD_KEY)) expect(keys.has(MARKER)).toBe(true);
      await walker(store).walk();
      expect(store.snapshot().has(HEAD_KEY)).toBe(keys.has(MARKER));
    }
    // Reads record and head, writes spec, record, listing, marker and head.
    expect(died).toEqual(['died', 'died', 'died', 'died', 'died', 'died', 'died marked', 'created marked born']);
  });

  test('a job born by the walk is the one that its client asked for', async () => {
    const store = new MemoryStore({ faults: ({ key, kind }) => (dies && kind === 'put' && key === HEAD_KEY ? { kind: 'fail' } : null) });
    let dies = true;
    await expect(createdJob(store)).rejects.toMatchObject(code('ERR_STORE'));
    dies = false;
    await walker(store).walk();
    const born = headOf(store);
    expect(await createdJob(store)).toEqual(born);
    expect(born).toMatchObject({ state: 'queued', spec: sha256(SPEC), version: 0 });
  });

  test('a job that is born and erased under a walk is no unreadable one', async () => {
    const store: MemoryStore = new MemoryStore({
      faults: ({ key, kind }) => (dies && kind === 'put' && key === HEAD_KEY ? { kind: 'fail' } : null),
      before: async ({ actor, key }) => {
        if (actor !== 'walk' || !key.includes('/spec-')) return;
        await createdJob(store);
        await eraseJob(store, WHERE, options());
      },
    });
    let dies = true;
    await createdJob(store).catch(() => undefined);
    dies = false;
    expect(await walker(store.as('walk')).walk()).toEqual([]);
    expect(headOf(store).state).toBe('erased');
  });

  test('walks and clients that finish a birth at once make one head', async () => {
    const store = new MemoryStore({ faults: ({ key, kind }) => (dies && kind === 'put' && key === HEAD_KEY ? { kind: 'fail' } : null) });
    let dies = true;
    await createdJob(store).catch(() => undefined);
    dies = false;
    const [first] = await Promise.all([createdJob(store), walker(store).walk(), walker(store).walk(), createdJob(store)]);
    expect(headOf(store)).toEqual(first);
  });
});

test('no key of a shard lies below one of its job: a store on files has no object that is a folder', () => {
  const [job, shard] = [{ tenant: 'acme', job: 'sums' }, { tenant: 'acme', job: 'sums/3' }];
  for (const keyOf of [liveKey, readingKey]) {
    expect(keyOf(shard).split('/')).toHaveLength(keyOf(job).split('/').length);
  }
  expect(parseLiveKey(liveKey(shard))).toEqual(shard);
});

describe('the walk', () => {
  test('finds whoever has not moved for so long, and nobody else', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    for (const where of JOBS) await createJob(store, where, SPEC, options());
    const { clock, walk } = walker(store);
    expect(await walk()).toEqual([]);
    clock.advance(999);
    expect(await walk()).toEqual([]);
    const lease = await takenJob(store);
    clock.advance(1);
    expect(jobsOf(await walk()).sort()).toEqual(JOBS.map(({ job }) => job).sort());
    await commitSteps(lease, 0);
    clock.advance(999);
    expect(jobsOf(await walk())).not.toContain(WHERE.job);
    clock.advance(1_000);
    const [found] = (await walk()).filter((finding) => finding.kind === 'unmoved' && finding.where.job === WHERE.job);
    expect(found).toEqual({ kind: 'unmoved', where: WHERE, head: lease.head });
  });

  test('finds who runs as soon as three times his own interval has gone by, and no sooner', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const lease = await takenJob(store, { commitIntervalMs: 100 });
    const { clock, walk } = walker(store);
    expect(await walk()).toEqual([]);
    clock.advance(299);
    expect(await walk()).toEqual([]);
    clock.advance(1);
    expect(jobsOf(await walk())).toEqual([WHERE.job]);
    await lease.commit({ state: 'parked', manifest: null, objects: [] });
    await walk();
    clock.advance(999);
    expect(await walk(), 'what waits has no interval').toEqual([]);
  });

  test('a collection of garbage is no sign of life', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const { clock, walk } = walker(store);
    await walk();
    clock.advance(1_000);
    await collectGarbage(store, WHERE, options());
    expect(jobsOf(await walk())).toEqual([WHERE.job]);
  });

  test('split by shards it finds the same jobs', async () => {
    const store = new MemoryStore();
    for (const where of JOBS) await createJob(store, where, SPEC, options());
    const walkers = Array.from({ length: LIVE_SHARDS }, (_, shard) => walker(store, { shard }));
    for (const { clock, walk } of walkers) {
      await walk();
      clock.advance(1_000);
    }
    const found = await Promise.all(walkers.map(({ walk }) => walk()));
    expect(jobsOf(found.flat()).sort()).toEqual(JOBS.map(({ job }) => job).sort());
  });

  test.each(['done', 'cancelled', 'erased'] as const)('the marker of a job that is %s goes, and so does what was remembered of it', async (state) => {
    const store = new MemoryStore();
    await createdJob(store);
    const { seen, walk } = walker(store);
    await walk();
    expect(seen.size).toBe(1);
    if (state === 'erased') await eraseJob(store, WHERE, options());
    else if (state === 'cancelled') await endJob(store, WHERE, state, options());
    else {
      const lease = await takenJob(store);
      await lease.commit({ state, manifest: onTop(lease), objects: [step(0)] });
    }
    const head = headOf(store);
    await walk();
    expect([store.snapshot().has(MARKER), seen.size]).toEqual([false, 0]);
    expect(headOf(store)).toEqual(head);
  });

  test('a marker that comes after its job was erased does not bring it back', async () => {
    const store = new MemoryStore();
    await createdJob(store);
    const marker = store.snapshot().get(MARKER) ?? new Uint8Array();
    await eraseJob(store, WHERE, options());
    await store.put(MARKER, [marker]);
    await walker(store).walk();
    expect(store.snapshot().has(MARKER)).toBe(false);
    expect(headOf(store).state).toBe('erased');
  });

  test.each<[string, string, (store: MemoryStore) => Promise<unknown>]>([
    ['a damaged head', 'damaged', (store) => store.put(HEAD_KEY, [Buffer.from('{}')])],
    ['a marker without a spec', 'missing', (store) => store.delete([HEAD_KEY, `kv/acme/sums/spec-${sha256(SPEC)}.json`])],
    ['a marker of another job', 'identity', async (store) => {
      await store.delete([HEAD_KEY]);
      await store.put(MARKER, [Buffer.from(`{"format":"dmskv/1","tenant":"acme","job":"other","spec":"${sha256(SPEC)}"}`)]);
    }],
    ['a marker of a newer format', 'format', async (store) => {
      await store.delete([HEAD_KEY]);
      await store.put(MARKER, [Buffer.from('{"format":"dmskv/2"}')]);
    }],
    ['a marker that is no JSON', 'damaged', async (store) => {
      await store.delete([HEAD_KEY]);
      await store.put(MARKER, [Buffer.alloc(9_000, '[')]);
    }],
    ['a key that is no marker', 'damaged', (store) => store.put('live/0/acme/deep/er', [])],
  ])('%s is reported, and the walk goes on', async (_, reason, damage) => {
    const store = new MemoryStore();
    await createdJob(store);
    for (const where of JOBS) await createJob(store, where, SPEC, options());
    await damage(store);
    const { clock, walk } = walker(store);
    expect(jobsOf(await walk())).toEqual([reason]);
    clock.advance(1_000);
    expect(jobsOf(await walk())).toEqual(expect.arrayContaining([reason, ...JOBS.map(({ job }) => job)]));
  });

  test('a store that fails ends the walk with its error', async () => {
    let down = false;
    const faults: FaultPlan = ({ kind }) => (down && kind === 'get' ? { kind: 'fail' } : null);
    const store = new MemoryStore({ faults });
    await createdJob(store);
    down = true;
    await expect(walker(store).walk()).rejects.toMatchObject(code('ERR_STORE'));
  });
});

describe('a tenant\'s digest key', () => {
  const key = { digestKey: new Uint8Array(32).fill(7) };

  test('with it no name and no record holds a digest that others could compare with their own', async () => {
    const store = new MemoryStore();
    await createJob(store, WHERE, SPEC, { ...options(), ...key, idempotencyKey: 'a@b.example' });
    const lease = await takenJob(store, key);
    await commitSteps(lease, 0);
    const text = [...store.snapshot()].map(([name, bytes]) => name + Buffer.from(bytes).toString()).join('\n');
    for (const plain of [SPEC, 'a@b.example', JSON.stringify(lease.manifest)]) expect(text).not.toContain(sha256(plain));
    const next = await takenJob(store, { ...key, force: true });
    expect(await stepsOf(next)).toEqual([0]);
    expect((await readJob(store, WHERE, key)).manifest).toEqual(lease.manifest);
    expect(await collectGarbage(store, WHERE, { ...options(), ...key })).toMatchObject({ objects: 0, kept: 4 });
    expect((await createJob(store, { tenant: 'acme', job: 'again' }, SPEC, { ...options(), ...key, idempotencyKey: 'a@b.example' })).where).toEqual(WHERE);
  });

  test.each([['no key', {}], ['another key', { digestKey: new Uint8Array(32) }]])('with %s the job is refused and left as it is', async (_, wrong) => {
    const store = new MemoryStore();
    await createJob(store, WHERE, SPEC, { ...options(), ...key });
    const lease = await takeJob(store, WHERE, options(key));
    await lease.commit({ state: 'parked', manifest: (refs) => content(refs), objects: [step(0)] });
    const before = [...store.snapshot().keys()];
    await expect(takenJob(store, wrong)).rejects.toMatchObject(code('ERR_CHECKPOINT'));
    await expect(readJob(store, WHERE, wrong)).rejects.toMatchObject(code('ERR_CHECKPOINT'));
    await expect(collectGarbage(store, WHERE, { ...options(), ...wrong })).rejects.toMatchObject(code('ERR_CHECKPOINT'));
    expect([...store.snapshot().keys()]).toEqual(before);
    expect(headOf(store)).toMatchObject({ state: 'parked', epoch: 1 });
  });
});
