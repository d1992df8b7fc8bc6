import { describe, expect, test } from 'vitest';
import { Detokenizer } from '../../engine/model/detokenizer.ts';
import { tokenizerIn } from '../../engine/model/directory.ts';
import { Tokenizer } from '../../engine/model/tokenizer.ts';
import { COUNTDOWN, readReference } from './support.ts';
import { byteFallback, byteLevel, metaspace, wordPiece } from './tokenizers.ts';

const tokenizers: [string, Tokenizer][] = [
  ['byte-level', Tokenizer.parse(byteLevel())], ['byte-fallback', Tokenizer.parse(byteFallback())], ['Metaspace', Tokenizer.parse(metaspace())],
  ['WordPiece', Tokenizer.parse(wordPiece())], ['WordLevel', tokenizerIn(`${COUNTDOWN}/cr8`)],
];

function stream(tokenizer: Tokenizer, ids: readonly number[], stop: readonly string[] = []): string[] {
  const detokenizer = new Detokenizer(tokenizer, { stop });
  return [...ids.map((id) => detokenizer.push([id])), detokenizer.flush()];
}

describe.each(tokenizers)('%s, one token at a time', (_, tokenizer) => {
  let state = 7;
  const random = (below: number) => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) % below;
  const samples = Array.from({ length: 300 }, () => Array.from({ length: 1 + random(16) }, () => random(tokenizer.vocabSize)));

  test('the pushes joined are the whole decode', () => {
    for (const ids of samples) expect(stream(tokenizer, ids).join('')).toBe(tokenizer.decode(ids, { skipSpecial: true }));
  });

  test('what was shown is never taken back: every prefix shown begins the whole text', () => {
    for (const ids of samples) {
      const whole = tokenizer.decode(ids, { skipSpecial: true });
      let shown = '';
      for (const text of stream(tokenizer, ids)) {
        shown += text;
        expect(whole.startsWith(shown)).toBe(true);
      }
    }
  });

  test('with stop strings the joined text ends before the first one', () => {
    for (const ids of samples) {
      const whole = tokenizer.decode(ids, { skipSpecial: true });
      const stop = whole.slice(Math.floor(whole.length / 2), Math.floor(whole.length / 2) + 2);
      if (stop.length < 2 || /[\ud800-\udfff\ufffd]/.test(stop)) continue;
      expect(stream(tokenizer, ids, [stop]).join('')).toBe(whole.slice(0, whole.indexOf(stop)));
    }
  });
});

describe('characters split over tokens', () => {
  const tokenizer = Tokenizer.parse(byteLevel());

  test('an emoji appears with its last byte and not before', () => {
    const ids = tokenizer.encode('a😀b', { addSpecial: false });
    expect(ids.length).toBe(5); // a, two bytes merged, two single bytes, b
    expect(stream(tokenizer, ids)).toEqual(['a', '', '', '😀', 'b', '']);
  });

  test('half a character at the end is shown once, as a replacement', () => {
    expect(stream(tokenizer, tokenizer.encode('a😀', { addSpecial: false }).slice(0, -1)).join('')).toBe('a\ufffd');
  });

  test('every emoji of a plane, byte by byte', () => {
    for (let code = 0x1f300; code < 0x1f700; code += 7) {
      const text = `x${String.fromCodePoint(code)}y`;
      const parts = stream(tokenizer, tokenizer.encode(text, { addSpecial: false }));
      expect(parts.join('')).toBe(text);
      expect(parts.some((part) => part.includes('\ufffd'))).toBe(false);
    }
  });
});

describe('stop strings', () => {
  const tokenizer = Tokenizer.parse(byteLevel());
  const encode = (text: string) => tokenizer.encode(text, { addSpecial: false });

  test('the beginning of one is held back until it is one or cannot be', () => {
    const detokenizer = new Detokenizer(tokenizer, { stop: ['END'] });
    expect(detokenizer.push(encode('xE'))).toBe('x');
    expect(detokenizer.push(encode('N'))).toBe('');
    expect(detokenizer.push(encode('x'))).toBe('ENx');
    expect(detokenizer.push(encode('yEN'))).toBe('y');
    expect(detokenizer.push(encode('D'))).toBe('');
    expect(detokenizer.push(encode('more'))).toBe('');
    expect(detokenizer.flush()).toBe('');
  });

  test('an unfinished one is text after all', () => {
    expect(stream(tokenizer, encode('xEN'), ['END']).join('')).toBe('xEN');
  });
});

test('every reference run streams to its text', () => {
  const tokenizer = tokenizerIn(`${COUNTDOWN}/cr8`);
  for (const { generated_ids, text } of Object.values(readReference()).flat()) {
    expect(stream(tokenizer, generated_ids).join('')).toBe(text.replace(/ <eos>$/, ''));
  }
});
