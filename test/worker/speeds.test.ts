/** How fast a worker is, before any job has run and after: what quotes and the size of a fleet go by. */
import { expect, test } from 'vitest';

import { readRates } from '../../engine/control/rates.ts';
import { WIDE, paceAt, paceOf } from '../../engine/job/pace.ts';
import { Session } from '../../engine/job/session.ts';
import { Speeds } from '../../engine/worker/speeds.ts';
import { Worker } from '../../engine/worker/worker.ts';
import { ManualClock } from '../helpers/clock.ts';
import { Bench, LONG, quiet, SHORT } from './support.ts';

const MODEL = 'countdown@cr2';

/** Until it has told the store of a probe. */
async function probed({ store }: Bench): Promise<void> {
  while ((await readRates(store)).size === 0) await new Promise((resolve) => setTimeout(resolve, 10));
}

test('a step takes as long as a line over its chains says, and more chains than were timed are no faster', () => {
  // 10 ms for one chain and 24 for eight: 2 ms for each more.
  const pace = { one: 100, wide: (WIDE * 1_000) / 24 };
  expect([1, 2, 5, 8, 64].map((width) => Math.round(paceAt(pace, width)))).toEqual([100, 167, 278, 333, 333]);
  expect(paceAt({ one: 100, wide: 1e6 }, WIDE), 'no step gets shorter by more chains').toBe(800);
});

test('what is told of many chains is what it is taken for, also of a machine that was disturbed while it was timed', () => {
  for (const [oneMs, wideMs] of [[10, 24], [10, 4], [10, 10], [10, 200]] as const) {
    const pace = paceOf(oneMs, wideMs);
    expect([paceAt(pace, 1), paceAt(pace, WIDE)]).toEqual([expect.closeTo(pace.one, 6), expect.closeTo(pace.wide, 6)]);
  }
});

test('a worker knows before any job how fast a model is, and tells the store, by its name with the variant', async () => {
  await using bench = new Bench();
  const worker = new Worker({ store: bench.store, queue: bench.queue, threads: 1 });
  expect(worker.speed(MODEL, 1)).toBeNull();
  worker.start(['countdown@cr2']);
  await probed(bench);
  for (const width of [1, 4, 64]) expect(worker.speed(MODEL, width)).toEqual({ tokensPerSecond: expect.toSatisfy((rate: number) => rate > 0 && rate < Infinity), basis: 'probe' });
  const { tokensPerSecond } = worker.speed(MODEL, WIDE) ?? { tokensPerSecond: NaN };
  expect((await readRates(bench.store)).get(MODEL)).toMatchObject({ basis: 'probe', tokensPerSecond: expect.closeTo(tokensPerSecond, 6), one: expect.any(Number) });
  expect(await worker.drain({ deadlineMs: 20_000 })).toBe(true);
});

test('a job that comes is not kept waiting by a probe and has the tokens that it always has; the probe comes after it', async () => {
  const expected = await quiet(SHORT);
  await using bench = new Bench();
  await bench.submit('sums', SHORT);
  let end = (): void => undefined;
  const ended = new Promise<void>((resolve) => (end = resolve));
  const worker = new Worker({ store: bench.store, queue: bench.queue, threads: 1, onEvent: ({ kind }) => void (kind === 'ended' && end()) });
  worker.start([MODEL]);
  await ended;
  await probed(bench);
  expect(worker.speed(MODEL, 2)?.basis).toBe('jobs');
  expect(await worker.drain({ deadlineMs: 20_000 })).toBe(true);
  expect(await bench.result('sums')).toEqual(expected);
});

test('what does not load is said, and takes neither the worker nor the next model with it', async () => {
  await using bench = new Bench();
  const said: string[] = [];
  const worker = new Worker({ store: bench.store, queue: bench.queue, threads: 1, onEvent: (event) => void (event.kind === 'trouble' && said.push(event.doing)) });
  worker.start(['nobody', MODEL]);
  await probed(bench);
  expect([said, worker.state]).toEqual([['rates'], 'ready']);
  expect(await worker.drain({ deadlineMs: 20_000 })).toBe(true);
});

test('a worker that drains waits for no probe', async () => {
  await using bench = new Bench();
  const worker = new Worker({ store: bench.store, queue: bench.queue, threads: 1 });
  worker.start([MODEL, 'countdown@cr4', 'countdown@cr8', 'countdown@dense']);
  expect(await worker.drain({ deadlineMs: 20_000 })).toBe(true);
  expect((await readRates(bench.store)).size).toBeLessThan(4);
});

test('a worker that drains while its probe waits for a job to end parks that job', async () => {
  await using bench = new Bench();
  await bench.submit('long', LONG);
  const worker = new Worker({ store: bench.store, queue: bench.queue, threads: 1, policy: { deltaTokens: 40 } });
  worker.start([MODEL]);
  while ((await bench.head('long')).state !== 'running') await new Promise((resolve) => setTimeout(resolve, 5));
  expect(await worker.drain({ deadlineMs: 20_000 })).toBe(true);
  expect((await bench.head('long')).state).toBe('parked');
});

test('of jobs that ran, the last one says how fast the machine is, and the probe how that goes with the number of chains', async () => {
  // Time stands still: a step takes the same for any number of chains.
  const speeds = new Speeds(new ManualClock());
  using session = new Session();
  const { signal } = new AbortController();
  speeds.ran(MODEL, 100, 2);
  expect(speeds.speed(MODEL, 8)).toEqual({ tokensPerSecond: 100, basis: 'jobs' });
  {
    using _ = speeds.begin();
    expect(await speeds.probe(session, MODEL, { signal, threads: 1 }), 'not beside a job').toBeNull();
  }
  expect(await speeds.probe(session, MODEL, { signal, threads: 1 })).toMatchObject({ model: MODEL });
  expect([1, 2, 8].map((width) => Math.round(speeds.speed(MODEL, width)?.tokensPerSecond ?? 0))).toEqual([50, 100, 400]);
  // One that comes meanwhile ends it.
  const other = speeds.probe(session, 'countdown@cr8', { signal, threads: 1 });
  using _ = speeds.begin();
  expect([await other, speeds.speed('countdown@cr8', 1)]).toEqual([null, null]);
});
