/** GGUF files through the boundary: test/fixtures-own/gguf, made by the gguf package of the models in test/fixtures/models. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

import { templateIn } from '../../engine/model/directory.ts';
import { loadTokenizer } from '../../engine/model/gguf.ts';
import { inspectModel, readGgufTokenizer } from '../../engine/runtime/native.ts';
import { expectCode, open, tinyModel } from '../helpers/engine.ts';

const gguf = (name: string) => fileURLToPath(new URL(`../fixtures-own/gguf/${name}.gguf`, import.meta.url));

test('inspect says what a GGUF file is', async () => {
  expect(await inspectModel(gguf('tiny_llama31_q8_0'), [])).toMatchObject({ modelType: 'llama', layers: 2, weightType: 'q8_0', eosIds: [2], bosId: 1, policy: { name: 'dense' } });
  // The projections and the embedding; norms are always F32.
  const { weightBytes, fileBytes } = await inspectModel(gguf('tiny_llama31_q8_0'), []);
  expect(Object.keys(weightBytes)).toEqual(['f32', 'q8_0']);
  expect(weightBytes.f32 ?? 0).toBeLessThan(weightBytes.q8_0 ?? 0);
  expect((weightBytes.f32 ?? 0) + (weightBytes.q8_0 ?? 0)).toBeLessThan(fileBytes);
  expect(await inspectModel(gguf('tiny_qwen3'), [['policy', 'dms'], ['window', '8']])).toMatchObject({ policy: { name: 'dms_borrowed', window: 8 } });
});

test.each(['tiny_qwen3', 'tiny_qwen2'])('%s as a GGUF file gives the bytes of its directory, decoded and prefilled', async (name) => {
  const passes = await Promise.all([gguf(name), tinyModel(name)].map(async (directory) => {
    using engine = await open(directory);
    return await engine.forward({ ids: Int32Array.from({ length: 40 }, (_, i) => (i * 31 + 7) % 128), promptLen: 20, chunk: 8 });
  }));
  expect(passes[0]?.logits).toEqual(passes[1]?.logits);
  expect(passes[0]?.heads).toEqual(passes[1]?.heads);
});

test('the tokenizer\'s fields cross the boundary, and a Hugging Face directory has none', async () => {
  const tokenizer = await readGgufTokenizer(gguf('tiny_qwen3'));
  expect(tokenizer).toMatchObject({
    model: 'gpt2', pre: 'qwen2', scores: null, merges: [], bosId: 1, eosId: 2, unkId: null, addBos: null, addEos: null, addSpacePrefix: null,
    chatTemplate: '{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}',
  });
  expect(tokenizer?.tokens.length).toBe(128);
  expect(tokenizer?.tokens.slice(0, 4)).toEqual(['<unk>', '<s>', '</s>', 'Ā']);
  expect([...(tokenizer?.types ?? [])].slice(0, 4)).toEqual([2, 3, 3, 1]);
  expect(await readGgufTokenizer(tinyModel('tiny_qwen3'))).toBeNull();
});

test('its chat template renders with its own tokens', async () => {
  const file = gguf('tiny_qwen3');
  const tokenizer = await loadTokenizer(file);
  const template = templateIn(file, tokenizer.config);
  const text = template?.render({ messages: [{ role: 'user', content: 'Ā' }], addGenerationPrompt: true, bosToken: tokenizer.bosToken, eosToken: tokenizer.eosToken });
  expect(text).toBe('<s>Ā');
});

test('a damaged file is refused by every way in', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'gguf-'));
  try {
    const file = path.join(folder, 'm.gguf');
    const bytes = readFileSync(gguf('tiny_qwen3'));
    for (const cut of [0, 3, 24, 1000, bytes.length - 1]) {
      writeFileSync(file, bytes.subarray(0, cut));
      await expectCode('ERR_MODEL_FILE', () => inspectModel(file, []));
      await expectCode('ERR_MODEL_FILE', () => readGgufTokenizer(file));
      await expectCode('ERR_MODEL_FILE', () => readGgufTokenizer(folder));
    }
    await expectCode('ERR_MODEL_FILE', () => readGgufTokenizer(path.join(folder, 'none.gguf')));
    await expectCode('ERR_OPTION', () => readGgufTokenizer(''));
    await expectCode('ERR_OPTION', () => readGgufTokenizer('a\0.gguf'));
  } finally {
    rmSync(folder, { recursive: true });
  }
});
