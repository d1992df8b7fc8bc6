/** What a few characters of tokenizer.json can ask for: any amount of text, of tokens or of time. Each is refused before it is made. */
import { describe, expect, test, vi } from 'vitest';
import { LIMITS } from '../../engine/core/limits.ts';
import { Tokenizer } from '../../engine/model/tokenizer.ts';
import { byteFallback, byteLevel } from './tokenizers.ts';

// A few characters more than the real bound cost seconds to make.
vi.mock('../../engine/core/limits.ts', async (original) => {
  const { LIMITS } = await original<typeof import('../../engine/core/limits.ts')>();
  return { LIMITS: { ...LIMITS, TOKENIZER_CHARS_MAX: 1 << 20 } };
});

const refusal = expect.objectContaining({ code: 'ERR_TOKENIZER' });
const plain = { addSpecial: false };
const times = <T>(n: number, item: T) => Array.from({ length: n }, () => item);
const replace = (from: string, content: string) => ({ type: 'Replace', pattern: { String: from }, content });

/** A byte-level tokenizer.json with other parts. */
function using(parts: Readonly<Record<string, unknown>>): Tokenizer {
  return Tokenizer.parse(JSON.stringify({ ...(JSON.parse(byteLevel()) as object), ...parts }));
}

describe('a text that grows without end is refused as ERR_TOKENIZER', () => {
  test('by a normalizer that doubles it forty times', () => {
    const tokenizer = using({ normalizer: { type: 'Sequence', normalizers: times(40, replace('a', 'aa')) } });
    expect(() => tokenizer.encode('a', plain)).toThrow(refusal);
    expect(tokenizer.encode('b', plain)).toEqual([98]);
  });

  test('by one stage with a long content', () => {
    const tokenizer = using({ normalizer: replace('a', 'x'.repeat(1 << 20)) });
    expect(() => tokenizer.encode('a'.repeat(1_000), plain)).toThrow(refusal);
  });

  test('by words that double: replaced, or written as bytes again and again', () => {
    for (const stage of [replace('a', 'aa'), { type: 'Metaspace', replacement: '  ', prepend_scheme: 'never', split: false }, { type: 'ByteLevel', add_prefix_space: false, use_regex: false }]) {
      const tokenizer = using({ pre_tokenizer: { type: 'Sequence', pretokenizers: times(40, stage) } });
      expect(() => tokenizer.encode('a é', plain), stage.type).toThrow(refusal);
    }
  });

  test('by templates that name it twice, one after another', () => {
    const twice = { type: 'TemplateProcessing', single: times(2, { Sequence: { id: 'A', type_id: 0 } }), pair: [], special_tokens: {} };
    const tokenizer = using({ post_processor: { type: 'Sequence', processors: times(40, twice) } });
    expect(() => tokenizer.encode('b', { addSpecial: true })).toThrow(refusal);
    expect(using({ post_processor: { type: 'Sequence', processors: times(3, twice) } }).encode('b', { addSpecial: true })).toEqual(times(8, 98));
  });

  test('by a decoder that doubles a token', () => {
    const json = JSON.parse(byteFallback()) as object;
    const tokenizer = Tokenizer.parse(JSON.stringify({ ...json, decoder: { type: 'Sequence', decoders: times(40, replace('l', 'll')) } }));
    const [l = -1] = [tokenizer.tokenToId('l')];
    expect(() => tokenizer.decode([l ?? -1], { skipSpecial: true })).toThrow(refusal);
    expect(() => tokenizer.pieces(tokenizer.vocabSize)).toThrow(refusal);
    expect(tokenizer.decode([tokenizer.tokenToId('!') ?? -1], { skipSpecial: true })).toBe('!');
  });
});

test('words of no length are refused when the file is read', () => {
  for (const length of [0, -1, 0.5, null, '5', undefined]) expect(() => using({ pre_tokenizer: { type: 'FixedLength', length } })).toThrow(refusal);
  expect(using({ pre_tokenizer: { type: 'FixedLength', length: 1 } }).encode('the', plain)).toEqual([...Buffer.from('the')]);
});

test('a Replace without a pattern is refused, and its content is never a pattern', () => {
  expect(() => using({ normalizer: { type: 'Replace', pattern: {}, content: 'x' } })).toThrow(refusal);
  expect(using({ normalizer: replace('b', '$&$&') }).encode('b', plain)).toEqual([...Buffer.from('$&$&')]);
});

test('added tokens of more text than a tree can hold, and a token of more than a stop string can be compared with, are refused', () => {
  const added = (content: string) => [{ id: 300, content, special: false }];
  expect(() => using({ added_tokens: added('x'.repeat(LIMITS.ADDED_TOKENS_CHARS_MAX + 1)) })).toThrow(refusal);
  const long = using({ added_tokens: added('x'.repeat(LIMITS.TOKEN_BYTES_MAX + 1)) });
  expect(() => long.pieces(long.vocabSize)).toThrow(refusal);
  const fits = using({ added_tokens: added('x'.repeat(LIMITS.TOKEN_BYTES_MAX)) });
  expect(fits.piece(300, false).length).toBe(LIMITS.TOKEN_BYTES_MAX);
});
