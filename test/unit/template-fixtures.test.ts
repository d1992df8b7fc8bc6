/** Chat templates against transformers' own renderings, which are in test/fixtures-own/templates; and what a template may not do. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { systemClock } from '../../engine/core/clock.ts';
import { ChatTemplate, type Message } from '../../engine/model/template.ts';

const FIXTURES = fileURLToPath(new URL('../fixtures-own/templates', import.meta.url));
const source = (name: string) => readFileSync(`${FIXTURES}/${name}.jinja`, 'utf8');
const expected = JSON.parse(readFileSync(`${FIXTURES}/expected.json`, 'utf8')) as {
  tokens: { bos_token: string; eos_token: string };
  chats: Record<string, Message[]>;
  options: Record<string, { enable_thinking?: boolean; tools?: unknown[]; documents?: unknown[]; extra?: Record<string, unknown> }>;
  texts: ({ text: string; error?: undefined } | { error: string })[];
  cases: [template: string, chat: string, options: string, generation: boolean, date: string | null, text: number][];
};
const user = { messages: [{ role: 'user', content: 'hi' }], addGenerationPrompt: true, bosToken: '<BOS>', eosToken: '<EOS>' };
const refused = (words = '') => expect.objectContaining({ code: 'ERR_TEMPLATE', message: expect.stringContaining(words) });

function render(template: ChatTemplate, chat: string, options: string, generation: boolean, date: string | null): string {
  const { enable_thinking, tools, documents, extra } = expected.options[options] ?? {};
  return template.render({
    messages: expected.chats[chat] ?? [], addGenerationPrompt: generation, bosToken: expected.tokens.bos_token, eosToken: expected.tokens.eos_token,
    enableThinking: enable_thinking, tools, documents, extra, date: date ?? undefined,
  });
}

describe.each([...new Set(expected.cases.map(([name]) => name))])('%s', (name) => {
  const template = new ChatTemplate(source(name));
  const cases = expected.cases.filter((row) => row[0] === name);

  test(`gives every one of its ${cases.length} chats as transformers does`, () => {
    for (const [, chat, options, generation, date, index] of cases) {
      const want = expected.texts[index];
      if (want?.error === undefined) expect(render(template, chat, options, generation, date), `${chat}, ${options}`).toBe(want?.text);
    }
  });

  test('refuses what transformers refuses, but for the known differences', () => {
    for (const [, chat, options, generation, date, index] of cases) {
      const error = expected.texts[index]?.error;
      // docs/TOKENIZERS.md: the library gives nothing for the first of no messages, and joins text and numbers.
      if (error === undefined || /list object has no element 0|can only concatenate str/.test(error)) continue;
      expect(() => render(template, chat, options, generation, date), `${chat}, ${options}: ${error}`).toThrow(refused());
    }
  });
});

describe('thinking', () => {
  const conclusion = '</think>';
  test('Qwen3 thinks unless told not to, and then finds its thoughts already empty', () => {
    const qwen3 = new ChatTemplate(source('qwen3'));
    expect(qwen3.render(user)).toBe('<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n');
    expect(qwen3.render({ ...user, enableThinking: true })).toBe(qwen3.render(user));
    expect(qwen3.render({ ...user, enableThinking: false })).toBe('<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n');
  });

  test.each(['qwen3', 'r1-distill-llama', 'r1-distill-qwen'])('%s drops what was thought in earlier turns', (name) => {
    const messages = [user.messages[0], { role: 'assistant', content: `<think>\nsecret\n${conclusion}\n\nshown` }, { role: 'user', content: 'go on' }] as Message[];
    const text = new ChatTemplate(source(name)).render({ ...user, messages, enableThinking: true });
    expect(text).toContain('shown');
    expect(text).not.toContain('secret');
  });
});

describe('the date', () => {
  const dates = new ChatTemplate(source('own-dates'));

  test('is the one that is given, and without one there is no clock at all', () => {
    expect(dates.render({ ...user, date: '2024-07-26' })).toContain('26 Jul 2024|2024-07-26|Friday, July 26, 2024|');
    expect(dates.render(user)).toBe('no clock');
  });

  test('a template that asks for it all the same is told what is missing', () => {
    expect(() => new ChatTemplate("{{ strftime_now('%Y') }}").render(user)).toThrow(refused('date'));
  });

  test.each(['today', '2024-13-01', '2024-02-30', '2024-7-1', '0001-01-01', '2024-01-01T24:00', ''])('%j is no date', (date) => {
    expect(() => dates.render({ ...user, date })).toThrow(refused('2024-07-26'));
  });

  test('a directive that needs a time zone or a locale is refused, not guessed', () => {
    expect(() => new ChatTemplate("{{ strftime_now('%Z') }}").render({ ...user, date: '2024-07-26' })).toThrow(refused('%Z'));
  });
});

test('a field that is undefined is not there', () => {
  const template = new ChatTemplate("{{ 'tool_calls' in messages[0] }} {{ tools is none }} {{ documents is none }} {{ enable_thinking is defined }}");
  expect(template.render({ ...user, messages: [{ role: 'user', content: 'x', tool_calls: undefined }], tools: undefined })).toBe('False True True False');
});

describe('a template that asks for too much is refused', () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });
  const double = (what: string, times: number) => `{% set a = ${what} %}${'{% set a = a + a %}'.repeat(times)}{{ a | length }}`;
  test.each([
    ['a long range', '{% for i in range(10000000000) %}{% endfor %}', 'items'],
    ['a range of a text', '{% for i in range(1000000000) %}x{% endfor %}', 'items'],
    ['a range in a range', '{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}', 'steps'],
    ['a range of fractions', '{{ range(0.5) }}', 'integers'],
    ['a range without end', '{{ range(0, 1, 0) }}', 'integers'],
    ['loops in loops', `${'{% for i in range(1000) %}'.repeat(5)}x${'{% endfor %}'.repeat(5)}`, 'steps'],
    ['a text doubled', double("'x' * 1 + 'yyyyyyyyyyyyyyyy'", 30), ''],
    ['a text doubled with ~', `{% set a = 'xxxxxxxx' %}${'{% set a = a ~ a %}'.repeat(40)}`, 'characters'],
    ['a list doubled', double('[1, 2, 3, 4]', 40), 'items'],
    ['a long output', "{% for i in range(100000) %}{{ 'x' ~ 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy' }}{% endfor %}", 'characters'],
    ['a macro that calls itself', '{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}', ''],
    ['a macro that calls itself twice', '{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}', 'steps'],
    ['a wide indent', "{{ 'a\nb' | indent(1000000000) }}", ''],
    ['a chain of filters on nothing', `{{ messages ${'| select '.repeat(200)}| tojson | trim | nope }}`, 'nope'],
  ])('%s: for what it asks, and not because its time is over', (_, text, words) => {
    vi.spyOn(systemClock, 'nowMs').mockReturnValue(0);
    expect(() => new ChatTemplate(text).render(user)).toThrow(refused(words));
  });

  test('when its time is over, however little it asks', () => {
    vi.spyOn(systemClock, 'nowMs').mockReturnValue(20_001).mockReturnValueOnce(0);
    const loop = (times: number) => new ChatTemplate(`{% for i in range(${times}) %}x{% endfor %}`);
    expect(() => loop(50_000).render(user)).toThrow(refused('not done after 20 s'));
    vi.mocked(systemClock.nowMs).mockReturnValue(20_000).mockReturnValueOnce(0);
    expect(loop(50_000).render(user)).toHaveLength(50_000);
  });

  test.each([['brackets', `{{ ${'('.repeat(100_000)} }}`], ['lists', `{{ ${'['.repeat(100_000)} }}`], ['conditions', '{% if x %}'.repeat(50_000)], ['nots', `{{ ${'not '.repeat(100_000)}x }}`]])(
    'deep %s', (_, text) => {
      expect(() => new ChatTemplate(text).render(user)).toThrow(refused());
    },
  );
});
