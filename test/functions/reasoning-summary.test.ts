/** Thinking as a summary: what OpenAI's client may ask for, and all that the AI SDK's client of /v1/responses shows of it. */
import { createOpenAI } from '@ai-sdk/openai';
import { type ModelMessage, generateText, streamText } from 'ai';
import type OpenAI from 'openai';
import type { ResponseStreamEvent } from 'openai/resources/responses/responses';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { type HttpApi, startApi } from '../helpers/http-api.ts';

const GREEDY = { model: 'countdown@cr2', input: '7 18 17 7 target 35', temperature: 0 };

let api: HttpApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api[Symbol.asyncDispose]());

async function streamOf(request: object): Promise<ResponseStreamEvent[]> {
  const events = [];
  for await (const event of await api.openai.responses.create({ ...request, stream: true } as OpenAI.Responses.ResponseCreateParamsStreaming)) events.push(event);
  return events;
}

const text = (events: readonly ResponseStreamEvent[], type: string) => events.map((event) => (event.type === type ? (event as { delta: string }).delta : '')).join('');

describe('a summary of the thinking', () => {
  const ASKED = { ...GREEDY, reasoning: { summary: 'concise' as const } };

  test('is all of it, whole and streamed, and one that nobody asked for is empty', async () => {
    const plain = await api.openai.responses.create(GREEDY);
    expect(plain.output[0]).toMatchObject({ type: 'reasoning', summary: [] });
    const response = await api.openai.responses.create(ASKED);
    expect(response.reasoning).toMatchObject({ summary: 'concise' });
    const thought = (plain.output[0] as OpenAI.Responses.ResponseReasoningItem).content?.[0]?.text ?? '';
    expect(response.output[0]).toMatchObject({ content: [{ text: thought }], summary: [{ type: 'summary_text', text: thought }] });
    expect(await api.openai.responses.retrieve(response.id)).toEqual({ ...response });
    for (const width of [1, 3]) {
      const events = await streamOf({ ...ASKED, hyperscale: { width } });
      const summary = events.filter(({ type }) => type.includes('summary'));
      const item = events.find((event) => event.type === 'response.output_item.done')?.item as OpenAI.Responses.ResponseReasoningItem;
      const place = { item_id: item.id, output_index: 0, summary_index: 0 };
      expect(text(events, 'response.reasoning_summary_text.delta')).toBe(item.summary[0]?.text);
      expect(item.summary[0]?.text).toBe(item.content?.[0]?.text);
      expect([summary[0], ...summary.slice(-2)]).toMatchObject([
        { type: 'response.reasoning_summary_part.added', ...place, part: { type: 'summary_text', text: '' } },
        { type: 'response.reasoning_summary_text.done', ...place, text: item.summary[0]?.text }, { type: 'response.reasoning_summary_part.done', ...place, part: item.summary[0] },
      ]);
    }
  });

  test('that is handed back without the thinking is the thinking of that turn', async () => {
    const asked = (thought: object) => ({ model: GREEDY.model, max_output_tokens: 1, input: [
      { role: 'user' as const, content: '1 2' }, { type: 'reasoning' as const, id: 'rs_x', summary: [], ...thought }, { role: 'assistant' as const, content: '3' }, { role: 'user' as const, content: '4' },
    ] });
    const { id } = await api.openai.responses.create(asked({ summary: [{ type: 'summary_text', text: 'Hm.' }] }));
    expect((await api.openai.responses.inputItems.list(id, { order: 'asc' })).data[1]).toMatchObject({ type: 'reasoning', content: [{ type: 'reasoning_text', text: 'Hm.' }] });
  });
});

describe('the AI SDK\'s own client of responses', () => {
  /** It sends no temperature where a model reasons, and reads of reasoning nothing but summaries. */
  const openai = () => createOpenAI({
    baseURL: `${api.url}/v1`, apiKey: 'none',
    fetch: async (url, init) => await fetch(url, { ...init, body: JSON.stringify({ ...(JSON.parse(init?.body as string) as object), temperature: 0 }) }),
  });
  const options = (more = {}) => ({ openai: { forceReasoning: true, reasoningSummary: 'auto', reasoningEffort: 'low', ...more } });

  test('has text and thinking, whole and streamed', async () => {
    const asked = { model: openai().responses('countdown@cr2'), prompt: GREEDY.input };
    const whole = await generateText({ ...asked, providerOptions: options() });
    const stored = await api.openai.responses.retrieve(whole.response.id);
    expect(whole.text).toBe(stored.output_text);
    expect(whole.reasoningText).toContain('goal');
    expect(stored.reasoning).toMatchObject({ effort: 'low', summary: 'auto' });
    expect(whole.usage.outputTokens).toBe(stored.usage?.output_tokens);
    const streamed = streamText({ ...asked, providerOptions: options() });
    let told = '';
    for await (const part of streamed.textStream) told += part;
    expect([told, await streamed.reasoningText, await streamed.finishReason]).toEqual([whole.text, whole.reasoningText, 'stop']);
  });

  test('goes on with a second turn by previous_response_id, and with its own messages, which are items by reference or, of what is not stored, text', async () => {
    const model = openai().responses('countdown@cr2');
    const first = await generateText({ model, prompt: GREEDY.input, providerOptions: options() });
    const second = await generateText({ model, prompt: '4 20 8 13 target 59', maxOutputTokens: 8, providerOptions: options({ previousResponseId: first.response.id }) });
    const stored = await api.openai.responses.retrieve(second.response.id);
    expect(stored.previous_response_id).toBe(first.response.id);
    const turns: ModelMessage[] = [{ role: 'user', content: GREEDY.input }, ...first.response.messages, { role: 'user', content: '4 20 8 13 target 59' }];
    const itemsOf = async (id: string) => (await api.openai.responses.inputItems.list(id, { order: 'asc' })).data.map(({ id: _, ...item }) => item);
    const items = await itemsOf(second.response.id);
    expect(items.map(({ type }) => type)).toEqual(['message', 'reasoning', 'message', 'message']);
    const referred = await generateText({ model, messages: turns, maxOutputTokens: 8, providerOptions: options() });
    expect(await itemsOf(referred.response.id)).toEqual(items);
    expect(referred.reasoningText).toBe(second.reasoningText);
    // Of what is not stored it sends no thinking back, and with `forceReasoning` it asks for encrypted thinking, which there is not.
    const given = await generateText({ model, messages: turns, maxOutputTokens: 8, providerOptions: { openai: { store: false } } });
    expect([given.usage.inputTokens, given.text]).toEqual([second.usage.inputTokens, second.text]);
    await expect(generateText({ model, messages: turns, maxRetries: 0, providerOptions: options({ store: false }) })).rejects.toThrow('include');
  });
});
