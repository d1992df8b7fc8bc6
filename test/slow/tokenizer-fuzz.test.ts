/**
 * Broken and hostile tokenizer.json, tokenizer_config.json and chat templates: seeded mutations of good ones. Goal: whatever comes out
 * is a result or a coded error, soon. A failure names its seed; RUMINATE_FUZZ_ROUNDS=20 runs twenty times as many.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test, vi } from 'vitest';
import { EngineError } from '../../engine/core/errors.ts';
import { templateIn } from '../../engine/model/directory.ts';
import { ChatTemplate } from '../../engine/model/template.ts';
import { Tokenizer } from '../../engine/model/tokenizer.ts';
import { byteFallback, byteLevel, metaspace, wordPiece } from '../unit/tokenizers.ts';

// Two seconds instead of two minutes: what is tested is that there is an end.
vi.mock('../../engine/core/limits.ts', async (original) => {
  const { LIMITS } = await original<typeof import('../../engine/core/limits.ts')>();
  return { LIMITS: { ...LIMITS, TOKENIZER_MS_MAX: 2_000, TEMPLATE_MS_MAX: 2_000, TEMPLATE_STEPS_MAX: 1 << 16 } };
});

const ROUNDS = Number(process.env.RUMINATE_FUZZ_ROUNDS ?? 1);
const LATE_MS = 10_000;
const FIXTURES = fileURLToPath(new URL('../fixtures-own', import.meta.url));
const TEXTS = ['', 'hello world', '  a\r\n\n1234 ½ <think>x</think> 文字 😀\u0000e\u0301', `${'a'.repeat(40)}!`, '[UNK]<|end|><s>the theme'];

class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed;
  }
  below(n: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((this.#state / 2 ** 32) * n);
  }
  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }
}

const VALUES: readonly unknown[] = [
  null, true, false, 0, -1, 1.5, 7, 2 ** 22 - 1, 2 ** 22, 2 ** 31, 2 ** 53, 1e300, '', ' ', 'x', '<unk>', '▁', '(a+)+$', '(?:a|a)*b', '[', '(?<', '\\p{Nope}', '\\', '(?i:x)', '\\s+(?!\\S)', '.*', '\ud800',
  '__proto__', 'constructor', [], {}, [[]], [null], { type: 'Nope' }, { type: 'BPE' }, { type: 'Sequence' }, { type: 'ByteLevel' }, { type: 'Metaspace' }, { type: 'Split', pattern: { Regex: '(a+)+b' }, behavior: 'Isolated' },
  { type: 'Replace', pattern: { String: '' }, content: 'xx' }, { type: 'Unigram', vocab: [] }, { String: 'a' }, { Regex: '(a*)*$' }, 'MergedWithNext', 'Contiguous', 'x'.repeat(5_000),
];

/** One value somewhere in the tree deleted, replaced, moved or doubled; the vocabulary, by far the most of it, is not preferred. */
function mutated(tree: unknown, random: Random): unknown {
  if (typeof tree !== 'object' || tree === null) return random.of(VALUES);
  const keys = Object.keys(tree);
  if (keys.length === 0 || random.below(12) === 0) return random.of(VALUES);
  const key = random.of(keys);
  const copy = (Array.isArray(tree) ? [...tree] : { ...tree }) as Record<string, unknown>;
  switch (random.below(10)) {
    case 0:
      if (Array.isArray(copy)) copy.splice(Number(key), 1);
      else delete copy[key];
      break;
    case 1:
      copy[key] = copy[random.of(keys)];
      break;
    case 2:
      if (Array.isArray(copy)) copy.push(copy[0]);
      else copy[`${key}x`] = copy[key];
      break;
    case 3:
      copy[key] = random.of(VALUES);
      break;
    default:
      copy[key] = mutated(copy[key], random);
  }
  return copy;
}

function scrambled(text: string, random: Random, snippets: readonly string[]): string {
  const chars = [...text];
  for (let n = 1 + random.below(4); n > 0; n--) {
    const at = random.below(chars.length + 1);
    const kind = random.below(4);
    if (kind === 0) chars.splice(at, 1 + random.below(20));
    else if (kind === 1) chars.splice(at, 0, random.of(snippets));
    else if (kind === 2) chars[at] = String.fromCharCode(random.below(0x180));
    else chars.splice(at, 0, ...chars.slice(at - random.below(30), at));
  }
  return chars.join('');
}

/** The small fixtures' pipelines around a tiny vocabulary: their stages are what can break, and small files are fast. */
const bases = readdirSync(`${FIXTURES}/tokenizers/small`).map((name) => {
  const { model: _, added_tokens: __, ...stages } = JSON.parse(readFileSync(`${FIXTURES}/tokenizers/small/${name}/tokenizer.json`, 'utf8')) as Record<string, unknown>;
  const tiny = JSON.parse(name.startsWith('unigram') ? metaspace() : name.startsWith('word-piece') ? wordPiece() : /llama2|metaspace|gemma/.test(name) ? byteFallback() : byteLevel()) as object;
  return [name, { ...tiny, ...stages, post_processor: null }] as const;
});

function survives(where: string, code: string, work: () => void): boolean {
  const start = performance.now();
  let worked = true;
  try {
    work();
  } catch (error) {
    worked = false;
    if (!(error instanceof EngineError) || error.code !== code) throw new Error(`${where}: ${String(error)}`, { cause: error });
  }
  const tookMs = performance.now() - start;
  if (tookMs > LATE_MS) throw new Error(`${where}: took ${tookMs} ms`);
  return worked;
}

function use(tokenizer: Tokenizer): void {
  for (const text of TEXTS) {
    const ids = tokenizer.encode(text, { addSpecial: true });
    if (ids.some((id) => !Number.isInteger(id) || id < 0 || id >= tokenizer.vocabSize)) throw new Error(`no ids: ${ids.join()}`);
    tokenizer.decode(ids, { skipSpecial: true });
  }
  tokenizer.decode([0, 1, 2, 3, 259, 260, 1_000_000], { skipSpecial: false });
  if (tokenizer.vocabSize < 10_000) tokenizer.pieces(tokenizer.vocabSize + 1);
}

test.each(bases)('%s: a tokenizer.json with something wrong in it works or is refused as ERR_TOKENIZER', (name, base) => {
  const works = Array.from({ length: 150 * ROUNDS }, (_, seed) => {
    const random = new Random(seed);
    let tree: unknown = base;
    for (let n = 1 + random.below(3); n > 0; n--) tree = mutated(tree, random);
    return survives(`${name} seed ${seed}`, 'ERR_TOKENIZER', () => use(Tokenizer.parse(JSON.stringify(tree))));
  });
  // Neither all refused nor all fine: the mutations reach what they are meant to reach.
  expect(new Set(works).size).toBe(2);
});

test('a tokenizer.json with broken text works or is refused as ERR_TOKENIZER', () => {
  for (let seed = 0; seed < 400 * ROUNDS; seed++) {
    const random = new Random(seed);
    const json = scrambled(random.of([byteLevel, byteFallback, metaspace, wordPiece])(), random, ['"', '{', '}', '[', ']', ',', ':', 'null', '1e999', '\\u0000', '"a":']);
    survives(`text seed ${seed}`, 'ERR_TOKENIZER', () => use(Tokenizer.parse(json)));
  }
});

test('a tokenizer_config.json with something wrong in it works or is refused, by the tokenizer or the template', () => {
  const config = {
    bos_token: '<s>', eos_token: { content: '</s>', special: true }, unk_token: '<unk>', additional_special_tokens: ['<think>', { content: 'x' }], clean_up_tokenization_spaces: true, remove_space: true,
    do_lowercase_and_remove_accent: true, target_lang: 'x', chat_template: [{ name: 'default', template: '{{ bos_token }}{{ messages[0].content }}' }],
  };
  for (let seed = 0; seed < 400 * ROUNDS; seed++) {
    const random = new Random(seed);
    let tree: unknown = config;
    for (let n = 1 + random.below(3); n > 0; n--) tree = mutated(tree, random);
    let tokenizer: Tokenizer | undefined;
    survives(`config seed ${seed}`, 'ERR_TOKENIZER', () => use((tokenizer = Tokenizer.parse(byteLevel(), JSON.stringify(tree)))));
    if (tokenizer === undefined) continue;
    const { config: kept, bosToken, eosToken } = tokenizer;
    survives(`config seed ${seed}`, 'ERR_TEMPLATE', () => void templateIn(FIXTURES, kept)?.render({ messages: [{ role: 'user', content: 'x' }], addGenerationPrompt: true, bosToken, eosToken }));
  }
});

const SNIPPETS = [
  '{%', '%}', '{{', '}}', '{#', '#}', '-', '|', '(', ')', '[', ']', "'", '"', '\\', 'none', 'range(1000000)', '{% for x in messages %}', '{% endfor %}', '{% if x %}', '{% endif %}', '{% set messages = messages + messages %}', '{{ messages ~ messages }}',
  '| tojson', '| join(messages)', '| map(attribute="role")', '.split("")', '.replace("", messages)', '{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}', '{{ loop }}', '[::-1]', '[::0]', '[1:1000000000]', '{{ 1 / 0 }}', '* 1000000', '{% break %}', '{% generation %}',
  '{{ messages.__proto__ }}', '{{ constructor }}', '{{ raise_exception() }}', 'is defined', 'namespace(', '| indent(100000000)', '| center(1000000000)', '{{ caller() }}', '{% call m() %}', '| sort', '| dictsort', '| items', '| default(', '\u0000', '\ud800',
];
const VARIABLES = {
  messages: [{ role: 'system', content: 's' }, { role: 'user', content: 'u' }, { role: 'assistant', content: '<think>t</think>a', tool_calls: [{ type: 'function', function: { name: 'f', arguments: { a: 1 } } }] }, { role: 'tool', content: '4' }],
  tools: [{ type: 'function', function: { name: 'f', description: 'd', parameters: { type: 'object', properties: { a: { type: 'string', description: 'e' } }, required: ['a'] } } }], addGenerationPrompt: true, bosToken: '<s>', eosToken: '</s>', date: '2024-07-26',
};

function renders(text: string, variables: typeof VARIABLES): boolean {
  try {
    new ChatTemplate(text).render(variables);
    return true;
  } catch {
    return false;
  }
}

test.each(readdirSync(`${FIXTURES}/templates`).filter((file) => file.endsWith('.jinja')))('%s with something wrong in it renders or is refused as ERR_TEMPLATE', (file) => {
  const good = readFileSync(`${FIXTURES}/templates/${file}`, 'utf8');
  // Some refuse a conversation like that one as it is.
  const variables = [VARIABLES, { ...VARIABLES, messages: [{ role: 'user', content: 'u' }] }].find((some) => renders(good, some));
  if (variables === undefined) throw new Error(`${file} renders nothing`);
  const works = Array.from({ length: 250 * ROUNDS }, (_, seed) => {
    const text = scrambled(good, new Random(seed), SNIPPETS);
    return survives(`${file} seed ${seed}`, 'ERR_TEMPLATE', () => void new ChatTemplate(text).render(variables));
  });
  expect(new Set(works).size).toBe(2);
});

test('an unknown id that is no id is refused when it would be used', () => {
  for (const id of ['__proto__', 'constructor', -1, 1.5, 6, null]) {
    const tokenizer = Tokenizer.parse(metaspace().replace('"unk_id":0', `"unk_id":${JSON.stringify(id)}`));
    expect(() => tokenizer.encode('?', { addSpecial: false })).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER' }));
  }
});

test('a regular expression of tokenizer.json that backtracks without end is ended', () => {
  const json = JSON.stringify({ ...(JSON.parse(byteLevel()) as object), pre_tokenizer: { type: 'Split', pattern: { Regex: '^(a+)+$' }, behavior: 'Isolated', invert: false } });
  const tokenizer = Tokenizer.parse(json);
  expect(() => tokenizer.encode(`${'a'.repeat(60)}!`, { addSpecial: false })).toThrow(expect.objectContaining({ code: 'ERR_TOKENIZER', message: expect.stringContaining('2 s') }));
  expect(tokenizer.encode('b', { addSpecial: false })).toEqual([98]);
});

test('nothing of this left a mark on Object', () => {
  expect(Object.keys(Object.prototype)).toEqual([]);
  expect(({} as Record<string, unknown>).x).toBeUndefined();
});
