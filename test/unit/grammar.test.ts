/** Schemas as grammars, followed by xgrammar over a real alphabet of tokens: what may be written is valid, and what is valid may mostly be written. */
import path from 'node:path';
import { Worker } from 'node:worker_threads';

import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';

import { LIMITS } from '../../engine/core/limits.ts';
import { type GrammarContext, type OutputFormat, checkFormat, formatOf, grammarOf } from '../../engine/job/grammar.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { splitCalls } from '../../engine/job/splitter.ts';
import { deepseek } from '../../engine/model/calls/deepseek.ts';
import { hermes } from '../../engine/model/calls/hermes.ts';
import { llama } from '../../engine/model/calls/llama.ts';
import { mistral, mistralArgs } from '../../engine/model/calls/mistral.ts';
import { writeCalls } from '../../engine/model/calls/syntax.ts';
import { tokenizerIn } from '../../engine/model/directory.ts';
import type { Tokenizer } from '../../engine/model/tokenizer.ts';
import { GrammarThread } from '../../engine/runtime/grammar.ts';
import { ROOT } from '../helpers/setup.ts';

const EOS = 642;
const ROWS = 656;
const TOKENS_MAX = 3_000;
const PLAIN: GrammarContext = { thinking: null, opened: false, calls: null };

let tokenizer: Tokenizer;
let thread: GrammarThread;
beforeAll(() => {
  tokenizer = tokenizerIn(path.join(ROOT, 'test/fixtures-own/tokenizers/small/qwen3'));
  thread = new GrammarThread({ ...tokenizer.pieces(ROWS), eosIds: [EOS] });
});
afterAll(() => thread[Symbol.dispose]());

/** Mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let z = Math.imul(state ^ (state >>> 15), 1 | state);
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

const isAllowed = (mask: Uint32Array, id: number) => (((mask[id >> 5] ?? 0) >>> (id & 31)) & 1) === 1;

/** Any tokens that are allowed, with a liking for what closes: an end is likely to come. */
async function written(grammar: string, seed: number, closing: readonly string[] = ['"', '}', ']', '"}']): Promise<string> {
  const random = randomFrom(seed);
  const close = closing.map((text) => tokenizer.tokenToId(text) ?? EOS);
  await thread.open(grammar);
  const ids: number[] = [];
  let fresh: number[] = [];
  while (ids.length < TOKENS_MAX) {
    const [mask] = await thread.masks([{ chain: 0, from: ids.length - fresh.length, tokens: fresh }]);
    if (mask === null || mask === undefined) throw new Error('an allowed token was refused');
    const allowed = Array.from({ length: ROWS }, (_, id) => id).filter((id) => isAllowed(mask, id));
    if (allowed.includes(EOS) && (allowed.length === 1 || random() < 0.7)) return tokenizer.decode(ids, { skipSpecial: true });
    const closers = close.filter((id) => allowed.includes(id));
    const from = closers.length > 0 && random() < 0.4 ? closers : allowed.filter((id) => id !== EOS);
    fresh = [from[Math.floor(random() * from.length)] ?? EOS];
    if (from.length === 0) throw new Error(`nothing may follow ${JSON.stringify(tokenizer.decode(ids, { skipSpecial: true }))}`);
    ids.push(...fresh);
  }
  throw new Error(`no end after ${TOKENS_MAX} tokens: ${tokenizer.decode(ids.slice(0, 200), { skipSpecial: true })}`);
}

/** Whether a text may be written whole, by its tokens as the tokenizer makes them. */
async function accepts(grammar: string, text: string): Promise<boolean> {
  await thread.open(grammar);
  const [mask] = await thread.masks([{ chain: 0, from: 0, tokens: tokenizer.encode(text, { addSpecial: false }) }]);
  return mask !== null && mask !== undefined && isAllowed(mask, EOS);
}

const grammarFor = (schema: unknown) => grammarOf({ kind: 'json_schema', schema }, PLAIN);

const person = {
  type: 'object',
  properties: { name: { type: 'string', minLength: 1, maxLength: 12 }, age: { type: 'integer', minimum: 0, maximum: 150 }, tags: { type: 'array', items: { enum: ['a', 'b "q"', 'é\n'] }, maxItems: 3 } },
  required: ['name', 'age'],
  additionalProperties: false,
};
const tree = { $ref: '#/$defs/node', $defs: { node: { type: 'object', properties: { value: { type: 'number' }, children: { type: 'array', items: { $ref: '#/$defs/node' }, maxItems: 2 } }, required: ['value'], additionalProperties: false } } };

const KEPT: readonly (readonly [string, unknown, readonly unknown[], readonly unknown[]])[] = [
  ['an object with nested, optional and bounded fields', person, [{ name: 'Ann', age: 150 }, { name: '\t"', age: 0, tags: ['a', 'é\n'] }], [{ name: '', age: 1 }, { name: 'x', age: 151 }, { age: 1 }, { name: 'x', age: 1, other: 1 }, { name: 'x', age: -1 }]],
  ['a schema that contains itself', tree, [{ value: 1.5, children: [{ value: -2 }, { value: 0, children: [] }] }], [{ children: [] }, { value: 1, children: [1] }]],
  ['optional fields only', { type: 'object', properties: { a: { type: 'boolean' }, b: { type: 'null' } }, additionalProperties: false }, [{}, { a: true }, { b: null }, { a: false, b: null }], [{ a: null }]],
  ['an object of any keys', { type: 'object', additionalProperties: { type: 'integer' } }, [{}, { x: 1, 'y"': 2 }], [{ x: 'a' }]],
  ['declared and other keys', { type: 'object', properties: { ab: { type: 'integer' }, 'a]c': { type: 'integer' } }, required: ['ab'], additionalProperties: { type: 'boolean' } }, [{ ab: 1, a: true, abc: false, b: true }], [{ ab: 1, b: 2 }, { a: true }]],
  ['declared and other keys beyond ASCII', { type: 'object', properties: { é: { type: 'integer' }, '☃': { type: 'integer' }, 'a-b': { type: 'integer' } }, additionalProperties: { type: 'boolean' } }, [{ é: 1, '☃': 2, 'a-b': 3, è: true, '☄': false, 'a-c': true, éé: true, '😀': true }], [{ é: true }, { '☃': true }, { 'a-b': true }, { è: 1 }]],
  ['a required key that is not declared', { type: 'object', properties: { a: { const: 1 } }, required: ['b'] }, [{ a: 1, b: [{}] }, { b: null }], [{ a: 1 }]],
  ['alternatives', { anyOf: [{ type: 'string', const: 'x' }, { type: 'array', items: { type: 'integer' }, minItems: 2 }, { type: ['null', 'boolean'] }] }, ['x', [1, 2, 3], null, true], ['y', [1], 3]],
  ['objects that a constant tells apart', { oneOf: [{ type: 'object', properties: { kind: { const: 'a' }, x: { type: 'integer' } }, required: ['kind', 'x'], additionalProperties: false }, { type: 'object', properties: { kind: { const: 'b' } }, required: ['kind'], additionalProperties: false }] }, [{ kind: 'a', x: 1 }, { kind: 'b' }], [{ kind: 'a' }, { kind: 'c' }]],
  ['a tuple', { type: 'array', prefixItems: [{ type: 'string' }, { type: 'integer' }], items: { type: 'boolean' }, minItems: 1, maxItems: 4 }, [['a'], ['a', 1], ['a', 1, true, false]], [[], ['a', 'b'], ['a', 1, true, true, true], [1]]],
  ['an array of exactly three', { type: 'array', items: { type: 'integer' }, minItems: 3, maxItems: 3 }, [[1, 2, 3]], [[1, 2], [1, 2, 3, 4]]],
  ['an array without repetition', { type: 'array', items: { $ref: '#/$defs/tag' }, uniqueItems: true, minItems: 1, maxItems: 3, $defs: { tag: { enum: ['a', 'b', 'ab', 1, null] } } }, [['a'], ['ab', 'a', 'b'], [null, 1]], [[], ['a', 'a'], ['a', 'b', 'a'], ['a', 'b', 'ab', 1]]],
  ['an array of any of eight, without repetition', { items: { type: 'string', enum: [...'abcdefgh'] }, uniqueItems: true }, [[], [...'hgfedcba']], [[...'aa'], [...'abcdefgha']]],
  ['an array of one at most', { type: 'array', items: { type: 'string' }, maxItems: 1, uniqueItems: true }, [[], ['a']], [['a', 'b']]],
  ['an array that may repeat', { type: 'array', items: { enum: [1] }, uniqueItems: false }, [[1, 1]], [[2]]],
  ['an empty array', { type: 'array', maxItems: 0 }, [[]], [[1]]],
  ['integers within bounds', { type: 'integer', minimum: -120, exclusiveMaximum: 35 }, [-120, -1, 0, 9, 34], [-121, 35, 1000]],
  ['integers of JavaScript', { type: 'integer', minimum: -9007199254740991, maximum: 9007199254740991 }, [0, 123456789], [1.5]],
  ['positive integers', { type: 'integer', exclusiveMinimum: 0 }, [1, 10, 999], [0, -1]],
  ['numbers within bounds', { type: 'number', minimum: 0, maximum: 1 }, [0, 0.25, 1], [1.5, -0.5, 2]],
  ['numbers within open bounds', { type: 'number', exclusiveMinimum: -1, exclusiveMaximum: 10 }, [-0.5, 0, 0.001, 9.99], [-1, 10, -2, 10.5]],
  ['negative numbers', { type: 'number', maximum: -5 }, [-5, -5.5, -1000], [-4.9, 0, 5]],
  ['texts of a length', { type: 'string', minLength: 3, maxLength: 5 }, ['abc', 'é\n"中', 'a😀b'], ['ab', 'abcdef']],
  ['texts of a least length', { type: 'string', minLength: 2 }, ['ab', 'a much longer one'], ['a', '']],
  ['dates and ids', { type: 'array', prefixItems: ['date', 'time', 'date-time', 'uuid', 'email', 'ipv4', 'ipv6', 'hostname', 'duration'].map((format) => ({ type: 'string', format })), minItems: 9 }, [['2024-02-28', '10:00:00Z', '2024-12-31T23:59:59.5+02:00', '123e4567-e89b-42d3-a456-426614174000', 'a.b@c.de', '10.0.0.255', '1:2:3:4:5:6:7:8', 'a-b.example.org', 'P3DT4H']], [['2024-02-30', '10:00:00Z']]],
  ['a pattern of a whole text', { type: 'string', pattern: '^[A-Z]{2}-\\d{3,4}(\\.[a-f]+)?$' }, ['AB-123', 'ZZ-1234.abc'], ['AB-12', 'xAB-123', 'AB-123.', 'AB-12345']],
  ['a pattern anywhere in a text', { pattern: 'a+b' }, ['ab', 'xaaby', 'a"\\ab\n'], ['a', 'ba', '']],
  ['a pattern with alternatives, each held at its own ends', { type: 'string', pattern: '^(?:yes|no)$|^maybe' }, ['yes', 'no', 'maybe so'], ['yesterday', 'oh no', 'x maybe']],
  ['a pattern of classes, quotes and escapes', { type: 'string', pattern: '^["\\\\/\\t][^a-z"][\\w.-]\\s.$' }, ['"A_ x', '\\é.\ty', '/\n-\u00a0"', '\t\u0001'.slice(0, 1) + '😀a ☃'], ['"ab x', 'xA_ x', '"A_xx', '"A! x']],
  ['a pattern of code points', { type: 'string', pattern: '^[\\u00e0-\\u{fc}\\x41]\\u{1F600}?$' }, ['é', 'A😀'], ['a', 'é😁']],
  ['a pattern within a length', { type: 'string', pattern: '^[a-z][a-z0-9_]{1,8}$', minLength: 2, maxLength: 10 }, ['ab', 'a_2345678'], ['a', 'a_23456789', 'A1']],
  ['the empty pattern', { type: 'string', pattern: '' }, ['', 'x"y'], [1]],
  ['multiples between bounds', { type: 'integer', minimum: -10, exclusiveMaximum: 20, multipleOf: 5 }, [-10, -5, 0, 15], [20, 1, -15]],
  ['multiples of a power of ten', { type: 'integer', multipleOf: 100 }, [0, 100, -2500], [10, 101, 50]],
  ['multiples of one', { type: 'integer', multipleOf: 1, minimum: 3 }, [3, 99], [2]],
  ['constants', { enum: [null, 'a\u0001"\\', { k: [1, true] }, -1.5e300] }, [null, 'a\u0001"\\', { k: [1, true] }], ['b', 1]],
  ['anything', true, [null, 'x', [1, { a: {} }]], []],
];

describe('a schema as a grammar', () => {
  test.each(KEPT)('%s: whatever is written is valid', async (_, schema) => {
    const ajv = addFormats.default(new Ajv2020({ strict: false }));
    const isValid = ajv.compile(schema as object);
    const grammar = grammarFor(schema);
    for (let seed = 1; seed <= 6; seed++) {
      const text = await written(grammar, seed);
      expect(isValid(JSON.parse(text)), `${text}: ${ajv.errorsText(isValid.errors)}`).toBe(true);
    }
  });

  test.each(KEPT)('%s: valid values may be written, others not', async (_, schema, valid, invalid) => {
    const grammar = grammarFor(schema);
    for (const value of valid) expect(await accepts(grammar, JSON.stringify(value)), JSON.stringify(value)).toBe(true);
    for (const value of invalid) expect(await accepts(grammar, JSON.stringify(value)), JSON.stringify(value)).toBe(false);
  });

  test('takes white space as people and programs write it, and not without end', async () => {
    const grammar = grammarFor(person);
    const value = { name: 'Ann', age: 3, tags: ['a'] };
    for (const indent of [0, 2, 4, '\t']) expect(await accepts(grammar, JSON.stringify(value, null, indent))).toBe(true);
    expect(await accepts(grammar, '{"name": "Ann", "age": 3}')).toBe(true);
    expect(await accepts(grammar, `{${' '.repeat(40)}"name": "Ann", "age": 3}`)).toBe(false);
    expect(await accepts(grammar, '{"name": "Ann", "age": 3}\n')).toBe(false);
  });

  test('never lets a character into a text that JSON has none for, nor half of one', async () => {
    const grammar = grammarFor({ type: 'string', maxLength: 8 });
    expect(await accepts(grammar, '"a\u0001"')).toBe(false);
    expect(await accepts(grammar, String.raw`"\ud83d\ude00"`)).toBe(false);
    expect(await accepts(grammar, String.raw`"\u00e9\n\\"`)).toBe(true);
    for (let seed = 1; seed <= 20; seed++) {
      const text = await written(grammar, seed);
      expect(text).not.toContain('\ufffd');
      expect([...(JSON.parse(text) as string)].length).toBeLessThanOrEqual(8);
    }
  });

  test.each<[string, unknown, RegExp]>([
    ['a pattern that is none', { type: 'string', pattern: '(a' }, /\/pattern must be a regular expression of ECMAScript/],
    ['a pattern that is no text', { type: 'string', pattern: 3 }, /\/pattern must be a regular expression of ECMAScript/],
    ['a pattern that looks ahead', { type: 'string', pattern: '^(?=a)b' }, /\/pattern looks ahead or behind, which is not supported/],
    ['a pattern that looks behind', { type: 'string', pattern: '(?<!a)b' }, /\/pattern looks ahead or behind/],
    ['a pattern with a back reference', { type: 'string', pattern: '^(a)\\1$' }, /\/pattern has \\1, which is not supported/],
    ['a pattern with a word boundary', { type: 'string', pattern: '\\bx' }, /\/pattern has \\b, which is not supported/],
    ['a pattern with classes by name', { type: 'string', pattern: '\\p{L}' }, /\/pattern has \\p, which is not supported/],
    ['a pattern with an anchor within', { type: 'string', pattern: 'a(^b)' }, /\/pattern has an anchor within/],
    ['a pattern that repeats what may be empty', { type: 'string', pattern: '^(a*)*$' }, /\/pattern repeats what may be empty/],
    ['a pattern that repeats too much', { type: 'string', pattern: '^((a{99}){99}){99}$' }, /\/pattern repeats too much/],
    ['a pattern that is too long', { type: 'string', pattern: 'a'.repeat(1_025) }, /\/pattern must have at most 1024 characters/],
    ['a pattern beside a length', { type: 'string', pattern: '^a+$', maxLength: 3 }, /\/pattern matches texts of 1 to any number of characters, which is not within minLength and maxLength/],
    ['a pattern beside a format', { type: 'string', pattern: 'a', format: 'date' }, /has a format beside a pattern/],
    ['a pattern with half a character', { type: 'string', pattern: '\\ud83d' }, /\/pattern has half of a surrogate pair/],
    ['a class without a character', { type: 'string', pattern: '[]' }, /\/pattern has a class without a character/],
    ['multiples without bounds', { type: 'integer', multipleOf: 7 }, /\/multipleOf must leave at most 1024 numbers between minimum and maximum/],
    ['too many multiples', { type: 'integer', multipleOf: 2, minimum: 0, maximum: 9_999 }, /\/multipleOf must leave at most 1024/],
    ['multiples of a fraction', { type: 'integer', multipleOf: 0.5 }, /\/multipleOf must be a whole number above 0/],
    ['multiples of which there are none', { type: 'integer', multipleOf: 7, minimum: 8, maximum: 13 }, /between which there is no number/],
    ['unlike items of any kind', { type: 'array', items: { type: 'integer' }, uniqueItems: true }, /\/uniqueItems needs items that are an enum of at most 8/],
    ['unlike items of too many values', { type: 'array', items: { enum: [1, 2, 3, 4, 5, 6, 7, 8, 9] }, uniqueItems: true }, /\/uniqueItems needs items that are an enum of at most 8/],
    ['unlike objects', { type: 'array', items: { enum: [{ a: 1, b: 2 }, { b: 2, a: 1 }] }, uniqueItems: true }, /\/uniqueItems needs items/],
    ['unlike items beside places', { type: 'array', prefixItems: [true], items: { enum: [1] }, uniqueItems: true }, /\/uniqueItems needs items/],
    ['more unlike items than values', { type: 'array', items: { enum: [1, 2] }, minItems: 3, uniqueItems: true }, /must have 3 items, no two alike, of 2 values/],
    ['a uniqueItems that is none', { type: 'array', items: { enum: [1] }, uniqueItems: 'yes' }, /\/uniqueItems must be true or false/],
    ['not', { properties: { a: { not: {} } } }, /\/properties\/a has "not"/],
    ['two schemas at once', { allOf: [{}, {}] }, /\/allOf has more than one schema/],
    ['alternatives that overlap', { oneOf: [{ type: 'integer' }, { type: 'number' }] }, /\/oneOf may have values that fit two/],
    ['an unknown type', { type: 'str' }, /\/type must be one of object, array/],
    ['a reference to nothing', { $ref: '#/$defs/none' }, /\/\$ref points at nothing: "#\/\$defs\/none"/],
    ['a reference elsewhere', { $ref: 'https://example.org/schema' }, /must point into the schema itself/],
    ['itself and nothing else', { $ref: '#' }, /leads back to itself/],
    ['itself as an alternative', { $defs: { a: { anyOf: [{ $ref: '#/$defs/b' }, { type: 'null' }] }, b: { $ref: '#/$defs/a' } }, type: 'array', items: { $ref: '#/$defs/b' } }, /leads back to itself/],
    ['no value', { type: 'object', properties: { a: false } }, /\/properties\/a allows no value/],
    ['bounds the wrong way round', { type: 'integer', minimum: 5, maximum: 4 }, /has bounds between which there is no number/],
    ['a fraction as bound', { type: 'number', minimum: 0.5 }, /\/minimum must be a whole number/],
    ['lengths the wrong way round', { type: 'string', minLength: 3, maxLength: 2 }, /maxLength below its minLength/],
    ['more characters than there are rules for', { type: 'string', maxLength: 10_000 }, /\/maxLength must be an integer from 0 to 256/],
    ['an unknown format', { type: 'string', format: 'color' }, /\/format must be one of date, time/],
    ['a required key that cannot be there', { type: 'object', properties: {}, required: ['a'], additionalProperties: false }, /\/required names "a", which is no property/],
    ['an enum without values of its type', { type: 'string', enum: [1] }, /has no value of its type in enum/],
    ['a list', [], /it must be an object or true/],
    ['a schema beside a reference', { $ref: '#/$defs/a', type: 'string', $defs: { a: true } }, /has type beside \$ref/],
  ])('%s is refused by name', (_, schema, message) => {
    expect(() => checkFormat({ kind: 'json_schema', schema })).toThrow(expect.objectContaining({ code: 'ERR_OPTION', message: expect.stringMatching(message) as string }) as Error);
  });

  test('is bounded in depth and size', () => {
    let deep: unknown = { type: 'null' };
    for (let level = 0; level < 80; level++) deep = { type: 'array', items: deep };
    expect(() => grammarFor(deep)).toThrow(/more than 64 levels deep/);
    const wide = { type: 'object', properties: Object.fromEntries(Array.from({ length: 5_000 }, (_, i) => [`p${i}`, true])) };
    expect(() => grammarFor(wide)).toThrow(/more than 4096 schemas/);
    const long = { enum: Array.from({ length: 50 }, (_, i) => `${i}${'x'.repeat(50_000)}`) };
    expect(() => grammarFor(long)).toThrow(/too large/);
    expect(() => checkFormat({ kind: 'json_schema', schema: long })).toThrow(/at most 65536 characters/);
    let endless: Record<string, unknown> = {};
    for (let level = 0; level < 100_000; level++) endless = { items: endless };
    expect(() => checkFormat({ kind: 'json_schema', schema: endless })).toThrow(/at most 65536 characters/);
  });
});

describe('a format', () => {
  const calls = hermes.form;
  const add = { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'], additionalProperties: false };
  const tools: NonNullable<JobSpec['tools']> = [{ type: 'function', function: { name: 'add', parameters: add } }, { type: 'function', function: { name: 'now' } }];
  const formatFor = (change: Parameters<typeof formatOf>[0]): OutputFormat => formatOf({ tools, tool_choice: 'required', parallel_tool_calls: false, ...change }) ?? { kind: 'json_object' };
  const call = (name: string, given: object) => `<tool_call>\n{"name": "${name}", "arguments": ${JSON.stringify(given)}}\n</tool_call>`;

  test('of calls is one of the tools with its arguments, or several', async () => {
    const one = grammarOf(formatFor({}), { ...PLAIN, calls });
    expect(await accepts(one, call('add', { a: 1 }))).toBe(true);
    expect(await accepts(one, call('now', { any: [1] }))).toBe(true);
    expect(await accepts(one, call('add', {}))).toBe(false);
    expect(await accepts(one, call('gone', {}))).toBe(false);
    expect(await accepts(one, '{"a": 1}')).toBe(false);
    expect(await accepts(one, `${call('now', {})}\n${call('now', {})}`)).toBe(false);
    const many = grammarOf(formatFor({ parallel_tool_calls: true }), { ...PLAIN, calls });
    expect(await accepts(many, `${call('now', {})}\n${call('add', { a: 2 })}`)).toBe(true);
    const chosen = grammarOf(formatFor({ tool_choice: { name: 'add' } }), { ...PLAIN, calls });
    expect(await accepts(chosen, call('now', {}))).toBe(false);
    expect(() => grammarOf(formatFor({}), PLAIN)).toThrow(/no way to write calls/);
  });

  test.each([hermes, llama, mistral, mistralArgs, deepseek].map((syntax) => [syntax.name, syntax] as const))('of calls is what the parser of %s reads as calls, and nothing else', async (_, syntax) => {
    const many = grammarOf(formatFor({ parallel_tool_calls: true }), { ...PLAIN, calls: syntax.form });
    for (const made of [[{ name: 'add', arguments: '{"a": 1}' }], [{ name: 'now', arguments: '{}' }, { name: 'add', arguments: '{"a": -2}' }]]) {
      const text = writeCalls(syntax, made);
      expect(await accepts(many, text)).toBe(true);
      expect(splitCalls(text, { syntax, offered: new Set(['add', 'now']), most: 128 })).toEqual({ content: '', calls: made });
    }
    expect(await accepts(many, 'words')).toBe(false);
  });

  test('beside tools that need not be called is the format or calls; without a format, anything', async () => {
    expect(formatOf({ tools, tool_choice: 'auto' })).toBeNull();
    expect(formatOf({ tools, tool_choice: 'none', format: { kind: 'json_object' } })).toEqual({ kind: 'json_object' });
    const either = grammarOf(formatFor({ tool_choice: 'auto', format: { kind: 'json_schema', schema: add } }), { ...PLAIN, calls });
    expect(await accepts(either, '{"a": 1}')).toBe(true);
    expect(await accepts(either, call('now', {}))).toBe(true);
    expect(await accepts(either, 'words')).toBe(false);
  });

  test('begins where the thinking ends, and thinking is free', async () => {
    const thinking = { open: '<think>', close: '</think>' };
    const opened = grammarOf({ kind: 'json_object' }, { ...PLAIN, thinking, opened: true });
    expect(await accepts(opened, 'so {"a" </thin</think>\n\n{"a": 1}')).toBe(true);
    expect(await accepts(opened, '</think>{}')).toBe(true);
    expect(await accepts(opened, '{"a": 1}')).toBe(false);
    expect(await accepts(opened, 'so</think>then {}')).toBe(false);
    const open = grammarOf({ kind: 'json_object' }, { ...PLAIN, thinking });
    expect(await accepts(open, '{"a": 1}')).toBe(true);
    expect(await accepts(open, '<think>so</think>{"a": 1}')).toBe(true);
    expect(await accepts(open, 'so</think>{"a": 1}')).toBe(false);
  });
});

describe('the thread', () => {
  test('refuses a grammar that is none, and says why', async () => {
    using own = new GrammarThread({ ...tokenizer.pieces(ROWS), eosIds: [EOS] });
    await expect(own.open('root ::= nothing')).rejects.toMatchObject({ code: 'ERR_FORMAT', message: expect.stringContaining('nothing') as string });
    expect(own.isUsable).toBe(false);
    await expect(own.masks([])).rejects.toMatchObject({ code: 'ERR_FORMAT' });
  });

  test('ends with an abort, and a call after that is refused', async () => {
    using own = new GrammarThread({ ...tokenizer.pieces(ROWS), eosIds: [EOS] });
    const stop = new AbortController();
    const opening = own.open(grammarFor(person), stop.signal);
    stop.abort();
    await expect(opening).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
    await expect(own.open(grammarFor(person))).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
  });

  test('gives the same masks whether tokens come one by one or at once', async () => {
    const ids = tokenizer.encode('{"name": "Ann", "age', { addSpecial: false });
    await thread.open(grammarFor(person));
    const [atOnce] = await thread.masks([{ chain: 0, from: 0, tokens: ids }]);
    let last: Uint32Array | null | undefined;
    for (const [from, id] of ids.entries()) [last] = await thread.masks([{ chain: 1, from, tokens: [id] }]);
    expect(last).toEqual(atOnce);
    expect(await thread.masks([{ chain: 2, from: 0, tokens: [EOS] }])).toEqual([null]);
  });
});

describe('the thread that follows a grammar', () => {
  const ANY = grammarOf({ kind: 'json_object' }, PLAIN);
  const started = (): GrammarThread => new GrammarThread({ ...tokenizer.pieces(ROWS), eosIds: [EOS] });
  afterEach(() => {
    vi.useRealTimers();
    vi.restoreAllMocks();
  });

  test('that ends or is late with a step is a fault of the machine: the job is not to blame', async () => {
    using ended = started();
    const post = vi.spyOn(Worker.prototype, 'postMessage');
    await ended.open(ANY);
    await (post.mock.contexts[0] as Worker).terminate();
    await expect(ended.masks([{ chain: 0, from: 0, tokens: [] }])).rejects.toMatchObject({ code: 'ERR_OVERLOADED' });
    expect(ended.isUsable).toBe(false);
    using late = started();
    await late.open(ANY);
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const step = late.masks([{ chain: 0, from: 0, tokens: [] }]);
    vi.advanceTimersByTime(LIMITS.GRAMMAR_STEP_MS_MAX);
    await expect(step).rejects.toMatchObject({ code: 'ERR_OVERLOADED' });
  });

  test('that takes too long over a grammar refuses it, as one that is none', async () => {
    using none = started();
    await expect(none.open('no grammar')).rejects.toMatchObject({ code: 'ERR_FORMAT' });
    using late = started();
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const opened = late.open(ANY);
    vi.advanceTimersByTime(LIMITS.GRAMMAR_COMPILE_MS_MAX);
    await expect(opened).rejects.toMatchObject({ code: 'ERR_FORMAT' });
  });
});
