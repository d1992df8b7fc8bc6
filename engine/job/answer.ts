/** From a chain's text to the answer it votes with, and to the form in which answers are compared. Bounded, no I/O. */
import { assertNever } from '../core/assert.ts';
import { LIMITS } from '../core/limits.ts';
import type { Call } from '../model/calls/syntax.ts';

/**
 * `boxed`: the last \boxed{…}. `last_number`, `choice` (A-E…): the last one. `pattern`: group 1 (or all) of the last match in the end of the text.
 * `after`: the text after the last marker. `exact`: all of it. `auto`: boxed, else after "answer", else a number that
 * the text ends in, else all of it.
 */
export type AnswerRule =
  | { readonly rule: 'auto' | 'boxed' | 'last_number' | 'choice' | 'exact' }
  | { readonly rule: 'after'; readonly marker: string }
  | { readonly rule: 'pattern'; readonly pattern: string };

export interface Thinking {
  readonly open: string;
  readonly close: string;
}

export const DEFAULT_THINKING: Thinking = { open: '<think>', close: '</think>' };

export interface SplitText {
  readonly thinking: string;
  /** null: the chain did not finish its thinking, so it has no answer whatever it wrote. */
  readonly answer: string | null;
}

/**
 * A chain thinks if the prompt already ends inside the thinking (`opened`) or its text begins with the opening delimiter; then everything up
 * to the first closing delimiter is thinking. A closing delimiter that closes nothing is text: so what is shown as it comes (splitter.ts) never
 * has to be taken back.
 * @example splitThinking('2+2… </think> answer 4', DEFAULT_THINKING, true).answer // ' answer 4'
 */
export function splitThinking(text: string, delimiters: Thinking | null, opened: boolean): SplitText {
  if (delimiters === null) return { thinking: '', answer: text };
  const { open, close } = delimiters;
  const begins = text.trimStart().startsWith(open);
  if (!opened && !begins) return { thinking: '', answer: text };
  const start = begins ? text.indexOf(open) + open.length : 0;
  const end = text.indexOf(close, start);
  return end < 0 ? { thinking: text.slice(start), answer: null } : { thinking: text.slice(start, end), answer: text.slice(end + close.length) };
}

/**
 * The answer in `text`, as written, or null. `ended`: the chain stopped by itself. One that was cut votes only if its answer is
 * closed by itself (\boxed{…}): the last number of half a sentence is not what the chain would have said.
 * @example extractAnswer('so \\boxed{42}.', { rule: 'boxed' }, true) // '42'
 */
export function extractAnswer(text: string, rule: AnswerRule, ended: boolean): string | null {
  const bounded = text.slice(-LIMITS.ANSWER_TEXT_CHARS_MAX);
  const found = ended ? extract(bounded, rule) : rule.rule === 'boxed' || rule.rule === 'auto' ? lastBoxed(bounded) : null;
  const answer = found?.trim() ?? '';
  return answer === '' || answer.length > LIMITS.ANSWER_CHARS_MAX ? null : answer;
}

/**
 * Calls as an answer: the same for two chains that call the same functions with the same arguments. null: the arguments are no JSON objects, or
 * too long to compare.
 * @example answerOfCalls([{ name: 'f', arguments: '{"b": 1, "a": 2}' }]) // '[{"name":"f","arguments":{"a":2,"b":1}}]'
 */
export function answerOfCalls(calls: readonly Call[]): string | null {
  const parts = calls.map((call) => {
    const given = sortedObject(call.arguments);
    return given === null ? null : `{"name":${JSON.stringify(call.name)},"arguments":${given}}`;
  });
  const answer = `[${parts.join(',')}]`;
  return parts.includes(null) || answer.length > LIMITS.ANSWER_CHARS_MAX ? null : answer;
}

/** As JSON with its keys in order, those within it too. */
function sortedObject(json: string): string | null {
  if (json.length > LIMITS.ANSWER_CHARS_MAX || !json.trimStart().startsWith('{')) return null;
  try {
    return JSON.stringify(JSON.parse(json), (_, value: unknown) =>
      typeof value === 'object' && value !== null && !Array.isArray(value) ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) : value);
  } catch {
    return null;
  }
}

function extract(text: string, rule: AnswerRule): string | null {
  switch (rule.rule) {
    case 'boxed':
      return lastBoxed(text);
    case 'last_number':
      return lastNumber(text);
    case 'choice':
      return lastChoice(text);
    case 'exact':
      return text;
    case 'after':
      return afterMarker(text, rule.marker);
    case 'pattern':
      return lastMatch(text, rule.pattern);
    case 'auto':
      return lastBoxed(text) ?? afterMarker(text, 'answer') ?? finalNumber(text) ?? text;
    default:
      return assertNever(rule);
  }
}

function lastBoxed(text: string): string | null {
  let at = text.length;
  for (let tried = 0; tried < LIMITS.BOXES_MAX && at > 0; tried++) {
    at = text.lastIndexOf('\\boxed', at - 1);
    if (at < 0) return null;
    const open = /^\\boxed\s*\{/.exec(text.slice(at, at + 32));
    const inside = open === null ? null : balanced(text, at + open[0].length);
    if (inside !== null) return inside;
  }
  return null;
}

/** The text up to the brace that closes the one before `from`; escaped braces do not count. */
function balanced(text: string, from: number): string | null {
  let depth = 1;
  for (let i = from; i < text.length && i - from <= LIMITS.ANSWER_CHARS_MAX; i++) {
    if (text[i] === '\\') i++;
    else if (text[i] === '{') depth++;
    else if (text[i] === '}' && --depth === 0) return text.slice(from, i);
  }
  return null;
}

const NUMBER = /(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?:\s*\/\s*\d+)?/g;

function lastNumber(text: string): string | null {
  return text.match(NUMBER)?.at(-1)?.replace(/\s+/g, '') ?? null;
}

/** "… makes 5.", "= 12": a number in the middle of an answer in words is not the answer. */
function finalNumber(text: string): string | null {
  const number = lastNumber(text);
  return number !== null && text.replace(/\s+/g, '').replace(/[.!*$%)\]]+$/, '').endsWith(number) ? number : null;
}

function lastChoice(text: string): string | null {
  const said = [...text.matchAll(/(?:answer|choice|option)\s*(?:is)?\s*:?\s*\(?\s*([A-J])(?![\w'])/gi)].at(-1)?.[1];
  return said?.toUpperCase() ?? [...text.matchAll(/(?<![\w'])\(?([A-J])\)?(?![\w'])/g)].at(-1)?.[1] ?? null;
}

/** Case-insensitive; a colon or "is" after the marker belongs to the marker, and the answer ends with its line. */
function afterMarker(text: string, marker: string): string | null {
  const at = text.toLowerCase().lastIndexOf(marker.toLowerCase());
  if (at < 0) return null;
  const rest = text.slice(at + marker.length).replace(/^\s*(?:is\b)?\s*:?\s*/, '');
  return rest.split('\n', 1)[0] ?? null;
}

function lastMatch(text: string, pattern: string): string | null {
  const match = [...text.slice(-LIMITS.PATTERN_TEXT_CHARS_MAX).matchAll(new RegExp(pattern, 'gu'))].at(-1);
  return match?.[1] ?? match?.[0] ?? null;
}

/**
 * Why a pattern is refused, or null. Patterns come from callers and run here, and no JavaScript timeout reliably interrupts a regular
 * expression: so exponential shapes (repeated groups, back-references, long rows of options) are refused, and the text is short enough
 * for the cubic ones that are left.
 */
export function patternProblem(pattern: string): string | null {
  if (pattern.length === 0 || pattern.length > LIMITS.PATTERN_CHARS_MAX) return `must have 1 to ${LIMITS.PATTERN_CHARS_MAX} characters`;
  try {
    new RegExp(pattern, 'gu');
  } catch {
    return 'must be a JavaScript regular expression';
  }
  // Escapes and classes stand for one character, a lazy mark changes nothing, `(?` opens a group.
  const bare = pattern.replace(/\\[^1-9k]/gu, 'x').replace(/\[[^\]]*\]/gu, 'x').replace(/([*+?}])\?/gu, '$1').replaceAll('(?', '(');
  if (/\\[1-9k]/u.test(bare)) return 'must not have back-references';
  if (/\)[*+{]/u.test(bare)) return 'must not repeat a group';
  if (count(bare, /[*+]|\{\d+,\d*\}/gu) > 2) return 'must have at most 2 repeats of varying length';
  if (count(bare, /[?|]/gu) > 4) return 'must have at most 4 options (? and |)';
  return null;
}

function count(text: string, what: RegExp): number {
  return text.match(what)?.length ?? 0;
}

/**
 * The form in which answers are compared: `$1{,}000.0$`, `\text{1000}` and `1000.` vote together. Fractions stay fractions.
 * @example answerKey(' $3.0$. ') // '3'
 */
export function answerKey(answer: string): string {
  let text = answer.trim().replace(/\s+/g, ' ');
  for (let before = ''; before !== text; ) {
    before = text;
    text = text
      .replace(/^\$\$?(.*?)\$?\$$/u, '$1')
      .replace(/^\\[([](.*)\\[)\]]$/u, '$1')
      .replace(/^\\(?:text|mathrm|mathbf|textbf|boxed)\s*\{([^{}]*)\}$/u, '$1')
      .replace(/^\*\*(.*)\*\*$/u, '$1')
      .replace(/(?<!\.)\.$/u, '')
      .trim();
  }
  text = text.replace(/\\(?:left|right|,|!|;)/g, '').replace(/\\[dt]frac/g, '\\frac').replaceAll('{,}', ',').replaceAll('−', '-');
  return plainNumber(text) ?? text;
}

/**
 * As `answerKey`, of JSON: neither white space nor the order of keys tells two answers apart.
 * @example jsonKey('{ "b": 1, "a": [2] }') // '{"a":[2],"b":1}'
 */
export function jsonKey(answer: string): string {
  try {
    return JSON.stringify(JSON.parse(answer), (_, value: unknown) =>
      typeof value === 'object' && value !== null && !Array.isArray(value) ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) : value);
  } catch {
    return answerKey(answer);
  }
}

/** 1,000 -> 1000; +3.0 -> 3; .5 -> 0.5; -0 -> 0; null if not one number. Digits stay text: no rounding. */
function plainNumber(text: string): string | null {
  const match = /^([-+]?)(\d{1,3}(?:,\d{3})+|\d*)(?:\.(\d*))?$/.exec(text);
  const [, sign = '', whole = '', fraction = ''] = match ?? [];
  if (match === null || whole + fraction === '') return null;
  const integer = whole.replaceAll(',', '').replace(/^0+(?=\d)/, '') || '0';
  const decimals = fraction.replace(/0+$/, '');
  const magnitude = decimals === '' ? integer : `${integer}.${decimals}`;
  return sign === '-' && magnitude !== '0' ? `-${magnitude}` : magnitude;
}
