/** A sharded job's birth and its joins, cut off at every call of the store: whoever comes next finishes them, and nothing counts twice. */
import { describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import type { Fault } from '../../engine/adapters/memory-faults.ts';
import { Endings } from '../../engine/job/endings.ts';
import { createJob, readJob } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import { liveHints, liveKey, parseLiveKey } from '../../engine/kv/hints.ts';
import type { ManifestContent } from '../../engine/kv/manifest.ts';
import { jobPrefix, shardKey, shardOf } from '../../engine/kv/names.ts';
import { readHead } from '../../engine/kv/read.ts';
import { reconcile } from '../../engine/kv/reconcile.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import type { SliceMessage } from '../../engine/ports/queue.ts';
import { shardVerdict } from '../../engine/worker/shards.ts';
import { HastyClock } from '../helpers/clock.ts';
import { SPEC, WHERE, content, options } from './support.ts';

const SHARDS = 3;
const PARTS = Array.from({ length: SHARDS }, (_, i) => shardKey(WHERE, i));
const ALL = [WHERE, ...PARTS];
const create = (store: ObjectStore) => createJob(store, WHERE, SPEC, { ...options(), idempotencyKey: 'k', shards: SHARDS });
const endings = (store: ObjectStore) => new Endings(store, { jobEnded: async (where) => await store.delete(liveHints(where)) }, { clock: new HastyClock(20_000), random: () => 0.5 });

/** A store that, from some call on, does nothing any more; `after`: but that call. */
class Dying {
  #calls = 0;
  #deadFrom = Infinity;
  readonly store = new MemoryStore({ faults: ({ index }): Fault | null => {
    this.#calls = index + 1;
    return index >= this.#deadFrom ? { kind: 'fail' } : null;
  } });

  /** The `at`-th call from now, from 0. */
  die(at: number, how: 'before' | 'after'): void {
    this.#deadFrom = this.#calls + at + (how === 'before' ? 0 : 1);
  }

  revive(): void {
    this.#deadFrom = Infinity;
  }
}

/** The walk, and what a worker does with what it sends. */
async function walk(store: ObjectStore): Promise<readonly string[]> {
  const sent: string[] = [];
  const queue = { sendAll: async (messages: readonly SliceMessage[]) => void sent.push(...messages.map(({ job }) => job)) };
  for await (const found of reconcile(store, new Map(), { ...options(), unmovedMs: 0, onEnded: async (where) => await endings(store).jobEnded(where) })) {
    if (found.kind === 'unreadable') throw found.error;
    const message: SliceMessage = { v: 1, ...found.where, slice: found.head.slice };
    if (shardOf(found.where) !== null) sent.push(found.where.job);
    await shardVerdict(message, found.where, found.head, { kind: 'run', slice: 0, force: false, alone: false }, { store, queue, clock: new HastyClock(20_000), endings: endings(store), say: () => undefined });
  }
  return sent;
}

async function expectBorn(store: MemoryStore): Promise<void> {
  for (const where of ALL) {
    expect((await readHead(store, where))?.head.state).toMatch(/^(queued|running)$/);
    expect(store.snapshot().has(liveKey(where))).toBe(true);
  }
  expect((await readHead(store, WHERE))?.head.join).toEqual({ shards: SHARDS, joined: [] });
}

const CALLS_MAX = 80;

test('no key of a shard is below one of its job, for where keys are files a file is no folder', () => {
  for (let i = 0; i < 200; i++) {
    const job = { tenant: 'acme', job: `job-${i}` };
    for (let shard = 0; shard < 64; shard += 9) {
      const of = shardKey(job, shard);
      for (const [at, part] of liveHints(of).entries()) expect(part.startsWith(`${liveHints(job)[at] ?? ''}/`)).toBe(false);
      expect(parseLiveKey(liveKey(of))).toEqual(of);
    }
  }
});

describe('a birth that is cut off', () => {
  test.each(['before', 'after'] as const)('%s any call of the store is finished by whoever asks again', async (how) => {
    for (let at = 0; at < CALLS_MAX; at++) {
      const dying = new Dying();
      const { store } = dying;
      dying.die(at, how);
      const isWhole = await create(store).then(() => true, () => false);
      dying.revive();
      await create(store);
      await expectBorn(store);
      if (isWhole) return expect(at).toBeGreaterThan(10);
    }
    throw new Error('the birth takes more calls than that');
  });

  test.each(['before', 'after'] as const)('%s any call of the store, but after the marker, is finished by the walk, and every shard has a message', async (how) => {
    let finished = 0;
    for (let at = 0; at < CALLS_MAX; at++) {
      const dying = new Dying();
      const { store } = dying;
      dying.die(at, how);
      const isWhole = await create(store).then(() => true, () => false);
      dying.revive();
      if (store.snapshot().has(liveKey(WHERE))) {
        finished++;
        const sent = new Set([...(await walk(store)), ...(await walk(store))]);
        await expectBorn(store);
        expect([...sent].sort()).toEqual(PARTS.map(({ job }) => job));
      } else expect([...store.snapshot().keys()].filter((key) => key.endsWith('HEAD'))).toEqual([]);
      if (isWhole) return expect(finished).toBeGreaterThan(5);
    }
    throw new Error('the birth takes more calls than that');
  });
});

/** Its one chain finishes at this step. */
async function runShard(store: ObjectStore, index: number, step: number): Promise<void> {
  const lease = await takeJob(store, PARTS[index] ?? WHERE, options());
  const said: ManifestContent = content([], {
    step, chains: [{ tokens: step, finish: 'stop', segments: [], tails: [] }],
    vote: { rule: 'first', width: SHARDS, first: index, ballots: [{ key: 'ab'.repeat(16), verified: null }] },
  });
  await lease.commit({ state: 'done', manifest: () => said, objects: [] });
}

describe('a join', () => {
  test.each(['before', 'after'] as const)('that is cut off %s any call of the store is finished by the next, and every shard counts once', async (how) => {
    for (let at = 0; at < CALLS_MAX; at++) {
      const dying = new Dying();
      const { store } = dying;
      await create(store);
      for (const [i, step] of [7, 3, 9].entries()) await runShard(store, i, step);
      for (const part of PARTS.slice(0, 2)) await endings(store).jobEnded(part);
      dying.die(at, how);
      const isWhole = await endings(store).jobEnded(PARTS[2] ?? WHERE).then(() => true, () => false);
      dying.revive();
      if (at % 2 === 0) await walk(store);
      else for (const part of PARTS) await endings(store).jobEnded(part);
      const { head, manifest } = await readJob(store, WHERE);
      expect(head).toMatchObject({ state: 'done', epoch: 0, join: { shards: SHARDS, joined: [0, 1, 2] } });
      expect(manifest).toMatchObject({ ended: 'early_stop', step: 3, chains: [{ tokens: 3, finish: 'ended' }, { tokens: 3, finish: 'stop' }, { tokens: 3, finish: 'ended' }] });
      await collectGarbage(store, WHERE, options());
      expect((await readJob(store, WHERE)).manifest).toEqual(manifest);
      expect([...store.snapshot().keys()].filter((key) => parseLiveKey(key) !== null && shardOf(parseLiveKey(key) ?? WHERE) === null)).toEqual([]);
      if (isWhole) return expect(at).toBeGreaterThan(4);
    }
    throw new Error('the join takes more calls than that');
  });

  test('of a shard whose time was over before its prompt was fed counts its chain as ended', async () => {
    const store = new MemoryStore();
    await create(store);
    for (const i of [0, 1]) await runShard(store, i, 4 + i);
    const lease = await takeJob(store, PARTS[2] ?? WHERE, options());
    await lease.commit({ state: 'incomplete', manifest: null, objects: [] });
    for (const part of PARTS) await endings(store).jobEnded(part);
    const { head, manifest } = await readJob(store, WHERE);
    expect(head).toMatchObject({ state: 'incomplete', join: { joined: [0, 1, 2] } });
    expect(manifest).toMatchObject({ ended: 'deadline', chains: [{ tokens: 4, finish: 'stop' }, { tokens: 4, finish: 'ended' }, { tokens: 0, finish: 'ended' }] });
  });

  test('of two shards at once counts both, and a repeated one writes nothing', async () => {
    const store = new MemoryStore();
    await create(store);
    for (let i = 0; i < SHARDS; i++) await runShard(store, i, 4);
    await Promise.all(PARTS.flatMap((part) => [endings(store).jobEnded(part), endings(store).jobEnded(part)]));
    const { head } = await readJob(store, WHERE);
    expect(head).toMatchObject({ state: 'done', join: { joined: [0, 1, 2] } });
    for (const part of PARTS) await endings(store).jobEnded(part);
    expect((await readJob(store, WHERE)).head).toEqual(head);
  });

  test.each([['poisoned', 'poisoned'], ['expired', 'expired'], ['cancelled', 'cancelled']] as const)('of a shard that is %s ends the job so, and with it the others', async (state, expected) => {
    const store = new MemoryStore();
    await create(store);
    await endJob(store, PARTS[1] ?? WHERE, state, options());
    await endings(store).jobEnded(PARTS[1] ?? WHERE);
    expect((await readJob(store, WHERE)).head).toMatchObject({ state: expected, join: { joined: [1] } });
    expect(await Promise.all(PARTS.map(async (part) => (await readJob(store, part)).head.state))).toEqual(['cancelled', state, 'cancelled']);
    expect([...store.snapshot().keys()].filter((key) => key.startsWith('live/'))).toEqual([]);
  });

  test('into a job that was cancelled changes nothing', async () => {
    const store = new MemoryStore();
    await create(store);
    await runShard(store, 0, 4);
    await endJob(store, WHERE, 'cancelled', options());
    const { head } = await readJob(store, WHERE);
    await endings(store).jobEnded(PARTS[0] ?? WHERE);
    expect((await readJob(store, WHERE)).head).toEqual(head);
  });

  test('collecting the garbage of a job leaves its shards alone', async () => {
    const store = new MemoryStore();
    await create(store);
    for (let i = 0; i < SHARDS; i++) await runShard(store, i, 4);
    const before = [...store.snapshot().keys()].filter((key) => key.startsWith(jobPrefix(PARTS[0] ?? WHERE)));
    expect(await collectGarbage(store, WHERE, options())).toMatchObject({ objects: 0, unknown: [] });
    expect([...store.snapshot().keys()].filter((key) => key.startsWith(jobPrefix(PARTS[0] ?? WHERE)))).toEqual(before);
  });
});
