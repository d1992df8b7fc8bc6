/** Text to ids by @huggingface/tokenizers; ids to text by pieces, so that decoding, streaming and native stop strings agree by construction. */
import { sha256 } from '@noble/hashes/sha2.js';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { hexOf, joined, utf8Bytes, utf8Of } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { withinMs } from '../core/within.ts';
import { mostBytesPerToken } from './coverage.ts';
import { type AddedToken, Encoder } from './encoder.ts';
import { Measure } from './measure.ts';
import { hasOnlyKnownPatterns } from './patterns.ts';
import { type PieceRule, pieceRule } from './pieces.ts';
import { correct } from './splits.ts';

export interface Pieces {
  readonly bytes: Uint8Array;
  /** [rows + 1] */
  readonly offsets: Uint32Array;
}

const utf8 = new TextEncoder();
const NO_BYTES = new Uint8Array(0);
const UNWATCHED_CHARS = 16_384;

/**
 * @example
 * const tokenizer = tokenizerIn('models/countdown/cr8');
 * tokenizer.decode(tokenizer.encode('4 20 8 13 target 59', { addSpecial: false }), { skipSpecial: true });
 */
export class Tokenizer {
  /** One more than the largest id. */
  readonly vocabSize: number;
  readonly bosToken: string | null;
  readonly eosToken: string | null;
  readonly eosId: number | null;
  readonly specialIds: ReadonlySet<number>;
  /** Of tokenizer_config.json: the chat template lives there. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Whether a text loses one leading space of its pieces. */
  readonly stripLeadingSpace: boolean;
  /** SHA-256 in hex of what it was made from: part of a model's identity. */
  readonly digest: string;
  readonly #library: HuggingFaceTokenizer;
  readonly #encoder: Encoder;
  readonly #rule: PieceRule;
  readonly #mostBytes: number | null;
  /** No text makes it work longer than a multiple of its length. */
  readonly #isLinear: boolean;
  readonly #tokens: readonly (string | undefined)[];
  readonly #added: ReadonlyMap<number, AddedToken>;
  /** Of the ids that were asked for: a text has the same few thousand again and again. */
  #table: Pieces | null = null;
  readonly #bytes: (Uint8Array | undefined)[] = [];

  private constructor(json: Record<string, unknown>, config: Record<string, unknown>, digest: string) {
    this.digest = digest;
    const vocab = vocabularyOf(json);
    const added = addedTokensOf(json);
    this.#isLinear = hasOnlyKnownPatterns(json);
    this.#mostBytes = mostBytesPerToken(json, vocab, added);
    this.config = config;
    this.#rule = pieceRule((json.decoder ?? null) as never);
    this.stripLeadingSpace = this.#rule.stripLeadingSpace;
    this.#added = new Map(added.map((token) => [token.id, token]));
    const tokens: (string | undefined)[] = [];
    for (const [token, id] of vocab) tokens[checkId(id)] = token;
    for (const token of added) tokens[checkId(token.id)] = token.content;
    const measure = new Measure(LIMITS.TOKENIZER_CHARS_MAX);
    this.#library = build(json, config, measure);
    this.#encoder = new Encoder(this.#library, added, tokens.length, measure);
    this.#tokens = tokens;
    this.vocabSize = tokens.length;
    const extra = new Set(Array.isArray(config.additional_special_tokens) ? config.additional_special_tokens.map(contentOf) : []);
    this.specialIds = new Set(added.filter((token) => token.special || extra.has(token.content)).map((token) => token.id));
    this.bosToken = contentOf(config.bos_token);
    this.eosToken = contentOf(config.eos_token);
    this.eosId = this.eosToken === null ? null : (this.#library.token_to_id(this.eosToken) ?? null);
  }

  /** From the texts of tokenizer.json and tokenizer_config.json. */
  static parse(tokenizerJson: string, tokenizerConfig = '{}', where = 'tokenizer.json'): Tokenizer {
    return bounded(LIMITS.TOKENIZER_MS_MAX, where, () =>
      new Tokenizer(objectOf(JSON.parse(tokenizerJson)), objectOf(JSON.parse(tokenizerConfig)), digestOf(tokenizerJson, tokenizerConfig)));
  }

  /** From their contents, which `make` finds; it is bounded too. */
  static of(make: () => readonly [json: Record<string, unknown>, config: Record<string, unknown>], where: string): Tokenizer {
    return bounded(LIMITS.TOKENIZER_MS_MAX, where, () => {
      const [json, config] = make();
      return new Tokenizer(json, config, digestOf(JSON.stringify(json), JSON.stringify(config)));
    });
  }

  /** @throws EngineError ERR_TOKENIZER if a part has no token, or the file's regular expressions do not come to an end on the text. */
  encode(text: string, { addSpecial }: { readonly addSpecial: boolean }): number[] {
    return this.encodeAtMost(text, { addSpecial, most: Infinity }) ?? [];
  }

  /** As `encode`; null: they are more than `most`, of which not all were made. */
  encodeAtMost(text: string, { addSpecial, most }: { readonly addSpecial: boolean; readonly most: number }): number[] | null {
    const work = (): number[] | null => this.#encoder.encode(text, addSpecial, most);
    const what = 'The text cannot be tokenized';
    // A watchdog is a thread of its own, which costs more than a short text.
    return this.#isLinear && text.length <= UNWATCHED_CHARS ? refusing(what, work) : bounded(LIMITS.TOKENIZER_MS_MAX, what, work);
  }

  /** The text has at least so many, which is known without encoding it. */
  leastTokens(text: string): number {
    return this.#mostBytes === null ? 0 : Math.ceil(utf8Bytes(text) / this.#mostBytes);
  }

  /**
   * Never cleans up spaces: that would rewrite text already shown.
   * @throws EngineError ERR_TOKENIZER for a token that is too long.
   */
  decode(ids: readonly number[], options: { readonly skipSpecial: boolean }): string {
    return this.textOf(this.bytesOf(ids, options));
  }

  /** The concatenated pieces. */
  bytesOf(ids: readonly number[], options: { readonly skipSpecial: boolean }): Uint8Array {
    return refusing('The tokens have no text', () => joined(this.#piecesOf(ids, options.skipSpecial)));
  }

  /** Pieces to text: one leading space less where the vocabulary writes one before each word; invalid UTF-8 becomes U+FFFD. */
  textOf(pieces: Uint8Array): string {
    const from = this.stripLeadingSpace && pieces[0] === 0x20 ? 1 : 0;
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(pieces.subarray(from));
  }

  /** The bytes that one token adds; empty for ids without a token (padding rows of an embedding) and for skipped special ones. */
  piece(id: number, skipSpecial: boolean): Uint8Array {
    const token = this.#tokens[id];
    if (token === undefined || (skipSpecial && this.specialIds.has(id))) return NO_BYTES;
    return (this.#bytes[id] ??= this.#bytesOf(id, token));
  }

  #bytesOf(id: number, token: string): Uint8Array {
    const bytes = this.#added.has(id) && this.#rule.addedAsText ? utf8.encode(token) : this.#rule.bytesOf(token);
    if (bytes.length > LIMITS.TOKEN_BYTES_MAX) throw new EngineError('ERR_TOKENIZER', `The token ${id} has more than ${LIMITS.TOKEN_BYTES_MAX} bytes.`);
    return bytes;
  }

  /** `piece` of every row of the embedding, special tokens skipped: what native stop strings are matched against. */
  pieces(rows: number): Pieces {
    if (this.#table?.offsets.length === rows + 1) return this.#table;
    this.checkFits(rows);
    const ids = Array.from({ length: rows }, (_, id) => id);
    const all = refusing('The tokens have no text', () => this.#piecesOf(ids, true));
    const offsets = new Uint32Array(rows + 1);
    for (const [id, piece] of all.entries()) offsets[id + 1] = (offsets[id] ?? 0) + piece.length;
    return (this.#table = { bytes: joined(all), offsets });
  }

  #piecesOf(ids: readonly number[], skipSpecial: boolean): readonly Uint8Array[] {
    let size = 0;
    return ids.map((id) => {
      const piece = this.piece(id, skipSpecial);
      size += piece.length;
      if (size > LIMITS.TOKENS_BYTES_MAX) throw new EngineError('ERR_TOKENIZER', `The tokens have more than ${LIMITS.TOKENS_BYTES_MAX} bytes.`);
      return piece;
    });
  }

  /** @throws EngineError ERR_TOKENIZER if a token would index past the embedding. */
  checkFits(rows: number): void {
    if (this.vocabSize > rows) {
      throw new EngineError('ERR_TOKENIZER', `The tokenizer has ids up to ${this.vocabSize - 1} but the embedding has only ${rows} rows.`);
    }
  }

  tokenToId(token: string): number | null {
    return this.#library.token_to_id(token) ?? null;
  }
}

/** Whatever a file makes the library throw, or not come to an end with, is the file's fault. */
function bounded<T>(limitMs: number, where: string, work: () => T): T {
  return refusing(where, () => withinMs(limitMs, work, () => new EngineError('ERR_TOKENIZER', `${where}: not done after ${limitMs / 1000} s.`)));
}

function refusing<T>(where: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (cause instanceof EngineError) throw cause;
    throw new EngineError('ERR_TOKENIZER', `${where}: ${cause instanceof Error ? cause.message : 'unreadable'}.`, { cause });
  }
}

/**
 * The library has no WordLevel: it would take it for a legacy vocabulary and lose the unknown token. We let it build the equal
 * WordPiece (for its tables) and look whole words up ourselves.
 */
function build(json: Record<string, unknown>, config: Record<string, unknown>, measure: Measure): HuggingFaceTokenizer {
  const model = objectOf(json.model);
  const isWordLevel = model.type === 'WordLevel';
  const wordPiece = { ...model, type: 'WordPiece', continuing_subword_prefix: '', max_input_chars_per_word: 100 };
  const pinned = { ...config, clean_up_tokenization_spaces: false };
  const library = new HuggingFaceTokenizer({ ...json, added_tokens: json.added_tokens ?? [], model: isWordLevel ? wordPiece : model }, pinned);
  const built = library.model;
  if (built === null) throw new EngineError('ERR_TOKENIZER', 'The tokenizer has no model.');
  if (isWordLevel) {
    const unknown = typeof model.unk_token === 'string' ? model.unk_token : undefined;
    built.encode = (words: string[]) => words.map((word) => (built.tokens_to_ids.has(word) ? word : (unknown ?? word)));
  }
  correct(library, json, measure);
  return library;
}

function vocabularyOf(json: Record<string, unknown>): Iterable<readonly [string, number]> {
  const vocab = objectOf(json.model).vocab;
  // Unigram: [[token, score], …], the id is the index.
  if (Array.isArray(vocab)) return vocab.map((entry, id) => [String(entry[0]), id] as const);
  return Object.entries(objectOf(vocab)) as [string, number][];
}

function addedTokensOf(json: Record<string, unknown>): readonly AddedToken[] {
  if (json.added_tokens === undefined || json.added_tokens === null) return [];
  if (!Array.isArray(json.added_tokens)) throw new EngineError('ERR_TOKENIZER', 'tokenizer.json: added_tokens is not a list.');
  let chars = 0;
  return json.added_tokens.map((token) => {
    const { id, content, special, single_word, lstrip, rstrip, normalized } = objectOf(token);
    if (typeof content !== 'string') throw new EngineError('ERR_TOKENIZER', 'tokenizer.json: an added token has no content.');
    chars += content.length;
    if (chars > LIMITS.ADDED_TOKENS_CHARS_MAX) {
      throw new EngineError('ERR_TOKENIZER', `tokenizer.json: the added tokens have more than ${LIMITS.ADDED_TOKENS_CHARS_MAX} characters.`);
    }
    return {
      id: checkId(id),
      content,
      special: special === true,
      singleWord: single_word === true,
      lstrip: lstrip === true,
      rstrip: rstrip === true,
      normalized: typeof normalized === 'boolean' ? normalized : special !== true,
    };
  });
}

/** An id indexes arrays: an absurd one must not size them. */
function checkId(id: unknown): number {
  if (typeof id !== 'number' || !Number.isInteger(id) || id < 0 || id >= 1 << 22) {
    throw new EngineError('ERR_TOKENIZER', `tokenizer.json: token ids must be integers from 0 to ${(1 << 22) - 1}; got ${String(id)}.`);
  }
  return id;
}

/** Special tokens are given as strings or as added-token objects. */
function contentOf(token: unknown): string | null {
  if (typeof token === 'string') return token;
  if (typeof token === 'object' && token !== null && 'content' in token && typeof token.content === 'string') return token.content;
  return null;
}

function objectOf(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new EngineError('ERR_TOKENIZER', 'tokenizer.json or tokenizer_config.json: an object is missing.');
  }
  return value as Record<string, unknown>;
}

function digestOf(...texts: readonly string[]): string {
  const hash = sha256.create();
  for (const text of texts) {
    const bytes = utf8Of(text);
    hash.update(utf8Of(`${bytes.byteLength}\n`)).update(bytes);
  }
  return hexOf(hash.digest());
}
