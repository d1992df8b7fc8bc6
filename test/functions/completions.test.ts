/** /v1/completions through the real clients: prompts that are gone on with as they are. */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, streamText } from 'ai';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { loadTokenizer } from '../../engine/model/gguf.ts';
import { type HttpApi, startApi } from '../helpers/http-api.ts';
import { bundledModel } from '../helpers/setup.ts';

const PROMPT = '<s> user 7 18 17 7 target 35 <think>';
const OTHER = '<s> user 4 20 8 13 target 59 <think>';
const GREEDY = { model: 'countdown@cr2', prompt: PROMPT, temperature: 0, max_tokens: 200 };
const SOLUTION = '17 - 7 = 10 ; 18 + 10 = 28 ; 28 + 7 = 35';
const WAIT = { timeout: 20_000 };

let api: HttpApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api[Symbol.asyncDispose]());

const create = async (change: object = {}, headers: Record<string, string> = {}) => await api.openai.completions.create({ ...GREEDY, ...change } as OpenAI.CompletionCreateParamsNonStreaming, { headers });

async function chunksOf(change: object = {}): Promise<OpenAI.Completion[]> {
  const chunks = [];
  for await (const chunk of await api.openai.completions.create({ ...GREEDY, ...change, stream: true } as OpenAI.CompletionCreateParamsStreaming)) chunks.push(chunk);
  return chunks;
}

const joined = (chunks: readonly OpenAI.Completion[], index = 0) => chunks.flatMap(({ choices }) => choices).filter((choice) => choice.index === index).map(({ text }) => text).join('');

describe('a completion', () => {
  test('goes on with the prompt as it is: what the chat template writes gives what the chat gives', async () => {
    const { data, response } = await api.openai.completions.create(GREEDY).withResponse();
    const chat = await api.openai.chat.completions.create({ model: GREEDY.model, temperature: 0, max_tokens: 200, messages: [{ role: 'user', content: '7 18 17 7 target 35' }] });
    const { content, reasoning_content } = chat.choices[0]?.message as unknown as { content: string; reasoning_content: string };
    expect(data).toMatchObject({ object: 'text_completion', model: 'countdown@cr2', choices: [{ index: 0, finish_reason: 'stop', logprobs: null }] });
    expect(data.choices[0]?.text).toBe(`${reasoning_content}</think>${content}`);
    expect(data.choices[0]?.text).toContain(SOLUTION);
    expect(data.usage).toMatchObject({ prompt_tokens: chat.usage?.prompt_tokens, completion_tokens: chat.usage?.completion_tokens, total_tokens: chat.usage?.total_tokens });
    expect(response.headers.get('x-ruminate-job')).toBe(data.id.slice('cmpl-'.length));
  });

  test('takes token ids as it takes their text', async () => {
    const ids = (await loadTokenizer(bundledModel('cr2'))).encode(PROMPT, { addSpecial: true });
    expect((await create({ prompt: ids })).choices).toEqual((await create()).choices);
    expect((await create({ prompt: [ids] })).choices).toEqual((await create()).choices);
  });

  test('has 16 tokens unless told otherwise, as OpenAI\'s', async () => {
    const { choices, usage } = await create({ max_tokens: undefined });
    expect([choices[0]?.finish_reason, usage?.completion_tokens]).toEqual(['length', 16]);
    expect((await create({ max_tokens: undefined, hyperscale: { length: 20 } })).usage?.completion_tokens).toBe(20);
  });

  test('streams the same text, ended by [DONE], with usage if asked for', async () => {
    const whole = await create();
    const chunks = await chunksOf();
    expect(joined(chunks)).toBe(whole.choices[0]?.text);
    expect(chunks.length).toBeGreaterThan(20);
    expect(chunks.every(({ object, usage }) => (object as string) === 'text_completion' && usage === undefined)).toBe(true);
    const counted = await chunksOf({ stream_options: { include_usage: true } });
    expect(counted.at(-1)).toMatchObject({ choices: [], usage: whole.usage });
    const raw = await (await api.post('/v1/completions', { ...GREEDY, stream: true })).text();
    expect(raw.endsWith('data: [DONE]\n\n')).toBe(true);
  });

  test('of several prompts and chains numbers its choices prompt by prompt; echo begins each with its prompt', async () => {
    const change = { prompt: [PROMPT, OTHER], n: 2, best_of: 2, echo: true, temperature: 1, seed: 3, max_tokens: 40 };
    const whole = await create(change);
    expect(whole.choices.map(({ index, text }) => [index, text.startsWith(index < 2 ? PROMPT : OTHER)])).toEqual([[0, true], [1, true], [2, true], [3, true]]);
    expect(new Set(whole.choices.map(({ text }) => text)).size).toBe(4);
    expect(whole.usage?.completion_tokens).toBeLessThanOrEqual(160);
    const chunks = await chunksOf(change);
    for (const { index, text, finish_reason } of whole.choices) {
      expect(joined(chunks, index)).toBe(text);
      expect(chunks.flatMap(({ choices }) => choices).findLast((choice) => choice.index === index)?.finish_reason).toBe(finish_reason);
    }
    const alone = await create({ ...change, prompt: OTHER });
    expect(alone.choices.map(({ text }) => text)).toEqual(whole.choices.slice(2).map(({ text }) => text));
  });

  test('of chains that vote is the elected one, whole', async () => {
    const change = { temperature: 1, seed: 5, hyperscale: { width: 4, vote: 'majority' } };
    const whole = await create(change) as OpenAI.Completion & { hyperscale: { chains: unknown[]; elected: number }[] };
    expect(whole.choices).toHaveLength(1);
    expect(whole.hyperscale[0]?.chains).toHaveLength(4);
    expect(joined(await chunksOf(change))).toBe(whole.choices[0]?.text);
  });

  test('has the log-probabilities of its tokens as OpenAI\'s legacy shape has them, whole and streamed, of each choice', async () => {
    const change = { logprobs: 2, n: 2, temperature: 1, seed: 3, max_tokens: 40 };
    const whole = await create(change);
    const chat = await api.openai.chat.completions.create({
      model: GREEDY.model, temperature: 1, seed: 3, n: 2, max_tokens: 40, logprobs: true, top_logprobs: 2, messages: [{ role: 'user', content: '7 18 17 7 target 35' }],
    });
    const chunks = (await chunksOf(change)).flatMap(({ choices }) => choices);
    for (const { index, text, logprobs } of whole.choices) {
      const { tokens = [], token_logprobs = [], top_logprobs = [], text_offset = [] } = logprobs ?? {};
      expect(tokens.length).toBeGreaterThan(10);
      // This tokenizer leaves out the space before the first word.
      expect(tokens.join('')).toBe(` ${text}`);
      expect(text_offset.map((at, i) => ` ${text}`.slice(at).startsWith(tokens[i] ?? '?'))).not.toContain(false);
      for (const [i, token] of tokens.entries()) {
        expect(top_logprobs[i]?.[token]).toBe(token_logprobs[i]);
        expect(Object.keys(top_logprobs[i] ?? {}).length).toBeLessThanOrEqual(3);
        expect(Math.max(...Object.values(top_logprobs[i] ?? {}))).toBeLessThanOrEqual(0);
      }
      // The last of them are what a chat calls the content.
      const content = chat.choices[index]?.logprobs?.content ?? [];
      if (content.length > 0) expect(token_logprobs.slice(-content.length)).toEqual(content.map(({ logprob }) => logprob));
      const streamed = chunks.filter((choice) => choice.index === index).flatMap((choice) => choice.logprobs ?? []);
      for (const field of ['tokens', 'token_logprobs', 'top_logprobs', 'text_offset'] as const) expect(streamed.flatMap((one) => one[field] as unknown[]), field).toEqual(logprobs?.[field]);
    }
    expect((await create({ logprobs: 0 })).choices[0]?.logprobs?.top_logprobs?.every((top) => Object.keys(top).length === 1)).toBe(true);
    const voted = { temperature: 1, seed: 5, hyperscale: { width: 4, vote: 'majority' }, logprobs: 1 };
    const elected = (await create(voted)).choices[0]?.logprobs;
    expect((await chunksOf(voted)).flatMap(({ choices }) => choices[0]?.logprobs?.tokens ?? [])).toEqual(elected?.tokens);
    await expect(create({ logprobs: 1, echo: true })).rejects.toMatchObject({ status: 400, param: 'logprobs' });
  });

  test('stops at its stop strings, and the same Idempotency-Key is the same jobs', async () => {
    const stopped = await create({ stop: ['</think>', '\n'] });
    expect(stopped.choices[0]).toMatchObject({ finish_reason: 'stop', text: expect.not.stringContaining('</think>') as string });
    const headers = { 'Idempotency-Key': 'texts' };
    const several = { ...GREEDY, prompt: [PROMPT, OTHER], max_tokens: 3 };
    const ids = async () => (await api.openai.completions.create(several, { headers }).withResponse()).response.headers.get('x-ruminate-job');
    const first = await ids();
    expect(first?.split(', ')).toHaveLength(2);
    expect(await ids()).toBe(first);
    // One more, one less, another: none is the same request.
    for (const prompt of [[PROMPT, OTHER, PROMPT], [PROMPT], PROMPT, [PROMPT, PROMPT], [OTHER, PROMPT]]) {
      await expect(api.openai.completions.create({ ...several, prompt }, { headers })).rejects.toMatchObject({ status: 422, code: 'used_for_another', param: 'idempotency-key' });
    }
    const one = { 'Idempotency-Key': 'text' };
    await create({ prompt: PROMPT, max_tokens: 3 }, one);
    await expect(create({ prompt: [PROMPT, OTHER], max_tokens: 3 }, one)).rejects.toMatchObject({ status: 422 });
  });

  test('of a client that goes away is cancelled, all of it; of prompts of which one is refused nothing runs', async () => {
    const before = api.platform.cancelled.length;
    const long = { model: 'countdown@dense', prompt: [PROMPT, OTHER], temperature: 5, max_tokens: 900, seed: 3, logit_bias: { 2: -100 } };
    const stream = await api.openai.completions.create({ ...long, stream: true });
    for await (const chunk of stream) if (joined([chunk]) !== '') break;
    stream.controller.abort();
    await vi.waitFor(() => expect(api.platform.cancelled).toHaveLength(before + 2), WAIT);
    await expect(create({ prompt: [PROMPT, `${PROMPT} 1`.repeat(300)], max_tokens: 900 })).rejects.toMatchObject({ code: 'context_length_exceeded' });
    await vi.waitFor(() => expect(api.platform.cancelled).toHaveLength(before + 3), WAIT);
  });
});

describe('what is refused', () => {
  test.each([
    ['suffix', ' end'], ['logprobs', 21], ['logprobs', true], ['best_of', 5], ['prompt', ''], ['prompt', []], ['prompt', [[]]], ['prompt', [PROMPT, 3]], ['prompt', [1.5]], ['prompt', [-1]], ['prompt', [99_999]],
    ['prompt', Array.from({ length: 33 }, () => PROMPT)], ['prompt', { text: 'x' }], ['prompt', undefined], ['max_tokens', 0], ['n', 0], ['stream_options', {}], ['messages', []], ['nonsense', 1],
  ])('%s = %j: 400, by name', async (param, value) => {
    await expect(create({ [param]: value })).rejects.toMatchObject({ status: 400, param });
  });

  test('echo of token ids, which have no text here', async () => {
    await expect(create({ prompt: [1, 6], echo: true })).rejects.toMatchObject({ status: 400, param: 'echo' });
  });
});

describe('the AI SDK', () => {
  const model = () => createOpenAICompatible({ name: 'ruminate', baseURL: `${api.url}/v1`, includeUsage: true }).completionModel('countdown@cr2');

  test('completes text, and streams it', async () => {
    // It writes the prompt as a conversation of its own making, which this model has never seen: any tokens will do.
    const { text, usage } = await generateText({ model: model(), prompt: '4 20 8 13 target 59', temperature: 0, maxOutputTokens: 24 });
    expect(usage.outputTokens).toBeGreaterThan(0);
    const streamed = streamText({ model: model(), prompt: '4 20 8 13 target 59', temperature: 0, maxOutputTokens: 24 });
    let whole = '';
    for await (const part of streamed.textStream) whole += part;
    expect(whole).toBe(text);
    expect((await streamed.usage).outputTokens).toBe(usage.outputTokens);
  });
});
