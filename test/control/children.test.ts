/** Jobs made from jobs, quotes, models: what a platform has that others lack. */
import { afterAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { NativeShelf } from '../../engine/control/native-shelf.ts';
import { putRate } from '../../engine/control/rates.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { generate } from '../../engine/job/generate.ts';
import { resumeStored } from '../../engine/job/stored.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { readJob } from '../../engine/kv/create.ts';
import { readMarker } from '../../engine/kv/hints.ts';
import { ManualClock } from '../helpers/clock.ts';
import { keyFile } from '../helpers/stored-job.ts';
import { SPEC, TENANT, eventsOf, fingerprint, numbered, platformOn, runToEnd } from './support.ts';

const shelf = new NativeShelf();
afterAll(() => shelf[Symbol.dispose]());

const me = { tenant: TENANT };

async function endedJob() {
  const store = new MemoryStore();
  const { platform, queue } = platformOn(store, shelf);
  await platform.submit(SPEC, { ...me, id: 'sums' });
  await runToEnd(store, 'sums');
  queue.sent.length = 0;
  return { store, platform, queue };
}

describe('an extension', () => {
  test('is a new job that is announced, has the result of the longer job run at once, and is told from its first token', async () => {
    const { store, platform, queue } = await endedJob();
    const child = await platform.extend('sums', { ...me, length: 240 });
    expect(child).toMatchObject({ state: 'queued', model: 'countdown@cr2', parent: { job: 'sums', kind: 'extend' }, chains: [{ tokens: 0 }, { tokens: 0 }] });
    expect(queue.sent).toEqual([{ v: 1, tenant: TENANT, job: child.id, slice: 0 }]);
    const reading = eventsOf(platform.events(child.id, me));
    await runToEnd(store, child.id);
    const { timing: _, ...once } = await generate({ ...SPEC, threads: 1, budget: { length: 240, width: 2 } });
    expect(await platform.result(child.id, me)).toEqual(once);
    const events = numbered(await reading);
    expect(events).toEqual(await eventsOf(platform.events(child.id, me)));
    expect(events.filter(({ kind }) => kind === 'token')).toHaveLength(once.usage.completion_tokens);
  });

  test('of a job that waited as part of a batch waits for nobody', async () => {
    const store = new MemoryStore();
    const { platform, queue } = platformOn(store, shelf);
    const { id } = await platform.submit({ ...SPEC, priority: 'batch', wait_ms_max: 60_000 }, me);
    expect(queue.sent).toMatchObject([{ priority: 'batch', expiresMs: expect.any(Number) as unknown }]);
    await runToEnd(store, id);
    queue.sent.length = 0;
    const child = await platform.extend(id, { ...me, length: 240 });
    expect(queue.sent).toEqual([{ v: 1, tenant: TENANT, job: child.id, slice: 0 }]);
  });

  test('by chains is told with each chain from its beginning', async () => {
    const { store, platform } = await endedJob();
    const child = await platform.extend('sums', { ...me, width: 3, as: 'wider' });
    const reading = eventsOf(platform.events(child.id, me));
    await runToEnd(store, child.id);
    expect(numbered(await reading)).toEqual(await eventsOf(platform.events(child.id, me)));
    expect((await platform.get('wider', me)).chains).toHaveLength(3);
  });

  test('that asks for nothing, or for less, is refused and not stored', async () => {
    const { store, platform, queue } = await endedJob();
    const before = fingerprint(store);
    await expect(platform.extend('sums', me)).rejects.toMatchObject({ code: 'ERR_OPTION' });
    await expect(platform.extend('sums', { ...me, length: 100 })).rejects.toMatchObject({ code: 'ERR_OPTION' });
    await expect(platform.extend('sums', { ...me, length: 100_000 })).rejects.toMatchObject({ code: 'ERR_PROMPT_TOO_LONG' });
    expect(fingerprint(store)).toBe(before);
    expect(queue.sent).toEqual([]);
  });
});

describe('a fork', () => {
  test('goes on from a past token of a chain, and twice under one name is one job', async () => {
    const { store, platform } = await endedJob();
    const asked = { ...me, at: 50, chain: 1, width: 2, seed: 3n, as: 'other' };
    const child = await platform.fork('sums', asked);
    expect(child).toMatchObject({ id: 'other', parent: { job: 'sums', kind: 'fork' } });
    expect(await platform.fork('sums', asked)).toEqual(child);
    await runToEnd(store, 'other');
    const parent = await platform.result('sums', me);
    const fork = await platform.result('other', me);
    for (const { tokens } of fork?.chains ?? []) expect(tokens.slice(0, 50)).toEqual(parent?.chains[1]?.tokens.slice(0, 50));
    expect(fork?.chains[0]?.tokens).not.toEqual(parent?.chains[1]?.tokens);
  });

  test('of a job without a checkpoint, or under the name of one that was erased, is refused', async () => {
    const { platform } = await endedJob();
    await platform.submit(SPEC, { ...me, id: 'young' });
    await expect(platform.fork('young', { ...me, at: 0, chain: 0, width: 1 })).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    await platform.erase('young', me);
    await expect(platform.fork('sums', { ...me, at: 0, chain: 0, width: 1, as: 'young' })).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    await expect(platform.fork('sums', { ...me, at: 0, chain: 0, width: 1, as: '../x' })).rejects.toMatchObject({ code: 'ERR_OPTION' });
  });
});

describe('a sealed job', () => {
  test('is told with its key and to nobody without', async () => {
    const keys = await keyFile();
    try {
      const store = new MemoryStore();
      const { platform } = platformOn(store, shelf, { keys: keys.provider });
      const { id } = await platform.submit(SPEC, me);
      await resumeStored({ store, where: { ...me, job: id }, keys: keys.provider, threads: 1 });
      const result = await platform.result(id, me);
      expect((await eventsOf(platform.events(id, me))).at(-1)).toMatchObject({ kind: 'result', result });
      expect(await platform.turns(id, me)).toEqual([{ role: 'user', content: SPEC.prompt }]);
      const { platform: keyless } = platformOn(store, shelf);
      await expect(keyless.turns(id, me)).rejects.toMatchObject({ code: 'ERR_KEY' });
      await expect(keyless.get(id, me)).rejects.toMatchObject({ code: 'ERR_KEY' });
      await expect(keyless.result(id, me)).rejects.toMatchObject({ code: 'ERR_KEY' });
      await expect(eventsOf(keyless.events(id, me))).rejects.toMatchObject({ code: 'ERR_KEY' });
    } finally {
      keys.remove();
    }
  });
});

test('a list has jobs under keys that are not ours, as far as they show', async () => {
  const [ours, theirs] = [await keyFile(), await keyFile()];
  try {
    const store = new MemoryStore();
    const said = { temperature: 0.5, repeated: { effort: 'low' }, logprobs: 2, format: null, instructions: null };
    const labelled: JobSpec = { ...SPEC, metadata: { team: 'blue' }, user: 'ada', sampling: { temperature: 0.5 }, repeated: said.repeated, logprobs: 2 };
    const { platform } = platformOn(store, shelf, { keys: ours.provider });
    const { platform: other } = platformOn(store, shelf, { keys: theirs.provider });
    await platform.submit(labelled, { ...me, id: 'ours' });
    await other.submit(labelled, { ...me, id: 'theirs' });
    for (const platform_ of [platform, platformOn(store, shelf).platform]) {
      const { jobs } = await platform_.list({ ...me, limit: 10 });
      expect(jobs.map(({ id }) => id).sort()).toEqual(['ours', 'theirs']);
      expect(jobs.find(({ id }) => id === 'theirs')).toMatchObject({ state: 'queued', model: 'countdown@cr2', metadata: null, user: null, tools: null });
      expect(jobs.find(({ id }) => id === 'ours')).toMatchObject(platform_ === platform ? { metadata: { team: 'blue' }, user: 'ada', asked: said } : { metadata: null, user: null, asked: { temperature: null, repeated: null } });
    }
  } finally {
    ours.remove();
    theirs.remove();
  }
});

describe('a quote', () => {
  const workers = { state: 'ready' as const, running: 0, speed: (model: string) => (model === 'countdown@cr2' ? { tokensPerSecond: 100, basis: 'jobs' as const } : null) };

  test('is what the job then uses where nothing is evicted and every chain is as long as it may be', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf, { workers, usdPerHour: 3.6 });
    const dense = { ...SPEC, model: 'countdown@dense' };
    const quote = await platform.quote(dense, me);
    const { id } = await platform.submit(dense, me);
    await runToEnd(store, id);
    const { usage } = (await platform.result(id, me)) ?? {};
    expect(quote).toMatchObject({ model: 'countdown@dense', length: 160, width: 2, compression_ratio: 1, prompt_tokens: usage?.prompt_tokens, seconds: null, seconds_by: null, seconds_basis: 'no_worker_yet', cost_usd: null, refusal: null });
    expect(quote.expected).toEqual(quote.worst);
    expect(quote.expected).toMatchObject({ completion_tokens: usage?.completion_tokens, kv_reads: usage?.kv_reads, peak_kv_tokens: usage?.peak_kv_tokens });
  });

  test('of a budget that ends it early is of what the budget pays for, in seconds and in the backlog too', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    await putRate(store, 'countdown@dense', { tokensPerSecond: 100, basis: 'jobs' });
    const poor = { ...SPEC, model: 'countdown@dense', budget: { length: 160, width: 2, kv_read_budget: 100 } };
    const quote = await platform.quote(poor, me);
    const { id } = await platform.submit(poor, me);
    expect((await readMarker(store, { tenant: me.tenant, job: id }, {}))?.plan).toEqual({ model: 'countdown@dense', tokens: quote.expected.completion_tokens });
    await runToEnd(store, id);
    const { usage } = (await platform.result(id, me)) ?? {};
    expect(usage).toMatchObject(quote.expected);
    expect(quote.expected.completion_tokens).toBeLessThan(20);
    expect(quote.seconds).toBeCloseTo(quote.expected.completion_tokens / 100, 10);
    const whole = await platform.extend(id, { ...me, kvReadBudget: 100_000 });
    expect((await readMarker(store, { tenant: me.tenant, job: whole.id }, {}))?.plan?.tokens).toBe(320);
  });

  test('says how long it takes, and what it costs, at the rate that was measured', async () => {
    const { platform } = platformOn(new MemoryStore(), shelf, { workers, usdPerHour: 3.6 });
    const quote = await platform.quote(SPEC, me);
    expect(quote.expected.kv_reads).toBeLessThan(quote.worst.kv_reads);
    expect(quote).toMatchObject({ compression_ratio: 2, seconds: 3.2, seconds_by: 'this_worker', seconds_basis: 'jobs' });
    expect(quote.cost_usd).toBeCloseTo(0.0032, 10);
  });

  test('without a worker goes by what workers elsewhere have said, on this variant or another, and by nothing if the store does not answer', async () => {
    const store = new MemoryStore();
    const clock = new ManualClock();
    const { platform } = platformOn(store, shelf, { usdPerHour: 3.6, clock });
    const seconds = async () => {
      const { seconds: told, seconds_by: by, seconds_basis: basis } = await platform.quote(SPEC, me);
      return [told, by, basis];
    };
    expect(await seconds()).toEqual([null, null, 'no_worker_yet']);
    await putRate(store, 'countdown@cr8', { tokensPerSecond: 80, one: 10, basis: 'probe' });
    clock.advance(60_000);
    expect(await seconds(), 'two chains, as fast as one each').toEqual([16, 'workers', 'probe']);
    await putRate(store, 'countdown@cr8', { tokensPerSecond: 50, basis: 'jobs' });
    await putRate(store, 'countdown@cr8', { tokensPerSecond: 80, one: 10, basis: 'probe' });
    clock.advance(60_000);
    expect(await seconds()).toEqual([6.4, 'workers', 'jobs']);
    await putRate(store, 'countdown@cr2', { tokensPerSecond: 10, basis: 'jobs' });
    clock.advance(60_000);
    expect(await seconds()).toEqual([32, 'workers', 'jobs']);
    const broken = platformOn(Object.assign(Object.create(store) as MemoryStore, { list: () => { throw new EngineError('ERR_STORE', 'no'); } }), shelf).platform;
    expect(await broken.quote(SPEC, me)).toMatchObject({ seconds: null, seconds_by: null, seconds_basis: 'no_worker_yet' });
  });

  test('of what would be refused says why, and stores nothing', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    const poor = await platform.quote({ ...SPEC, budget: { length: 160, width: 2, kv_read_budget: 1 } }, me);
    expect(poor.refusal).toMatchObject({ code: 'ERR_BUDGET' });
    expect(poor.expected.kv_reads).toBeGreaterThan(1);
    using small = new NativeShelf({ freeBytes: 1_000_000 });
    expect((await platformOn(store, small).platform.quote(SPEC, me)).refusal).toMatchObject({ code: 'ERR_MEMORY' });
    expect(store.snapshot().size).toBe(0);
  });
});

describe('the models of a platform', () => {
  test('are the variants that jobs may ask for', async () => {
    using few = new NativeShelf({ names: () => ['countdown', 'countdown@dense', 'countdown@cr8', 'countdown@nobody'] });
    const { platform } = platformOn(new MemoryStore(), few);
    expect(await platform.models(me)).toEqual([
      { id: 'countdown@dense', compression_ratio: 1, context: expect.any(Number) as number, default: false },
      { id: 'countdown@cr8', compression_ratio: 8, context: expect.any(Number) as number, default: true },
    ]);
    await expect(platform.submit(SPEC, me)).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND', message: expect.stringContaining('countdown@cr8') as string });
    expect(await platform.submit({ ...SPEC, model: 'countdown', variant: 'dense' }, me)).toMatchObject({ model: 'countdown@dense' });
  });

  test('are the ones that their jobs began with, by value', async () => {
    const { store, platform } = await endedJob();
    using other = new NativeShelf({ weightsDigest: async () => '0'.repeat(64) });
    const changed = platformOn(store, other).platform;
    await expect(changed.result('sums', me)).rejects.toMatchObject({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^model/) as string });
    expect((await readJob(store, { ...me, job: 'sums' })).head.state).toBe('done');
    expect(await platform.result('sums', me)).not.toBeNull();
  });
});
