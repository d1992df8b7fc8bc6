/** Text to ids: added tokens found as Hugging Face's Rust original finds them, everything between by the library's stages. */
import { EngineError } from '../core/errors.ts';
import type { Measure } from './measure.ts';
import { type Library, SPACE, WORD, trimEnd } from './splits.ts';

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly singleWord: boolean;
  readonly lstrip: boolean;
  readonly rstrip: boolean;
  /** Looked for in the normalized text, as it looks there. */
  readonly normalized: boolean;
}

/**
 * Llama 2 merges over a whole text as one word, a second for 30,000 characters. No token goes on with ▁ after another character, so
 * no merge crosses that place, and cutting there gives the same tokens.
 */
function seamOf({ pre_tokenizer, model }: Library): RegExp | null {
  const tokens = model?.tokens_to_ids;
  if (pre_tokenizer !== null || tokens === undefined || !('merges' in (model ?? {})) || !tokens.has('▁')) return null;
  for (const token of tokens.keys()) if (/[^▁]▁/u.test(token)) return null;
  return /(?<=[^▁])(?=▁)/u;
}

/** Words that the model is given together; each is encoded by itself. */
const WORDS_AT_ONCE = 4_096;

/** A piece of text, or the added token that stands in its place. */
type Section = { readonly text: string; readonly token?: AddedToken };

export class Encoder {
  readonly #library: Library;
  readonly #plain: AddedTokenFinder;
  readonly #normalized: AddedTokenFinder;
  readonly #addedIds: ReadonlyMap<string, number>;
  /** Where a text without pre-tokenizer can be cut all the same. */
  readonly #seam: RegExp | null;
  readonly #vocabSize: number;
  readonly #measure: Measure;

  /** `measure`: what the library's stages count with. */
  constructor(library: Library, added: readonly AddedToken[], vocabSize: number, measure: Measure) {
    this.#library = library;
    this.#vocabSize = vocabSize;
    this.#measure = measure;
    this.#plain = new AddedTokenFinder(added.filter((token) => !token.normalized).map((token) => [token.content, token]));
    const normalized = added.filter((token) => token.normalized).map((token) => [this.#normalize(token.content), token] as const);
    this.#normalized = new AddedTokenFinder(normalized);
    this.#addedIds = new Map(added.map((token) => [token.content, token.id]));
    this.#seam = seamOf(library);
  }

  /** null: more than `most`. @throws EngineError ERR_TOKENIZER if a part of the text has no token. */
  encode(text: string, addSpecial: boolean, most = Infinity): number[] | null {
    const model = this.#library.model;
    if (model === null) throw new EngineError('ERR_TOKENIZER', 'The tokenizer has no model.');
    this.#measure.reset();
    const tokens: string[] = [];
    for (const [outer, section] of this.#plain.split(text).entries()) {
      if (section.token !== undefined) tokens.push(section.token.content);
      else {
        for (const [inner, part] of this.#normalized.split(this.#normalize(section.text)).entries()) {
          if (part.token !== undefined) tokens.push(part.token.content);
          else {
            for (const token of this.#pieces(part.text, outer === 0 && inner === 0)) {
              tokens.push(token);
              if (tokens.length > most) return null;
            }
          }
        }
      }
      if (tokens.length > most) return null;
    }
    const post = this.#library.post_processor as ((tokens: string[], pair: null, addSpecial: boolean) => { tokens: string[] }) | null;
    const all = post === null ? tokens : post(tokens, null, addSpecial).tokens;
    return all.length > most ? null : all.map((token) => {
      const id = this.#addedIds.get(token) ?? model.tokens_to_ids.get(token) ?? model.unk_token_id;
      // The library takes the file's word for the id of unknown text: `__proto__` is one that fuzzing found.
      if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= this.#vocabSize) throw new EngineError('ERR_TOKENIZER', 'The text has a part that the tokenizer has no token for.');
      return id as number;
    });
  }

  /** As they are asked for: a text that is too long is not made into tokens to its end. */
  *#pieces(text: string, first: boolean): Iterable<string> {
    const { pre_tokenizer: preTokenizer, model } = this.#library;
    const run = model as unknown as (words: string[]) => string[];
    // What is unknown fuses within a word and never over its end; where there are no words, over all of the text.
    const fuses = model?.fuse_unk === true;
    const words = preTokenizer === null ? this.#wordsOf(text) : preTokenizer.pre_tokenize(text, { section_index: first ? 0 : 1 });
    const atOnce = !fuses ? WORDS_AT_ONCE : preTokenizer === null ? words.length : 1;
    for (let at = 0; at < words.length; at += atOnce) yield* run(words.slice(at, at + atOnce));
  }

  #wordsOf(text: string): string[] {
    return this.#seam === null ? [text] : text.split(this.#seam);
  }

  #normalize(text: string): string {
    return this.#library.normalizer === null ? text : this.#library.normalizer.normalize(text);
  }
}

interface Node {
  readonly next: Map<string, Node>;
  token: AddedToken | undefined;
}

/** Leftmost, then longest: the original's Aho-Corasick, as a walk over a trie. */
class AddedTokenFinder {
  readonly #root: Node = { next: new Map(), token: undefined };

  constructor(tokens: Iterable<readonly [string, AddedToken]>) {
    for (const [content, token] of tokens) {
      let node = this.#root;
      // By UTF-16 units: a token never ends inside a character, whichever way it is counted.
      for (const unit of content.split('')) {
        let next = node.next.get(unit);
        if (next === undefined) node.next.set(unit, (next = { next: new Map(), token: undefined }));
        node = next;
      }
      if (content !== '') node.token ??= token;
    }
  }

  split(text: string): Section[] {
    if (this.#root.next.size === 0) return text === '' ? [] : [{ text }];
    const sections: Section[] = [];
    let start = 0;
    for (let at = 0; at < text.length; ) {
      const found = this.#longest(text, at);
      if (found === null) {
        at++;
        continue;
      }
      const end = at + found.length;
      if (!found.token.singleWord || (!endsInWord(text.slice(0, at)) && !STARTS_IN_WORD.test(text.slice(end, end + 2)))) {
        const before = text.slice(start, at);
        const kept = found.token.lstrip ? trimEnd(before) : before;
        if (kept !== '') sections.push({ text: kept });
        sections.push({ text: '', token: found.token });
        start = end;
        if (found.token.rstrip) while (start < text.length && IS_SPACE.test(text[start] ?? '')) start++;
      }
      at = Math.max(end, start);
    }
    if (start < text.length) sections.push({ text: text.slice(start) });
    return sections;
  }

  #longest(text: string, from: number): { readonly token: AddedToken; readonly length: number } | null {
    let node: Node | undefined = this.#root;
    let found: { token: AddedToken; length: number } | null = null;
    for (let at = from; (node = node.next.get(text[at] ?? '')) !== undefined; at++) {
      if (node.token !== undefined) found = { token: node.token, length: at + 1 - from };
    }
    return found;
  }
}

const IS_SPACE = new RegExp(`[${SPACE}]`, 'u');
const STARTS_IN_WORD = new RegExp(`^[${WORD}]`, 'u');
const IS_WORD = new RegExp(`^[${WORD}]$`, 'u');

function endsInWord(text: string): boolean {
  const last = text.at(-1) ?? '';
  const char = /[\udc00-\udfff]/.test(last) ? text.slice(-2) : last;
  return IS_WORD.test(char);
}
