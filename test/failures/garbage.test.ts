/** When what a job has replaced is collected: never between letting the job go and handing it on. */
import { once } from 'node:events';
import { expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { readJob } from '../../engine/kv/create.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { through } from '../helpers/through.ts';
import { begin, expectUndisturbed, park, resume, taken, WHERE } from './support.ts';

const PREFIX = 'kv/acme/sums/';
const of = (store: MemoryStore) => [...store.snapshot().keys()].filter((key) => key.startsWith(PREFIX));
/** Writes of the head after which a collection is due. */
const OFTEN = { deltaTokens: 1, firstMs: 0 };

/** @param onList what becomes of a listing of the job's objects. */
function listing(store: MemoryStore, onList: (signal: AbortSignal | undefined) => Promise<void>): ObjectStore {
  return through<ObjectStore>(store, {
    async *list(prefix, options) {
      if (prefix === PREFIX) await onList(options?.signal);
      yield* store.list(prefix, options);
    },
  });
}

async function until(signal: AbortSignal | undefined): Promise<void> {
  if (signal?.aborted !== true) await once(signal as AbortSignal, 'abort');
  throw new EngineError('ERR_CANCELLED', 'The listing was stopped.');
}

/** Taken and left alone so often that a collection is due. */
async function dueForCollection(): Promise<MemoryStore> {
  const store = new MemoryStore();
  await park({ store, policy: OFTEN });
  for (let i = 0; i < 32; i++) await (await takeJob(store, WHERE, { owner: 'test' })).release({ isStrike: false });
  const { head: { version, gc } } = await readJob(store, WHERE);
  expect(version - gc).toBeGreaterThanOrEqual(32);
  return store;
}

test('the next slice collects beside its work, and parking it waits for no listing', async () => {
  const store = await dueForCollection();
  const stop = new AbortController();
  let listings = 0;
  const stuck = listing(store, async (signal) => {
    listings++;
    stop.abort();
    await until(signal);
  });
  expect(await resume({ store: stuck, signal: stop.signal, policy: OFTEN })).toMatchObject({ kind: 'parked' });
  expect(listings).toBe(1);
  expect((await readJob(store, WHERE)).head.state).toBe('parked');
  await expectUndisturbed(await resume({ store }));
});

test('what is collected beside the work is garbage, and nothing that the work names', async () => {
  const store = await dueForCollection();
  const before = of(store);
  const stop = new AbortController();
  const collected = new AbortController();
  const seen = through<ObjectStore>(store, {
    delete: async (keys, options) => {
      await store.delete(keys, options);
      collected.abort();
    },
  });
  expect(await resume({ store: seen, signal: stop.signal, onProgress: () => void (collected.signal.aborted && stop.abort()), policy: OFTEN })).toMatchObject({ kind: expect.stringMatching(/parked|ended/) as unknown });
  expect(collected.signal.aborted).toBe(true);
  const { head } = await readJob(store, WHERE);
  expect(head.gc).toBeGreaterThan(0);
  expect(before.some((key) => !store.snapshot().has(key))).toBe(true);
  await expectUndisturbed(await resume({ store }));
});

test('a stop that comes when the job has just ended does not wait for its garbage', async () => {
  const store = new MemoryStore();
  const stop = new AbortController();
  const stuck = listing(store, async (signal) => {
    stop.abort();
    await until(signal);
  });
  await expectUndisturbed(await begin({ store: stuck, signal: stop.signal }));
  expect(stop.signal.aborted).toBe(true);
});

test('what a killed owner uploaded before its first commit is collected when the job ends, however short it is', async () => {
  const store = new MemoryStore();
  using victim = await taken(store, { owner: 'gone' });
  const { lease } = victim;
  const orphan = `${PREFIX}t/${lease.head.version}/${lease.head.epoch}-w-0123456789abcdef.tail`;
  await store.put(orphan, [Buffer.from('never named')]);
  await expectUndisturbed(await resume({ store, policy: { firstMs: 60_000, deltaTokens: 1_000 } }));
  expect(of(store)).not.toContain(orphan);
});
