/** What OpenAI's client can ask for, field by field as its own declarations have it: each is honoured, refused by name, or said to change nothing. */
import type { z } from '@hono/zod-openapi';
import { describe, expect, test } from 'vitest';

import type { ModelView } from '../../engine/control/platform.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { check } from '../../functions/endpoint.ts';
import { chatJob, chatRequest } from '../../functions/openai/chat-request.ts';
import { responseSchema } from '../../functions/openai/response-object.ts';
import { responseJob, responseRequest } from '../../functions/openai/response-request.ts';
import { textJobs, textRequest } from '../../functions/openai/text-request.ts';
import { fieldsOf } from '../helpers/openai-types.ts';

const MODELS = async (): Promise<readonly ModelView[]> => [{ id: 'm', compression_ratio: 2, context: 4_096, default: true }];
const TOOL = { name: 'f', parameters: { type: 'object', properties: {} } };
const SCHEMA = { name: 'n', schema: { type: 'object', properties: {} } };
const CALL = { id: 'a', type: 'function', function: { name: 'f', arguments: '{}' } };

/** How the answer is told, or what is done anyway: no job is another for them. */
const OF_THE_ANSWER = ['stream', 'stream_options', 'service_tier', 'modalities', 'truncation', 'echo', 'best_of'];
const SAMPLING = { temperature: 0.5, top_p: 0.5, top_k: 5, min_p: 0.1, repetition_penalty: 1.1, presence_penalty: 1, frequency_penalty: 1 };
const SAID = { metadata: { a: 'b' }, user: 'u', safety_identifier: 's', prompt_cache_key: 'k' };

interface Endpoint {
  readonly url: string;
  readonly schema: z.ZodObject;
  readonly specOf: (body: unknown) => Promise<JobSpec | undefined>;
  readonly least: object;
  /** One value for each field that makes another job, with what it needs beside it. */
  readonly values: Readonly<Record<string, unknown>>;
  readonly beside?: Readonly<Record<string, object>>;
  readonly declared: readonly [file: string, named: string];
}

const ENDPOINTS: readonly Endpoint[] = [
  {
    url: '/v1/chat/completions',
    schema: chatRequest,
    specOf: async (body) => (await chatJob(check(chatRequest, body), MODELS)).spec,
    least: { model: 'm', messages: [{ role: 'user', content: 'x' }] },
    declared: ['chat/completions/completions', 'ChatCompletionCreateParamsBase'],
    values: {
      ...SAMPLING, ...SAID, model: 'other', messages: [{ role: 'user', content: 'y' }], n: 2, seed: 1, stop: 'x', max_tokens: 3, max_completion_tokens: 3, logit_bias: { 1: 1 },
      reasoning_effort: 'low', reasoning: { effort: 'low' }, hyperscale: { width: 3 }, tools: [{ type: 'function', function: TOOL }], tool_choice: 'required', parallel_tool_calls: false,
      response_format: { type: 'json_schema', json_schema: SCHEMA }, logprobs: true, top_logprobs: 2,
    },
    beside: { tool_choice: { tools: [{ type: 'function', function: TOOL }] }, parallel_tool_calls: { tools: [{ type: 'function', function: TOOL }] }, top_logprobs: { logprobs: true }, store: {} },
  },
  {
    url: '/v1/completions',
    schema: textRequest,
    specOf: async (body) => (await textJobs(check(textRequest, body), MODELS)).specs[0],
    least: { model: 'm', prompt: 'x' },
    declared: ['completions', 'CompletionCreateParamsBase'],
    values: { ...SAMPLING, ...SAID, model: 'other', prompt: 'y', n: 2, seed: 1, stop: 'x', max_tokens: 3, logit_bias: { 1: 1 }, hyperscale: { width: 3 }, logprobs: 2 },
  },
  {
    url: '/v1/responses',
    schema: responseRequest,
    specOf: async (body) => await responseJob(check(responseRequest, body), MODELS),
    least: { model: 'm', input: 'x' },
    declared: ['responses/responses', 'ResponseCreateParamsBase'],
    values: {
      ...SAMPLING, ...SAID, model: 'other', input: 'y', instructions: 'i', background: true, store: false, max_output_tokens: 3, seed: 1, reasoning: { effort: 'low' }, hyperscale: { width: 3 },
      tools: [{ type: 'function', ...TOOL }], tool_choice: 'none', parallel_tool_calls: false, text: { format: { type: 'json_schema', ...SCHEMA } }, include: ['message.output_text.logprobs'], top_logprobs: 2,
    },
    beside: { top_logprobs: { include: ['message.output_text.logprobs'] } },
  },
];

describe.each(ENDPOINTS)('$url', ({ schema, specOf, least, values, beside, declared }) => {
  const names = fieldsOf(...declared).map(({ name }) => name);

  test('every field that OpenAI\'s client knows and this endpoint does not is refused by name', async () => {
    expect(names.length).toBeGreaterThan(15);
    const strange = names.filter((name) => !Object.hasOwn(schema.shape, name));
    expect(strange.length).toBeGreaterThan(0);
    for (const name of strange) {
      await expect(specOf({ ...least, [name]: 1 }), name).rejects.toMatchObject({ code: 'unsupported_parameter', param: name });
      // As clients write what is not given.
      await expect(specOf({ ...least, [name]: null }), name).resolves.toBeDefined();
    }
  });

  test('every field that it takes makes another job, or is one of those that are about the answer', async () => {
    const about = [...OF_THE_ANSWER, 'previous_response_id', ...(Object.hasOwn(values, 'store') ? [] : ['store'])];
    for (const name of Object.keys(schema.shape)) {
      if (about.includes(name)) continue;
      expect(values, name).toHaveProperty(name);
      const more = beside?.[name] ?? {};
      expect(await specOf({ ...least, ...more, [name]: values[name] }), name).not.toEqual(await specOf({ ...least, ...more }));
    }
  });
});

describe('inside of what is taken', () => {
  const specOf = ENDPOINTS[0]?.specOf ?? (async () => undefined);
  const chat = async (message: object, before: object = { role: 'user', content: 'x' }) => await specOf({ model: 'm', messages: [before, message] });

  test.each([
    ['name', { role: 'user', content: 'y' }, 'ada'], ['name', { role: 'assistant', content: 'y' }, 'ada'], ['name', { role: 'system', content: 'y' }, 'ada'],
    ['reasoning_content', { role: 'assistant', content: 'y' }, 'hm'], ['tool_calls', { role: 'assistant', content: 'y' }, [CALL]],
  ])('%s of %j reaches the job', async (field, message, value) => {
    expect(await chat({ ...message, [field]: value })).not.toEqual(await chat(message));
  });

  test.each([
    ['audio', { role: 'assistant', content: 'y', audio: { id: 'a' } }], ['function_call', { role: 'assistant', content: 'y', function_call: { name: 'f', arguments: '' } }],
    ['refusal', { role: 'assistant', content: 'y', refusal: 'no' }], ['nonsense', { role: 'user', content: 'y', nonsense: 1 }],
  ])('%s of a message is refused by name', async (field, message) => {
    await expect(chat(message)).rejects.toMatchObject({ code: 'unsupported_parameter', param: `messages.1.${field}` });
  });
});

test('a response has every field that OpenAI\'s client declares, but for those of what is not here', () => {
  const elsewhere = ['output_text', 'conversation', 'moderation', 'prompt', 'prompt_cache_options', 'prompt_cache_retention'];
  const missing = fieldsOf('responses/responses', 'Response').map(({ name }) => name).filter((name) => !Object.hasOwn(responseSchema.shape, name));
  expect(missing.filter((name) => !elsewhere.includes(name))).toEqual([]);
  const usage = responseSchema.shape.usage.unwrap().shape;
  for (const [named, shape] of [['ResponseUsage', usage], ['InputTokensDetails', usage.input_tokens_details.shape], ['OutputTokensDetails', usage.output_tokens_details.shape]] as const) {
    expect(fieldsOf('responses/responses', named).map(({ name }) => name).filter((name) => !Object.hasOwn(shape, name)), named).toEqual([]);
  }
});
