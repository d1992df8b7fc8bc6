/** Tiny tokenizers of the kinds that real models have, written out as tokenizer.json. */

const BYTES = Array.from({ length: 256 }, (_, byte) => byte);

/** GPT-2's byte alphabet, built the way its authors did. */
export const BYTE_CHARS: readonly string[] = (() => {
  const printable = BYTES.filter((b) => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174);
  const table: string[] = [];
  let next = 0;
  for (const byte of BYTES) table[byte] = String.fromCodePoint(printable.includes(byte) ? byte : 256 + next++);
  return table;
})();

const byteText = (text: string) => [...new TextEncoder().encode(text)].map((byte) => BYTE_CHARS[byte] ?? '').join('');
const special = (id: number, content: string, isSpecial = true) => ({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: isSpecial });

/** 256 bytes, a few merges, `<|end|>` (special) and `<think>` (added, not special). Emoji split over single bytes and half merges. */
export function byteLevel(): string {
  const merges: [string, string][] = [];
  const vocab: Record<string, number> = Object.fromEntries(BYTE_CHARS.map((char, byte) => [char, byte]));
  const merge = (a: string, b: string) => {
    merges.push([a, b]);
    vocab[a + b] = Object.keys(vocab).length;
  };
  const emoji = [...byteText('😀')];
  merge(emoji[0] ?? '', emoji[1] ?? '');
  merge(byteText('t'), byteText('h'));
  merge(byteText('th'), byteText('e'));
  merge(byteText(' '), byteText('a'));
  const next = Object.keys(vocab).length;
  return JSON.stringify({
    version: '1.0', normalizer: null, post_processor: null, decoder: { type: 'ByteLevel' },
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    added_tokens: [special(next, '<|end|>'), special(next + 1, '<think>', false)],
    model: { type: 'BPE', vocab, merges },
  });
}

/** Llama's: Metaspace words with byte fallback and the decoder Replace, ByteFallback, Fuse, Strip. */
export function byteFallback(): string {
  const words = ['<unk>', '<s>', '</s>', '▁', '▁hello', '▁world', 'l', 'lo', '!'];
  const vocab = Object.fromEntries([...words, ...BYTES.map((b) => `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`)].map((token, id) => [token, id]));
  return JSON.stringify({
    version: '1.0', normalizer: null, post_processor: null, pre_tokenizer: null,
    decoder: {
      type: 'Sequence',
      decoders: [{ type: 'Replace', pattern: { String: '▁' }, content: ' ' }, { type: 'ByteFallback' }, { type: 'Fuse' }, { type: 'Strip', content: ' ', start: 1, stop: 0 }],
    },
    added_tokens: [special(0, '<unk>'), special(1, '<s>'), special(2, '</s>')],
    model: { type: 'BPE', vocab, merges: [], byte_fallback: true, unk_token: '<unk>' },
  });
}

export function metaspace(): string {
  const vocab = [['<unk>', 0], ['▁hello', -1], ['▁wor', -1], ['ld', -1], ['▁', -2], ['x', -3]];
  return JSON.stringify({
    version: '1.0', normalizer: null, post_processor: null, pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
    decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true }, added_tokens: [special(0, '<unk>')],
    model: { type: 'Unigram', unk_id: 0, vocab },
  });
}

export function wordPiece(): string {
  const vocab = Object.fromEntries(['[UNK]', '[SEP]', 'play', '##ing', 'the', '##s'].map((token, id) => [token, id]));
  return JSON.stringify({
    version: '1.0', normalizer: null, post_processor: null, pre_tokenizer: { type: 'WhitespaceSplit' }, decoder: { type: 'WordPiece', prefix: '##', cleanup: false },
    added_tokens: [special(0, '[UNK]'), special(1, '[SEP]')], model: { type: 'WordPiece', vocab, unk_token: '[UNK]', continuing_subword_prefix: '##' },
  });
}
