/** Failures of the native API: problem details, https://www.rfc-editor.org/rfc/rfc9457 */
import { z } from '@hono/zod-openapi';

import { CODES, type Failure } from './errors.ts';

export const problemSchema = z.object({
  type: z.string().openapi({ example: 'urn:ruminate:error:job_not_found' }),
  title: z.string().openapi({ example: 'job not found' }),
  status: z.int(),
  detail: z.string(),
  code: z.string().openapi({ example: 'job_not_found', enum: [...CODES] }),
  param: z.string().nullable(),
  request_id: z.string(),
}).openapi('Problem');

export type Problem = z.infer<typeof problemSchema>;

export function problemOf({ status, code, param, message }: Failure, requestId: string): Problem {
  return { type: `urn:ruminate:error:${code}`, title: code.replaceAll('_', ' '), status, detail: message, code, param, request_id: requestId };
}

export function problemResponse(failure: Failure, requestId: string): Response {
  const headers = { ...failure.headers, 'content-type': 'application/problem+json' };
  return new Response(JSON.stringify(problemOf(failure, requestId)), { status: failure.status, headers });
}
