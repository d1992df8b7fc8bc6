/** Whole jobs that keep a format, on a model whose weights are random: whatever is written, it was made to; and cut anywhere, it is the same. */
import { Ajv2020 } from 'ajv/dist/2020.js';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { forkJob } from '../../engine/job/children.ts';
import type { ChainResult } from '../../engine/job/generate.ts';
import { type Session, openSession } from '../../engine/job/session.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { type StoredOptions, resumeStored, runStored } from '../../engine/job/stored.ts';
import { resultOf, storeWith, type Content } from '../helpers/stored-job.ts';
import { writeModel } from '../helpers/written-model.ts';

const WHERE = { tenant: 'local', job: 'form' };
const SCHEMA = {
  type: 'object',
  properties: {
    kind: { enum: ['circle', 'square', 'a "b"'] },
    sizes: { type: 'array', items: { type: 'integer', minimum: 0, maximum: 999 }, minItems: 1, maxItems: 3 },
    inner: { type: 'object', properties: { ok: { type: 'boolean' }, note: { type: 'string', maxLength: 6 } }, required: ['ok'], additionalProperties: false },
  },
  required: ['kind', 'sizes', 'inner'],
  additionalProperties: false,
};
const isValid = new Ajv2020().compile(SCHEMA);

let directory: string;
let session: Session;
let base: JobSpec;
beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), 'ruminate-format-'));
  const model = writeModel(directory, 'scribe');
  writeModel(directory, 'thinker', { thinks: true });
  session = openSession();
  base = { model, prompt: 'a shape', seed: 3, format: { kind: 'json_schema', schema: SCHEMA }, budget: { length: 200, width: 1 } };
});
afterAll(() => {
  session[Symbol.dispose]();
  rmSync(directory, { recursive: true, force: true });
});

const chainsOf = async (spec: JobSpec): Promise<readonly ChainResult[]> => (await session.generate(spec, { threads: 1 })).chains;

describe('a job with a format', () => {
  test('writes what the schema allows, whatever the weights, the sampling and the number of chains', async () => {
    for (const [seed, sampling] of [[1, {}], [2, { temperature: 0 }], [3, { temperature: 3 }], [4, { top_k: 3, top_p: 0.5 }], [5, { repetition_penalty: 1.5, frequency_penalty: 1 }]] as const) {
      for (const { text, finish_reason } of await chainsOf({ ...base, seed, sampling, vote: 'none', budget: { length: 200, width: 3 } })) {
        expect(finish_reason).toBe('stop');
        expect(isValid(JSON.parse(text)), text).toBe(true);
      }
    }
  });

  test('gives the same text as any other that is the same job, and beside others', async () => {
    const alone = await chainsOf(base);
    const [beside, free] = await Promise.all([chainsOf(base), chainsOf({ ...base, format: undefined, budget: { length: 50, width: 2 } })]);
    expect(beside).toEqual(alone);
    expect(free.map(({ tokens }) => tokens.length)).toEqual([50, 50]);
  });

  test('votes by what its JSON says, however it is written', async () => {
    const schema = { type: 'object', properties: { ok: { type: 'boolean' }, no: { type: 'null' } }, required: ['ok'], additionalProperties: false };
    const { ballots, answer } = await session.generate({ ...base, format: { kind: 'json_schema', schema }, vote: 'majority', early_stop: false, budget: { length: 60, width: 12 } }, { threads: 1 });
    expect(new Set(ballots.map(({ key }) => key)).size).toBeLessThan(new Set(ballots.map((ballot) => ballot.answer)).size);
    expect(ballots.every(({ key }) => key === JSON.stringify(JSON.parse(key ?? '')))).toBe(true);
    expect(JSON.parse(answer ?? '')).toMatchObject({ ok: expect.any(Boolean) as boolean });
  });

  test('is cut by its length as any other, and then is no whole JSON', async () => {
    const [chain] = await chainsOf({ ...base, budget: { length: 4, width: 1 } });
    expect(chain).toMatchObject({ finish_reason: 'length' });
    expect(chain?.tokens).toHaveLength(4);
  });

  test('thinks what it likes before, if its model thinks', async () => {
    // Made to end its thinking: 648 is </think>.
    const thinker = { ...base, model: path.join(directory, 'thinker'), sampling: { logit_bias: [[648, 12] as [number, number]] } };
    for (const seed of [1, 2, 3]) {
      const [chain] = await chainsOf({ ...thinker, seed });
      const [thinking = '', answer = ''] = chain?.text.split('</think>') ?? [];
      expect(isValid(JSON.parse(answer)), answer).toBe(true);
      expect(() => JSON.parse(thinking) as unknown).toThrow();
      expect(chain?.answer).toBe(answer.trim());
    }
  });

  test('is refused where the model cannot write it, and its session goes on', async () => {
    const countdown = { ...base, model: 'countdown@cr8', prompt: '4 20 8 13 target 59', thinking: null };
    await expect(session.generate(countdown, { threads: 1 })).rejects.toMatchObject({ code: 'ERR_FORMAT', message: expect.stringMatching(/no token for what must come next/) as string });
    expect((await chainsOf(base))[0]?.finish_reason).toBe('stop');
  });

  test('is stopped by its caller while its grammar is made', async () => {
    const stop = new AbortController();
    const running = session.generate({ ...base, format: { kind: 'json_object' } }, { threads: 1, signal: stop.signal, onProgress: () => stop.abort() });
    await expect(running).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
    expect((await chainsOf(base))[0]?.finish_reason).toBe('stop');
  });
});

describe('log-probabilities', () => {
  test('change no token, and the token of a greedy chain is the likeliest', async () => {
    const free = { ...base, format: undefined, sampling: { temperature: 0 }, budget: { length: 20, width: 1 } };
    const [without] = await chainsOf(free);
    const [chain] = await chainsOf({ ...free, logprobs: 3 });
    expect(chain?.tokens).toEqual(without?.tokens);
    expect(without?.logprobs).toBeUndefined();
    expect(chain?.logprobs?.tokens).toHaveLength(20);
    chain?.logprobs?.top.forEach((top, i) => {
      expect(top).toHaveLength(3);
      expect(top[0]).toEqual([chain.tokens[i], chain.logprobs?.tokens[i]]);
      expect(top.map(([, logprob]) => logprob)).toEqual(top.map(([, logprob]) => logprob).toSorted((a, b) => b - a));
    });
  });

  test('are of the model and not of the format: what it had to write may be unlikely', async () => {
    const [chain] = await chainsOf({ ...base, logprobs: 1 });
    const gaps = (chain?.logprobs?.tokens ?? []).map((logprob, i) => (chain?.logprobs?.top[i]?.[0]?.[1] ?? 0) - logprob);
    expect(Math.min(...gaps)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...gaps)).toBeGreaterThan(1);
  });
});

describe('a stored job with a format and log-probabilities', () => {
  const spec = (): JobSpec => ({ ...base, logprobs: 2, vote: 'none', sampling: { frequency_penalty: 0.2 }, budget: { lengths: [200, 30] } });
  const options = (store: MemoryStore, change: Partial<StoredOptions> = {}): StoredOptions => ({ store, where: WHERE, threads: 1, session, policy: { deltaTokens: 3 }, ...change });

  test('stopped and taken up again after every step is the one that never stopped', async () => {
    const whole = resultOf(await runStored(spec(), options(new MemoryStore())));
    const store = new MemoryStore();
    let slices = 0;
    for (let step = 1; ; step++) {
      const stop = new AbortController();
      const outcome = await runStored(spec(), options(store, { signal: stop.signal, onProgress: ({ chains }) => { if (chains.some(({ tokens }) => tokens >= step)) stop.abort(); } }));
      slices++;
      if (outcome.kind === 'parked') continue;
      expect(resultOf(outcome)).toEqual(whole);
      break;
    }
    expect(slices).toBeGreaterThan(15);
    expect(whole).toMatchObject({ chains: [{ finish_reason: 'stop', logprobs: { tokens: expect.any(Array) as number[] } }, {}] });
  });

  test('killed after any commit is the one that was not', async () => {
    const store = new MemoryStore();
    const left: Content[] = [];
    const whole = resultOf(await runStored(spec(), options(store, { onCommit: () => left.push(store.snapshot()) })));
    expect(left.length).toBeGreaterThan(3);
    for (const content of left) expect(resultOf(await resumeStored(options(await storeWith(content), { take: true })))).toEqual(whole);
  });

  test('forked writes the same with the same seed, and another valid text with another', async () => {
    const store = new MemoryStore();
    const outcome = await runStored(spec(), options(store));
    const [parent] = (resultOf(outcome) as { chains: readonly ChainResult[] }).chains;
    for (const [seed, same] of [[undefined, true], [99n, false]] as const) {
      const where = await forkJob({ at: 5, chain: 0, width: 1, seed, length: undefined, as: `fork-${same}` }, { store, where: WHERE });
      const [chain] = (resultOf(await resumeStored(options(store, { where }))) as { chains: readonly ChainResult[] }).chains;
      expect(isValid(JSON.parse(chain?.text ?? ''))).toBe(true);
      expect(chain?.logprobs?.tokens).toHaveLength(chain?.tokens.length ?? 0);
      if (same) expect(chain).toMatchObject({ tokens: parent?.tokens, logprobs: parent?.logprobs });
      else expect(chain?.tokens.slice(0, 5)).toEqual(parent?.tokens.slice(0, 5));
    }
  });
});
