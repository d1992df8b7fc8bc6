/**
 * `ruminate lambda`: what an image of ours runs on Lambda, where messages of SQS become invocations (functions/worker.ts). It speaks Lambda's runtime API
 * itself, which is three calls, so that one image is for machines and for Lambda, and nothing of AWS's has to be compiled into it.
 * https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
 */
import type { Command } from 'commander';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';

import { EngineError } from '../engine/core/errors.ts';
import type { LambdaContext } from '../functions/worker.ts';
import { command } from './options.ts';

type Handler = (event: never, context: LambdaContext) => Promise<unknown>;

/** What Lambda itself lets an event have. */
const EVENT_BYTES_MAX = 6 * 2 ** 20;

export function lambdaCommand(): Command {
  return command('lambda')
    .description('inside Lambda: run a slice for each message that an invocation brings')
    .action(async () => {
      const api = process.env.AWS_LAMBDA_RUNTIME_API ?? '';
      if (api === '') throw new EngineError('ERR_OPTION', '`ruminate lambda` is for inside Lambda, which sets AWS_LAMBDA_RUNTIME_API; anywhere else it is `ruminate worker`.');
      const { handler } = await import('../functions/worker.ts');
      await serveInvocations(api, handler);
    });
}

/** Until the process is ended, or `signal`. @param api host and port. @throws EngineError ERR_STORE: the runtime API is not there. */
export async function serveInvocations(api: string, handler: Handler, { signal }: { readonly signal?: AbortSignal } = {}): Promise<void> {
  while (signal?.aborted !== true) {
    const invocation = await next(api, signal);
    if (invocation === null) return;
    const { id, deadlineMs, event } = invocation;
    const said = await handler(event as never, { getRemainingTimeInMillis: () => deadlineMs - Date.now() }).then(
      (answer) => ({ what: 'response', body: answer }),
      (error: Error) => ({ what: 'error', body: { errorType: error.name, errorMessage: error.message } }),
    );
    const { status } = await call(api, 'POST', `invocation/${id}/${said.what}`, { body: JSON.stringify(said.body), signal });
    // Too late is the only reason to be refused, and the next invocation may not be.
    if (status >= 500) throw gone(`it answered ${status}`);
  }
}

interface Invocation {
  readonly id: string;
  /** Of the wall clock. */
  readonly deadlineMs: number;
  readonly event: unknown;
}

/** null: told to stop. It waits for as long as there is none: an instance is frozen meanwhile, and a time limit would be over as soon as it wakes. */
async function next(api: string, signal: AbortSignal | undefined): Promise<Invocation | null> {
  try {
    const { status, headers, text } = await call(api, 'GET', 'invocation/next', { signal });
    if (status !== 200) throw gone(`it answered ${status}`);
    return { id: String(headers['lambda-runtime-aws-request-id']), deadlineMs: Number(headers['lambda-runtime-deadline-ms']), event: JSON.parse(text) };
  } catch (error) {
    if (signal?.aborted === true) return null;
    throw error instanceof EngineError ? error : gone((error as Error).message);
  }
}

async function call(api: string, method: string, path: string, { body, signal }: { readonly body?: string; readonly signal?: AbortSignal | undefined }): Promise<{ readonly status: number; readonly headers: IncomingMessage['headers']; readonly text: string }> {
  const asking = request(`http://${api}/2018-06-01/runtime/${path}`, { method, ...(signal === undefined ? {} : { signal }), ...(body === undefined ? {} : { headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) } }) });
  asking.end(body);
  const [response] = (await once(asking, 'response')) as [IncomingMessage];
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.byteLength;
    if (bytes > EVENT_BYTES_MAX) throw gone('an event is larger than Lambda lets one be');
    chunks.push(chunk);
  }
  return { status: response.statusCode ?? 0, headers: response.headers, text: Buffer.concat(chunks).toString() };
}

const gone = (why: string): EngineError => new EngineError('ERR_STORE', `Lambda's runtime API cannot be used: ${why}.`);
