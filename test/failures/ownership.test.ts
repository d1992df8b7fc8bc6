/** KV.md 7, ownership: of several workers on one job one is believed, and the others find out before they have written anything. */
import { afterEach, expect, test, vi } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { readJob } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import { begin, contents, errorOf, expectUndisturbed, park, parked, resume, WHERE } from './support.ts';

afterEach(() => void vi.useRealTimers());

test('one message delivered twice, at once: one run, the other is told that the job has an owner', async () => {
  const store = new MemoryStore();
  const settled = await Promise.allSettled([1, 2].map(() => begin({ store, take: false, policy: { deltaTokens: 16, deltaMs: 1, journalMs: 1 } })));
  // The second may also come after the first has ended: then it reads the result.
  const [kept = [], lost = []] = [settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : [])), settled.flatMap((one) => (one.status === 'rejected' ? [one.reason as unknown] : []))];
  expect(kept.length).toBeGreaterThanOrEqual(1);
  for (const outcome of kept) await expectUndisturbed(outcome);
  for (const error of lost) expect(error).toMatchObject({ code: expect.stringMatching(/^ERR_(JOB_CONFLICT|FENCED)$/) as string });
  const { head, manifest } = await readJob(store, WHERE);
  expect(head.state).toBe('done');
  const slices = manifest?.slices.map(({ slice }) => slice) ?? [];
  expect(slices).toEqual([...new Set(slices)]);
});

test('an owner that slept through a takeover is fenced when it wakes, at whichever swap of the head it slept, and changes nothing', async () => {
  for (let n = 0; ; n++) {
    let [swaps, slept] = [0, false];
    let wake: () => void = () => undefined;
    const store: MemoryStore = new MemoryStore({
      before: async ({ actor, condition }) => {
        if (actor !== 'sleeper' || condition !== 'if_match' || swaps++ !== n) return;
        slept = true;
        await new Promise<void>((resolve) => { wake = resolve; });
      },
    });
    const sleeper = begin({ store: store.as('sleeper') }).then((outcome) => outcome, (error: unknown) => error);
    while (!slept && swaps <= n && (await Promise.race([sleeper, new Promise((resolve) => setTimeout(resolve, 1, null))])) === null);
    if (!slept) break;
    await expectUndisturbed(await resume({ store: store.as('other') }));
    const after = contents(store);
    wake();
    const woken = await sleeper;
    // Asleep when it had ended and only its garbage was left to collect.
    if ((woken as { readonly kind?: string }).kind === 'ended') break;
    // Asleep at its own take it finds a job that has ended.
    expect(woken).toMatchObject({ code: n === 0 ? 'ERR_JOB_CONFLICT' : 'ERR_FENCED' });
    // It may have left garbage, and nothing else.
    expect({ ...contents(store), ...after }).toEqual(contents(store));
    await expectUndisturbed(await resume({ store }));
  }
});

test('a cancellation that races a run, at whichever call of the store: the job is cancelled and its owner fenced, or it had ended', async () => {
  const seen = new Set<string>();
  for (let n = 7; ; n++) {
    let calls = 0;
    let cancelled: Promise<{ readonly changed: boolean }> | null = null;
    const store: MemoryStore = new MemoryStore({
      before: async ({ actor }) => {
        if (actor === 'owner' && calls++ === n) await (cancelled = endJob(store.as('person'), WHERE, 'cancelled'));
      },
    });
    const owner = await begin({ store: store.as('owner') }).then((outcome) => outcome.kind, (error: unknown) => (error as { readonly code: string }).code);
    if (cancelled === null) break;
    const { changed } = await cancelled;
    const { state } = (await readJob(store, WHERE)).head;
    seen.add(`${owner} ${state} ${changed}`);
  }
  // Cancelled before it was taken, while it ran, after it was done.
  expect([...seen].filter((one) => !['ERR_JOB_CONFLICT cancelled true', 'ERR_FENCED cancelled true', 'ended done false'].includes(one))).toEqual([]);
  expect(seen.has('ERR_FENCED cancelled true')).toBe(true);
});

test('a job that was poisoned keeps its checkpoint and is run by nobody', async () => {
  const store = await parked();
  const { manifest } = await readJob(store, WHERE);
  await endJob(store, WHERE, 'poisoned');
  expect(await errorOf(resume({ store }))).toMatchObject({ code: 'ERR_JOB_CONFLICT', message: expect.stringContaining('poisoned') as string });
  expect((await readJob(store, WHERE)).manifest).toEqual(manifest);
});

test('takes that never get a token further add up as strikes, and progress forgives them', async () => {
  let dying = false;
  // Dies at its first upload, as on a poisoned job.
  const store = new MemoryStore({ before: ({ kind, condition }) => { if (dying && kind === 'put' && condition === null) throw new Error('killed'); } });
  await park({ store });
  dying = true;
  for (let i = 0; i < 3; i++) await expect(resume({ store })).rejects.toThrow('killed');
  expect((await readJob(store, WHERE)).head.strikes).toBe(3);
  dying = false;
  await expectUndisturbed(await resume({ store }));
  expect((await readJob(store, WHERE)).head.strikes).toBe(0);
});

test('a wall clock that is an hour off, or jumps while the job runs, changes nothing', async () => {
  for (const [atBegin, atResume] of [[3_600_000, -3_600_000], [-3_600_000, 3_600_000], [0, 400 * 86_400_000]] as const) {
    const real = Date.now();
    const store = new MemoryStore({
      // Jumps back and forth between any two calls.
      before: ({ index }) => void vi.setSystemTime(real + (index % 2 === 0 ? atBegin : atResume)),
    });
    vi.useFakeTimers({ toFake: ['Date'], now: real + atBegin });
    await park({ store, take: false });
    vi.setSystemTime(real + atResume);
    const startMs = performance.now();
    await expectUndisturbed(await resume({ store, take: false }));
    const { manifest } = await readJob(store, WHERE);
    expect(manifest?.elapsedMs).toBeGreaterThan(0);
    expect(manifest?.elapsedMs).toBeLessThan(60_000 + performance.now() - startMs);
    vi.useRealTimers();
  }
});
