/** One input from others, as libFuzzer makes them: bytes and numbers changed, ranges erased, copied, moved between inputs, words put in. */

/** A seeded sequence (mulberry32): a run can be had again. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed;
  }
  /** An integer from 0 to n - 1. */
  below(n: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * n);
  }
  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
}

/** Where words of JSON, Jinja and lists end: a range that is cut here leaves more that still parses. */
const MARKS = new Set(Buffer.from('\0\n"{}[],:%|()'));
const NUMBERS = ['0', '1', '-1', '255', '256', '65536', '4194303', '4194304', '2147483648', '9007199254740993', '1e300', '0.5'];

export function mutated(input: Buffer, other: Buffer, words: readonly Buffer[], random: Random, bytesMax: number): Buffer {
  let bytes = input;
  for (let n = 1 + random.below(4); n > 0; n--) bytes = once(bytes, other, words, random);
  return bytes.subarray(0, bytesMax);
}

function once(bytes: Buffer, other: Buffer, words: readonly Buffer[], random: Random): Buffer {
  const [from, to] = rangeOf(bytes, random);
  switch (random.below(9)) {
    case 0: {
      const copy = Buffer.from(bytes);
      if (copy.length > 0) copy[random.below(copy.length)] = random.below(256);
      return copy;
    }
    case 1:
      return replaced(bytes, from, to, '');
    case 2: {
      const [start, end] = rangeOf(bytes, random);
      return replaced(bytes, from, from, bytes.subarray(start, end));
    }
    case 3: {
      const [start, end] = rangeOf(bytes, random);
      return replaced(bytes, from, to, bytes.subarray(start, end));
    }
    case 4: {
      const [start, end] = rangeOf(other, random);
      return replaced(bytes, from, to, other.subarray(start, end));
    }
    case 5:
      return replaced(bytes, from, from, word(words, random));
    case 6:
      return replaced(bytes, from, to, word(words, random));
    case 7: {
      const [start, end] = rangeOf(bytes, random);
      const some = bytes.subarray(start, end);
      // Doubling is how a short input asks for much work.
      return replaced(bytes, start, end, Buffer.concat(Array<Buffer>(1 + random.below(16)).fill(some)));
    }
    default:
      return withNumber(bytes, random);
  }
}

const word = (words: readonly Buffer[], random: Random) => (words.length === 0 ? Buffer.from([random.below(256)]) : random.of(words));

function replaced(bytes: Buffer, from: number, to: number, by: Buffer | string): Buffer {
  return Buffer.concat([bytes.subarray(0, from), typeof by === 'string' ? Buffer.from(by) : by, bytes.subarray(to)]);
}

/** [from, to): any, or from one mark to another nearby. */
function rangeOf(bytes: Buffer, random: Random): readonly [number, number] {
  let from = random.below(bytes.length + 1);
  if (random.below(3) === 0) return [from, Math.min(bytes.length, from + random.below(24))];
  while (from < bytes.length && !MARKS.has(bytes[from] as number)) from++;
  let to = from;
  for (let marks = 1 + random.below(8); marks > 0 && to < bytes.length; marks--) {
    to++;
    while (to < bytes.length && !MARKS.has(bytes[to] as number)) to++;
  }
  // With the marks, or without: a string with its quotes, or what is in them.
  return random.below(2) === 0 ? [from, Math.min(bytes.length, to + 1)] : [Math.min(from + 1, to), to];
}

function withNumber(bytes: Buffer, random: Random): Buffer {
  const isDigit = (at: number) => at < bytes.length && (bytes[at] as number) >= 0x30 && (bytes[at] as number) <= 0x39;
  let from = random.below(bytes.length + 1);
  while (from < bytes.length && !isDigit(from)) from++;
  let to = from;
  while (isDigit(to)) to++;
  return to === from ? bytes : replaced(bytes, from, to, random.of(NUMBERS));
}

/** The words of a libFuzzer dictionary: `"…"` a line, with \xAB, \\ and \" in it. */
export function wordsOf(dictionary: string): readonly Buffer[] {
  return dictionary.split('\n').filter((line) => line.startsWith('"')).map((line) => {
    const text = line.slice(1, line.lastIndexOf('"'));
    return Buffer.concat(text.split(/(\\x[0-9a-fA-F]{2}|\\\\|\\")/).map((part) => {
      if (/^\\x../.test(part)) return Buffer.from([Number.parseInt(part.slice(2), 16)]);
      return Buffer.from(part === '\\\\' || part === '\\"' ? part.slice(1) : part);
    }));
  });
}
