/** A chat's answer, whole: of one request, and of a line of a batch. */
import { z } from '@hono/zod-openapi';

import type { JobView } from '../../engine/control/platform.ts';
import { callIdOf } from '../../engine/job/call-id.ts';
import { electedChain } from '../../engine/job/elected.ts';
import type { Waited } from '../foreground.ts';
import { type ChainText, callsOf, contentOf } from '../transcript.ts';
import type { ChosenBudget } from './budget.ts';
import { openAiLogprobs, tokenLogprobSchema } from './output.ts';
import { chatCalls } from './tools.ts';
import { chatFinish, chatUsage, outcomeOf, outcomeSchema, usageSchema } from './usage.ts';

export const completionSchema = z.object({
  id: z.string().openapi({ example: 'chatcmpl-01J9ZK0T9WQ2Y4ZJ4N5T6V7X8Y' }),
  object: z.literal('chat.completion'),
  created: z.int(),
  model: z.string(),
  choices: z.array(z.object({
    index: z.int(),
    message: z.object({
      role: z.literal('assistant'),
      content: z.string().nullable().openapi({ description: 'null: the turn only calls functions.' }),
      reasoning_content: z.string().optional(),
      tool_calls: chatCalls.optional(),
      refusal: z.null(),
    }),
    finish_reason: z.enum(['stop', 'tool_calls', 'length']),
    logprobs: z.object({ content: z.array(tokenLogprobSchema), refusal: z.null() }).nullable(),
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
      const text = transcript.chain(chain);
      const calls = chatCallsOf(view.id, chain, text);
      const content = contentOf(text);
      const message = {
        role: 'assistant' as const,
        content: content === '' && calls.length > 0 ? null : content,
        ...(text.reasoning === '' ? {} : { reasoning_content: text.reasoning }),
        ...(calls.length === 0 ? {} : { tool_calls: calls }),
        refusal: null,
      };
      const logprobs = text.logprobs === null ? null : { content: openAiLogprobs(text.logprobs), refusal: null };
      return { index, message, finish_reason: chatFinish(result.chains[chain]?.finish_reason ?? 'stop', calls.length), logprobs };
    }),
    usage: chatUsage(result.usage, transcript),
    hyperscale: outcomeOf(result, elected),
  };
}

function chatCallsOf(job: string, chain: number, text: ChainText): z.infer<typeof chatCalls> {
  return callsOf(text).map((call, index) => ({ id: callIdOf(job, chain, index), type: 'function' as const, function: { name: call.name, arguments: call.arguments } }));
}
