/** Jobs under KVzap: the policy of a spec reaches the engine, and what a job says it used is what the method leaves. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

import { openSession } from '../../engine/job/session.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { inspectModel } from '../../engine/runtime/native.ts';
import { bundledModel } from '../helpers/setup.ts';
import { writeSurrogate } from '../helpers/surrogate.ts';

const session = openSession();
let folder: string;
let surrogate: string;
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'ruminate-kvzap-'));
  surrogate = writeSurrogate(path.join(folder, 'surrogate'), await inspectModel(bundledModel('dense'), []));
});
afterAll(() => {
  session[Symbol.dispose]();
  rmSync(folder, { recursive: true });
});

// A prompt of the model's own numbers, longer than any of its training: only its length matters here.
const PROMPT = '4 20 8 13 target 59 '.repeat(20).trim();
const job = (options: Record<string, string>, change: Partial<JobSpec> = {}): JobSpec => ({
  model: 'countdown', variant: 'dense', prompt: PROMPT, threads: 1, seed: 3, budget: { width: 3, length: 30 }, early_stop: false,
  policy: 'kvzap', policy_options: { surrogate, threshold: '0', window: '4', ...options }, ...change,
});

test('the prompt is read densely and once, and what the chains hold afterwards is pruned', async () => {
  const { usage, chains } = await session.generate(job({}));
  const prompt = usage.prompt_tokens;
  expect(prompt).toBeGreaterThan(100);
  expect(usage.kv_reads_prefill).toBe((prompt * (prompt + 1)) / 2);
  expect(usage.compression_ratio).toBeGreaterThan(1.2);
  expect(usage.read_ratio).toBeGreaterThan(1.2);
  // Each chain's peak is that of the dense prompt, or of its end; in bytes the prompt is there once, before the chains.
  for (const chain of chains) expect(chain.live_kv_tokens).toBeLessThan(prompt);
  expect(usage.peak_kv_tokens).toBe(3 * prompt);
  expect(usage.peak_kv_bytes).toBeLessThan(3 * prompt * 2_048);
  expect(usage.peak_kv_bytes).toBeGreaterThanOrEqual(prompt * 2_048);
});

test('a threshold below every score gives the tokens of the dense model, one above keeps only the window', async () => {
  const { policy: _, policy_options: __, ...dense } = job({});
  const tokens = (await session.generate(dense)).chains.map((chain) => chain.tokens);
  expect((await session.generate(job({ threshold: '-1e6' }))).chains.map((chain) => chain.tokens)).toEqual(tokens);
  const least = await session.generate(job({ threshold: '1e6' }));
  for (const chain of least.chains) expect(chain.live_kv_tokens).toBe(5);
});

test('without decode exactly the prompt before its last window is at stake', async () => {
  const { usage, chains } = await session.generate(job({ threshold: '1e6', decode: 'false' }));
  // Everything before the last 4 tokens of the prompt has gone; every token after them is there.
  for (const chain of chains) expect(chain.live_kv_tokens).toBe(4 + chain.tokens.length - 1);
  const reads = chains.reduce((sum, { tokens }) => sum + ((tokens.length - 1) * (tokens.length + 8)) / 2, 0);
  expect(usage.kv_reads).toBe(reads);
});

test('a quote plans the dense prompt, and goes by the fraction it is given or by 1', async () => {
  const cautious = await session.quote(job({}));
  expect(cautious).toMatchObject({ kept_fraction: 1, window: 4, expected: cautious.worst });
  const quote = await session.quote(job({}, { kept_fraction: 0.25 }));
  const prompt = quote.prompt_tokens;
  expect(quote.kv_reads_prefill).toBe((prompt * (prompt + 1)) / 2);
  expect(quote.expected.peak_kv_bytes).toBeGreaterThanOrEqual(prompt * 2_048);
  expect(quote.expected.kv_reads).toBeLessThan(quote.worst.kv_reads / 2);
  // The surrogate is loaded too.
  expect(quote.weight_bytes).toBe(0);
  const fresh = openSession();
  const plain = await fresh.quote({ model: 'countdown', variant: 'dense', prompt: PROMPT });
  expect((await fresh.quote(job({}))).weight_bytes).toBeGreaterThan(plain.weight_bytes);
  fresh[Symbol.dispose]();
});

test('what the surrogate or an option lacks is refused before anything runs', async () => {
  await expect(session.generate(job({ surrogate: path.join(folder, 'nowhere') }))).rejects.toMatchObject({ code: 'ERR_MODEL_FILE' });
  await expect(session.generate(job({ surrogate: bundledModel('dense') }))).rejects.toMatchObject({ code: 'ERR_MODEL_CONFIG' });
  await expect(session.generate(job({ alpha_scale: '3' }))).rejects.toMatchObject({ code: 'ERR_OPTION' });
  await expect(session.generate(job({}, { policy: 'kvsnap' }))).rejects.toMatchObject({ code: 'ERR_OPTION' });
});
