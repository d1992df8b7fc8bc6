/** Whole jobs on the bundled model and the built engine: what a job promises, checked from outside. */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { kvReads, peakTokens } from '../../engine/job/budget.ts';
import { type JobResult, type Progress, generate } from '../../engine/job/generate.ts';
import { openSession } from '../../engine/job/session.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { COUNTDOWN, readProblems, readReference } from '../unit/support.ts';

const session = openSession();
afterAll(() => session[Symbol.dispose]());

const VARIANTS = { 'countdown-0.8m': 'dense', 'countdown-0.8m-dms-cr2': 'cr2', 'countdown-0.8m-dms-cr4': 'cr4', 'countdown-0.8m-dms-cr8': 'cr8' } as const;
const contents = new Map(readProblems().map((problem) => [problem.id, problem.content]));
const job = (change: Partial<JobSpec> = {}): JobSpec => ({ model: 'countdown', prompt: '7 18 17 7 target 35', threads: 1, ...change });
const withoutTiming = ({ timing: _, ...rest }: JobResult) => JSON.stringify(rest);

describe.each(Object.entries(VARIANTS))('%s', (checkpoint, variant) => {
  test('greedy chains are the reference implementation\'s, token for token, with its KV reads, peak and live lengths', async () => {
    const runs = readReference()[checkpoint] ?? [];
    expect(runs.length).toBeGreaterThan(7);
    for (const run of runs) {
      const spec = job({ variant, prompt: contents.get(run.id) ?? '', sampling: { temperature: 0 }, budget: { width: 1 }, early_stop: false });
      const { chains: [chain], usage, ballots: [ballot] } = await session.generate(spec);
      expect(chain?.tokens, run.id).toEqual(run.generated_ids);
      expect(chain?.text).toBe(run.text.replace(/ <eos>$/, ''));
      expect(chain?.finish_reason).toBe(run.finished ? 'stop' : 'length');
      expect(ballot?.verified === true).toBe(run.solved);
      expect(usage.kv_reads).toBe(run.kv_reads);
      expect(usage.peak_kv_tokens).toBe(run.peak_tokens);
      const heads = run.live_counts_final.flat();
      expect(chain?.live_kv_tokens).toBe(heads.reduce((a, b) => a + b, 0) / heads.length);
      expect(usage.prompt_tokens).toBe(run.prompt_ids.length);
    }
  }, 240_000);
});

describe('a job', () => {
  test('gives the same JSON twice, on one thread or two, watched or not, loaded or fresh', async () => {
    const spec = job({ seed: 7n, budget: { width: 4, length: 120 }, early_stop: false });
    const first = withoutTiming(await session.generate(spec));
    const watched = await generate(spec, { threads: 2, onProgress: () => {} });
    expect(withoutTiming(watched)).toBe(first);
    expect(withoutTiming(await session.generate(spec))).toBe(first);
    expect(withoutTiming(await session.generate({ ...spec, page_slots: 4 })).replace(/"peak_kv_bytes":\d+/, '')).toBe(first.replace(/"peak_kv_bytes":\d+/, ''));
  });

  test('gives other chains under another seed, and chain i is the same at any width', async () => {
    const spec = job({ seed: 1, budget: { width: 3, length: 60 }, vote: 'none' });
    const wide = await session.generate(spec);
    const narrow = await session.generate({ ...spec, budget: { width: 2, length: 60 } });
    expect(narrow.chains.map((chain) => chain.tokens)).toEqual(wide.chains.slice(0, 2).map((chain) => chain.tokens));
    const other = await session.generate({ ...spec, seed: 2 });
    expect(other.chains.map((chain) => chain.text)).not.toEqual(wide.chains.map((chain) => chain.text));
  });

  test('without eviction uses exactly what the arithmetic says', async () => {
    const { chains, usage } = await session.generate(job({ variant: 'dense', seed: 3, budget: { width: 3, lengths: [40, 1, 200] }, early_stop: false }));
    const dense = { window: 0, keptFraction: 1 };
    const generated = chains.map((chain) => chain.tokens.length);
    expect(generated[0]).toBeLessThanOrEqual(40);
    expect(generated[1]).toBe(1);
    expect(usage.kv_reads).toBe(generated.reduce((sum, n) => sum + kvReads(9, n, dense), 0));
    expect(usage.peak_kv_tokens).toBe(generated.reduce((sum, n) => sum + peakTokens(9, n, dense), 0));
    expect(usage).toMatchObject({ kv_reads_prefill: 45, read_ratio: 1, compression_ratio: 1, completion_tokens: generated.reduce((a, b) => a + b, 0) });
  });

  test('reads far less with eviction, and says by how much', async () => {
    const { usage } = await session.generate(job({ prompt: '1 5 5 19 target 65', sampling: { temperature: 0 }, budget: { width: 1 } }));
    expect(usage.read_ratio).toBeGreaterThan(4);
    expect(usage.compression_ratio).toBeGreaterThan(4);
  });

  test('answers with a derivation that the verifier accepts', async () => {
    const result = await session.generate(job({ variant: 'cr2', sampling: { temperature: 0 }, budget: { width: 1 } }));
    expect(result.answer).toBe('17 - 7 = 10 ; 18 + 10 = 28 ; 28 + 7 = 35');
    expect(result.ballots).toEqual([{ chain: 0, answer: result.answer, key: result.answer, verified: true }]);
  });
});

describe('stopping', () => {
  test('the vote ends the job at the step that decides it, and the chains before it are those of the full run', async () => {
    const spec = job({ variant: 'cr2', seed: 5, budget: { width: 6 } });
    const full = await session.generate({ ...spec, early_stop: false });
    const early = await session.generate(spec);
    expect(early.answer).toBe(full.answer);
    expect(early.answer).not.toBeNull();
    const decidedAt = Math.min(...full.chains.filter((_, i) => full.ballots[i]?.verified).map((chain) => chain.tokens.length));
    for (const [i, chain] of early.chains.entries()) {
      const whole = full.chains[i];
      expect(chain.tokens).toEqual(whole?.tokens.slice(0, decidedAt));
      expect(chain.finish_reason).toBe((whole?.tokens.length ?? 0) <= decidedAt ? whole?.finish_reason : 'early_stop');
      if (chain.finish_reason === 'early_stop') expect(early.ballots[i]).toEqual({ chain: i, answer: null, key: null, verified: null });
    }
    expect(early.chains.some((chain) => chain.finish_reason === 'early_stop')).toBe(true);
    expect(early.usage.kv_reads).toBeLessThan(full.usage.kv_reads);
  });

  test('a majority that ends early elects what the full run elects', async () => {
    let stopped = 0;
    for (const [seed, { content }] of readProblems().filter((problem) => problem.task === 'eval').slice(0, 8).entries()) {
      const spec = job({ variant: 'dense', prompt: content, seed, budget: { width: 5 }, vote: 'majority' });
      const full = await session.generate({ ...spec, early_stop: false });
      const early = await session.generate(spec);
      expect(early.answer).toBe(full.answer);
      stopped += early.chains.filter((chain) => chain.finish_reason === 'early_stop').length;
    }
    expect(stopped).toBeGreaterThan(0);
  });

  test('a KV-read budget is never exceeded and stops within one step of it', async () => {
    const { chains, usage } = await session.generate(job({ variant: 'dense', prompt: '1 5 5 19 target 65', sampling: { temperature: 0 }, budget: { width: 2, kv_read_budget: 1_000 }, early_stop: false }));
    expect(usage.kv_reads).toBeLessThanOrEqual(1_000);
    const generated = chains.map((chain) => chain.tokens.length);
    expect(chains.map((chain) => chain.finish_reason)).toEqual(['kv_read_budget', 'kv_read_budget']);
    expect(usage.kv_reads + 2 * (9 + (generated[0] ?? 0))).toBeGreaterThan(1_000);
  });

  test('a stop string ends the text before it', async () => {
    const { chains: [chain] } = await session.generate(job({ variant: 'dense', sampling: { temperature: 0 }, budget: { width: 1 }, stop: [' ; 18 7'] }));
    expect(chain).toMatchObject({ text: '7 18 17 7 : 17 - 7 = 10', finish_reason: 'stop' });
    expect(chain?.tokens.slice(-3)).toEqual([20, 39, 28]);
  });

  test('a cancelled job resolves with what it had, and that is the beginning of the full job', async () => {
    const spec = job({ variant: 'dense', prompt: '1 5 5 19 target 65', seed: 9, budget: { width: 2 }, vote: 'none' });
    const full = await session.generate(spec);
    const controller = new AbortController();
    const onProgress = (progress: Progress) => {
      if (progress.phase === 'decode' && (progress.chains[0]?.tokens ?? 0) >= 32) controller.abort();
    };
    const part = await session.generate(spec, { signal: controller.signal, onProgress });
    const reasons = part.chains.map((chain) => chain.finish_reason);
    expect(reasons).toContain('cancelled');
    for (const [i, chain] of part.chains.entries()) {
      expect(chain.tokens).toEqual(full.chains[i]?.tokens.slice(0, chain.tokens.length));
      if (chain.finish_reason === 'cancelled') expect(part.ballots[i]?.answer).toBeNull();
    }
    expect(part.usage.completion_tokens).toBeGreaterThan(0);
    expect(part.usage.completion_tokens).toBeLessThan(full.usage.completion_tokens);
  });

  test('a job cancelled before its model is loaded is ERR_CANCELLED', async () => {
    await expect(session.generate(job(), { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
  });

  test('a deadline ends the job with what there is', async () => {
    const fired = AbortSignal.abort();
    const clock = { nowMs: () => 0, timeout: () => ({ signal: fired, [Symbol.dispose]: () => {} }) };
    const { chains, answer, usage } = await session.generate(job({ budget: { width: 2, deadline_ms: 1 } }), { clock });
    expect(chains.map((chain) => chain.finish_reason)).toEqual(['deadline', 'deadline']);
    expect(answer).toBeNull();
    expect(usage).toMatchObject({ completion_tokens: 0, kv_reads: 0, read_ratio: 1, compression_ratio: 1 });
  });
});

describe('what a chain casts', () => {
  // Thinking off: every text that has a number in it has an answer under this rule, if its chain ended by itself.
  const rule = { answer: { rule: 'last_number' }, thinking: null, vote: 'majority', variant: 'cr2', sampling: { temperature: 0 }, early_stop: false } as const;

  test('one that is cut, by its length or the budget, votes for nothing', async () => {
    for (const budget of [{ width: 2, length: 10 }, { width: 2, kv_read_budget: 500 }]) {
      const { answer, ballots, chains } = await session.generate(job({ ...rule, budget }));
      expect(chains.every((chain) => /\d/.test(chain.text) && chain.finish_reason !== 'stop')).toBe(true);
      expect(ballots.map((ballot) => [ballot.answer, ballot.key])).toEqual([[null, null], [null, null]]);
      expect(answer).toBeNull();
    }
  });

  test('one that ends by itself or at a stop string votes', async () => {
    const whole = await session.generate(job({ ...rule, budget: { width: 1 } }));
    expect(whole.chains[0]?.finish_reason).toBe('stop');
    expect(whole.answer).toMatch(/^\d+$/);
    const stopped = await session.generate(job({ ...rule, stop: [' ;'], budget: { width: 1 } }));
    expect(stopped.answer).toBe(/(\d+)\D*$/.exec(stopped.chains[0]?.text ?? '')?.[1]);
  });

  test('beside chains that are cut the one that ended decides alone', async () => {
    const { answer, ballots, chains } = await session.generate(job({ ...rule, budget: { lengths: [10, 10, 1_000] } }));
    expect(chains.map((chain) => chain.finish_reason)).toEqual(['length', 'length', 'stop']);
    expect(ballots.map((ballot) => ballot.answer)).toEqual([null, null, answer]);
    expect(answer).not.toBeNull();
  });
});

describe('every field of sampling reaches the engine', () => {
  const tokens = async (sampling: JobSpec['sampling']) =>
    (await session.generate(job({ seed: 3, budget: { width: 2, length: 60 }, vote: 'none', sampling }))).chains.map((chain) => chain.tokens);
  const HOT = { temperature: 2 };

  test.each([{ min_p: 0.999 }, { top_p: 1e-6 }, { top_k: 1 }])('%j leaves the likeliest token', async (only) => {
    expect(await tokens(HOT)).not.toEqual(await tokens({ temperature: 0 }));
    expect(await tokens({ ...HOT, ...only })).toEqual(await tokens({ temperature: 0 }));
  });

  test('each penalty changes the tokens, in its own way', async () => {
    const ways = [{}, { repetition_penalty: 10 }, { presence_penalty: 2 }, { frequency_penalty: 2 }, { presence_penalty: -2 }, { frequency_penalty: -2 }];
    const texts: string[] = [];
    for (const way of ways) texts.push(JSON.stringify(await tokens({ ...HOT, ...way })));
    expect(new Set(texts).size).toBe(ways.length);
  });

  test('a bias forbids a token or forces one', async () => {
    expect((await tokens({ temperature: 0, logit_bias: [[39, 100]] })).flat().every((token) => token === 39)).toBe(true);
    expect((await tokens({ ...HOT, logit_bias: [[39, -100]] })).flat()).not.toContain(39);
  });
});

describe('progress', () => {
  test('goes from load to done, and its tails end as the texts do', async () => {
    const seen: Progress[] = [];
    const result = await session.generate(job({ seed: 4, budget: { width: 2, length: 100 }, early_stop: false }), { onProgress: (progress) => seen.push(progress) });
    expect([...new Set(seen.map((progress) => progress.phase))]).toEqual(['load', 'prefill', 'decode', 'done']);
    const last = seen.at(-1);
    expect(last?.kv_reads).toBe(result.usage.kv_reads);
    for (const [i, chain] of result.chains.entries()) {
      expect(last?.chains[i]).toMatchObject({ tokens: chain.tokens.length, live_kv_tokens: chain.live_kv_tokens, finish_reason: chain.finish_reason });
      expect(chain.text.endsWith(last?.chains[i]?.tail ?? 'x')).toBe(true);
    }
  });
});

describe('refusals, before anything is allocated', () => {
  test.each<[string, Partial<JobSpec>, string]>([
    ['an unknown model', { model: 'nope' }, 'ERR_MODEL_NOT_FOUND'],
    ['a field out of range', { budget: { width: 0 } }, 'ERR_OPTION'],
    ['a length past the context', { budget: { length: 1_016 } }, 'ERR_PROMPT_TOO_LONG'],
    ['a prompt past the context', { prompt: '1 '.repeat(1_100) }, 'ERR_PROMPT_TOO_LONG'],
    ['a budget for less than one token', { budget: { kv_read_budget: 39, width: 4 } }, 'ERR_BUDGET'],
    ['a logit bias for a token that does not exist', { sampling: { logit_bias: [[128, 1]] } }, 'ERR_OPTION'],
  ])('%s', async (_, change, code) => {
    await expect(session.generate(job(change))).rejects.toMatchObject({ code });
  });

  test('a ratio that a plain directory does not have', async () => {
    const dense = `${COUNTDOWN}/dense`;
    const cr8 = `${COUNTDOWN}/cr8`;
    for (const [model, own, asked] of [[cr8, 8, 4], [cr8, 8, 1], [dense, 1, 8]] as const) {
      await expect(session.quote(job({ model, budget: { compression_ratio: asked } }))).rejects.toMatchObject({
        code: 'ERR_OPTION', message: expect.stringMatching(new RegExp(`one variant of CR ${own}; got ${asked}\\.$`)),
      });
      await expect(session.quote(job({ model, budget: { compression_ratio: own } }))).resolves.toMatchObject({ prompt_tokens: 9 });
    }
  });

  test('more memory than there is', async () => {
    process.env.RUMINATE_MEMORY_LIMIT = '1000000';
    try {
      await expect(generate(job())).rejects.toMatchObject({ code: 'ERR_MEMORY', message: expect.stringContaining('1000000') });
    } finally {
      delete process.env.RUMINATE_MEMORY_LIMIT;
    }
  });

  test('weights count too, and are named', async () => {
    process.env.RUMINATE_MEMORY_LIMIT = '1000000';
    try {
      using fresh = openSession();
      const quote = await fresh.quote(job());
      expect(quote.weight_bytes).toBeGreaterThan(3_000_000);
      await expect(fresh.generate(job())).rejects.toMatchObject({
        code: 'ERR_MEMORY', message: expect.stringMatching(new RegExp(`needs ${quote.expected.allocated_bytes} bytes \\(weights ${quote.weight_bytes}, `)),
      });
      process.env.RUMINATE_MEMORY_LIMIT = String(quote.expected.allocated_bytes);
      const { timing } = await fresh.generate(job());
      expect(timing.weight_bytes / quote.weight_bytes).toBeCloseTo(1, 1);
      // Loaded once: the second job of the session pays for its KV only.
      expect((await fresh.quote(job())).weight_bytes).toBe(0);
    } finally {
      delete process.env.RUMINATE_MEMORY_LIMIT;
    }
  });

  test('a window whose ring does not fit, however short the job', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'ring-'));
    process.env.RUMINATE_MEMORY_LIMIT = '10000000';
    try {
      cpSync(`${COUNTDOWN}/cr8`, directory, { recursive: true });
      const config = JSON.parse(readFileSync(join(directory, 'config.json'), 'utf8')) as object;
      writeFileSync(join(directory, 'config.json'), JSON.stringify({ ...config, dms_window_size: 300_000 }));
      await expect(generate(job({ model: directory, budget: { length: 2, width: 3 } }))).rejects.toMatchObject({ code: 'ERR_MEMORY', message: expect.stringContaining('window of 300000') });
    } finally {
      delete process.env.RUMINATE_MEMORY_LIMIT;
      rmSync(directory, { recursive: true });
    }
  });

  test.each<[string, Partial<JobSpec>]>([
    ['dense', { variant: 'dense', budget: { width: 3, length: 400 } }],
    ['dense in small pages', { variant: 'dense', page_slots: 4, budget: { width: 2, length: 130 } }],
    ['CR 8', { variant: 'cr8', budget: { width: 3, length: 400 } }],
    ['CR 2 in bf16', { variant: 'cr2', kv: 'bf16', budget: { lengths: [1, 30, 400] } }],
  ])('what is allocated is what was planned: %s', async (name, change) => {
    const spec = job({ early_stop: false, vote: 'none', sampling: { logit_bias: [[2, -100]] }, ...change });
    const quote = await session.quote(spec);
    const { timing, chains } = await session.generate(spec);
    expect(chains.map((chain) => chain.tokens.length)).toEqual(quote.lengths);
    expect(timing.kv_allocated_bytes).toBeLessThanOrEqual(quote.worst.kv_allocated_bytes);
    // Looked at every 64 steps, the last time before a chain ends. Whole pages of one head may lie half empty: of CR 8 at this length all do.
    const ratio = timing.kv_allocated_bytes / quote.expected.kv_allocated_bytes;
    if (name.startsWith('dense')) expect(ratio).toBeGreaterThan(0.85);
    expect(ratio).toBeLessThan(1.5);
  });

  test('a quote says what a job would cost', async () => {
    const quote = await session.quote(job({ variant: 'cr8', budget: { width: 8, length: 512 } }));
    expect(quote.expected.kv_reads).toBeLessThan(quote.worst.kv_reads / 4);
    expect(quote).toMatchObject({ prompt_tokens: 9, kv_bytes_per_token: 2_048, window: 16, kv_reads_prefill: 45 });
  });

  test('a disposed session is not used again', async () => {
    const gone = openSession();
    gone[Symbol.dispose]();
    await expect(gone.generate(job())).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });
});
