/** How much work there is, in seconds of one worker, and what is said of it to Prometheus and CloudWatch. */
import { describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { modelRates, putRate, readRates } from '../../engine/control/rates.ts';
import { UNKNOWN_SECONDS, type Work, WorkCount } from '../../engine/control/work.ts';
import { utf8Of } from '../../engine/core/bytes.ts';
import { createJob } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import { type Alive, reconcile } from '../../engine/kv/reconcile.ts';
import { takeJob } from '../../engine/kv/take.ts';
import { Throughput } from '../../engine/worker/throughput.ts';
import { Emf, isNamespace } from '../../functions/emf.ts';
import { Metrics } from '../../functions/metrics.ts';
import { ManualClock } from '../helpers/clock.ts';
import { through } from '../helpers/through.ts';
import { content, options, SPEC } from '../kv/support.ts';

const RATES = new Map([['countdown@cr8', 100], ['large', 10]].map(([model, tokensPerSecond]) => [model as string, { tokensPerSecond: tokensPerSecond as number, basis: 'jobs' as const }]));
const where = (job: string) => ({ tenant: 'acme', job });
const NO_CHAINS = { segments: [], tails: [], finish: null };

async function metIn(store: MemoryStore): Promise<readonly Alive[]> {
  const met: Alive[] = [];
  for await (const _ of reconcile(store, new Map(), { clock: new ManualClock(), onAlive: (alive) => void met.push(alive) })) void _;
  return met;
}

async function made(store: MemoryStore, job: string, model: string, tokens: number): Promise<void> {
  await createJob(store, where(job), SPEC, { ...options(), plan: { model, tokens } });
}

describe('the backlog', () => {
  test('is what all jobs that have not ended have left of their plans, over the rate of their model', async () => {
    const store = new MemoryStore();
    const rates = modelRates(RATES);
    await made(store, 'waits', 'countdown@cr8', 1_000);
    await made(store, 'runs', 'large', 300);
    await made(store, 'over', 'large', 1e6);
    await endJob(store, where('over'), 'cancelled');
    const lease = await takeJob(store, where('runs'), options());
    const count = new WorkCount(store);
    expect(await count.count(await metIn(store), rates, 0)).toEqual({ waiting: 1, running: 1, waitingSeconds: 10, backlogSeconds: 10 + 30, oldestSeconds: expect.any(Number), unmeasured: 0, isWhole: true });

    await lease.commit({ state: 'running', manifest: () => content([], { step: 100, chains: [{ ...NO_CHAINS, tokens: 120 }, { ...NO_CHAINS, tokens: 80 }] }), objects: [] });
    expect(await count.count(await metIn(store), rates, 0)).toMatchObject({ running: 1, waitingSeconds: 10, backlogSeconds: 10 + 10 });
    await lease.commit({ state: 'parked', manifest: () => content([], { step: 150, chains: [{ ...NO_CHAINS, tokens: 200 }, { ...NO_CHAINS, tokens: 100 }] }), objects: [] });
    expect(await count.count(await metIn(store), rates, 0)).toMatchObject({ waiting: 2, running: 0, waitingSeconds: 10, backlogSeconds: 10 });
  });

  test('counts what nobody has measured as the others are on average, and alone as enough for one worker to come', async () => {
    const store = new MemoryStore();
    await made(store, 'new', 'unheard', 5);
    expect(await new WorkCount(store).count(await metIn(store), modelRates(RATES), 0)).toMatchObject({ backlogSeconds: UNKNOWN_SECONDS, unmeasured: 1 });
    await made(store, 'known', 'large', 200);
    expect(await new WorkCount(store).count(await metIn(store), modelRates(RATES), 0)).toMatchObject({ backlogSeconds: 40, unmeasured: 1 });
    // Made before markers had plans.
    await createJob(store, where('old'), SPEC, options());
    expect(await new WorkCount(store).count(await metIn(store), modelRates(RATES), 0)).toMatchObject({ waiting: 3, backlogSeconds: 60, unmeasured: 2 });
  });

  test('reads of a job that has not moved nothing again', async () => {
    const store = new MemoryStore();
    for (let i = 0; i < 5; i++) await made(store, `job-${i}`, 'large', 10);
    const met = await metIn(store);
    let reads = 0;
    const count = new WorkCount(through(store, { get: async (key, more) => {
      reads++;
      return await store.get(key, more);
    } }));
    for (let i = 0; i < 3; i++) expect(await count.count(met, modelRates(RATES), 0)).toMatchObject({ backlogSeconds: 5 });
    expect(reads).toBe(5);
  });

  test('is as old as its oldest job that nobody has taken yet', async () => {
    const store = new MemoryStore();
    await made(store, 'first', 'large', 10);
    await made(store, 'second', 'large', 10);
    const met = (await metIn(store)).map((alive) => ({ ...alive, markedAtMs: alive.where.job === 'first' ? 1_000 : 4_000 }));
    expect(await new WorkCount(store).count(met, modelRates(RATES), 11_000)).toMatchObject({ oldestSeconds: 10 });
    await takeJob(store, where('first'), options());
    const later = (await metIn(store)).map((alive) => ({ ...alive, markedAtMs: alive.where.job === 'first' ? 1_000 : 4_000 }));
    expect(await new WorkCount(store).count(later, modelRates(RATES), 11_000)).toMatchObject({ oldestSeconds: 7 });
  });
});

describe('a rate', () => {
  test('is planned tokens over the time in which there was work, however many jobs shared it', () => {
    const clock = new ManualClock();
    const throughput = new Throughput(clock);
    throughput.begin('m');
    clock.advance(5_000);
    throughput.begin('m');
    throughput.retire('m', 300);
    clock.advance(5_000);
    throughput.end('m');
    throughput.end('m');
    clock.advance(60_000);
    expect(throughput.rates()).toEqual(new Map([['m', 30]]));
    // It ends long before its length: nothing of its plan is left to do.
    throughput.begin('m');
    throughput.retire('m', 700);
    throughput.end('m');
    expect(throughput.rates()).toEqual(new Map([['m', 100]]));
  });

  test('forgets how fast the machine once was', () => {
    const clock = new ManualClock();
    const throughput = new Throughput(clock);
    throughput.begin('m');
    for (let minute = 0; minute < 240; minute++) {
      clock.advance(60_000);
      throughput.retire('m', minute < 120 ? 60_000 : 6_000);
      throughput.rates();
    }
    expect(throughput.rates().get('m')).toBeLessThan(110);
  });

  test('of slots is how long they have had jobs', () => {
    const clock = new ManualClock();
    const throughput = new Throughput(clock);
    {
      using _ = throughput.occupy();
      clock.advance(1_000);
      using _other = throughput.occupy();
      clock.advance(2_000);
    }
    clock.advance(9_000);
    expect(throughput.slotMs).toBe(5_000);
  });

  test('is told in the store, for a model with a variant or without; what is none of ours is left out', async () => {
    const store = new MemoryStore();
    await putRate(store, 'org/name@cr8', { tokensPerSecond: 12.5, basis: 'jobs' });
    await putRate(store, 'org/name@dense', { tokensPerSecond: 2.5, basis: 'jobs' });
    await store.put('rate/0', [utf8Of('{"format":"ruminate-rate/1","model":"org/name@cr8","tokensPerSecond":9999}')]);
    await store.put('rate/1', [utf8Of('none')]);
    const rates = modelRates(await readRates(store));
    expect([rates.of('org/name@cr8'), rates.of('org/name'), rates.of('org')]).toEqual([12.5, 7.5, null]);
  });
});

test('Prometheus is told by a walk that could not be through of nothing less than the last whole one met, and that it was none', async () => {
  const metrics = new Metrics({ health: async () => ({ state: 'ready', running: 0, queued: 0, queueAgeMs: 0 }) });
  const work = { waiting: 1, running: 0, waitingSeconds: 100, backlogSeconds: 100, oldestSeconds: 0, unmeasured: 0, isWhole: true };
  const told = async (more: Partial<Work>) => {
    metrics.worker({ kind: 'counted', work: { ...work, ...more } });
    const { body } = await metrics.scrape();
    return ['backlog_seconds', 'waiting_seconds', 'backlog_whole'].map((name) => Number(new RegExp(`^ruminate_${name} (\\S+)$`, 'm').exec(body)?.[1]));
  };
  expect(await told({})).toEqual([100, 100, 1]);
  expect(await told({ backlogSeconds: 0, waitingSeconds: 0, isWhole: false })).toEqual([100, 100, 0]);
  expect(await told({ backlogSeconds: 130, waitingSeconds: 20, isWhole: false })).toEqual([130, 100, 0]);
  expect(await told({ backlogSeconds: 7, waitingSeconds: 7 })).toEqual([7, 7, 1]);
});

describe('CloudWatch', () => {
  test('gets a line in its embedded metric format, with the mean occupancy since the last', () => {
    const clock = new ManualClock();
    const lines: string[] = [];
    const emf = new Emf({ namespace: 'Ruminate', service: 'worker', clock, nowMs: () => 1_700_000_000_000, write: (line) => void lines.push(line) });
    clock.advance(60_000);
    emf.counted({ waiting: 3, running: 1, waitingSeconds: 90, backlogSeconds: 120.5, oldestSeconds: 7, unmeasured: 0, isWhole: true }, { slots: 4, slotMs: 60_000 });
    clock.advance(60_000);
    emf.counted({ waiting: 0, running: 0, waitingSeconds: 0, backlogSeconds: 0, oldestSeconds: 0, unmeasured: 0, isWhole: true }, { slots: 4, slotMs: 180_000 });
    const [first, second] = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(first).toEqual({
      _aws: { Timestamp: 1_700_000_000_000, CloudWatchMetrics: [{ Namespace: 'Ruminate', Dimensions: [['Service']], Metrics: [
        { Name: 'BacklogSeconds', Unit: 'Seconds' }, { Name: 'WaitingSeconds', Unit: 'Seconds' }, { Name: 'QueueAgeSeconds', Unit: 'Seconds' },
        { Name: 'JobsWaiting', Unit: 'Count' }, { Name: 'JobsRunning', Unit: 'Count' }, { Name: 'WorkerOccupancy', Unit: 'Percent' }, { Name: 'WorkerSlots', Unit: 'Count' },
      ] }] },
      Service: 'worker', BacklogSeconds: 120.5, WaitingSeconds: 90, QueueAgeSeconds: 7, JobsWaiting: 3, JobsRunning: 1, WorkerOccupancy: 25, WorkerSlots: 4,
    });
    expect(second).toMatchObject({ WorkerOccupancy: 50 });
    expect(['Ruminate', 'Ruminate/prod', '#x'].map(isNamespace)).toEqual([true, true, true]);
    expect(['', ':x', 'AWS/SQS', 'a b', 'x'.repeat(256)].map(isNamespace)).toEqual([false, false, false, false, false]);
  });
});
