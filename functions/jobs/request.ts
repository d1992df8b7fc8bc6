/**
 * A job as POST /v1/jobs takes it: the engine's spec, but for what is the operator's to choose (threads, backend, page size, number format,
 * cache policy), which is refused by name. The engine checks the spec once more, and what only the model can say.
 */
import { z } from '@hono/zod-openapi';

import { LIMITS } from '../../engine/core/limits.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { labels, length, modelName, rawPrompt, sampling, shards, width } from '../openai/fields.ts';
import { topLogprobs } from '../openai/output.ts';
import { call, callId, chatTools, toolsSpec } from '../openai/tools.ts';

export const seed64 = z.union([z.int().min(0).max(Number.MAX_SAFE_INTEGER), z.string().regex(/^\d{1,20}$/)], {
  error: 'must be an integer from 0 to 2^64 - 1, above 2^53 as a decimal text',
}).openapi({ example: 7 });

const NAME = '[A-Za-z0-9][A-Za-z0-9._-]{0,63}';
export const jobName = z.string().regex(new RegExp(`^${NAME}$`), { error: 'must be 1 to 64 letters, digits, ".", "_" or "-", beginning with a letter or digit' });
/** Of a list; empty is as if it were not given (`queryOf`), and the document says so. */
export const listAfter = jobName.optional().openapi({ pattern: `^(${NAME})?$`, description: 'The id after which to go on.' });

const marker = z.string().min(1).max(LIMITS.MARKER_CHARS_MAX);
const jsonObject = z.record(z.string(), z.unknown());

const message = z.strictObject({
  role: z.string().min(1).max(64),
  content: z.string(),
  reasoning_content: z.string().optional(),
  tool_calls: z.array(z.strictObject({
    id: callId.optional(),
    type: z.literal('function').optional(),
    function: z.strictObject({ name: call.shape.name, arguments: z.union([z.string(), jsonObject]) }),
  })).max(LIMITS.TOOLS_MAX).optional(),
  tool_call_id: z.string().min(1).max(256).optional(),
  name: z.string().min(1).max(256).optional(),
});

const answer = z.discriminatedUnion('rule', [
  z.strictObject({ rule: z.enum(['auto', 'boxed', 'last_number', 'choice', 'exact']) }),
  z.strictObject({ rule: z.literal('after'), marker }),
  z.strictObject({ rule: z.literal('pattern'), pattern: z.string().min(1).max(LIMITS.PATTERN_CHARS_MAX) }),
], { error: 'must have a rule: auto, boxed, last_number, choice, exact, after or pattern' });

export const jobRequest = z.strictObject({
  model: modelName,
  variant: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/).optional(),
  prompt: z.string().min(1).optional().openapi({ description: 'One user turn. Exactly one of prompt, messages and raw_prompt.' }),
  messages: z.array(message).min(1).max(LIMITS.MESSAGES_MAX).optional(),
  raw_prompt: rawPrompt.optional(),
  sampling: z.strictObject({
    ...sampling,
    logit_bias: z.array(z.tuple([z.int().min(0).max(LIMITS.LENGTH_MAX * 4), z.number().min(-100).max(100)])).max(LIMITS.LOGIT_BIAS_MAX).optional(),
  }).optional(),
  seed: seed64.optional(),
  budget: z.strictObject({
    length: length.optional(),
    width: width.optional(),
    lengths: z.array(length).min(1).max(LIMITS.WIDTH_MAX).optional(),
    compression_ratio: z.number().min(1).max(LIMITS.COMPRESSION_RATIO_MAX).optional(),
    kv_read_budget: z.int().min(1).max(LIMITS.KV_READ_BUDGET_MAX).optional(),
    deadline_ms: z.int().min(1).max(LIMITS.DEADLINE_MS_MAX).optional(),
  }).optional(),
  shards: shards.optional(),
  stop: z.array(z.string().min(1).max(LIMITS.STOP_BYTES_MAX)).max(LIMITS.STOP_MAX).optional(),
  vote: z.enum(['majority', 'first', 'verifier', 'none']).optional(),
  early_stop: z.boolean().optional(),
  answer: answer.optional(),
  verifier: z.string().min(1).max(64).optional(),
  format: z.discriminatedUnion('kind', [
    z.strictObject({ kind: z.literal('json_object') }),
    z.strictObject({ kind: z.literal('json_schema'), schema: jsonObject }),
  ], { error: 'must be json_object or json_schema' }).optional().openapi({ description: 'What every chain writes, after what it thinks.' }),
  logprobs: topLogprobs.optional().openapi({ description: 'Log-probability of each token, and of so many of the likeliest in its place.' }),
  thinking: z.strictObject({ open: marker, close: marker }).optional(),
  enable_thinking: z.boolean().optional(),
  tools: chatTools.optional().openapi({ description: 'Functions that the model may call.' }),
  tool_choice: z.union([z.enum(['auto', 'none', 'required']), z.strictObject({ name: call.shape.name })]).optional(),
  parallel_tool_calls: z.boolean().optional(),
  documents: z.array(jsonObject).max(LIMITS.TOOLS_MAX).optional(),
  date: z.string().max(32).optional().openapi({ description: 'The day it is for the template.', example: '2024-07-26' }),
  template_variables: jsonObject.optional(),
  ...labels,
  priority: z.enum(['interactive', 'batch']).optional().openapi({ description: '`batch`: it runs only while nothing interactive waits.' }),
  wait_ms_max: z.int().min(1).max(LIMITS.WAIT_MS_MAX).optional().openapi({ description: 'How long it may wait for its first worker; after that it is `expired`.' }),
}).openapi('JobRequest', { example: { model: 'countdown', prompt: '4 20 8 13 target 59', budget: { width: 8, length: 512, kv_read_budget: 116_000 } } });

export type JobRequest = z.infer<typeof jobRequest>;

/** @throws HttpError */
export function jobSpec({ seed, tools, tool_choice: choice, parallel_tool_calls: parallel, ...rest }: JobRequest): JobSpec {
  const offered = toolsSpec({ tools: tools?.map((tool) => tool.function), choice, parallel });
  return { ...given(rest), ...offered, ...(seed === undefined ? {} : { seed: BigInt(seed) }) } as JobSpec;
}

/** Without fields that are there and undefined: a spec says what was asked, and its digest with it. */
function given<T extends object>(fields: T): Partial<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Partial<T>;
}
