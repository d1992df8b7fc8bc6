/**
 * JSON as rules. Narrower than the standard where that changes no value: white space is a space, or a line break with an indent; a number is
 * one that a double holds; an escaped character is never half of a pair. So what is generated always parses, comes to an end, and its strings
 * have as many characters as they seem to.
 */
import { type Span, classOf, spanOf, without } from './characters.ts';
import { type Rules, literal } from './ebnf.ts';

/** The rules of any value. Strings repeat to the right and end in their own quote: as such xgrammar knows most tokens beforehand. */
const JSON_RULES: Readonly<Record<string, string>> = {
  ws: '"" | " " | "\\n" [ \\t]{0,24}',
  colon: '":" " "?',
  hex: '[0-9a-fA-F]',
  escape: '["\\\\/bfnrt] | "u" ([0-9a-cA-CefEF] hex hex hex | [dD] [0-7] hex hex)',
  string: '"\\"" string_rest',
  string_rest: '"\\"" | [^"\\\\\\x00-\\x1f] string_rest | "\\\\" escape string_rest',
  plain_rest: '"\\"" | [^"\\\\\\x00-\\x1f] plain_rest',
  integer: '"-"? ("0" | [1-9] [0-9]{0,14})',
  number: 'integer ("." [0-9]{1,15})? ([eE] [+-]? [0-9]{1,2})?',
  boolean: '"true" | "false"',
  null: '"null"',
  array: '"[" ws ("]" | value array_rest)',
  array_rest: 'ws "]" | "," ws value array_rest',
  object: '"{" ws ("}" | string colon value object_rest)',
  object_rest: 'ws "}" | "," ws string colon value object_rest',
  value: 'object | array | string | number | boolean | null',
};

/** What stands in a JSON string behind a backslash only. */
const NO_PLAIN: readonly Span[] = [[0, 0x1f], [0x22, 0x22], [0x5c, 0x5c]];

export function addJsonRules(rules: Rules): void {
  for (const [name, body] of Object.entries(JSON_RULES)) rules.set(name, body);
}

/** What stands for exactly this value. */
export function jsonLiteral(value: unknown): string {
  return literal(JSON.stringify(value));
}

/**
 * A string of `least` to `most` characters: a rule for each that is left, the same for every string of the grammar.
 * @returns the rule.
 */
export function boundedString(rules: Rules, least: number, most: number | null): string {
  const name = `string_${least}_${most ?? 'any'}`;
  if (!rules.has(name)) rules.set(name, `"\\"" ${charsOf(rules, least, most)}`);
  return name;
}

function charsOf(rules: Rules, least: number, most: number | null): string {
  if (most === null && least === 0) return 'string_rest';
  // From the end, so that each rule finds the next one there.
  let next = most === null ? 'string_rest' : 'chars_0';
  if (most !== null && !rules.has(next)) rules.set(next, '"\\""');
  for (let left = 1; most !== null && left <= most - least; left++) {
    const name = `chars_${left}`;
    if (!rules.has(name)) rules.set(name, `"\\"" | [^"\\\\\\x00-\\x1f] ${next} | "\\\\" escape ${next}`);
    next = name;
  }
  const tail = next;
  for (let missing = 1; missing <= least; missing++) {
    const name = `more_${missing}_${tail}`;
    if (!rules.has(name)) rules.set(name, `[^"\\\\\\x00-\\x1f] ${next} | "\\\\" escape ${next}`);
    next = name;
  }
  return next;
}

/**
 * A list of `least` to `most` of these values, none of them twice: a rule for every set that may be there already.
 * @param literals of distinct values.
 * @returns the rule.
 */
export function distinctArray(rules: Rules, literals: readonly string[], least: number, most: number): string {
  const after = new Map<number, string>();
  const rest = (seen: number, count: number): string => {
    const known = after.get(seen);
    if (known !== undefined) return known;
    const more = count < most ? literals.flatMap((text, i) => ((seen >> i) & 1) === 1 ? [] : [`"," ws ${text} ${rest(seen | (1 << i), count + 1)}`]) : [];
    const name = rules.add('items', [...(count >= least ? ['ws "]"'] : []), ...more].join(' | '));
    after.set(seen, name);
    return name;
  };
  const first = most === 0 ? [] : literals.map((text, i) => `${text} ${rest(1 << i, 1)}`);
  return rules.add('array', `"[" ws (${[...(least === 0 ? ['"]"'] : []), ...first].join(' | ')})`);
}

/** A key that is none of `taken`. It has no escapes, or one could spell a taken one. */
export function otherKey(rules: Rules, taken: readonly string[]): string {
  if (taken.length === 0) return 'string';
  const name = rules.fresh('key');
  const spelled = taken.filter((key) => !/["\\\u0000-\u001f]/.test(key)).map((key) => [...key]);
  rules.set(name, `"\\"" ${keyRest(rules, spelled, 0)}`);
  return name;
}

/** @param taken keys that begin alike, up to `at`. */
function keyRest(rules: Rules, taken: readonly (readonly string[])[], at: number): string {
  const byChar = new Map<string, (readonly string[])[]>();
  for (const key of taken) {
    const char = key[at];
    if (char === undefined) continue;
    const alike = byChar.get(char);
    if (alike === undefined) byChar.set(char, [key]);
    else alike.push(key);
  }
  const steps = [...byChar].map(([char, alike]) => `${literal(char)} ${keyRest(rules, alike, at + 1)}`);
  const others = classOf(without([...NO_PLAIN, ...[...byChar.keys()].map(spanOf)]));
  const end = taken.some((key) => key.length === at) ? [] : ['"\\""'];
  return rules.add('key', [...end, ...steps, `${others} plain_rest`].join(' | '));
}
