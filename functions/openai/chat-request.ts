/** What /v1/chat/completions takes: every field that is not here is refused by name, every value that would be ignored too. */
import { z } from '@hono/zod-openapi';

import type { ModelView } from '../../engine/control/platform.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { HttpError } from '../errors.ts';
import { type ChosenBudget, budgetOf, oneOf } from './budget.ts';
import { biasOf, content, effort, emptyList, hyperscale, labelsOf, length, logitBias, modelName, openaiLabels, sampling, samplingOf, seed, serviceTier, stop, textOf, width } from './fields.ts';
import { formatSpec, responseFormat, topLogprobs } from './output.ts';
import { callId, chatCalls, chatToolChoice, chatTools, checkAnswers, toolsSpec } from './tools.ts';

const name = z.string().min(1).max(256).optional();

const assistant = z.strictObject({
  role: z.literal('assistant'),
  content: content.optional(),
  name,
  reasoning_content: z.string().optional(),
  tool_calls: chatCalls.optional(),
  /** Of a completion's own message, handed back. */
  annotations: emptyList.optional(),
}).refine((turn) => turn.content !== undefined || (turn.tool_calls ?? []).length > 0, { path: ['content'], error: 'must be text in a turn without tool_calls' });

const message = z.discriminatedUnion('role', [
  z.strictObject({ role: z.literal('system'), content, name }),
  /** Templates know no `developer`: it is rendered as `system`. */
  z.strictObject({ role: z.literal('developer'), content, name }),
  z.strictObject({ role: z.literal('user'), content, name }),
  assistant,
  z.strictObject({ role: z.literal('tool'), content, name, tool_call_id: callId }),
], { error: 'must have a role: system, developer, user, assistant or tool' });

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
  logit_bias: logitBias.optional(),
  reasoning_effort: effort.optional().openapi({ description: 'A length and a width: GET /v1/models says which, for each model.' }),
  reasoning: z.strictObject({ effort: effort.optional() }).optional(),
  hyperscale: hyperscale.optional(),
  tools: chatTools.optional().openapi({ description: 'Functions that the model may call.' }),
  tool_choice: chatToolChoice.optional(),
  parallel_tool_calls: z.boolean().optional().openapi({ description: 'false: one call at most.' }),
  response_format: responseFormat.optional(),
  logprobs: z.boolean().optional().openapi({ description: 'Of the tokens of the content, under the model\'s own distribution.' }),
  top_logprobs: topLogprobs.optional().openapi({ description: 'The likeliest tokens in the place of each; needs logprobs.' }),
  // Values that say what is done anyway.
  modalities: z.array(z.literal('text')).min(1).max(1).optional(),
  service_tier: serviceTier,
  ...openaiLabels,
  store: z.boolean().optional().openapi({ description: 'Every request is a stored job. `false`: erased once it is answered.' }),
}).openapi('ChatCompletionRequest', { example: { model: 'countdown', messages: [{ role: 'user', content: '4 20 8 13 target 59' }], stream: true } });

export type ChatRequest = z.infer<typeof chatRequest>;

/** The job that a request asks for. @throws HttpError; EngineError ERR_MODEL_NOT_FOUND */
export async function chatJob(request: ChatRequest, models: () => Promise<readonly ModelView[]>): Promise<{ readonly spec: JobSpec; readonly budget: ChosenBudget }> {
  if (request.stream !== true && request.stream_options !== undefined) throw new HttpError('invalid_value', 'stream_options needs stream=true.', { param: 'stream_options' });
  if (request.logprobs !== true && request.top_logprobs !== undefined) throw new HttpError('invalid_value', 'top_logprobs needs logprobs=true.', { param: 'top_logprobs' });
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
  const bias = biasOf(request.logit_bias);
  const { tool_choice: choice, response_format: format } = request;
  const messages = request.messages.map(messageOf);
  checkAnswers(messages, (index) => `messages.${index}.tool_call_id`);
  const all = bias.length === 0 ? samplingSpec : { ...samplingSpec, logit_bias: bias };
  return {
    model: request.model,
    messages,
    ...toolsSpec({ tools: request.tools?.map((tool) => tool.function), choice: typeof choice === 'object' ? { name: choice.function.name } : choice, parallel: request.parallel_tool_calls }),
    ...budget.spec,
    ...labelsOf(request),
    ...(all === undefined ? {} : { sampling: all }),
    ...(request.seed === undefined ? {} : { seed: request.seed }),
    ...formatSpec(format?.type, format?.type === 'json_schema' ? format.json_schema.schema : undefined, 'response_format.json_schema.schema'),
    ...(request.logprobs === true ? { logprobs: request.top_logprobs ?? 0 } : {}),
    ...(request.stop === undefined ? {} : { stop: typeof request.stop === 'string' ? [request.stop] : request.stop }),
  };
}

function messageOf(turn: ChatRequest['messages'][number]): NonNullable<JobSpec['messages']>[number] {
  const said = {
    role: turn.role === 'developer' ? 'system' : turn.role,
    content: turn.content === undefined ? '' : textOf(turn.content),
    ...(turn.name === undefined ? {} : { name: turn.name }),
  };
  if (turn.role === 'tool') return { ...said, tool_call_id: turn.tool_call_id };
  if (turn.role !== 'assistant') return said;
  const { reasoning_content: reasoning, tool_calls: calls = [] } = turn;
  return {
    ...said,
    ...(reasoning === undefined ? {} : { reasoning_content: reasoning }),
    ...(calls.length === 0 ? {} : { tool_calls: calls }),
  };
}
