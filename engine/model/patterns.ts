/** The regular expressions that known vocabularies cut text into words with. None of them looks at a character more than a few times. */

export const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const CONTRACTION = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
const AFTER_NUMBER = ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const wordsAfter = (contraction: string, digits: string) => `${contraction}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}${digits}|${AFTER_NUMBER}`;
/** Llama 3's and Qwen's, as llama.cpp writes them. */
export const UP_TO_THREE_DIGITS = wordsAfter(CONTRACTION, '{1,3}');
export const ONE_DIGIT = wordsAfter(CONTRACTION, '');
const UPPER = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const LOWER = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
export const TEKKEN =
  `[^\\r\\n\\p{L}\\p{N}]?${UPPER}*${LOWER}+|[^\\r\\n\\p{L}\\p{N}]?${UPPER}+${LOWER}*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
/** As tokenizer.json has them. */
const ANY_CASE = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";

export const DEFAULT_PATTERNS: readonly string[] = ['[\\p{P}$+<=>^~|]+', GPT2, '\\p{N}+', '[0-9][0-9][0-9]'];

const KNOWN: ReadonlySet<unknown> = new Set([
  GPT2, UP_TO_THREE_DIGITS, ONE_DIGIT, TEKKEN, wordsAfter(ANY_CASE, '{1,3}'), wordsAfter(ANY_CASE, ''), ...DEFAULT_PATTERNS, '\\p{N}', '\\p{N}{1,3}', '\\s+', ' {2,}',
]);

/** Whether every regular expression in a tokenizer.json's stages is a known one: then none can take for ever. */
export function hasOnlyKnownPatterns({ normalizer, pre_tokenizer }: Readonly<Record<string, unknown>>): boolean {
  const left: unknown[] = [normalizer, pre_tokenizer];
  while (left.length > 0) {
    const next = left.pop();
    if (typeof next !== 'object' || next === null) continue;
    if ('Regex' in next && !KNOWN.has(next.Regex)) return false;
    left.push(...Object.values(next));
  }
  return true;
}
