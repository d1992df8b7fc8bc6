/** Shards over HTTP, asked for by the real client: the same answer, stream and usage as without them. */
import { afterAll, beforeAll, expect, test } from 'vitest';

import { type HttpApi, startApi } from '../helpers/http-api.ts';
import { readSse } from '../helpers/sse.ts';

const CHAT = { model: 'countdown@cr2', seed: 2, messages: [{ role: 'user' as const, content: '4 20 8 13 target 59' }], max_tokens: 100 };
const JOB = { model: 'countdown@cr2', prompt: '4 20 8 13 target 59', seed: 2, budget: { width: 3, length: 100 }, vote: 'first' };

let api: HttpApi;
beforeAll(async () => {
  api = await startApi();
});
afterAll(() => api[Symbol.asyncDispose]());

const ask = async (hyperscale: object) => await api.openai.chat.completions.create({ ...CHAT, hyperscale } as typeof CHAT);

test('a chat in shards says what the chat says, and costs the same', async () => {
  const [one, two] = [await ask({ width: 4, vote: 'first' }), await ask({ width: 4, vote: 'first', shards: 3 })];
  const said = ({ choices, usage }: typeof one) => ({ choices, usage });
  expect(said(two)).toEqual(said(one));
  expect(two).toMatchObject({ hyperscale: { chains: [{}, {}, {}, {}] } });
});

test('a native job in shards has one result, one list of events, and one entry among the checkpoints', async () => {
  const results = [];
  for (const shards of [undefined, 3]) {
    const { id } = (await (await api.post('/v1/jobs', { ...JOB, ...(shards === undefined ? {} : { shards }) })).json()) as { readonly id: string };
    const events: string[] = [];
    await readSse(await api.get(`/v1/jobs/${id}/events`), ({ id: seq, data }) => {
      if (seq !== null) events.push(`${seq} ${JSON.stringify(data).replaceAll(id, 'ID')}`);
      return false;
    });
    results.push({ events, result: await (await api.get(`/v1/jobs/${id}/result`)).json() });
    expect(await (await api.get(`/v1/jobs/${id}`)).json()).toMatchObject({ state: 'done' });
    expect(await (await api.get(`/v1/checkpoints/${id}`)).json()).toMatchObject({ garbage_bytes: expect.any(Number) as number });
    expect((await api.post(`/v1/checkpoints/${id}/verify`, {})).status).toBe(200);
  }
  expect(results[1]).toEqual(results[0]);
});

test.each([
  [{ width: 2, shards: 3 }, 'hyperscale.shards', /^400 hyperscale\.shards must be at most 2, one for each chain/],
  [{ width: 2, shards: 0 }, 'hyperscale.shards', /shards/],
  [{ width: 80, shards: 65 }, 'hyperscale.shards', /shards/],
])('%o is refused by name', async (hyperscale, param, message) => {
  await expect(ask(hyperscale)).rejects.toMatchObject({ status: 400, param, message: expect.stringMatching(message) as string });
});
