/**
 * A JSON Schema's `pattern` as the body of a rule, inside the quotes of a JSON string. ECMAScript's regular expressions, but for what no rule can
 * say (back references, looking ahead and behind, word boundaries) and for classes of Unicode by name. Characters are written as JSON.stringify
 * does. https://json-schema.org/draft/2020-12/json-schema-validation#name-pattern
 */
import { LIMITS } from '../core/limits.ts';
import { type Span, classOf, has, joined, minus, spanOf, without } from './characters.ts';
import { type Rules, literal } from './ebnf.ts';

type Node =
  | { readonly kind: 'chars'; readonly spans: readonly Span[] }
  | { readonly kind: 'sequence'; readonly nodes: readonly Node[] }
  | { readonly kind: 'choice'; readonly nodes: readonly Node[] }
  | { readonly kind: 'repeat'; readonly node: Node; readonly least: number; readonly most: number | null }
  | { readonly kind: 'begin' | 'end' };

/** Why a pattern cannot be kept, to come after its place in the schema. */
export class PatternRefusal extends Error {}

export interface PatternRule {
  /** Without the quotes around it. */
  readonly body: string;
  /** Characters of what it matches, whole; null: any number. */
  readonly least: number;
  readonly most: number | null;
}

/** @throws PatternRefusal */
export function patternRule(rules: Rules, pattern: string): PatternRule {
  if (pattern.length > LIMITS.SCHEMA_PATTERN_CHARS_MAX) throw new PatternRefusal(`must have at most ${LIMITS.SCHEMA_PATTERN_CHARS_MAX} characters`);
  try {
    new RegExp(pattern, 'u');
  } catch {
    throw new PatternRefusal('must be a regular expression of ECMAScript');
  }
  const parsed = new Parser(pattern).parse();
  const whole = choiceOf(alternativesOf(parsed).map(wholeOf));
  const { least, most, size } = measure(whole);
  if (size > LIMITS.SCHEMA_PATTERN_PARTS_MAX) throw new PatternRefusal('repeats too much');
  return { body: write(rules, whole), least, most };
}

const LAST = 0x10ffff;
const DIGITS: readonly Span[] = [[0x30, 0x39]];
const WORD: readonly Span[] = [[0x30, 0x39], [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]];
const SPACE: readonly Span[] = [[0x09, 0x0d], [0x20, 0x20], [0xa0, 0xa0], [0x1680, 0x1680], [0x2000, 0x200a], [0x2028, 0x2029], [0x202f, 0x202f], [0x205f, 0x205f], [0x3000, 0x3000], [0xfeff, 0xfeff]];
const LINE_ENDS: readonly Span[] = [[0x0a, 0x0a], [0x0d, 0x0d], [0x2028, 0x2029]];
const ANY: Node = { kind: 'repeat', node: { kind: 'chars', spans: [[0, LAST]] }, least: 0, most: null };
const CLASSES: Readonly<Record<string, readonly Span[]>> = { d: DIGITS, w: WORD, s: SPACE, D: without(DIGITS), W: without(WORD), S: without(SPACE) };
/** In a JSON string they stand behind a backslash. */
const ESCAPED = [...Array.from({ length: 0x20 }, (_, code) => code), 0x22, 0x5c];
const ESCAPED_SPANS: readonly Span[] = [[0, 0x1f], [0x22, 0x22], [0x5c, 0x5c]];
const CONTROLS: Readonly<Record<string, number>> = { t: 9, n: 10, v: 11, f: 12, r: 13, 0: 0 };

/** Of an expression that RegExp has taken. */
class Parser {
  readonly #chars: readonly string[];
  #at = 0;

  constructor(pattern: string) {
    this.#chars = [...pattern];
  }

  parse(): Node {
    return this.#choice();
  }

  #choice(): Node {
    const nodes = [this.#sequence()];
    while (this.#takes('|')) nodes.push(this.#sequence());
    return choiceOf(nodes);
  }

  #sequence(): Node {
    const nodes: Node[] = [];
    for (let next = this.#peek(); next !== undefined && next !== '|' && next !== ')'; next = this.#peek()) nodes.push(this.#repeated(this.#atom()));
    return nodes.length === 1 && nodes[0] !== undefined ? nodes[0] : { kind: 'sequence', nodes };
  }

  #repeated(node: Node): Node {
    const [least, most] = this.#quantifier() ?? [1, 1];
    if (least === 1 && most === 1) return node;
    // Which of several ways is tried first is nothing to a grammar.
    this.#takes('?');
    if (most === null && measure(node).least === 0) throw new PatternRefusal('repeats what may be empty, which is not supported');
    return { kind: 'repeat', node, least, most };
  }

  #quantifier(): readonly [number, number | null] | null {
    if (this.#takes('*')) return [0, null];
    if (this.#takes('+')) return [1, null];
    if (this.#takes('?')) return [0, 1];
    if (!this.#takes('{')) return null;
    const [least = '', most = least] = this.#until('}').split(',');
    const bounds = [Number(least), most === '' ? null : Number(most)] as const;
    if (Math.max(bounds[0], bounds[1] ?? 0) > LIMITS.SCHEMA_CHARS_MAX) throw new PatternRefusal(`repeats something more than ${LIMITS.SCHEMA_CHARS_MAX} times`);
    return bounds;
  }

  #atom(): Node {
    const char = this.#next();
    switch (char) {
      case '^': return { kind: 'begin' };
      case '$': return { kind: 'end' };
      case '.': return { kind: 'chars', spans: without(LINE_ENDS) };
      case '[': return { kind: 'chars', spans: this.#class() };
      case '(': return this.#group();
      case '\\': return { kind: 'chars', spans: this.#escape() };
      default: return { kind: 'chars', spans: [spanOf(char)] };
    }
  }

  #group(): Node {
    if (this.#takes('?') && !this.#takes(':')) {
      if (!this.#takes('<') || this.#peek() === '=' || this.#peek() === '!') throw new PatternRefusal('looks ahead or behind, which is not supported');
      this.#until('>');
    }
    const inside = this.#choice();
    this.#takes(')');
    return inside;
  }

  #class(): readonly Span[] {
    const isNegated = this.#takes('^');
    const spans: Span[] = [];
    while (!this.#takes(']')) {
      const first = this.#classPart();
      const [from] = first[0] ?? [0];
      // Between two characters; before the end it is a character itself.
      if (first.length === 1 && this.#peek() === '-' && this.#chars[this.#at + 1] !== ']') {
        this.#next();
        spans.push([from, this.#classPart()[0]?.[1] ?? from]);
      } else {
        spans.push(...first);
      }
    }
    return isNegated ? without(spans) : joined(spans);
  }

  #classPart(): readonly Span[] {
    const char = this.#next();
    if (char !== '\\') return [spanOf(char)];
    return this.#takes('b') ? [[8, 8]] : this.#escape();
  }

  #escape(): readonly Span[] {
    const char = this.#next();
    if (Object.hasOwn(CLASSES, char)) return CLASSES[char] ?? [];
    if (Object.hasOwn(CONTROLS, char)) return [[CONTROLS[char] ?? 0, CONTROLS[char] ?? 0]];
    if (char === 'x') return this.#code(this.#take(2));
    if (char === 'u') return this.#code(this.#takes('{') ? this.#until('}') : this.#take(4));
    if (char === 'c') return [[this.#next().charCodeAt(0) % 32, (this.#chars[this.#at - 1] ?? '').charCodeAt(0) % 32]];
    if (/[a-zA-Z0-9]/.test(char)) throw new PatternRefusal(`has \\${char}, which is not supported`);
    return [spanOf(char)];
  }

  #code(hex: string): readonly Span[] {
    const code = Number.parseInt(hex, 16);
    if (code >= 0xd800 && code <= 0xdfff) throw new PatternRefusal('has half of a surrogate pair: write the character');
    return [[code, code]];
  }

  #peek(): string | undefined {
    return this.#chars[this.#at];
  }

  #next(): string {
    return this.#chars[this.#at++] ?? '';
  }

  #takes(char: string): boolean {
    if (this.#peek() !== char) return false;
    this.#at += 1;
    return true;
  }

  #take(count: number): string {
    this.#at += count;
    return this.#chars.slice(this.#at - count, this.#at).join('');
  }

  #until(end: string): string {
    const from = this.#at;
    while (this.#next() !== end && this.#at < this.#chars.length);
    return this.#chars.slice(from, this.#at - 1).join('');
  }
}

/** What may be before and after an alternative that is not held at its ends. */
function wholeOf(node: Node): Node {
  const nodes = node.kind === 'sequence' ? [...node.nodes] : [node];
  const isHeld = { begin: false, end: false };
  while (nodes[0]?.kind === 'begin') isHeld.begin = nodes.shift() !== undefined;
  while (nodes.at(-1)?.kind === 'end') isHeld.end = nodes.pop() !== undefined;
  return { kind: 'sequence', nodes: [...(isHeld.begin ? [] : [ANY]), ...nodes, ...(isHeld.end ? [] : [ANY])] };
}

function alternativesOf(node: Node): readonly Node[] {
  return node.kind === 'choice' ? node.nodes.flatMap(alternativesOf) : [node];
}

function choiceOf(nodes: readonly Node[]): Node {
  return nodes.length === 1 && nodes[0] !== undefined ? nodes[0] : { kind: 'choice', nodes };
}

interface Measure {
  readonly least: number;
  readonly most: number | null;
  /** Parts, with each repetition that has an end written out. */
  readonly size: number;
}

function measure(node: Node): Measure {
  switch (node.kind) {
    case 'chars': return { least: 1, most: 1, size: 1 };
    case 'begin':
    case 'end': return { least: 0, most: 0, size: 1 };
    case 'sequence': return node.nodes.map(measure).reduce((a, b) => ({ least: a.least + b.least, most: a.most === null || b.most === null ? null : a.most + b.most, size: a.size + b.size }), { least: 0, most: 0, size: 0 });
    case 'choice': {
      const all = node.nodes.map(measure);
      return { least: Math.min(...all.map(({ least }) => least)), most: all.some(({ most }) => most === null) ? null : Math.max(...all.map(({ most }) => most ?? 0)), size: all.reduce((sum, { size }) => sum + size, 0) };
    }
    case 'repeat': {
      const { least, most, size } = measure(node.node);
      return { least: least * node.least, most: most === 0 ? 0 : most === null || node.most === null ? null : most * node.most, size: size * Math.max(1, node.least, node.most ?? 0) };
    }
  }
}

function write(rules: Rules, node: Node): string {
  switch (node.kind) {
    case 'chars': return classRule(rules, node.spans);
    case 'begin':
    case 'end': throw new PatternRefusal('has an anchor within, which is not supported: ^ and $ begin and end the whole or an alternative');
    case 'sequence': return node.nodes.length === 0 ? '""' : node.nodes.map((one) => write(rules, one)).join(' ');
    case 'choice': return `(${node.nodes.map((one) => write(rules, one)).join(' | ')})`;
    case 'repeat': {
      const { least, most } = node;
      const times = most === null ? (least === 0 ? '*' : least === 1 ? '+' : `{${least},}`) : least === 0 && most === 1 ? '?' : least === most ? `{${least}}` : `{${least},${most}}`;
      return most === 0 ? '""' : `(${write(rules, node.node)})${times}`;
    }
  }
}

const SHORT_CHARS = 48;

/** A long one is a rule, which all patterns of the grammar share. */
function classRule(rules: Rules, spans: readonly Span[]): string {
  const name = `class_${spans.map(([from, to]) => `${from.toString(36)}_${to.toString(36)}`).join('_')}`;
  if (rules.has(name)) return name;
  const body = writeChars(spans);
  return body.length <= SHORT_CHARS || name.length > SHORT_CHARS * 4 ? body : rules.set(name, body);
}

/** Of the characters that JSON writes with a backslash, a class that names almost everything has the common ones. */
function writeChars(spans: readonly Span[]): string {
  const all = joined(spans);
  if (all.length === 0) throw new PatternRefusal('has a class without a character');
  const isWide = has(all, LAST);
  const written = ESCAPED.filter((code) => has(all, code)).map((code) => JSON.stringify(String.fromCodePoint(code)).slice(1, -1));
  const plain = minus(all, ESCAPED_SPANS);
  const parts = [...(plain.length === 0 ? [] : [classOf(plain)]), ...written.filter((text) => !isWide || !text.startsWith('\\u')).map(literal)];
  return parts.length === 1 ? parts[0] ?? '' : `(${parts.join(' | ')})`;
}
