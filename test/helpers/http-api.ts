/** The HTTP API of engine-platform.ts on a port of its own, as `ruminate serve` would have it. */
import { serve, type ServerType } from '@hono/node-server';
import OpenAI from 'openai';

import { createApp } from '../../functions/app.ts';
import type { AppOptions } from '../../functions/context.ts';
import { EnginePlatform } from './engine-platform.ts';

export interface HttpApi extends AsyncDisposable {
  readonly url: string;
  readonly platform: EnginePlatform;
  /** What was logged, one JSON text a line. */
  readonly logged: string[];
  readonly openai: OpenAI;
  get(path: string, headers?: Record<string, string>): Promise<Response>;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
}

export async function startApi(change: Partial<AppOptions> = {}): Promise<HttpApi> {
  const platform = new EnginePlatform();
  const logged: string[] = [];
  const note = (fields: object, message: string) => {
    logged.push(JSON.stringify({ ...fields, message }, (_, value: unknown) => (value instanceof Error ? String(value.stack) : value)));
  };
  const app = createApp({ platform, auth: null, log: { info: note, warn: note, error: note }, ...change });
  const server = await new Promise<ServerType>((resolve) => {
    const started: ServerType = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }, () => resolve(started));
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  const url = `http://127.0.0.1:${address.port}`;
  return {
    url,
    platform,
    logged,
    openai: new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 }),
    get: (path, headers = {}) => fetch(url + path, { headers }),
    post: (path, body, headers = {}) =>
      fetch(url + path, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: typeof body === 'string' ? body : JSON.stringify(body) }),
    async [Symbol.asyncDispose]() {
      if ('closeAllConnections' in server) server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await platform[Symbol.asyncDispose]();
    },
  };
}
