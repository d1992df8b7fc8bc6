/** /v1/webhooks on a real platform: a worker with the bundled model, and receivers on real sockets that check signatures as theirs would. */
import { toFile } from 'openai';
import { Webhook } from 'standardwebhooks';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { type Front, Fronts } from '../helpers/fronts.ts';
import { type Received, type Receiver, startReceiver } from '../helpers/receiver.ts';

const PROMPT = '7 18 17 7 target 35';
const JOB = { model: 'countdown@cr2', prompt: PROMPT, budget: { width: 1, length: 3 } };
/** Runs for as long as a test looks at it. */
const LONG = { model: 'countdown@dense', prompt: '3 5 7 11 13 17 target 997', sampling: { temperature: 5, logit_bias: [[2, -100]] }, budget: { width: 8 }, vote: 'none' };
const WAIT = { timeout: 30_000, interval: 20 };

interface Hook {
  readonly id: string;
  readonly secret: string;
}

interface Delivery {
  readonly id: string;
  readonly type: string;
  readonly subject: string;
  readonly state: string;
  readonly attempts: number;
  readonly last_status: number | null;
}

let fronts: Fronts;
let front: Front;
beforeAll(async () => {
  fronts = new Fronts();
  fronts.work();
  front = await fronts.front();
});
afterAll(() => fronts[Symbol.asyncDispose]());

async function ask<T>(method: string, path: string, body?: unknown, tenant = 'acme'): Promise<{ readonly status: number; readonly body: T }> {
  const headers = { authorization: `Bearer ${tenant}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) };
  const response = await fetch(front.url + path, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  const text = await response.text();
  return { status: response.status, body: (text === '' ? null : JSON.parse(text)) as T };
}

async function hookTo(receiver: Receiver, events: readonly string[]): Promise<Hook> {
  const { status, body } = await ask<Hook>('POST', '/v1/webhooks', { url: `${receiver.url}/hooks`, events });
  expect(status).toBe(201);
  return body;
}

const told = async (receiver: Receiver, count: number) => await vi.waitFor(() => {
  expect(receiver.received.length).toBeGreaterThanOrEqual(count);
  return receiver.received;
}, WAIT);
const verified = ({ secret }: Hook, { body, headers }: Received) => new Webhook(secret).verify(body, headers as Record<string, string>) as { type: string; data: { id: string; url: string } };
const deliveriesOf = async (hook: Hook) => (await ask<{ data: Delivery[] }>('GET', `/v1/webhooks/${hook.id}/deliveries`)).body.data;

describe('a webhook', () => {
  test('is sent when a job ends, verifies, says nothing of the prompt, and links to the result', async () => {
    await using receiver = await startReceiver();
    const hook = await hookTo(receiver, ['job.*']);
    const job = (await ask<{ id: string }>('POST', '/v1/jobs', JOB)).body.id;
    const [received] = await told(receiver, 1) as [Received];
    const event = verified(hook, received);
    expect(event).toMatchObject({ type: 'job.completed', data: { id: job, object: 'job', url: `/v1/jobs/${job}` } });
    expect(received.body).not.toContain(PROMPT);
    expect((await ask<{ state: string }>('GET', event.data.url)).body.state).toBe('done');
    expect(() => new Webhook(hook.secret).verify(`${received.body} `, received.headers as Record<string, string>)).toThrow();
    await vi.waitFor(async () => expect(await deliveriesOf(hook)).toMatchObject([{ type: 'job.completed', subject: job, state: 'delivered', attempts: 1, last_status: 204 }]), WAIT);
    await ask('DELETE', `/v1/webhooks/${hook.id}`);
  });

  test('of a background response and of a batch is what OpenAI\'s own client unwraps', async () => {
    await using receiver = await startReceiver();
    const hook = await hookTo(receiver, ['response.*', 'batch.completed']);
    const openai = front.openai();
    const unwrap = async ({ body, headers }: Received) => await openai.webhooks.unwrap(body, headers as Record<string, string>, hook.secret);
    // In the foreground nobody needs to be told.
    const answered = await openai.responses.create({ model: 'countdown@cr2', input: PROMPT, max_output_tokens: 2 });
    const background = await openai.responses.create({ model: 'countdown@cr2', input: PROMPT, max_output_tokens: 2, background: true });
    const [first] = await told(receiver, 1) as [Received];
    expect(await unwrap(first)).toMatchObject({ object: 'event', type: 'response.incomplete', data: { id: background.id } });
    expect(background.id).not.toBe(answered.id);
    const line = (id: number) => JSON.stringify({ custom_id: `${id}`, method: 'POST', url: '/v1/chat/completions', body: { model: 'countdown@cr2', messages: [{ role: 'user', content: PROMPT }], max_tokens: 1 } });
    const { id: file } = await openai.files.create({ purpose: 'batch', file: await toFile(Buffer.from([1, 2].map(line).join('\n')), 'in.jsonl') });
    const batch = await openai.batches.create({ input_file_id: file, endpoint: '/v1/chat/completions', completion_window: '24h' });
    await vi.waitFor(async () => expect((await openai.batches.retrieve(batch.id)).status).toBe('completed'), WAIT);
    const [, second] = await told(receiver, 2) as [Received, Received];
    expect(await unwrap(second)).toMatchObject({ type: 'batch.completed', data: { id: batch.id, url: `/v1/batches/${batch.id}` } });
    // Its lines are told of as the batch.
    expect((await deliveriesOf(hook)).map(({ type }) => type).sort()).toEqual(['batch.completed', 'response.incomplete']);
    await ask('DELETE', `/v1/webhooks/${hook.id}`);
  });

  test('whose receiver hangs keeps nobody waiting: not a cancel, not health, not a job, not its own result', async () => {
    await using receiver = await startReceiver(() => undefined);
    const hook = await hookTo(receiver, ['job.*']);
    const first = (await ask<{ id: string }>('POST', '/v1/jobs', JOB)).body.id;
    await told(receiver, 1);
    const long = (await ask<{ id: string }>('POST', '/v1/jobs', LONG)).body.id;
    expect((await ask<{ status: string }>('POST', `/v1/jobs/${long}/cancel`)).body.status).toBe('cancelled');
    expect((await ask('GET', '/health')).status).toBe(200);
    const next = (await ask<{ id: string }>('POST', '/v1/jobs', { ...JOB, seed: 1 })).body.id;
    await vi.waitFor(async () => expect((await ask<{ state: string }>('GET', `/v1/jobs/${next}`)).body.state).toBe('done'), WAIT);
    expect((await ask('GET', `/v1/jobs/${first}/result`)).status).toBe(200);
    // Two of them hang, as many as may; none has been answered.
    await told(receiver, 2);
    expect((await deliveriesOf(hook)).map(({ state }) => state)).toEqual(['pending', 'pending', 'pending']);
    await ask('DELETE', `/v1/webhooks/${hook.id}`);
  });

  test('is replayed by its id, signed with a new secret and the old one', async () => {
    await using receiver = await startReceiver(500);
    const hook = await hookTo(receiver, ['job.completed']);
    await ask('POST', '/v1/jobs', { ...JOB, seed: 2 });
    await told(receiver, 1);
    const [delivery] = await vi.waitFor(async () => {
      const found = await deliveriesOf(hook);
      expect(found).toMatchObject([{ state: 'pending', last_status: 500 }]);
      return found;
    }, WAIT) as [Delivery];
    const rotated = (await ask<Hook>('POST', `/v1/webhooks/${hook.id}/rotate`)).body;
    receiver.answer = 200;
    expect(await ask('POST', `/v1/webhooks/${hook.id}/deliveries/${delivery.id}/replay`)).toMatchObject({ status: 200, body: { id: delivery.id, state: 'pending', replays: 1 } });
    await vi.waitFor(async () => expect(await deliveriesOf(hook)).toMatchObject([{ state: 'delivered', attempts: 1, last_status: 200 }]), WAIT);
    // Where this took seconds, it was tried once more by itself before.
    const [first, second] = [receiver.received[0], receiver.received.at(-1)] as [Received, Received];
    expect(receiver.received.length).toBeGreaterThan(1);
    expect(second.headers['webhook-id']).toBe(first.headers['webhook-id']);
    for (const secret of [hook.secret, rotated.secret]) verified({ ...hook, secret }, second);
    expect(() => verified(rotated, first)).toThrow();
    await ask('DELETE', `/v1/webhooks/${hook.id}`);
  });

  test('shows its secret once, is listed, and is refused where it could do harm', async () => {
    await using receiver = await startReceiver();
    const hook = await hookTo(receiver, ['batch.*', 'batch.*']);
    for (const shown of [(await ask('GET', `/v1/webhooks/${hook.id}`)).body, (await ask<{ data: unknown[] }>('GET', '/v1/webhooks')).body.data[0]]) {
      expect(shown).toEqual({ object: 'webhook', id: hook.id, url: `${receiver.url}/hooks`, events: ['batch.*'], created_at: expect.any(Number) });
    }
    for (const url of ['https://10.0.0.1/', 'http://8.8.8.8/', 'https://169.254.169.254/', 'https://u:p@example.com/', 'nothing']) {
      expect(await ask('POST', '/v1/webhooks', { url, events: ['job.*'] })).toMatchObject({ status: 400, body: { code: 'invalid_value', param: 'url' } });
    }
    expect(await ask('POST', '/v1/webhooks', { url: receiver.url, events: ['nothing.*'] })).toMatchObject({ status: 400, body: { param: 'events.0' } });
    expect(await ask('POST', '/v1/webhooks', { url: receiver.url, events: [] })).toMatchObject({ status: 400, body: { param: 'events' } });
    // A secret is told once, so a repetition cannot be answered as the first was.
    const keyed = { method: 'POST', headers: { authorization: 'Bearer acme', 'content-type': 'application/json', 'Idempotency-Key': 'k' }, body: JSON.stringify({ url: receiver.url, events: ['job.*'] }) };
    const refused = await fetch(`${front.url}/v1/webhooks`, keyed);
    expect([refused.status, await refused.json()]).toMatchObject([400, { code: 'unsupported_parameter', param: 'idempotency-key' }]);
    // Another tenant has none of it.
    const { id: other } = (await ask<Hook>('POST', '/v1/webhooks', { url: receiver.url, events: ['job.*'] }, 'other')).body;
    for (const [method, path] of [['GET', ''], ['DELETE', ''], ['POST', '/rotate'], ['GET', '/deliveries'], ['POST', '/deliveries/msg_01J9ZK0T9WQ2Y4ZJ4N5T6V7X8Y/replay']] as const) {
      expect([path, (await ask(method, `/v1/webhooks/${other}${path}`)).status]).toEqual([path, 404]);
    }
    await ask('POST', '/v1/jobs', { ...JOB, seed: 3 });
    expect((await ask('DELETE', `/v1/webhooks/${hook.id}`)).status).toBe(204);
    expect((await ask('DELETE', `/v1/webhooks/${hook.id}`)).status).toBe(404);
    const bound = await Promise.all(Array.from({ length: 15 }, () => ask('POST', '/v1/webhooks', { url: receiver.url, events: ['job.*'] }, 'other')));
    expect(bound.at(-1)?.status).toBe(201);
    expect((await ask('POST', '/v1/webhooks', { url: receiver.url, events: ['job.*'] }, 'other')).status).toBe(400);
    expect(receiver.received).toEqual([]);
  });
});
