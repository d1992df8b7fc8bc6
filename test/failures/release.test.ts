/** A job that was taken and then refused is let go: nobody runs it, so nobody has to wait for it, and it is none the worse. */
import { expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { EngineError, type ErrorCode } from '../../engine/core/errors.ts';
import { readJob } from '../../engine/kv/create.ts';
import { takeJob } from '../../engine/kv/take.ts';
import { ManualClock } from '../helpers/clock.ts';
import { begin, errorOf, expectUndisturbed, park, resume, taken, WHERE } from './support.ts';

/** Time stands still: whoever waits for a sign of life waits for ever. */
const atOnce = () => ({ take: false, clock: new ManualClock() });

test.each(['ERR_STORE', 'ERR_STORE_CONFIG', 'ERR_KEY', 'ERR_MEMORY', 'ERR_OPTION'] as const satisfies readonly ErrorCode[])(
  'a resume that ends with %s while it restores leaves the job parked as it was, and the next one starts at once', async (code) => {
    let fails = false;
    const store = new MemoryStore({ before: ({ kind, key }) => { if (fails && kind === 'get' && /\/t\//.test(key)) throw new EngineError(code, 'as planned'); } });
    await park({ store });
    const { head: before } = await readJob(store, WHERE);
    fails = true;
    for (let i = 1; i <= 2; i++) {
      expect(await errorOf(resume({ store, ...atOnce() }))).toMatchObject({ code, message: 'as planned' });
      const { head } = await readJob(store, WHERE);
      expect(head).toMatchObject({ state: 'parked', slice: before.slice, strikes: before.strikes, manifest: before.manifest, epoch: before.epoch + i });
    }
    fails = false;
    const { resumed } = await expectUndisturbed(await resume({ store, ...atOnce() }));
    expect(resumed).toMatchObject([{ slice: before.slice + 1, outcome: 'restored', reason: null }]);
  },
);

test('a job that the engine refuses before its first token is let go as if it had not been taken', async () => {
  const store = new MemoryStore();
  using first = await taken(store, { owner: 'first' });
  expect(await errorOf(first.run({ job: { ...first.job, lengths: [1_000_000] } }))).toMatchObject({ code: 'ERR_PROMPT_TOO_LONG' });
  expect((await readJob(store, WHERE)).head).toMatchObject({ state: 'parked', slice: 0, strikes: 0, epoch: 1, manifest: null });
  const { resumed } = await expectUndisturbed(await begin({ store, ...atOnce() }));
  expect(resumed).toEqual([]);
});

test('a job whose checkpoint is damaged is let go too, but its strikes add up: no machine can run it', async () => {
  const store = new MemoryStore();
  await park({ store });
  const { head: before } = await readJob(store, WHERE);
  // Nothing of it can be read, and it was forked from nothing: other numerics cannot begin at the spec.
  const broken: MemoryStore = new MemoryStore({ before: ({ kind, key }) => { if (kind === 'get' && /\/[stj]\//.test(key)) throw new EngineError('ERR_CHECKPOINT', 'numerics_drift: as planned'); } });
  for (const [key, bytes] of store.snapshot()) await broken.put(key, [bytes]);
  for (let i = 1; i <= 3; i++) {
    expect(await errorOf(resume({ store: broken, ...atOnce() }))).toMatchObject({ code: 'ERR_CHECKPOINT' });
    expect((await readJob(broken, WHERE)).head).toMatchObject({ state: 'parked', strikes: before.strikes + i, slice: before.slice });
  }
});

test('a run whose store fails after it has committed is parked where it stands, and what it did counts', async () => {
  let [puts, fails] = [0, true];
  const store = new MemoryStore({ before: ({ kind, key }) => { if (fails && kind === 'put' && /\/t\//.test(key) && puts++ >= 4) throw new EngineError('ERR_STORE', 'as planned'); } });
  expect(await errorOf(begin({ store }))).toMatchObject({ code: 'ERR_STORE' });
  const { head, manifest } = await readJob(store, WHERE);
  expect(head).toMatchObject({ state: 'parked', slice: 1 });
  expect(manifest?.step).toBeGreaterThanOrEqual(0);
  fails = false;
  await expectUndisturbed(await resume({ store, ...atOnce() }));
});

test('a run that cannot find out whether a commit was applied gives the job back, and the next one starts at once', async () => {
  let [swaps, down] = [0, 0];
  // Of the third swap of the head no answer comes, and then the head cannot be read either.
  const store = new MemoryStore({
    faults: ({ kind, key, condition }) => {
      if (!key.endsWith('/HEAD')) return null;
      if (kind === 'put' && condition === 'if_match' && ++swaps === 3) return (down = 1, { kind: 'lost_ack' });
      return down-- > 0 ? { kind: 'fail' } : null;
    },
  });
  expect(await errorOf(begin({ store }))).toMatchObject({ code: 'ERR_STORE', message: expect.stringContaining('not known') as string });

  const { head } = await readJob(store, WHERE);
  expect(head).toMatchObject({ state: 'parked', slice: 1 });
  await expectUndisturbed(await resume({ store, ...atOnce() }));
});

test('a fenced worker gives nothing back: the job is another\'s', async () => {
  let other: Promise<unknown> | null = null;
  const store: MemoryStore = new MemoryStore({
    before: async ({ actor, kind, key }) => {
      if (actor !== 'first' || kind !== 'get' || !/\/t\//.test(key)) return;
      await (other ??= takeJob(store.as('second'), WHERE, { owner: 'second', force: true }));
      throw new EngineError('ERR_STORE', 'as planned');
    },
  });
  await park({ store });
  expect(await errorOf(resume({ store: store.as('first') }))).toMatchObject({ code: 'ERR_STORE' });
  expect((await readJob(store, WHERE)).head).toMatchObject({ state: 'running', owner: 'second' });
});
