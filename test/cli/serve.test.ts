/** `ruminate serve` as a user has it: a process of its own, the real client, and what becomes of a job when the process ends. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { removeFolders } from '../helpers/models.ts';
import { serve, serveIn, type Served } from '../helpers/served.ts';
import { type SseEvent, readSse } from '../helpers/sse.ts';
import { talkers } from '../helpers/talker.ts';
import { temporary } from '../resume/jobs.ts';

const ASK = { model: 'countdown', messages: [{ role: 'user' as const, content: '4 20 8 13 target 59' }], seed: 7 };
/** Seconds of work for two cores; its chains end only at their length. */
const LONG = { model: 'countdown@dense', prompt: '3 5 7 11 13 17 target 997', sampling: { temperature: 1, logit_bias: [[2, -100]] }, budget: { width: 8, length: 600 }, vote: 'none' };
/** So that a kill loses little. */
const OFTEN = ['--journal-time', '50ms', '--checkpoint-tokens', '100'];

interface Job {
  readonly id: string;
  readonly state: string;
  readonly slice: number;
  readonly chains: readonly { readonly tokens: number }[];
}

let folder: string;
let stores = 0;
const store = () => path.join(folder, `store-${stores++}`);
beforeAll(async () => {
  folder = temporary({ quick: true });
  // In a fresh checkout the first run builds.
  await (await serve(store())).kill('SIGTERM');
}, 600_000);
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
  removeFolders();
  vi.unstubAllEnvs();
});

const numbered = (events: readonly SseEvent[]) => events.filter(({ id, event }) => id !== null && event !== 'end');

async function follow({ url }: Served, id: string, after = -1, until: (event: SseEvent) => boolean = () => false): Promise<readonly SseEvent[]> {
  return numbered(await readSse(await fetch(`${url}/v1/jobs/${id}/events`, { headers: { 'last-event-id': `${after}` } }), until));
}

const isAt = (seq: number) => ({ id }: SseEvent) => Number(id) >= seq;
const lastOf = (events: readonly SseEvent[]) => Number(events.at(-1)?.id);

/** Begins the job, reads its first events, and `end`s the process that serves it; another goes on, and the reader with it. */
async function disturbed(end: (first: Served) => Promise<void>): Promise<{ readonly read: readonly SseEvent[]; readonly again: readonly SseEvent[]; readonly job: Job; readonly log: string }> {
  const at = store();
  const first = await serve(at, ...OFTEN);
  const { id } = await first.post<Job>('/v1/jobs', LONG);
  const before = await follow(first, id, -1, isAt(1_000));
  await end(first);
  await using second = await serve(at, ...OFTEN);
  const after = await follow(second, id, lastOf(before));
  return { read: [...before, ...after], again: await follow(second, id), job: await second.get<Job>(`/v1/jobs/${id}`), log: first.log };
}

describe('a server', () => {
  test('prints its address and a curl that works', async () => {
    await using server = await serve(store());
    const { status, stdout } = spawnSync('sh', ['-c', /curl[\s\S]*/.exec(server.banner)?.[0] ?? ''], { encoding: 'utf8' });
    expect([status, stdout.trimEnd().endsWith('data: [DONE]')]).toEqual([0, true]);
    expect(stdout).toContain('"delta"');
  });

  test('answers the openai client, whole and streamed', async () => {
    await using server = await serve(store());
    const whole = await server.openai.chat.completions.create(ASK);
    let text = '';
    for await (const { choices } of await server.openai.chat.completions.create({ ...ASK, stream: true })) text += choices[0]?.delta.content ?? '';
    expect(text.length).toBeGreaterThan(0);
    expect(text).toBe(whole.choices[0]?.message.content);
    expect(whole.usage?.completion_tokens).toBeGreaterThan(0);
    expect((await server.openai.models.list()).data.map(({ id }) => id)).toContain('countdown@cr8');
  });

  test('tells Prometheus what it has done', async () => {
    await using server = await serve(store());
    const { usage } = await server.openai.chat.completions.create(ASK);
    await fetch(`${server.url}/nowhere/at/all`);
    const lines = (await (await fetch(`${server.url}/metrics`)).text()).split('\n');
    const value = (name: string) => Number(lines.find((line) => line.startsWith(`ruminate_${name} `))?.split(' ').at(-1));
    expect(value('http_requests_total{method="POST",path="/v1/chat/completions",status="200"}')).toBe(1);
    expect(value('http_requests_total{method="GET",path="other",status="404"}')).toBe(1);
    expect(value('http_responses_open'), 'this one').toBe(1);
    expect(value('jobs_ended_total{state="done"}')).toBe(1);
    expect(value('slices_total{outcome="ended"}')).toBe(1);
    expect(value('prompt_tokens_total')).toBe(usage?.prompt_tokens);
    expect(value('generation_tokens_total')).toBe(usage?.completion_tokens);
    expect(value('kv_reads_total')).toBeGreaterThan(0);
    expect(value('checkpoint_bytes_total{op="write"}')).toBeGreaterThan(1_000);
    for (const gauge of ['num_requests_running', 'num_requests_waiting', 'queue_age_seconds']) expect(value(gauge)).toBe(0);
    expect(value('nodejs_eventloop_lag_p99_seconds')).toBeGreaterThan(0);
  });

  test('that knows what an hour costs says in a quote what the job would cost; a price that is none is refused', async () => {
    await using server = await serveIn({ RUMINATE_USD_PER_HOUR: '9000' }, store(), '--usd-per-hour', '3.6');
    const spec = { model: 'countdown', prompt: '4 20 8 13 target 59' };
    interface Quote { readonly seconds: number; readonly cost_usd: number }
    await server.openai.chat.completions.create(ASK);
    const { seconds, cost_usd: cost } = await server.post<Quote>('/v1/quotes', spec);
    expect(seconds).toBeGreaterThan(0);
    expect(cost).toBeCloseTo((seconds * 3.6) / 3_600, 12);
    await expect(serve(store(), '--usd-per-hour', '-1')).rejects.toThrow(/ERR_OPTION.*usd-per-hour must be/);
    await expect(serveIn({ RUMINATE_USD_PER_HOUR: 'cheap' }, store())).rejects.toThrow(/ERR_OPTION.*RUMINATE_USD_PER_HOUR must be/);
  });

  test('cancels a job within its process: the next one runs at once', async () => {
    await using server = await serve(store());
    const { id } = await server.post<Job>('/v1/jobs', { ...LONG, budget: { width: 64, length: 900 } });
    await follow(server, id, -1, isAt(100));
    await server.post(`/v1/jobs/${id}/cancel`, {});
    expect((await server.openai.chat.completions.create(ASK)).choices).toHaveLength(1);
    expect(await server.get<Job>(`/v1/jobs/${id}`)).toMatchObject({ state: 'cancelled' });
  });

  test('with --model has those models only', async () => {
    await using server = await serve(store(), '--model', 'countdown@cr8');
    await expect(server.openai.chat.completions.create({ ...ASK, model: 'countdown@dense' })).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    expect((await server.openai.chat.completions.create({ ...ASK, model: 'countdown@cr8' })).choices).toHaveLength(1);
  });
});

describe('a job and its stream', () => {
  let quiet: readonly SseEvent[];
  beforeAll(async () => {
    await using server = await serve(store());
    quiet = await follow(server, (await server.post<Job>('/v1/jobs', LONG)).id);
    expect(quiet.at(-1)?.event).toBe('result');
  });

  test('survive kill -9: the next start goes on, and the reader misses nothing and sees nothing twice', async () => {
    const { read, again, job } = await disturbed(async (first) => {
      expect(await first.kill('SIGKILL')).toEqual({ code: null, signal: 'SIGKILL' });
    });
    expect(job).toMatchObject({ state: 'done', slice: 2 });
    expect(read).toEqual(quiet);
    expect(again).toEqual(quiet);
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
    const at = store();
    const first = await serve(at, ...OFTEN);
    const chat = { ...ASK, model: 'countdown@dense', n: 8, max_tokens: 600, logit_bias: { 2: -100 }, stream: true };
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
    const at = store();
    await using runs = await serve(at, ...OFTEN);
    const { id } = await runs.post<Job>('/v1/jobs', LONG);
    await follow(runs, id, -1, isAt(0));
    await using reads = await serve(at, ...OFTEN);
    expect(await follow(reads, id)).toEqual(quiet);
    expect(await reads.get<Job>(`/v1/jobs/${id}`), 'nobody took it').toMatchObject({ state: 'done', slice: 1 });
  });

  test('are the same when jobs take turns', async () => {
    const spec = { ...LONG, budget: { width: 2, length: 24 } };
    await using server = await serve(store());
    const whole = await follow(server, (await server.post<Job>('/v1/jobs', spec)).id);
    await using sliced = await serve(store(), '--slice-time', '1ms');
    const jobs = await Promise.all([0, 1].map(() => sliced.post<Job>('/v1/jobs', spec)));
    for (const stream of await Promise.all(jobs.map(({ id }) => follow(sliced, id)))) expect(stream).toEqual(whole);
    // A slice that is followed is as short as a step.
    for (const { id } of jobs) expect((await sliced.get<Job>(`/v1/jobs/${id}`)).slice).toBeGreaterThan(2);
  });
});

describe('a conversation', () => {
  test('survives kill -9 between its turns and Ctrl-C in the middle of one: the same as the whole text sent at once', async () => {
    vi.stubEnv('RUMINATE_MODELS', talkers('dense'));
    const at = store();
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
    expect(whole.usage).toEqual({ ...gone.usage, input_tokens_details: { cached_tokens: 0 } });
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

describe('who may ask', () => {
  test('other machines only with keys: an open host without them is refused', async () => {
    await expect(serve(store(), '--host', '0.0.0.0')).rejects.toThrow(/ERR_OPTION.*--api-keys/);
  });

  test('a file of hashes lets its keys in and no other', async () => {
    const file = path.join(folder, 'keys.json');
    writeFileSync(file, JSON.stringify([{ sha256: createHash('sha256').update('sk-open-sesame').digest('hex'), tenant: 'acme' }]));
    await using server = await serve(store(), '--api-keys', file);
    await expect(server.openai.chat.completions.create(ASK)).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'sk-open-sesame', maxRetries: 0 });
    expect((await client.chat.completions.create(ASK)).choices).toHaveLength(1);
  });

  test('a file that is wrong says where', async () => {
    const file = path.join(folder, 'wrong.json');
    writeFileSync(file, JSON.stringify([{ sha256: 'x', tenant: 'acme' }]));
    await expect(serve(store(), '--api-keys', file)).rejects.toThrow(/ERR_OPTION.*0\.sha256/);
  });

  test('a port that is in use is said to be', async () => {
    await using server = await serve(store());
    await expect(serve(store(), '--port', new URL(server.url).port)).rejects.toThrow(/ERR_OPTION.*in use/);
  });
});
