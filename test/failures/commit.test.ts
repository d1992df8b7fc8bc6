/** KV.md 7, the commit path: whenever a worker dies or its store hesitates, what was committed goes on, and nothing is counted twice. */
import { describe, expect, test } from 'vitest';

import type { Operation } from '../../engine/adapters/memory-faults.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { readJob } from '../../engine/kv/create.ts';
import { HastyClock } from '../helpers/clock.ts';
import { begin, contents, expectUndisturbed, park, resume, taken, WHERE } from './support.ts';

/** A store of which the n-th call of the actor `victim`, and every one from then on, throws: a dead process reaches nothing. */
class Deadly {
  readonly store: MemoryStore;
  /** What it died at, by part of the job. */
  diedAt: string | null = null;
  #calls = 0;
  readonly #numbers = new Map<number, number>();
  readonly #n: number;

  constructor(n: number, phase: 'before' | 'after') {
    this.#n = n;
    this.store = new MemoryStore({
      before: (operation) => {
        if (operation.actor !== 'victim') return;
        this.#numbers.set(operation.index, this.#calls++);
        this.#check(operation, phase === 'before');
      },
      after: (operation) => {
        if (operation.actor === 'victim') this.#check(operation, phase === 'after');
      },
    });
  }

  #check({ index, key }: Operation, dies: boolean): void {
    if (dies && this.#numbers.get(index) === this.#n) this.diedAt = key.split('/')[3] ?? '';
    if (this.diedAt !== null) throw new Error('killed');
  }
}

describe.each(['before', 'after'] as const)('a worker that dies %s a call of the store took effect', (phase) => {
  test('at whichever call it is: the next one gives the tokens and the usage of a run that was never disturbed', async () => {
    const killedAt = new Set<string>();
    const outcomes = new Set<string>();
    for (let n = 0; ; n++) {
      const deadly = new Deadly(n, phase);
      const first = await begin({ store: deadly.store.as('victim') }).then((outcome) => outcome, () => null);
      if (deadly.diedAt === null) {
        expect(first).not.toBeNull();
        break;
      }
      killedAt.add(deadly.diedAt);
      const second = await expectUndisturbed(await begin({ store: deadly.store.as('heir') }));
      outcomes.add(second.resumed.at(-1)?.outcome ?? 'started');
      const { head, manifest } = await readJob(deadly.store, WHERE);
      expect([head.state, manifest?.ended]).toEqual(['done', null]);
    }
    // Segments, tails, journals, manifests and heads have all been what it died at.
    expect([...killedAt]).toEqual(expect.arrayContaining(['HEAD', 'm', 's', 't', 'j']));
    expect([...outcomes].sort()).toEqual(['restarted', 'restored', 'started']);
  }, 120_000);
});

test('a take whose owner died before its first commit is counted by the next one, which begins again; one that was given back is not', async () => {
  for (const wanted of ['restarted', 'started'] as const) {
    const store = new MemoryStore();
    using victim = await taken(store, { owner: 'victim' });
    if (wanted === 'started') await victim.lease.release({ isStrike: false });
    const began: string[] = [];
    const { resumed } = await expectUndisturbed(await resume({ store, take: true, onBegun: ({ outcome }) => began.push(outcome) }));
    expect([began, resumed]).toEqual([[wanted], wanted === 'started' ? [] : [{ slice: 2, outcome: 'restarted', reason: null, from_step: 0, tokens_recomputed: 0 }]]);
  }
});

test('a job asked for again after it is done writes nothing, computes nothing and counts nothing', async () => {
  const store = new MemoryStore();
  await expectUndisturbed(await begin({ store }));
  const before = contents(store);
  const calls = store.log.length;
  for (const again of [begin, resume]) await expectUndisturbed(await again({ store }));
  expect(contents(store)).toEqual(before);
  expect(store.log.slice(calls).filter(({ kind }) => kind !== 'get')).toEqual([]);
});

test('a store that hangs while the job is told to let go: what was on its way is committed, then the job is parked', async () => {
  let release: () => void = () => undefined;
  const stop = new AbortController();
  let uploads = 0;
  const store = new MemoryStore({
    before: async ({ kind, key, actor }) => {
      // A tail of the second delta.
      if (actor !== 'victim' || kind !== 'put' || !key.includes('/t/') || ++uploads !== 2) return;
      stop.abort();
      await new Promise<void>((resolve) => { release = resolve; setTimeout(resolve, 50); });
    },
  });
  const outcome = await begin({ store: store.as('victim'), signal: stop.signal });
  release();
  expect(outcome.kind).toBe('parked');
  const { head } = await readJob(store, WHERE);
  expect(head.state).toBe('parked');
  const result = await expectUndisturbed(await resume({ store }));
  expect(result.resumed).toMatchObject([{ outcome: 'restored', tokens_recomputed: 0 }]);
});

test('a commit that takes longer than an owner may be silent harms nobody: alone it succeeds', async () => {
  const clock = new HastyClock(300_000);
  const store = new MemoryStore({ clock, faults: ({ kind }) => (kind === 'put' ? { kind: 'slow', delayMs: 120_000 } : null) });
  await expectUndisturbed(await begin({ store, clock }));
  expect(clock.nowMs()).toBeGreaterThan(240_000);
});

test('a lost answer to each conditional write in turn changes nothing', async () => {
  for (let n = 0; ; n++) {
    let swaps = 0;
    const store = new MemoryStore({ faults: ({ condition }) => (condition !== null && swaps++ === n ? { kind: 'lost_ack' } : null) });
    const outcome = await begin({ store });
    await expectUndisturbed(outcome);
    if (swaps <= n) break;
    const { manifest } = await readJob(store, WHERE);
    expect(manifest?.slices.map(({ slice }) => slice)).toEqual([1]);
  }
});

test('parked and resumed again and again, what is charged is what one run would have cost', async () => {
  const store = new MemoryStore();
  await park({ store });
  for (let i = 0; i < 3; i++) {
    const stop = new AbortController();
    const outcome = await resume({ store, signal: stop.signal, onCommit: () => stop.abort() });
    if (outcome.kind === 'ended') break;
  }
  const { resumed } = await expectUndisturbed(await resume({ store }));
  expect(resumed.map(({ tokens_recomputed }) => tokens_recomputed)).toEqual(resumed.map(() => 0));
});
