/** What real chat templates know of tools, as they are asked, and what a model is told that its template has no words for. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

import { type Turn, conversationOf, toolsOf } from '../../engine/model/calls/prompt.ts';
import { writeCalls } from '../../engine/model/calls/syntax.ts';
import { ChatTemplate } from '../../engine/model/template.ts';
import { TIME, WEATHER } from '../helpers/tool-models.ts';

const FIXTURES = fileURLToPath(new URL('../fixtures-own/templates', import.meta.url));
const fixture = (name: string) => new ChatTemplate(readFileSync(`${FIXTURES}/${name}.jinja`, 'utf8'));
const TOKENS = { bosToken: '<BOS>', eosToken: '<EOS>' };
const TOOLS = [WEATHER, TIME].map((declared) => ({ type: 'function' as const, function: { ...declared, strict: true } }));
const call = (id: string, city: string) => ({ id, name: 'get_weather', arguments: `{"city": "${city}"}` });
const TURNS: readonly Turn[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'How is it in Paris?' },
  { role: 'assistant', content: '', calls: [call('call_0123456789', 'Paris')] },
  { role: 'tool', content: 'blue', tool_call_id: 'call_0123456789' },
];

function render(template: ChatTemplate, turns: readonly Turn[] = TURNS, tools = TOOLS): string {
  return template.render({ ...TOKENS, ...conversationOf(turns, tools, toolsOf(template, TOKENS)), addGenerationPrompt: true, date: '2024-07-26' });
}

const ALL = { tools: true, calls: true, results: true };

describe.each<[string, string, object, string]>([
  ['qwen3', 'hermes', ALL, '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'],
  ['qwen2.5', 'hermes', ALL, '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'],
  ['hermes-3-tool-use', 'hermes', ALL, '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'],
  ['llama-3.1-instruct', 'llama', ALL, '{"name": "get_weather", "parameters": {"city": "Paris"}}'],
  ['mistral-nemo', 'mistral', ALL, '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "'],
  ['devstral', 'mistral_args', ALL, '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}'],
  ['r1-distill-qwen', 'deepseek', { ...ALL, tools: false }, 'function<｜tool▁sep｜>get_weather\n```json\n{"city": "Paris"}\n```'],
  ['r1-distill-llama', 'deepseek', { ...ALL, tools: false }, 'function<｜tool▁sep｜>get_weather\n```json\n{"city": "Paris"}\n```'],
  ['smollm2', 'hermes', { tools: false, calls: false, results: false }, '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'],
])('%s', (name, syntax, shows, written) => {
  const template = fixture(name);

  test('is known by what it makes of a call', () => {
    expect(toolsOf(template, TOKENS)).toMatchObject({ syntax: { name: syntax }, shows });
  });

  test('shows the tools, what was said, the call and its result, each once and in their order', () => {
    const text = render(template);
    const places = ['get_time', 'How is it in Paris?', written, 'blue'].map((words) => text.indexOf(words));
    expect(places).not.toContain(-1);
    if (name !== 'llama-3.1-instruct' && !name.startsWith('mistral') && name !== 'devstral') expect(places).toEqual(places.toSorted((a, b) => a - b));
    expect(text.split(written)).toHaveLength(2);
    expect(text.split('blue')).toHaveLength(2);
    expect(text).not.toMatch(/\bNone\b|\[object|strict/);
  });

  test('what it shows as a call is read as one', () => {
    expect(writeCalls(toolsOf(template, TOKENS).syntax, [call('', 'Paris')]).replace(/\s/g, '')).toContain(written.replace(/\s/g, '').replace(/,"id":"$/, ''));
  });
});

describe('what a template has no words for', () => {
  const plain = new ChatTemplate('{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}');

  test('is told in the system turn, made if there is none, and results come from the user, those of one turn together', () => {
    const turns: readonly Turn[] = [
      { role: 'user', content: 'Q' },
      { role: 'assistant', content: 'I look.', calls: [call('a', 'Paris'), call('b', 'Rome')] },
      { role: 'tool', content: 'blue', tool_call_id: 'a' }, { role: 'tool', content: 'grey', tool_call_id: 'b' },
      { role: 'assistant', content: 'Blue and grey.' },
    ];
    const { messages, tools } = conversationOf(turns, TOOLS, toolsOf(plain, TOKENS));
    expect(tools).toBeUndefined();
    expect(messages.map(({ role }) => role)).toEqual(['system', 'user', 'assistant', 'user', 'assistant']);
    expect(messages[0]?.content).toBe(`# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
${JSON.stringify({ type: 'function', function: WEATHER })}
${JSON.stringify({ type: 'function', function: { name: TIME.name, description: '', parameters: TIME.parameters } })}
</tools>

For each function call, return the function name and a JSON object of its arguments as follows:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>`);
    expect(messages[2]?.content).toBe('I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>');
    expect(messages[3]?.content).toBe('<tool_response>\nblue\n</tool_response>\n<tool_response>\ngrey\n</tool_response>');
  });

  test('follows what a system turn says already', () => {
    const { messages } = conversationOf(TURNS, TOOLS, toolsOf(plain, TOKENS));
    expect(messages[0]?.content).toMatch(/^Be brief\.\n\n# Tools/);
    expect(messages).toHaveLength(4);
  });

  test('a template that shows tools and writes calls as nobody else is refused', () => {
    const odd = new ChatTemplate('{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% for call in m.tool_calls or [] %}call:{{ call.function.name }}{% endfor %}{% endfor %}');
    expect(() => toolsOf(odd, TOKENS)).toThrow(expect.objectContaining({ code: 'ERR_TOOLS' }) as Error);
  });
});

describe('identifiers', () => {
  test('are as the client has them, and nine characters where a template takes no others, the same for call and result', () => {
    expect(render(fixture('qwen3'))).not.toContain('call_0');
    const text = render(fixture('mistral-nemo'));
    const [id] = /(?<="id": ")[0-9a-z]{9}(?=")/.exec(text) ?? [];
    expect(text.split(id ?? 'none')).toHaveLength(3);
    expect(render(fixture('mistral-nemo'), TURNS.map((turn) => ({ ...turn, ...(turn.role === 'tool' ? { tool_call_id: 'abcDEF123' } : {}), calls: turn.calls?.map((made) => ({ ...made, id: 'abcDEF123' })) })))).toContain('abcDEF123');
  });
});

test('a model with a template of its own for tools uses it for chats with tools', () => {
  const chat_template = [{ name: 'default', template: 'plain' }, { name: 'tool_use', template: 'with tools' }];
  const template = ChatTemplate.of(null, chat_template);
  expect([template?.source, template?.forTools.source]).toEqual(['plain', 'with tools']);
  expect(ChatTemplate.of(null, 'plain')?.forTools.source).toBe('plain');
});
