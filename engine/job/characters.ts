/**
 * Sets of characters as xgrammar's EBNF has them. Its classes are of bytes: one that leaves out a character beyond ASCII leaves out nothing, and
 * one that names some matches none of them. So beyond ASCII a set is written as the bytes of UTF-8 (RFC 3629), unless it is all of it.
 */

/** Code points from one to another, both included. */
export type Span = readonly [from: number, to: number];

const LAST = 0x10ffff;
const SURROGATES: Span = [0xd800, 0xdfff];
const ASCII: Span = [0, 0x7f];
/** Where UTF-8 takes a byte more. */
const LENGTHS: readonly Span[] = [[0x80, 0x7ff], [0x800, 0xffff], [0x10000, LAST]];
/** No byte of UTF-8: a class of one byte is taken for a character, and with this one beside it is not. */
const NO_BYTE = '\\xff';

export function spanOf(char: string): Span {
  const code = char.codePointAt(0) ?? 0;
  return [code, code];
}

/** In order, without gaps between those that touch. */
export function joined(spans: readonly Span[]): readonly Span[] {
  const out: [number, number][] = [];
  for (const [from, to] of spans.toSorted(([a], [b]) => a - b)) {
    const last = out.at(-1);
    if (last !== undefined && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else out.push([from, to]);
  }
  return out;
}

/** All characters but these. */
export function without(spans: readonly Span[]): readonly Span[] {
  return minus([[0, LAST]], spans);
}

export function minus(spans: readonly Span[], taken: readonly Span[]): readonly Span[] {
  return taken.reduce<readonly Span[]>((left, [from, to]) => left.flatMap(([a, b]): Span[] => {
    if (to < a || from > b) return [[a, b]];
    return [...(a < from ? [[a, from - 1] as Span] : []), ...(to < b ? [[to + 1, b] as Span] : [])];
  }), joined(spans));
}

export function has(spans: readonly Span[], code: number): boolean {
  return spans.some(([from, to]) => from <= code && code <= to);
}

/** One of these characters. */
export function classOf(spans: readonly Span[]): string {
  const all = minus(spans, [SURROGATES]);
  const ascii = minus(all, [[ASCII[1] + 1, LAST]]);
  const beyond = minus(all, [ASCII]);
  const missing = minus(without([ASCII, SURROGATES]), beyond);
  if (missing.length === 0) return `[^${minus([ASCII], ascii).map(asciiSpan).join('')}]`;
  const parts = ascii.length === 0 ? [] : [`[${ascii.map(asciiSpan).join('')}]`];
  for (const span of beyond) for (const [from, to] of LENGTHS) parts.push(...sequences(Math.max(span[0], from), Math.min(span[1], to)));
  return parts.length === 1 ? parts[0] ?? '' : `(${parts.join(' | ')})`;
}

function asciiSpan([from, to]: Span): string {
  const char = (code: number) => (code < 0x20 || code === 0x7f ? `\\u${code.toString(16).padStart(4, '0')}` : inClass(String.fromCharCode(code)));
  return from === to ? char(from) : `${char(from)}-${char(to)}`;
}

/** Inside `[…]`. */
export function inClass(char: string): string {
  return /[\]\\^-]/.test(char) ? `\\${char}` : char;
}

/** The bytes of code points of one length, as sequences of classes: split until every byte but the first that differs may be anything. */
function sequences(from: number, to: number): readonly string[] {
  if (from > to) return [];
  const [low, high] = [bytesOf(from), bytesOf(to)];
  const at = low.findIndex((byte, i) => byte !== high[i]);
  for (let tail = low.length - 1; tail > at && at >= 0; tail--) {
    // 6 bits a byte.
    const block = 64 ** (low.length - tail);
    const [first, last] = [Math.ceil(from / block) * block, Math.floor((to + 1) / block) * block - 1];
    if (from !== first) return [...sequences(from, Math.min(to, first - 1)), ...sequences(first, to)];
    if (to !== last) return [...sequences(from, last), ...sequences(last + 1, to)];
  }
  return [low.map((byte, i) => byteSpan(byte, high[i] ?? byte)).join(' ')];
}

function byteSpan(from: number, to: number): string {
  const byte = (code: number) => `\\x${code.toString(16)}`;
  return from === to ? `[${byte(from)}${NO_BYTE}]` : `[${byte(from)}-${byte(to)}]`;
}

function bytesOf(code: number): readonly number[] {
  return [...new TextEncoder().encode(String.fromCodePoint(code))];
}
