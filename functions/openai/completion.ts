/** A chat's answer, whole: of one request, and of a line of a batch. */
import { z } from '@hono/zod-openapi';

import type { JobView } from '../../engine/control/platform.ts';
import { electedChain } from '../../engine/job/elected.ts';
import type { Waited } from '../foreground.ts';
import type { ChosenBudget } from './budget.ts';
import { chatUsage, openaiFinish, outcomeOf, outcomeSchema, usageSchema } from './usage.ts';

export const completionSchema = z.object({
  id: z.string().openapi({ example: 'chatcmpl-01J9ZK0T9WQ2Y4ZJ4N5T6V7X8Y' }),
  object: z.literal('chat.completion'),
  created: z.int(),
  model: z.string(),
  choices: z.array(z.object({
    index: z.int(),
    message: z.object({ role: z.literal('assistant'), content: z.string(), reasoning_content: z.string().optional(), refusal: z.null() }),
    finish_reason: z.enum(['stop', 'length']),
    logprobs: z.null(),
  })),
  usage: usageSchema,
  hyperscale: outcomeSchema,
}).openapi('ChatCompletion');

export function completionOf(view: JobView, { separate }: Pick<ChosenBudget, 'separate'>, { transcript, result }: Waited): z.infer<typeof completionSchema> {
  const elected = separate ? null : electedChain(result);
  const shown = elected === null ? result.chains.map((_, chain) => chain) : [elected];
  return {
    id: `chatcmpl-${view.id}`,
    object: 'chat.completion',
    created: Math.floor(view.createdMs / 1_000),
    model: view.model,
    choices: shown.map((chain, index) => {
      const { reasoning, content } = transcript.chain(chain);
      const message = { role: 'assistant' as const, content, ...(reasoning === '' ? {} : { reasoning_content: reasoning }), refusal: null };
      return { index, message, finish_reason: openaiFinish(result.chains[chain]?.finish_reason ?? 'stop'), logprobs: null };
    }),
    usage: chatUsage(result.usage, transcript),
    hyperscale: outcomeOf(result, elected),
  };
}
