/** An owner that is busy for longer than it may be silent says that it lives; one that has lost its job stops being busy. */
import { expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import type { EngineError } from '../../engine/core/errors.ts';
import { readJob } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import { COMMIT_INTERVAL_MS, STILL_INTERVALS, takeJob } from '../../engine/kv/take.ts';
import type { NativeEngine, NativeRun } from '../../engine/runtime/native.ts';
import { ManualClock } from '../helpers/clock.ts';
import { changed } from '../resume/jobs.ts';
import { expectUndisturbed, park, taken, WHERE } from './support.ts';

const STILL_MS = STILL_INTERVALS * COMMIT_INTERVAL_MS;

/** The engine, whose prefill begins only when it is let go on, or is called off. */
function slowly(engine: NativeEngine): { readonly engine: NativeEngine; readonly busy: Promise<void>; goOn(): void } {
  let goOn = (): void => undefined;
  let isBusy = (): void => undefined;
  const allowed = new Promise<void>((resolve) => { goOn = resolve; });
  const busy = new Promise<void>((resolve) => { isBusy = resolve; });
  const slow = (run: NativeRun): NativeRun => changed(run, {
    async prefill(signal) {
      isBusy();
      await Promise.race([allowed, new Promise((resolve) => signal?.addEventListener('abort', resolve, { once: true }))]);
      await run.prefill(signal);
    },
  });
  return {
    busy,
    goOn,
    engine: changed(engine, {
      createRun: (options) => slow(engine.createRun(options)),
      restoreRun: async (...args) => slow(await engine.restoreRun(...args)),
    }),
  };
}

async function passed(clock: ManualClock, ms: number): Promise<void> {
  for (let left = ms; left > 0; left -= 500) {
    clock.advance(500);
    await clock.settle();
  }
}

test.each(['begins', 'is restored'] as const)('a job that %s keeps its owner, however long its tokens are fed', async (how) => {
  const store = new MemoryStore();
  if (how === 'is restored') await park({ store });
  const clock = new ManualClock();
  using first = await taken(store, { owner: 'first', clock });
  const { engine, busy, goOn } = slowly(first.context.engine);
  const running = first.run({ engine });
  await busy;
  const watching = takeJob(store, WHERE, { owner: 'second', clock, waitMs: 100 * STILL_MS }).then(() => 'taken', ({ code }: EngineError) => code);
  await passed(clock, 4 * STILL_MS);
  const { head } = await readJob(store, WHERE);
  expect(head).toMatchObject({ owner: 'first', epoch: first.lease.head.epoch, strikes: 1 });
  goOn();
  await expectUndisturbed(await running);
  await passed(clock, STILL_MS);
  expect(await watching).toBe('ERR_JOB_CONFLICT');
});

test('an owner that computes nothing any more is not kept alive: a slice that has ended is silent', async () => {
  const [store, clock] = [new MemoryStore(), new ManualClock()];
  using first = await taken(store, { owner: 'first', clock });
  await expectUndisturbed(await first.run());
  const before = store.log.length;
  await passed(clock, 2 * STILL_MS);
  expect(store.log.length).toBe(before);
});

test('a store that fails while the owner feeds its prompt is asked again, and the owner keeps its job', async () => {
  let fails = 0;
  const store = new MemoryStore({ faults: ({ key, condition }) => (fails > 0 && condition === 'if_match' && key.endsWith('/HEAD') && fails-- > 0 ? { kind: 'fail' } : null) });
  const clock = new ManualClock();
  using first = await taken(store, { owner: 'first', clock });
  const { engine, busy, goOn } = slowly(first.context.engine);
  const running = first.run({ engine });
  await busy;
  fails = 2;
  const { version } = (await readJob(store, WHERE)).head;
  await passed(clock, STILL_MS);
  expect(fails).toBe(0);
  expect((await readJob(store, WHERE)).head.version).toBeGreaterThan(version);
  goOn();
  await expectUndisturbed(await running);
});

test.each(['begins', 'is restored'] as const)('an owner whose job is cancelled while its tokens are fed (it %s) hears of it, and stops', async (how) => {
  const store = new MemoryStore();
  if (how === 'is restored') await park({ store });
  const clock = new ManualClock();
  using first = await taken(store, { owner: 'first', clock });
  const { engine, busy } = slowly(first.context.engine);
  const ended = first.run({ engine }).then(() => 'ended', ({ code }: EngineError) => code);
  await busy;
  await endJob(store, WHERE, 'cancelled');
  const { head } = await readJob(store, WHERE);
  await passed(clock, 2 * COMMIT_INTERVAL_MS);
  expect(await ended).toBe('ERR_FENCED');
  expect((await readJob(store, WHERE)).head).toEqual(head);
});
