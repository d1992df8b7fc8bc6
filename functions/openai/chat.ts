/** POST /v1/chat/completions. Every request is a stored job: its id is in `x-ruminate-job`, and `chatcmpl-<id>` is the completion's. */
import { z } from '@hono/zod-openapi';

import type { JobView } from '../../engine/control/platform.ts';
import { type Registry, endpoint, noteFailed } from '../endpoint.ts';
import { HttpError } from '../errors.ts';
import { type Waited, cancelQuietly, waitFor } from '../foreground.ts';
import { idempotencyHeaders, idempotencyKey, submit } from '../idempotency.ts';
import { frame, sseResponse, sseSchema } from '../sse.ts';
import { electedChain } from '../transcript.ts';
import { type ChosenBudget, budgetOf, oneOf } from './budget.ts';
import { chatRequest, chatSpec } from './chat-request.ts';
import { chatFrames } from './chat-stream.ts';
import { envelopeOf, errorSchema } from './errors.ts';
import { chatUsage, openaiFinish, outcomeOf, outcomeSchema, usageSchema } from './usage.ts';

const completion = z.object({
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

const DESCRIPTION = `One choice is the chain that the vote elected; with \`n\` above 1 there is no vote, and each chain is a choice.

Streams: one chain, or \`n\` choices, are sent token by token, thinking as \`reasoning_content\`. While several chains vote, chunks with an
empty delta say how far each is (\`hyperscale.chains\`); the elected chain's text comes at the end.

A client that goes away cancels the job, unless it gave an Idempotency-Key to come back with.`;

export function chatCompletions(registry: Registry): void {
  const { services } = registry;
  endpoint(registry, {
    method: 'post',
    path: '/v1/chat/completions',
    tag: 'OpenAI',
    summary: 'Answer a chat',
    description: DESCRIPTION,
    scope: 'write',
    loads: true,
    body: chatRequest,
    headers: idempotencyHeaders,
    responses: {
      200: { description: 'The completion, or its chunks', content: { 'application/json': { schema: completion }, 'text/event-stream': { schema: sseSchema } } },
      '4XX': { description: 'Refused', content: { 'application/json': { schema: errorSchema } } },
      '5XX': { description: 'Failed', content: { 'application/json': { schema: errorSchema } } },
    },
  }, async ({ c, caller, body, signal, hold }) => {
    const { tenant } = caller;
    if (body.stream !== true && body.stream_options !== undefined) throw new HttpError('invalid_value', 'stream_options needs stream=true.', { param: 'stream_options' });
    const key = idempotencyKey(c.req.raw);
    const budget = await budgetOf({
      model: body.model,
      effort: oneOf([['reasoning_effort', body.reasoning_effort], ['reasoning.effort', body.reasoning?.effort]]),
      hyperscale: body.hyperscale,
      lengths: [['max_completion_tokens', body.max_completion_tokens], ['max_tokens', body.max_tokens]],
      n: body.n ?? 1,
    }, () => services.platform.models({ tenant, signal }));
    const view = await submit(services, chatSpec(body, budget), { tenant, key });
    c.set('job', view.id);
    const headers = { 'x-ruminate-job': view.id };
    if (body.stream !== true) {
      const waited = await waitFor(services, view.id, tenant, signal, key !== undefined);
      return Response.json(completionOf(view, budget, waited), { headers });
    }
    const release = hold();
    const options = { ...budget, view, includeUsage: body.stream_options?.include_usage === true, progressMs: services.progressMs, clock: services.clock };
    return sseResponse((gone) => chatFrames(services.platform.events(view.id, { tenant, signal: gone }), options), {
      ...services,
      headers,
      onError: (error) => frame(JSON.stringify(envelopeOf(noteFailed(services, c, error)))),
      onEnd: (gone) => {
        release();
        if (gone && key === undefined) void cancelQuietly(services, view.id, tenant);
      },
    });
  });
}

function completionOf(view: JobView, { separate }: ChosenBudget, { transcript, result }: Waited): z.infer<typeof completion> {
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
