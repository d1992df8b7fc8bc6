/** What a response was made of, as the items that OpenAI's client lists: all turns that the model was shown, those of responses before it too. */
import { z } from '@hono/zod-openapi';

import type { Turn } from '../../engine/control/platform.ts';
import { HttpError } from '../errors.ts';
import { listLimit } from '../query.ts';
import { pageResponse, pageSchema } from './list.ts';
import { outputText, reasoningItem, callItem } from './response-object.ts';

const status = z.literal('completed');

const inputItemSchema = z.union([
  z.object({ type: z.literal('message'), id: z.string(), role: z.string(), status, content: z.array(z.object({ type: z.literal('input_text'), text: z.string() })) }),
  z.object({ type: z.literal('message'), id: z.string(), role: z.literal('assistant'), status, content: z.array(outputText) }),
  reasoningItem,
  callItem,
  z.object({ type: z.literal('function_call_output'), id: z.string(), call_id: z.string(), output: z.string(), status }),
]);

type InputItem = z.infer<typeof inputItemSchema>;

export const inputItemsQuery = z.strictObject({
  limit: listLimit,
  order: z.enum(['asc', 'desc']).default('desc').openapi({ description: '`asc`: as they were said.' }),
  after: z.string().max(256).optional().openapi({ description: 'The id after which to go on, in that order.' }),
});

export const inputItemsSchema = pageSchema(inputItemSchema).openapi('ResponseItemList');

/** @throws HttpError invalid_value: `after` is no item of these. */
export function inputItemsPage(job: string, turns: readonly Turn[], { limit, order, after }: z.infer<typeof inputItemsQuery>): Response {
  const items = turns.flatMap(itemsOf).map((item, i) => ({ id: `${PREFIX[item.type]}_${job}_in_${i}`, ...item }));
  const ordered = order === 'asc' ? items : items.toReversed();
  const from = after === undefined ? 0 : ordered.findIndex(({ id }) => id === after) + 1;
  if (after !== undefined && from === 0) throw new HttpError('invalid_value', 'after must be the id of an item of this list.', { param: 'after' });
  return pageResponse(ordered.slice(from, from + limit), from + limit < ordered.length);
}

const PREFIX = { message: 'msg', reasoning: 'rs', function_call: 'fc', function_call_output: 'fco' } as const;

type Unnamed<T> = T extends unknown ? Omit<T, 'id'> : never;

/** One turn of an assistant may be several: what it thought, said and called. */
function itemsOf({ role, content, reasoning_content: thought, tool_calls: calls = [], tool_call_id: answered }: Turn): readonly Unnamed<InputItem>[] {
  const done = { status: 'completed' as const };
  if (role === 'tool') return [{ type: 'function_call_output', call_id: answered ?? '', output: content, ...done }];
  if (role !== 'assistant') return [{ type: 'message', role, content: [{ type: 'input_text', text: content }], ...done }];
  return [
    ...(thought === undefined ? [] : [{ type: 'reasoning' as const, summary: [], content: [{ type: 'reasoning_text' as const, text: thought }], ...done }]),
    ...(content === '' && calls.length > 0 ? [] : [{ type: 'message' as const, role: 'assistant' as const, content: [{ type: 'output_text' as const, text: content, annotations: [], logprobs: [] }], ...done }]),
    ...calls.map(({ id, function: { name, arguments: given } }) => ({ type: 'function_call' as const, call_id: id ?? '', name, arguments: typeof given === 'string' ? given : JSON.stringify(given), ...done })),
  ];
}
