/** `ruminate lambda` over the documented runtime API. */
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, test } from 'vitest';

import { serveInvocations } from '../../cli/lambda.ts';

interface Said {
  readonly path: string;
  readonly body: unknown;
}

/** Hands out events in order, then nothing more. @param status of answers that come. */
async function runtimeApi(events: readonly unknown[], status = 202): Promise<AsyncDisposable & { readonly address: string; readonly said: Said[]; readonly all: Promise<void> }> {
  const waiting = [...events];
  const said: Said[] = [];
  let done = (): void => undefined;
  const all = new Promise<void>((resolve) => { done = resolve; });
  const server = createServer((request, response) => {
    const path = (request.url ?? '').replace('/2018-06-01/runtime/', '');
    if (path === 'invocation/next') {
      if (waiting.length === 0) return done();
      return void response.writeHead(200, { 'lambda-runtime-aws-request-id': `i${events.length - waiting.length}`, 'lambda-runtime-deadline-ms': `${Date.now() + 60_000}` }).end(JSON.stringify(waiting.shift()));
    }
    void textOf(request).then((text) => {
      said.push({ path, body: JSON.parse(text) });
      response.writeHead(status).end('{}');
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`, said, all,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
    },
  };
}

async function textOf(request: IncomingMessage): Promise<string> {
  return Buffer.concat(await (request as AsyncIterable<Buffer> & IncomingMessage).toArray() as Buffer[]).toString();
}

describe('ruminate lambda', () => {
  test('answers one invocation after another, knows how long each has, and outlives one that fails', async () => {
    await using api = await runtimeApi([{ Records: [1] }, { Records: [] }, { Records: [2] }]);
    const stop = new AbortController();
    const left: number[] = [];
    const serving = serveInvocations(api.address, async ({ Records }: { readonly Records: readonly number[] }, context) => {
      left.push(context.getRemainingTimeInMillis());
      if (Records.length === 0) throw new TypeError('no records');
      return { batchItemFailures: Records };
    }, { signal: stop.signal });
    await api.all;
    stop.abort();
    await serving;
    expect(api.said).toEqual([
      { path: 'invocation/i0/response', body: { batchItemFailures: [1] } },
      { path: 'invocation/i1/error', body: { errorType: 'TypeError', errorMessage: 'no records' } },
      { path: 'invocation/i2/response', body: { batchItemFailures: [2] } },
    ]);
    for (const ms of left) expect(ms).toBeGreaterThan(50_000);
  });

  test('ends when the runtime API is gone, and does not ask for ever', async () => {
    await using api = await runtimeApi([{}], 500);
    await expect(serveInvocations(api.address, async () => null)).rejects.toMatchObject({ code: 'ERR_STORE', message: expect.stringContaining('it answered 500') as unknown });
    await expect(serveInvocations('127.0.0.1:1', async () => null)).rejects.toMatchObject({ code: 'ERR_STORE' });
  });
});
