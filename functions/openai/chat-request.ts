/** What /v1/chat/completions takes: every field that is not here is refused by name, every value that would be ignored too. */
import { z } from '@hono/zod-openapi';

import type { ModelView } from '../../engine/control/platform.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { HttpError } from '../errors.ts';
import { type ChosenBudget, budgetOf, oneOf } from './budget.ts';
import { content, effort, hyperscale, labels, labelsOf, length, modelName, sampling, samplingOf, seed, serviceTier, stop, textOf, width } from './fields.ts';

const name = z.string().min(1).max(256).optional();

const message = z.discriminatedUnion('role', [
  z.strictObject({ role: z.literal('system'), content, name }),
  /** Templates know no `developer`: it is rendered as `system`. */
  z.strictObject({ role: z.literal('developer'), content, name }),
  z.strictObject({ role: z.literal('user'), content, name }),
  z.strictObject({ role: z.literal('assistant'), content, name, reasoning_content: z.string().optional() }),
], { error: 'must have a role: system, developer, user or assistant' });

export const chatRequest = z.strictObject({
  model: modelName,
  messages: z.array(message).min(1).max(LIMITS.MESSAGES_MAX),
  stream: z.boolean().optional(),
  stream_options: z.strictObject({ include_usage: z.boolean().optional(), include_obfuscation: z.literal(false).optional() }).optional(),
  n: width.optional().openapi({ description: 'Above 1: so many chains, each a choice of its own, and no vote.' }),
  seed: seed.optional(),
  stop: stop.optional(),
  max_tokens: length.optional(),
  max_completion_tokens: length.optional(),
  ...sampling,
  logit_bias: z.record(z.string().regex(/^\d{1,7}$/), z.number().min(-100).max(100)).optional(),
  reasoning_effort: effort.optional().openapi({ description: 'A length and a width: GET /v1/models says which, for each model.' }),
  reasoning: z.strictObject({ effort: effort.optional() }).optional(),
  hyperscale: hyperscale.optional(),
  // Values that say what is done anyway.
  response_format: z.strictObject({ type: z.literal('text') }).optional(),
  tool_choice: z.literal('none').optional(),
  logprobs: z.literal(false).optional(),
  modalities: z.array(z.literal('text')).min(1).max(1).optional(),
  service_tier: serviceTier,
  ...labels,
  store: z.boolean().optional().openapi({ description: 'Every request is a stored job. `false`: erased once it is answered.' }),
}).openapi('ChatCompletionRequest', { example: { model: 'countdown', messages: [{ role: 'user', content: '4 20 8 13 target 59' }], stream: true } });

export type ChatRequest = z.infer<typeof chatRequest>;

/** The job that a request asks for. @throws HttpError; EngineError ERR_MODEL_NOT_FOUND */
export async function chatJob(request: ChatRequest, models: () => Promise<readonly ModelView[]>): Promise<{ readonly spec: JobSpec; readonly budget: ChosenBudget }> {
  if (request.stream !== true && request.stream_options !== undefined) throw new HttpError('invalid_value', 'stream_options needs stream=true.', { param: 'stream_options' });
  const budget = await budgetOf({
    model: request.model,
    effort: oneOf([['reasoning_effort', request.reasoning_effort], ['reasoning.effort', request.reasoning?.effort]]),
    hyperscale: request.hyperscale,
    lengths: [['max_completion_tokens', request.max_completion_tokens], ['max_tokens', request.max_tokens]],
    n: request.n ?? 1,
  }, models);
  return { spec: chatSpec(request, budget), budget };
}

function chatSpec(request: ChatRequest, budget: ChosenBudget): JobSpec {
  const samplingSpec = samplingOf(request);
  const bias = Object.entries(request.logit_bias ?? {}).map(([id, value]): [number, number] => [Number(id), value]);
  const all = bias.length === 0 ? samplingSpec : { ...samplingSpec, logit_bias: bias };
  return {
    model: request.model,
    messages: request.messages.map((turn) => ({
      role: turn.role === 'developer' ? 'system' : turn.role,
      content: textOf(turn.content),
      ...(turn.name === undefined ? {} : { name: turn.name }),
      ...(turn.role === 'assistant' && turn.reasoning_content !== undefined ? { reasoning_content: turn.reasoning_content } : {}),
    })),
    ...budget.spec,
    ...labelsOf(request),
    ...(all === undefined ? {} : { sampling: all }),
    ...(request.seed === undefined ? {} : { seed: request.seed }),
    ...(request.stop === undefined ? {} : { stop: typeof request.stop === 'string' ? [request.stop] : request.stop }),
  };
}
