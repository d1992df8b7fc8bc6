/** What `ruminate serve` tells others of what it does: webhooks that outlive it, and spans, logs and metrics that say nothing of prompts. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Webhook } from 'standardwebhooks';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';

import { type CollectedSpan, startCollector } from '../helpers/collector.ts';
import { startReceiver } from '../helpers/receiver.ts';
import { type Served, serve, serveIn } from '../helpers/served.ts';
import { readSse } from '../helpers/sse.ts';
import { work } from '../helpers/working.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'ruminate-telling-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const WAIT = { timeout: 30_000, interval: 50 };
const MARKER = 'xyzzy4711';
const CHAT = { model: 'countdown@cr2', messages: [{ role: 'user', content: `4 20 8 13 target 59 ${MARKER}` }], max_tokens: 6 };

async function webhook(server: Served, url: string): Promise<{ id: string; secret: string }> {
  return await server.post('/v1/webhooks', { url, events: ['job.*'] });
}

test('a webhook whose receiver was down when the job ended, and whose server was killed, is delivered by the next start', async () => {
  const store = path.join(folder, 'killed');
  await using receiver = await startReceiver(503);
  let hook: { id: string; secret: string };
  let job: string;
  {
    await using first = await serve(store, '--webhooks-to-loopback');
    hook = await webhook(first, receiver.url);
    ({ id: job } = await first.post<{ id: string }>('/v1/jobs', { model: 'countdown@cr2', prompt: '7 18 17 7 target 35', budget: { width: 1, length: 2 } }));
    // Else it is not known to have failed, and is waited for.
    await vi.waitFor(async () => expect((await first.get<{ data: unknown[] }>(`/v1/webhooks/${hook.id}/deliveries`)).data).toMatchObject([{ last_status: 503 }]), WAIT);
    await first.kill('SIGKILL');
  }
  const before = receiver.received.length;
  receiver.answer = 204;
  await using next = await serve(store, '--webhooks-to-loopback', '--public-url', 'https://api.example/');
  await vi.waitFor(() => expect(receiver.received.length).toBeGreaterThan(before), WAIT);
  const { body, headers } = receiver.received[before] as (typeof receiver.received)[number];
  expect(headers['webhook-id']).toBe(receiver.received[0]?.headers['webhook-id']);
  expect(new Webhook(hook.secret).verify(body, headers as Record<string, string>)).toMatchObject({ type: 'job.completed', data: { id: job, url: `https://api.example/v1/jobs/${job}` } });
  await vi.waitFor(async () => expect((await next.get<{ data: unknown[] }>(`/v1/webhooks/${hook.id}/deliveries`)).data).toMatchObject([{ state: 'delivered', attempts: before + 1 }]), WAIT);
});

test('a worker allows webhooks to its own machine as the server does that took them', async () => {
  const store = path.join(folder, 'worker');
  await using receiver = await startReceiver();
  {
    await using server = await serve(store, '--no-worker', '--webhooks-to-loopback');
    await webhook(server, receiver.url);
    await server.post('/v1/jobs', { model: 'countdown@cr2', prompt: '7 18 17 7 target 35', budget: { width: 1, length: 2 } });
  }
  await using _ = await work({ store, args: ['--webhooks-to-loopback'] });
  await vi.waitFor(() => expect(receiver.received).toHaveLength(1), WAIT);
});

test('a request is one trace to its message, slices are linked to it, and no word of a prompt is in spans, log, metrics or webhooks', async () => {
  await using collector = await startCollector();
  await using receiver = await startReceiver();
  const env = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, OTEL_SERVICE_NAME: 'thinker', OTEL_RESOURCE_ATTRIBUTES: 'deployment.environment.name=test', OTEL_BSP_SCHEDULE_DELAY: '100' };
  await using server = await serveIn(env, path.join(folder, 'traced'), '--log-level', 'debug', '--webhooks-to-loopback');
  await webhook(server, receiver.url);
  const traceId = '0af7651916cd43dd8448eb211c80319c';
  const headers = { 'content-type': 'application/json', traceparent: `00-${traceId}-b7ad6b7169203331-01` };
  const streamed = await fetch(`${server.url}/v1/chat/completions`, { method: 'POST', headers, body: JSON.stringify({ ...CHAT, stream: true }) });
  const job = streamed.headers.get('x-ruminate-job') ?? '';
  await readSse(streamed);
  // Refused, and asked for by name: with the prompt where it does not belong.
  await server.post('/v1/chat/completions', { ...CHAT, [MARKER]: MARKER });
  await server.post('/v1/chat/completions', { ...CHAT, stop: [MARKER.repeat(500)] });
  await server.post(`/v1/jobs/none/cancel?${MARKER}`, {});
  await server.post('/v1/responses', { model: 'countdown@cr2', input: CHAT.messages[0]?.content, max_output_tokens: 2, background: true });
  const find = (name: string, more: (span: CollectedSpan) => boolean = () => true) => collector.spans.find((span) => span.name === name && more(span));
  const slice = await vi.waitFor(() => {
    const found = find('process jobs', ({ attributes }) => attributes['ruminate.job'] === job);
    expect(found).toBeDefined();
    return found as CollectedSpan;
  }, WAIT);
  const request = await vi.waitFor(() => {
    const found = find('POST /v1/chat/completions', (span) => span.traceId === traceId);
    expect(found).toBeDefined();
    return found as CollectedSpan;
  }, WAIT);
  expect(request).toMatchObject({
    kind: 2, parentSpanId: 'b7ad6b7169203331', resource: { 'service.name': 'thinker', 'deployment.environment.name': 'test' },
    attributes: { 'http.request.method': 'POST', 'http.route': '/v1/chat/completions', 'http.response.status_code': 200, 'gen_ai.operation.name': 'chat', 'gen_ai.request.model': 'countdown@cr2', 'ruminate.job': job, 'ruminate.tenant': 'local' },
  });
  const sent = find('send jobs', (span) => span.traceId === traceId);
  expect(sent).toMatchObject({ kind: 4, parentSpanId: request.spanId });
  expect(slice).toMatchObject({
    kind: 5, links: [{ traceId, spanId: sent?.spanId }],
    attributes: { 'ruminate.slice.outcome': 'ended', 'ruminate.slice.began': 'started', 'ruminate.job.state': 'done', 'gen_ai.request.model': 'countdown@cr2', 'gen_ai.usage.output_tokens': 6, 'gen_ai.response.finish_reasons': ['length'] },
  });
  expect(slice.traceId).not.toBe(traceId);
  const phases = collector.spans.filter(({ parentSpanId }) => parentSpanId === slice.spanId).map(({ name, traceId: of }) => [name, of === slice.traceId]);
  expect(phases).toEqual([['load model', true], ['restore and prefill', true], ['decode', true]]);
  await vi.waitFor(() => expect(receiver.received).toHaveLength(2), WAIT);
  const wanted = ['time_to_first_token_seconds_count 2', 'resume_total{mode="started",result="ok"} 2', 'checkpoint_seconds_count{op="write"}', 'cold_start_seconds_count{phase="load"} 2', 'webhook_deliveries_total{state="delivered"} 2'].map((name) => `ruminate_${name}`);
  const metrics = await vi.waitFor(async () => {
    const text = await (await fetch(`${server.url}/metrics`)).text();
    expect(wanted.filter((name) => !text.includes(name))).toEqual([]);
    return text;
  }, WAIT);
  await server.kill('SIGINT');
  expect(server.log).toContain(job);
  for (const [what, text] of Object.entries({ spans: collector.raw.join('\n'), log: server.log, metrics, webhooks: JSON.stringify(receiver.received) })) {
    expect(text.length, what).toBeGreaterThan(200);
    expect(text, what).not.toContain(MARKER);
    expect(text, what).not.toContain('target 59');
  }
});

/** What Node says of modules. The interface alone is loaded by prom-client. */
const LOADED = /@opentelemetry\/(sdk|exporter|resources)/;

test('without the variables nothing of OpenTelemetry is loaded; with a collector that is not there nothing is the worse for it', async () => {
  {
    await using server = await serveIn({ NODE_DEBUG: 'module', OTEL_EXPORTER_OTLP_ENDPOINT: '' }, path.join(folder, 'untraced'));
    expect((await fetch(`${server.url}/health`)).status).toBe(200);
    await server.kill('SIGINT');
    expect(LOADED.test(server.log)).toBe(false);
  }
  await using lost = await serveIn({ NODE_DEBUG: 'module', OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9', OTEL_BSP_SCHEDULE_DELAY: '50', OTEL_EXPORTER_OTLP_TIMEOUT: '200' }, path.join(folder, 'lost'), '--log-level', 'info');
  const { choices } = await lost.post<{ choices: unknown[] }>('/v1/chat/completions', CHAT);
  expect(choices).toHaveLength(1);
  expect(await lost.kill('SIGINT')).toMatchObject({ code: 0 });
  expect(LOADED.test(lost.log)).toBe(true);
});
