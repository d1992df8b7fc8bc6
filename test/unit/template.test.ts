import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { promptOf } from '../../engine/job/prompt.ts';
import { parseSpec } from '../../engine/job/spec.ts';
import { templateIn, tokenizerIn } from '../../engine/model/directory.ts';
import { ChatTemplate } from '../../engine/model/template.ts';
import { Tokenizer } from '../../engine/model/tokenizer.ts';
import { COUNTDOWN, readProblems } from './support.ts';
import { byteLevel } from './tokenizers.ts';

const chat = { messages: [{ role: 'user', content: 'hi' }], addGenerationPrompt: true, bosToken: '<s>', eosToken: '</s>' };

describe('chat templates', () => {
  test('the bundled template gives the prompt of every problem', () => {
    const tokenizer = tokenizerIn(`${COUNTDOWN}/cr8`);
    const template = templateIn(`${COUNTDOWN}/cr8`, tokenizer.config);
    for (const { content, prompt, prompt_ids } of readProblems()) {
      const text = template?.render({ ...chat, messages: [{ role: 'user', content }], bosToken: tokenizer.bosToken, eosToken: tokenizer.eosToken }) ?? '';
      expect(text).toBe(prompt);
      expect(tokenizer.encode(text, { addSpecial: false })).toEqual(prompt_ids);
    }
  });

  test('has messages, tokens, the generation prompt, thinking and tools as variables', () => {
    const source = "{{ bos_token }}{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}{{ eos_token }}{% if add_generation_prompt %}>{% endif %}" +
      "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{% if tools %}{{ tools | length }}{% endif %}";
    const template = new ChatTemplate(source);
    expect(template.render(chat)).toBe('<s>[user:hi]</s>>');
    expect(template.render({ ...chat, addGenerationPrompt: false, enableThinking: false, tools: [{}] })).toBe('<s>[user:hi]</s><think></think>1');
  });

  test('comes as text, as a list of named templates, or as a file, which wins', () => {
    const directory = mkdtempSync(join(tmpdir(), 'template-'));
    try {
      expect(templateIn(directory, {})).toBeNull();
      expect(templateIn(directory, { chat_template: 'text' })?.render(chat)).toBe('text');
      const list = [{ name: 'tool_use', template: 'tools' }, { name: 'default', template: 'plain' }];
      expect(templateIn(directory, { chat_template: list })?.render(chat)).toBe('plain');
      writeFileSync(join(directory, 'chat_template.jinja'), 'file');
      expect(templateIn(directory, { chat_template: 'text' })?.render(chat)).toBe('file');
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test('a template that does not parse, refuses its messages or is no template is ERR_TEMPLATE', () => {
    const refused = expect.objectContaining({ code: 'ERR_TEMPLATE' });
    expect(() => new ChatTemplate('{% if %}')).toThrow(refused);
    expect(() => new ChatTemplate("{{ raise_exception('roles must alternate') }}").render(chat)).toThrow(expect.objectContaining({ code: 'ERR_TEMPLATE', message: expect.stringContaining('roles must alternate') }));
    expect(() => templateIn(COUNTDOWN, { chat_template: 7 })).toThrow(refused);
    expect(() => templateIn(COUNTDOWN, { chat_template: [] })).toThrow(refused);
    expect(() => new ChatTemplate('x'.repeat((1 << 20) + 1))).toThrow(refused);
  });

  test('a job hands on what its spec says for the template: thinking, tools, documents, the date, and the rest', () => {
    const template = new ChatTemplate("{{ [messages, enable_thinking, tools, documents, strftime_now('%d %b'), thinking_budget, add_generation_prompt] | tojson }}{% for m in messages %}{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}{% endfor %}");
    const tokenizer = Tokenizer.parse(byteLevel());
    const told = { enable_thinking: false, tools: [{ type: 'function', function: { name: 'f', description: 'd', parameters: {}, strict: true } }], documents: [{ b: 2 }], date: '2024-07-26', template_variables: { thinking_budget: 7, messages: 'no' } };
    const messages = [{ role: 'assistant', content: 'x', reasoning_content: 'r', tool_calls: [{ id: '1', type: 'function', function: { name: 'f', arguments: { x: 1 } } }] }, { role: 'tool', content: 'y', tool_call_id: '1', name: 'f' }];
    const { ids } = promptOf(parseSpec({ model: 'x', messages, kv: 'f32', ...told }), { name: 'x', template, tokenizer, vocabSize: tokenizer.vocabSize, context: 4_096 });
    const [shown = ''] = tokenizer.decode(ids, { skipSpecial: false }).split('<tool_call>');
    // `strict` is a word to the engine, not to the model.
    expect(JSON.parse(shown)).toEqual([messages, false, [{ type: 'function', function: { name: 'f', description: 'd', parameters: {} } }], [{ b: 2 }], '26 Jul', 7, true]);
  });

  describe('what is asked for and left out of the prompt is known by name', () => {
    const tokenizer = Tokenizer.parse(byteLevel());
    const ignored = (source: string | null, spec: object) => promptOf(parseSpec({ model: 'x', ...spec }), {
      name: 'x', template: source === null ? null : new ChatTemplate(source), tokenizer, vocabSize: tokenizer.vocabSize, context: 4_096,
    }).ignored;
    const SAYS = '{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}';
    const NAMES = '{% for m in messages %}[{{ m.name or m.role }}]{{ m.content }}{% endfor %}';
    const USERS = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}";
    const user = { role: 'user', content: 'x' };
    const ada = { ...user, name: 'ada' };
    const CALLS = "{% for m in messages %}{{ m.content }}{% for call in m.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}{% endfor %}";
    const called = [user, { role: 'assistant', content: '', tool_calls: [{ id: 'a', type: 'function', function: { name: 'f', arguments: '{}' } }] }];
    const result = { role: 'tool', content: 'y', tool_call_id: 'a' };

    test.each<[string | null, object, string | null]>([
      [SAYS, { messages: [user, ada] }, 'messages.1.name'],
      [SAYS, { messages: [user], instructions: 'i' }, null],
      [SAYS, { messages: [user], documents: [{ a: 1 }] }, 'documents'],
      [SAYS, { messages: [user], date: '2024-07-26' }, 'date'],
      [SAYS, { messages: [user], enable_thinking: true }, null],
      [NAMES, { messages: [user, ada] }, null],
      [`${NAMES}{{ documents | tojson }}{{ strftime_now('%d') }}`, { messages: [user], documents: [{ a: 1 }], date: '2024-07-26' }, null],
      [USERS, { messages: [{ role: 'system', content: 's' }, user] }, 'messages.0.content'],
      [USERS, { messages: [user], instructions: 's' }, 'instructions'],
      [USERS, { messages: [{ role: 'system', content: ' ' }, user] }, null],
      [`{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}${USERS}`, { messages: [{ role: 'system', content: 's' }, user] }, null],
      [CALLS, { messages: [...called, { ...result, name: 'f' }] }, null],
      [CALLS, { messages: [...called, { ...result, name: 'g' }] }, 'messages.2.name'],
      [null, { prompt: 'x', documents: [{ a: 1 }] }, 'documents'],
      [null, { prompt: 'x' }, null],
      [SAYS, { raw_prompt: 'x', enable_thinking: true }, 'enable_thinking'],
      [SAYS, { raw_prompt: 'x', tools: [{ type: 'function', function: { name: 'f' } }] }, 'tools'],
      [SAYS, { raw_prompt: 'x' }, null],
    ])('%s of %j: %s', (source, spec, field) => {
      expect(ignored(source, spec)).toBe(field);
    });

    test('however many roles there are, a template is asked of a few', () => {
      let asked = 0;
      const template = new ChatTemplate(NAMES);
      const counting = Object.assign(Object.create(template) as ChatTemplate, { render: (variables: Parameters<ChatTemplate['render']>[0]) => (asked++, template.render(variables)) });
      const messages = Array.from({ length: 40 }, (_, i) => ({ role: `role${i}`, content: 'x', name: `n${i}` }));
      promptOf(parseSpec({ model: 'x', messages }), { name: 'x', template: counting, tokenizer, vocabSize: tokenizer.vocabSize, context: 4_096 });
      expect(asked).toBe(2);
    });
  });
});
