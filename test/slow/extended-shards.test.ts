/** A sharded job that is extended is the job that is not, extended in the same way: token for token and read for read, and its shards need not have the chains that they had. */
import { describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { type ExtendRequest, extendJob } from '../../engine/job/children.ts';
import { generate } from '../../engine/job/generate.ts';
import { Session } from '../../engine/job/session.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { type StoredOptions, resumeStored, runStored } from '../../engine/job/stored.ts';
import { readJob } from '../../engine/kv/create.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { shardKey } from '../../engine/kv/names.ts';
import { keyFile, resultOf } from '../helpers/stored-job.ts';

const where = { tenant: 'acme', job: 'sums' };
const larger = { tenant: 'acme', job: 'larger' };
const SPEC: JobSpec = { model: 'countdown@cr8', prompt: '4 20 8 13 target 59', page_slots: 4, seed: 3n, budget: { length: 200, width: 5 } };
type Request = Partial<Omit<ExtendRequest, 'as'>>;

interface Result {
  readonly chains: readonly { readonly tokens: readonly number[]; readonly finish_reason: string }[];
  readonly usage: { readonly kv_reads: number };
}

interface How {
  /** Shards of the extension one after the other, the last one first: nobody hears of anyone who runs beside him. Default: together. */
  readonly isOneByOne?: boolean;
  /** Of the job that is extended. Default: it ends. */
  readonly parkAt?: number;
  readonly keys?: StoredOptions['keys'];
  readonly session: Session;
}

/** The job, or its chains as far as they came, then the extension. */
async function extended(spec: JobSpec, request: Request, { isOneByOne = false, parkAt = Infinity, keys = null, session }: How): Promise<{ readonly store: MemoryStore; readonly result: Result }> {
  const store = new MemoryStore();
  const options = { store, where, keys, threads: 1, policy: { deltaTokens: 40 }, session };
  const stop = new AbortController();
  await runStored(spec, { ...options, signal: stop.signal, onProgress: ({ chains }) => chains.some(({ tokens }) => tokens >= parkAt) && stop.abort() });
  await extendJob({ length: undefined, width: undefined, kvReadBudget: undefined, ...request, as: larger.job }, { store, where, keys });
  for (let i = (spec.shards ?? 0) - 1; i >= 0 && isOneByOne; i--) await resumeStored({ ...options, where: shardKey(larger, i) });
  return { store, result: resultOf(await resumeStored({ ...options, where: larger })) as Result };
}

describe.each<readonly [string, Partial<JobSpec>]>([
  ['that goes on to its length', { early_stop: false }],
  ['that keeps log-probabilities', { early_stop: false, logprobs: 2, seed: 5n }],
  ['that was decided early by a majority', { vote: 'majority' }],
  ['that ends with its first answer', { vote: 'first', seed: 2n }],
  ['under a dense model', { model: 'countdown@dense', vote: 'majority', seed: 4n }],
])('a job %s', (_, more) => {
  test.each<readonly [string, Request]>([
    ['by length', { length: 320 }],
    ['by chains', { width: '+3' }],
    ['by both', { length: 260, width: '11' }],
  ])('extended %s', { timeout: 300_000 }, async (_how, request) => {
    using session = new Session();
    const spec = { ...SPEC, ...more };
    const whole = (await extended(spec, request, { session })).result;
    for (const shards of [1, 2, 3, 5]) {
      for (const isOneByOne of [false, true]) {
        const { store, result } = await extended({ ...spec, shards }, request, { isOneByOne, session });
        expect(JSON.stringify(result), `${shards} shards, ${isOneByOne ? 'one by one' : 'together'}`).toBe(JSON.stringify(whole));
        // And so says the store, to whoever forks it or looks at it.
        const { manifest } = await readJob(store, larger);
        expect(manifest?.chains.map(({ tokens }) => tokens)).toEqual(whole.chains.map(({ tokens }) => tokens.length));
      }
    }
  });
});

describe('an extension of a sharded job', () => {
  test('by chains of which one decides the vote before the others had come to their end takes nothing from those', { timeout: 120_000 }, async () => {
    using session = new Session();
    const spec: JobSpec = { ...SPEC, seed: 12n, vote: 'first', budget: { length: 300, width: 3 } };
    const whole = (await extended(spec, { width: '+5' }, { session })).result;
    const cut = whole.chains.filter(({ finish_reason }) => finish_reason === 'early_stop').map(({ tokens }) => tokens.length);
    expect(new Set(cut).size).toBeGreaterThan(1);
    for (const shards of [1, 2, 3]) {
      for (const isOneByOne of [false, true]) expect((await extended({ ...spec, shards }, { width: '+5' }, { isOneByOne, session })).result).toEqual(whole);
    }
  });

  test('to its length is the longer job run at once, and so is the extension of that', { timeout: 120_000 }, async () => {
    using session = new Session();
    const spec: JobSpec = { ...SPEC, early_stop: false, shards: 2 };
    const { store } = await extended(spec, { length: 260 }, { session });
    await eraseJob(store, where);
    await extendJob({ length: 300, width: '7', kvReadBudget: undefined, as: 'largest' }, { store, where: larger });
    const { shards: _, ...whole } = spec;
    const once = await generate({ ...whole, threads: 1, budget: { length: 300, width: 7 } });
    const last = resultOf(await resumeStored({ store, where: { ...where, job: 'largest' }, threads: 1, session }));
    expect(last).toEqual({ answer: once.answer, ballots: once.ballots, chains: once.chains, usage: once.usage });
  });

  test('by KV reads gives each chain its share of them, as the job with that budget has it', { timeout: 120_000 }, async () => {
    using session = new Session();
    const budget = (reads: number, width = 5): JobSpec => ({ ...SPEC, early_stop: false, budget: { length: 300, width, kv_read_budget: reads } });
    const cut = resultOf(await runStored({ ...budget(9_002), shards: 1 }, { store: new MemoryStore(), where, threads: 1, session })) as Result;
    expect(cut.chains.map(({ finish_reason }) => finish_reason)).toContain('kv_read_budget');
    for (const [request, reads, width] of [[{ kvReadBudget: 16_003 }, 16_003, 5], [{ kvReadBudget: 14_500, width: '8' }, 14_500, 8]] as const) {
      const once = resultOf(await runStored({ ...budget(reads, width), shards: 1 }, { store: new MemoryStore(), where, threads: 1, session }));
      for (const shards of [1, 2, 5]) expect((await extended({ ...budget(9_002), shards }, request, { session })).result).toEqual(once);
    }
    // Chains that have spent what they had, and new ones with as much as is left for each, would be more than all of it.
    await expect(extended({ ...budget(9_002), shards: 2 }, { width: '8' }, { session })).rejects.toMatchObject({ code: 'ERR_OPTION', message: expect.stringMatching(/^kv_read_budget must be at least 14402 for 8 chains/) as string });
  });

  test('goes on from wherever its shards were parked, under a key of its own', { timeout: 120_000 }, async () => {
    using session = new Session();
    const key = await keyFile();
    try {
      const spec: JobSpec = { ...SPEC, early_stop: false };
      const request = { length: 260, width: '8' };
      const whole = (await extended(spec, request, { session })).result;
      for (const isOneByOne of [false, true]) {
        expect((await extended({ ...spec, shards: 3 }, request, { parkAt: 100, isOneByOne, keys: key.provider, session })).result).toEqual(whole);
      }
    } finally {
      key.remove();
    }
  });
});
