/** `ruminate serve` as a user has it: a process of its own, the real client, and what becomes of a job when the process ends. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { removeFolders } from '../helpers/models.ts';
import { disturbed, follow, freshStore, isAt, type Job, LONG, quietRun, removeStores } from '../helpers/followed-job.ts';
import { serve, serveIn } from '../helpers/served.ts';
import { ROOT } from '../helpers/setup.ts';
import type { SseEvent } from '../helpers/sse.ts';

const ASK = { model: 'countdown', messages: [{ role: 'user' as const, content: '4 20 8 13 target 59' }], seed: 7 };

// In a fresh checkout the first run builds.
beforeAll(async () => void await (await serve(freshStore())).kill('SIGTERM'), 600_000);
afterAll(() => {
  removeStores();
  removeFolders();
  vi.unstubAllEnvs();
});

describe('a server', () => {
  test('prints its address and a curl that works', async () => {
    await using server = await serve(freshStore());
    const { status, stdout } = spawnSync('sh', ['-c', /curl[\s\S]*/.exec(server.banner)?.[0] ?? ''], { encoding: 'utf8' });
    expect([status, stdout.trimEnd().endsWith('data: [DONE]')]).toEqual([0, true]);
    expect(stdout).toContain('"delta"');
    const { info } = (await (await fetch(`${server.url}/openapi.json`)).json()) as { info: { version: string } };
    const { version } = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as { version: string };
    expect(info.version, 'as ruminate --version').toBe(version);
  });

  test('answers the openai client, whole and streamed', async () => {
    await using server = await serve(freshStore());
    const whole = await server.openai.chat.completions.create(ASK);
    let text = '';
    for await (const { choices } of await server.openai.chat.completions.create({ ...ASK, stream: true })) text += choices[0]?.delta.content ?? '';
    expect(text.length).toBeGreaterThan(0);
    expect(text).toBe(whole.choices[0]?.message.content);
    expect(whole.usage?.completion_tokens).toBeGreaterThan(0);
    expect((await server.openai.models.list()).data.map(({ id }) => id)).toContain('countdown@cr8');
  });

  test('tells Prometheus what it has done', async () => {
    await using server = await serve(freshStore());
    const { usage } = await server.openai.chat.completions.create(ASK);
    await fetch(`${server.url}/nowhere/at/all`);
    let lines: readonly string[] = [];
    const value = (name: string) => Number(lines.find((line) => line.startsWith(`ruminate_${name} `))?.split(' ').at(-1));
    // An answer may come before its worker has put the job aside.
    await vi.waitFor(async () => {
      lines = (await (await fetch(`${server.url}/metrics`)).text()).split('\n');
      expect([value('slices_total{outcome="ended"}'), value('num_requests_running')]).toEqual([1, 0]);
    }, { timeout: 20_000 });
    expect(value('http_requests_total{method="POST",path="/v1/chat/completions",status="200"}')).toBe(1);
    expect(value('http_requests_total{method="GET",path="other",status="404"}')).toBe(1);
    expect(value('http_responses_open'), 'this one').toBe(1);
    expect(value('jobs_ended_total{state="done"}')).toBe(1);
    expect(value('prompt_tokens_total')).toBe(usage?.prompt_tokens);
    expect(value('generation_tokens_total')).toBe(usage?.completion_tokens);
    expect(value('kv_reads_total')).toBeGreaterThan(0);
    expect(value('checkpoint_bytes_total{op="write"}')).toBeGreaterThan(1_000);
    for (const gauge of ['num_requests_running', 'num_requests_waiting', 'queue_age_seconds']) expect(value(gauge)).toBe(0);
    expect(value('kv_cache_usage_perc')).toBeLessThan(1);
    expect(value('nodejs_eventloop_lag_p99_seconds')).toBeGreaterThan(0);
  });

  test('that knows what an hour costs says in a quote what the job would cost, before any has run; a price that is none is refused', async () => {
    await using server = await serveIn({ RUMINATE_USD_PER_HOUR: '9000' }, freshStore(), '--usd-per-hour', '3.6');
    const spec = { model: 'countdown', prompt: '4 20 8 13 target 59' };
    interface Quote { readonly seconds: number | null; readonly seconds_by: string | null; readonly seconds_basis: string; readonly cost_usd: number | null }
    const quote = async () => await server.post<Quote>('/v1/quotes', spec);
    let first = await quote();
    for (; first.seconds_basis === 'no_worker_yet'; first = await quote()) expect(first).toMatchObject({ seconds: null, seconds_by: null, cost_usd: null });
    expect(first).toMatchObject({ seconds_by: 'this_worker', seconds_basis: 'probe' });
    expect(first.seconds).toBeGreaterThan(0);
    expect(first.cost_usd).toBeCloseTo(((first.seconds ?? NaN) * 3.6) / 3_600, 12);
    await expect(serve(freshStore(), '--usd-per-hour', '-1')).rejects.toThrow(/ERR_OPTION.*usd-per-hour must be/);
    await expect(serveIn({ RUMINATE_USD_PER_HOUR: 'cheap' }, freshStore())).rejects.toThrow(/ERR_OPTION.*RUMINATE_USD_PER_HOUR must be/);
  });

  test('cancels a job within its process: the next one runs at once', async () => {
    await using server = await serve(freshStore());
    const { id } = await server.post<Job>('/v1/jobs', { ...LONG, budget: { width: 64, length: 900 } });
    await follow(server, id, -1, isAt(100));
    await server.post(`/v1/jobs/${id}/cancel`, {});
    expect((await server.openai.chat.completions.create(ASK)).choices).toHaveLength(1);
    expect(await server.get<Job>(`/v1/jobs/${id}`)).toMatchObject({ state: 'cancelled' });
  });

  test('with --model has those models only', async () => {
    await using server = await serve(freshStore(), '--model', 'countdown@cr8');
    await expect(server.openai.chat.completions.create({ ...ASK, model: 'countdown@dense' })).rejects.toBeInstanceOf(OpenAI.NotFoundError);
    expect((await server.openai.chat.completions.create({ ...ASK, model: 'countdown@cr8' })).choices).toHaveLength(1);
  });
});

describe('a job and its stream', () => {
  let quiet: readonly SseEvent[];
  beforeAll(async () => {
    quiet = await quietRun();
  });

  test('survive kill -9: the next start goes on, and the reader misses nothing and sees nothing twice', async () => {
    const { read, again, job } = await disturbed(async (first) => {
      expect(await first.kill('SIGKILL')).toEqual({ code: null, signal: 'SIGKILL' });
    });
    expect(job).toMatchObject({ state: 'done', slice: 2 });
    expect(read).toEqual(quiet);
    expect(again).toEqual(quiet);
  });
});

describe('who may ask', () => {
  test('other machines only with keys: an open host without them is refused', async () => {
    await expect(serve(freshStore(), '--host', '0.0.0.0')).rejects.toThrow(/ERR_OPTION.*--api-keys/);
  });

  test('a file of hashes lets its keys in and no other', async () => {
    const file = path.join(path.dirname(freshStore()), 'keys.json');
    writeFileSync(file, JSON.stringify([{ sha256: createHash('sha256').update('sk-open-sesame').digest('hex'), tenant: 'acme' }]));
    await using server = await serve(freshStore(), '--api-keys', file);
    await expect(server.openai.chat.completions.create(ASK)).rejects.toBeInstanceOf(OpenAI.AuthenticationError);
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'sk-open-sesame', maxRetries: 0 });
    expect((await client.chat.completions.create(ASK)).choices).toHaveLength(1);
  });

  test('a file that is wrong says where', async () => {
    const file = path.join(path.dirname(freshStore()), 'wrong.json');
    writeFileSync(file, JSON.stringify([{ sha256: 'x', tenant: 'acme' }]));
    await expect(serve(freshStore(), '--api-keys', file)).rejects.toThrow(/ERR_OPTION.*0\.sha256/);
  });

  test('a port that is in use is said to be', async () => {
    await using server = await serve(freshStore());
    await expect(serve(freshStore(), '--port', new URL(server.url).port)).rejects.toThrow(/ERR_OPTION.*in use/);
  });
});
