/**
 * A function as a Lambda handler that streams its answer (Function URL in RESPONSE_STREAM mode): beside the bundle `front.mjs`, which is the
 * same one as everywhere. Lambda knows no request whose client has gone: an answer that nobody reads goes on to its end.
 */
import { streamHandle } from 'hono/aws-lambda';

import front from './entries/api.ts';

// What is wrong with the configuration ends the start, and not a request.
front.open();

interface Invocation {
  readonly requestContext?: { readonly http?: { readonly sourceIp?: string } };
}

export const handler = streamHandle({ fetch: (request: Request, { requestContext }: Invocation) => front.answer(request, requestContext?.http?.sourceIp) } as never);
