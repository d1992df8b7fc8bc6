/** /v1/responses through OpenAI's client. */
import OpenAI from 'openai';
import type { ResponseStreamEvent } from 'openai/resources/responses/responses';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { responseJob, responseRequest } from '../../functions/openai/response-request.ts';
import { type HttpApi, startApi } from '../helpers/http-api.ts';
import { removeFolders } from '../helpers/models.ts';
import { talkers } from '../helpers/talker.ts';

const GREEDY = { model: 'countdown@cr2', input: '7 18 17 7 target 35', temperature: 0 };
const LONG = { model: 'countdown@dense', input: '3 5 7 11 13 17 target 997', temperature: 5, hyperscale: { width: 8, early_stop: false } };
const SOLUTION = '17 - 7 = 10 ; 18 + 10 = 28 ; 28 + 7 = 35';
/** For what happens elsewhere. */
const WAIT = { timeout: 20_000 };

let api: HttpApi;
beforeAll(async () => {
  vi.stubEnv('RUMINATE_MODELS', talkers('cr2'));
  api = await startApi();
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
  vi.unstubAllEnvs();
  removeFolders();
});

async function all(stream: AsyncIterable<ResponseStreamEvent>): Promise<ResponseStreamEvent[]> {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

const streamOf = async (request: object) => await all(await api.openai.responses.create({ ...request, stream: true } as OpenAI.Responses.ResponseCreateParamsStreaming));
const text = (events: readonly ResponseStreamEvent[], type: string) => events.map((event) => (event.type === type ? (event as { delta: string }).delta : '')).join('');

async function untilEnded(id: string): Promise<OpenAI.Responses.Response> {
  return await vi.waitFor(async () => {
    const response = await api.openai.responses.retrieve(id);
    expect(['queued', 'in_progress']).not.toContain(response.status);
    return response;
  }, WAIT);
}

describe('a response', () => {
  test('in the foreground has the text, the thinking as an item of its own, and usage that adds up', async () => {
    const response = await api.openai.responses.create(GREEDY);
    expect(response.status).toBe('completed');
    expect(response.output_text).toContain(SOLUTION);
    expect(response.output.map(({ type }) => type)).toEqual(['reasoning', 'message']);
    expect(response.output[0]).toMatchObject({ content: [{ type: 'reasoning_text', text: expect.stringContaining('goal') as string }] });
    expect(response.usage?.total_tokens).toBe((response.usage?.input_tokens ?? 0) + (response.usage?.output_tokens ?? 0));
    expect(response.usage?.output_tokens_details.reasoning_tokens).toBeGreaterThan(10);
    expect(response.completed_at).toBeGreaterThanOrEqual(response.created_at);
    expect(response.completed_at).toBeLessThan(response.created_at + 600);
    expect(await api.openai.responses.retrieve(response.id)).toEqual({ ...response });
  });

  test('says how it was asked for, wherever it is read', async () => {
    const asked = { temperature: 0.5, top_p: 0.9, max_output_tokens: 3 };
    const repeated = { ...asked, text: { format: { type: 'text' } }, truncation: 'disabled', tools: [], tool_choice: 'auto' };
    const response = await api.openai.responses.create({ ...GREEDY, ...asked });
    expect(response).toMatchObject(repeated);
    expect(await api.openai.responses.retrieve(response.id)).toMatchObject(repeated);
    expect((await streamOf({ ...GREEDY, ...asked }))[0]).toMatchObject({ type: 'response.created', response: repeated });
    expect(await api.openai.responses.create({ model: GREEDY.model, input: GREEDY.input, max_output_tokens: 1 })).toMatchObject({
      temperature: 1, top_p: 1, instructions: null, reasoning: { effort: null, summary: null }, top_logprobs: 0, background: false, store: true, parallel_tool_calls: true,
      safety_identifier: null, prompt_cache_key: null,
    });
  });

  test('says again what its job does not depend on, too: in the foreground, the background, a stream and of what is not stored', async () => {
    const schema = { type: 'object', properties: { sum: { type: 'integer' } }, required: ['sum'], additionalProperties: false };
    const said = {
      instructions: '1 2', reasoning: { effort: 'low' as const }, safety_identifier: 'anna', prompt_cache_key: 'sums', top_logprobs: 2, tool_choice: 'none' as const, parallel_tool_calls: false,
      text: { format: { type: 'json_schema' as const, name: 'sum', description: 'A sum.', strict: true, schema } },
    };
    const asked = { ...said, model: 'talker-cr2', input: '7 18 17 7 target 35', max_output_tokens: 3, include: ['message.output_text.logprobs' as const] };
    const response = await api.openai.responses.create(asked);
    const repeated = { ...said, reasoning: { effort: 'low', summary: null }, background: false, store: true };
    expect(response).toMatchObject(repeated);
    expect(await api.openai.responses.retrieve(response.id)).toMatchObject(repeated);
    const { id } = await api.openai.responses.create({ ...asked, background: true });
    expect(await untilEnded(id)).toMatchObject({ ...repeated, background: true });
    const events = await streamOf({ ...asked, store: false });
    for (const event of [events[0], events.at(-1)]) expect(event).toMatchObject({ response: { ...repeated, store: false } });
    // A chat is read as a response, too; its schema has no name that was kept.
    const chat = await api.openai.chat.completions.create({
      model: 'countdown@cr2', messages: [{ role: 'user', content: '1' }], max_tokens: 1, response_format: { type: 'json_schema', json_schema: { name: 'sum', schema } },
    });
    expect(await api.openai.responses.retrieve(chat.id.replace('chatcmpl-', 'resp_'))).toMatchObject({ text: { format: { type: 'json_schema', name: 'format', schema, strict: null } } });
  });

  test('streamed is typed events whose numbers grow, that add up to the response itself', async () => {
    const events = await streamOf(GREEDY);
    expect(events.map(({ type }) => type).slice(0, 5)).toEqual(['response.created', 'response.in_progress', 'response.output_item.added', 'response.content_part.added', 'response.reasoning_text.delta']);
    const numbers = events.map(({ sequence_number }) => sequence_number);
    expect(numbers).toEqual([...new Set(numbers)].toSorted((a, b) => a - b));
    const last = events.at(-1);
    if (last?.type !== 'response.completed') throw new Error(`ended by ${last?.type}`);
    const [reasoning, message] = last.response.output;
    expect(message).toMatchObject({ content: [{ text: text(events, 'response.output_text.delta') }] });
    expect(reasoning).toMatchObject({ content: [{ text: text(events, 'response.reasoning_text.delta') }] });
    const done = events.flatMap((event) => (event.type === 'response.output_item.done' ? [event.item] : []));
    expect(done).toEqual(last.response.output);
    expect(await api.openai.responses.retrieve(last.response.id)).toMatchObject(last.response);
  });

  test('comes together in the client\'s own accumulator', async () => {
    for (const width of [1, 3]) {
      const stream = api.openai.responses.stream({ ...GREEDY, hyperscale: { width } } as Parameters<typeof api.openai.responses.stream>[0]);
      const response = await stream.finalResponse();
      expect(response.output_text).toContain(SOLUTION);
    }
  });

  test('in the background answers at once, is polled, and is followed from any number', async () => {
    const response = await api.openai.responses.create({ ...GREEDY, background: true });
    expect(['queued', 'in_progress']).toContain(response.status);
    const whole = await all(await api.openai.responses.retrieve(response.id, { stream: true }));
    expect(await all(await api.openai.responses.retrieve(response.id, { stream: true, starting_after: '' as unknown as number }))).toEqual(whole);
    expect((await untilEnded(response.id)).output_text).toContain(SOLUTION);
    for (const cut of [0, 1, 2, 20, whole.length - 2]) {
      const after = whole[cut]?.sequence_number ?? 0;
      const rest = await all(await api.openai.responses.retrieve(response.id, { stream: true, starting_after: after }));
      expect(rest).toEqual(whole.slice(cut + 1));
    }
  });

  test('of several chains shows the elected one', async () => {
    const request = { ...GREEDY, temperature: 1, seed: 5, hyperscale: { width: 4, vote: 'majority' } };
    const response = await api.openai.responses.create(request as OpenAI.Responses.ResponseCreateParamsNonStreaming);
    const events = await streamOf(request);
    expect(text(events, 'response.output_text.delta')).toBe(response.output_text);
    expect(response).toMatchObject({ hyperscale: { elected: expect.any(Number) as number } });
  });

  test('that is cut is incomplete, and says by what', async () => {
    const response = await api.openai.responses.create({ ...GREEDY, max_output_tokens: 5 });
    expect(response).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' }, output_text: '' });
    expect(response.completed_at).toBeNull();
    expect((await streamOf({ ...GREEDY, max_output_tokens: 5 })).at(-1)?.type).toBe('response.incomplete');
    // OpenAI has no word for the others.
    const poor = { ...GREEDY, hyperscale: { kv_read_budget: 100 } };
    expect(await api.openai.responses.create(poor as OpenAI.Responses.ResponseCreateParamsNonStreaming)).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'kv_read_budget' } });
    expect((await streamOf(poor)).at(-1)).toMatchObject({ type: 'response.incomplete', response: { incomplete_details: { reason: 'kv_read_budget' } } });
  });

  test('in the background is cancelled for good and erased; its stream ends by saying so', async () => {
    const { id } = await api.openai.responses.create({ ...LONG, background: true } as OpenAI.Responses.ResponseCreateParamsNonStreaming);
    const following = all(await api.openai.responses.retrieve(id, { stream: true }));
    expect((await api.openai.responses.cancel(id)).status).toBe('cancelled');
    expect((await api.openai.responses.cancel(id)).status).toBe('cancelled');
    expect((await following).at(-1)).toMatchObject({ type: 'response.failed', response: { status: 'cancelled', error: null } });
    // Further than was ever committed, as who read along with the run may have been.
    const again = await all(await api.openai.responses.retrieve(id, { stream: true, include_obfuscation: false, starting_after: 1_000_000 }));
    expect(again).toMatchObject([{ type: 'response.failed', sequence_number: expect.toSatisfy((number: number) => number > 1_000_000) as number }]);
    expect(await all(await api.openai.responses.retrieve(id, { stream: true, starting_after: again[0]?.sequence_number ?? 0 }))).toEqual([]);
    await api.openai.responses.delete(id);
    await expect(api.openai.responses.retrieve(id)).rejects.toBeInstanceOf(OpenAI.NotFoundError);
  });

  test('that is cancelled on its way keeps all that was streamed of it, and its job too', async () => {
    // On a fast machine a chain may end before it is cancelled.
    const cancelled = async (attempts: number): Promise<{ readonly id: string; readonly events: readonly ResponseStreamEvent[]; readonly last: Extract<ResponseStreamEvent, { type: 'response.failed' }> }> => {
      const stream = await api.openai.responses.create({ ...LONG, hyperscale: { length: 900 }, background: true, stream: true } as OpenAI.Responses.ResponseCreateParamsStreaming);
      const events: ResponseStreamEvent[] = [];
      let id = '';
      for await (const event of stream) {
        events.push(event);
        if (event.type === 'response.created') id = event.response.id;
        if (events.length === 60) await api.openai.responses.cancel(id);
      }
      const last = events.at(-1);
      if (last?.type === 'response.failed') return { id, events, last };
      if (attempts === 0) throw new Error(`ended by ${last?.type}`);
      return await cancelled(attempts - 1);
    };
    const { id, events, last } = await cancelled(30);
    expect(last.response.status).toBe('cancelled');
    const told = text(events, 'response.reasoning_text.delta') + text(events, 'response.output_text.delta');
    expect(told.length).toBeGreaterThan(100);
    const texts = (last.response.output as { readonly content: readonly { readonly text: string }[] }[]).map(({ content }) => content[0]?.text ?? '').join('');
    expect(texts).toBe(told);
    expect(await api.openai.responses.retrieve(id)).toMatchObject({ status: 'cancelled', output: last.response.output });
    expect(events.flatMap((event) => (event.type === 'response.output_item.done' ? [event.item] : [])).at(-1)).toEqual(last.response.output.at(-1));
  });

  test('a client that leaves cancels it in the foreground, not in the background', async () => {
    const before = api.platform.cancelled.length;
    for (const background of [true, false]) {
      const stream = await api.openai.responses.create({ ...LONG, background, stream: true } as OpenAI.Responses.ResponseCreateParamsStreaming);
      for await (const event of stream) if (event.type === 'response.in_progress') break;
      stream.controller.abort();
      if (!background) await vi.waitFor(() => expect(api.platform.cancelled).toHaveLength(before + 1), WAIT);
    }
    // The one in the background went on beside it, and only the other was cancelled.
    const [foreground, background] = (await api.platform.list({ tenant: 'local', limit: 2 })).jobs;
    expect(api.platform.cancelled.at(-1)).toBe(foreground?.id);
    expect(background?.state).not.toBe('cancelled');
    await api.platform.cancel(background?.id ?? '', { tenant: 'local' });
  });

  test('takes what it gave back as input, thinking and all', async () => {
    const first = await api.openai.responses.create({ ...GREEDY, max_output_tokens: 300 });
    const input = [{ role: 'user' as const, content: GREEDY.input }, ...first.output, { role: 'user' as const, content: '1 5 5 19 target 65' }];
    const next = await api.openai.responses.create({ ...GREEDY, input: input as OpenAI.Responses.ResponseInput });
    expect(next.usage?.input_tokens).toBeGreaterThan(first.usage?.input_tokens ?? 0);
  });
});

describe('reasoning in an input', () => {
  const reasoning = (text: string) => ({ type: 'reasoning', summary: [], content: [{ type: 'reasoning_text', text }] });
  const said = (role: string, content: string) => ({ role, content });
  const call = { type: 'function_call', call_id: 'c', name: 'f', arguments: '{}' };
  const turnsOf = async (input: readonly object[]) => (await responseJob(responseRequest.parse({ model: 'countdown', input }), async () => [])).messages;

  test('is what the assistant thought before it said or called something, all of it; where nothing came of it, it is a turn of its own', async () => {
    const [user, assistant, thought] = [said('user', 'u'), said('assistant', 'a'), { role: 'assistant', content: '', reasoning_content: 'x' }];
    const called = { role: 'assistant', content: '', reasoning_content: 'x\ny', tool_calls: [{ id: 'c', type: 'function', function: { name: 'f', arguments: '{}' } }] };
    expect(await turnsOf([user, reasoning('x'), assistant, user])).toEqual([user, { ...assistant, reasoning_content: 'x' }, user]);
    expect(await turnsOf([user, reasoning('x'), reasoning('y'), assistant])).toEqual([user, { ...assistant, reasoning_content: 'x\ny' }]);
    expect(await turnsOf([user, reasoning('x'), reasoning('y'), call])).toEqual([user, called]);
    expect(await turnsOf([user, reasoning('x')])).toEqual([user, thought]);
    expect(await turnsOf([reasoning('x'), user])).toEqual([thought, user]);
    expect(await turnsOf([reasoning('x')])).toEqual([thought]);
    expect(await turnsOf([call, reasoning('x'), { type: 'function_call_output', call_id: 'c', output: 'o' }])).toEqual([{ role: 'assistant', content: '', tool_calls: called.tool_calls }, thought, { role: 'tool', content: 'o', tool_call_id: 'c' }]);
  });

  test('of a response that was cut while it thought is shown to the model as by previous_response_id, and listed', async () => {
    const cut = await api.openai.responses.create({ ...GREEDY, max_output_tokens: 5 });
    expect(cut.output.map(({ type }) => type)).toEqual(['reasoning']);
    const next = { ...GREEDY, max_output_tokens: 5 };
    const handed = await api.openai.responses.create({ ...next, input: [said('user', GREEDY.input), ...cut.output, said('user', '1 5 5 19 target 65')] as OpenAI.Responses.ResponseInput });
    const named = await api.openai.responses.create({ ...next, input: '1 5 5 19 target 65', previous_response_id: cut.id });
    expect([handed.output_text, handed.usage?.input_tokens]).toEqual([named.output_text, named.usage?.input_tokens]);
    const items = async (id: string) => (await api.openai.responses.inputItems.list(id, { order: 'asc' })).data.map(({ id: _, ...item }) => item);
    expect(await items(handed.id)).toEqual(await items(named.id));
    expect((await items(handed.id)).map(({ type }) => type)).toEqual(['message', 'reasoning', 'message', 'message']);
  });
});

describe('an item_reference, as the AI SDK sends its turns', () => {
  const turn = (content: string) => ({ role: 'user' as const, content: [{ type: 'input_text' as const, text: content }] });
  const reference = (id: string) => ({ type: 'item_reference' as const, id });
  const ask = async (items: readonly object[]) => await api.openai.responses.create({ ...GREEDY, input: items as OpenAI.Responses.ResponseInput });

  test('is the item itself, of any earlier response of the caller\'s, also of one that was cut', async () => {
    const first = await api.openai.responses.create({ ...GREEDY, input: [turn(GREEDY.input)] });
    const cut = await api.openai.responses.create({ ...GREEDY, max_output_tokens: 5 });
    const next = turn('4 20 8 13 target 59');
    const whole = await ask([turn(GREEDY.input), ...first.output, next, ...cut.output, next]);
    const referred = await ask([turn(GREEDY.input), ...first.output.map(({ id }) => reference(id ?? '')), next, ...cut.output.map(({ id }) => reference(id ?? '')), next]);
    expect([referred.output_text, referred.usage]).toEqual([whole.output_text, whole.usage]);
  });

  test('of nothing that is there, or of what is still written, is refused by name', async () => {
    const { id } = await api.openai.responses.create({ ...LONG, background: true } as OpenAI.Responses.ResponseCreateParamsNonStreaming);
    for (const missing of [id.replace('resp_', 'rs_'), id, 'msg_nobody', 'fc_nobody_0', 'rs_', 'nonsense', 'msg_../x']) {
      await expect(ask([turn('1'), reference(missing), turn('2')]), missing).rejects.toMatchObject({ status: 404, code: 'previous_response_not_found', param: 'input.1.id' });
    }
    await api.openai.responses.cancel(id);
  });
});

describe('a conversation', () => {
  const FIRST = { model: 'talker-cr2', input: '7 18 17 7 target 35', seed: 4, max_output_tokens: 200 };
  const NEXT = { ...FIRST, input: '4 20 8 13 target 59', hyperscale: { width: 2 } };
  type Create = OpenAI.Responses.ResponseCreateParamsNonStreaming;

  test('goes on from a response\'s answer and reads its KV: the same as the whole text sent again, streamed or not', async () => {
    const first = await api.openai.responses.create({ ...FIRST, metadata: { turn: '1' }, user: 'anna' });
    expect(first).toMatchObject({ status: 'completed', previous_response_id: null, metadata: { turn: '1' }, user: 'anna', usage: { input_tokens_details: { cached_tokens: 0 } } });
    const next = { ...NEXT, previous_response_id: first.id };
    const second = await api.openai.responses.create(next as Create);
    const seen = (first.usage?.total_tokens ?? 0) - 1;
    expect(second).toMatchObject({ previous_response_id: first.id, metadata: {}, user: null, usage: { input_tokens_details: { cached_tokens: seen } } });
    const input = [{ role: 'user', content: FIRST.input }, ...first.output, { role: 'user', content: NEXT.input }];
    const whole = await api.openai.responses.create({ ...NEXT, input } as Create);
    expect(whole.usage).toEqual({ ...second.usage, input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 } });
    expect([whole.output_text, (whole as unknown as { hyperscale: unknown }).hyperscale]).toEqual([second.output_text, (second as unknown as { hyperscale: unknown }).hyperscale]);
    const last = (await streamOf(next)).at(-1) as { response: OpenAI.Responses.Response };
    expect(last.response).toMatchObject({ previous_response_id: first.id, usage: second.usage, output: second.output.map(({ type }) => ({ type })) });
    expect((await api.openai.responses.retrieve(second.id)).usage).toEqual(second.usage);
  });

  test('of a model that hides earlier thinking goes on with the text, and says that none of it was read', async () => {
    const first = await api.openai.responses.create(GREEDY);
    const second = await api.openai.responses.create({ ...GREEDY, input: '1 5 5 19 target 65', previous_response_id: first.id });
    expect(second.usage?.input_tokens).toBeGreaterThan(first.usage?.input_tokens ?? 0);
    expect(second.usage?.input_tokens_details.cached_tokens).toBe(0);
  });

  test('goes on from no response that is not there or has no answer', async () => {
    const next = (previous_response_id: string) => api.openai.responses.create({ ...GREEDY, previous_response_id });
    for (const id of ['resp_nobody', 'nobody', 'resp_', 'resp_../x']) await expect(next(id)).rejects.toMatchObject({ status: 404, code: 'previous_response_not_found', param: 'previous_response_id' });
    const { id } = await api.openai.responses.create({ ...LONG, background: true } as Create);
    await expect(next(id)).rejects.toMatchObject({ status: 400, code: 'invalid_value', param: 'previous_response_id' });
    await api.openai.responses.cancel(id);
    await expect(next(id)).rejects.toMatchObject({ status: 400, message: expect.stringContaining('cancelled') as string });
  });

  test('that is not to be stored leaves nothing, and nothing goes on from it', async () => {
    const first = await api.openai.responses.create({ ...FIRST, store: false });
    expect(first.output_text).not.toBe('');
    await expect(api.openai.responses.retrieve(first.id)).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    const kept = await api.openai.responses.create(FIRST);
    const second = await api.openai.responses.create({ ...NEXT, previous_response_id: kept.id, store: false } as Create);
    expect(second.usage?.input_tokens_details.cached_tokens).toBeGreaterThan(0);
    const last = (await streamOf({ ...NEXT, previous_response_id: kept.id, store: false })).at(-1);
    expect(last).toMatchObject({ type: 'response.completed', response: { usage: second.usage } });
    await expect(api.openai.responses.create({ ...FIRST, background: true, store: false })).rejects.toMatchObject({ status: 400, param: 'store' });
  });
});

describe('the items of an input', () => {
  const TALK = { model: 'talker-cr2', input: '7 18 17 7 target 35', seed: 4, max_output_tokens: 200 };

  test('of a next turn are those of the turns before it and their answers, without instructions; of a chat its messages, and of a raw prompt none', async () => {
    const first = await api.openai.responses.create({ ...TALK, instructions: '9' } as OpenAI.Responses.ResponseCreateParamsNonStreaming);
    const second = await api.openai.responses.create({ model: 'talker-cr2', input: '1', previous_response_id: first.id, max_output_tokens: 1 });
    const said = await api.openai.responses.inputItems.list(second.id, { order: 'asc' });
    expect(said.data.map((item) => ('role' in item ? item.role : item.type))).toEqual(['user', ...(first.output.some(({ type }) => type === 'reasoning') ? ['reasoning'] : []), 'assistant', 'user']);
    expect(JSON.stringify(said.data)).toContain(JSON.stringify(first.output_text));
    const chat = await api.openai.chat.completions.create({ model: 'countdown@cr2', messages: [{ role: 'user', content: '1' }], max_tokens: 1 });
    expect((await api.openai.responses.inputItems.list(chat.id.replace('chatcmpl-', 'resp_'))).data).toMatchObject([{ role: 'user', content: [{ text: '1' }] }]);
    const raw = await api.openai.completions.create({ model: 'countdown@cr2', prompt: '1', max_tokens: 1 });
    expect((await api.openai.responses.inputItems.list(raw.id.replace('cmpl-', 'resp_'))).data).toEqual([]);
  });

  test('are asked for by a page that there is', async () => {
    const { id } = await api.openai.responses.create({ ...GREEDY, max_output_tokens: 1 });
    for (const query of [{ limit: 0 }, { limit: 101 }, { order: 'up' }, { after: 'msg_x' }, { include: ['x'] }]) {
      await expect(api.openai.responses.inputItems.list(id, query as object), JSON.stringify(query)).rejects.toMatchObject({ status: 400, param: expect.stringContaining(Object.keys(query)[0] ?? '') as string });
    }
    await expect(api.openai.responses.inputItems.list('resp_nobody')).rejects.toMatchObject({ status: 404 });
  });
});

describe('what is refused', () => {
  test.each([
    ['tools', [{ type: 'web_search' }]], ['previous_response_id', 3], ['metadata', { a: 2 }], ['include', ['reasoning.encrypted_content']], ['store', 3],
    ['truncation', 'auto'], ['text', { format: { type: 'grammar' } }], ['reasoning', { summary: 'brief' }], ['conversation', 'c'], ['prompt', { id: 'p' }],
    ['input', []], ['input', [{ type: 'function_call_output', call_id: 'x', output: 'y' }]], ['max_output_tokens', -1], ['nonsense', true],
  ])('%s = %j: 400, by name', async (param, value) => {
    const asked = api.openai.responses.create({ ...GREEDY, [param]: value } as OpenAI.Responses.ResponseCreateParamsNonStreaming);
    await expect(asked).rejects.toBeInstanceOf(OpenAI.BadRequestError);
    const error = await asked.then(() => null, (thrown: unknown) => thrown as InstanceType<typeof OpenAI.APIError>);
    expect(error?.param?.split('.')[0]).toBe(param);
  });

  test('a field of another API in place of one that is missing, by its name', async () => {
    expect(await (await api.post('/v1/responses', { model: GREEDY.model, prompt: 'x' })).json()).toMatchObject({ error: { code: 'unsupported_parameter', param: 'prompt' } });
  });

  test('ids that are none, and a position without a stream', async () => {
    for (const id of ['resp_nobody', 'nobody', 'resp_', 'resp_..%2F']) expect((await api.get(`/v1/responses/${id}`)).status).toBe(404);
    await expect(api.openai.responses.retrieve('resp_nobody')).rejects.toMatchObject({ status: 404, code: 'job_not_found' });
    const { id } = await api.openai.responses.create({ ...GREEDY, max_output_tokens: 1 });
    expect((await api.get(`/v1/responses/${id}?starting_after=3`)).status).toBe(400);
    expect((await api.get(`/v1/responses/${id}?stream=true&include_obfuscation=true`)).status).toBe(400);
  });
});
