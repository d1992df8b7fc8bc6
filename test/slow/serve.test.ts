/** `ruminate serve` when it ends in the middle of jobs and conversations, or when others serve them too. */
import type OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { disturbed, follow, freshStore, isAt, type Job, LONG, OFTEN, quietRun, removeStores } from '../helpers/followed-job.ts';
import { removeFolders } from '../helpers/models.ts';
import { serve } from '../helpers/served.ts';
import type { SseEvent } from '../helpers/sse.ts';
import { talkers } from '../helpers/talker.ts';

// In a fresh checkout the first run builds.
beforeAll(async () => void await (await serve(freshStore())).kill('SIGTERM'), 600_000);
afterAll(() => {
  removeStores();
  removeFolders();
  vi.unstubAllEnvs();
});

describe('a job and its stream', () => {
  let quiet: readonly SseEvent[];
  beforeAll(async () => {
    quiet = await quietRun();
  });

  test('survive Ctrl-C, which parks the job and exits 0', async () => {
    const { read, job, log } = await disturbed(async (first) => {
      expect(await first.kill('SIGINT')).toEqual({ code: 0, signal: null });
    });
    expect(log).toMatch(/a job is parked/);
    expect(job).toMatchObject({ state: 'done', slice: 2 });
    expect(read).toEqual(quiet);
  });

  test('survive Ctrl-C in the middle of a chat: its client was left, it has not gone', async () => {
    const at = freshStore();
    const first = await serve(at, ...OFTEN);
    const chat = { messages: [{ role: 'user', content: '4 20 8 13 target 59' }], seed: 7, model: 'countdown@dense', n: 8, max_tokens: 600, logit_bias: { 2: -100 }, stream: true };
    const answer = await fetch(`${first.url}/v1/chat/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(chat) });
    const id = answer.headers.get('x-ruminate-job') ?? '';
    await answer.body?.getReader().read();
    expect(await first.kill('SIGINT')).toEqual({ code: 0, signal: null });
    await using second = await serve(at, ...OFTEN);
    await follow(second, id);
    expect(await second.get<Job>(`/v1/jobs/${id}`)).toMatchObject({ state: 'done' });
  });

  test('survive a second Ctrl-C, which does not wait', async () => {
    const { read, job } = await disturbed(async (first) => {
      first.signal('SIGINT');
      const { code } = await first.kill('SIGINT');
      expect([0, 130]).toContain(code);
    });
    expect(job.state).toBe('done');
    expect(read).toEqual(quiet);
  });

  test('are read from any server of the store, also from one that does not run it', async () => {
    const at = freshStore();
    await using runs = await serve(at, ...OFTEN);
    const { id } = await runs.post<Job>('/v1/jobs', LONG);
    await follow(runs, id, -1, isAt(0));
    await using reads = await serve(at, ...OFTEN);
    expect(await follow(reads, id)).toEqual(quiet);
    expect(await reads.get<Job>(`/v1/jobs/${id}`), 'nobody took it').toMatchObject({ state: 'done', slice: 1 });
  });

  test('are the same when jobs take turns', async () => {
    const spec = { ...LONG, budget: { width: 2, length: 24 } };
    await using server = await serve(freshStore());
    const whole = await follow(server, (await server.post<Job>('/v1/jobs', spec)).id);
    await using sliced = await serve(freshStore(), '--slice-time', '1ms');
    const jobs = await Promise.all([0, 1].map(() => sliced.post<Job>('/v1/jobs', spec)));
    for (const stream of await Promise.all(jobs.map(({ id }) => follow(sliced, id)))) expect(stream).toEqual(whole);
    // A slice that is followed is as short as a step.
    for (const { id } of jobs) expect((await sliced.get<Job>(`/v1/jobs/${id}`)).slice).toBeGreaterThan(2);
  });
});

describe('a conversation', () => {
  test('survives kill -9 between its turns and Ctrl-C in the middle of one: the same as the whole text sent at once', async () => {
    vi.stubEnv('RUMINATE_MODELS', talkers('dense'));
    const at = freshStore();
    const before = await serve(at, ...OFTEN);
    const turn = { model: 'talker-dense', seed: 4, max_output_tokens: 300 };
    const one = await before.openai.responses.create({ ...turn, input: '7 18 17 7 target 35' });
    await before.kill('SIGKILL');
    const first = await serve(at, ...OFTEN);
    const next = { ...turn, input: '3 5 7 11 target 97', temperature: 1, hyperscale: { width: 8, vote: 'none', early_stop: false } };
    const two = await first.openai.responses.create({ ...next, previous_response_id: one.id, background: true });
    await follow(first, two.id.replace('resp_', ''), -1, isAt(200));
    await first.kill('SIGINT');
    await using second = await serve(at, ...OFTEN);
    await follow(second, two.id.replace('resp_', ''));
    const gone = await second.openai.responses.retrieve(two.id);
    expect(gone.usage?.input_tokens_details.cached_tokens).toBe((one.usage?.total_tokens ?? 0) - 1);
    const input = [{ role: 'user', content: '7 18 17 7 target 35' }, ...one.output, { role: 'user', content: next.input }] as OpenAI.Responses.ResponseInput;
    const whole = await second.openai.responses.create({ ...next, input });
    expect(whole.usage).toEqual({ ...gone.usage, input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 } });
    expect((whole as unknown as { hyperscale: unknown }).hyperscale).toEqual((gone as unknown as { hyperscale: unknown }).hyperscale);
    expect(whole.output_text).toBe(gone.output_text);
    const three = await second.openai.responses.create({ ...turn, input: '1', max_output_tokens: 4, previous_response_id: two.id });
    expect(three.usage?.input_tokens_details.cached_tokens).toBeGreaterThan(gone.usage?.input_tokens ?? 0);
    // And a text of its own, from the same server.
    let text = '';
    for await (const { choices } of await second.openai.completions.create({ model: 'talker-dense', prompt: '<s> user 7 18 17 7 target 35 <think>', temperature: 0, max_tokens: 20, stream: true })) text += choices[0]?.text ?? '';
    expect(text).not.toBe('');
  });
});
