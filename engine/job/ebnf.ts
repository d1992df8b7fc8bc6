/** Rules of a context-free grammar in xgrammar's EBNF: written once each, by name, and bounded. Text in, text out; no library. */
import { LIMITS } from '../core/limits.ts';
import { classOf, spanOf, without } from './characters.ts';

/** A body that says what text may be; names of rules in it are rules of the same grammar. */
export class Rules {
  readonly #bodies = new Map<string, string>();
  #chars = 0;
  #names = 0;
  readonly #tooLarge: () => Error;

  /** @param tooLarge what is thrown when the grammar has more than LIMITS.GRAMMAR_CHARS_MAX characters. */
  constructor(tooLarge: () => Error) {
    this.#tooLarge = tooLarge;
  }

  has(name: string): boolean {
    return this.#bodies.has(name);
  }

  set(name: string, body: string): string {
    this.#chars += name.length + body.length;
    if (this.#chars > LIMITS.GRAMMAR_CHARS_MAX) throw this.#tooLarge();
    this.#bodies.set(name, body);
    return name;
  }

  /** A name that no rule has. */
  fresh(prefix: string): string {
    return `${prefix}_${this.#names++}`;
  }

  add(prefix: string, body: string): string {
    return this.set(this.fresh(prefix), body);
  }

  text(): string {
    return [...this.#bodies].map(([name, body]) => `${name} ::= ${body}\n`).join('');
  }
}

/** Exactly this text. Control characters as four digits: xgrammar's \\x takes as many as follow. */
export function literal(text: string): string {
  let out = '';
  for (const char of text) {
    const code = char.codePointAt(0) ?? 0;
    out += char === '"' || char === '\\' ? `\\${char}` : code < 0x20 || code === 0x7f ? `\\u${code.toString(16).padStart(4, '0')}` : char;
  }
  return `"${out}"`;
}

/**
 * Any text that ends at its first `delimiter`, and then `next`: a machine with a state for each character of it that has been matched.
 * @returns the rule to begin with.
 */
export function textUntil(rules: Rules, delimiter: string, next: string): string {
  const chars = [...delimiter];
  const distinct = [...new Set(chars)];
  const states = chars.map(() => rules.fresh('until'));
  for (const [matched, state] of states.entries()) {
    const to = (length: number) => (length === chars.length ? next : states[length] ?? '');
    const known = distinct.map((char) => `${literal(char)} ${to(overlapOf(chars, [...chars.slice(0, matched), char]))}`);
    rules.set(state, [...known, `${classOf(without(distinct.map(spanOf)))} ${to(0)}`].join(' | '));
  }
  return states[0] ?? next;
}

/** How much of the beginning of `chars` the end of `seen` is. */
function overlapOf(chars: readonly string[], seen: readonly string[]): number {
  for (let length = Math.min(chars.length, seen.length); length > 0; length--) {
    if (chars.slice(0, length).every((char, i) => char === seen[seen.length - length + i])) return length;
  }
  return 0;
}
