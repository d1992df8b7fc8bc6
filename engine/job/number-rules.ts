/** Numbers within bounds, and texts of a format, as bodies of rules. */
import { LIMITS } from '../core/limits.ts';

/** What 15 digits write; a double holds each of them. */
const MAGNITUDE_MAX = 999_999_999_999_999;

/** Whole bounds; `open`: the bound itself is not allowed. */
export interface Bounds {
  readonly least: number;
  readonly leastOpen: boolean;
  readonly most: number;
  readonly mostOpen: boolean;
}

/** null: no number is within them. */
export function integerBody({ least, leastOpen, most, mostOpen }: Bounds): string | null {
  const from = Math.max(-MAGNITUDE_MAX, leastOpen ? least + 1 : least);
  const to = Math.min(MAGNITUDE_MAX, mostOpen ? most - 1 : most);
  if (from > to) return null;
  const negative = from < 0 ? [`"-" (${digits(Math.max(1, -to), -from)})`] : [];
  const positive = to >= 0 ? [digits(Math.max(0, from), to)] : [];
  return [...negative, ...positive].join(' | ') || null;
}

/** null: there is none; undefined: there are too many to be written out. */
export function multiplesBody({ least, most }: Bounds, divisor: number): string | null | undefined {
  if (least === -Infinity && most === Infinity) {
    const zeros = Math.log10(divisor);
    return [1, 2, 3].includes(zeros) ? `"0" | "-"? [1-9] [0-9]{0,${14 - zeros}} "${'0'.repeat(zeros)}"` : undefined;
  }
  const [from, to] = [Math.ceil(least / divisor), Math.floor(most / divisor)];
  if (!(to - from < LIMITS.SCHEMA_MULTIPLES_MAX)) return undefined;
  // Without the sign of a zero.
  return from > to ? null : Array.from({ length: to - from + 1 }, (_, i) => `"${(from + i) * divisor + 0}"`).join(' | ');
}

/** With a fraction of up to 15 digits, without an exponent. null: no number is within them. */
export function numberBody({ least, leastOpen, most, mostOpen }: Bounds): string | null {
  // A negative number is the magnitude of a positive one; zero is written without a sign.
  const negative = least < 0 ? magnitudes(Math.max(0, -most), most >= 0 || mostOpen, -least, leastOpen) : null;
  const positive = most >= 0 ? magnitudes(Math.max(0, least), least >= 0 && leastOpen, most, mostOpen) : null;
  return [...(negative === null ? [] : [`"-" (${negative})`]), ...(positive === null ? [] : [positive])].join(' | ') || null;
}

function magnitudes(from: number, fromOpen: boolean, most: number, mostOpen: boolean): string | null {
  const capped = most > MAGNITUDE_MAX;
  const to = capped ? MAGNITUDE_MAX : most;
  // Between two whole numbers any fraction will do; the upper one has none.
  const whole = capped ? to : to - 1;
  const first = fromOpen ? from + 1 : from;
  const parts = [
    ...(fromOpen && from <= whole ? [`"${from}" "." [0-9]{0,14} [1-9]`] : []),
    ...(first <= whole ? [`(${digits(first, whole)}) ("." [0-9]{1,15})?`] : []),
    ...(!capped && !mostOpen && first <= to ? [`"${to}"`] : []),
  ];
  return parts.length === 0 ? null : parts.join(' | ');
}

/** The decimal numbers from `from` to `to`, both at least 0. */
function digits(from: number, to: number): string {
  const parts: string[] = [];
  for (let length = String(from).length; length <= String(to).length; length++) {
    const low = Math.max(from, length === 1 ? 0 : 10 ** (length - 1));
    const high = Math.min(to, 10 ** length - 1);
    if (low <= high) parts.push(between(String(low), String(high)));
  }
  return parts.join(' | ');
}

/** Of the same length. */
function between(low: string, high: string): string {
  if (low === '') return '""';
  const [a = '', b = ''] = [low[0], high[0]];
  const [lowRest, highRest] = [low.slice(1), high.slice(1)];
  const free = lowRest === '' ? '' : ` [0-9]{${lowRest.length}}`;
  if (a === b) return lowRest === '' ? `"${a}"` : `"${a}" (${between(lowRest, highRest)})`;
  const isLowFree = /^0*$/.test(lowRest);
  const isHighFree = /^9*$/.test(highRest);
  const first = isLowFree ? Number(a) : Number(a) + 1;
  const last = isHighFree ? Number(b) : Number(b) - 1;
  return [
    ...(isLowFree ? [] : [`"${a}" (${between(lowRest, '9'.repeat(lowRest.length))})`]),
    ...(first <= last ? [`[${first}-${last}]${free}`] : []),
    ...(isHighFree ? [] : [`"${b}" (${between('0'.repeat(highRest.length), highRest)})`]),
  ].join(' | ');
}

const DAY = '(("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01]) | ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30") | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8]))';
const DATE = `[0-9]{4} "-" ${DAY}`;
const TIME = '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,9})? ("Z" | [+-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])';
const BYTE = '("25" [0-5] | "2" [0-4] [0-9] | "1" [0-9]{2} | [1-9]? [0-9])';
const LABEL = '[a-z0-9] ("-"? [a-z0-9]){0,30}';
const HEX = '[0-9a-f]';

/** JSON Schema's formats that can be kept, each a subset of what it allows, in a string. */
export const FORMATS: Readonly<Record<string, string>> = {
  date: DATE,
  time: TIME,
  'date-time': `${DATE} "T" ${TIME}`,
  duration: '"P" ([0-9]{1,4} "D" | ([0-9]{1,4} "D")? "T" ([0-9]{1,4} "H" ([0-9]{1,4} "M")? | [0-9]{1,4} "M" | [0-9]{1,4} "S"))',
  email: `[A-Za-z0-9] ([._+-]? [A-Za-z0-9]){0,31} "@" ${LABEL} ("." ${LABEL}){0,3} "." [a-z]{2,12}`,
  hostname: `${LABEL} ("." ${LABEL}){0,3}`,
  ipv4: `${BYTE} "." ${BYTE} "." ${BYTE} "." ${BYTE}`,
  ipv6: `[0-9a-f]{1,4} (":" [0-9a-f]{1,4}){7}`,
  uuid: `${HEX}{8} "-" ${HEX}{4} "-" [1-8] ${HEX}{3} "-" [89ab] ${HEX}{3} "-" ${HEX}{12}`,
};
