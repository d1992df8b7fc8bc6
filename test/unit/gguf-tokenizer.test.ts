/**
 * Tokenizers of GGUF files against llama.cpp's ids (test/fixtures-own/gguf-tokenizers.json, scripts/fixtures/make_gguf_tokenizers.py)
 * and, for SentencePiece, against SentencePiece itself.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

import { tokenizerOf } from '../../engine/model/gguf.ts';
import type { GgufTokenizer } from '../../engine/runtime/gguf-tokenizer.ts';

interface Vocabulary {
  readonly model: string;
  readonly tokens: readonly string[];
  readonly types: readonly number[];
  readonly scores: readonly number[] | null;
  readonly merges: readonly string[];
}
interface Fixture {
  readonly vocabulary: Vocabulary;
  readonly texts: readonly string[];
  readonly expected: Readonly<Record<string, readonly (readonly number[])[]>>;
}

const path = fileURLToPath(new URL('../fixtures-own/gguf-tokenizers.json', import.meta.url));
const { byteLevel, sentencePiece } = JSON.parse(readFileSync(path, 'utf8')) as Record<'byteLevel' | 'sentencePiece', Fixture>;

function gguf({ vocabulary }: Fixture, fields: Partial<GgufTokenizer> = {}): GgufTokenizer {
  return {
    model: vocabulary.model, pre: null, tokens: vocabulary.tokens, types: Int32Array.from(vocabulary.types),
    scores: vocabulary.scores === null ? null : Float32Array.from(vocabulary.scores), merges: vocabulary.merges,
    bosId: 1, eosId: 2, unkId: 0, addBos: null, addEos: null, addSpacePrefix: null, chatTemplate: null, ...fields,
  };
}
const make = (fixture: Fixture, fields: Partial<GgufTokenizer> = {}) => tokenizerOf(gguf(fixture, fields), 'test.gguf');
const plain = { addSpecial: false };

describe('byte-level BPE', () => {
  test.each(Object.keys(byteLevel.expected))('the word rule %s gives llama.cpp\'s ids', (pre) => {
    const tokenizer = make(byteLevel, { pre });
    for (const [i, text] of byteLevel.texts.entries()) {
      // Qwen2's tokenizer composes characters first, as its authors' does; llama.cpp leaves that out.
      if (pre === 'qwen2' && text.normalize('NFC') !== text) continue;
      expect(tokenizer.encode(text, plain), JSON.stringify(text)).toEqual(byteLevel.expected[pre]?.[i]);
    }
  });

  test('a text survives the round trip', () => {
    for (const pre of Object.keys(byteLevel.expected).filter((name) => name !== 'qwen2')) {
      const tokenizer = make(byteLevel, { pre });
      for (const text of byteLevel.texts) expect(tokenizer.decode(tokenizer.encode(text, plain), { skipSpecial: false })).toBe(text);
    }
  });

  test('without a word rule it is "default"', () => {
    const text = byteLevel.texts[7] ?? '';
    expect(make(byteLevel).encode(text, plain)).toEqual(make(byteLevel, { pre: 'default' }).encode(text, plain));
  });

  test('adds what the file says, else what the word rule\'s models do', () => {
    const ids = (fields: Partial<GgufTokenizer>) => make(byteLevel, fields).encode('Hi', { addSpecial: true });
    const [hi] = [make(byteLevel, { pre: 'smollm' }).encode('Hi', plain)];
    expect(ids({ pre: 'smollm' })).toEqual(hi);
    expect(ids({ pre: 'smollm', addBos: true, addEos: true })).toEqual([1, ...hi, 2]);
    expect(ids({ pre: 'llama-bpe' }).slice(0, 1)).toEqual([1]);
    expect(ids({ pre: 'llama-bpe', addBos: false }).slice(0, 1)).not.toEqual([1]);
  });

  test('knows its special tokens and its template', () => {
    const tokenizer = make(byteLevel, { pre: 'smollm', chatTemplate: '{{ bos_token }}' });
    expect(tokenizer).toMatchObject({ vocabSize: 1200, bosToken: '<|im_start|>', eosToken: '<|im_end|>', eosId: 2, stripLeadingSpace: false });
    expect(tokenizer.config.chat_template).toBe('{{ bos_token }}');
    expect(tokenizer.specialIds.has(2)).toBe(true);
    expect(tokenizer.decode([1, ...tokenizer.encode('Hi', plain), 2], { skipSpecial: true })).toBe('Hi');
  });
});

describe('SentencePiece', () => {
  const tokenizer = make(sentencePiece);

  test.each(['llama.cpp', 'sentencepiece'])('gives the ids of %s', (oracle) => {
    for (const [i, text] of sentencePiece.texts.entries()) {
      // A space before the text after a special token, as llama.cpp and the first Llama tokenizers put it; SentencePiece itself puts
      // one before the whole text only and knows no control tokens in it.
      if (oracle === 'sentencepiece' && /<user>|<\/s>/.test(text)) continue;
      expect(tokenizer.encode(text, plain), JSON.stringify(text)).toEqual(sentencePiece.expected[oracle]?.[i]);
    }
  });

  test('a text survives the round trip', () => {
    for (const text of sentencePiece.texts.filter((t) => !/<user>|<\/s>|▁/.test(t))) {
      expect(tokenizer.decode(tokenizer.encode(text, plain), { skipSpecial: false })).toBe(text);
    }
  });

  test('begins with its first token unless the file says otherwise', () => {
    expect(tokenizer.encode('a', { addSpecial: true })[0]).toBe(1);
    expect(make(sentencePiece, { addBos: false }).encode('a', { addSpecial: true })).toEqual(tokenizer.encode('a', plain));
    expect(make(sentencePiece, { addSpacePrefix: false }).encode('a', plain)).not.toEqual(tokenizer.encode('a', plain));
  });
});

describe('what is refused', () => {
  const refused = (fixture: Fixture, fields: Partial<GgufTokenizer>, word: string) =>
    expect(() => make(fixture, fields)).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER', message: expect.stringContaining(word) as string }));

  test('an unknown model, word rule or merge, a token twice, scores that are missing', () => {
    refused(byteLevel, { model: 'bert' }, '"bert"');
    refused(byteLevel, { model: 'toString' }, '"toString"');
    refused(byteLevel, { pre: 'gemma4' }, '"gemma4"');
    refused(byteLevel, { pre: 'constructor' }, '"constructor"');
    refused(byteLevel, { merges: ['ab'] }, '"ab"');
    refused(byteLevel, { merges: ['a '] }, '"a "');
    refused(byteLevel, { tokens: byteLevel.vocabulary.tokens.map((t, i) => (i === 700 ? 'a' : t)) }, 'twice');
    refused(sentencePiece, { scores: null }, 'scores');
  });
});
