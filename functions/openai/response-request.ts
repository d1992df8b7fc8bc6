/** What /v1/responses takes: every field that is not here is refused by name, every value that would be ignored too. */
import { z } from '@hono/zod-openapi';

import { LIMITS } from '../../engine/core/limits.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import type { ChosenBudget } from './budget.ts';
import { content, effort, emptyList, hyperscale, labels, labelsOf, length, modelName, sampling, samplingOf, seed, serviceTier, textOf } from './fields.ts';

/** Of an item that a response gave and a client hands back. */
const handedBack = { id: z.string().max(256).optional(), status: z.enum(['in_progress', 'completed', 'incomplete']).optional() };

const messageItem = z.strictObject({
  type: z.literal('message').optional(),
  role: z.enum(['user', 'assistant', 'system', 'developer']),
  content,
  ...handedBack,
});

const reasoningItem = z.strictObject({
  type: z.literal('reasoning'),
  summary: emptyList,
  content: z.array(z.strictObject({ type: z.literal('reasoning_text'), text: z.string() })).optional(),
  ...handedBack,
});

const input = z.union([z.string().min(1), z.array(z.union([messageItem, reasoningItem])).min(1).max(LIMITS.MESSAGES_MAX)], {
  error: 'must be text or a list of messages with a role and text; other items are not supported',
});

export const responseRequest = z.strictObject({
  model: modelName,
  input,
  instructions: z.string().min(1).optional().openapi({ description: 'The first system turn.' }),
  previous_response_id: z.string().min(1).max(128).optional().openapi({ description: 'The response to whose answer the input is the next turn. Its instructions are not inherited.' }),
  stream: z.boolean().optional(),
  stream_options: z.strictObject({ include_obfuscation: z.literal(false).optional() }).optional(),
  background: z.boolean().optional().openapi({ description: 'Answer at once; the response goes on without its client.' }),
  max_output_tokens: length.optional(),
  ...sampling,
  seed: seed.optional(),
  reasoning: z.strictObject({ effort: effort.optional() }).optional(),
  hyperscale: hyperscale.optional(),
  // Values that say what is done anyway.
  text: z.strictObject({ format: z.strictObject({ type: z.literal('text') }).optional() }).optional(),
  tool_choice: z.literal('none').optional(),
  truncation: z.literal('disabled').optional(),
  include: emptyList.optional(),
  service_tier: serviceTier,
  ...labels,
  store: z.boolean().optional().openapi({ description: 'Every request is a stored job. `false`: erased once it is answered.' }),
}).openapi('ResponseRequest', { example: { model: 'countdown', input: '4 20 8 13 target 59', reasoning: { effort: 'medium' } } });

export type ResponseRequest = z.infer<typeof responseRequest>;

type Messages = NonNullable<JobSpec['messages']>;

export function responseSpec(request: ResponseRequest, budget: ChosenBudget): JobSpec {
  const samplingSpec = samplingOf(request);
  const messages = typeof request.input === 'string' ? [{ role: 'user', content: request.input }] : messagesOf(request.input);
  return {
    model: request.model,
    messages,
    ...(request.instructions === undefined ? {} : { instructions: request.instructions }),
    ...budget.spec,
    ...labelsOf(request),
    ...(samplingSpec === undefined ? {} : { sampling: samplingSpec }),
    ...(request.seed === undefined ? {} : { seed: request.seed }),
  };
}

/** What was thought belongs to the assistant's turn that comes next. */
function messagesOf(items: Exclude<ResponseRequest['input'], string>): Messages {
  const messages: Messages = [];
  let thought: string | null = null;
  for (const item of items) {
    if (item.type === 'reasoning') {
      thought = (item.content ?? []).map(({ text }) => text).join('');
      continue;
    }
    const role = item.role === 'developer' ? 'system' : item.role;
    const reasoning = role === 'assistant' && thought !== null ? { reasoning_content: thought } : {};
    messages.push({ role, content: textOf(item.content), ...reasoning });
    thought = null;
  }
  return messages;
}
