/** A job that is divided among shards is the job: the same tokens, ballots, vote and bill, byte for byte, however many there are and in whatever order they run. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { Session } from '../../engine/job/session.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { resumeStored, runStored } from '../../engine/job/stored.ts';
import { storedSpecOf } from '../../engine/job/stored-spec.ts';
import { createJob, readJob } from '../../engine/kv/create.ts';
import { shardKey } from '../../engine/kv/names.ts';
import { modelIdOf } from '../../engine/model/identity.ts';
import { inspectModel } from '../../engine/runtime/native.ts';
import { bundledModel } from '../helpers/setup.ts';
import { resultOf } from '../helpers/stored-job.ts';
import { writeSurrogate } from '../helpers/surrogate.ts';

const where = { tenant: 'acme', job: 'sums' };
const ASKED: readonly Partial<JobSpec>[] = [
  { seed: 2n, vote: 'first' },
  { seed: 3n, vote: 'majority' },
  { seed: 5n, vote: 'first', logprobs: 2 },
  { seed: 6n, early_stop: false },
];

describe.each(['countdown', 'countdown@cr2', 'countdown@cr8'])('%s', (model) => {
  test.each(ASKED)('%o', { timeout: 300_000 }, async (more) => {
    const spec: JobSpec = { model, prompt: '4 20 8 13 target 59', budget: { length: 300, width: 8 }, ...more };
    const whole = JSON.stringify(resultOf(await runStored(spec, { store: new MemoryStore(), where, threads: 1 })));
    using session = new Session();
    let beyond = 0;
    for (const shards of [1, 2, 3, 8]) {
      for (const order of ['together', 'first to last', 'last to first']) {
        const store = new MemoryStore();
        const options = { store, where, threads: 1, policy: { deltaTokens: 40 }, session };
        if (order === 'together') await runStored({ ...spec, shards }, options);
        else await oneByOne({ ...spec, shards }, options, order === 'last to first');
        const result = resultOf(await resumeStored(options));
        expect(JSON.stringify(result), `${shards} shards, ${order}`).toBe(whole);
        beyond += await tokensIn(store, shards) - (result as { readonly usage: { readonly completion_tokens: number } }).usage.completion_tokens;
      }
    }
    // What shards ran beyond the vote was there to be cut.
    if (whole.includes('early_stop')) expect(beyond).toBeGreaterThan(0);
    else expect(beyond).toBe(0);
  });
});

describe('under KVzap', () => {
  let folder: string;
  let surrogate: string;
  beforeAll(async () => {
    folder = mkdtempSync(path.join(tmpdir(), 'ruminate-shards-'));
    surrogate = writeSurrogate(path.join(folder, 'surrogate'), await inspectModel(bundledModel('dense'), []));
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test.each(['true', 'false'])('with decode %s a chain that is cut has used what the one run says', { timeout: 120_000 }, async (decode) => {
    // Each chain ends at its first equation: some are far beyond the first of them when they hear of it.
    const spec: JobSpec = {
      model: 'countdown', variant: 'dense', prompt: '4 20 8 13 target 59 '.repeat(4).trim(), seed: 3n, budget: { width: 6, length: 120 }, vote: 'first', stop: ['='], thinking: null, answer: { rule: 'exact' },
      policy: 'kvzap', policy_options: { surrogate, threshold: '0', window: '4', decode },
    };
    const whole = resultOf(await runStored(spec, { store: new MemoryStore(), where, threads: 1 })) as { readonly usage: { readonly completion_tokens: number } };
    using session = new Session();
    let beyond = 0;
    for (const isReversed of [false, true]) {
      const options = { store: new MemoryStore(), where, threads: 1, policy: { deltaTokens: 5 }, session };
      await oneByOne({ ...spec, shards: 3 }, options, isReversed);
      expect(JSON.stringify(resultOf(await resumeStored(options)))).toBe(JSON.stringify(whole));
      beyond += (await tokensIn(options.store, 3)) - whole.usage.completion_tokens;
    }
    expect(beyond).toBeGreaterThan(0);
  });
});

/** As a worker with one slot: nobody hears of anyone who runs beside him. */
async function oneByOne(spec: JobSpec, options: { readonly store: MemoryStore; readonly session: Session; readonly threads: number }, isReversed: boolean): Promise<void> {
  const { shards = 1, ...whole } = spec;
  using opened = await options.session.open(whole, { threads: 1 });
  const { weightsDigest } = await opened.engine.identity();
  const job = await options.session.prepare(spec);
  await createJob(options.store, where, JSON.stringify(storedSpecOf(spec, job, modelIdOf(job.model, weightsDigest), null)), { shards });
  const order = Array.from({ length: shards }, (_, i) => (isReversed ? shards - 1 - i : i));
  for (const i of order) await resumeStored({ ...options, where: shardKey(where, i) });
}

async function tokensIn(store: MemoryStore, shards: number): Promise<number> {
  let tokens = 0;
  for (let i = 0; i < shards; i++) tokens += (await readJob(store, shardKey(where, i))).manifest?.chains.reduce((sum, chain) => sum + chain.tokens, 0) ?? 0;
  return tokens;
}
