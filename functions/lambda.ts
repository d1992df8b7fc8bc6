/**
 * A function as a Lambda handler that streams its answer (Function URL in RESPONSE_STREAM mode): beside the bundle `front.mjs`, which is the
 * same one as everywhere. Lambda knows no request whose client has gone: an answer that nobody reads goes on to its end.
 */
import { streamHandle } from 'hono/aws-lambda';

import front from './entries/api.ts';

// What is wrong with the configuration ends the start, and not a request.
front.open();

interface Invocation {
  readonly requestContext?: { readonly http?: { readonly method?: string; readonly sourceIp?: string } };
  readonly body?: string | null;
}

type Handle = (event: Invocation, stream: unknown, context: unknown) => Promise<void>;
declare const awslambda: { streamifyResponse(handle: Handle): Handle };

const handle = streamHandle({ fetch: (request: Request, { requestContext }: Invocation) => front.answer(request, requestContext?.http?.sourceIp) } as never) as unknown as Handle;

/** A GET with a body is HTTP, and no web Request can be one: here as elsewhere the body is not looked at. */
export const handler = awslambda.streamifyResponse(async (event, stream, context) => {
  await handle(/^(GET|HEAD)$/.test(event.requestContext?.http?.method ?? '') ? { ...event, body: null } : event, stream, context);
});
