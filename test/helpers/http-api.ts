/** The HTTP API of whole-platform.ts on a port of its own. */
import OpenAI from 'openai';

import { WholeCatalogue } from '../../engine/checkpoint/whole-catalogue.ts';
import { Webhooks } from '../../engine/webhook/webhooks.ts';
import { createApp } from '../../functions/app.ts';
import type { AppOptions } from '../../functions/context.ts';
import { listen } from '../../functions/node.ts';
import { openBatches } from '../../functions/open-batches.ts';
import { WholePlatform } from './whole-platform.ts';

export interface HttpApi extends AsyncDisposable {
  readonly url: string;
  readonly platform: WholePlatform;
  /** What was logged, one JSON text a line. */
  readonly logged: string[];
  readonly openai: OpenAI;
  get(path: string, headers?: Record<string, string>): Promise<Response>;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
}

export async function startApi(change: Partial<AppOptions> = {}): Promise<HttpApi> {
  const platform = new WholePlatform();
  const logged: string[] = [];
  const note = (fields: object, message: string) => {
    logged.push(JSON.stringify({ ...fields, message }, (_, value: unknown) => (value instanceof Error ? String(value.stack) : value)));
  };
  const log = { info: note, warn: note, error: note };
  const { store } = platform;
  const app = createApp({
    platform, auth: null, log, version: 'test', storage: openBatches({ store, keys: null, platform, log }), checkpoints: new WholeCatalogue({ store, keys: null, usdPerGbMonth: 0.5 }),
    webhooks: new Webhooks({ store, keys: null, allowLoopback: true }), ...change,
  });
  const listening = await listen({ fetch: (request, from) => app.fetch(request, from), host: '127.0.0.1', port: 0 });
  const { url } = listening;
  return {
    url,
    platform,
    logged,
    openai: new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 }),
    get: (path, headers = {}) => fetch(url + path, { headers }),
    post: (path, body, headers = {}) =>
      fetch(url + path, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: typeof body === 'string' ? body : JSON.stringify(body) }),
    async [Symbol.asyncDispose]() {
      await listening.end();
      await platform[Symbol.asyncDispose]();
    },
  };
}
