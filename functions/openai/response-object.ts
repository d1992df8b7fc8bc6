/** A job as OpenAI's response object. It says what the job's state and events say, so every instance gives the same. */
import { z } from '@hono/zod-openapi';

import type { JobView } from '../../engine/control/platform.ts';
import { callIdOf } from '../../engine/job/call-id.ts';
import { electedChain } from '../../engine/job/elected.ts';
import type { FinishReason, JobResult } from '../../engine/job/generate.ts';
import type { TokenLogprob } from '../../engine/job/logprobs.ts';
import { failureOf } from '../errors.ts';
import { endError } from '../foreground.ts';
import { STATUS, type JobStatus } from '../jobs/views.ts';
import type { ChainText, Transcript } from '../transcript.ts';
import { effort, emptyList } from './fields.ts';
import { openAiLogprobs, textFormat, tokenLogprobSchema } from './output.ts';
import { repeatedTools, responseToolChoice, responseToolsOf } from './tools.ts';
import { hyperscaleUsage, outcomeOf, outcomeSchema } from './usage.ts';

const reasoningText = z.object({ type: z.literal('reasoning_text'), text: z.string() });
export const outputText = z.object({ type: z.literal('output_text'), text: z.string(), annotations: emptyList, logprobs: z.array(tokenLogprobSchema) });
const itemStatus = z.enum(['in_progress', 'completed', 'incomplete']);

const summaryText = z.object({ type: z.literal('summary_text'), text: z.string() });
/** However much of one is asked for, it is the text: no model here writes another. */
export const summaryKind = z.enum(['auto', 'concise', 'detailed']);

export const reasoningItem = z.object({ type: z.literal('reasoning'), id: z.string(), summary: z.array(summaryText), content: z.array(reasoningText), status: itemStatus });
export const callItem = z.object({ type: z.literal('function_call'), id: z.string(), call_id: z.string(), name: z.string(), arguments: z.string(), status: itemStatus });
const itemSchema = z.discriminatedUnion('type', [
  reasoningItem,
  z.object({ type: z.literal('message'), id: z.string(), role: z.literal('assistant'), status: itemStatus, content: z.array(outputText) }),
  callItem,
]);

/** OpenAI's word where the chain had as many tokens as it might; what else can cut one has no word there, and goes by ours. */
const CUT = { length: 'max_output_tokens', kv_read_budget: 'kv_read_budget', memory: 'memory', deadline: 'deadline', cancelled: 'cancelled', early_stop: 'early_stop' } as const satisfies Record<Exclude<FinishReason, 'stop'>, string>;

export const responseSchema = z.object({
  id: z.string().openapi({ example: 'resp_01J9ZK0T9WQ2Y4ZJ4N5T6V7X8Y' }),
  object: z.literal('response'),
  created_at: z.int(),
  completed_at: z.int().nullable().openapi({ description: 'Unix time, seconds, of one that is `completed`.' }),
  model: z.string(),
  status: z.enum(['queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled']),
  output: z.array(itemSchema),
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
  incomplete_details: z.object({ reason: z.enum(Object.values(CUT)) }).nullable().openapi({ description: 'What cut the chain that is shown; all but `max_output_tokens` are this platform\'s own words.' }),
  usage: z.object({
    input_tokens: z.int(),
    input_tokens_details: z.object({ cached_tokens: z.int(), cache_write_tokens: z.literal(0) }),
    output_tokens: z.int(),
    output_tokens_details: z.object({ reasoning_tokens: z.int() }),
    total_tokens: z.int(),
    hyperscale: z.record(z.string(), z.number()),
  }).nullable(),
  hyperscale: z.union([outcomeSchema, z.null()]),
  previous_response_id: z.string().nullable(),
  metadata: z.record(z.string(), z.string()),
  user: z.string().nullable(),
  service_tier: z.literal('default'),
  temperature: z.number().nullable(),
  top_p: z.number().nullable(),
  max_output_tokens: z.int().openapi({ description: 'What was asked for, or what it came to.' }),
  instructions: z.string().nullable(),
  reasoning: z.object({ effort: effort.nullable(), summary: summaryKind.nullable() }),
  text: z.object({ format: textFormat }),
  top_logprobs: z.int(),
  background: z.boolean(),
  store: z.boolean(),
  safety_identifier: z.string().nullable(),
  prompt_cache_key: z.string().nullable(),
  truncation: z.literal('disabled'),
  tools: repeatedTools,
  tool_choice: responseToolChoice,
  parallel_tool_calls: z.boolean(),
}).openapi('Response');

/** What a response says again of its request although its job does not depend on it, as the job keeps it. Where it is not there, nothing was said. */
const repeatedFields = z.object({
  background: z.boolean(),
  store: z.boolean(),
  effort,
  summary: summaryKind,
  format: z.object({ name: z.string(), description: z.string(), strict: z.boolean().nullable() }).partial(),
  tool_choice: z.literal('none'),
  parallel_tool_calls: z.boolean(),
  safety_identifier: z.string(),
  prompt_cache_key: z.string(),
}).partial();

export type Repeated = z.infer<typeof repeatedFields>;
export type ResponseObject = z.infer<typeof responseSchema>;
export type OutputItem = z.infer<typeof itemSchema>;

const ID = 'resp_';

export function responseId(job: string): string {
  return ID + job;
}

/** '': no id of a response. */
export function jobOfResponse(id: string): string {
  return id.startsWith(ID) ? id.slice(ID.length) : '';
}

function repeatedOf({ asked }: JobView): Repeated {
  return repeatedFields.safeParse(asked.repeated ?? {}).data ?? {};
}

/** While it has not ended. */
export function pendingResponse(view: JobView, status: JobStatus): ResponseObject {
  const { temperature, topP, instructions, logprobs } = view.asked;
  const repeated = repeatedOf(view);
  return {
    id: responseId(view.id),
    object: 'response',
    created_at: Math.floor(view.createdMs / 1_000),
    completed_at: null,
    model: view.model,
    status,
    output: [],
    error: null,
    incomplete_details: null,
    usage: null,
    hyperscale: null,
    previous_response_id: view.parent?.kind === 'continue' ? responseId(view.parent.job) : null,
    metadata: { ...view.metadata },
    user: view.user,
    service_tier: 'default',
    temperature,
    top_p: topP,
    max_output_tokens: view.length,
    instructions,
    reasoning: { effort: repeated.effort ?? null, summary: repeated.summary ?? null },
    text: { format: formatOf(view, repeated) },
    top_logprobs: logprobs ?? 0,
    background: repeated.background ?? false,
    store: repeated.store ?? true,
    safety_identifier: repeated.safety_identifier ?? null,
    prompt_cache_key: repeated.prompt_cache_key ?? null,
    truncation: 'disabled',
    ...responseToolsOf(view.tools, repeated),
  };
}

/** A job that was no response has no name for its schema. */
function formatOf({ asked: { format } }: JobView, { format: { name = 'format', description, strict = null } = {} }: Repeated): z.infer<typeof textFormat> {
  if (format?.kind !== 'json_schema') return { type: format?.kind ?? 'text' };
  return { type: 'json_schema', name, ...(description === undefined ? {} : { description }), schema: format.schema as Record<string, unknown>, strict };
}

export interface Ended {
  /** Of a conversation that goes on, as it is now: how much of its prompt was read is known when it has begun. */
  readonly view: JobView;
  /** Of the wall clock; null: that is not known. */
  readonly endedMs: number | null;
}

/**
 * After the last event. A job that ended without a result is cancelled or failed; of a single chain it keeps what was told of it.
 */
export function endedResponse({ view, endedMs }: Ended, transcript: Transcript): ResponseObject {
  const { result, state } = transcript;
  if (result === null) {
    const { code, message } = failureOf(endError(transcript, view.id));
    const status = STATUS[state] === 'cancelled' ? 'cancelled' : 'failed';
    const output = view.chains.length === 1 ? outputOf(whoseOf(view), transcript.chain(0), false) : [];
    return { ...pendingResponse(view, status), output, error: status === 'failed' ? { code, message } : null };
  }
  const elected = electedChain(result);
  const finish = result.chains[elected]?.finish_reason ?? 'length';
  const whole = finish === 'stop';
  return {
    ...pendingResponse(view, whole ? 'completed' : 'incomplete'),
    completed_at: whole && endedMs !== null ? Math.floor(endedMs / 1_000) : null,
    output: outputOf({ ...whoseOf(view), chain: elected }, transcript.chain(elected), whole),
    incomplete_details: whole ? null : { reason: CUT[finish] },
    usage: usageOf(view, result, transcript),
    hyperscale: outcomeOf(result, elected),
  };
}

/** Whose items they are: every identifier follows from it. */
export interface Whose {
  readonly job: string;
  readonly chain: number;
  /** What was thought is said as a summary too, for clients that show nothing else. */
  readonly summarizes: boolean;
}

export function whoseOf(view: JobView): Whose {
  return { job: view.id, chain: 0, summarizes: repeatedOf(view).summary !== undefined };
}

function outputOf(whose: Whose, { reasoning, said, logprobs }: ChainText, whole: boolean): OutputItem[] {
  const parts: ItemPart[] = reasoning === '' ? [] : [{ kind: 'reasoning', text: reasoning }];
  const counts = { text: 0, call: 0 };
  for (const piece of said) parts.push({ ...piece, index: counts[piece.kind]++, ...(piece.kind === 'text' ? { logprobs: logprobs ?? [] } : {}) });
  return parts.map((part, i) => itemOf(whose, part, i < parts.length - 1 || whole ? 'completed' : 'incomplete'));
}

/** `index` counts the items of a kind. `text` null: it has just begun. */
export type ItemPart =
  | { readonly kind: 'reasoning'; readonly text: string | null }
  | { readonly kind: 'text'; readonly index: number; readonly text: string | null; readonly logprobs?: readonly TokenLogprob[] }
  | { readonly kind: 'call'; readonly index: number; readonly name: string; readonly arguments: string };

export function itemOf({ job, chain, summarizes }: Whose, part: ItemPart, status: OutputItem['status']): OutputItem {
  switch (part.kind) {
    case 'reasoning':
      return {
        id: `rs_${job}`, type: 'reasoning', status,
        summary: part.text === null || !summarizes ? [] : [{ type: 'summary_text', text: part.text }],
        content: part.text === null ? [] : [{ type: 'reasoning_text', text: part.text }],
      };
    case 'text': {
      const content = part.text === null ? [] : [{ type: 'output_text' as const, text: part.text, annotations: [], logprobs: openAiLogprobs(part.logprobs ?? []) }];
      return { id: part.index === 0 ? `msg_${job}` : `msg_${job}_${part.index}`, type: 'message', role: 'assistant', status, content };
    }
    case 'call':
      return { id: `fc_${job}_${part.index}`, type: 'function_call', call_id: callIdOf(job, chain, part.index), name: part.name, arguments: part.arguments, status };
  }
}

function usageOf({ cachedTokens }: JobView, { usage }: Omit<JobResult, 'timing'>, transcript: Transcript): ResponseObject['usage'] {
  return {
    input_tokens: usage.prompt_tokens,
    input_tokens_details: { cached_tokens: cachedTokens, cache_write_tokens: 0 },
    output_tokens: usage.completion_tokens,
    output_tokens_details: { reasoning_tokens: transcript.reasoningTokens() },
    total_tokens: usage.prompt_tokens + usage.completion_tokens,
    hyperscale: hyperscaleUsage(usage),
  };
}
