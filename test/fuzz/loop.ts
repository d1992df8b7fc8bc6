/**
 * The process that scripts/fuzz.mjs starts, and watches from outside: it tries inputs on one target, keeps those that run code none
 * before them ran, and makes new ones of these. An input lies in the `current` file before it is tried, so that whatever ends this
 * process, it is known.
 *
 * Not Jazzer.js: its addon is built for glibc 2.38 and later, Debian 12 has 2.36. Not jsfuzz: its instrumenter does not parse this
 * decade's JavaScript.
 */
import { createHash } from 'node:crypto';
import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { Coverage } from './coverage.ts';
import { Random, mutated, wordsOf } from './mutate.ts';

const BYTES_MAX = 16_384;

interface Options {
  /** The target as one CommonJS file that exports `fuzz`. */
  readonly bundle: string;
  /** Committed inputs. */
  readonly corpus: string;
  /** Inputs of earlier runs; new ones are added. */
  readonly found: string;
  readonly dictionary: string;
  readonly current: string;
  readonly seconds: number;
  readonly seed: number;
  /** Instead of making new inputs: replaces the committed ones by those of both that are needed for the same coverage. */
  readonly merge: boolean;
}

// The library warns of a pattern that it does not know; thousands a minute say nothing.
console.warn = () => {};

const options = JSON.parse(process.argv[2] ?? '') as Options;
const coverage = new Coverage(options.bundle);
const { fuzz } = createRequire(options.bundle)(options.bundle) as { readonly fuzz: (data: Uint8Array) => void };
// Loading runs the libraries' tables: no input's doing.
coverage.grew();
const [loadedFunctions, loadedChars] = [coverage.calledFunctions, coverage.ranChars];
const current = openSync(options.current, 'w');

/** The inputs that each ran something new, in the order they were found. */
const kept: Buffer[] = [];
let tried = 0;

function attempt(input: Buffer): boolean {
  ftruncateSync(current);
  writeSync(current, input, 0, input.length, 0);
  tried++;
  fuzz(input);
  if (!coverage.grew()) return false;
  kept.push(input);
  return true;
}

const inputsOf = (directory: string) => readdirSync(directory).map((name) => readFileSync(join(directory, name)));
const nameOf = (input: Buffer) => createHash('sha1').update(input).digest('hex');

function says(what: string): void {
  const [functions, chars] = [coverage.calledFunctions - loadedFunctions, coverage.ranChars - loadedChars];
  process.stdout.write(`${what}: ${tried} executions, ${kept.length} inputs kept, ${functions} functions and ${chars} characters of code reached\n`);
}

// The small ones first: of two inputs that run the same code the smaller is kept.
const known = [...inputsOf(options.corpus), ...inputsOf(options.found)].sort((a, b) => a.length - b.length);
for (const input of [Buffer.alloc(0), ...known]) attempt(input.subarray(0, BYTES_MAX));
says('corpus');

if (options.merge) {
  rmSync(options.corpus, { recursive: true });
  mkdirSync(options.corpus);
  for (const input of kept) writeFileSync(join(options.corpus, nameOf(input)), input);
} else {
  const random = new Random(options.seed);
  const words = wordsOf(readFileSync(options.dictionary, 'utf8'));
  const start = performance.now();
  for (let said = 0; performance.now() - start < options.seconds * 1_000; ) {
    // Half of the time one of the newest: where there was something new there is more.
    const newest = random.below(2) === 0 ? kept.slice(-8) : kept;
    const input = mutated(random.of(newest), random.of(kept), words, random, BYTES_MAX);
    if (attempt(input)) writeFileSync(join(options.found, nameOf(input)), input);
    const tens = Math.floor((performance.now() - start) / 10_000);
    if (tens > said) says(`${(said = tens) * 10} s`);
  }
}
closeSync(current);
says('done');
