/** /v1/files and /v1/batches through the real client, on a real platform: a store, a queue and a worker with the bundled model. */
import { randomBytes } from 'node:crypto';
import OpenAI, { toFile } from 'openai';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { KeyFile } from '../../engine/adapters/key-file.ts';
import { lineJobId } from '../../engine/control/batch-lines.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import { type Front, Fronts } from '../helpers/fronts.ts';

const GREEDY = { model: 'countdown@cr2', messages: [{ role: 'user' as const, content: '7 18 17 7 target 35' }], temperature: 0 };
/** Ends by length, long after it is looked at. */
const LONG = { model: 'countdown@dense', messages: [{ role: 'user' as const, content: '3 5 7 11 13 17 target 997' }], seed: 3, temperature: 5, n: 8, logit_bias: { 2: -100 } };
const WINDOW = { endpoint: '/v1/chat/completions', completion_window: '24h' } as const;

interface OutputLine {
  readonly id: string;
  readonly custom_id: string;
  readonly response: { readonly status_code: number; readonly request_id: string; readonly body: OpenAI.ChatCompletion } | null;
  readonly error: { readonly code: string } | null;
}

const line = (customId: string, body: object, change: object = {}) => ({ custom_id: customId, method: 'POST', url: WINDOW.endpoint, body, ...change });
const jsonl = (lines: readonly unknown[]) => lines.map((one) => (typeof one === 'string' ? one : JSON.stringify(one))).join('\n');
const upload = async (openai: OpenAI, text: string) => await openai.files.create({ purpose: 'batch', file: await toFile(Buffer.from(text), 'requests.jsonl') });
const start = async (openai: OpenAI, lines: readonly unknown[], metadata?: Record<string, string>) =>
  await openai.batches.create({ ...WINDOW, input_file_id: (await upload(openai, jsonl(lines))).id, ...(metadata === undefined ? {} : { metadata }) });
const until = async (openai: OpenAI, id: string, status: OpenAI.Batch['status']) =>
  await vi.waitFor(async () => {
    const batch = await openai.batches.retrieve(id);
    expect(batch.status).toBe(status);
    return batch;
  }, { timeout: 60_000, interval: 20 });
const linesOf = async (openai: OpenAI, file: string | null | undefined) =>
  (await (await openai.files.content(file ?? '')).text()).trimEnd().split('\n').map((one) => JSON.parse(one) as OutputLine);
const refused = async (asked: PromiseLike<unknown>) => await asked.then(() => null, (error: unknown) => error as InstanceType<typeof OpenAI.APIError>);

let fronts: Fronts;
let front: Front;
let openai: OpenAI;
beforeAll(async () => {
  fronts = new Fronts();
  fronts.work();
  front = await fronts.front();
  openai = front.openai();
});
afterAll(() => fronts[Symbol.asyncDispose]());

describe('a file', () => {
  test('comes back byte for byte, is listed newest first, and is gone when it was deleted', async () => {
    const text = `${'{"é":"☃"}\n'.repeat(3)}`;
    const older = await upload(openai, text);
    const newer = await upload(openai, 'x');
    expect(older).toMatchObject({ object: 'file', bytes: Buffer.byteLength(text), filename: 'requests.jsonl', purpose: 'batch', status: 'processed' });
    expect(await openai.files.retrieve(older.id)).toEqual(older);
    expect(await (await openai.files.content(older.id)).text()).toBe(text);
    const page = await openai.files.list({ limit: 1 });
    expect(page.data).toEqual([newer]);
    expect((await openai.files.list({ limit: 1, after: newer.id })).data).toEqual([older]);
    expect((await openai.files.list({ order: 'asc', purpose: 'batch' })).data.map(({ id }) => id)).toEqual([older.id, newer.id]);
    expect(await openai.files.delete(older.id)).toEqual({ id: older.id, object: 'file', deleted: true });
    for (const asked of [() => openai.files.retrieve(older.id), () => openai.files.content(older.id), () => openai.files.delete(older.id)]) {
      expect(await refused(asked())).toMatchObject({ status: 404, code: 'file_not_found' });
    }
    expect([...fronts.store.snapshot().keys()].some((key) => key.includes(older.id))).toBe(false);
    await openai.files.delete(newer.id);
  });

  test('that was deleted is where a list goes on, in either order, for who deletes what he has read', async () => {
    const made = [];
    for (let i = 0; i < 5; i++) made.push((await upload(openai, `${i}`)).id);
    const read = async (order: 'asc' | 'desc', ids: readonly string[]) => {
      const seen: string[] = [];
      for await (const { id } of openai.files.list({ order, limit: 2 })) {
        seen.push(id);
        if (ids.includes(id)) await openai.files.delete(id);
      }
      return seen;
    };
    expect(await read('desc', made.slice(2))).toEqual(made.toReversed());
    expect(await read('asc', made)).toEqual(made.slice(0, 2));
    expect((await openai.files.list({ after: made[4] ?? '' })).data).toEqual([]);
    expect(await refused(openai.files.list({ after: 'yesterday' }))).toMatchObject({ status: 404, code: 'file_not_found' });
  });

  test('of several pieces comes back whole', async () => {
    const text = 'abcdefghijklmno\n'.repeat((LIMITS.FILE_PIECE_BYTES / 16) * 2 + 1);
    const { id } = await upload(openai, text);
    expect((await (await openai.files.content(id)).text()) === text).toBe(true);
    await openai.files.delete(id);
  });

  test('that is too large, empty, of another purpose or no form at all is refused before anything is stored', async () => {
    const before = fronts.store.snapshot().size;
    const form = (fields: Record<string, string | File>) => {
      const body = new FormData();
      for (const [name, value] of Object.entries(fields)) body.append(name, value);
      return fetch(`${front.url}/v1/files`, { method: 'POST', headers: { authorization: 'Bearer acme' }, body });
    };
    const file = new File(['x'], 'x.jsonl');
    const large = new File([Buffer.alloc(LIMITS.FILE_BYTES_MAX + 1)], 'x.jsonl');
    const code = async (response: Response) => [response.status, ((await response.json()) as { error: { code: string; param: string | null } }).error] as const;
    expect(await code(await form({ purpose: 'batch', file: large }))).toMatchObject([400, { code: 'invalid_value', param: 'file' }]);
    expect(await code(await form({ purpose: 'batch', file: new File([Buffer.alloc(LIMITS.FILE_BYTES_MAX * 1.1)], 'x') }))).toMatchObject([413, { code: 'body_too_large' }]);
    expect(await code(await form({ purpose: 'batch', file: new File([], 'x.jsonl') }))).toMatchObject([400, { param: 'file' }]);
    expect(await code(await form({ purpose: 'fine-tune', file }))).toMatchObject([400, { param: 'purpose' }]);
    expect(await code(await form({ purpose: 'batch', file, 'expires_after[seconds]': '3600' }))).toMatchObject([400, { param: 'expires_after[seconds]' }]);
    expect(await code(await form({ purpose: 'batch', file: 'x' }))).toMatchObject([400, { param: 'file' }]);
    expect(await code(await form({ purpose: 'batch', file, ...Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`f${i}`, ''])) }))).toMatchObject([400, { code: 'invalid_value' }]);
    expect((await fetch(`${front.url}/v1/files`, { method: 'POST', headers: { authorization: 'Bearer acme', 'content-type': 'application/json' }, body: '{}' })).status).toBe(415);
    expect(fronts.store.snapshot().size).toBe(before);
  });
});

describe('a batch', () => {
  test('ends with the answers that the same chat requests get, in the order of its lines', async () => {
    const requests = [{ ...GREEDY, temperature: 1, seed: 5 }, GREEDY, { ...GREEDY, temperature: 1, seed: 6, n: 2, max_tokens: 40 }];
    const begun = await start(openai, requests.map((body, i) => line(`line-${i}`, body)), { night: 'one' });
    expect(begun).toMatchObject({ object: 'batch', endpoint: WINDOW.endpoint, completion_window: '24h', metadata: { night: 'one' }, request_counts: { total: 3, failed: 0 } });
    const batch = await until(openai, begun.id, 'completed');
    expect(batch).toMatchObject({ request_counts: { total: 3, completed: 3, failed: 0 }, error_file_id: null, errors: null });
    const lines = await linesOf(openai, batch.output_file_id);
    expect(lines.map(({ custom_id }) => custom_id)).toEqual(['line-0', 'line-1', 'line-2']);
    for (const [i, { response, error }] of lines.entries()) {
      expect(error).toBeNull();
      expect(response?.status_code).toBe(200);
      const alone = await openai.chat.completions.create(requests[i] ?? GREEDY);
      expect(response?.body).toEqual({ ...alone, id: response?.body.id, created: response?.body.created });
    }
    expect(await openai.files.retrieve(batch.output_file_id ?? '')).toMatchObject({ purpose: 'batch_output', filename: `${batch.id}_output.jsonl` });
    expect((await openai.batches.list({ limit: 1 })).data).toEqual([batch]);
    expect(await openai.batches.cancel(batch.id)).toEqual(batch);
  });

  test('of completions and of responses has what these endpoints answer alone; lines that are more than a job are refused', async () => {
    const text = { model: 'countdown@cr2', prompt: '<s> user 7 18 17 7 target 35 <think>', temperature: 1, seed: 5, n: 2, max_tokens: 30, logprobs: 1 };
    const response = { model: 'countdown@cr2', input: '7 18 17 7 target 35', temperature: 0, metadata: { a: 'b' } };
    const batchOf = async (endpoint: string, bodies: readonly object[]) => await openai.batches.create({
      ...WINDOW, endpoint: endpoint as '/v1/responses', input_file_id: (await upload(openai, jsonl(bodies.map((body, i) => line(`${i}`, body, { url: endpoint }))))).id,
    });
    const answered = async (endpoint: string, body: object) => {
      const { output_file_id, error_file_id } = await until(openai, (await batchOf(endpoint, [body])).id, 'completed');
      expect(error_file_id).toBeNull();
      return (await linesOf(openai, output_file_id))[0]?.response?.body as unknown as { readonly id: string; readonly created?: number; readonly created_at?: number; readonly completed_at?: number };
    };
    const alone = await openai.completions.create(text as OpenAI.CompletionCreateParamsNonStreaming);
    const texts = await answered('/v1/completions', text);
    expect(texts).toEqual({ ...alone, id: texts.id, created: texts.created });
    const { output_text: _, output, ...whole } = await openai.responses.create(response as OpenAI.Responses.ResponseCreateParamsNonStreaming);
    const responses = await answered('/v1/responses', response);
    // Each is a job of its own, which begins and ends in a second of its own.
    const { id, created_at, completed_at } = responses;
    expect(responses).toMatchObject({ ...whole, id, created_at, completed_at, output: output.map(({ type }) => ({ type })) });
    for (const [endpoint, body, change, param] of [
      ['/v1/completions', text, { prompt: ['a', 'b'] }, 'prompt'], ['/v1/completions', text, { stream: true }, 'stream'], ['/v1/responses', response, { background: true }, 'background'],
      ['/v1/responses', response, { previous_response_id: 'resp_x' }, 'previous_response_id'], ['/v1/responses', response, { store: false }, 'store'], ['/v1/responses', response, { input: [{ type: 'item_reference', id: 'msg_x' }] }, 'input'], ['/v1/responses', response, { instructions: '1' }, 'instructions'],
    ] as const) {
      const failed = await until(openai, (await batchOf(endpoint, [body, { ...body, ...change }])).id, 'failed');
      expect(failed.errors?.data, param).toMatchObject([{ line: 2, param }]);
    }
  });

  test('may lose its input file once it is made', async () => {
    const file = await upload(openai, `${JSON.stringify(line('only', GREEDY))}\n`);
    const { id } = await openai.batches.create({ ...WINDOW, input_file_id: file.id });
    await openai.files.delete(file.id);
    const batch = await until(openai, id, 'completed');
    expect(await linesOf(openai, batch.output_file_id)).toHaveLength(1);
    // Nor does it keep the prompts when it is over.
    expect([...fronts.store.snapshot().keys()].filter((key) => key.startsWith(`batches/acme/${id}/`)).map((key) => key.split('/').at(-1)).sort()).toEqual(['batch.json', 'end.json', 'verdict.json']);
  });

  test.each([
    ['no JSON', '{"custom_id":', 'invalid_json_line', null],
    ['the custom_id of another line', line('good', GREEDY), 'duplicate_custom_id', 'custom_id'],
    ['no custom_id', line('', GREEDY), 'invalid_custom_id', 'custom_id'],
    ['another method', line('bad', GREEDY, { method: 'GET' }), 'invalid_method', 'method'],
    ['another url', line('bad', GREEDY, { url: '/v1/responses' }), 'mismatched_url', 'url'],
    ['a field that is none', line('bad', GREEDY, { priority: 1 }), 'unsupported_parameter', 'priority'],
    ['a parameter that is not supported', line('bad', { ...GREEDY, verbosity: 'low' }), 'unsupported_parameter', 'verbosity'],
    ['nothing to be stored of it', line('bad', { ...GREEDY, store: false }), 'invalid_value', 'store'],
    ['a stream', line('bad', { ...GREEDY, stream: true }), 'invalid_value', 'stream'],
    ['a model that is not there', line('bad', { ...GREEDY, model: 'gpt-4' }), 'model_not_found', 'model'],
    ['more than the context', line('bad', { ...GREEDY, max_tokens: 2_000 }), 'context_length_exceeded', 'max_tokens'],
  ])('with a line that has %s fails, names the line, and runs nothing', async (_, bad, code, param) => {
    const jobs = () => [...fronts.store.snapshot().keys()].filter((key) => key.startsWith('kv/acme/')).length;
    const before = jobs();
    const batch = await start(openai, [line('good', GREEDY), bad]);
    expect(batch.status).toBe('failed');
    expect(batch.errors?.data).toMatchObject([{ code, param, line: 2 }]);
    expect(await openai.batches.retrieve(batch.id)).toEqual(batch);
    expect((await openai.batches.cancel(batch.id)).status).toBe('failed');
    expect(jobs()).toBe(before);
  });

  test('that is refused at length still says why, in few words', async () => {
    const long = 'x'.repeat(300_000);
    for (const body of [{ ...GREEDY, logit_bias: { [long]: 1 } }, { ...GREEDY, [long]: 1 }, { ...GREEDY, model: long }]) {
      const batch = await start(openai, [line('bad', body)]);
      expect(batch.errors?.data).toMatchObject([{ line: 1 }]);
      expect(JSON.stringify(await openai.batches.retrieve(batch.id)).length).toBeLessThan(3_000);
    }
  });

  test('of no lines, or of too many, fails', async () => {
    expect((await start(openai, ['\n'])).errors?.data).toMatchObject([{ code: 'invalid_json_line', line: 1 }]);
    const many = Array.from({ length: LIMITS.BATCH_LINES_MAX + 1 }, (_, i) => line(`${i}`, GREEDY));
    expect((await start(openai, many)).errors?.data).toMatchObject([{ code: 'too_many_lines', line: null }]);
  });

  test('that is cancelled keeps what was answered, and says of each other line that it was not', async () => {
    const begun = await start(openai, [line('short', { ...GREEDY, max_tokens: 5 }), ...Array.from({ length: 3 }, (_, i) => line(`long-${i}`, { ...LONG, seed: i }))]);
    await vi.waitFor(async () => expect((await openai.batches.retrieve(begun.id)).request_counts?.completed).toBe(1), { timeout: 30_000, interval: 5 });
    await openai.batches.cancel(begun.id);
    const batch = await until(openai, begun.id, 'cancelled');
    const done = batch.request_counts?.completed ?? 0;
    expect(done).toBeLessThan(4);
    expect(batch.request_counts).toMatchObject({ total: 4, failed: 4 - done });
    expect((await linesOf(openai, batch.output_file_id))[0]?.custom_id).toBe('short');
    const lost = await linesOf(openai, batch.error_file_id);
    expect(lost.map(({ response, error }) => [response, error?.code])).toEqual(lost.map(() => [null, 'batch_cancelled']));
    expect(lost.at(-1)?.custom_id).toBe('long-2');
  });

  test('tells of a job that was cancelled by itself what its own request would have been told', async () => {
    // Nothing runs before it is cancelled.
    await using idle = new Fronts();
    const { url, openai } = await idle.front().then((quiet) => ({ url: quiet.url, openai: quiet.openai() }));
    const begun = await start(openai, [line('long', LONG), line('short', { ...GREEDY, max_tokens: 5 })]);
    expect((await fetch(`${url}/v1/jobs/${lineJobId(begun.id, 0)}/cancel`, { method: 'POST', headers: { authorization: 'Bearer acme' } })).status).toBe(200);
    idle.work();
    const batch = await until(openai, begun.id, 'completed');
    expect(batch.request_counts).toEqual({ total: 2, completed: 1, failed: 1 });
    expect(await linesOf(openai, batch.error_file_id)).toMatchObject([{ custom_id: 'long', error: null, response: { status_code: 409, body: { error: { code: 'job_cancelled' } } } }]);
  });

  test('is made once for an Idempotency-Key, as is a file; with another body the key is refused', async () => {
    const headers = { 'Idempotency-Key': 'batch-of-today' };
    const file = await toFile(Buffer.from(jsonl([line('a', { ...GREEDY, max_tokens: 1 })])), 'requests.jsonl');
    const uploads = [await openai.files.create({ purpose: 'batch', file }, { headers }), await openai.files.create({ purpose: 'batch', file }, { headers })];
    expect(uploads[1]).toEqual(uploads[0]);
    const ask = async (metadata?: Record<string, string>) => await openai.batches.create({ ...WINDOW, input_file_id: uploads[0]?.id ?? '', ...(metadata === undefined ? {} : { metadata }) }, { headers });
    const [first, second] = await Promise.all([ask(), ask()]);
    expect(second.id).toBe(first.id);
    expect(await refused(ask({ other: 'body' }))).toMatchObject({ status: 422, code: 'used_for_another', param: 'idempotency-key' });
    expect((await openai.batches.list()).data.filter(({ id }) => id === first.id)).toHaveLength(1);
  });

  test('is asked for as it is: what is not supported is refused by name', async () => {
    const { id } = await upload(openai, jsonl([line('a', GREEDY)]));
    const ask = async (change: object) => await refused(openai.batches.create({ ...WINDOW, input_file_id: id, ...change } as OpenAI.BatchCreateParams));
    expect(await ask({ endpoint: '/v1/embeddings' })).toMatchObject({ status: 400, param: 'endpoint' });
    expect(await ask({ completion_window: '1h' })).toMatchObject({ status: 400, param: 'completion_window' });
    expect(await ask({ output_expires_after: { anchor: 'created_at', seconds: 3_600 } })).toMatchObject({ status: 400, param: 'output_expires_after' });
    expect(await ask({ metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`${i}`, ''])) })).toMatchObject({ status: 400, param: 'metadata' });
    expect(await ask({ input_file_id: 'file-nonsense' })).toMatchObject({ status: 404, code: 'file_not_found' });
  });
});

test('another tenant\'s file and batch do not exist, whatever is asked of them', async () => {
  const other = front.openai('other');
  const file = await upload(openai, jsonl([line('a', GREEDY)]));
  const batch = await openai.batches.create({ ...WINDOW, input_file_id: file.id });
  const { output_file_id: output } = await until(openai, batch.id, 'completed');
  for (const id of [file.id, output ?? '']) {
    for (const asked of [() => other.files.retrieve(id), () => other.files.content(id), () => other.files.delete(id), () => other.batches.create({ ...WINDOW, input_file_id: id })]) {
      expect(await refused(asked())).toMatchObject({ status: 404, code: 'file_not_found' });
    }
  }
  for (const asked of [() => other.batches.retrieve(batch.id), () => other.batches.cancel(batch.id)]) {
    expect(await refused(asked())).toMatchObject({ status: 404, code: 'batch_not_found' });
  }
  expect((await other.files.list()).data).toEqual([]);
  expect((await other.batches.list()).data).toEqual([]);
  // After it by its name, which is all that is known of it there, come one's own.
  expect((await other.batches.list({ after: batch.id })).data).toEqual([]);
  expect((await openai.files.retrieve(file.id)).id).toBe(file.id);
});

test('a batch whose creator was killed half way is finished by the next who asks', async () => {
  let heads = 0;
  await using shared = new Fronts({
    // Its process is gone: nothing of it reaches the store any more.
    before: ({ actor, kind, key }) => {
      if (actor !== 'killed') return;
      if (heads >= 2) throw new Error('killed');
      if (kind === 'put' && key.startsWith('kv/') && key.endsWith('/HEAD')) heads++;
    },
  });
  const first = await shared.front('killed');
  const next = await shared.front('next');
  const { id: input_file_id } = await upload(first.openai(), jsonl(Array.from({ length: 5 }, (_, i) => line(`${i}`, { ...GREEDY, temperature: 1, seed: i, max_tokens: 20 }))));
  const made = () => [...shared.store.snapshot().keys()].filter((key) => key.startsWith('kv/acme/') && key.endsWith('/HEAD')).length;
  await refused(first.openai().batches.create({ ...WINDOW, input_file_id }));
  expect(made()).toBeLessThan(5);
  const [batch] = (await next.openai().batches.list()).data;
  expect(batch?.status).toBe('in_progress');
  expect((await next.openai().batches.retrieve(batch?.id ?? '')).status).toBe('in_progress');
  await vi.waitFor(() => expect(made()).toBe(5), { timeout: 30_000 });
  shared.work();
  const done = await until(next.openai(), batch?.id ?? '', 'completed');
  expect((await linesOf(next.openai(), done.output_file_id)).map(({ custom_id }) => custom_id)).toEqual(['0', '1', '2', '3', '4']);
  expect(made()).toBe(5);
});

test('several instances that are asked at once make each job once and write one output', async () => {
  await using shared = new Fronts();
  const clients = await Promise.all(['a', 'b', 'c'].map(async (actor) => (await shared.front(actor)).openai()));
  const [one] = clients;
  if (one === undefined) throw new Error('no client');
  const { id } = await start(one, Array.from({ length: 6 }, (_, i) => line(`${i}`, { ...GREEDY, temperature: 1, seed: i, max_tokens: 10 })));
  shared.work();
  const seen = await Promise.all(clients.map(async (client) => await until(client, id, 'completed')));
  expect(new Set(seen.map((batch) => JSON.stringify(batch))).size).toBe(1);
  expect(await linesOf(one, seen[0]?.output_file_id)).toHaveLength(6);
  const names = [...shared.store.snapshot().keys()];
  expect(names.filter((key) => key.endsWith('/HEAD'))).toHaveLength(6);
  // The record and one piece: whoever was second left nothing.
  expect(names.filter((key) => key.includes(`${seen[0]?.output_file_id ?? ''}/`))).toHaveLength(2);
});

test('where jobs are sealed, files and outputs are too', async () => {
  await using sealed = new Fronts({ keys: new KeyFile(randomBytes(32)) });
  sealed.work();
  const client = (await sealed.front()).openai();
  const secret = '7 18 17 7 target 35';
  const file = await upload(client, jsonl([line('only', GREEDY)]));
  const { id } = await client.batches.create({ ...WINDOW, input_file_id: file.id });
  const batch = await until(client, id, 'completed');
  const text = JSON.stringify(await linesOf(client, batch.output_file_id));
  expect(text).toContain('28 + 7 = 35');
  expect(await (await client.files.content(file.id)).text()).toContain(secret);
  const stored = [...sealed.store.snapshot()].filter(([key]) => key.startsWith('files/') || key.startsWith('batches/'));
  for (const [, bytes] of stored) expect(/7 18 17 7|28 \+ 7/.test(Buffer.from(bytes).toString('latin1'))).toBe(false);
});
