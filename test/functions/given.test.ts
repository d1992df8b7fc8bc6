/** What clients really send: nulls for "not given", text that is none, and prompts that no answer repeats. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { EngineError } from '../../engine/core/errors.ts';
import { failureOf } from '../../functions/errors.ts';
import { HTTP_LIMITS } from '../../functions/limits.ts';
import { type HttpApi, startApi } from '../helpers/http-api.ts';

const CHAT = { model: 'countdown@cr2', messages: [{ role: 'user', content: '7 18 17 7 target 35' }], max_tokens: 1 };
const RESPONSE = { model: 'countdown@cr2', input: '7 18 17 7 target 35', max_output_tokens: 1 };
const JOB = { model: 'countdown@cr2', prompt: '7 18 17 7 target 35', budget: { width: 1, length: 1 } };

let api: HttpApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api[Symbol.asyncDispose]());

interface Told {
  readonly status: number;
  readonly text: string;
  readonly code: string | undefined;
  readonly param: string | null | undefined;
}

async function post(path: string, body: unknown): Promise<Told> {
  const response = await api.post(path, body);
  const text = await response.text();
  const told = JSON.parse(text) as { error?: { code: string; param: string | null } | null; code?: string; param?: string | null };
  return { status: response.status, text, code: told.error?.code ?? told.code, param: told.error?.param ?? told.param };
}

describe('a null', () => {
  test.each([
    ['/v1/chat/completions', { ...CHAT, reasoning: { effort: null }, stream_options: null, response_format: { type: 'text', json_schema: null } }],
    ['/v1/chat/completions', { ...CHAT, messages: [{ role: 'user', name: null, content: [{ type: 'text', text: '7 18 17 7 target 35', annotations: null }] }], hyperscale: { width: null } }],
    ['/v1/responses', { ...RESPONSE, reasoning: { effort: null, summary: null }, text: { format: null, verbosity: null }, tools: null, previous_response_id: null }],
    ['/v1/responses', { ...RESPONSE, input: [{ role: 'user', content: '7 18 17 7 target 35', id: null, status: null }] }],
    ['/v1/quotes', { ...JOB, sampling: { temperature: null }, budget: { ...JOB.budget, kv_read_budget: null } }],
  ])('inside of a body to %s is "not given"', async (path, body) => {
    expect(await post(path, body)).toMatchObject({ status: 200 });
  });

  test('where something is needed, or in a list, is refused by name', async () => {
    expect(await post('/v1/chat/completions', { ...CHAT, messages: [{ role: 'user', content: null }] })).toMatchObject({ status: 400, param: 'messages.0.content' });
    expect(await post('/v1/chat/completions', { ...CHAT, model: null })).toMatchObject({ status: 400, param: 'model' });
    expect(await post('/v1/chat/completions', { ...CHAT, stop: ['a', null] })).toMatchObject({ status: 400, param: 'stop' });
  });

  test('that means something stays: what a template is told is the client\'s own JSON', async () => {
    const asked = { ...JOB, tools: [{ type: 'function', function: { name: 'f', parameters: { default: null, enum: ['a', null] } } }], tool_choice: 'none', template_variables: { a: null } };
    expect(await post('/v1/quotes', asked)).toMatchObject({ status: 200 });
  });
});

describe('a field named __proto__', () => {
  test.each([
    ['/v1/chat/completions', CHAT, 'logit_bias', '{"__proto__":5}', 'logit_bias.__proto__'],
    ['/v1/chat/completions', CHAT, 'metadata', '{"a":"b","__proto__":"x"}', 'metadata.__proto__'],
    ['/v1/responses', RESPONSE, 'metadata', '{"__proto__":null}', 'metadata.__proto__'],
    ['/v1/jobs', JOB, '__proto__', '{"seed":1}', '__proto__'],
    ['/v1/quotes', JOB, 'policy_options', '{"__proto__":{"a":1}}', 'policy_options.__proto__'],
  ])('is refused by %s, by name: it would be dropped in silence', async (path, body, field, value, param) => {
    const sent = `${JSON.stringify(body).slice(0, -1)},${JSON.stringify(field)}:${value}}`;
    expect(await post(path, sent)).toMatchObject({ status: 400, code: 'unsupported_parameter', param });
  });
});

test('an object with more fields than anything has is refused by name, before a schema looks at any of them', async () => {
  const fields = Object.fromEntries(Array.from({ length: HTTP_LIMITS.OBJECT_FIELDS_MAX + 1 }, (_, i) => [`k${i}`, 'v']));
  expect(await post('/v1/chat/completions', { ...CHAT, metadata: fields })).toMatchObject({ status: 400, code: 'invalid_value', param: 'metadata', text: expect.stringContaining('at most 2048 fields') as string });
  expect(await post('/v1/jobs', fields)).toMatchObject({ status: 400, text: expect.stringContaining('The body must have at most 2048 fields') as string });
});

test('an item whose type is null is a message, as one without', async () => {
  expect(await post('/v1/responses', { ...RESPONSE, input: [{ type: null, role: 'user', content: '7 18 17 7 target 35' }] })).toMatchObject({ status: 200 });
  expect(await post('/v1/responses', { ...RESPONSE, input: [{ type: 'image', role: 'user', content: 'x' }] })).toMatchObject({ status: 400, param: 'input' });
});

describe('text', () => {
  test.each([
    ['/v1/chat/completions', { ...CHAT, messages: [{ role: 'user', content: 'a \ud83d b' }] }, 'messages.0.content'],
    ['/v1/chat/completions', { ...CHAT, stop: ['ok', '\udc00'] }, 'stop.1'],
    ['/v1/responses', { ...RESPONSE, instructions: '\ud800' }, 'instructions'],
    ['/v1/jobs', { ...JOB, prompt: 'x\udfff' }, 'prompt'],
    ['/v1/quotes', { ...JOB, template_variables: { deep: [{ in: '\ud800' }] } }, 'template_variables.deep.0.in'],
    ['/v1/quotes', { ...JOB, template_variables: { '\ud800': 1 } }, 'template_variables'],
  ])('with half of a surrogate pair is refused by %s, by name', async (path, body, param) => {
    expect(await post(path, body)).toMatchObject({ status: 400, code: 'invalid_value', param });
  });

  test('with whole pairs is as good as any', async () => {
    expect(await post('/v1/quotes', { ...JOB, prompt: '4 20 8 13 target 59 \u{1f600}' })).toMatchObject({ status: 200 });
  });

  test('that is nested deeper than anything could store is refused, at any depth', async () => {
    for (const depth of [HTTP_LIMITS.JSON_DEPTH_MAX, 10_000]) {
      const nested = `${JSON.stringify(JOB).slice(0, -1)},"template_variables":{"a":${'['.repeat(depth)}${']'.repeat(depth)}}}`;
      expect(await post('/v1/quotes', nested)).toMatchObject({ status: 400, code: 'invalid_value', param: 'template_variables.a.0' });
    }
  });
});

test('a body of more small things than any request has is refused before it is parsed; of token ids there may be many', async () => {
  for (const change of [{ metadata: Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`k${i}`, 'v'])) }, { stop: Array.from({ length: 70_000 }, () => '') }]) {
    expect(await post('/v1/chat/completions', { ...CHAT, ...change })).toMatchObject({ status: 400, code: 'invalid_value', text: expect.stringContaining('The body must have at most') as string });
  }
  expect(await post('/v1/quotes', { model: JOB.model, raw_prompt: Array.from({ length: 500_000 }, () => 1) })).toMatchObject({ status: 400, code: 'context_length_exceeded', param: 'raw_prompt' });
});

const TEXT = { model: 'countdown@cr2', prompt: '<s> user 7 18', max_tokens: 1 };
/** Two thousand texts of 500 bytes: within what a body may have, above what a grammar is made of. */
const LARGE = { type: 'string', enum: Array.from({ length: 2_000 }, (_, i) => `${i}`.padEnd(500, 'x')) };

describe('a refusal of the engine', () => {
  test.each([
    ['/v1/chat/completions', { ...CHAT, max_tokens: 2_000 }, 'max_tokens'],
    ['/v1/chat/completions', { ...CHAT, max_tokens: 2_000, stream: true }, 'max_tokens'],
    ['/v1/chat/completions', { ...CHAT, max_tokens: undefined, max_completion_tokens: 2_000 }, 'max_completion_tokens'],
    ['/v1/chat/completions', { ...CHAT, max_tokens: undefined, hyperscale: { length: 2_000 } }, 'hyperscale.length'],
    ['/v1/responses', { ...RESPONSE, max_output_tokens: 2_000 }, 'max_output_tokens'],
    ['/v1/completions', { ...TEXT, max_tokens: 2_000 }, 'max_tokens'],
    ['/v1/quotes', { ...JOB, budget: { width: 1, length: 2_000 } }, 'budget.length'],
    ['/v1/completions', { ...TEXT, prompt: [999_999] }, 'prompt'],
    ['/v1/chat/completions', { ...CHAT, logit_bias: { 999_999: 1 } }, 'logit_bias'],
    ['/v1/completions', { ...TEXT, logit_bias: { 999_999: 1 } }, 'logit_bias'],
    ['/v1/quotes', { ...JOB, sampling: { logit_bias: [[999_999, 1]] } }, 'sampling.logit_bias'],
    ['/v1/jobs', { ...JOB, sampling: { logit_bias: [[999_999, 1]] } }, 'sampling.logit_bias'],
    ['/v1/chat/completions', { ...CHAT, model: 'countdown', hyperscale: { compression_ratio: 3 } }, 'hyperscale.compression_ratio'],
    ['/v1/chat/completions', { ...CHAT, max_tokens: undefined, model: 'countdown', reasoning_effort: 'low', hyperscale: { compression_ratio: 3 } }, 'hyperscale.compression_ratio'],
    ['/v1/jobs', { ...JOB, model: 'countdown', budget: { ...JOB.budget, compression_ratio: 3 } }, 'budget.compression_ratio'],
    ['/v1/chat/completions', { ...CHAT, response_format: { type: 'json_schema', json_schema: { name: 'a', schema: LARGE } } }, 'response_format.json_schema.schema'],
    ['/v1/chat/completions', { ...CHAT, tool_choice: 'required', tools: [{ type: 'function', function: { name: 'f', parameters: { type: 'object', properties: { a: LARGE } } } }] }, 'tools'],
  ])('of a body to %s begins with the field as the caller named it', async (path, body, param) => {
    const told = await post(path, body);
    const said = JSON.parse(told.text) as { error?: { message: string }; detail?: string };
    expect(told).toMatchObject({ status: 400, param });
    expect(said.error?.message ?? said.detail).toMatch(new RegExp(`^${param.replaceAll('.', '\\.')} must `));
  });

  test('of a prompt that is too long blames the prompt, whatever the request calls it', async () => {
    const long = `${JOB.prompt} 1`.repeat(400);
    expect(await post('/v1/chat/completions', { ...CHAT, messages: [{ role: 'user', content: long }] })).toMatchObject({ code: 'context_length_exceeded', param: 'messages' });
    expect(await post('/v1/responses', { ...RESPONSE, input: long })).toMatchObject({ code: 'context_length_exceeded', param: 'input' });
    expect(await post('/v1/completions', { ...TEXT, prompt: long })).toMatchObject({ code: 'context_length_exceeded', param: 'prompt' });
    expect(await post('/v1/quotes', { ...JOB, prompt: long })).toMatchObject({ code: 'context_length_exceeded', param: 'prompt' });
  });
});

describe('a refusal', () => {
  const SECRET = 'the patient has xyzzy-4711';

  test('never repeats text that stood in a field', async () => {
    const long = SECRET.repeat(200);
    const bodies: readonly (readonly [string, unknown])[] = [
      ['/v1/chat/completions', { ...CHAT, messages: [{ role: SECRET, content: 'x' }] }],
      ['/v1/chat/completions', { ...CHAT, messages: [{ role: 'user', content: SECRET, [SECRET]: 1 }] }],
      ['/v1/chat/completions', { ...CHAT, [SECRET]: SECRET }],
      ['/v1/chat/completions', { ...CHAT, stop: [long] }],
      ['/v1/chat/completions', { ...CHAT, logit_bias: { [SECRET]: 1 } }],
      ['/v1/chat/completions', { ...CHAT, reasoning_effort: SECRET }],
      ['/v1/chat/completions', { ...CHAT, model: SECRET }],
      ['/v1/responses', { ...RESPONSE, input: [{ type: SECRET, text: SECRET }] }],
      ['/v1/responses', { ...RESPONSE, input: [{ role: 'user', content: [{ type: 'input_image', text: SECRET }] }] }],
      ['/v1/jobs', { ...JOB, prompt: SECRET, messages: [{ role: 'user', content: SECRET }] }],
      ['/v1/jobs', { ...JOB, stop: ['', SECRET] }],
      ['/v1/jobs', { ...JOB, verifier: SECRET }],
      ['/v1/jobs', { ...JOB, date: SECRET }],
      ['/v1/jobs', { ...JOB, answer: { rule: 'pattern', pattern: `(${SECRET}` } }],
      ['/v1/jobs', { ...JOB, answer: { rule: SECRET } }],
      ['/v1/jobs', { ...JOB, seed: SECRET }],
      ['/v1/jobs', { ...JOB, prompt: SECRET.repeat(100_000) }],
    ];
    for (const [path, body] of bodies) {
      const told = await post(path, body);
      expect([JSON.stringify(body).slice(0, 80), told.status]).toEqual([JSON.stringify(body).slice(0, 80), expect.toSatisfy((status: number) => status >= 400 && status < 500)]);
      expect(told.text).not.toMatch(/xyzzy|patient/);
    }
  });

  test('of a key says so of the key, and not what would be wrong with its value', async () => {
    for (const [path, body] of [['/v1/chat/completions', CHAT], ['/v1/completions', TEXT]] as const) {
      for (const id of ['9999999', 'x', '4194305']) expect(await post(path, { ...body, logit_bias: { 5: 1, [id]: 1 } })).toMatchObject({ status: 400, param: `logit_bias.${id}`, text: expect.stringContaining(`logit_bias.${id}: must be a token id from 0 to`) as string });
      expect(await post(path, { ...body, metadata: { fine: 'x', ['k'.repeat(65)]: 'v' } })).toMatchObject({ status: 400, param: 'metadata', text: expect.stringContaining('metadata: must have keys of at most 64 characters') as string });
      expect(await post(path, { ...body, metadata: { long: 'v'.repeat(513) } })).toMatchObject({ status: 400, param: 'metadata.long', text: expect.stringContaining('512') as string });
      expect(await post(path, { ...body, metadata: 'x' })).toMatchObject({ status: 400, param: 'metadata', text: expect.stringContaining('must have texts') as string });
    }
  });

  test('keeps the words of the engine and of the template, without what they quote', () => {
    expect(failureOf(new EngineError('ERR_OPTION', 'vote must be one of majority, none; got "xyzzy \\" …".')).message).toBe('vote must be one of majority, none.');
    expect(failureOf(new EngineError('ERR_OPTION', 'variant must not be given twice; got "a" and "b".')).message).toBe('variant must not be given twice.');
    expect(failureOf(new EngineError('ERR_OPTION', 'length must be from 1 to 4; got 5.')).message).toBe('length must be from 1 to 4; got 5.');
    expect(failureOf(new EngineError('ERR_TEMPLATE', 'The chat template cannot be rendered: "no role xyzzy".')).message).toBe('The chat template cannot be rendered.');
  });
});
