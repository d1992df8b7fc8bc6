/** The native API: jobs that outlive their requests, streams that go on where the reader stopped. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { NativeShelf } from '../../engine/control/native-shelf.ts';
import { EngineError } from '../../engine/core/errors.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { endJob } from '../../engine/kv/end.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import type { Services } from '../../functions/context.ts';
import { submit as submitAs } from '../../functions/idempotency.ts';
import { platformOn } from '../control/support.ts';
import { ManualClock } from '../helpers/clock.ts';
import { type HttpApi, startApi } from '../helpers/http-api.ts';
import { type SseEvent, readSse } from '../helpers/sse.ts';

const GREEDY = { model: 'countdown@cr2', prompt: '7 18 17 7 target 35', sampling: { temperature: 0 }, budget: { width: 1 } };
const LONG = { model: 'countdown@dense', prompt: '3 5 7 11 13 17 target 997', sampling: { temperature: 5, logit_bias: [[2, -100]] }, budget: { width: 8 }, vote: 'none' };

/** Until a job that runs already lets another one run. */
const WAIT = { timeout: 20_000 };

interface Job {
  id: string;
  state: string;
  status: string;
  chains: { tokens: number; finish: string | null }[];
  parent: { job: string; kind: string } | null;
}

let api: HttpApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api[Symbol.asyncDispose]());

const json = async <T>(response: Promise<Response>): Promise<T> => (await (await response).json()) as T;
const send = (method: string, path: string, body?: unknown, headers = {}) =>
  fetch(api.url + path, { method, headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
const submit = (body: object = GREEDY) => json<Job>(api.post('/v1/jobs', body));
const follow = async (id: string, query = '', headers = {}) => await readSse(await api.get(`/v1/jobs/${id}/events${query}`, headers));
const numbered = (events: readonly SseEvent[]) => events.filter(({ event }) => event === 'token' || event === 'finish' || event === 'result');
const ended = async (id: string) => {
  await follow(id);
  return await json<Job>(api.get(`/v1/jobs/${id}`));
};

test('a job that the store is too slow to make is one to ask for again, and not one that somebody cancelled', async () => {
  const clock = new ManualClock();
  const never = (_: unknown, { signal }: { readonly signal: AbortSignal }) => new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(new EngineError('ERR_CANCELLED', 'The call was cancelled.')));
  });
  const making = submitAs({ platform: { submit: never }, clock } as unknown as Services, {} as JobSpec, { tenant: 'acme', id: 'sums', key: undefined });
  clock.advance(30_000);
  await expect(making).rejects.toMatchObject({ status: 503, code: 'overloaded', headers: { 'retry-after': '1' } });
});

describe.each(['damaged', 'lost'])('a job whose spec is %s', (how) => {
  const spoil = async (id: string): Promise<void> => {
    const { store } = api.platform;
    const [spec = ''] = [...store.snapshot().keys()].filter((key) => key.includes(`/${id}/spec-`));
    await (how === 'lost' ? store.delete([spec]) : store.put(spec, [Buffer.from('{}')]));
  };
  const GONE = { status: 410, code: 'checkpoint_damaged' };
  const refusal = async (response: Promise<Response>) => {
    const from = await response;
    const body = (await from.json()) as { code?: string; error?: { code: string } };
    return { status: from.status, code: body.code ?? body.error?.code };
  };

  test('shows how it stands, refuses what it was and came to by a code of its own, never as a fault of the server, and is erased', async () => {
    const { id } = await submit({ ...GREEDY, budget: { width: 1, length: 3 } });
    expect((await ended(id)).state).toBe('done');
    await spoil(id);
    expect(await json<Job>(api.get(`/v1/jobs/${id}`))).toMatchObject({ id, state: 'done', status: 'completed', model: '', chains: [{ tokens: 3 }] });
    expect(await json<{ data: Job[] }>(api.get('/v1/jobs')).then(({ data }) => data.find((job) => job.id === id))).toMatchObject({ state: 'done' });
    for (const path of [`/v1/jobs/${id}/result`, `/v1/responses/resp_${id}`, `/v1/responses/resp_${id}/input_items`]) expect(await refusal(api.get(path)), path).toEqual(GONE);
    expect(await follow(id), 'a stream has begun by then').toMatchObject([{ event: 'error', data: GONE }]);
    for (const [path, body] of [['extend', { length: 9 }], ['fork', { chain: 0, at: 1 }]] as const) expect(await refusal(api.post(`/v1/jobs/${id}/${path}`, body)), path).toEqual(GONE);
    expect(await refusal(api.post('/v1/responses', { model: 'countdown@cr2', input: 'x', previous_response_id: `resp_${id}` }))).toEqual(GONE);
    expect(await json<Job>(send('POST', `/v1/jobs/${id}/cancel`, {})), 'it stays as it ended').toMatchObject({ state: 'done' });
    expect(api.logged.some((line) => line.includes(id) && /EngineError: (damaged|missing): /.test(line)), 'who runs the server hears of it').toBe(true);
    expect((await send('DELETE', `/v1/jobs/${id}`)).status).toBe(204);
    expect((await api.get(`/v1/jobs/${id}`)).status).toBe(404);
    expect([...api.platform.store.snapshot().keys()].filter((key) => key.includes(`/${id}/`))).toEqual([`kv/local/${id}/HEAD`]);
  });

  test('is cancelled while it has not ended', async () => {
    const { id } = await submit(LONG);
    await spoil(id);
    expect(await json<Job>(api.get(`/v1/jobs/${id}`))).toMatchObject({ id, status: expect.stringMatching(/queued|in_progress/) as unknown });
    expect(await json<Job>(send('POST', `/v1/jobs/${id}/cancel`, {}))).toMatchObject({ id, state: 'cancelled' });
    await vi.waitFor(() => expect([...api.platform.store.snapshot().keys()].some((key) => key.startsWith('live/') && key.endsWith(id))).toBe(false), WAIT);
  });
});

describe('a job', () => {
  test('is submitted, followed to its end and has a result', async () => {
    const response = await api.post('/v1/jobs', GREEDY);
    expect(response.status).toBe(201);
    const job = (await response.json()) as Job;
    expect(response.headers.get('location')).toBe(`/v1/jobs/${job.id}`);
    const events = await follow(job.id);
    expect(numbered(events).map(({ id }) => Number(id))).toEqual(numbered(events).map((_, n) => n));
    expect(events.at(-1)).toMatchObject({ event: 'end', data: { state: 'done' }, id: numbered(events).at(-1)?.id });
    const content = numbered(events).map(({ data }) => (data as { content?: string }).content ?? '').join('');
    const result = await json<{ answer: string; usage: { completion_tokens: number } }>(api.get(`/v1/jobs/${job.id}/result`));
    expect(content).toContain(result.answer);
    expect(events.filter(({ event }) => event === 'token')).toHaveLength(result.usage.completion_tokens);
    expect(await json(api.get(`/v1/jobs/${job.id}`))).toMatchObject({ object: 'job', state: 'done', status: 'completed', chains: [{ tokens: result.usage.completion_tokens, finish: 'stop' }] });
  });

  test('whose result was kept for its time is told to be gone, to everyone who comes back for it', async () => {
    const { id } = await submit();
    expect(await ended(id)).toMatchObject({ state: 'done', expires_at: null, incomplete_details: null });
    const response = await api.openai.responses.create({ model: 'countdown@cr2', input: '4 20 8 13 target 59' });
    for (const job of [id, response.id.replace('resp_', '')]) await eraseJob(api.platform.store, { tenant: 'local', job }, { isOverdue: true });
    for (const path of ['', '/result', '/events']) {
      const gone = await api.get(`/v1/jobs/${id}${path}`);
      expect(gone.status).toBe(410);
      expect(await gone.json()).toMatchObject({ code: 'result_expired', status: 410 });
    }
    await expect(api.openai.responses.retrieve(response.id)).rejects.toMatchObject({ status: 410, code: 'result_expired' });
  });

  test('that ended before it was done says why, and has what there was by then', async () => {
    const { id } = await submit({ ...GREEDY, budget: { width: 2, length: 500, kv_read_budget: 4_000 } });
    expect(await ended(id)).toMatchObject({ state: 'incomplete', incomplete_details: { reason: 'kv_read_budget' } });
    const result = await json<{ ballots: object[]; chains: { tokens: number[]; text: string }[]; usage: { kv_reads: number } }>(api.get(`/v1/jobs/${id}/result`));
    expect(result.ballots).toHaveLength(2);
    expect(result.chains[0]?.text).not.toBe('');
    expect(result.usage.kv_reads).toBeLessThanOrEqual(4_000);
    // Ended from outside, each in its own way; no worker has heard of them.
    using shelf = new NativeShelf();
    const { platform } = platformOn(api.platform.store, shelf);
    for (const state of ['cancelled', 'expired', 'poisoned'] as const) {
      const where = { tenant: 'local', job: `ended-${state}` };
      await platform.submit({ model: 'countdown@cr2', prompt: GREEDY.prompt, budget: { width: 1 } }, { tenant: 'local', id: where.job });
      await endJob(api.platform.store, where, state);
      expect(await json(api.get(`/v1/jobs/${where.job}`))).toMatchObject({ state, incomplete_details: { reason: state } });
      expect(await json(api.get(`/v1/jobs/${where.job}/result`))).toMatchObject({ answer: null, ballots: [{ answer: null }], usage: { completion_tokens: 0 } });
    }
  });

  test('is read on from any event, by query or by Last-Event-ID, and nothing is missed or seen twice', async () => {
    const { id } = await submit({ ...GREEDY, budget: { width: 2 }, early_stop: false });
    const whole = numbered(await follow(id));
    // As clients write it that have none yet.
    expect(numbered(await follow(id, '?after='))).toEqual(whole);
    for (const cut of [0, 1, 17, whole.length - 2]) {
      const rest = whole.slice(cut + 1);
      expect(numbered(await follow(id, `?after=${cut}`))).toEqual(rest);
      expect(numbered(await follow(id, '', { 'Last-Event-ID': `${cut}` }))).toEqual(rest);
      expect(numbered(await follow(id, '?after=3', { 'Last-Event-ID': `${cut}` }))).toEqual(rest);
    }
    const over = await api.get(`/v1/jobs/${id}/events?after=${whole.length - 1}`);
    expect(over.status).toBe(204);
  });

  test('outlives a reader that leaves, and the next one goes on', async () => {
    const { id } = await submit({ ...LONG, budget: { width: 2, length: 300 } });
    const first = await readSse(await api.get(`/v1/jobs/${id}/events`), ({ event, id: seq }) => event === 'token' && seq === '40');
    const rest = await follow(id, '?after=40');
    const all = [...numbered(first), ...numbered(rest)];
    expect(all.map(({ id: seq }) => Number(seq))).toEqual(all.map((_, n) => n));
    expect(all.at(-1)?.event).toBe('result');
    expect(all.at(-1)?.data).toMatchObject({ result: { usage: { completion_tokens: expect.any(Number) as number } } });
  });

  test('under a key or a name of the client\'s is the same job again; with another body it is refused', async () => {
    const headers = { 'Idempotency-Key': 'k1' };
    const first = await json<Job>(api.post('/v1/jobs', GREEDY, headers));
    expect((await json<Job>(api.post('/v1/jobs', GREEDY, headers))).id).toBe(first.id);
    const put = await send('PUT', '/v1/jobs/my-sums', GREEDY);
    expect(put.status).toBe(200);
    expect(await put.json()).toMatchObject({ id: 'my-sums' });
    expect((await send('PUT', '/v1/jobs/my-sums', GREEDY)).status).toBe(200);
    for (const other of [await api.post('/v1/jobs', { ...GREEDY, seed: 4 }, headers), await send('PUT', '/v1/jobs/my-sums', { ...GREEDY, seed: 4 })]) {
      expect(other.status).toBe(422);
      expect(await other.json()).toMatchObject({ code: 'used_for_another', status: 422 });
    }
  });

  test('under the key of a fork or a file is none of these: every kind has keys of its own', async () => {
    const headers = { 'Idempotency-Key': 'one-for-all' };
    const { id } = await json<Job>(api.post('/v1/jobs', { ...GREEDY, budget: { width: 1, length: 4 } }, headers));
    await ended(id);
    const form = new FormData();
    form.set('purpose', 'batch');
    form.set('file', new File(['{}'], 'x.jsonl'));
    for (let i = 0; i < 2; i++) {
      const fork = await api.post(`/v1/jobs/${id}/fork`, { chain: 0, at: 2 }, headers);
      expect([fork.status, (await json<Job>(Promise.resolve(fork))).id === id]).toEqual([201, false]);
      expect((await fetch(`${api.url}/v1/files`, { method: 'POST', headers, body: form })).status).toBe(200);
    }
    expect((await api.post(`/v1/jobs/${id}/fork`, { chain: 0, at: 1 }, headers)).status).toBe(422);
  });

  test('that was erased is not made again under its key or name, and whoever asks for it is told so', async () => {
    const short = { ...GREEDY, budget: { width: 1, length: 1 } };
    const keyed = () => api.post('/v1/jobs', short, { 'Idempotency-Key': 'gone' });
    const named = () => send('PUT', '/v1/jobs/gone', short);
    for (const [ask, param] of [[keyed, 'idempotency-key'], [named, 'id']] as const) {
      const { id } = await json<Job>(ask());
      expect((await send('DELETE', `/v1/jobs/${id}`)).status).toBe(204);
      const again = await ask();
      expect(again.status).toBe(410);
      expect(await again.json()).toMatchObject({ code: 'erased', status: 410, param, detail: expect.stringContaining('was erased') as string });
    }
  });

  test('is cancelled once and for all; one that has ended stays as it ended', async () => {
    const { id } = await submit(LONG);
    await vi.waitFor(async () => expect((await json<Job>(api.get(`/v1/jobs/${id}`))).state).toBe('running'), WAIT);
    expect((await json<Job>(api.get(`/v1/jobs/${id}`))).chains).toHaveLength(8);
    expect((await api.get(`/v1/jobs/${id}/result`)).status).toBe(409);
    expect(await json(send('POST', `/v1/jobs/${id}/cancel`))).toMatchObject({ state: 'cancelled', status: 'cancelled' });
    expect(await json(send('POST', `/v1/jobs/${id}/cancel`))).toMatchObject({ state: 'cancelled' });
    expect((await follow(id)).at(-1)).toMatchObject({ event: 'end', data: { state: 'cancelled' } });
    const done = await ended((await submit()).id);
    expect(await json(send('POST', `/v1/jobs/${done.id}/cancel`))).toMatchObject({ state: 'done' });
  });

  test('is listed newest first, page by page', async () => {
    await using own = await startApi();
    const made = [];
    for (let n = 0; n < 3; n++) made.unshift((await json<Job>(own.post('/v1/jobs', { ...GREEDY, budget: { width: 1, length: 1 } }))).id);
    const page = await json<{ data: Job[]; has_more: boolean }>(own.get('/v1/jobs?limit=2'));
    expect(page.data.map(({ id }) => id)).toEqual(made.slice(0, 2));
    expect(page.has_more).toBe(true);
    const next = await json<{ data: Job[] }>(own.get(`/v1/jobs?limit=1&after=${made[1]}`));
    expect(next.data.map(({ id }) => id)).toEqual(made.slice(2));
    // Of one day by name from the last, so that names of one's own stand beside those that are made.
    for (const id of ['x', 'y', 'w']) await fetch(`${own.url}/v1/jobs/${id}`, { method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ ...GREEDY, budget: { width: 1, length: 1 } }) });
    expect((await json<{ data: Job[] }>(own.get('/v1/jobs'))).data.map(({ id }) => id)).toEqual(['y', 'x', 'w', ...made]);
  });

  test('is extended into a new job that begins as it did, and erased', async () => {
    const { id } = await ended((await submit({ ...GREEDY, budget: { width: 1, length: 5 } })).id);
    const response = await api.post(`/v1/jobs/${id}/extend`, { length: 9 });
    expect(response.status).toBe(201);
    const longer = (await response.json()) as Job;
    expect(longer.parent).toEqual({ job: id, kind: 'extend' });
    await follow(longer.id);
    const tokens = async (job: string) => (await json<{ chains: { tokens: number[] }[] }>(api.get(`/v1/jobs/${job}/result`))).chains[0]?.tokens;
    expect((await tokens(longer.id))?.slice(0, 5)).toEqual(await tokens(id));
    expect((await send('DELETE', `/v1/jobs/${id}`)).status).toBe(204);
    expect((await api.get(`/v1/jobs/${id}`)).status).toBe(404);
  });

  test('is forked into chains that begin with its own tokens and go other ways', async () => {
    const { id } = await ended((await submit({ ...GREEDY, sampling: { temperature: 1 }, seed: 1, budget: { width: 1, length: 40 } })).id);
    const fork = await json<Job>(api.post(`/v1/jobs/${id}/fork`, { chain: 0, at: 12, width: 3, seed: 5 }));
    expect(fork.parent).toEqual({ job: id, kind: 'fork' });
    await follow(fork.id);
    const chains = async (job: string) => (await json<{ chains: { tokens: number[] }[] }>(api.get(`/v1/jobs/${job}/result`))).chains.map(({ tokens }) => tokens);
    const [parent] = await chains(id);
    const forked = await chains(fork.id);
    expect(forked).toHaveLength(3);
    for (const tokens of forked) expect(tokens.slice(0, 12)).toEqual(parent?.slice(0, 12));
    expect(new Set(forked.map((tokens) => tokens.join())).size).toBeGreaterThan(1);
  });

  test('a fork or an extension under a key is one job however often it is asked for; with another body or an id beside it is refused', async () => {
    const { id } = await ended((await submit({ ...GREEDY, budget: { width: 1, length: 5 } })).id);
    for (const [path, body, other] of [
      [`/v1/jobs/${id}/fork`, { chain: 0, at: 3, width: 1, length: 6 }, { chain: 0, at: 2, width: 1, length: 6 }],
      [`/v1/jobs/${id}/extend`, { length: 6 }, { length: 7 }],
    ] as const) {
      const headers = { 'Idempotency-Key': `k ${path}` };
      const first = await api.post(path, body, headers);
      expect(first.status).toBe(201);
      const { id: made } = (await first.json()) as Job;
      expect((await json<Job>(api.post(path, body, headers))).id).toBe(made);
      await ended(made);
      expect((await json<Job>(api.post(path, body, headers))).id).toBe(made);
      expect((await json<Job>(api.post(path, body))).id).not.toBe(made);
      const clash = await api.post(path, other, headers);
      expect([clash.status, await clash.json()]).toMatchObject([422, { code: 'used_for_another', param: 'idempotency-key' }]);
      const twice = await api.post(path, { ...body, id: 'mine' }, headers);
      expect([twice.status, await twice.json()]).toMatchObject([400, { code: 'invalid_value', param: 'id' }]);
      expect((await send('DELETE', `/v1/jobs/${made}`)).status).toBe(204);
      expect((await api.post(path, body, headers)).status).toBe(410);
    }
  });

  test('a fork or an extension that is asked for again is given also when its parent was erased since; another request under its name, and a new one, are not', async () => {
    const { id } = await ended((await submit({ ...GREEDY, budget: { width: 1, length: 5 } })).id);
    const asks = [
      { path: 'fork', body: { chain: 0, at: 3, width: 1, length: 6 }, other: { chain: 0, at: 3, width: 1, length: 6, seed: 4 }, headers: { 'Idempotency-Key': 'of the erased' } },
      { path: 'extend', body: { length: 6, id: 'of-the-erased' }, other: { length: 7, id: 'of-the-erased' }, headers: {} },
    ];
    const made = await Promise.all(asks.map(async ({ path, body, headers }) => (await json<Job>(api.post(`/v1/jobs/${id}/${path}`, body, headers))).id));
    for (const child of made) expect((await ended(child)).state).toBe('done');
    expect((await send('DELETE', `/v1/jobs/${id}`)).status).toBe(204);
    for (const [i, { path, body, other, headers }] of asks.entries()) {
      expect(await json<Job>(api.post(`/v1/jobs/${id}/${path}`, body, headers))).toMatchObject({ id: made[i], state: 'done', parent: { job: id } });
      const clash = await api.post(`/v1/jobs/${id}/${path}`, other, headers);
      expect([clash.status, await clash.json()]).toMatchObject([422, { code: 'used_for_another' }]);
      expect((await api.post(`/v1/jobs/${id}/${path}`, { ...body, id: 'new' })).status, 'a new one has no parent').toBe(404);
      expect((await send('DELETE', `/v1/jobs/${made[i]}`)).status).toBe(204);
      expect((await api.post(`/v1/jobs/${id}/${path}`, body, headers)).status).toBe(410);
    }
  });

  test('a fork of what has no checkpoint yet is not said to be the key\'s fault', async () => {
    const fork = vi.spyOn(api.platform, 'fork').mockRejectedValueOnce(new EngineError('ERR_JOB_CONFLICT', 'The job young is queued and has no checkpoint yet; run it first.'));
    const refused = await api.post('/v1/jobs/young/fork', { chain: 0, at: 0 }, { 'Idempotency-Key': 'early' });
    fork.mockRestore();
    expect([refused.status, await refused.json()]).toMatchObject([409, { code: 'job_conflict' }]);
  });

  test('a fork hands on what was asked, and tells nothing of why the store could not', async () => {
    const { id } = await ended((await submit({ ...GREEDY, budget: { width: 1, length: 5 } })).id);
    const fork = vi.spyOn(api.platform, 'fork').mockRejectedValueOnce(new EngineError('ERR_CHECKPOINT', 'missing: the secret object'));
    const response = await api.post(`/v1/jobs/${id}/fork`, { chain: 0, at: 3, width: 2, seed: '18446744073709551615', id: 'other-way' });
    expect(fork).toHaveBeenCalledWith(id, expect.objectContaining({ tenant: 'local', as: 'other-way', chain: 0, at: 3, width: 2, seed: 18446744073709551615n }));
    fork.mockRestore();
    expect(response.status).toBe(410);
    expect(JSON.stringify(await response.json())).not.toContain('secret');
  });
});

test('a quote says what a job would cost, and a seed of 64 bits is taken', async () => {
  const quote = await json<{ expected: { kv_reads: number }; worst: { kv_reads: number } }>(api.post('/v1/quotes', { ...GREEDY, seed: '18446744073709551615', budget: { width: 4, length: 200 } }));
  expect(quote).toMatchObject({ prompt_tokens: 9, width: 4, length: 200, refusal: null });
  expect(quote.expected.kv_reads).toBeLessThan(quote.worst.kv_reads);
});

describe('what is refused', () => {
  test.each([
    ['threads', { threads: 4 }], ['backend', { backend: 'reference' }], ['policy', { policy: 'tova' }], ['budget.depth', { budget: { depth: 1 } }],
    ['model', { model: '/etc' }], ['seed', { seed: -1 }], ['answer', { answer: { rule: 'magic' } }],
  ])('%s: problem details, by name', async (param, change) => {
    const response = await api.post('/v1/jobs', { ...GREEDY, ...change });
    expect(response.status).toBe(400);
    expect(response.headers.get('content-type')).toBe('application/problem+json');
    const problem = (await response.json()) as { param: string; request_id: string };
    expect(problem.param.startsWith(param)).toBe(true);
    expect(problem.request_id).toBe(response.headers.get('x-request-id'));
  });

  test('both prompt and messages, neither, a pattern that runs for ever: the engine\'s own refusals', async () => {
    for (const change of [{ messages: [{ role: 'user', content: 'x' }] }, { prompt: undefined }, { answer: { rule: 'pattern', pattern: '(a+)+' } }]) {
      expect((await api.post('/v1/jobs', { ...GREEDY, ...change })).status).toBe(400);
    }
  });

  test('a job that is not there, under any endpoint, is 404', async () => {
    for (const [method, path, body] of [
      ['GET', '', undefined], ['GET', '/events', undefined], ['GET', '/result', undefined], ['POST', '/cancel', undefined], ['DELETE', '', undefined],
      ['POST', '/extend', { length: 9 }], ['POST', '/fork', { chain: 0, at: 0 }],
    ] as const) {
      for (const id of ['nobody', '..%2Fx', '%00', 'a'.repeat(80)]) {
        const response = await send(method, `/v1/jobs/${id}${path}`, body);
        expect([id, path, response.status]).toEqual([id, path, 404]);
        expect(response.headers.get('content-type')).toBe('application/problem+json');
      }
    }
    expect((await send('PUT', '/v1/jobs/-x', GREEDY)).status).toBe(400);
  });

  test('what a PUT or the model\'s template would ignore, by name', async () => {
    const keyed = await fetch(`${api.url}/v1/jobs/mine`, { method: 'PUT', headers: { 'content-type': 'application/json', 'idempotency-key': 'x' }, body: JSON.stringify(GREEDY) });
    expect([keyed.status, await keyed.json()]).toMatchObject([400, { code: 'unsupported_parameter', param: 'idempotency-key' }]);
    for (const [field, change] of [['documents', { documents: [{ a: 1 }] }], ['date', { date: '2024-07-26' }], ['messages.0.name', { prompt: undefined, messages: [{ role: 'user', content: '1', name: 'ada' }] }]] as const) {
      for (const path of ['/v1/jobs', '/v1/quotes']) {
        const response = await api.post(path, { ...GREEDY, ...change });
        expect([response.status, await response.json()], field).toMatchObject([400, { code: 'invalid_value', param: field }]);
      }
    }
  });

  test('queries and positions that are none', async () => {
    const { id } = await submit({ ...GREEDY, budget: { width: 1, length: 1 } });
    for (const path of ['/v1/jobs?limit=0', '/v1/jobs?limit=x', '/v1/jobs?page=2', `/v1/jobs/${id}/events?after=x`]) expect((await api.get(path)).status).toBe(400);
    expect((await api.get(`/v1/jobs/${id}/events`, { 'Last-Event-ID': 'x' })).status).toBe(400);
  });
});

test('models are listed with their ratios and efforts, and a name alone is its default variant', async () => {
  const names = [];
  for await (const model of api.openai.models.list()) names.push(model.id);
  expect(names).toEqual(['countdown@dense', 'countdown@cr2', 'countdown@cr4', 'countdown@cr8']);
  expect(await api.openai.models.retrieve('countdown')).toMatchObject({
    id: 'countdown@cr8', object: 'model',
    hyperscale: { compression_ratio: 8, context: 1_024, default: true, efforts: { low: { length: 1_024, width: 2 }, medium: { length: 1_024, width: 8 }, high: { length: 1_024, width: 32 } } },
  });
  expect(await api.openai.models.retrieve('countdown@dense')).toMatchObject({ hyperscale: { efforts: { low: { length: 512, width: 1 } } } });
  await expect(api.openai.models.retrieve('gpt-4')).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
});
