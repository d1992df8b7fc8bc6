/** Functions that models call, through the real clients, with real models (test/helpers/tool-models.ts). */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, stepCountIs, streamText, tool } from 'ai';
import OpenAI, { toFile } from 'openai';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { z } from 'zod';

import { Fronts } from '../helpers/fronts.ts';
import { type HttpApi, startApi } from '../helpers/http-api.ts';
import { folder, removeFolders } from '../helpers/models.ts';
import { TIME, WEATHER, writeToolModels } from '../helpers/tool-models.ts';

const TOOLS: OpenAI.ChatCompletionFunctionTool[] = [{ type: 'function', function: WEATHER }, { type: 'function', function: TIME }];
const FLAT: OpenAI.Responses.FunctionTool[] = TOOLS.map((given) => ({ type: 'function', strict: null, ...given.function, parameters: given.function.parameters ?? null }));
const QUESTION = { role: 'user' as const, content: 'How is the weather in Paris?' };
const ASK = { model: 'weather-hermes', messages: [QUESTION], temperature: 0, tools: TOOLS };
const ANSWER = 'It is sunny in Paris.';

let api: HttpApi;
const before = process.env.RUMINATE_MODELS;
beforeAll(async () => {
  process.env.RUMINATE_MODELS = folder();
  writeToolModels(process.env.RUMINATE_MODELS);
  api = await startApi({ limits: { progressMs: 0 } });
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
  removeFolders();
  if (before === undefined) delete process.env.RUMINATE_MODELS;
  else process.env.RUMINATE_MODELS = before;
});

const ask = async (change: object = {}) => await api.openai.chat.completions.create({ ...ASK, ...change } as OpenAI.ChatCompletionCreateParamsNonStreaming);

describe('a chat with tools', () => {
  test('has the call apart from what is thought and said, named by the job', async () => {
    const completion = await ask();
    const [choice] = completion.choices;
    const job = completion.id.slice('chatcmpl-'.length);
    expect(choice).toMatchObject({
      finish_reason: 'tool_calls',
      message: {
        role: 'assistant',
        reasoning_content: 'The sky is not known.',
        content: '\n\nI look it up.',
        tool_calls: [{ id: `call_${job}_0_0`, type: 'function', function: { name: 'get_weather', arguments: '{"city": "Paris"}' } }],
      },
    });
  });

  test('goes on from the result of the call, handed back as it came', async () => {
    for (const model of ['weather-hermes', 'weather-mistral', 'weather-untold', 'weather-twice']) {
      const { choices: [first] } = await ask({ model });
      const message = first?.message as OpenAI.ChatCompletionMessage;
      expect(message.tool_calls, model).toMatchObject([{ function: { name: 'get_weather' } }, ...(model === 'weather-twice' ? [{ function: { name: 'get_time', arguments: '{"zone": "CET"}' } }] : [])]);
      if (model !== 'weather-hermes') expect(message.content).toBeNull();
      const results = (message.tool_calls ?? []).map(({ id }) => ({ role: 'tool' as const, tool_call_id: id, content: '{"sky": "blue"}' }));
      const { choices: [second] } = await ask({ model, messages: [QUESTION, message, ...results] });
      expect(second, model).toMatchObject({ finish_reason: 'stop', message: { content: ANSWER } });
      expect(second?.message.tool_calls).toBeUndefined();
    }
  });

  test('streams the call as it comes, and what comes together is what comes whole', async () => {
    for (const change of [{}, { model: 'weather-twice' }, { model: 'weather-mistral' }, { model: 'weather-cut', max_tokens: 6 }, { hyperscale: { width: 3 } }, { n: 2 }]) {
      const whole = await ask(change);
      const chunks = [];
      for await (const chunk of await api.openai.chat.completions.create({ ...ASK, ...change, stream: true } as OpenAI.ChatCompletionCreateParamsStreaming)) chunks.push(chunk);
      const deltas = chunks.flatMap(({ choices }) => choices).filter(({ index }) => index === 0).flatMap(({ delta }) => delta.tool_calls ?? []);
      expect(deltas.filter(({ id }) => id !== undefined).map(({ index }) => index)).toEqual([...(whole.choices[0]?.message.tool_calls ?? []).keys()]);
      if (!('hyperscale' in change) && !('model' in change)) expect(deltas.length).toBeGreaterThan(2);
      // The client's own accumulator.
      const final = await api.openai.chat.completions.stream({ ...ASK, ...change } as Parameters<typeof api.openai.chat.completions.stream>[0]).finalChatCompletion();
      expect(strip(final)).toEqual(strip(whole));
    }
  });

  test('that is cut within a call says so, with what there is of it', async () => {
    const { choices: [choice] } = await ask({ model: 'weather-cut', max_tokens: 6 });
    expect(choice).toMatchObject({ finish_reason: 'length', message: { content: null, tool_calls: [{ function: { name: 'get_weather', arguments: '{"city": "Paris and' } }] } });
  });

  test('that ends within a call says what there is of it, too, and it is no answer', async () => {
    const completion = await ask({ model: 'weather-cut' });
    expect(completion.choices[0]).toMatchObject({ finish_reason: 'tool_calls', message: { tool_calls: [{ function: { arguments: '{"city": "Paris and so on' } }] } });
    expect(completion).toMatchObject({ hyperscale: { answer: null, elected: 0 } });
  });

  test('with n has calls of its own in each choice, each with its own identifier', async () => {
    const { id, choices } = await ask({ n: 3, model: 'weather-votes', temperature: 1, seed: 1 });
    const job = id.slice('chatcmpl-'.length);
    expect(choices.map(({ message }) => message.tool_calls?.map((call) => call.id))).toEqual([[`call_${job}_0_0`], [`call_${job}_1_0`], [`call_${job}_2_0`]]);
  });

  test('of several chains elects the call that most of them make, however they write it', async () => {
    const request = { model: 'weather-votes', temperature: 1, seed: 3, hyperscale: { width: 24, vote: 'majority', early_stop: false } };
    const completion = (await ask(request)) as OpenAI.ChatCompletion & { hyperscale: { answer: string; ballots: { answer: string; key: string }[] } };
    const { answer, ballots } = completion.hyperscale;
    expect(answer).toBe('[{"name":"get_weather","arguments":{"city":"Paris"}}]');
    expect(completion.choices[0]?.message.tool_calls).toMatchObject([{ function: { name: 'get_weather' } }]);
    expect(new Set(ballots.map(({ key }) => key)).size).toBe(2);
    expect(ballots.filter((ballot) => ballot.answer === answer).length).toBeGreaterThan(12);
  });

  test('parallel_tool_calls false is one call, and none is none at all', async () => {
    expect((await ask({ model: 'weather-twice', parallel_tool_calls: false })).choices[0]?.message.tool_calls).toHaveLength(1);
    const plain = await ask({ model: 'weather-twice', tool_choice: 'none' });
    expect(plain.choices[0]).toMatchObject({ finish_reason: 'stop', message: { content: expect.stringContaining('<tool_call>') as string } });
    expect(plain.usage?.prompt_tokens).toBe((await ask({ model: 'weather-twice', tools: undefined })).usage?.prompt_tokens);
  });

  test('is the same job for the same tools and another for others', async () => {
    const headers = { 'Idempotency-Key': 'tools' };
    const first = await api.openai.chat.completions.create(ASK, { headers });
    expect((await api.openai.chat.completions.create(ASK, { headers })).id).toBe(first.id);
    await expect(api.openai.chat.completions.create({ ...ASK, tools: TOOLS.slice(0, 1) }, { headers })).rejects.toMatchObject({ code: 'used_for_another' });
  });

  test('calls only what is offered: the rest is text', async () => {
    const { choices: [choice] } = await ask({ tools: TOOLS.slice(1) });
    expect(choice).toMatchObject({ finish_reason: 'stop', message: { content: expect.stringContaining('<tool_call>\n{"name": "get_weather"') as string } });
  });
});

const strip = ({ choices }: OpenAI.ChatCompletion) => choices.map(({ finish_reason, message: { content, tool_calls: calls } }) => ({
  finish_reason, content: content ?? '', calls: calls?.map((call) => (call.type === 'function' ? { name: call.function.name, json: call.function.arguments, id: call.id.replace(/_\w+?_/, '') } : null)),
}));

describe('a response with tools', () => {
  const REQUEST = { model: 'weather-hermes', input: [QUESTION], temperature: 0, tools: FLAT };

  test('has the call as an item of its own, and repeats what was asked', async () => {
    const response = await api.openai.responses.create(REQUEST);
    const job = response.id.slice('resp_'.length);
    expect(response.output).toMatchObject([
      { type: 'reasoning' },
      { type: 'message', content: [{ text: '\n\nI look it up.' }] },
      { type: 'function_call', id: `fc_${job}_0`, call_id: `call_${job}_0_0`, name: 'get_weather', arguments: '{"city": "Paris"}', status: 'completed' },
    ]);
    expect(response).toMatchObject({ status: 'completed', tool_choice: 'auto', parallel_tool_calls: true, tools: [{ type: 'function', name: 'get_weather' }, { name: 'get_time' }] });
    expect(await api.openai.responses.retrieve(response.id)).toEqual({ ...response });
  });

  test('goes on from its own items and the result', async () => {
    for (const model of ['weather-hermes', 'weather-twice', 'weather-mistral']) {
      const first = await api.openai.responses.create({ ...REQUEST, model });
      const results = first.output.flatMap((item) => (item.type === 'function_call' ? [{ type: 'function_call_output' as const, call_id: item.call_id, output: 'blue' }] : []));
      const input = [QUESTION, ...first.output, ...results] as OpenAI.Responses.ResponseInput;
      const second = await api.openai.responses.create({ ...REQUEST, model, input });
      expect(second.output_text).toBe(ANSWER);
      // The same turns as a chat has them are the same prompt.
      const chat = await ask({ model });
      const messages = [QUESTION, chat.choices[0]?.message, ...(chat.choices[0]?.message.tool_calls ?? []).map(({ id }) => ({ role: 'tool', tool_call_id: id, content: 'blue' }))];
      expect(second.usage?.input_tokens).toBe((await ask({ model, messages })).usage?.prompt_tokens);
    }
  });

  test('goes on by previous_response_id with nothing but the result', async () => {
    for (const model of ['weather-hermes', 'weather-twice', 'weather-mistral', 'weather-untold']) {
      const first = await api.openai.responses.create({ ...REQUEST, model });
      const results = first.output.flatMap((item) => (item.type === 'function_call' ? [{ type: 'function_call_output' as const, call_id: item.call_id, output: 'blue' }] : []));
      const second = await api.openai.responses.create({ ...REQUEST, model, input: results, previous_response_id: first.id });
      expect(second.output_text, model).toBe(ANSWER);
      const whole = await api.openai.responses.create({ ...REQUEST, model, input: [QUESTION, ...first.output, ...results] as OpenAI.Responses.ResponseInput });
      expect(second.usage?.input_tokens).toBe(whole.usage?.input_tokens);
      const nobody = api.openai.responses.create({ ...REQUEST, model, input: [{ type: 'function_call_output', call_id: 'nobody', output: 'x' }], previous_response_id: first.id });
      await expect(nobody).rejects.toMatchObject({ status: 400, message: expect.stringMatching(/tool_call_id must be that of a call in an earlier turn\.$/) as string });
    }
  });

  test('streams typed events that add up, from any number on', async () => {
    for (const change of [{}, { model: 'weather-twice' }, { hyperscale: { width: 3 } }, { model: 'weather-cut', max_output_tokens: 6 }]) {
      const request = { ...REQUEST, ...change, stream: true } as OpenAI.Responses.ResponseCreateParamsStreaming;
      const events: OpenAI.Responses.ResponseStreamEvent[] = [];
      for await (const event of await api.openai.responses.create(request)) events.push(event);
      const numbers = events.map(({ sequence_number }) => sequence_number);
      expect(numbers).toEqual([...new Set(numbers)].toSorted((a, b) => a - b));
      const last = events.at(-1);
      if (last?.type !== 'response.completed' && last?.type !== 'response.incomplete') throw new Error(`ended by ${last?.type}`);
      expect(events.flatMap((event) => (event.type === 'response.output_item.done' ? [event.item] : []))).toEqual(last.response.output);
      for (const item of last.response.output) {
        if (item.type !== 'function_call') continue;
        const of = events.filter((event) => 'item_id' in event && event.item_id === item.id);
        expect(of.map((event) => (event.type === 'response.function_call_arguments.delta' ? event.delta : '')).join('')).toBe(item.arguments);
        expect(of.at(-1)).toMatchObject({ type: 'response.function_call_arguments.done', arguments: item.arguments });
      }
      const cut = Math.floor(events.length / 2);
      const rest = [];
      for await (const event of await api.openai.responses.retrieve(last.response.id, { stream: true, starting_after: numbers[cut] ?? 0 })) rest.push(event);
      expect(rest).toEqual(events.slice(cut + 1));
      expect((await api.openai.responses.stream({ ...REQUEST, ...change } as Parameters<typeof api.openai.responses.stream>[0]).finalResponse()).output.length).toBe(last.response.output.length);
    }
  });
});

describe('the AI SDK', () => {
  const model = (name: string) => createOpenAICompatible({ name: 'ruminate', baseURL: `${api.url}/v1`, includeUsage: true })(name);
  const asked: unknown[] = [];
  const tools = {
    get_weather: tool({ description: WEATHER.description, inputSchema: z.object({ city: z.string() }), execute: (input) => { asked.push(input); return { sky: 'blue' }; } }),
    get_time: tool({ inputSchema: z.object({ zone: z.string().optional() }), execute: (input) => { asked.push(input); return '12:00'; } }),
  };

  test('calls what the model calls and goes on, in two steps', async () => {
    for (const name of ['weather-hermes', 'weather-twice', 'weather-mistral', 'weather-untold']) {
      asked.length = 0;
      const { text, steps } = await generateText({ model: model(name), prompt: QUESTION.content, tools, temperature: 0, stopWhen: stepCountIs(3) });
      expect(text, name).toBe(ANSWER);
      expect(steps.map(({ finishReason }) => finishReason)).toEqual(['tool-calls', 'stop']);
      expect(asked).toEqual([{ city: 'Paris' }, ...(name === 'weather-twice' ? [{ zone: 'CET' }] : [])]);
    }
  });

  test('does so in a stream', async () => {
    asked.length = 0;
    const streamed = streamText({ model: model('weather-twice'), prompt: QUESTION.content, tools, temperature: 0, stopWhen: stepCountIs(3) });
    let text = '';
    for await (const part of streamed.textStream) text += part;
    expect(text).toBe(ANSWER);
    expect(asked).toEqual([{ city: 'Paris' }, { zone: 'CET' }]);
  });
});

describe('a batch with tools', () => {
  test('has the call in its line, and another instance gives the same response', async () => {
    await using fronts = new Fronts();
    fronts.work();
    const [one, other] = [(await fronts.front()).openai(), (await fronts.front()).openai()];
    const line = JSON.stringify({ custom_id: 'a', method: 'POST', url: '/v1/chat/completions', body: ASK });
    const { id: input } = await one.files.create({ purpose: 'batch', file: await toFile(Buffer.from(line), 'lines.jsonl') });
    const { id } = await one.batches.create({ endpoint: '/v1/chat/completions', completion_window: '24h', input_file_id: input });
    const output = await vi.waitFor(async () => {
      const batch = await one.batches.retrieve(id);
      expect(batch.status).toBe('completed');
      return batch.output_file_id ?? '';
    }, { timeout: 60_000, interval: 20 });
    const { response } = JSON.parse(await (await other.files.content(output)).text()) as { response: { body: OpenAI.ChatCompletion } };
    expect(response.body.choices[0]).toMatchObject({ finish_reason: 'tool_calls', message: { tool_calls: [{ function: { name: 'get_weather' } }] } });
    const made = await one.responses.create({ model: 'weather-twice', input: QUESTION.content, tools: FLAT });
    expect((await other.responses.retrieve(made.id)).output).toEqual(made.output);
  });
});

describe('a native job with tools', () => {
  test('tells calls in its events and has them in its result; a spec without tools has neither', async () => {
    const spec = { model: 'weather-twice', prompt: QUESTION.content, sampling: { temperature: 0 }, budget: { width: 1 } };
    for (const offered of [TOOLS, undefined]) {
      const { id } = (await (await api.post('/v1/jobs', { ...spec, tools: offered })).json()) as { id: string };
      const events = await (await api.get(`/v1/jobs/${id}/events`)).text();
      expect(events.includes('"calls":[')).toBe(offered !== undefined);
      const { chains: [chain] } = (await (await api.get(`/v1/jobs/${id}/result`)).json()) as { chains: object[] };
      if (offered === undefined) expect(chain).not.toHaveProperty('tool_calls');
      else expect(chain).toMatchObject({ tool_calls: [{ name: 'get_weather', arguments: '{"city": "Paris"}' }, { name: 'get_time' }] });
    }
  });
});

describe('a call that must be made', () => {
  /** Whose every call ends, however little a model knows. */
  const CHOICES: OpenAI.ChatCompletionFunctionTool[] = [
    { type: 'function', function: { name: 'get_time', parameters: { type: 'object', properties: { zone: { enum: ['CET', 'UTC'] }, days: { type: 'array', items: { enum: [1, 2] }, maxItems: 2 } }, required: ['zone', 'days'], additionalProperties: false } } },
    { type: 'function', function: { name: 'stop', parameters: { type: 'object', properties: {}, additionalProperties: false } } },
  ];
  const schema = z.strictObject({ zone: z.enum(['CET', 'UTC']), days: z.array(z.union([z.literal(1), z.literal(2)])).max(2) });
  const MODELS = ['weather-hermes', 'weather-mistral', 'weather-untold'];

  test('is made by models that would do something else, with arguments that are as their schema says', async () => {
    for (const model of MODELS) {
      for (const choice of ['required', { type: 'function', function: { name: 'get_time' } }]) {
        for (const seed of [1, 2, 3]) {
          const { choices } = await ask({ model, tools: CHOICES, tool_choice: choice, parallel_tool_calls: false, temperature: 1, seed, n: 2 });
          for (const { finish_reason, message } of choices) {
            expect(finish_reason).toBe('tool_calls');
            expect(message.content, model).toBeNull();
            expect(message.tool_calls).toHaveLength(1);
            const [made] = message.tool_calls ?? [];
            if (made?.type !== 'function') throw new Error('no function');
            if (typeof choice === 'object' || made.function.name === 'get_time') schema.parse(JSON.parse(made.function.arguments));
            else expect([made.function.name, JSON.parse(made.function.arguments)]).toEqual(['stop', {}]);
          }
        }
      }
    }
  });

  test('streams as any other, and is one item or more of a response', async () => {
    for (const model of MODELS) {
      const request = { model, tools: CHOICES, tool_choice: 'required', parallel_tool_calls: false, temperature: 1, seed: 4, max_tokens: 400 };
      const final = await api.openai.chat.completions.stream({ ...ASK, ...request } as Parameters<typeof api.openai.chat.completions.stream>[0]).finalChatCompletion();
      expect(strip(final)).toEqual(strip(await ask(request)));
    }
    const flat = CHOICES.map((given) => ({ type: 'function' as const, strict: true, ...given.function, parameters: given.function.parameters ?? {} }));
    const response = await api.openai.responses.create({ model: 'weather-hermes', input: 'x', tools: flat, tool_choice: { type: 'function', name: 'stop' }, parallel_tool_calls: false });
    expect(response).toMatchObject({ status: 'completed', output: [{ type: 'function_call', name: 'stop', arguments: expect.stringMatching(/^\{\s*\}$/) as string }], tool_choice: { type: 'function', name: 'stop' } });
  });

  test('by the AI SDK, whose tools ran', async () => {
    const ran: unknown[] = [];
    const provider = createOpenAICompatible({ name: 'ruminate', baseURL: `${api.url}/v1`, includeUsage: true });
    const { steps } = await generateText({
      model: provider('weather-hermes'), prompt: 'x', toolChoice: { type: 'tool', toolName: 'get_time' }, providerOptions: { ruminate: { parallel_tool_calls: false } },
      tools: { get_time: tool({ inputSchema: schema, execute: (input) => { ran.push(input); return '12:00'; } }) }, stopWhen: stepCountIs(1),
    });
    expect(steps).toHaveLength(1);
    expect(ran).toHaveLength(1);
    expect(schema.safeParse(ran[0]).success).toBe(true);
  });
});

describe('what is refused', () => {
  const call = { role: 'assistant', content: null, tool_calls: [{ id: 'a', type: 'function', function: { name: 'get_weather', arguments: '{}' } }] };
  const one = (change: object) => ({ tools: [{ type: 'function', function: { ...WEATHER, ...change } }] });
  const deep = (levels: number): object => (levels === 0 ? {} : { items: deep(levels - 1) });

  test.each<[string, object]>([
    ['tools.0.type', { tools: [{ type: 'web_search' }] }], ['tools.0.type', { tools: [{ type: 'custom', custom: { name: 'x' } }] }], ['tools.0.function.name', one({ name: 'a b' })],
    ['tools.0.function.name', one({ name: 'x'.repeat(65) })], ['tools.0.function.parameters', one({ parameters: 'x' })], ['tools.0.function.parameters', one({ parameters: deep(33) })],
    ['tools.0.function.more', one({ more: 1 })], ['tools', { tools: Array(129).fill(TOOLS[0]) }], ['tools', { tools: [TOOLS[0], TOOLS[0]] }], ['tools', one({ description: 'x'.repeat(1 << 20) })],
    ['tool_choice', { tools: undefined, tool_choice: 'auto' }], ['tool_choice', { tool_choice: 'any' }], ['tool_choice', { tool_choice: { type: 'allowed_tools' } }],
    ['tool_choice', { tool_choice: { type: 'function', function: { name: 'get_other' } } }], ['tools.0.function.parameters', { tool_choice: 'required', ...one({ parameters: { type: 'object', patternProperties: {} } }) }], ['parallel_tool_calls', { tools: undefined, parallel_tool_calls: true }],
    ['messages.1.tool_call_id', { messages: [QUESTION, { role: 'tool', tool_call_id: 'nobody', content: 'x' }] }],
    ['messages.2.tool_call_id', { messages: [QUESTION, call, { role: 'tool', content: 'x' }] }], ['messages.1.content', { messages: [QUESTION, { role: 'assistant', content: null }] }],
    ['messages.1.tool_calls.0.type', { messages: [QUESTION, { ...call, tool_calls: [{ id: 'a', type: 'custom', custom: {} }] }] }],
    ['tools', { model: 'weather-unknown' }], ['tools', { model: 'weather-deaf' }],
  ])('%s, where it stands', async (param, change) => {
    await expect(ask(change)).rejects.toMatchObject({ status: 400, param });
  });

  test('a model without a way to call says why', async () => {
    await expect(ask({ model: 'weather-unknown' })).rejects.toMatchObject({ code: 'tools_unsupported', message: expect.stringContaining('not known here') as string });
    await expect(ask({ model: 'weather-deaf' })).rejects.toMatchObject({ code: 'tools_unsupported', message: expect.stringContaining('neither tools nor a system turn') as string });
  });

  test('a result of no call, and items of other tools, in a response', async () => {
    const create = (change: object) => api.openai.responses.create({ model: 'weather-hermes', input: 'x', ...change } as OpenAI.Responses.ResponseCreateParamsNonStreaming);
    await expect(create({ input: [{ type: 'function_call_output', call_id: 'x', output: 'y' }] })).rejects.toMatchObject({ status: 400, param: 'input' });
    await expect(create({ tools: [{ type: 'web_search' }] })).rejects.toMatchObject({ status: 400, param: 'tools.0.type' });
    await expect(create({ input: [{ type: 'web_search_call', id: 'x', status: 'completed' }] })).rejects.toMatchObject({ status: 400, param: 'input' });
  });

  test('arguments in an earlier turn may be anything: a model is shown what it wrote', async () => {
    for (const json of ['', '{"city": ', '3', '{"city": "Paris"}']) {
      const messages = [QUESTION, { ...call, tool_calls: [{ id: 'a', type: 'function', function: { name: 'get_weather', arguments: json } }] }, { role: 'tool', tool_call_id: 'a', content: 'no' }];
      expect((await ask({ messages })).choices[0]?.message.content).toBe(ANSWER);
    }
  });
});

test('the items of a response are all that the model was shown as turns, the newest first or the oldest, in pages that the client follows by itself', async () => {
  const call = { type: 'function_call' as const, call_id: 'c1', name: WEATHER.name, arguments: '{"city":"Paris"}' };
  const result = { type: 'function_call_output' as const, call_id: 'c1', output: 'sunny' };
  const { id } = await api.openai.responses.create({
    model: 'weather-hermes', tools: FLAT, input: [
      { role: 'developer', content: 'Be brief.' }, { role: 'user', content: [{ type: 'input_text', text: 'How is it' }, { type: 'input_text', text: ' in Paris?' }] },
      { type: 'reasoning', id: 'rs_x', summary: [], content: [{ type: 'reasoning_text', text: 'Hm.' }] }, { role: 'assistant', content: 'I look.' }, call, result,
    ],
  });
  const items: OpenAI.Responses.ResponseItem[] = [];
  for await (const item of api.openai.responses.inputItems.list(id, { limit: 2, order: 'asc' })) items.push(item);
  expect(items).toMatchObject([
    { type: 'message', role: 'system', content: [{ type: 'input_text', text: 'Be brief.' }] }, { type: 'message', role: 'user', content: [{ type: 'input_text', text: 'How is it in Paris?' }] },
    { type: 'reasoning', content: [{ type: 'reasoning_text', text: 'Hm.' }] }, { type: 'message', role: 'assistant', content: [{ type: 'output_text', text: 'I look.' }] }, call, result,
  ]);
  expect(new Set(items.map((item) => item.id)).size).toBe(items.length);
  const newest = await api.openai.responses.inputItems.list(id);
  expect([newest.data, newest.has_more]).toEqual([items.toReversed(), false]);
  expect(await api.openai.responses.inputItems.list(id, { limit: 1, after: items[4]?.id ?? '' })).toMatchObject({ data: [items[3]], has_more: true });
});
