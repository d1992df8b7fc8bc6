/**
 * Where @huggingface/tokenizers cuts or folds text otherwise than Hugging Face's Rust original, the original's way. Its reasons are
 * always the same: JavaScript's \s, \d, \w and trim are not Unicode's, and Split's behaviours are not all there.
 * test/unit/tokenizer-fixtures.test.ts holds both to the original's ids.
 */
import type { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { type Measure, replacedAll } from './measure.ts';

export type Library = HuggingFaceTokenizer;
type Split = (text: string, options?: { section_index?: number }) => string[];
type Behavior = 'isolated' | 'removed' | 'contiguous' | 'mergedwithprevious' | 'mergedwithnext';

/** A stage as the library builds it; every class keeps more or less of its configuration. */
interface Stage {
  readonly config?: { readonly [key: string]: unknown };
  readonly tokenizers?: readonly (Stage | null)[];
  readonly normalizers?: readonly (Stage | null)[];
  readonly processors?: readonly (Stage | null)[];
  pattern?: RegExp | string | null;
  pre_tokenize_text: Split;
  normalize: (text: string) => string;
  post_process: (tokens: string[], ...rest: unknown[]) => unknown;
}

/** Rust's `char::is_whitespace` and Oniguruma's \s: JavaScript's \s has U+FEFF and lacks U+0085. */
export const SPACE = String.raw`\p{White_Space}`;
/** Rust's \w. */
export const WORD = String.raw`\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}`;
const SPACES = new RegExp(`[${SPACE}]+`, 'gu');
const PUNCTUATION = /[\p{P}!-/:-@[-`{-~]/gu;
const GPT2 = new RegExp(String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^${SPACE}\p{L}\p{N}]+|[${SPACE}]+(?![^${SPACE}])|[${SPACE}]+`, 'gu');

/** Corrects a built library in place; what its stages make is counted. */
export function correct(library: Library, json: Readonly<Record<string, unknown>>, measure: Measure): void {
  correctPreTokenizer(library.pre_tokenizer as unknown as Stage | null, json.pre_tokenizer, measure);
  correctNormalizer(library.normalizer as unknown as Stage | null, json.normalizer, measure);
  correctPostProcessor(library.post_processor as unknown as Stage | null, json.post_processor, measure);
}

function correctPreTokenizer(stage: Stage | null, json: unknown, measure: Measure): void {
  if (stage === null) return;
  const config = (json ?? {}) as Readonly<Record<string, unknown>>;
  if (config.type === 'Sequence') {
    for (const [i, part] of (stage.tokenizers ?? []).entries()) correctPreTokenizer(part, (config.pretokenizers as unknown[])[i], measure);
    return;
  }
  correctSplit(stage, config, measure);
  const split = stage.pre_tokenize_text.bind(stage);
  stage.pre_tokenize_text = (text, options) => {
    const pieces = split(text, options);
    for (const piece of pieces) measure.add(piece.length);
    return pieces;
  };
}

function correctSplit(stage: Stage, config: Readonly<Record<string, unknown>>, measure: Measure): void {
  const behavior = behaviorOf(config.behavior);
  switch (config.type) {
    case 'ByteLevel':
      stage.pattern = GPT2;
      return;
    case 'Split': {
      const { pattern } = stage;
      // Without one the library would drop the text.
      if (!(pattern instanceof RegExp)) throw new Error('tokenizer.json: a Split has no pattern');
      stage.pre_tokenize_text = (text) => cut(text, pattern, behavior, config.invert === true);
      return;
    }
    case 'Digits':
      stage.pre_tokenize_text = (text) => cut(text, /\p{N}/gu, config.individual_digits === true ? 'isolated' : 'contiguous');
      return;
    case 'Punctuation':
      stage.pre_tokenize_text = (text) => cut(text, PUNCTUATION, behavior);
      return;
    case 'Whitespace': {
      const words = new RegExp(`[${WORD}]+|[^${WORD}${SPACE}]+`, 'gu');
      stage.pre_tokenize_text = (text) => text.match(words) ?? [];
      return;
    }
    case 'WhitespaceSplit':
      stage.pre_tokenize_text = (text) => cut(text, SPACES, 'removed');
      return;
    case 'BertPreTokenizer':
      stage.pre_tokenize_text = (text) => cut(text, SPACES, 'removed').flatMap((word) => cut(word, PUNCTUATION, 'isolated'));
      return;
    case 'Metaspace': {
      const space = stringOr(config.replacement, '▁');
      const scheme = stringOr(config.prepend_scheme, config.add_prefix_space === false ? 'never' : 'always');
      stage.pre_tokenize_text = (text, options) => {
        const replaced = replacedAll(text, ' ', space, measure);
        const prepend = !replaced.startsWith(space) && (scheme === 'always' || (scheme === 'first' && options?.section_index === 0));
        const whole = prepend ? space + replaced : replaced;
        return config.split === false ? [whole] : cut(whole, new RegExp(escape(space), 'gu'), 'mergedwithnext');
      };
      return;
    }
    case 'Replace': {
      const replace = replacement(stage, config, measure);
      stage.pre_tokenize_text = (text) => [replace(text)];
      return;
    }
    case 'FixedLength':
      // The library would cut off nothing for ever.
      if (!Number.isSafeInteger(config.length) || (config.length as number) < 1) throw new Error('tokenizer.json: a FixedLength has no length');
  }
}

function correctNormalizer(stage: Stage | null, json: unknown, measure: Measure): void {
  if (stage === null) return;
  const config = (json ?? {}) as Readonly<Record<string, unknown>>;
  if (config.type === 'Sequence') {
    for (const [i, part] of (stage.normalizers ?? []).entries()) correctNormalizer(part, (config.normalizers as unknown[])[i], measure);
    return;
  }
  correctText(stage, config, measure);
  const normalize = stage.normalize.bind(stage);
  stage.normalize = (text) => {
    const normalized = normalize(text);
    measure.add(normalized.length);
    return normalized;
  };
}

function correctText(stage: Stage, config: Readonly<Record<string, unknown>>, measure: Measure): void {
  switch (config.type) {
    case 'Lowercase':
      // Character by character: JavaScript knows that a final Σ becomes ς, the original does not.
      stage.normalize = (text) => Array.from(text, (char) => char.toLowerCase()).join('');
      return;
    case 'Strip':
      stage.normalize = (text) => (config.strip_right === false ? (t: string) => t : trimEnd)(config.strip_left === false ? text : trimStart(text));
      return;
    case 'Replace':
      stage.normalize = replacement(stage, config, measure);
  }
}

/** Literal, as the original's: for JavaScript `$&` in the content would be the match. */
function replacement(stage: Stage, config: Readonly<Record<string, unknown>>, measure: Measure): (text: string) => string {
  const { pattern } = stage;
  if (!(pattern instanceof RegExp)) throw new Error('tokenizer.json: a Replace has no pattern');
  const content = stringOr(config.content, '');
  return (text) => replacedAll(text, pattern, content, measure);
}

/** A template may name the text any number of times, and one template may follow another. */
function correctPostProcessor(stage: Stage | null, json: unknown, measure: Measure): void {
  if (stage === null) return;
  const config = (json ?? {}) as Readonly<Record<string, unknown>>;
  if (config.type === 'Sequence') {
    for (const [i, part] of (stage.processors ?? []).entries()) correctPostProcessor(part, (config.processors as unknown[])[i], measure);
  }
  if (config.type !== 'TemplateProcessing' || !Array.isArray(config.single)) return;
  const { length } = config.single;
  const process = stage.post_process.bind(stage);
  stage.post_process = (tokens, ...rest) => {
    measure.add(length * (tokens.length + 1));
    return process(tokens, ...rest);
  };
}

export const trimStart = (text: string) => text.replace(new RegExp(`^[${SPACE}]+`, 'u'), '');

/** By hand: a regular expression would look at every space of the text for the last ones. */
export function trimEnd(text: string): string {
  let end = text.length;
  const space = new RegExp(`[${SPACE}]`, 'u');
  while (end > 0 && space.test(text[end - 1] ?? '')) end--;
  return text.slice(0, end);
}

/** Rust's `Split`: the text as matches and what is between, then joined or dropped as `behavior` says. */
export function cut(text: string, pattern: RegExp, behavior: Behavior, invert = false): string[] {
  const parts: { text: string; match: boolean }[] = [];
  const add = (from: number, to: number, match: boolean) => {
    if (to > from) parts.push({ text: text.slice(from, to), match: match !== invert });
  };
  let at = 0;
  for (const found of text.matchAll(pattern)) {
    add(at, found.index, false);
    add(found.index, found.index + found[0].length, true);
    at = found.index + found[0].length;
  }
  add(at, text.length, false);
  switch (behavior) {
    case 'isolated':
      return parts.map((part) => part.text);
    case 'removed':
      return parts.filter((part) => !part.match).map((part) => part.text);
    case 'contiguous':
      return joined(parts, (part, before) => part.match === before.match);
    case 'mergedwithprevious':
      return joined(parts, (part, before) => part.match && !before.match);
    case 'mergedwithnext':
      return joined(parts, (part, before) => before.match && !part.match);
  }
}

function joined(parts: readonly { text: string; match: boolean }[], sticks: (part: { match: boolean }, before: { match: boolean }) => boolean): string[] {
  const pieces: string[][] = [];
  for (const [i, part] of parts.entries()) {
    const before = parts[i - 1];
    if (before !== undefined && sticks(part, before)) pieces.at(-1)?.push(part.text);
    else pieces.push([part.text]);
  }
  return pieces.map((piece) => piece.join(''));
}

function behaviorOf(value: unknown): Behavior {
  const name = String(value ?? 'isolated').toLowerCase();
  return ['removed', 'contiguous', 'mergedwithprevious', 'mergedwithnext'].includes(name) ? (name as Behavior) : 'isolated';
}

const stringOr = (value: unknown, fallback: string) => (typeof value === 'string' ? value : fallback);
const escape = (text: string) => text.replace(/[.*+?^${}()|[\]\\/]/g, String.raw`\$&`);
