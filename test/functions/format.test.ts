/** Formats and log-probabilities through the real client, on a model whose weights are random. */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { Output, generateText, streamText } from 'ai';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import OpenAI from 'openai';
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';

import { tokenizerIn } from '../../engine/model/directory.ts';
import { type HttpApi, startApi } from '../helpers/http-api.ts';
import { ROOT } from '../helpers/setup.ts';
import { writeModel } from '../helpers/written-model.ts';

const CHAT = { model: 'scribe', messages: [{ role: 'user' as const, content: 'a shape' }], seed: 4, max_tokens: 400 };
const Shape = z.object({
  kind: z.enum(['circle', 'square']),
  sizes: z.array(z.int().min(1).max(99)).max(3),
  inner: z.union([z.object({ label: z.string().max(5) }), z.null()]),
});
const schema = (properties: object, required: readonly string[] = Object.keys(properties)) => ({ type: 'object', properties, required, additionalProperties: false });
const jsonSchema = (given: object) => ({ type: 'json_schema' as const, json_schema: { name: 'shape', strict: true, schema: given as Record<string, unknown> } });

let directory: string;
let api: HttpApi;
let before: string | undefined;
beforeAll(async () => {
  directory = mkdtempSync(path.join(tmpdir(), 'ruminate-format-'));
  writeModel(directory, 'scribe');
  writeModel(directory, 'thinker', { thinks: true });
  before = process.env.RUMINATE_MODELS;
  process.env.RUMINATE_MODELS = directory;
  api = await startApi({ limits: { progressMs: 0 } });
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
  if (before === undefined) delete process.env.RUMINATE_MODELS;
  else process.env.RUMINATE_MODELS = before;
  rmSync(directory, { recursive: true, force: true });
});

const ask = async (change: object) => await api.openai.chat.completions.create({ ...CHAT, ...change } as OpenAI.ChatCompletionCreateParamsNonStreaming);
async function chunksOf(change: object): Promise<OpenAI.ChatCompletionChunk[]> {
  const chunks = [];
  for await (const chunk of await api.openai.chat.completions.create({ ...CHAT, ...change, stream: true } as OpenAI.ChatCompletionCreateParamsStreaming)) chunks.push(chunk);
  return chunks;
}

describe('a chat with response_format', () => {
  test('is parsed by the client\'s own helper into what zod asks for', async () => {
    const completion = await api.openai.chat.completions.parse({ ...CHAT, response_format: zodResponseFormat(Shape, 'shape') });
    expect(Shape.parse(completion.choices[0]?.message.parsed)).toEqual(completion.choices[0]?.message.parsed);
    expect(completion.choices[0]?.finish_reason).toBe('stop');
  });

  test.each<[string, object]>([
    ['nested objects', schema({ a: schema({ b: schema({ c: { type: 'boolean' } }) }) })],
    ['lists of enums', { type: 'array', items: { enum: ['x', 'é', 1, null] }, minItems: 1, maxItems: 4 }],
    ['optional properties', schema({ a: { type: 'null' }, b: { type: 'boolean' } }, [])],
    ['definitions', { ...schema({ left: { $ref: '#/$defs/leaf' }, right: { $ref: '#/$defs/leaf' } }), $defs: { leaf: schema({ value: { type: 'integer' } }) } }],
    ['alternatives', schema({ value: { anyOf: [{ type: 'boolean' }, schema({ n: { type: 'integer' } })] } })],
  ])('%s are what the schema says, streamed or not', async (_, given) => {
    const isValid = new Ajv2020({ strict: false }).compile(given);
    const whole = await ask({ response_format: jsonSchema(given) });
    const text = whole.choices[0]?.message.content ?? '';
    expect(isValid(JSON.parse(text)), text).toBe(true);
    const chunks = await chunksOf({ response_format: jsonSchema(given) });
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('')).toBe(text);
  });

  test('json_object is an object, for every choice and every elected chain', async () => {
    // Random weights seldom end a text: quotes and braces are helped.
    const likely = { logit_bias: { 1: 6, 92: 6, 529: 6 }, max_tokens: 1_500 };
    const choices = await ask({ response_format: { type: 'json_object' }, n: 3, ...likely });
    for (const { message } of choices.choices) expect(JSON.parse(message.content ?? '')).toBeTypeOf('object');
    const elected = await ask({ response_format: { type: 'json_object' }, hyperscale: { width: 3 }, ...likely });
    expect(JSON.parse(elected.choices[0]?.message.content ?? '')).toBeTypeOf('object');
  });

  test('is cut by its length and by a stop text, and finish_reason tells only the former from a text that is whole', async () => {
    const given = { response_format: jsonSchema(schema({ ok: { type: 'boolean' } })) };
    const choice = async (change: object) => (await ask({ ...given, ...change })).choices[0];
    expect(await choice({ max_tokens: 1 })).toMatchObject({ finish_reason: 'length' });
    const cut = await choice({ stop: ':' });
    expect(cut?.finish_reason).toBe('stop');
    expect(cut?.message.content).toMatch(/^\s*\{\s*"ok"\s*$/);
  });

  test('comes after the thinking, which is shown apart', async () => {
    const completion = await ask({ model: 'thinker', response_format: jsonSchema(schema({ ok: { type: 'boolean' } })), logit_bias: { 648: 7 } });
    expect(JSON.parse(completion.choices[0]?.message.content ?? '')).toEqual({ ok: expect.any(Boolean) as boolean });
    expect((completion.choices[0]?.message as { reasoning_content?: string }).reasoning_content).toBeTruthy();
  });

  test.each<[object, string, RegExp]>([
    [{ response_format: jsonSchema({ type: 'string', not: {} }) }, 'response_format.json_schema.schema', /response_format\.json_schema\.schema must be a JSON Schema that can be kept: it has "not"/],
    [{ response_format: jsonSchema({ type: 'object', properties: { a: { not: {} } } }) }, 'response_format.json_schema.schema', /\/properties\/a has "not"/],
    [{ response_format: { type: 'json_schema', json_schema: { name: 'no schema' } } }, 'response_format', /name/],
    [{ response_format: { type: 'grammar' } }, 'response_format', /text, json_object or json_schema/],
    [{ top_logprobs: 2 }, 'top_logprobs', /needs logprobs/],
    [{ logprobs: true, top_logprobs: 21 }, 'top_logprobs', /20/],
  ])('%j is refused before anything runs', async (change, param, message) => {
    const error: unknown = await ask(change).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(OpenAI.BadRequestError);
    expect((error as InstanceType<typeof OpenAI.APIError>).param).toContain(param);
    expect((error as InstanceType<typeof OpenAI.APIError>).message).toMatch(message);
  });

  test('that the model\'s vocabulary cannot write fails once and is told why by every endpoint, and the server goes on', async () => {
    // Its vocabulary has no brace.
    const [close] = tokenizerIn(path.join(ROOT, 'models/countdown/cr8')).encode('</think>', { addSpecial: false });
    const error: unknown = await ask({ model: 'countdown@cr8', response_format: { type: 'json_object' }, logit_bias: { [close ?? -1]: 100 } }).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ status: 400, code: 'format_refused', message: expect.stringContaining('cannot write in the format') as string });
    const id = (error as InstanceType<typeof OpenAI.APIError>).headers?.get('x-ruminate-job') ?? /The job (\S+) /.exec((error as Error).message)?.[1];
    const [refused] = ((await (await api.get(`/v1/jobs/${id}`)).json()) as { evidence: unknown[] }).evidence;
    expect(refused).toMatchObject({ code: 'ERR_FORMAT', message: expect.stringContaining('cannot write in the format') as string });
    expect(await api.openai.responses.retrieve(`resp_${id}`)).toMatchObject({ status: 'failed', error: { code: 'format_refused' } });
    expect((await ask({ response_format: jsonSchema(schema({})) })).choices[0]?.message.content).toMatch(/^\{\s*\}$/);
  });
});

describe('logprobs', () => {
  test('of a chat are of its content, token by token, and the same when streamed', async () => {
    const request = { logprobs: true, top_logprobs: 3, max_tokens: 12 };
    const whole = await ask(request);
    const content = whole.choices[0]?.logprobs?.content ?? [];
    expect(content).toHaveLength(12);
    const bytes = content.flatMap((token) => token.bytes ?? []);
    expect(Buffer.from(bytes).toString()).toBe(whole.choices[0]?.message.content);
    for (const { logprob, top_logprobs } of content) {
      expect(top_logprobs).toHaveLength(3);
      expect(logprob).toBeLessThanOrEqual(top_logprobs[0]?.logprob ?? -Infinity);
    }
    const chunks = await chunksOf(request);
    expect(chunks.flatMap(({ choices }) => choices[0]?.logprobs?.content ?? [])).toEqual(content);
    expect((await ask({ max_tokens: 3 })).choices[0]?.logprobs).toBeNull();
    expect((await ask({ max_tokens: 3, logprobs: true })).choices[0]?.logprobs?.content?.[0]?.top_logprobs).toEqual([]);
  });

  test.each([6, 12])('leave out what is thought and the token that ends the text (an end of thinking helped by %s)', async (bias) => {
    const request = { model: 'thinker', response_format: jsonSchema(schema({ ok: { type: 'boolean' } })), logit_bias: { 648: bias }, logprobs: true };
    const whole = await ask(request);
    const content = whole.choices[0]?.logprobs?.content ?? [];
    expect(Buffer.from(content.flatMap(({ bytes }) => bytes ?? [])).toString()).toBe(whole.choices[0]?.message.content);
    expect(content.length).toBeLessThan(whole.usage?.completion_tokens ?? 0);
    const chunks = await chunksOf(request);
    expect(chunks.flatMap(({ choices }) => choices[0]?.logprobs?.content ?? [])).toEqual(content);
  });

  test('of chains that vote are those of the elected one', async () => {
    const request = { hyperscale: { width: 3 }, logprobs: true, max_tokens: 10 };
    const whole = await ask(request);
    const content = whole.choices[0]?.logprobs?.content ?? [];
    expect(Buffer.from(content.flatMap(({ bytes }) => bytes ?? [])).toString()).toBe(whole.choices[0]?.message.content);
    expect((await chunksOf(request)).flatMap(({ choices }) => choices[0]?.logprobs?.content ?? [])).toEqual(content);
  });
});

describe('a response', () => {
  const RESPONSE = { model: 'scribe', input: 'a shape', seed: 4, max_output_tokens: 400 } as const;

  test('with text.format is parsed by the client\'s own helper', async () => {
    const response = await api.openai.responses.parse({ ...RESPONSE, text: { format: zodTextFormat(Shape, 'shape') } });
    expect(Shape.parse(response.output_parsed)).toEqual(response.output_parsed);
    const error: unknown = await api.openai.responses.create({ ...RESPONSE, text: { format: { type: 'json_schema', name: 'x', schema: { type: 'string', not: {} } } } } as OpenAI.Responses.ResponseCreateParamsNonStreaming).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ status: 400, param: 'text.format.schema' });
  });

  test('includes log-probabilities where it is asked to, the same from a stream and later', async () => {
    const request = { ...RESPONSE, max_output_tokens: 12, include: ['message.output_text.logprobs' as const], top_logprobs: 2 };
    const response = await api.openai.responses.create(request);
    const [message] = response.output;
    if (message?.type !== 'message' || message.content[0]?.type !== 'output_text') throw new Error('no text');
    const { text, logprobs = [] } = message.content[0];
    expect(Buffer.from(logprobs.flatMap(({ bytes }) => bytes)).toString()).toBe(text);
    expect(logprobs[0]?.top_logprobs).toHaveLength(2);
    expect((await api.openai.responses.retrieve(response.id)).output).toEqual(response.output);
    // And may be handed back as it is.
    await api.openai.responses.create({ ...RESPONSE, max_output_tokens: 2, input: [{ role: 'user', content: 'a shape' }, ...response.output, { role: 'user', content: 'another' }] } as OpenAI.Responses.ResponseCreateParamsNonStreaming);
    const told = [];
    let done: unknown;
    for await (const event of await api.openai.responses.create({ ...request, stream: true })) {
      if (event.type === 'response.output_text.delta') told.push(...event.logprobs);
      if (event.type === 'response.output_text.done') done = event.logprobs;
    }
    expect(told).toEqual(logprobs);
    expect(done).toEqual(logprobs);
    await expect(api.openai.responses.create({ ...RESPONSE, top_logprobs: 2 })).rejects.toMatchObject({ status: 400, param: 'top_logprobs' });
    await expect(api.openai.responses.create({ ...RESPONSE, include: ['file_search_call.results'] })).rejects.toMatchObject({ status: 400 });
  });
});

describe('the AI SDK', () => {
  const model = () => createOpenAICompatible({ name: 'ruminate', baseURL: `${api.url}/v1`, supportsStructuredOutputs: true })('scribe');
  const Level = z.object({ level: z.string().regex(/^[A-C][1-9]{2}$/), step: z.int().min(10).max(50).multipleOf(10) });

  test('has objects of a schema made, patterns and multiples included, whole and streamed', async () => {
    const asked = { model: model(), prompt: 'a level', seed: 3, output: Output.object({ schema: Level }) };
    const { output } = await generateText(asked);
    expect(Level.parse(output)).toEqual(output);
    const streamed = streamText(asked);
    let last: unknown = null;
    for await (const partial of streamed.partialOutputStream) last = partial;
    expect(last).toEqual(output);
  });
});
