/** The tokenizer of a GGUF file: its vocabulary as the tokenizer.json it was made from, and the rules that llama.cpp knows by name. */
import { EngineError } from '../core/errors.ts';
import type { GgufTokenizer } from '../runtime/gguf-tokenizer.ts';
import { readGgufTokenizer } from '../runtime/native.ts';
import { tokenizerIn } from './directory.ts';
import { DEFAULT_PATTERNS, GPT2, ONE_DIGIT, TEKKEN, UP_TO_THREE_DIGITS } from './patterns.ts';
import type { ModelTexts } from './texts.ts';
import { Tokenizer } from './tokenizer.ts';

const TYPE = { normal: 1, unknown: 2, control: 3, userDefined: 4, byte: 6 } as const;

type Json = Readonly<Record<string, unknown>>;

/**
 * Of a GGUF file, or of a directory with one; else from the directory's tokenizer.json.
 * @example (await loadTokenizer('SmolLM2-135M-Instruct.Q4_1.gguf')).encode('Hello', { addSpecial: true })
 */
export async function loadTokenizer(path: string): Promise<Tokenizer> {
  const gguf = await readGgufTokenizer(path);
  return gguf === null ? tokenizerIn(path) : tokenizerOf(gguf, path);
}

/** The texts of a tokenizer.json and tokenizer_config.json that make the same tokenizer; null: there is no GGUF file. @throws EngineError ERR_TOKENIZER */
export async function ggufTexts(path: string): Promise<Pick<ModelTexts, 'tokenizer' | 'tokenizerConfig'> | null> {
  const gguf = await readGgufTokenizer(path);
  if (gguf === null) return null;
  const [json, config] = filesOf(gguf, path);
  return { tokenizer: JSON.stringify(json), tokenizerConfig: JSON.stringify(config) };
}

/** @throws EngineError ERR_TOKENIZER */
export function tokenizerOf(gguf: GgufTokenizer, where: string): Tokenizer {
  return Tokenizer.of(() => filesOf(gguf, where), where);
}

/** The tokenizer.json and tokenizer_config.json that the file was made from, as far as it tells. */
function filesOf(gguf: GgufTokenizer, where: string): readonly [Record<string, unknown>, Record<string, unknown>] {
  const make = gguf.model === 'gpt2' ? byteLevel : gguf.model === 'llama' ? sentencePiece : null;
  if (make === null) throw new EngineError('ERR_TOKENIZER', `${where}: the tokenizer ${JSON.stringify(gguf.model)} is not supported; supported: gpt2, llama.`);
  if (new Set(gguf.tokens).size !== gguf.tokens.length) throw new EngineError('ERR_TOKENIZER', `${where}: a token is in the vocabulary twice.`);
  const { addBos, addEos, ...parts } = make(gguf, where);
  const token = (id: number | null) => (id === null ? null : (gguf.tokens[id] ?? null));
  const bos = token(gguf.bosId);
  const eos = token(gguf.eosId);
  const json = {
    ...parts,
    added_tokens: addedTokens(gguf),
    post_processor: template((gguf.addBos ?? addBos) ? bos : null, (gguf.addEos ?? addEos) ? eos : null),
  };
  return [json, { bos_token: bos, eos_token: eos, chat_template: gguf.chatTemplate }];
}

interface Parts {
  readonly model: Json;
  readonly normalizer: Json | null;
  readonly pre_tokenizer: Json | null;
  readonly decoder: Json;
  /** When the file does not say. */
  readonly addBos: boolean;
  readonly addEos: boolean;
}

// --- Byte-level BPE --------------------------------------------------------------------------------

interface WordRule {
  /** Applied in this order: each splits what the ones before it left. */
  readonly patterns: readonly string[];
  /** A word that is a token is that token, whatever the merges. */
  readonly ignoreMerges?: boolean;
  readonly addBos?: boolean;
  readonly normalizer?: Json;
}

const DEFAULT_RULE: WordRule = { patterns: DEFAULT_PATTERNS };
const GPT2_RULE: WordRule = { patterns: [GPT2] };
const DIGITS_APART: WordRule = { patterns: ['\\p{N}', GPT2] };
const LLAMA3: WordRule = { patterns: [UP_TO_THREE_DIGITS], ignoreMerges: true, addBos: true };
const QWEN2: WordRule = { patterns: [ONE_DIGIT] };

/** By the names that llama.cpp's converter writes for models of the architectures we compute. */
const WORD_RULES: Readonly<Record<string, WordRule>> = {
  default: DEFAULT_RULE,
  'gpt-2': GPT2_RULE,
  olmo: GPT2_RULE,
  smollm: DIGITS_APART,
  starcoder: DIGITS_APART,
  refact: DIGITS_APART,
  codeshell: DIGITS_APART,
  'minerva-7b': DIGITS_APART,
  'llama-bpe': LLAMA3,
  llama3: LLAMA3,
  'llama-v3': LLAMA3,
  falcon3: LLAMA3,
  'midm-2.0': LLAMA3,
  'smaug-bpe': { patterns: LLAMA3.patterns },
  // Qwen's own tokenizer.json normalises; llama.cpp does not.
  qwen2: { ...QWEN2, normalizer: { type: 'NFC' } },
  'deepseek-r1-qwen': QWEN2,
  megrez: QWEN2,
  tekken: { patterns: [TEKKEN], ignoreMerges: true, addBos: true },
};

function byteLevel(gguf: GgufTokenizer, where: string): Parts {
  const name = gguf.pre ?? 'default';
  const rule = Object.hasOwn(WORD_RULES, name) ? WORD_RULES[name] : undefined;
  if (rule === undefined) {
    throw new EngineError('ERR_TOKENIZER', `${where}: tokenizer.ggml.pre ${JSON.stringify(name)} is not supported; supported: ${Object.keys(WORD_RULES).join(', ')}.`);
  }
  const splits = rule.patterns.map((Regex) => ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false }));
  return {
    model: {
      type: 'BPE',
      vocab: vocabularyOf(gguf),
      // A token may begin with a space in other vocabularies: the first space that is not at the start parts the two.
      merges: gguf.merges.map((merge) => split(merge, merge.indexOf(' ', 1), where)),
      ignore_merges: rule.ignoreMerges ?? false,
    },
    normalizer: rule.normalizer ?? null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [...splits, { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false }],
    },
    decoder: { type: 'ByteLevel' },
    addBos: rule.addBos ?? false,
    addEos: false,
  };
}

function split(merge: string, at: number, where: string): readonly [string, string] {
  if (at < 1 || at === merge.length - 1) throw new EngineError('ERR_TOKENIZER', `${where}: the merge ${JSON.stringify(merge)} is not two tokens.`);
  return [merge.slice(0, at), merge.slice(at + 1)];
}

// --- SentencePiece BPE -----------------------------------------------------------------------------

function sentencePiece(gguf: GgufTokenizer, where: string): Parts {
  const prefix = gguf.addSpacePrefix ?? true;
  const toSpace = { type: 'Replace', pattern: { String: '▁' }, content: ' ' };
  const toMark = { type: 'Replace', pattern: { String: ' ' }, content: '▁' };
  return {
    model: {
      type: 'BPE',
      vocab: vocabularyOf(gguf),
      merges: mergesByScore(gguf, where),
      byte_fallback: gguf.types.includes(TYPE.byte),
      fuse_unk: true,
      unk_token: gguf.tokens[gguf.unkId ?? 0],
    },
    normalizer: { type: 'Sequence', normalizers: prefix ? [{ type: 'Prepend', prepend: '▁' }, toMark] : [toMark] },
    pre_tokenizer: null,
    decoder: {
      type: 'Sequence',
      decoders: [toSpace, { type: 'ByteFallback' }, { type: 'Fuse' }, ...(prefix ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : [])],
    },
    addBos: true,
    addEos: false,
  };
}

/**
 * SentencePiece joins the two neighbours whose join has the best score, so each way to make a token of two others is a merge, and
 * merges rank by the score of what they make.
 */
function mergesByScore({ tokens, types, scores }: GgufTokenizer, where: string): (readonly [string, string])[] {
  if (scores === null) throw new EngineError('ERR_TOKENIZER', `${where}: tokenizer.ggml.scores is missing.`);
  const parts = new Set(tokens.filter((_, id) => types[id] === TYPE.normal));
  const merges: { readonly pair: readonly [string, string]; readonly score: number }[] = [];
  for (const [id, token] of tokens.entries()) {
    if (types[id] !== TYPE.normal) continue;
    const score = scores[id] ?? 0;
    // A low surrogate at `at` means a cut through a character: neither half is a token.
    for (let at = 1; at < token.length; at++) {
      const pair = [token.slice(0, at), token.slice(at)] as const;
      if (parts.has(pair[0]) && parts.has(pair[1])) merges.push({ pair, score });
    }
  }
  return merges.sort((a, b) => b.score - a.score).map(({ pair }) => pair);
}

// --- Both ------------------------------------------------------------------------------------------

function vocabularyOf({ tokens }: GgufTokenizer): Json {
  return Object.fromEntries(tokens.map((token, id) => [token, id]));
}

/** Found in the text before anything else; control tokens and the unknown one are special: not part of an answer's text. */
function addedTokens({ tokens, types }: GgufTokenizer): readonly Json[] {
  return tokens.flatMap((content, id) => {
    const type = types[id];
    if (type !== TYPE.unknown && type !== TYPE.control && type !== TYPE.userDefined) return [];
    return [{ id, content, special: type !== TYPE.userDefined, normalized: false, single_word: false, lstrip: false, rstrip: false }];
  });
}

function template(bos: string | null, eos: string | null): Json | null {
  if (bos === null && eos === null) return null;
  const special = (token: string | null) => (token === null ? [] : [{ SpecialToken: { id: token, type_id: 0 } }]);
  const single = [...special(bos), { Sequence: { id: 'A', type_id: 0 } }, ...special(eos)];
  return { type: 'TemplateProcessing', single, pair: single, special_tokens: {} };
}
