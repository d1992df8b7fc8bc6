/** The memory store keeps every promise, fails exactly as planned, and the suite tells a store with stale reads. */
import { describe, expect, test } from 'vitest';

import { plannedFaults, seededFaults, type Operation } from '../../engine/adapters/memory-faults.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { ManualClock } from '../helpers/clock.ts';
import { PROMISES, read, text } from './object-store.ts';

const ABSENT = { condition: { kind: 'if_absent' } } as const;
const LIMIT = { bytesMax: 1 << 20 };

describe('the memory store', () => {
  for (const { name, check } of PROMISES) test(name, () => check(new MemoryStore()));
});

describe('the contract suite', () => {
  test('fails a store whose reads are stale', async () => {
    const broken = await Promise.all(PROMISES.map(async ({ name, check }) => {
      const error: unknown = await check(new MemoryStore({ staleReads: true })).then(() => null, (cause: unknown) => cause);
      return error === null ? null : name;
    }));
    expect(broken).toContain('what a put has answered is what every later read, head and list sees');
  });

  test('fails a store that ignores conditions, and so does its probe', async () => {
    class Careless extends MemoryStore {
      override put(...[key, body, options]: Parameters<MemoryStore['put']>) {
        return super.put(key, body, { signal: options?.signal });
      }
    }
    for (const name of ['if_absent creates once, and again only after a delete', 'if_match writes over the version it names and no other', 'of 20 racing writers with if_match exactly one wins, and its object is there', 'of 20 racing writers with if_absent exactly one wins, and its object is there']) {
      await expect(PROMISES.find((promise) => promise.name === name)?.check(new Careless()), name).rejects.toThrow();
    }
    await expect(new Careless().probe()).rejects.toMatchObject({ code: 'ERR_STORE_CONFIG' });
  });
});

test('a probe whose write has no answer is asked again, and says nothing of the store', async () => {
  const store = new MemoryStore({ faults: plannedFaults({ 0: { kind: 'lost_ack' }, 3: { kind: 'late' } }) });
  await store.probe();
  expect(new Set(store.log.map(({ key }) => key)).size, 'of another object each time').toBe(3);
});

describe('planned faults', () => {
  test('a lost acknowledgement: unknown, and the object is there', async () => {
    const store = new MemoryStore({ faults: plannedFaults({ 0: { kind: 'lost_ack' } }) });
    expect(await store.put('head', text('mine'), ABSENT)).toMatchObject({ kind: 'unknown' });
    expect(await read(store, 'head')).toBe('mine');
  });

  test('a late put arrives when the test says so, and its condition is decided then', async () => {
    const store = new MemoryStore({ faults: ({ key, actor }) => (key === 'head' && actor === 'slow' ? { kind: 'late' } : null) });
    expect(await store.as('slow').put('head', text('late'), ABSENT)).toMatchObject({ kind: 'unknown' });
    expect(await store.as('slow').put('head', text('later'), ABSENT)).toMatchObject({ kind: 'unknown' });
    expect(await read(store, 'head')).toBeNull();
    expect(store.late[1]?.apply()).toMatchObject({ kind: 'written' });
    expect(store.late[0]?.apply()).toEqual({ kind: 'refused' });
    expect(await read(store, 'head')).toBe('later');
    await store.delete(['head']);
    store.late[1]?.apply();
    expect(await read(store, 'head'), 'a request arrives once').toBeNull();
  });

  test('a body is taken when it is put: the caller\'s buffer may change before it arrives', async () => {
    const store = new MemoryStore({ faults: plannedFaults({ 0: { kind: 'late' } }) });
    const body = Buffer.from('before');
    await store.put('object', [body], ABSENT);
    body.fill(0);
    store.late[0]?.apply();
    expect(await read(store, 'object')).toBe('before');
  });

  test('refusals, failures, vanished objects, short and damaged bodies', async () => {
    const store = new MemoryStore({ faults: plannedFaults({
      0: { kind: 'refuse' }, 2: { kind: 'fail' }, 3: { kind: 'truncate', bytes: 4 }, 4: { kind: 'damage', at: 9 }, 5: { kind: 'vanish' }, 6: { kind: 'lost_ack' },
    }) });
    expect(await store.put('object', text('01234567'), ABSENT)).toEqual({ kind: 'refused' });
    expect(await store.put('object', text('01234567'), ABSENT)).toMatchObject({ kind: 'written' });
    await expect(store.get('object', LIMIT)).rejects.toMatchObject({ code: 'ERR_STORE' });
    expect(await store.get('object', LIMIT)).toMatchObject({ bytes: 4 });
    expect(await read(store, 'object')).toBe('00234567');
    expect(await store.get('object', LIMIT)).toBeNull();
    await expect(store.put('object', text('x'))).rejects.toMatchObject({ code: 'ERR_STORE' });
    expect(await read(store, 'object'), 'applied, though nobody said so').toBe('x');
  });

  test('a slow call takes the time of the injected clock and can be cancelled', async () => {
    const clock = new ManualClock();
    const store = new MemoryStore({ clock, faults: ({ kind }) => (kind === 'get' ? { kind: 'slow', delayMs: 5_000 } : null) });
    await store.put('object', text('x'));
    let done = false;
    const slow = read(store, 'object').finally(() => { done = true; });
    await clock.settle();
    clock.advance(4_999);
    await clock.settle();
    expect(done).toBe(false);
    clock.advance(1);
    expect(await slow).toBe('x');
    const controller = new AbortController();
    const cancelled = store.get('object', { ...LIMIT, signal: controller.signal });
    controller.abort();
    await expect(cancelled).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
  });

  test('the same seed gives the same history, another seed another', async () => {
    const history = async (seed: number) => {
      const store = new MemoryStore({ faults: seededFaults(seed, { fail: 0.1, refuse: 0.1, lostAck: 0.1, late: 0.1, truncate: 0.2, damage: 0.2 }) });
      const outcomes: string[] = [];
      for (let i = 0; i < 200; i++) {
        outcomes.push(await store.put(`k/${i % 7}`, text(`value ${i}`), ABSENT).then(({ kind }) => kind, () => 'failed'));
        outcomes.push(await read(store, `k/${i % 7}`).then(String, () => 'failed'));
      }
      return outcomes;
    };
    const first = await history(7);
    expect(await history(7)).toEqual(first);
    expect(await history(8)).not.toEqual(first);
    expect(new Set(first)).toContain('unknown');
  });

  test('hooks decide the interleaving: a put held back loses to one that came later', async () => {
    const gates = new Map<string, () => void>();
    const hold = ({ actor, kind }: Operation) => (actor === 'W1' && kind === 'put' ? new Promise<void>((resolve) => gates.set(actor, resolve)) : undefined);
    const store = new MemoryStore({ before: hold });
    const first = store.as('W1').put('head', text('W1'), ABSENT);
    expect(await store.as('W2').put('head', text('W2'), ABSENT)).toMatchObject({ kind: 'written' });
    gates.get('W1')?.();
    expect(await first).toEqual({ kind: 'refused' });
    expect(store.log.map(({ actor, kind, key, condition }) => `${actor} ${kind} ${key} ${condition}`)).toEqual(['W1 put head if_absent', 'W2 put head if_absent']);
  });
});
