/** Models that look up the weather: each calls a function when it is asked, and answers in words when it has been told. */
import path from 'node:path';

import { type TableModel, writeTableModel } from './table-model.ts';

const ASKED = '<|assistant|>';
const TOLD = '<|answer|>';
const BEGIN = `{% if add_generation_prompt %}{{ '${TOLD}' if messages[-1].role == 'tool' else '${ASKED}' }}{% endif %}`;
const ANSWER = [TOLD, 'It is sunny', ' in Paris.'];
const CALL = ['<tool_call>', '\n{"name": "get_weather", ', '"arguments": ', '{"city": ', '"Paris"', '}', '}\n', '</tool_call>'];

/** As Hermes and Qwen: tools first, calls as JSON within their tags. */
const TEMPLATE = `{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for call in m.tool_calls or [] %}
<tool_call>{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}</tool_call>{% endfor %}
{% endfor %}${BEGIN}`;

const MODELS: Readonly<Record<string, TableModel>> = {
  /** Thinks, says something, and calls. */
  'weather-hermes': { template: TEMPLATE, lines: [[ASKED, '<think>', 'The sky is not known.', '</think>', '\n\n', 'I look', ' it up.', '\n', ...CALL], ANSWER] },
  /** Calls twice in one turn, and nothing else. */
  'weather-twice': { template: TEMPLATE, lines: [[ASKED, ...CALL, '\n<tool_call>', '{"name": "get_time", "arguments": {', '"zone": "CET"}}', '</tool_call>\n'], ANSWER] },
  /** Two ways of writing one call and one of writing another, all as likely: what chains vote about. */
  'weather-votes': {
    template: TEMPLATE,
    lines: [[ASKED, ...CALL], [ASKED, '<tool_call>{', '"arguments":{"city":"Paris"},', '"name":"get_weather"}</tool_call>'], [ASKED, '<tool_call>{"name": "get_time",', ' "arguments": {}}</tool_call>'], ANSWER],
  },
  /** Begins a call and does not end it: seven tokens and the end. */
  'weather-cut': { template: TEMPLATE, lines: [[ASKED, ...CALL.slice(0, 4), '"Pa', 'ris and', ' so on']] },
  /** Its markup is special tokens, which are no text otherwise. */
  'weather-mistral': {
    template: `{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}{% for m in messages %}{% for call in m.tool_calls or [] %}{% if call.id | length != 9 %}{{ raise_exception('Tool call IDs must have length 9!') }}{% endif %}[TOOL_CALLS][{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}, "id": "{{ call.id }}"}]{% else %}[{{ m.role }}]{{ m.content }}{% endfor %}{% endfor %}${BEGIN}`,
    lines: [[ASKED, '[TOOL_CALLS]', '[{"name": "get_weather", ', '"arguments": {"city": "Paris"}', '}]'], ANSWER],
    special: ['[TOOL_CALLS]'],
  },
  /** Its template has no word for tools: it is told of them in the system turn. */
  'weather-untold': { template: `{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}{{ '${TOLD}' if '<tool_response>' in messages[-1].content else '${ASKED}' }}{% endif %}`, lines: [[ASKED, ...CALL], ANSWER] },
  /** Shows tools, and writes calls as nobody else does. */
  'weather-unknown': { template: `{{ tools | tojson }}{% for m in messages %}{{ m.content }}{% for call in m.tool_calls or [] %}CALL {{ call.function.name }}{% endfor %}{% endfor %}${BEGIN}`, lines: [ANSWER] },
  /** Shows neither tools nor a system turn. */
  'weather-deaf': { template: `{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}${BEGIN}`, lines: [[ASKED, 'Hm.'], ANSWER] },
};

/** A root of models for RUMINATE_MODELS. */
export function writeToolModels(root: string): void {
  for (const [name, model] of Object.entries(MODELS)) writeTableModel(path.join(root, name), model);
}

export const WEATHER = { name: 'get_weather', description: 'The weather of a city.', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } };
export const TIME = { name: 'get_time', parameters: { type: 'object', properties: { zone: { type: 'string' } } } };
