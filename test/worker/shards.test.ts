/** Shards on workers: whatever happens to messages and to those who run them, the job is the one it would have been on one machine. */
import { once } from 'node:events';
import { beforeAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { jobIds } from '../../engine/control/ids.ts';
import { systemClock } from '../../engine/core/clock.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { untilAborted } from '../../engine/core/waiting.ts';
import { generate } from '../../engine/job/generate.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { resumeStored, runStored } from '../../engine/job/stored.ts';
import { endJob } from '../../engine/kv/end.ts';
import { isTerminal } from '../../engine/kv/head.ts';
import { jobPrefix, shardKey } from '../../engine/kv/names.ts';
import { readHead } from '../../engine/kv/read.ts';
import { takeJob } from '../../engine/kv/take.ts';
import { Webhooks } from '../../engine/webhook/webhooks.ts';
import { Metrics } from '../../functions/metrics.ts';
import { through } from '../helpers/through.ts';
import { resultOf } from '../helpers/stored-job.ts';
import { Bench, deadOwner, quiet, reaches, whereIs } from './support.ts';

/** Decided by the vote long before the longest chain would end. */
const SPEC: JobSpec = { model: 'countdown@cr2', prompt: '4 20 8 13 target 59', seed: 2n, vote: 'first', budget: { length: 200, width: 8 } };
const sums = whereIs('sums');

let expected: unknown;
beforeAll(async () => {
  expected = await quiet(SPEC);
});

/** A worker says what it does when it has done it. */
async function over(bench: Bench): Promise<void> {
  while (!isTerminal((await bench.head('sums')).state)) await new Promise((resolve) => setTimeout(resolve, 5));
}

async function expectWhole(bench: Bench, shards: number): Promise<void> {
  expect(await bench.head('sums')).toMatchObject({ state: 'done', epoch: 0, slice: 0, join: { shards, joined: Array.from({ length: shards }, (_, i) => i) } });
  expect(await bench.result('sums')).toEqual(expected);
  await bench[Symbol.asyncDispose]();
  expect(await bench.queue.depth()).toMatchObject({ visible: 0, inFlight: 0 });
  expect([...bench.store.snapshot().keys()].filter((key) => key.startsWith('live/'))).toEqual([]);
}

describe('shards', () => {
  test.each([1, 3, 8])('%i of them on two workers give what one machine gives', async (shards) => {
    await using bench = new Bench();
    for (let i = 0; i < 2; i++) bench.worker({ slots: 2 });
    await bench.submit('sums', { ...SPEC, shards });
    await over(bench);
    await expectWhole(bench, shards);
  });

  test('are taken by a worker that begins nothing where one of them has begun, and left alone where none has', async () => {
    await using bench = new Bench();
    await bench.submit('sums', { ...SPEC, shards: 2 });
    const first = bench.worker({ slots: 1 });
    await reaches(first, shardKey(sums, 0), 10);
    await first.drain({ deadlineMs: 60_000 });
    await bench.submit('other', { ...SPEC, shards: 2 });
    bench.worker({ begins: false });
    await over(bench);
    expect(await bench.result('sums')).toEqual(expected);
    expect((await bench.head('other')).state).toBe('queued');
  });

  test('tell of their job once, when it is over, and of themselves nothing', async () => {
    await using bench = new Bench();
    const webhooks = new Webhooks({ store: bench.store, keys: null, allowLoopback: true });
    const { id } = await webhooks.create({ tenant: 'acme', url: 'http://127.0.0.1:1/', events: ['job.*'] });
    for (let i = 0; i < 2; i++) bench.worker();
    await bench.submit('sums', { ...SPEC, shards: 3 });
    await over(bench);
    await bench[Symbol.asyncDispose]();
    const records = [...bench.store.snapshot()].filter(([key]) => key.includes(id) && key.endsWith('/delivery.json')).map(([, bytes]) => JSON.parse(Buffer.from(bytes).toString()) as object);
    expect(records).toMatchObject([{ type: 'job.completed', subject: 'sums' }]);
    const metrics = new Metrics({ health: () => Promise.resolve({ state: 'ready', running: 0, queued: 0, queueAgeMs: 0 }) });
    for (const event of bench.events) metrics.worker(event);
    expect((await metrics.scrape()).body.split('\n').filter((line) => line.startsWith('ruminate_jobs_ended_total{'))).toEqual(['ruminate_jobs_ended_total{state="done"} 1']);
    expect(bench.events.filter(({ kind }) => kind === 'ended'), 'of shards').toHaveLength(3);
  });

  test('that are parked stand where the last of them does', async () => {
    const stop = new AbortController();
    const spec: JobSpec = { ...SPEC, vote: 'none', sampling: { temperature: 1, logit_bias: [[2, -100]] }, budget: { length: 900, width: 4 }, shards: 2 };
    const outcome = await runStored(spec, {
      store: new MemoryStore(), where: sums, threads: 1, signal: stop.signal,
      onProgress: ({ chains }) => { if (chains.every(({ tokens }) => tokens >= 20)) stop.abort(); },
    });
    expect(outcome).toMatchObject({ kind: 'parked' });
    const { step, tokens } = outcome as Extract<typeof outcome, { kind: 'parked' }>;
    expect(step).toBeGreaterThanOrEqual(20);
    expect(tokens).toBeGreaterThanOrEqual(step * 4);
  });

  test('a budget of KV reads is divided equally, in one shard as in eight, and in one run that has them all', async () => {
    const spec = { ...SPEC, early_stop: false, budget: { length: 200, width: 8, kv_read_budget: 8 * 5_000 + 3 } };
    const results = await Promise.all([1, 3, 8].map(async (shards) => resultOf(await runStored({ ...spec, shards }, { store: new MemoryStore(), where: sums, threads: 1 }))));
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
    const { answer, ballots, chains, usage } = await generate({ ...spec, shards: 2, threads: 1 });
    expect({ answer, ballots, chains, usage }).toEqual(results[0]);
    expect(chains.map(({ finish_reason }) => finish_reason)).toContain('kv_read_budget');
    expect(usage.kv_reads).toBeLessThanOrEqual(8 * 5_000 + 3);
  });

  test('a store that fails when a shard asks how the job stands costs it no strike, and its worker gives it back', async () => {
    await using bench = new Bench();
    await bench.submit('sums', { ...SPEC, shards: 2 });
    let asked = 0;
    const store = through(bench.store, { get: async (key, options) => {
      const { state } = (await readHead(bench.store, shardKey(sums, 0)))?.head ?? {};
      if (key === `${jobPrefix(sums)}HEAD` && state === 'running' && asked++ === 0) throw new EngineError('ERR_STORE', 'down for a moment');
      return await bench.store.get(key, options);
    } });
    bench.worker({ store, slots: 1, reconcileMs: 1e9, random: () => 0 });
    await over(bench);
    await expectWhole(bench, 2);
    expect(asked).toBeGreaterThan(0);
    expect((await readHead(bench.store, shardKey(sums, 0)))?.head).toMatchObject({ state: 'done', strikes: 0 });
  });

  test('a shard that is to be let go waits for nothing that its job could tell it', async () => {
    await using bench = new Bench();
    await bench.submit('sums', { ...SPEC, vote: 'none', sampling: { temperature: 1, logit_bias: [[2, -100]] }, budget: { length: 900, width: 4 }, shards: 2 });
    const asked = new AbortController();
    let isStuck = false;
    const store = through(bench.store, { get: async (key, options) => {
      if (isStuck && key === `${jobPrefix(sums)}HEAD`) {
        asked.abort();
        // Whoever gives no signal waits for ever.
        await untilAborted(systemClock, 2 ** 31 - 1, options?.signal);
      }
      return await bench.store.get(key, options);
    } });
    const worker = bench.worker({ store, slots: 1, reconcileMs: 1e9, policy: { deltaTokens: 20, firstMs: 0 } });
    await reaches(worker, shardKey(sums, 0), 50);
    isStuck = true;
    if (!asked.signal.aborted) await once(asked.signal, 'abort');
    expect(await worker.drain({ deadlineMs: 60_000 })).toBe(true);
    expect((await readHead(bench.store, shardKey(sums, 0)))?.head).toMatchObject({ state: 'parked', strikes: 0 });
  });

  test('a worker that dies once its shard has ended leaves a message that joins it', async () => {
    await using bench = new Bench();
    await bench.submit('sums', { ...SPEC, shards: 2 }, { send: false });
    // Nothing that it writes of the job itself arrives.
    const mute = through(bench.store, { put: async (key, ...rest) => {
      if (key === 'kv/acme/sums/HEAD') throw new Error('the worker is dead');
      return await bench.store.put(key, ...rest);
    } });
    for (const i of [0, 1]) await expect(resumeStored({ store: mute, where: shardKey(sums, i), threads: 1 })).rejects.toThrow();
    expect(await bench.head('sums')).toMatchObject({ state: 'queued', join: { joined: [] } });
    for (const i of [0, 1]) await bench.send(`sums/${i}`);
    bench.worker();
    await over(bench);
    await expectWhole(bench, 2);
  });

  test('a join that fails keeps its message, and is made when the store is back', async () => {
    await using bench = new Bench();
    let failures = 0;
    const store = through(bench.store, { put: async (key, body, ...rest) => {
      const isJoin = key === 'kv/acme/sums/HEAD' && !Buffer.concat(body).includes('"joined":[]');
      if (isJoin && failures++ < 1) throw new EngineError('ERR_STORE', 'the store is away');
      return await bench.store.put(key, body, ...rest);
    } });
    // No walk comes to help.
    bench.worker({ store, random: () => 0, reconcileMs: 600_000 });
    await bench.submit('sums', { ...SPEC, shards: 2 });
    await over(bench);
    expect(failures).toBeGreaterThan(1);
    await expectWhole(bench, 2);
  });

  test('a shard whose worker was killed goes on from its last commit, and duplicates of its message change nothing', async () => {
    await using bench = new Bench();
    await bench.submit('sums', { ...SPEC, early_stop: false, shards: 2 });
    const first = bench.worker({ slots: 1 });
    await reaches(first, shardKey(sums, 0), 60);
    await first.drain({ deadlineMs: 20_000 });
    await takeJob(bench.store, shardKey(sums, 0), { owner: deadOwner() });
    const { slice } = await bench.head('sums/0');
    for (let i = 0; i < 3; i++) for (const shard of [0, 1]) await bench.send(`sums/${shard}`, shard === 0 ? slice : 0);
    for (let i = 0; i < 2; i++) bench.worker();
    await over(bench);
    expect(await bench.result('sums')).toEqual(await quiet({ ...SPEC, early_stop: false }));
  });

  test('of a job that is cancelled stop, and whose message comes later is ended by it', async () => {
    await using bench = new Bench();
    await bench.submit('sums', { ...SPEC, early_stop: false, shards: 2 });
    const worker = bench.worker({ slots: 1, policy: { deltaTokens: 10 } });
    await reaches(worker, shardKey(sums, 0), 20);
    await endJob(bench.store, sums, 'cancelled');
    // It hears of it at its next commit.
    while ((await bench.head('sums/0')).state !== 'cancelled' || (await bench.head('sums/1')).state !== 'cancelled') await new Promise((resolve) => setTimeout(resolve, 5));
    expect(bench.kinds('sums/1')).not.toContain('begun');
    expect(await bench.head('sums')).toMatchObject({ state: 'cancelled', join: { joined: [] } });
  });

  test('one that strikes out ends the job as poisoned, and the others with it', async () => {
    await using bench = new Bench();
    await bench.submit('sums', { ...SPEC, shards: 2 }, { send: false });
    for (let i = 0; i < 3; i++) await takeJob(bench.store, shardKey(sums, 0), { owner: deadOwner(), force: true });
    bench.worker({ strikesMax: 3 });
    await bench.send('sums/0', 3);
    await bench.event('poisoned', 'sums/0');
    await over(bench);
    expect(await bench.head('sums')).toMatchObject({ state: 'poisoned' });
    expect(await bench.head('sums/1')).toMatchObject({ state: 'cancelled' });
  });

  test('that waited too long for their first worker end the job, unless another of them has one', async () => {
    await using bench = new Bench();
    const [late, begun] = [jobIds()(Date.now() - 3_600_000), jobIds()(Date.now() - 3_600_000)];
    for (const job of [late, begun]) await bench.submit(job, { ...SPEC, wait_ms_max: 1_000, shards: 2 }, { send: false });
    await resumeStored({ store: bench.store, where: shardKey(whereIs(begun), 1), threads: 1 });
    bench.worker();
    for (const job of [late, begun]) await bench.queue.send({ v: 1, tenant: 'acme', job: `${job}/0`, slice: 0, expiresMs: 1 });
    for (const job of [late, begun]) while (!isTerminal((await bench.head(job)).state)) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(await bench.head(late)).toMatchObject({ state: 'expired' });
    expect((await bench.head(`${late}/1`)).state).toBe('cancelled');
    expect(await bench.head(begun)).toMatchObject({ state: 'done' });
    expect(await bench.result(begun)).toEqual(expected);
  });
});
