/** Keys, tenants and rates: nothing crosses from one tenant to another, and nobody has more than the key says. */
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { type Clock, systemClock } from '../../engine/core/clock.ts';
import { type ApiKey, hashOf } from '../../functions/auth.ts';
import { HTTP_LIMITS } from '../../functions/limits.ts';
import { listen } from '../../functions/node.ts';
import { Guesses } from '../../functions/rates.ts';
import { type HttpApi, startApi } from '../helpers/http-api.ts';
import { readSse } from '../helpers/sse.ts';

const JOB = { model: 'countdown@cr2', prompt: '7 18 17 7 target 35', budget: { width: 1, length: 3 } };
const LONG = { model: 'countdown@dense', prompt: '3 5 7 11 13 17 target 997', sampling: { temperature: 5, logit_bias: [[2, -100]] }, budget: { width: 8 }, vote: 'none' };
const KEYS: Readonly<Record<string, ApiKey>> = {
  'key-of-anna': { tenant: 'anna', scopes: ['read', 'write'], rpm: 6_000, concurrent: 100 },
  'key-of-bert': { tenant: 'bert', scopes: ['read', 'write'], rpm: 6_000, concurrent: 100 },
  'key-to-look': { tenant: 'anna', scopes: ['read'], rpm: 6_000, concurrent: 100 },
  'key-of-few': { tenant: 'few', scopes: ['read', 'write'], rpm: 2, concurrent: 100 },
  'key-of-two-jobs': { tenant: 'two', scopes: ['read', 'write'], rpm: 6_000, concurrent: 100, jobs: 2 },
  'key-of-three-jobs': { tenant: 'three', scopes: ['read', 'write'], rpm: 6_000, concurrent: 100, jobs: 3 },
  'key-of-nine-jobs': { tenant: 'nine', scopes: ['read', 'write'], rpm: 6_000, concurrent: 100, jobs: 9 },
  'key-of-one': { tenant: 'one', scopes: ['read', 'write'], rpm: 6_000, concurrent: 1 },
};
const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
/** For what happens elsewhere. */
const WAIT = { timeout: 20_000 };

let nowMs = 0;
const clock: Clock = { nowMs: () => nowMs, timeout: (delayMs) => systemClock.timeout(delayMs) };
const asked: string[] = [];
let api: HttpApi;
beforeAll(async () => {
  const known = new Map<string, ApiKey>();
  for (const [key, value] of Object.entries(KEYS)) known.set(await hashOf(key), value);
  api = await startApi({ clock, auth: { find: async (sha256) => {
    asked.push(sha256);
    return known.get(sha256) ?? null;
  } } });
});
afterAll(() => api[Symbol.asyncDispose]());

/** One of each kind of thing that has an id, by the address under which it is found. */
async function belongings(key: string): Promise<Record<string, string>> {
  const id = await submit(key);
  await readSse(await api.get(`/v1/jobs/${id}/events`, bearer(key)));
  const client = new OpenAI({ baseURL: `${api.url}/v1`, apiKey: key, maxRetries: 0 });
  const line = { custom_id: 'a', method: 'POST', url: '/v1/chat/completions', body: { model: 'countdown@cr2', messages: [{ role: 'user', content: '1 2 target 3' }], max_tokens: 1 } };
  const file = await client.files.create({ file: new File([JSON.stringify(line)], 'lines.jsonl'), purpose: 'batch' });
  const batch = await client.batches.create({ input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' });
  await vi.waitFor(async () => expect((await client.batches.retrieve(batch.id)).status).toBe('completed'), WAIT);
  const hook = (await (await api.post('/v1/webhooks', { url: 'http://127.0.0.1:9/hook', events: ['job.completed'] }, bearer(key))).json()) as { id: string };
  return { '/v1/jobs': id, '/v1/checkpoints': id, '/v1/responses': `resp_${id}`, '/v1/files': file.id, '/v1/batches': batch.id, '/v1/webhooks': hook.id };
}

interface Operation {
  readonly parameters?: readonly { readonly name: string; readonly in: string }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: { readonly $ref?: string } }>> };
}

interface Schema {
  readonly properties?: Readonly<Record<string, unknown>>;
  readonly example?: object;
}

let schemas: Record<string, Schema> = {};

async function operations(): Promise<readonly { readonly method: string; readonly path: string; readonly operation: Operation }[]> {
  const document = (await (await api.get('/openapi.json')).json()) as { paths: Record<string, Record<string, Operation>>; components: { schemas: typeof schemas } };
  ({ schemas } = document.components);
  return Object.entries(document.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, operation]) => ({ method, path, operation })));
}

/** Fields of bodies that name something of the caller's, with a request that is right but for them; the others name nothing that is stored. */
const NAMING: Readonly<Record<string, (theirs: Readonly<Record<string, string>>) => object>> = {
  previous_response_id: (theirs) => ({ model: 'countdown', input: 'x', previous_response_id: theirs['/v1/responses'] }),
  input_file_id: (theirs) => ({ input_file_id: theirs['/v1/files'], endpoint: '/v1/chat/completions', completion_window: '24h' }),
};
const FREE = ['id', 'tool_call_id', 'custom_id'];

/** Every way in which an operation can be told another's id: in its path, as the place in a list, in its body. */
function attempts(path: string, { parameters = [], requestBody }: Operation, theirs: Readonly<Record<string, string>>, id: string): readonly (readonly [string, object | null])[] {
  const schema = schemas[requestBody?.content['application/json']?.schema.$ref?.split('/').at(-1) ?? ''];
  if (path.includes('{id}')) return [[path.replace('{id}', id).replace(/\{\w+\}/, 'any'), requestBody === undefined ? null : (schema?.example ?? {})]];
  const named = Object.keys(schema?.properties ?? {}).filter((name) => /(^|_)ids?$/.test(name));
  expect(named.filter((name) => !(name in NAMING) && !FREE.includes(name))).toEqual([]);
  const bodies = named.flatMap((name) => (name in NAMING ? [[path, NAMING[name]?.(theirs) ?? null] as const] : []));
  const lists = parameters.filter((parameter) => parameter.in === 'query' && parameter.name === 'after').map(() => [`${path}?after=${id}`, null] as const);
  return [...lists, ...bodies];
}

const submit = async (key: string, body: object = JOB) => ((await (await api.post('/v1/jobs', body, bearer(key))).json()) as { id: string }).id;

describe('a key', () => {
  test('that is missing, wrong or malformed is 401, for the client AuthenticationError', async () => {
    for (const authorization of ['', 'Bearer', 'Bearer  ', 'Bearer wrong', 'Basic key-of-anna', `Bearer ${'x'.repeat(10_000)}`, 'Bearer key-of-anna extra']) {
      const response = await api.get('/v1/models', { authorization });
      expect([authorization.slice(0, 20), response.status]).toEqual([authorization.slice(0, 20), 401]);
      expect(response.headers.get('www-authenticate')).toBe('Bearer');
    }
    const client = new OpenAI({ baseURL: `${api.url}/v1`, apiKey: 'wrong', maxRetries: 0 });
    await expect(client.models.list()).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
    await expect(client.models.list()).rejects.toMatchObject({ code: 'invalid_api_key' });
  });

  test('is looked up by its hash, and neither key nor hash is logged', async () => {
    expect((await api.get('/v1/models', bearer('key-of-anna'))).status).toBe(200);
    // echo -n key-of-anna | sha256sum
    expect(asked.at(-1)).toMatch(/^[0-9a-f]{64}$/);
    expect(await hashOf('abc')).toBe('ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad');
    expect(api.logged.join('\n')).not.toMatch(/key-of-anna/);
    expect(api.logged.join('\n')).not.toContain(asked.at(-1));
  });

  test('without the scope is 403 for what changes anything', async () => {
    const id = await submit('key-of-anna');
    const look = bearer('key-to-look');
    expect((await api.get(`/v1/jobs/${id}`, look)).status).toBe(200);
    // What has a body and changes nothing.
    const looking = ['/v1/quotes', '/v1/checkpoints/{id}/verify'];
    const changing = (await operations()).filter(({ method, path }) => path.startsWith('/v1/') && method !== 'get' && !looking.includes(path));
    expect(changing.length).toBeGreaterThanOrEqual(20);
    for (const { method, path } of changing) {
      const response = await fetch(api.url + path.replaceAll(/\{\w+\}/g, id), { method: method.toUpperCase(), headers: { ...look, 'content-type': 'application/json' }, ...(method === 'delete' ? {} : { body: JSON.stringify(JOB) }) });
      expect([method, path, response.status]).toEqual([method, path, 403]);
    }
  });

  test('is not needed for health and the document', async () => {
    for (const path of ['/health', '/health/live', '/openapi.json', '/docs']) expect((await api.get(path)).status).toBe(200);
    const { components } = (await (await api.get('/openapi.json')).json()) as { components: { securitySchemes: object } };
    expect(components.securitySchemes).toEqual({ key: { type: 'http', scheme: 'bearer' } });
  });
});

describe('a tenant', () => {
  test('gets 404 for another\'s job, checkpoint, response, file, batch and webhook under every endpoint, and all of it is as it was', async () => {
    const theirs = await belongings('key-of-anna');
    // A worker says now and then how fast it is.
    const stored = () => [...api.platform.store.snapshot()].map(([key, bytes]) => `${key} ${Buffer.from(bytes).toString('base64')}`).filter((line) => !/^(idx\/bert|rate\/)/.test(line)).sort();
    const before = stored();
    const tried: string[] = [];
    for (const { method, path, operation } of await operations()) {
      const family = Object.keys(theirs).find((prefix) => path === prefix || path.startsWith(`${prefix}/`));
      if (path.includes('{')) {
        // Models are everybody's. A new endpoint with an id must say here whose it is.
        if (path.startsWith('/v1/models')) continue;
        expect([path, family]).not.toEqual([path, undefined]);
        // A name of one's own may be the same as another's id: that is another job.
        if (method === 'put') continue;
      }
      const id = theirs[family ?? ''] ?? '';
      for (const [address, body] of attempts(path, operation, theirs, id)) {
        // Where a list goes on is a place in one's own, whatever stood there: of another's id it tells what it tells of one that never was.
        if (/^\/v1\/(files|batches)\?after=/.test(address)) {
          const [ofTheirs, ofNobody] = await Promise.all([address, address.replace(/.{6}$/, '000000')].map(async (one) => await (await api.get(one, bearer('key-of-bert'))).text()));
          expect([ofTheirs, JSON.parse(ofTheirs ?? '')]).toMatchObject([ofNobody, { data: [] }]);
          tried.push(`${method} ${path}`);
          continue;
        }
        const response = await fetch(api.url + address, {
          method: method.toUpperCase(), headers: { ...bearer('key-of-bert'), ...(body === null ? {} : { 'content-type': 'application/json' }) }, ...(body === null ? {} : { body: JSON.stringify(body) }),
        });
        expect([method, address, body, response.status]).toEqual([method, address, body, 404]);
        expect(await response.text()).not.toContain('anna');
        tried.push(`${method} ${path}`);
      }
    }
    expect(new Set(tried).size).toBeGreaterThanOrEqual(30);
    expect(stored()).toEqual(before);
    for (const list of ['/v1/jobs', '/v1/checkpoints', '/v1/files', '/v1/batches', '/v1/webhooks']) {
      expect(await (await api.get(list, bearer('key-of-bert'))).json()).toMatchObject({ data: [] });
    }
  });

  test('has idempotency keys and names of its own', async () => {
    const ids = [];
    for (const key of ['key-of-anna', 'key-of-bert']) ids.push(((await (await api.post('/v1/jobs', { ...JOB, seed: ids.length }, { ...bearer(key), 'Idempotency-Key': 'same' })).json()) as { id: string }).id);
    expect(new Set(ids).size).toBe(2);
  });
});

describe('a rate', () => {
  test('of requests a minute is told, kept, and refilled', async () => {
    const ask = () => api.get('/v1/models', bearer('key-of-few'));
    const first = await ask();
    expect(['limit', 'remaining', 'reset'].map((name) => first.headers.get(`x-ratelimit-${name}-requests`))).toEqual(['2', '1', '30s']);
    expect((await ask()).status).toBe(200);
    const third = await ask();
    expect(third.status).toBe(429);
    expect(third.headers.get('retry-after')).toBe('30');
    expect(await third.json()).toMatchObject({ error: { code: 'rate_limit_exceeded', type: 'rate_limit_error' } });
    nowMs += 30_000;
    expect((await ask()).status).toBe(200);
    expect((await ask()).status).toBe(429);
    const client = new OpenAI({ baseURL: `${api.url}/v1`, apiKey: 'key-of-few', maxRetries: 0 });
    await expect(client.models.list()).rejects.toBeInstanceOf(OpenAI.RateLimitError);
    // What is refused has cost one, too, and says so.
    nowMs += 60_000;
    const missing = await api.get('/v1/jobs/nobody', bearer('key-of-few'));
    expect([missing.status, missing.headers.get('x-ratelimit-remaining-requests')]).toEqual([404, '1']);
    const wrong = await api.post('/v1/jobs', '{', bearer('key-of-few'));
    expect([wrong.status, wrong.headers.get('x-ratelimit-remaining-requests')]).toEqual([400, '0']);
    expect((await api.get('/v1/models', bearer('nobody'))).headers.has('x-ratelimit-remaining-requests')).toBe(false);
  });

  test('of requests at a time counts a stream until it ends or its reader leaves', async () => {
    const id = await submit('key-of-one', LONG);
    const stream = await api.get(`/v1/jobs/${id}/events`, bearer('key-of-one'));
    const refused = await api.get('/v1/models', bearer('key-of-one'));
    expect(refused.status).toBe(429);
    expect(await refused.json()).toMatchObject({ error: { code: 'too_many_requests_at_once' } });
    await readSse(stream, () => true);
    await vi.waitFor(async () => expect((await api.get('/v1/models', bearer('key-of-one'))).status).toBe(200), WAIT);
    // HEAD reads no stream, so it holds none.
    for (let n = 0; n < 3; n++) expect((await fetch(`${api.url}/v1/jobs/${id}/events`, { method: 'HEAD', headers: bearer('key-of-one') })).status).toBe(200);
    // A request that is refused was not counted for ever.
    for (let n = 0; n < 3; n++) expect((await api.post('/v1/jobs', '{', bearer('key-of-one'))).status).toBe(400);
    expect((await fetch(`${api.url}/v1/jobs/${id}/cancel`, { method: 'POST', headers: bearer('key-of-one') })).status).toBe(200);
  });

  test('of jobs that have not ended is kept over all endpoints, and room comes with every end', async () => {
    const headers = bearer('key-of-two-jobs');
    const submit = async () => await api.post('/v1/jobs', LONG, headers);
    const made = [await submit(), await submit()];
    expect(made.map(({ status }) => status)).toEqual([201, 201]);
    const chat = { model: 'countdown@cr2', messages: [{ role: 'user', content: '1 2 target 3' }] };
    for (const [path, body] of [['/v1/jobs', LONG], ['/v1/chat/completions', chat], ['/v1/responses', { model: 'countdown@cr2', input: '1', background: true }]] as const) {
      const refused = await api.post(path, body, headers);
      expect([path, refused.status, refused.headers.get('retry-after')]).toEqual([path, 429, '5']);
      expect(JSON.stringify(await refused.json())).toContain('"too_many_jobs"');
    }
    // Who looks, quotes or cancels makes none, and another tenant has jobs of its own.
    expect((await api.post('/v1/quotes', JOB, headers)).status).toBe(200);
    expect((await api.post('/v1/jobs', JOB, bearer('key-of-bert'))).status).toBe(201);
    const { id } = (await made[0]?.json()) as { id: string };
    expect((await api.post(`/v1/jobs/${id}/cancel`, '', headers)).status).toBe(200);
    const after = await vi.waitFor(async () => {
      const response = await submit();
      expect(response.status).toBe(201);
      return (await response.json()) as { id: string };
    }, WAIT);
    for (const job of [after.id, ((await made[1]?.json()) as { id: string }).id]) await api.post(`/v1/jobs/${job}/cancel`, '', headers);
  });

  test('of jobs that have not ended refuses no repetition, which makes none', async () => {
    const key = 'key-of-three-jobs';
    const chat = { model: 'countdown@cr2', messages: [{ role: 'user', content: '1 2 target 3' }], temperature: 5, logit_bias: { 2: -100 }, stream: true };
    const keyed = (path: string, body: object, name: string) => api.post(path, body, { ...bearer(key), 'Idempotency-Key': name });
    const named = (name: string, body: object) => fetch(`${api.url}/v1/jobs/${name}`, { method: 'PUT', headers: { 'content-type': 'application/json', ...bearer(key) }, body: JSON.stringify(body) });
    const jobOf = async (response: Response) => {
      await response.body?.cancel();
      return [response.status, response.headers.get('x-ruminate-job') ?? response.headers.get('location')];
    };
    const asks = [() => keyed('/v1/jobs', LONG, 'posted'), () => named('put', LONG), () => keyed('/v1/chat/completions', chat, 'chatted')];
    const made = [];
    for (const ask of asks) made.push(await jobOf(await ask()));
    // What is new is refused, under a key or a name as without.
    for (const refused of [api.post('/v1/jobs', LONG, bearer(key)), keyed('/v1/jobs', LONG, 'new'), named('new', LONG), keyed('/v1/responses', { model: 'countdown@cr2', input: '1' }, 'new')]) expect((await refused).status).toBe(429);
    const again = [];
    for (const ask of asks) again.push(await jobOf(await ask()));
    expect(again).toEqual(made);
    expect(made.map(([status]) => status)).toEqual([201, 200, 200]);
    expect((await keyed('/v1/jobs', JOB, 'posted')).status).toBe(422);
    const { data } = (await (await api.get('/v1/jobs', bearer(key))).json()) as { data: { id: string }[] };
    expect(data).toHaveLength(3);
    for (const { id } of data) await api.post(`/v1/jobs/${id}/cancel`, '', bearer(key));
  });
});

test('a batch, a fork or an extension that is asked for again makes none, and so is given also to who has as many jobs as it may', async () => {
  const headers = bearer('key-of-nine-jobs');
  const ended = async (id: string) => void (await readSse(await api.get(`/v1/jobs/${id}/events`, headers)));
  const { id: parent } = (await (await api.post('/v1/jobs', { ...JOB, budget: { width: 1, length: 3 } }, headers)).json()) as { id: string };
  await ended(parent);
  const form = new FormData();
  form.set('purpose', 'batch');
  form.set('file', new Blob([JSON.stringify({ custom_id: 'a', method: 'POST', url: '/v1/chat/completions', body: { model: 'countdown@cr2', messages: [{ role: 'user', content: '1 2 target 3' }], max_tokens: 2 } })]), 'a.jsonl');
  const file = (await (await fetch(`${api.url}/v1/files`, { method: 'POST', headers, body: form })).json()) as { id: string };
  const asks = (name: string) => [
    () => api.post('/v1/batches', { input_file_id: file.id, endpoint: '/v1/chat/completions', completion_window: '24h' }, { ...headers, 'Idempotency-Key': name }),
    () => api.post(`/v1/jobs/${parent}/fork`, { chain: 0, at: 1, length: 4 }, { ...headers, 'Idempotency-Key': name }),
    () => api.post(`/v1/jobs/${parent}/extend`, { length: 5, id: `longer-${name}` }, headers),
  ];
  const answers = async (name: string) => await Promise.all(asks(name).map(async (ask) => {
    const response = await ask();
    const { id } = (await response.json()) as { id?: string };
    return [response.status, id];
  }));
  const made = await answers('one');
  expect(made.map(([status]) => status)).toEqual([200, 201, 201]);
  for (const [, id] of made.slice(1)) await ended(String(id));
  await vi.waitFor(async () => expect(await (await api.get(`/v1/batches/${String(made[0]?.[1])}`, headers)).json()).toMatchObject({ status: 'completed' }), WAIT);
  // As many as the key may have, which none of them can end while this looks.
  const full = vi.spyOn(api.platform, 'live').mockResolvedValue(9);
  expect((await answers('two')).map(([status]) => status), 'what is new').toEqual([429, 429, 429]);
  expect(await answers('one')).toEqual(made);
  full.mockRestore();
});

describe('whoever guesses keys', () => {
  const limit = HTTP_LIMITS.BAD_KEYS_A_MINUTE;

  test('is refused for a while, with whatever it brings: the answer to a key that is right is the same as to one that is wrong', async () => {
    // On a clock of its own, so that the tests before it count for nothing.
    const known = await hashOf('key-of-anna');
    let looked = 0;
    await using guessed = await startApi({ clock, auth: { find: async (sha256) => {
      looked += 1;
      return sha256 === known ? (KEYS['key-of-anna'] ?? null) : null;
    } } });
    for (let n = 0; n < limit; n++) expect((await guessed.get('/v1/models', bearer(`guess-${n}`))).status).toBe(401);
    const before = looked;
    for (const key of ['key-of-anna', 'guess']) {
      const refused = await guessed.get('/v1/models', bearer(key));
      expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, expect.stringMatching(/^[1-9]$/)]);
      expect(await refused.json()).toMatchObject({ error: { code: 'too_many_bad_keys', type: 'rate_limit_error' } });
    }
    expect(looked).toBe(before);
    // Refusals are not counted, or who is refused and asks again would never come back.
    nowMs += 60_000;
    expect((await guessed.get('/v1/models', bearer('key-of-anna'))).status).toBe(200);
    // Those that were asked side by side are counted when they fail, and paid off.
    await Promise.all(Array.from({ length: 2 * limit }, (_, n) => guessed.get('/v1/models', bearer(`guess-${n}`))));
    expect((await guessed.get('/v1/models', bearer('guess'))).status).toBe(429);
    nowMs += 10 * 60_000;
    // Health needs no key, and a client that makes no mistake is never slowed by this.
    for (let n = 0; n < limit + 5; n++) expect((await guessed.get('/v1/models', bearer('key-of-anna'))).status).toBe(200);
  });

  test('is known by address, of version 6 by network, and the oldest are forgotten', () => {
    const guesses = new Guesses(clock);
    const spend = (remote: string) => Array.from({ length: limit }, () => guesses.failed(remote));
    spend('2001:db8:1:2::1');
    expect(() => guesses.admit('2001:db8:1:2:ffff::9')).toThrow(expect.objectContaining({ code: 'too_many_bad_keys' }));
    guesses.admit('2001:db8:1:3::1');
    spend('::ffff:192.0.2.7');
    expect(() => guesses.admit('192.0.2.7')).toThrow(expect.objectContaining({ code: 'too_many_bad_keys' }));
    guesses.admit('192.0.2.8');
    guesses.admit(undefined);
    for (let n = 0; n <= HTTP_LIMITS.KEYS_MAX; n++) guesses.failed(`10.${n >> 16}.${(n >> 8) & 255}.${n & 255}`);
    guesses.admit('192.0.2.7');
  });

  test('cannot write its own address: only our proxies are believed', async () => {
    const seen: (string | undefined)[] = [];
    for (const proxies of [0, 1, 2]) {
      const listening = await listen({ fetch: (_, { remote }) => {
        seen.push(remote);
        return new Response('');
      }, host: '127.0.0.1', port: 0, proxies });
      await fetch(listening.url, { headers: { 'x-forwarded-for': '6.6.6.6, 203.0.113.9, 198.51.100.2' } });
      await listening.end();
    }
    expect(seen).toEqual(['127.0.0.1', '198.51.100.2', '203.0.113.9']);
  });
});

test('a port that is in use is refused, with the option by which another is chosen', async () => {
  const options = { fetch: () => new Response(''), host: '127.0.0.1' };
  const listening = await listen({ ...options, port: 0 });
  const port = Number(new URL(listening.url).port);
  await expect(listen({ ...options, port })).rejects.toMatchObject({ code: 'ERR_OPTION', message: expect.stringContaining('choose another with --port') as unknown });
  await expect(listen({ ...options, port, option: '--metrics-port' })).rejects.toMatchObject({ message: expect.stringContaining('choose another with --metrics-port') as unknown });
  await listening.end();
});
