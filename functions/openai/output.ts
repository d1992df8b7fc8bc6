/** What OpenAI's endpoints say about the output: its format, and log-probabilities of its tokens. */
import { z } from '@hono/zod-openapi';

import { EngineError } from '../../engine/core/errors.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import { checkFormat } from '../../engine/job/grammar.ts';
import type { Alternative, TokenLogprob } from '../../engine/job/logprobs.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { HttpError } from '../errors.ts';

/** Kept and repeated; no model is told it. */
const DESCRIPTION_CHARS_MAX = 8_192;

const schemaFields = {
  name: z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, { error: 'must be 1 to 64 letters, digits, "_" or "-"' }),
  description: z.string().max(DESCRIPTION_CHARS_MAX).optional(),
  schema: z.record(z.string(), z.unknown()).openapi({ description: 'Kept whole, with `strict` or without; what cannot be kept is refused by name.' }),
  strict: z.boolean().nullable().optional(),
} as const;

const plain = [z.strictObject({ type: z.literal('text') }), z.strictObject({ type: z.literal('json_object') })] as const;
const formatError = { error: 'must be text, json_object or json_schema' };

/** As chat completions have it. */
export const responseFormat = z.discriminatedUnion('type', [...plain, z.strictObject({ type: z.literal('json_schema'), json_schema: z.strictObject(schemaFields) })], formatError);
/** As responses have it. */
export const textFormat = z.discriminatedUnion('type', [...plain, z.strictObject({ type: z.literal('json_schema'), ...schemaFields })], formatError);

export const topLogprobs = z.int().min(0).max(LIMITS.TOP_LOGPROBS_MAX);

/** @param schema of a json_schema. @param param what the request calls it. @throws HttpError: the schema cannot be kept. */
export function formatSpec(type: 'text' | 'json_object' | 'json_schema' | undefined, schema: Record<string, unknown> | undefined, param: string): Pick<JobSpec, 'format'> {
  if (type === undefined || type === 'text') return {};
  const format = type === 'json_object' ? { kind: 'json_object' as const } : { kind: 'json_schema' as const, schema: schema ?? {} };
  try {
    checkFormat(format);
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    throw new HttpError('invalid_value', error.message.replace(/^format(\.schema)?\b/, param), { param });
  }
  return { format };
}

const alternative = z.object({ token: z.string(), logprob: z.number(), bytes: z.array(z.int()) });
export const tokenLogprobSchema = alternative.extend({ top_logprobs: z.array(alternative) });

export type OpenAiLogprob = z.infer<typeof tokenLogprobSchema>;

export function openAiLogprobs(logprobs: readonly TokenLogprob[]): OpenAiLogprob[] {
  const of = ({ token, logprob, bytes }: Alternative) => ({ token, logprob, bytes: [...bytes] });
  return logprobs.map(({ top, ...chosen }) => ({ ...of(chosen), top_logprobs: top.map(of) }));
}
