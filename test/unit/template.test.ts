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
    const template = new ChatTemplate("{{ [messages, enable_thinking, tools, documents, strftime_now('%d %b'), thinking_budget, add_generation_prompt] | tojson }}");
    const tokenizer = Tokenizer.parse(byteLevel());
    const told = { enable_thinking: false, tools: [{ a: 1 }], documents: [{ b: 2 }], date: '2024-07-26', template_variables: { thinking_budget: 7, messages: 'no' } };
    const messages = [{ role: 'assistant', content: 'x', reasoning_content: 'r', tool_calls: [{}] }, { role: 'tool', content: 'y', tool_call_id: '1', name: 'f' }];
    const { ids } = promptOf(parseSpec({ model: 'x', messages, kv: 'f32', ...told }), { name: 'x', template, tokenizer, vocabSize: tokenizer.vocabSize, context: 4_096 });
    expect(JSON.parse(tokenizer.decode(ids, { skipSpecial: false }))).toEqual([messages, false, [{ a: 1 }], [{ b: 2 }], '26 Jul', 7, true]);
  });
});
