/** Several jobs at once on one worker. */
import { afterEach, describe, expect, test, vi } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { Session } from '../../engine/job/session.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { runStored } from '../../engine/job/stored.ts';
import { Metrics } from '../../functions/metrics.ts';
import { Bench, LONG, SHORT, quiet, reaches, whereIs } from './support.ts';

const seeded = (seed: number): JobSpec => ({ ...SHORT, seed: BigInt(seed), budget: { length: 100 + 10 * seed, width: 1 + (seed % 3) } });

afterEach(() => {
  delete process.env.RUMINATE_MEMORY_LIMIT;
});

test('twelve jobs on four slots step together and have the results that each has alone', async () => {
  await using bench = new Bench();
  const seeds = Array.from({ length: 12 }, (_, seed) => seed);
  for (const seed of seeds) await bench.submit(`job-${seed}`, seeded(seed));
  let most = 0;
  const worker = bench.worker({ slots: 4, onEvent: () => (most = Math.max(most, worker.running)) });
  await Promise.all(seeds.map((seed) => bench.event('ended', `job-${seed}`)));
  expect(most).toBe(4);
  for (const seed of seeds) expect(await bench.result(`job-${seed}`)).toEqual(await quiet(seeded(seed)));
});

test('a short job is not stuck behind a long one', async () => {
  await using bench = new Bench();
  const worker = bench.worker({ slots: 2 });
  await bench.submit('short', SHORT, { send: false });
  const where = await bench.submit('long', LONG);
  await reaches(worker, where, 10);
  await bench.send('short');
  await bench.event('ended', 'short');
  expect(bench.kinds('long')).toEqual(['started']);
  await bench.event('ended', 'long');
});

test('what KV has of the memory that admission counts with is told to Prometheus, and nothing when no job runs', async () => {
  await using bench = new Bench();
  const worker = bench.worker({ slots: 1 });
  const metrics = new Metrics({ health: async () => ({ state: 'ready', running: worker.running, queued: 0, queueAgeMs: 0 }), memoryPressure: () => worker.memoryPressure });
  const usage = async () => Number(/^ruminate_kv_cache_usage_perc (\S+)$/m.exec((await metrics.scrape()).body)?.[1]);
  expect(await usage()).toBe(0);
  const where = await bench.submit('long', LONG);
  await reaches(worker, where, 10);
  const during = await usage();
  expect(during).toBeGreaterThan(0);
  expect(during).toBeLessThan(1);
  await bench.event('ended', 'long');
  await vi.waitFor(() => expect(worker.running).toBe(0), { timeout: 20_000 });
  expect(await usage()).toBe(0);
});

test('a job that does not fit beside the others waits for them, and that is no strike', async () => {
  using session = new Session();
  const { expected, weight_bytes: weights } = await session.quote({ ...LONG, threads: 1 });
  await using bench = new Bench();
  await bench.submit('first', LONG);
  await bench.submit('second', { ...LONG, seed: 8n }, { send: false });
  const worker = bench.worker({ slots: 2, fullMs: 50 });
  await reaches(worker, { tenant: 'acme', job: 'first' }, 1);
  process.env.RUMINATE_MEMORY_LIMIT = String(Math.floor((expected.allocated_bytes - weights) * 1.5));
  await bench.send('second');
  await bench.event('full', 'second');
  await bench.event('ended', 'second');
  expect(new Set(bench.kinds('second'))).toEqual(new Set(['started', 'full', 'ended']));
  delete process.env.RUMINATE_MEMORY_LIMIT;
  expect(await bench.head('second')).toMatchObject({ state: 'done', strikes: 0 });
  expect(await bench.result('second')).toEqual(await quiet({ ...LONG, seed: 8n }));
});

test('when jobs take more than they were expected to, the youngest makes room and goes on later', async () => {
  await using bench = new Bench();
  const worker = bench.worker({ slots: 2, fullMs: 50 });
  const where = await bench.submit('first', LONG, { send: false });
  const second = await bench.submit('second', { ...LONG, seed: 8n }, { send: false });
  await bench.send('first');
  await reaches(worker, where, 1);
  await bench.send('second');
  await reaches(worker, second, 1);
  // As if everything had been planned too small.
  process.env.RUMINATE_MEMORY_LIMIT = '1';
  const parked = await bench.event('parked', 'second');
  expect(parked.why).toBe('memory');
  delete process.env.RUMINATE_MEMORY_LIMIT;
  await Promise.all([bench.event('ended', 'first'), bench.event('ended', 'second')]);
  expect(bench.kinds('first')).toEqual(['started', 'ended']);
  expect(await bench.result('second')).toEqual(await quiet({ ...LONG, seed: 8n }));
});

describe('is no leak of listeners to Node', () => {
  /** Of which it tells in a turn of its own. */
  async function warned(work: () => Promise<void>): Promise<readonly Error[]> {
    const warnings: Error[] = [];
    const hear = (warning: Error) => void warnings.push(warning);
    process.on('warning', hear);
    try {
      await work();
      await new Promise((resolve) => setImmediate(resolve));
      return warnings;
    } finally {
      process.off('warning', hear);
    }
  }

  test('a worker with 32 slots, of which some have jobs and the others wait', async () => {
    expect(await warned(async () => {
      await using bench = new Bench();
      for (let job = 0; job < 12; job++) await bench.submit(`job-${job}`, { ...SHORT, budget: { length: 20, width: 1 } });
      bench.worker({ slots: 32 });
      for (let job = 0; job < 12; job++) await bench.event('ended', `job-${job}`);
    })).toEqual([]);
  });

  test('a job in twelve shards that one process runs', async () => {
    expect(await warned(async () => {
      const { signal } = new AbortController();
      await runStored({ ...SHORT, early_stop: false, shards: 12, budget: { length: 20, width: 12 } }, { store: new MemoryStore(), where: whereIs('sums'), threads: 1, signal });
    })).toEqual([]);
  });
});
