/** What holds for every request: addresses, bodies, ids, failures of ours, health, the document of itself. */
import { request } from 'node:http';
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { assemble } from '../../functions/assemble.ts';
import { HTTP_LIMITS } from '../../functions/limits.ts';
import { type HttpApi, startApi } from '../helpers/http-api.ts';

const CHAT = { model: 'countdown@cr2', messages: [{ role: 'user', content: '7 18 17 7 target 35' }], max_tokens: 1 };
const BODIES = ['/v1/chat/completions', '/v1/completions', '/v1/responses', '/v1/jobs', '/v1/quotes', '/v1/jobs/x/extend', '/v1/jobs/x/fork', '/v1/checkpoints/x/forks'];
const isNative = (path: string) => /jobs|quotes|checkpoints/.test(path);

let api: HttpApi;
beforeAll(async () => {
  api = await startApi({ metrics: async () => ({ contentType: 'text/plain; version=0.0.4', body: 'up 1\n' }), version: '1.2.3' });
});
afterAll(() => api[Symbol.asyncDispose]());

/** The code of a failure in the form that its address has. */
async function codeOf(response: Response, path: string): Promise<string> {
  expect(response.headers.get('content-type')).toBe(isNative(path) || !path.startsWith('/v1/') ? 'application/problem+json' : 'application/json');
  const body = (await response.json()) as { code?: string; error?: { code: string; message: string; type: string; param: unknown } };
  return body.error?.code ?? body.code ?? 'none';
}

describe('a request', () => {
  test('to nowhere is 404, with the wrong method 405 with Allow; each in the form of its address', async () => {
    for (const path of ['/', '/v1', '/v1/nothing', '/v1/chat', '/v1/jobs/x/y', '/v1/checkpoints/x']) {
      const response = await api.get(path);
      expect(response.status).toBe(404);
      expect(response.headers.get('content-type')).toContain(path === '/v1/nothing' || path === '/v1/chat' ? 'application/json' : 'application/problem+json');
    }
    for (const [path, method, allow] of [['/v1/chat/completions', 'GET', 'POST'], ['/v1/jobs', 'DELETE', 'POST, GET'], ['/v1/models', 'POST', 'GET'], ['/health', 'PATCH', 'GET']] as const) {
      const response = await fetch(api.url + path, { method });
      expect([path, response.status, response.headers.get('allow')]).toEqual([path, 405, allow]);
      expect(await codeOf(response, path)).toBe('method_not_allowed');
    }
  });

  test.each([
    ['GET', '/v1/models?limit=1', 'limit', 'unsupported_parameter'],
    ['GET', '/v1/jobs/x?expand=chains', 'expand', 'unsupported_parameter'],
    ['GET', '/v1/checkpoints?__proto__=x', '__proto__', 'unsupported_parameter'],
    ['DELETE', '/v1/jobs/x?force=true', 'force', 'unsupported_parameter'],
    ['POST', '/v1/chat/completions?stream=true', 'stream', 'unsupported_parameter'],
    ['PUT', '/v1/jobs/x?priority=batch', 'priority', 'unsupported_parameter'],
    ['GET', '/v1/jobs?limit=1&limit=2', 'limit', 'invalid_value'],
    ['GET', '/v1/jobs/x/events?after=1&after=2', 'after', 'invalid_value'],
    ['GET', '/v1/jobs?expand=', 'expand', 'unsupported_parameter'],
    // JavaScript would count with them.
    ...['0x5', '1e1', '+3', '%203', '3.0', '9007199254740993', 'x'].flatMap((text) => [
      ['GET', `/v1/jobs/x/events?after=${text}`, 'after', 'invalid_value'],
      ['GET', `/v1/responses/x?stream=true&starting_after=${text}`, 'starting_after', 'invalid_value'],
      ['GET', `/v1/files?limit=${text}`, 'limit', 'invalid_value'],
    ] as [string, string, string, string][]),
  ])('%s %s is refused, and names the parameter that would be ignored', async (method, path, param, code) => {
    const response = await fetch(api.url + path, { method });
    const body = (await response.json()) as { error?: object };
    expect([response.status, body.error ?? body]).toMatchObject([400, { code, param }]);
  });

  test('of a list, and empty, is a query that was not given', async () => {
    for (const path of ['/v1/jobs', '/v1/checkpoints', '/v1/files', '/v1/batches']) expect(await (await api.get(`${path}?limit=&after=`)).json()).toEqual(await (await api.get(path)).json());
  });

  test('of pages and probes may have a query: there is nothing that it could ask', async () => {
    for (const path of ['/health/live', '/health/ready', '/metrics', '/docs', '/openapi.json']) expect([path, (await api.get(`${path}?probe=1`)).status]).toEqual([path, 200]);
  });

  test.each(BODIES)('to %s with a body that is none is refused before anything', async (path) => {
    for (const body of ['', '{', '"text"', '[]', 'null', '{"model":', '\u0000']) expect([body, (await api.post(path, body)).status]).toEqual([body, 400]);
    expect((await fetch(api.url + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: Uint8Array.of(0x22, 0xff, 0x22) })).status).toBe(400);
    expect(await codeOf(await api.post(path, '{'), path)).toBe('invalid_json');
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/jsonx', 'multipart/form-data']) {
      const response = await api.post(path, '{}', { 'content-type': type });
      expect(response.status).toBe(415);
    }
  });

  test.each([['application/json', '/v1/jobs'], ['multipart/form-data; boundary=b', '/v1/files']])('of %s that its client gives up in the middle of the body is no failure of ours', async (type, path) => {
    const before = api.logged.length;
    const socket = connect(Number(new URL(api.url).port), '127.0.0.1');
    socket.write(`POST ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\nx-request-id: left\r\ncontent-type: ${type}\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n{"model":`);
    // The server has the request.
    await new Promise((resolve) => socket.once('data', resolve));
    socket.destroy();
    const lines = await vi.waitFor(() => {
      const mine = api.logged.slice(before).map((line) => JSON.parse(line) as { request: string; message: string; status?: number }).filter(({ request: id }) => id === 'left');
      expect(mine).not.toEqual([]);
      return mine;
    }, { timeout: 20_000 });
    expect(lines.map(({ message, status }) => [message, status])).toEqual([['request', 499]]);
  });

  test('that is too large is 413, whether it says so or not', async () => {
    const huge = `{"model":"${'x'.repeat(HTTP_LIMITS.BODY_BYTES_MAX)}"}`;
    expect((await api.post('/v1/jobs', huge)).status).toBe(413);
    // Without a length and without an end: the server must stop reading by itself.
    const { port } = new URL(api.url);
    const socket = connect(Number(port), '127.0.0.1');
    socket.on('error', () => undefined);
    socket.write('POST /v1/jobs HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n');
    const answer = new Promise<string>((resolve) => socket.once('data', (data) => resolve(data.toString())));
    const piece = 'x'.repeat(1 << 16);
    for (let sent = 0; sent <= HTTP_LIMITS.BODY_BYTES_MAX; sent += piece.length) socket.write(`10000\r\n${piece}\r\n`);
    expect(await answer).toContain('413');
    socket.destroy();
  });

  test('has an id in its answer and in the log: the client\'s own if it can stand there', async () => {
    for (const path of ['/health/live', '/v1/nothing', '/v1/models', '/v1/jobs/nobody']) expect((await api.get(path)).headers.get('x-request-id')).toMatch(/^req_[0-9a-f]{32}$/);
    expect((await api.get('/v1/models', { 'x-request-id': 'mine-1' })).headers.get('x-request-id')).toBe('mine-1');
    expect(api.logged.some((line) => line.includes('mine-1'))).toBe(true);
    expect((await api.get('/v1/models', { 'x-request-id': 'a b"' })).headers.get('x-request-id')).toMatch(/^req_/);
  });

  test('of a page of another site is refused where there are no keys, under whatever name it reaches us', async () => {
    const ask = (headers: Record<string, string>) => new Promise<number | undefined>((resolve, reject) => {
      request(`${api.url}/v1/models`, { headers }, (response) => resolve(response.resume().statusCode)).on('error', reject).end();
    });
    const { host, port } = new URL(api.url);
    expect(await ask({ host, origin: api.url })).toBe(200);
    expect(await ask({ host: `localhost:${port}` })).toBe(200);
    expect(await ask({ host, origin: 'https://evil.example' })).toBe(403);
    expect(await ask({ host, origin: 'null' })).toBe(403);
    expect(await ask({ host: `evil.example:${port}` })).toBe(403);
    expect(await ask({ host: `127.0.0.1.evil.example:${port}`, origin: `http://127.0.0.1.evil.example:${port}` })).toBe(403);
  });

  test('leaves no word of its prompt in the log', async () => {
    await api.post('/v1/chat/completions', { ...CHAT, messages: [{ role: 'user', content: '9 9 9 9 target 81' }] });
    await api.post('/v1/chat/completions', { ...CHAT, messages: [{ role: 'user', content: '9 9 9 9 target 81' }], tools: [] });
    expect(api.logged.length).toBeGreaterThan(0);
    expect(api.logged.join('\n')).not.toContain('target 81');
  });

  test('that fails in the platform says nothing of it, and the log says all', async () => {
    for (const thrown of [new Error('the secret folder'), 'a secret text', { secret: true }]) {
      const models = vi.spyOn(api.platform, 'models').mockRejectedValueOnce(thrown);
      const response = await api.get('/v1/models');
      models.mockRestore();
      expect(response.status).toBe(500);
      expect(response.headers.get('x-request-id')).not.toBeNull();
      const text = await response.text();
      expect(text).toContain('internal_error');
      expect(text).not.toContain('secret');
    }
    expect(api.logged.join('\n')).toContain('the secret folder');
  });
});

describe('random bodies', () => {
  const VALUES: readonly unknown[] = [null, true, 0, -1, 1e308, 1.5, '', 'x', '\ud800', '9'.repeat(400), [], [[]], {}, { a: {} }, [null], JSON.parse('{"__proto__":null,"constructor":1}')];
  const FIELDS = ['model', 'messages', 'prompt', 'input', 'stream', 'n', 'seed', 'stop', 'temperature', 'logit_bias', 'hyperscale', 'budget', 'sampling', 'reasoning', 'answer', 'thinking',
    'tools', 'vote', 'max_tokens', 'length', 'width', 'at', 'chain', 'id', '__proto__', 'date', 'template_variables', 'stream_options', 'text', 'raw_prompt', 'metadata', 'user', 'store', 'echo', 'best_of', 'instructions', 'previous_response_id', 'service_tier'];

  test('never cause a 5xx', async () => {
    let state = 12345;
    const random = (below: number) => (state = (state * 1_103_515_245 + 12_345) % 2_147_483_648) % below;
    const value = (depth: number): unknown => {
      if (depth > 2 || random(3) > 0) return VALUES[random(VALUES.length)];
      return random(2) === 0 ? Array.from({ length: random(3) }, () => value(depth + 1)) : Object.fromEntries(Array.from({ length: random(4) }, () => [FIELDS[random(FIELDS.length)], value(depth + 1)]));
    };
    const whole: Record<string, object> = { '/v1/chat/completions': CHAT, '/v1/completions': { model: 'countdown', prompt: 'x', max_tokens: 1 }, '/v1/responses': { model: 'countdown', input: 'x', max_output_tokens: 1 }, '/v1/jobs': { model: 'countdown', prompt: '1 2 target 3', budget: { length: 1 } } };
    const statuses = new Set<number>();
    for (let n = 0; n < 280; n++) {
      const path = BODIES[n % BODIES.length] ?? '';
      // A good body with a field or two changed comes further than noise.
      const changed = Object.fromEntries(Array.from({ length: random(3) }, () => [FIELDS[random(FIELDS.length)], value(0)]));
      const body = n % 3 === 0 ? value(0) : { ...whole[path], ...changed };
      const response = await api.post(path, JSON.stringify(body) ?? 'undefined');
      await response.arrayBuffer();
      statuses.add(response.status);
      if (response.status >= 500) throw new Error(`${path} ${JSON.stringify(body)}: ${response.status}`);
    }
    expect([...statuses]).toEqual(expect.arrayContaining([200, 400]));
  });
});

describe('operation', () => {
  test('health says whether to send work here', async () => {
    const statuses = async () => await Promise.all(['live', 'startup', 'ready'].map(async (check) => (await api.get(`/health/${check}`)).status));
    expect(await statuses()).toEqual([200, 200, 200]);
    api.platform.pretended = { state: 'starting', queued: 0, running: 0, queueAgeMs: 0 };
    expect(await statuses()).toEqual([200, 503, 503]);
    api.platform.pretended = { state: 'draining', queued: 3, running: 2, queueAgeMs: 7 };
    expect(await statuses()).toEqual([200, 200, 503]);
    expect(await (await api.get('/health')).json()).toEqual({ state: 'draining', queued: 3, running: 2, queue_age_ms: 7 });
    api.platform.pretended = null;
  });

  test('a server whose store does not answer lives, and is not ready', async () => {
    const there = vi.spyOn(api.platform, 'isStoreThere').mockResolvedValue(false);
    const checks = await Promise.all(['/health/live', '/health/startup', '/health/ready', '/health', '/v2/health/live', '/v2/health/ready'].map(async (path) => (await api.get(path)).status));
    expect(checks).toEqual([200, 200, 503, 503, 200, 503]);
    expect(await (await api.get('/health/ready')).json()).toMatchObject({ state: 'ready', store: 'unreachable' });
    // A function that asks nothing of it is ready without.
    const asksNothing = assemble({ platform: api.platform, auth: null, log: { info: () => undefined, warn: () => undefined, error: () => undefined }, asksStore: false, version: 'test' }, () => undefined);
    expect((await asksNothing.request('/health/ready')).status).toBe(200);
    there.mockRestore();
    expect(await (await api.get('/health/ready')).json()).toMatchObject({ state: 'ready', store: 'reachable' });
  });

  test('work is sent away while jobs wait too long or the server goes down, without an alarm; looking is not', async () => {
    const before = api.logged.length;
    for (const [health, code] of [[{ state: 'ready', queued: 9, running: 1, queueAgeMs: HTTP_LIMITS.QUEUE_AGE_MS + 1 }, 'overloaded'], [{ state: 'draining', queued: 0, running: 1, queueAgeMs: 0 }, 'draining']] as const) {
      api.platform.pretended = health;
      for (const path of ['/v1/chat/completions', '/v1/jobs', '/v1/responses', '/v1/jobs/x/extend']) {
        const response = await api.post(path, CHAT);
        expect(response.status).toBe(503);
        expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0);
        expect(await codeOf(response, path)).toBe(code);
      }
      expect((await api.get('/v1/jobs')).status).toBe(200);
    }
    api.platform.pretended = null;
    const lines = api.logged.slice(before).map((line) => JSON.parse(line) as { level: unknown; message: string; code?: string; err?: unknown });
    expect(lines.filter(({ message }) => message === 'refused').map(({ code }) => code)).toEqual([...Array<string>(4).fill('overloaded'), ...Array<string>(4).fill('draining')]);
    expect(lines.filter(({ level, message, err }) => message === 'failed' || err !== undefined || level === 'error')).toEqual([]);
    expect((await api.post('/v1/chat/completions', CHAT)).status).toBe(200);
  });

  test('metrics are handed on as they are', async () => {
    const response = await api.get('/metrics');
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4');
    expect(await response.text()).toBe('up 1\n');
  });

  test('the document has every address, and all that it refers to', async () => {
    const text = await (await api.get('/openapi.json')).text();
    const document = JSON.parse(text) as { openapi: string; info: { version: string }; paths: Record<string, Record<string, unknown>>; components: { schemas: Record<string, { additionalProperties?: boolean }> } };
    expect(document.openapi).toBe('3.1.0');
    expect(document.info.version).toBe('1.2.3');
    const operations = Object.entries(document.paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method} ${path}`));
    expect(operations).toEqual(expect.arrayContaining(['post /v1/chat/completions', 'put /v1/jobs/{id}', 'get /v1/jobs/{id}/events', 'delete /v1/responses/{id}', 'get /metrics', 'get /health/ready']));
    for (const [, name] of text.matchAll(/"#\/components\/schemas\/(\w+)"/g)) expect(document.components.schemas).toHaveProperty(name ?? '');
    // What validates is what is documented: no field beside those that are there.
    for (const name of ['ChatCompletionRequest', 'ResponseRequest', 'JobRequest', 'Hyperscale', 'Fork']) expect(document.components.schemas[name]?.additionalProperties).toBe(false);
  });

  test('the document says of every address that it may refuse and fail, and of events only where there are any', async () => {
    const { paths } = (await (await api.get('/openapi.json')).json()) as { paths: Record<string, Record<string, { responses: Record<string, { content?: object }> }>> };
    const operations = Object.entries(paths).filter(([path]) => path.startsWith('/v1/')).flatMap(([path, methods]) => Object.entries(methods).map(([method, { responses }]) => [`${method} ${path}`, responses] as const));
    for (const [operation, responses] of operations) expect(Object.keys(responses), operation).toEqual(expect.arrayContaining(['4XX', '5XX']));
    expect(operations.filter(([, responses]) => 'text/event-stream' in (responses[200]?.content ?? {})).map(([operation]) => operation).toSorted())
      .toEqual(['get /v1/jobs/{id}/events', 'get /v1/responses/{id}', 'post /v1/chat/completions', 'post /v1/completions', 'post /v1/responses']);
  });

  test('the page of the document loads nothing from elsewhere and may not', async () => {
    const page = await api.get('/docs');
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'");
    const html = await page.text();
    const loaded = [...html.matchAll(/(?:src|href)="([^"]*)"/g)].map((match) => match[1] ?? '');
    expect(loaded.every((address) => address.startsWith('/') || address.startsWith('data:'))).toBe(true);
    for (const address of loaded.filter((each) => each.startsWith('/'))) expect((await api.get(address)).status).toBe(200);
    const script = await (await api.get('/docs/docs.js')).text();
    expect(() => new Function(script)).not.toThrow();
    expect(script).not.toContain('innerHTML');
  });
});
