/** Any bytes as a chat template, and as the text of a turn. */
import { ChatTemplate } from '../../engine/model/template.ts';
import { partsOf, refused, shortenWaits } from './input.ts';

shortenWaits();

export function fuzz(data: Uint8Array): void {
  const [source = '', text = 'u', date] = partsOf(data);
  refused(['ERR_TEMPLATE'], () => {
    new ChatTemplate(source).render({
      messages: [
        { role: 'system', content: 's' },
        { role: 'user', content: text },
        { role: 'assistant', content: null, reasoning_content: text, tool_calls: [{ type: 'function', function: { name: 'f', arguments: { a: 1, b: [text] } } }] },
        { role: 'tool', content: '4', tool_call_id: 'c' },
      ],
      tools: [{ type: 'function', function: { name: 'f', description: text, parameters: { type: 'object', properties: {} } } }],
      addGenerationPrompt: true, bosToken: '<s>', eosToken: null, enableThinking: true, date,
    });
  });
}
