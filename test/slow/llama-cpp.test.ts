/**
 * SmolLM2-135M-Instruct, a real GGUF file, against llama.cpp (node-llama-cpp) and the gguf package.
 *
 * Plain weights: every greedy token is llama.cpp's. Block formats: llama.cpp rounds activations to 8 bits, so near ties differ; almost
 * all tokens agree, and where one does not ours wins by little.
 */
import { readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';

import { templateIn } from '../../engine/model/directory.ts';
import { loadTokenizer } from '../../engine/model/gguf.ts';
import { openSession } from '../../engine/job/session.ts';
import { inspectModel, openEngine, type NativeEngine } from '../../engine/runtime/native.ts';
import { agreement, type Agreement } from '../helpers/agreement.ts';
import { inType, llamaCpp, smolLm2, type WeightType } from '../helpers/smollm2.ts';

interface Recorded {
  readonly questions: readonly string[];
  readonly texts: readonly string[];
  readonly prompts: readonly (readonly number[])[];
  readonly greedy: readonly (readonly number[])[];
}
const recorded = JSON.parse(readFileSync(fileURLToPath(new URL('../fixtures-own/smollm2.json', import.meta.url)), 'utf8')) as Recorded;

const model = smolLm2();
const peer = model === null ? null : llamaCpp();
const LENGTH = 32;
const MARGIN_MAX = 1;
const timeout = 900_000;

const open = (directory: string): Promise<NativeEngine> =>
  openEngine({ directory, overrides: [], backend: 'cpu', kv: 'f32', pageSlots: 64, threads: 2, isa: null });

function expectNearTies({ tokens, same, margins }: Agreement, what: string): void {
  process.stdout.write(`${what}: ${same} of ${tokens} tokens agree; margins of the others: ${margins.map((m) => m.toFixed(3)).join(', ') || 'none'}\n`);
  expect(same / tokens).toBeGreaterThan(0.9);
  expect(margins[0] ?? 0).toBeLessThan(MARGIN_MAX);
}

function sameBytes(a: Float32Array, b: Float32Array): boolean {
  const bytes = (floats: Float32Array) => Buffer.from(floats.buffer, floats.byteOffset, floats.byteLength);
  return Buffer.compare(bytes(a), bytes(b)) === 0;
}

describe.skipIf(model === null)('SmolLM2 from its wheel', () => {
  const file = model ?? '';
  const copies: string[] = [];
  afterAll(() => copies.forEach((copy) => rmSync(copy, { force: true })));

  test('is what its metadata say', async () => {
    expect(await inspectModel(file, [])).toMatchObject({
      modelType: 'llama', layers: 30, heads: 9, kvHeads: 3, headDim: 64, vocabSize: 49_152, maxPositions: 8192, tiedEmbeddings: true,
      weightType: 'q4_1', parameters: 134_515_008, eosIds: [2, 0], bosId: 1, policy: { name: 'dense' },
    });
  });

  test('its chat template and tokenizer give llama.cpp\'s ids', async () => {
    const tokenizer = await loadTokenizer(file);
    const template = templateIn(file, tokenizer.config);
    for (const [i, content] of recorded.questions.entries()) {
      const text = template?.render({ messages: [{ role: 'user', content }], addGenerationPrompt: true, bosToken: tokenizer.bosToken, eosToken: tokenizer.eosToken });
      expect(text).toBe(recorded.texts[i]);
      expect(tokenizer.encode(text ?? '', { addSpecial: false })).toEqual(recorded.prompts[i]);
    }
  });

  test('its greedy tokens are those recorded of llama.cpp, but for near ties', { timeout }, async () => {
    using engine = await open(file);
    expectNearTies(await agreement(engine, recorded.prompts, recorded.greedy), 'Q4_1, recorded');
  });

  test('answers a question through its chat template', { timeout }, async () => {
    using session = openSession();
    const result = await session.generate({ model: file, prompt: 'What is the capital of France?', sampling: { temperature: 0 }, budget: { length: 32, width: 1 }, vote: 'none' });
    expect(result.chains[0]?.text).toBe('The capital of France is Paris.');
  });

  test.for(['Q4_1', 'Q8_0', 'Q4_0', 'K'] as const)('%s weights compute as the floats that the gguf package makes of them, bit for bit', { timeout }, async (type, { skip }) => {
    const blocks = type === 'Q4_1' ? file : inType(file, type);
    const floats = blocks === null ? null : inType(blocks, 'F32', `floats-of.${type}`);
    if (blocks === null || floats === null) return skip('needs PyPI gguf');
    copies.push(floats);
    const ids = Int32Array.from(recorded.prompts[0] ?? []);
    const pass = async (path: string) => {
      using engine = await open(path);
      return await engine.forward({ ids, promptLen: ids.length, chunk: 16 });
    };
    const [found, wanted] = [await pass(blocks), await pass(floats)];
    expect(sameBytes(found.logits, wanted.logits)).toBe(true);
    for (const [i, head] of found.heads.flat().entries()) {
      const other = wanted.heads.flat()[i];
      expect(other !== undefined && sameBytes(head.k, other.k) && sameBytes(head.v, other.v)).toBe(true);
    }
  });
});

describe.skipIf(peer === null)('against llama.cpp itself', () => {
  const cases: readonly (readonly [WeightType, 'F32' | 'F16'])[] = [['F32', 'F32'], ['F16', 'F16'], ['BF16', 'F16'], ['Q8_0', 'F16'], ['Q4_0', 'F16'], ['K', 'F16']];
  test.for(cases)('%s weights, %s KV', { timeout }, async ([type, kv], { skip }) => {
    const file = inType(model ?? '', type);
    if (peer === null || file === null) return skip('needs PyPI gguf');
    const { prompts, greedy } = peer({ model: file, kv, texts: recorded.texts, length: LENGTH });
    expect(prompts).toEqual(recorded.prompts);
    using engine = await open(file);
    const found = await agreement(engine, prompts, greedy);
    if (type === 'F32' || type === 'F16' || type === 'BF16') expect(found).toMatchObject({ same: found.tokens, margins: [] });
    else expectNearTies(found, type);
  });
});
