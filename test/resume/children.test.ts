/** Jobs made from jobs: an extension is the larger job run at once, a fork goes on from any token of a chain; both outlive their parent. */
import { afterAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { type JobResult, generate } from '../../engine/job/generate.ts';
import { openSession } from '../../engine/job/session.ts';
import type { StoredResult } from '../../engine/job/slice.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { type ExtendRequest, type ForkRequest, extendJob, forkJob } from '../../engine/job/children.ts';
import { resumeStored, runStored } from '../../engine/job/stored.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { ManualClock } from '../helpers/clock.ts';
import { Crash, benchOf, comparable, create, jobOf, removeTemporary, slice } from './jobs.ts';

afterAll(removeTemporary);

/** Time stands still: what is read or computed must not hang on how fast the machine is. */
const at = (store: ObjectStore, job = 'sums') => ({ store, where: { tenant: 'acme', job }, policy: { deltaTokens: 64, deltaMs: 1e9, journalMs: 0 }, clock: new ManualClock() });

async function finished(store: ObjectStore, spec: JobSpec, job = 'sums'): Promise<StoredResult> {
  const outcome = await runStored(spec, at(store, job));
  if (outcome.kind !== 'ended') throw new Error('the job did not end');
  return outcome.result;
}

async function resumed(store: ObjectStore, job: string): Promise<StoredResult> {
  const outcome = await resumeStored(at(store, job));
  if (outcome.kind !== 'ended') throw new Error('the job did not end');
  return outcome.result;
}

async function extended(store: ObjectStore, request: Partial<ExtendRequest>): Promise<StoredResult> {
  await extendJob({ length: undefined, width: undefined, kvReadBudget: undefined, as: 'larger', ...request }, at(store));
  return await resumed(store, 'larger');
}

async function forked(store: ObjectStore, request: Partial<ForkRequest>, of = 'sums'): Promise<StoredResult> {
  const as = request.as ?? 'fork';
  await forkJob({ at: 0, chain: 0, width: 1, seed: undefined, length: undefined, as, ...request }, at(store, of));
  return await resumed(store, as);
}

const tokensOf = ({ chains }: JobResult) => chains.map(({ tokens }) => tokens);

describe('an extension', () => {
  const SHORT: JobSpec = jobOf('countdown cr8', { budget: { lengths: [120, 90, 120] } });

  test('by length is the longer job run at once', async () => {
    const store = new MemoryStore();
    await finished(store, SHORT);
    const result = await extended(store, { length: 260 });
    expect(comparable(result)).toBe(comparable(await generate(jobOf('countdown cr8', { budget: { length: 260, width: 3 } }))));
    expect(result.resumed).toMatchObject([{ slice: 1, outcome: 'restored', reason: null }]);
  });

  test('by width is the wider job run at once', async () => {
    const store = new MemoryStore();
    await finished(store, SHORT);
    const result = await extended(store, { width: '+2' });
    expect(comparable(result)).toBe(comparable(await generate(jobOf('countdown cr8', { budget: { lengths: [120, 90, 120, 120, 120] } }))));
  });

  test('by KV reads is the job with that budget run at once', async () => {
    const store = new MemoryStore();
    const budget = (reads: number) => jobOf('countdown cr8', { budget: { length: 300, width: 3, kv_read_budget: reads } });
    const first = await finished(store, budget(9_000));
    expect(first.chains.map(({ finish_reason }) => finish_reason)).toContain('kv_read_budget');
    expect(comparable(await extended(store, { kvReadBudget: 16_000 }))).toBe(comparable(await generate(budget(16_000))));
  });

  // With seed 12 a new chain has an answer long before the one that had decided it.
  test.each([['majority', 1], ['majority', 4], ['first', 12]] as const)('of a vote that was decided early elects what the wider vote elects, by %s, seed %i', async (vote, seed) => {
    const store = new MemoryStore();
    const spec = (width: number): JobSpec => ({ model: 'countdown@cr8', prompt: '4 20 8 13 target 59', page_slots: 4, threads: 1, seed, vote, budget: { length: 300, width } });
    await finished(store, spec(3));
    const wider = await extended(store, { width: '8' });
    const once = await generate(spec(8));
    expect(wider.answer).toBe(once.answer);
    // A chain that had gone past the step at which the wider vote is decided keeps what it has.
    wider.chains.forEach(({ tokens }, i) => expect(tokens.slice(0, once.chains[i]?.tokens.length)).toEqual(once.chains[i]?.tokens));
    wider.chains.slice(3).forEach(({ tokens }, i) => expect(tokens).toEqual(once.chains[3 + i]?.tokens));
  });
});

describe('a fork', () => {
  const SPEC = jobOf('countdown cr8');

  test.each([0, 1, 281, 282, 299])('at token %i with the same seed repeats the chain', async (token) => {
    const store = new MemoryStore();
    const parent = await finished(store, SPEC);
    const fork = await forked(store, { at: token });
    expect(fork.chains[0]).toEqual(parent.chains[0]);
    // Tails are kept at the end of the prompt and at the last two cuts.
    const tails = [0, 282, 300];
    const nearest = tails.filter((cut) => cut <= token).at(-1) ?? 0;
    expect(fork.resumed).toEqual([{ slice: 1, outcome: 'restored', reason: null, from_step: token, tokens_recomputed: token - nearest }]);
  });

  test('at the end of a chain goes on past it', async () => {
    const store = new MemoryStore();
    await finished(store, SPEC);
    const fork = await forked(store, { at: 300, length: 400 });
    const once = await generate(jobOf('countdown cr8', { budget: { lengths: [400] } }));
    expect(tokensOf(fork)).toEqual(tokensOf(once));
    await expect(forked(store, { at: 300, as: 'other' })).rejects.toMatchObject({ code: 'ERR_OPTION' });
    await expect(forked(store, { at: 301, length: 400, as: 'other' })).rejects.toMatchObject({ code: 'ERR_OPTION' });
    await expect(forked(store, { at: 10, chain: 3, as: 'other' })).rejects.toMatchObject({ code: 'ERR_OPTION' });
  });

  test('of a running, a parked and a finished job, and of a fork, are the same', async () => {
    using session = openSession();
    const bench = await benchOf(session, SPEC);
    const results: string[] = [];
    for (const how of ['running', 'parked', 'finished', 'forked'] as const) {
      const store = new MemoryStore();
      await create(store, at(store).where, bench);
      const work = slice(store, at(store).where, bench, { ...at(store), ...(how === 'running' ? { crashAt: 200 } : how === 'parked' ? { stopAt: 200 } : {}) });
      if (how === 'running') await expect(work).rejects.toThrow(Crash);
      else await work;
      if (how === 'forked') await forked(store, { at: 150, chain: 2, width: 1, as: 'between', seed: 3n });
      const fork = await forked(store, { at: 120, chain: how === 'forked' ? 0 : 2, width: 3, seed: 7n }, how === 'forked' ? 'between' : 'sums');
      results.push(JSON.stringify([tokensOf(fork), fork.answer, fork.ballots]));
    }
    expect(new Set(results).size).toBe(1);
    const [tokens] = JSON.parse(results[0] ?? '') as [number[][]];
    expect(new Set(tokens.map((chain) => JSON.stringify(chain.slice(0, 120)))).size).toBe(1);
    expect(new Set(tokens.map((chain) => JSON.stringify(chain))).size).toBe(3);
  });

  test('whose parent is erased before its first slice is refused; after it, nothing is missed', async () => {
    const store = new MemoryStore();
    const parent = await finished(store, SPEC);
    const request = { at: 150, chain: 0, width: 2, seed: undefined, length: undefined };
    await forkJob({ ...request, as: 'late' }, at(store));
    await forkJob({ ...request, as: 'early' }, at(store));
    const stop = new AbortController();
    const parked = await resumeStored({ ...at(store, 'early'), signal: stop.signal, onCommit: () => stop.abort() });
    expect(parked.kind).toBe('parked');
    await eraseJob(store, { tenant: 'acme', job: 'sums' });
    await expect(resumed(store, 'late')).rejects.toMatchObject({ code: 'ERR_PARENT_ERASED' });
    expect((await resumed(store, 'early')).chains[0]).toEqual(parent.chains[0]);
  });
});
