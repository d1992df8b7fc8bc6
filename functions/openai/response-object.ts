/** A job as OpenAI's response object. It says what the job's state and events say, so every instance gives the same. */
import { z } from '@hono/zod-openapi';

import type { JobView } from '../../engine/control/platform.ts';
import { electedChain } from '../../engine/job/elected.ts';
import type { JobResult } from '../../engine/job/generate.ts';
import { endError } from '../foreground.ts';
import { STATUS, type JobStatus } from '../jobs/views.ts';
import type { ChainText, Transcript } from '../transcript.ts';
import { emptyList } from './fields.ts';
import { hyperscaleUsage, outcomeOf, outcomeSchema } from './usage.ts';

const reasoningText = z.object({ type: z.literal('reasoning_text'), text: z.string() });
const outputText = z.object({ type: z.literal('output_text'), text: z.string(), annotations: emptyList, logprobs: emptyList });
const itemStatus = z.enum(['in_progress', 'completed', 'incomplete']);

const itemSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('reasoning'), id: z.string(), summary: emptyList, content: z.array(reasoningText), status: itemStatus }),
  z.object({ type: z.literal('message'), id: z.string(), role: z.literal('assistant'), status: itemStatus, content: z.array(outputText) }),
]);

export const responseSchema = z.object({
  id: z.string().openapi({ example: 'resp_01J9ZK0T9WQ2Y4ZJ4N5T6V7X8Y' }),
  object: z.literal('response'),
  created_at: z.int(),
  model: z.string(),
  status: z.enum(['queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled']),
  output: z.array(itemSchema),
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
  incomplete_details: z.object({ reason: z.literal('max_output_tokens') }).nullable(),
  usage: z.object({
    input_tokens: z.int(),
    input_tokens_details: z.object({ cached_tokens: z.int() }),
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
  tools: emptyList,
  tool_choice: z.literal('none'),
  parallel_tool_calls: z.literal(false),
}).openapi('Response');

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

/** While it has not ended. */
export function pendingResponse(view: JobView, status: JobStatus): ResponseObject {
  return {
    id: responseId(view.id),
    object: 'response',
    created_at: Math.floor(view.createdMs / 1_000),
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
    tools: [],
    tool_choice: 'none',
    parallel_tool_calls: false,
  };
}

/**
 * After the last event. A job that ended without a result is cancelled or failed; of a single chain it keeps what was told of it.
 * @param view of a conversation that goes on, as it is now: how much of its prompt was read is known when it has begun.
 */
export function endedResponse(view: JobView, transcript: Transcript): ResponseObject {
  const { result, state } = transcript;
  if (result === null) {
    const { code, message } = endError(state, view.id);
    const status = STATUS[state] === 'cancelled' ? 'cancelled' : 'failed';
    const output = view.chains.length === 1 ? outputOf(view.id, transcript.chain(0), false) : [];
    return { ...pendingResponse(view, status), output, error: status === 'failed' ? { code, message } : null };
  }
  const elected = electedChain(result);
  const whole = result.chains[elected]?.finish_reason === 'stop';
  return {
    ...pendingResponse(view, whole ? 'completed' : 'incomplete'),
    output: outputOf(view.id, transcript.chain(elected), whole),
    incomplete_details: whole ? null : { reason: 'max_output_tokens' },
    usage: usageOf(view, result, transcript),
    hyperscale: outcomeOf(result, elected),
  };
}

function outputOf(job: string, { reasoning, content }: ChainText, whole: boolean): OutputItem[] {
  const ended = whole ? 'completed' : 'incomplete';
  return [
    ...(reasoning === '' ? [] : [reasoningItem(job, reasoning, content === '' ? ended : 'completed')]),
    ...(content === '' ? [] : [messageItem(job, content, ended)]),
  ];
}

/** @param text null: it has just begun. */
export function reasoningItem(job: string, text: string | null, status: OutputItem['status']): OutputItem {
  return { id: `rs_${job}`, type: 'reasoning', summary: [], content: text === null ? [] : [{ type: 'reasoning_text', text }], status };
}

/** @param text null: it has just begun. */
export function messageItem(job: string, text: string | null, status: OutputItem['status']): OutputItem {
  const content = text === null ? [] : [{ type: 'output_text' as const, text, annotations: [], logprobs: [] }];
  return { id: `msg_${job}`, type: 'message', role: 'assistant', status, content };
}

function usageOf({ cachedTokens }: JobView, { usage }: Omit<JobResult, 'timing'>, transcript: Transcript): ResponseObject['usage'] {
  return {
    input_tokens: usage.prompt_tokens,
    input_tokens_details: { cached_tokens: cachedTokens },
    output_tokens: usage.completion_tokens,
    output_tokens_details: { reasoning_tokens: transcript.reasoningTokens() },
    total_tokens: usage.prompt_tokens + usage.completion_tokens,
    hyperscale: hyperscaleUsage(usage),
  };
}
