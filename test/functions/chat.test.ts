/** /v1/chat/completions through the real clients. */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, streamText } from 'ai';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { type HttpApi, startApi } from '../helpers/http-api.ts';

const GREEDY = { model: 'countdown@cr2', messages: [{ role: 'user' as const, content: '7 18 17 7 target 35' }], temperature: 0 };
const SOLUTION = '17 - 7 = 10 ; 18 + 10 = 28 ; 28 + 7 = 35';
/** 900 tokens and no end in sight: time enough to look at it. */
const LONG = { model: 'countdown@dense', messages: [{ role: 'user' as const, content: '3 5 7 11 13 17 target 997' }], seed: 3, temperature: 5, logit_bias: { 2: -100 } };
/** For what happens elsewhere. */
const WAIT = { timeout: 20_000 };

let api: HttpApi;
beforeAll(async () => {
  api = await startApi({ limits: { progressMs: 0 } });
});
afterAll(() => api[Symbol.asyncDispose]());

interface Extended {
  hyperscale?: { answer: string | null; elected: number | null; chains: { tokens: number; finish: string | null }[] };
}

async function chunksOf(request: object): Promise<(OpenAI.ChatCompletionChunk & Extended)[]> {
  const stream = await api.openai.chat.completions.create({ ...request, stream: true } as OpenAI.ChatCompletionCreateParamsStreaming);
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk as OpenAI.ChatCompletionChunk & Extended);
  return chunks;
}

const joined = (chunks: readonly OpenAI.ChatCompletionChunk[], field: 'content' | 'reasoning_content', index = 0) =>
  chunks.flatMap(({ choices }) => choices).filter((choice) => choice.index === index).map(({ delta }) => (delta as Record<string, string | undefined>)[field] ?? '').join('');

describe('a chat completion', () => {
  test('is an answer with its thinking apart, and its usage adds up', async () => {
    const { data, response } = await api.openai.chat.completions.create(GREEDY).withResponse();
    const [choice] = data.choices;
    expect(choice?.message.content).toContain(SOLUTION);
    expect(choice?.message).toMatchObject({ role: 'assistant', reasoning_content: expect.stringContaining('goal') as string });
    expect(JSON.stringify(choice)).not.toContain('</think>');
    expect(choice?.finish_reason).toBe('stop');
    expect(response.headers.get('x-ruminate-job')).toBe(data.id.slice('chatcmpl-'.length));
    const { usage } = data;
    expect(usage?.total_tokens).toBe((usage?.prompt_tokens ?? 0) + (usage?.completion_tokens ?? 0));
    expect(usage?.completion_tokens_details?.reasoning_tokens).toBeGreaterThan(10);
    expect(usage?.completion_tokens_details?.reasoning_tokens).toBeLessThan(usage?.completion_tokens ?? 0);
    expect(usage).toMatchObject({ hyperscale: { kv_reads: expect.any(Number) as number, read_ratio: expect.any(Number) as number } });
  });

  test('streams the same text, in more than one piece, ended by [DONE], with usage only if asked for', async () => {
    const whole = await api.openai.chat.completions.create(GREEDY);
    const chunks = await chunksOf(GREEDY);
    expect(joined(chunks, 'content')).toBe(whole.choices[0]?.message.content);
    expect(joined(chunks, 'reasoning_content')).toBe((whole.choices[0]?.message as unknown as { reasoning_content: string }).reasoning_content);
    expect(chunks.length).toBeGreaterThan(20);
    expect(chunks.some(({ usage }) => usage !== undefined)).toBe(false);
    const counted = await chunksOf({ ...GREEDY, stream_options: { include_usage: true } });
    expect(counted.at(-1)).toMatchObject({ choices: [], usage: whole.usage });
    expect(counted.slice(0, -1).every(({ usage }) => usage === null)).toBe(true);
    const raw = await (await api.post('/v1/chat/completions', { ...GREEDY, stream: true })).text();
    expect(raw.endsWith('data: [DONE]\n\n')).toBe(true);
  });

  test('elects one of several chains, and says how far they are until it has', async () => {
    const request = { ...GREEDY, temperature: 1, seed: 5, hyperscale: { width: 4, vote: 'majority', early_stop: false } };
    const whole = (await api.openai.chat.completions.create(request as OpenAI.ChatCompletionCreateParamsNonStreaming)) as OpenAI.ChatCompletion & Extended;
    expect(whole.choices).toHaveLength(1);
    expect(whole.hyperscale?.chains).toHaveLength(4);
    const chunks = await chunksOf(request);
    expect(joined(chunks, 'content')).toBe(whole.choices[0]?.message.content);
    const progress = chunks.filter(({ hyperscale, choices }) => hyperscale !== undefined && choices[0]?.finish_reason === null);
    expect(progress.length).toBeGreaterThan(1);
    expect(progress.every(({ choices }) => JSON.stringify(choices[0]?.delta) === '{}')).toBe(true);
    const totals = progress.map(({ hyperscale }) => (hyperscale?.chains ?? []).reduce((sum, { tokens }) => sum + tokens, 0));
    expect(totals).toEqual(totals.toSorted((a, b) => a - b));
    expect(chunks.at(-1)?.hyperscale).toEqual(whole.hyperscale);
  });

  test('with n has n choices and no vote, streamed or not', async () => {
    const request = { ...GREEDY, temperature: 1, seed: 5, n: 3, max_tokens: 60 };
    const whole = await api.openai.chat.completions.create(request);
    expect(whole.choices.map(({ index }) => index)).toEqual([0, 1, 2]);
    expect(new Set(whole.choices.map(({ message }) => JSON.stringify(message))).size).toBeGreaterThan(1);
    const chunks = await chunksOf(request);
    for (const { index, message, finish_reason } of whole.choices) {
      expect(joined(chunks, 'content', index)).toBe(message.content);
      const last = chunks.flatMap(({ choices }) => choices).filter((choice) => choice.index === index).at(-1);
      expect(last?.finish_reason).toBe(finish_reason);
    }
  });

  test('does as seed, stop, max_tokens and logit_bias say', async () => {
    const ask = (change: object) => api.openai.chat.completions.create({ ...GREEDY, temperature: 1, ...change } as OpenAI.ChatCompletionCreateParamsNonStreaming);
    const text = (completion: OpenAI.ChatCompletion) => JSON.stringify(completion.choices[0]?.message);
    expect(text(await ask({ seed: 1 }))).toBe(text(await ask({ seed: 1 })));
    expect(text(await ask({ seed: 1 }))).not.toBe(text(await ask({ seed: 2 })));
    const short = await ask({ max_completion_tokens: 7 });
    expect(short).toMatchObject({ usage: { completion_tokens: 7, completion_tokens_details: { reasoning_tokens: 7 } }, choices: [{ finish_reason: 'length', message: { content: '' } }] });
    const stopped = await ask({ temperature: 0, stop: 'goal' });
    expect(text(stopped)).not.toContain('goal');
    expect(stopped.choices[0]?.finish_reason).toBe('stop');
    // Token 2 ends a chain: made certain, there is nothing else.
    expect((await ask({ logit_bias: { 2: 100 } })).usage?.completion_tokens).toBe(1);
  });

  test('an effort is a width and a length of the model', async () => {
    const ask = async (effort: 'low' | 'medium', model: string) =>
      (await api.openai.chat.completions.create({ ...GREEDY, model, reasoning_effort: effort, seed: 1 })) as OpenAI.ChatCompletion & Extended;
    expect((await ask('low', 'countdown')).hyperscale?.chains).toHaveLength(2);
    expect((await ask('medium', 'countdown@cr4')).hyperscale?.chains).toHaveLength(4);
  });

  test('a client that goes away cancels its job, streamed or not', async () => {
    const before = api.platform.cancelled.length;
    const stream = await api.openai.chat.completions.create({ ...LONG, stream: true });
    for await (const chunk of stream) if (joined([chunk], 'reasoning_content') !== '') break;
    stream.controller.abort();
    await vi.waitFor(() => expect(api.platform.cancelled).toHaveLength(before + 1), WAIT);
    const leaving = new AbortController();
    const asked = api.openai.chat.completions.create({ ...LONG, n: 8 }, { signal: leaving.signal });
    await vi.waitFor(async () => expect((await api.platform.list({ tenant: 'local', limit: 1 })).jobs[0]?.state).toBe('running'), WAIT);
    leaving.abort();
    await expect(asked).rejects.toThrow(OpenAI.APIUserAbortError);
    await vi.waitFor(() => expect(api.platform.cancelled).toHaveLength(before + 2), WAIT);
  });

  test('the same Idempotency-Key is the same job, and another body under it is refused', async () => {
    const headers = { 'Idempotency-Key': 'once' };
    const first = await api.openai.chat.completions.create(GREEDY, { headers });
    expect((await api.openai.chat.completions.create(GREEDY, { headers })).id).toBe(first.id);
    const other = api.openai.chat.completions.create({ ...GREEDY, seed: 9 }, { headers });
    await expect(other).rejects.toMatchObject({ status: 422, code: 'used_for_another', param: 'idempotency-key' });
    await expect(other).rejects.toBeInstanceOf(OpenAI.UnprocessableEntityError);
  });

  test('keeps what its caller says of it with its job', async () => {
    const said = { metadata: { team: 'sums' }, user: 'anna', service_tier: 'auto' as const };
    const { id } = await api.openai.chat.completions.create({ ...GREEDY, max_tokens: 2, ...said });
    expect(await (await api.get(`/v1/jobs/${id.slice('chatcmpl-'.length)}`)).json()).toMatchObject({ metadata: said.metadata, user: 'anna' });
  });

  test('that is not to be stored leaves nothing once it is answered, streamed, or its client has gone', async () => {
    const gone = async (id: string) => await vi.waitFor(async () => expect((await api.get(`/v1/jobs/${id.slice('chatcmpl-'.length)}`)).status).toBe(404), WAIT);
    const whole = await api.openai.chat.completions.create({ ...GREEDY, store: false });
    expect(whole.choices[0]?.message.content).toContain(SOLUTION);
    expect((await api.get(`/v1/jobs/${whole.id.slice('chatcmpl-'.length)}`)).status).toBe(404);
    const chunks = await chunksOf({ ...GREEDY, store: false });
    expect(joined(chunks, 'content')).toBe(whole.choices[0]?.message.content);
    await gone(chunks[0]?.id ?? '');
    const stream = await api.openai.chat.completions.create({ ...LONG, store: false, stream: true });
    let left = '';
    for await (const chunk of stream) if ((left = chunk.id) !== '' && joined([chunk], 'reasoning_content') !== '') break;
    stream.controller.abort();
    await gone(left);
    await expect(api.openai.chat.completions.create({ ...GREEDY, store: false }, { headers: { 'Idempotency-Key': 'x' } })).rejects.toMatchObject({ status: 400, param: 'store' });
  });

  test('a quiet stream is kept alive by comments, which clients skip', async () => {
    await using patient = await startApi({ limits: { keepAliveMs: 0 } });
    const raw = await (await patient.post('/v1/chat/completions', { ...LONG, max_tokens: 300, hyperscale: { width: 4 }, stream: true })).text();
    expect(raw).toContain(': keep-alive\n\n');
    expect(raw.endsWith('data: [DONE]\n\n')).toBe(true);
  });

  test('an answer that takes too long is a 504 that names the job, which goes on', async () => {
    await using hasty = await startApi({ limits: { foregroundMs: 1 } });
    const asked = hasty.openai.chat.completions.create({ ...LONG, n: 4 });
    await expect(asked).rejects.toMatchObject({ status: 504, code: 'still_running' });
    expect(hasty.platform.cancelled).toEqual([]);
    const [job] = (await hasty.platform.list({ tenant: 'local', limit: 1 })).jobs;
    expect(['queued', 'running']).toContain(job?.state);
  });

  test('a job that was cancelled by another is an error of the answer and of the stream', async () => {
    for (const stream of [false, true]) {
      const asked = (async () => {
        if (!stream) return await api.openai.chat.completions.create({ ...LONG, n: 8 });
        for await (const _ of await api.openai.chat.completions.create({ ...LONG, n: 8, stream: true }));
      })();
      asked.catch(() => undefined);
      const newest = await vi.waitFor(async () => {
        const [job] = (await api.platform.list({ tenant: 'local', limit: 1 })).jobs;
        expect(job?.state).toBe('running');
        return job?.id ?? '';
      }, WAIT);
      await api.platform.cancel(newest, { tenant: 'local' });
      await expect(asked).rejects.toMatchObject({ code: 'job_cancelled' });
    }
  });
});

describe('what is refused', () => {
  test.each([
    ['tool_choice', 'auto'], ['response_format', { type: 'grammar' }], ['logprobs', 2],
    ['top_logprobs', 2], ['audio', {}], ['modalities', ['text', 'audio']], ['store', 'no'], ['metadata', { a: 1 }], ['metadata', Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`${i}`, '']))], ['user', ''], ['functions', []],
    ['parallel_tool_calls', true], ['prediction', {}], ['service_tier', 'flex'], ['verbosity', 'low'], ['web_search_options', {}], ['nonsense', 1],
    ['n', 0], ['temperature', 'hot'], ['seed', 1.5], ['max_tokens', 0], ['reasoning_effort', 'extreme'], ['model', '/etc/passwd'], ['model', '../countdown'],
  ])('%s = %j: 400, by name', async (param, value) => {
    const asked = api.openai.chat.completions.create({ ...GREEDY, [param]: value } as OpenAI.ChatCompletionCreateParamsNonStreaming);
    await expect(asked).rejects.toBeInstanceOf(OpenAI.BadRequestError);
    const error = await asked.then(() => null, (thrown: unknown) => thrown as InstanceType<typeof OpenAI.APIError>);
    expect(error?.param?.split('.')[0]).toBe(param);
    expect(error?.message).toContain(param);
    expect(error?.requestID).toMatch(/^req_/);
  });

  test.each([
    ['hyperscale.depth', { hyperscale: { depth: 3 } }], ['hyperscale.width', { hyperscale: { width: 999 } }], ['hyperscale.vote', { n: 2, hyperscale: { vote: 'majority' } }],
    ['reasoning_effort', { n: 2, reasoning_effort: 'low' }], ['max_tokens', { max_tokens: 4, max_completion_tokens: 5 }],
    ['messages.0.content', { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] }], ['messages', { messages: [] }],
    ['stream_options', { stream_options: { include_usage: true } }], ['messages.0.role', { messages: [{ role: 'function', name: 'f', content: 'x' }] }], ['hyperscale.kv_read_budget', { hyperscale: { kv_read_budget: 1 } }],
  ])('%s, where it stands', async (param, change) => {
    const asked = api.openai.chat.completions.create({ ...GREEDY, ...change } as OpenAI.ChatCompletionCreateParamsNonStreaming);
    await expect(asked).rejects.toMatchObject({ status: 400, param });
  });

  test('null is "not given", as clients write it', async () => {
    const nulls = { max_tokens: 3, stop: null, seed: null, tools: null, user: null, response_format: null };
    expect((await api.post('/v1/chat/completions', { ...GREEDY, ...nulls })).status).toBe(200);
  });

  test('a model that is not there is NotFoundError; a prompt that is too long says so', async () => {
    await expect(api.openai.chat.completions.create({ ...GREEDY, model: 'gpt-4' })).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    await expect(api.openai.chat.completions.create({ ...GREEDY, model: 'gpt-4' })).rejects.toMatchObject({ code: 'model_not_found', param: 'model' });
    await expect(api.openai.chat.completions.create({ ...GREEDY, model: 'gpt-4', reasoning_effort: 'low' })).rejects.toMatchObject({ code: 'model_not_found' });
    await expect(api.openai.chat.completions.create({ ...GREEDY, max_tokens: 2_000 })).rejects.toMatchObject({ status: 400, code: 'context_length_exceeded' });
  });
});

describe('the AI SDK', () => {
  const model = () => createOpenAICompatible({ name: 'ruminate', baseURL: `${api.url}/v1`, includeUsage: true })('countdown@cr2');

  test('generates text with its reasoning', async () => {
    const { text, reasoningText, usage } = await generateText({ model: model(), prompt: '7 18 17 7 target 35', temperature: 0 });
    expect(text).toContain(SOLUTION);
    expect(reasoningText).toContain('goal');
    expect(usage.outputTokens).toBeGreaterThan(10);
  });

  test('streams it, several chains too, and passes `hyperscale` on', async () => {
    for (const width of [1, 3]) {
      const streamed = streamText({ model: model(), prompt: '7 18 17 7 target 35', temperature: 0, providerOptions: { ruminate: { hyperscale: { width } } } });
      let text = '';
      for await (const part of streamed.textStream) text += part;
      expect(text).toContain(SOLUTION);
      expect(await streamed.reasoningText).toContain('goal');
      expect((await streamed.usage).outputTokens).toBeGreaterThan(10);
    }
  });
});
