/** What /v1/responses takes: every field that is not here is refused by name, every value that would be ignored too. */
import { z } from '@hono/zod-openapi';

import type { ModelView } from '../../engine/control/platform.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { HttpError } from '../errors.ts';
import { type ChosenBudget, budgetOf } from './budget.ts';
import { content, effort, hyperscale, labelsOf, length, modelName, openaiLabels, sampling, samplingOf, seed, serviceTier, textOf } from './fields.ts';
import { formatSpec, textFormat, topLogprobs } from './output.ts';
import { type Repeated, summaryKind } from './response-object.ts';
import { call, callId, checkAnswers, responseToolChoice, responseTools, toolsSpec } from './tools.ts';

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
  summary: z.array(z.strictObject({ type: z.literal('summary_text'), text: z.string() })),
  content: z.array(z.strictObject({ type: z.literal('reasoning_text'), text: z.string() })).optional(),
  ...handedBack,
});

const callItem = z.strictObject({ type: z.literal('function_call'), call_id: callId, ...call.shape, ...handedBack });

const resultItem = z.strictObject({ type: z.literal('function_call_output'), call_id: callId, output: content, ...handedBack });

const referenceItem = z.strictObject({ type: z.literal('item_reference'), id: z.string().min(1).max(256) });

const input = z.union([z.string().min(1), z.array(z.discriminatedUnion('type', [messageItem, reasoningItem, callItem, resultItem, referenceItem])).min(1).max(LIMITS.MESSAGES_MAX)], {
  error: 'must be text or a list of messages with a role and text, reasoning, function_call, function_call_output and item_reference; other items are not supported',
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
  reasoning: z.strictObject({
    effort: effort.optional(),
    summary: summaryKind.optional().openapi({ description: 'Any: what was thought is said as a summary too, whole.' }),
  }).optional(),
  hyperscale: hyperscale.optional(),
  tools: responseTools.optional().openapi({ description: 'Functions that the model may call.' }),
  tool_choice: responseToolChoice.optional(),
  parallel_tool_calls: z.boolean().optional().openapi({ description: 'false: one call at most.' }),
  text: z.strictObject({ format: textFormat.optional() }).optional(),
  include: z.array(z.literal('message.output_text.logprobs'), { error: 'must be a list of "message.output_text.logprobs", which is all that can be included' }).max(1).optional(),
  top_logprobs: topLogprobs.optional().openapi({ description: 'The likeliest tokens in the place of each; needs `include: ["message.output_text.logprobs"]`.' }),
  // Values that say what is done anyway.
  truncation: z.literal('disabled').optional(),
  service_tier: serviceTier,
  ...openaiLabels,
  store: z.boolean().optional().openapi({ description: 'Every request is a stored job. `false`: erased once it is answered.' }),
}).openapi('ResponseRequest', { example: { model: 'countdown', input: '4 20 8 13 target 59', reasoning: { effort: 'medium' } } });

export type ResponseRequest = z.infer<typeof responseRequest>;

type Messages = NonNullable<JobSpec['messages']>;

/** The job that a request asks for, but for the turns of the response before it. @throws HttpError; EngineError ERR_MODEL_NOT_FOUND */
export async function responseJob(request: ResponseRequest, models: () => Promise<readonly ModelView[]>): Promise<JobSpec> {
  const { model, reasoning, hyperscale, max_output_tokens: length } = request;
  return responseSpec(request, await budgetOf({ model, effort: reasoning?.effort, hyperscale, lengths: [['max_output_tokens', length]], n: 1 }, models));
}

function responseSpec(request: ResponseRequest, budget: ChosenBudget): JobSpec {
  const { tool_choice: choice } = request;
  const samplingSpec = samplingOf(request);
  const format = request.text?.format;
  const includesLogprobs = (request.include ?? []).length > 0;
  if (!includesLogprobs && request.top_logprobs !== undefined) {
    throw new HttpError('invalid_value', 'top_logprobs needs include=["message.output_text.logprobs"].', { param: 'top_logprobs' });
  }
  // A token may be of a call and of the text beside it.
  if (includesLogprobs && (request.tools ?? []).length > 0) throw new HttpError('invalid_value', 'include must be empty with tools.', { param: 'include' });
  const messages = typeof request.input === 'string' ? [{ role: 'user', content: request.input }] : messagesOf(request.input);
  // Of a response before this one there may be calls to answer: the engine knows them.
  if (request.previous_response_id === undefined) checkAnswers(messages, () => 'input');
  return {
    model: request.model,
    messages,
    ...(request.instructions === undefined ? {} : { instructions: request.instructions }),
    ...toolsSpec({ tools: request.tools, choice: typeof choice === 'object' ? { name: choice.name } : choice, parallel: request.parallel_tool_calls }),
    ...budget.spec,
    ...labelsOf(request, repeatedOf(request)),
    ...(samplingSpec === undefined ? {} : { sampling: samplingSpec }),
    ...(request.seed === undefined ? {} : { seed: request.seed }),
    ...formatSpec(format?.type, format?.type === 'json_schema' ? format.schema : undefined, 'text.format.schema'),
    ...(includesLogprobs ? { logprobs: request.top_logprobs ?? 0 } : {}),
  };
}

/** What is asked of the response and not of its job; defaults are not written down. */
function repeatedOf({ background, store, reasoning, text, tools = [], tool_choice: choice, parallel_tool_calls: parallel }: ResponseRequest): Repeated {
  const format = text?.format;
  return {
    background: background === true ? true : undefined,
    store: store === false ? false : undefined,
    effort: reasoning?.effort,
    summary: reasoning?.summary,
    format: format?.type === 'json_schema' ? { name: format.name, description: format.description, strict: format.strict } : undefined,
    // Of tools the job itself says it.
    tool_choice: tools.length === 0 && choice === 'none' ? choice : undefined,
    parallel_tool_calls: tools.length === 0 ? parallel : undefined,
  };
}

/** What an assistant thought, said and called one after the other is one turn of it, whichever of the three there are. */
function messagesOf(items: Exclude<ResponseRequest['input'], string>): Messages {
  const messages: Messages = [];
  let thoughts: readonly string[] = [];
  const thinking = () => (thoughts.length === 0 ? {} : { reasoning_content: thoughts.join('\n') });
  // A turn that was cut before anything was said or called.
  const leave = () => void (thoughts.length > 0 && messages.push({ role: 'assistant', content: '', ...thinking() }));
  for (const item of items) {
    if (item.type === 'item_reference') throw new HttpError('invalid_value', 'input must not have an item_reference here: give the item itself.', { param: 'input' });
    if (item.type === 'reasoning') {
      // A summary is the same text again; clients that know nothing else hand back it alone.
      thoughts = [...thoughts, (item.content === undefined || item.content.length === 0 ? item.summary : item.content).map(({ text }) => text).join('')];
      continue;
    }
    if (item.type === 'function_call') {
      const made = { id: item.call_id, type: 'function' as const, function: { name: item.name, arguments: item.arguments } };
      const last = messages.at(-1);
      if (last?.role === 'assistant' && thoughts.length === 0) messages[messages.length - 1] = { ...last, tool_calls: [...(last.tool_calls ?? []), made] };
      else messages.push({ role: 'assistant', content: '', ...thinking(), tool_calls: [made] });
    } else if (item.type === 'function_call_output') {
      leave();
      messages.push({ role: 'tool', content: textOf(item.output), tool_call_id: item.call_id });
    } else if (item.role === 'assistant') {
      messages.push({ role: 'assistant', content: textOf(item.content), ...thinking() });
    } else {
      leave();
      messages.push({ role: item.role === 'developer' ? 'system' : item.role, content: textOf(item.content) });
    }
    thoughts = [];
  }
  leave();
  return messages;
}
