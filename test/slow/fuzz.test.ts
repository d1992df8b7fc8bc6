/** The fuzzer of test/fuzz on targets with something planted in them: what it says it would find, it finds. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
/** The seed decides what is tried: how long it takes is the machine's, and a fault that is found ends it. */
const SECONDS = 300;

interface Fuzzed {
  readonly clean: boolean;
  readonly output: string;
}
type FuzzTarget = (target: string, seconds: number, options: { readonly seed: number; readonly sources: string }) => Promise<Fuzzed>;

let fuzzTarget: FuzzTarget;
let sources: string;
beforeAll(async () => {
  ({ fuzzTarget } = (await import(pathToFileURL(path.join(ROOT, 'scripts', 'fuzz.mjs')).href)) as { fuzzTarget: FuzzTarget });
  sources = mkdtempSync(path.join(tmpdir(), 'ruminate-fuzz-'));
});
afterAll(() => rmSync(sources, { recursive: true, force: true }));

async function fuzz(name: string, body: string, { seconds = SECONDS, words = '' } = {}): Promise<Fuzzed> {
  mkdirSync(path.join(sources, 'corpus', name), { recursive: true });
  writeFileSync(path.join(sources, 'corpus', name, 'seed'), 'aaaa');
  writeFileSync(path.join(sources, `${name}.dict`), words);
  writeFileSync(path.join(sources, `${name}_fuzz.ts`), `export function fuzz(data: Uint8Array): void {\n${body}\n}\n`);
  rmSync(path.join(ROOT, 'build', 'fuzz', 'js', name), { recursive: true, force: true });
  return await fuzzTarget(name, seconds, { seed: 1, sources });
}

const found = ({ output }: Fuzzed) => readFileSync(path.join(ROOT, /the input is (\S+),/.exec(output)?.[1] ?? 'nothing'));

test('an exception behind four bytes, which chance alone meets once in 2^32 inputs, is found step by step', async () => {
  const steps = [...'FUZZ'].reduceRight((inner, char, at) => `if (data[${at}] === ${char.charCodeAt(0)}) {\n${inner}\n}`, "throw new TypeError('planted');");
  const fuzzed = await fuzz('planted-exception', steps);
  expect(fuzzed.clean).toBe(false);
  expect(fuzzed.output).toContain('planted');
  expect(found(fuzzed).subarray(0, 4).toString()).toBe('FUZZ');
}, 400_000);

test('an input that never ends is found, and named', async () => {
  const fuzzed = await fuzz('planted-hang', "if (new TextDecoder().decode(data).includes('loop')) for (;;);", { words: '"loop"' });
  expect(fuzzed.clean).toBe(false);
  expect(fuzzed.output).toContain('no end after');
  expect(found(fuzzed).toString()).toContain('loop');
}, 400_000);

test('an input that takes all memory is found, and named', async () => {
  const body = "const all: string[][] = [];\nif (new TextDecoder().decode(data).includes('grow')) for (;;) all.push(Array.from({ length: 1e6 }, String));";
  const fuzzed = await fuzz('planted-memory', body, { words: '"grow"' });
  expect(fuzzed.clean).toBe(false);
  expect(found(fuzzed).toString()).toContain('grow');
}, 400_000);

test('a target without a fault passes', async () => {
  const fuzzed = await fuzz('planted-nothing', "if (data[0] === 0x62) void data.length;", { seconds: 2 });
  expect(fuzzed).toMatchObject({ clean: true, output: expect.stringMatching(/^done: [1-9]\d* executions, [1-9]\d* inputs kept/m) });
}, 60_000);
