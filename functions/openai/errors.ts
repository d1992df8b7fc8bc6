/** Failures in OpenAI's envelope, which its clients map to their classes by status. https://platform.openai.com/docs/guides/error-codes */
import { z } from '@hono/zod-openapi';

import { renamed } from '../asked.ts';
import { CODES, type Failure } from '../errors.ts';

export const errorSchema = z.object({
  error: z.object({
    message: z.string(),
    type: z.string().openapi({ example: 'invalid_request_error' }),
    param: z.string().nullable().openapi({ example: 'tools' }),
    code: z.string().openapi({ example: 'unsupported_parameter', enum: [...CODES] }),
  }),
}).openapi('Error');

const envelope = { 'application/json': { schema: errorSchema } };

export const OPENAI_FAILURES = {
  '4XX': { description: 'Refused', content: envelope },
  '5XX': { description: 'Failed', content: envelope },
} as const;

export type ErrorEnvelope = z.infer<typeof errorSchema>;

export function envelopeOf({ message, type, param, code }: Failure): ErrorEnvelope {
  if (param === null) return { error: { message, type, param, code } };
  const name = requestField(param);
  return { error: { message: renamed(message, param, name), type, param: name, code } };
}

/** What a request calls a field of the engine's spec. */
function requestField(field: string): string {
  if (field.startsWith('sampling.')) return field.slice('sampling.'.length);
  if (field === 'raw_prompt') return 'prompt';
  if (field === 'previous') return 'previous_response_id';
  if (field.startsWith('budget.')) return `hyperscale.${field.slice('budget.'.length)}`;
  return field === 'vote' || field === 'early_stop' ? `hyperscale.${field}` : field;
}

export function envelopeResponse(failure: Failure): Response {
  return Response.json(envelopeOf(failure), { status: failure.status, headers: failure.headers });
}
