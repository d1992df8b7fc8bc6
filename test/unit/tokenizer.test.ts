import { readFileSync } from 'node:fs';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { describe, expect, test } from 'vitest';
import { LIMITS } from '../../engine/core/limits.ts';
import { tokenizerIn } from '../../engine/model/directory.ts';
import { Tokenizer } from '../../engine/model/tokenizer.ts';
import { COUNTDOWN, readProblems, readReference } from './support.ts';
import { BYTE_CHARS, byteFallback, byteLevel, metaspace, wordPiece } from './tokenizers.ts';

const countdown = tokenizerIn(`${COUNTDOWN}/cr8`);
const skip = { skipSpecial: true };
const keep = { skipSpecial: false };

describe('the bundled word vocabulary', () => {
  test('gives the ids of all 500 prompts, and their text back', () => {
    for (const { prompt, prompt_ids } of readProblems()) {
      expect(countdown.encode(prompt, { addSpecial: false })).toEqual(prompt_ids);
      expect(countdown.decode(prompt_ids, keep)).toBe(prompt);
    }
  });

  test('gives the text of every reference run, and the ids back', () => {
    const runs = Object.values(readReference()).flat();
    expect(runs.length).toBe(37);
    for (const { generated_ids, text } of runs) {
      expect(countdown.decode(generated_ids, keep)).toBe(text);
      expect(countdown.decode(generated_ids, skip)).toBe(text.replace(/ <eos>$/, ''));
      expect(countdown.encode(text, { addSpecial: false })).toEqual(generated_ids);
    }
  });

  test('a word that is not in the vocabulary is unknown as a whole, however its parts look', () => {
    expect(countdown.encode('105 9x targets <think>x', { addSpecial: false })).toEqual([3, 3, 3, 4, 14]);
    expect(countdown.encode('9'.repeat(500), { addSpecial: false })).toEqual([3]);
  });

  test('knows its special tokens', () => {
    expect([...countdown.specialIds]).toEqual([0, 1, 2, 3]);
    expect(countdown).toMatchObject({ vocabSize: 128, bosToken: '<s>', eosToken: '<eos>', eosId: 2, stripLeadingSpace: true });
    expect(countdown.tokenToId('</think>')).toBe(5);
    expect(countdown.tokenToId('nope')).toBeNull();
  });

  test('pieces: a space before each word, nothing for special tokens', () => {
    const { bytes, offsets } = countdown.pieces(130);
    const piece = (id: number) => new TextDecoder().decode(bytes.subarray(offsets[id], offsets[id + 1]));
    expect(offsets.length).toBe(131);
    expect([piece(2), piece(4), piece(21), piece(127), piece(128), piece(129)]).toEqual(['', ' <think>', ' 0', ' <unused5>', '', '']);
    expect(offsets[130]).toBe(bytes.length);
  });

  test('an embedding with fewer rows than tokens is refused', () => {
    expect(() => countdown.checkFits(127)).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER', message: expect.stringContaining('127') }));
    expect(() => countdown.pieces(127)).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER' }));
  });
});

/** The library's decode is the oracle: ours is built from pieces. */
describe.each([
  ['byte-level BPE', byteLevel()], ['byte-fallback BPE', byteFallback()], ['Metaspace Unigram', metaspace()], ['WordPiece', wordPiece()],
  ['WordLevel', readFileSync(`${COUNTDOWN}/cr8/tokenizer.json`, 'utf8')],
])('%s', (name, json) => {
  const ours = Tokenizer.parse(json);
  const parsed = JSON.parse(json) as { model: { type: string } };
  // The library decodes WordLevel well; only its encoding is missing.
  const library = new HuggingFaceTokenizer(parsed, { clean_up_tokenization_spaces: false });

  test('decoding by pieces equals the library on random ids', () => {
    let state = 12_345;
    const random = (below: number) => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) % below;
    for (let round = 0; round < 400; round++) {
      const ids = Array.from({ length: 1 + random(12) }, () => random(ours.vocabSize));
      for (const skipSpecial of [true, false]) {
        const expected = library.decode(ids, { skip_special_tokens: skipSpecial });
        // A text that begins inside a word keeps WordPiece's mark there and loses it here: pieces do not know what comes before.
        expect(ours.decode(ids, { skipSpecial }), ids.join()).toBe(name === 'WordPiece' ? expected.replace(/^##/, '') : expected);
      }
    }
  });

  test('the text is its pieces, less one leading space', () => {
    const { bytes, offsets } = ours.pieces(ours.vocabSize + 3);
    for (let id = 0; id < ours.vocabSize; id++) {
      expect(bytes.subarray(offsets[id], offsets[id + 1])).toEqual(ours.piece(id, true));
      expect(ours.decode([id], skip)).toBe(ours.textOf(ours.piece(id, true)));
    }
  });
});

describe('byte-level BPE', () => {
  const tokenizer = Tokenizer.parse(byteLevel());

  test('text with emoji survives the round trip', () => {
    const text = 'the 😀 a naïve\n<think> 文 <|end|>';
    const ids = tokenizer.encode(text, { addSpecial: false });
    expect(tokenizer.decode(ids, keep)).toBe(text);
    expect(tokenizer.decode(ids, skip)).toBe('the 😀 a naïve\n<think> 文 ');
  });

  test('knows how few tokens a text can have; a vocabulary that drops spaces does not', () => {
    const text = ' '.repeat(10_000);
    const least = tokenizer.leastTokens(text);
    expect(least).toBeGreaterThan(100);
    expect(tokenizer.encode(text, { addSpecial: false }).length).toBeGreaterThanOrEqual(least);
    expect(tokenizerIn(`${COUNTDOWN}/cr8`).leastTokens(text)).toBe(0);
  });

  test('each of the 256 byte tokens is its byte', () => {
    for (const [byte] of BYTE_CHARS.entries()) expect([...tokenizer.piece(byte, true)]).toEqual([byte]);
  });
});

describe('hostile or broken files', () => {
  test.each([
    ['not JSON', '{'], ['a list', '[]'], ['no model', '{}'], ['a vocabulary that is no object', '{"model":{"type":"BPE","vocab":3,"merges":[]},"decoder":null}'],
    ['an absurd id', byteLevel().replace('"id":260', '"id":99999999999')], ['a fractional id', byteLevel().replace('"id":260', '"id":1.5')],
    ['an unsupported decoder', byteLevel().replace('"decoder":{"type":"ByteLevel"}', '"decoder":{"type":"CTC"}')],
    ['an added token without text', byteLevel().replace('"content":"<|end|>",', '')],
  ])('%s is refused', (_, json) => {
    expect(() => Tokenizer.parse(json)).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER' }));
  });

  test('a directory without a tokenizer is named', () => {
    expect(() => tokenizerIn(COUNTDOWN)).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER' }));
  });

  test('a vocabulary may have keys like __proto__', () => {
    const json = readFileSync(`${COUNTDOWN}/cr8/tokenizer.json`, 'utf8').replace('"<unused0>"', '"__proto__"').replace('"<unused1>"', '"constructor"');
    const tokenizer = Tokenizer.parse(json);
    expect(tokenizer.encode('__proto__ constructor toString', { addSpecial: false })).toEqual([122, 123, 3]);
  });
});

test('a prompt as long as it may be goes through a tokenizer of many stages', () => {
  const stages = [{ type: 'Replace', pattern: { String: 'q' }, content: 'Q' }, { type: 'NFC' }, { type: 'Lowercase' }];
  const tokenizer = Tokenizer.parse(JSON.stringify({ ...(JSON.parse(byteLevel()) as object), normalizer: { type: 'Sequence', normalizers: stages } }));
  expect(tokenizer.encode('the é\n'.repeat(LIMITS.PROMPT_BYTES_MAX / 8), { addSpecial: false }).length).toBeGreaterThan(LIMITS.PROMPT_BYTES_MAX / 8);
});
