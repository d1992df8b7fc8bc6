/**
 * The same bundle on Node, as a Lambda handler and on workerd, over S3 (versitygw) and SQS (fauxqs), with a worker in a process of its own: the
 * real OpenAI client gets from each what `ruminate serve` answers, and a stream goes from host to host without missing an event.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { openStore } from '../../engine/adapters/store-url.ts';
import { createJob } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import { push } from '../../engine/model/push.ts';
import { Webhooks } from '../../engine/webhook/webhooks.ts';
import { ensurePeer } from '../../scripts/peers/build.mjs';
import { startFauxqs } from '../helpers/fauxqs.ts';
import { Bundles, type Environment, type Instance, openaiAt } from '../helpers/hosts.ts';
import { ensureRic, invoke } from '../helpers/lambda.ts';
import { COUNTDOWN } from '../helpers/models.ts';
import { startReceiver } from '../helpers/receiver.ts';
import type { S3Peer } from '../helpers/s3-peer.ts';
import { type Served, serve } from '../helpers/served.ts';
import { ROOT } from '../helpers/setup.ts';
import { type SseEvent, readSse } from '../helpers/sse.ts';
import type { SqsPeer } from '../helpers/sqs-peer.ts';
import type { SqsWork } from '../helpers/sqs-worker.ts';
import { startVersitygw } from '../helpers/versitygw.ts';

type Spoken = ChildProcess & { said: string };

const KEY = 'acme-key';
const ASKED = { model: 'countdown@cr2', messages: [{ role: 'user' as const, content: '4 20 8 13 target 59' }], seed: 7, max_tokens: 200 };
/** As long as it may be: token 2 ends a chain. */
const LONG = { model: 'countdown@cr2', prompt: '4 20 8 13 target 59', seed: 7, early_stop: false, budget: { length: 900, width: 2 }, sampling: { temperature: 1, logit_bias: [[2, -100]] } };

const peer = ensurePeer('versitygw');
const ric = ensureRic();
if ('missing' in peer) process.stdout.write(`skipped: functions on S3: ${peer.missing}\n`);
if (ric === null) process.stdout.write('skipped: functions on Lambda: npm could not fetch aws-lambda-ric\n');

describe.skipIf('missing' in peer)('one bundle', () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'ruminate-edge-'));
  const children: ChildProcess[] = [];
  let s3: S3Peer;
  let sqs: SqsPeer;
  let bundles: Bundles;
  let environment: Environment;
  let local: Served;
  let always: Spoken;

  beforeAll(async () => {
    s3 = await startVersitygw('binary' in peer ? peer.binary : '');
    Object.assign(process.env, s3.environment);
    sqs = await startFauxqs();
    const { url } = await sqs.urls(100);
    await push(COUNTDOWN, await openStore(`s3://${s3.bucket}/models`));
    environment = {
      ...s3.environment, RUMINATE_STORE: `s3://${s3.bucket}/platform`, RUMINATE_MODELS_STORE: `s3://${s3.bucket}/models`, RUMINATE_QUEUE: url, RUMINATE_SQS_ENDPOINT: sqs.endpoint, RUMINATE_LOG_LEVEL: 'error',
      RUMINATE_API_KEYS: JSON.stringify([{ sha256: createHash('sha256').update(KEY).digest('hex'), tenant: 'acme' }]),
    };
    bundles = await Bundles.build('api', 'chat', 'reconciler');
    local = await serve(path.join(folder, 'local'));
    always = await worker();
  }, 600_000);

  afterAll(async () => {
    for (const child of children) child.kill('SIGKILL');
    await local?.[Symbol.asyncDispose]();
    bundles?.[Symbol.dispose]();
    await sqs?.[Symbol.asyncDispose]();
    await s3?.[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  /** On a machine that has no model of its own: it pulls from the models store. */
  async function worker(): Promise<Spoken> {
    return await started(['bin/ruminate.mjs', 'worker', '--threads', '1', '--checkpoint-tokens', '40', '--journal-time', '100ms'], 'working for');
  }

  async function stoppingWorker(stopAfterHeads: number, queue: string, store = environment.RUMINATE_STORE ?? ''): Promise<Spoken> {
    const work: SqsWork = { store, queue, stopAfterHeads };
    return await started(['--import', 'tsx', 'test/helpers/sqs-worker.ts', JSON.stringify(work)], 'ready');
  }

  async function started(args: readonly string[], sign: string): Promise<Spoken> {
    const { RUMINATE_LOG_LEVEL: _, ...where } = environment;
    const child = spawn(process.execPath, args, { cwd: ROOT, env: { ...process.env, ...where, RUMINATE_CACHE: path.join(folder, 'cache'), RUMINATE_MODELS: path.join(folder, 'none') }, stdio: ['ignore', 'pipe', 'pipe'] });
    children.push(child);
    const spoken = Object.assign(child, { said: '' });
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => { spoken.said += chunk.toString(); });
    await said(spoken, sign);
    return spoken;
  }

  async function said(child: { said: string }, word: string): Promise<void> {
    await vi.waitFor(() => expect(child.said).toContain(word), { timeout: 60_000, interval: 20 });
  }

  async function ended(child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    const closed = once(child, 'close');
    child.kill(signal);
    await closed;
  }

  const HOSTS: readonly (readonly [string, (changes?: Environment) => Promise<Instance>])[] = [
    ['Node', (changes) => bundles.onNode('api', { ...environment, ...changes })],
    ['workerd', (changes) => bundles.onWorkerd('api', { ...environment, ...changes })],
    ...(ric === null ? [] : [['Lambda', (changes?: Environment) => bundles.onLambda('api', { ...environment, ...changes }, ric)] as const]),
  ];

  describe.each(HOSTS)('on %s', (_, start) => {
    test('answers the OpenAI client as `ruminate serve` does, whole and streamed', async () => {
      await using instance = await start();
      const openai = openaiAt(instance, KEY);
      const expected = await local.openai.chat.completions.create(ASKED);
      const whole = await openai.chat.completions.create(ASKED);
      expect(whole.choices).toEqual(expected.choices);
      expect(whole.usage).toEqual(expected.usage);
      const texts = { reasoning: '', content: '' };
      let finish: string | null = null;
      for await (const { choices: [choice] } of await openai.chat.completions.create({ ...ASKED, stream: true })) {
        texts.content += choice?.delta.content ?? '';
        texts.reasoning += (choice?.delta as { reasoning_content?: string } | undefined)?.reasoning_content ?? '';
        finish = choice?.finish_reason ?? finish;
      }
      const [choice] = expected.choices;
      expect(texts).toEqual({ reasoning: (choice?.message as { reasoning_content?: string }).reasoning_content ?? '', content: choice?.message.content ?? '' });
      expect(finish).toBe(choice?.finish_reason);
      expect((await openai.models.list()).data.map(({ id }) => id)).toEqual((await local.openai.models.list()).data.map(({ id }) => id));
    }, 120_000);

    test('does not look at the body of a GET or HEAD', async () => {
      await using instance = await start();
      for (const method of ['GET', 'HEAD']) {
        const headers = { authorization: `Bearer ${KEY}`, 'content-length': '2' };
        const response = await new Promise<IncomingMessage>((resolve, reject) => { request(`${instance.url}/v1/models`, { method, headers, agent: false }, resolve).on('error', reject).end('{}'); });
        response.resume();
        expect([method, response.statusCode, response.headers['content-type']]).toEqual([method, 200, 'application/json']);
      }
    }, 120_000);

    test('answers in the background, and its stream is read again from any number', async () => {
      await using instance = await start();
      const openai = openaiAt(instance, KEY);
      const asked = { model: ASKED.model, input: ASKED.messages[0]?.content ?? '', max_output_tokens: 120 };
      const { id } = await openai.responses.create({ ...asked, background: true });
      await vi.waitFor(async () => expect((await openai.responses.retrieve(id)).status).not.toMatch(/queued|in_progress/), { timeout: 60_000, interval: 100 });
      const read = async (starting_after?: number) => {
        const events: unknown[] = [];
        for await (const event of await openai.responses.retrieve(id, { stream: true, ...(starting_after === undefined ? {} : { starting_after }) })) events.push(event);
        return events as { sequence_number: number }[];
      };
      const all = await read();
      expect(all.length).toBeGreaterThan(10);
      const after = all[5]?.sequence_number ?? 0;
      expect(await read(after)).toEqual(all.slice(6));
      // And what is stored of it can be looked at.
      const job = id.slice('resp_'.length);
      const stored = async (at: string) => await (await fetch(`${instance.url}/v1/checkpoints${at}`, { headers: { authorization: `Bearer ${KEY}` } })).json() as Record<string, unknown>;
      expect((await stored('?limit=100')).data).toEqual(expect.arrayContaining([expect.objectContaining({ id: job, model: ASKED.model })]));
      expect(await stored(`/${job}`)).toMatchObject({ id: job, usd_per_month: expect.any(Number) as number, chains: [{ chain: 0, tokens: expect.any(Number) as number }], missing: [] });
    }, 120_000);

    test('knows a caller by his key, and refuses what is wrong as everywhere', async () => {
      await using instance = await start();
      await expect(openaiAt(instance, 'nobody').models.list()).rejects.toMatchObject({ status: 401, code: 'invalid_api_key' });
      await expect(openaiAt(instance, KEY).chat.completions.create({ ...ASKED, model: 'none' })).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
      expect((await fetch(`${instance.url}/health/ready`)).status).toBe(200);
    }, 60_000);
  });

  test('kept to one function it answers for that one', async () => {
    await using instance = await bundles.onWorkerd('chat', environment);
    expect((await fetch(`${instance.url}/v1/models`, { headers: { authorization: `Bearer ${KEY}` } })).status).toBe(404);
    expect((await fetch(`${instance.url}/v1/chat/completions`, { method: 'POST', body: '{}', headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' } })).status).toBe(400);
  });

  test('reads a running job on one host, is killed, and goes on with it on the others: no event is missed or seen twice', async () => {
    // A queue of its own: what is in the other may be given to a worker that has gone, who asked last.
    await ended(always, 'SIGTERM');
    const changes = { RUMINATE_QUEUE: (await sqs.urls(100)).url };
    const authorization = `Bearer ${KEY}`;
    const events = async (instance: Instance, job: string, after: string | null, until?: (event: SseEvent) => boolean) => {
      const response = await fetch(`${instance.url}/v1/jobs/${job}/events`, { headers: { authorization, ...(after === null ? {} : { 'last-event-id': after }) } });
      expect(response.status).toBe(200);
      return (await readSse(response, until)).filter(({ id }) => id !== null);
    };
    const last = (seen: readonly SseEvent[]) => seen.at(-1)?.id ?? null;
    const first = await bundles.onWorkerd('api', { ...environment, ...changes });
    const made = await fetch(`${first.url}/v1/jobs`, { method: 'POST', headers: { authorization, 'content-type': 'application/json' }, body: JSON.stringify(LONG) });
    const body = (await made.json()) as { id: string };
    expect(made.status, JSON.stringify(body)).toBe(201);

    // Take, then commits; it stands still after the fourth write, with about a hundred steps told.
    const child = await stoppingWorker(4, changes.RUMINATE_QUEUE);
    const seen: SseEvent[] = [];
    seen.push(...await events(first, body.id, null, ({ id }) => id === '30'));
    await said(child, 'stopped');
    // Killed while somebody reads.
    const reading = events(first, body.id, last(seen)).catch(() => []);
    await first[Symbol.asyncDispose]();
    await reading;
    for (const [, start] of HOSTS.slice(1)) {
      await using next = await start(changes);
      const from = Number(last(seen));
      seen.push(...await events(next, body.id, last(seen), ({ id }) => id === String(from + 20)));
      expect(last(seen)).toBe(String(from + 20));
    }
    child.kill('SIGCONT');
    await using final = await bundles.onNode('api', { ...environment, ...changes });
    seen.push(...await events(final, body.id, last(seen)));

    const whole = await events(final, body.id, null);
    expect(seen.map(({ id, event, data }) => ({ id, event, data }))).toEqual(whole.map(({ id, event, data }) => ({ id, event, data })));
    expect(whole.at(-1)?.event).toBe('end');
    await ended(child, 'SIGKILL');
  }, 180_000);

  test('cancels the job of a client that goes away', async () => {
    await using instance = await bundles.onWorkerd('api', environment);
    const openai = openaiAt(instance, KEY);
    const stream = await openai.chat.completions.create({ ...ASKED, stream: true }).withResponse();
    const job = stream.response.headers.get('x-ruminate-job') ?? '';
    stream.data.controller.abort();
    await vi.waitFor(async () => {
      const view = (await (await fetch(`${instance.url}/v1/jobs/${job}`, { headers: { authorization: `Bearer ${KEY}` } })).json()) as { state: string };
      expect(view.state).toBe('cancelled');
    }, { timeout: 30_000, interval: 200 });
  }, 60_000);

  test.skipIf(ric === null)('the reconciler on Lambda, on a schedule, sends again what nobody has moved, delivers webhooks, and says how much work there is', async () => {
    const authorization = `Bearer ${KEY}`;
    const changes = { RUMINATE_STORE: `s3://${s3.bucket}/reconciled`, RUMINATE_QUEUE: (await sqs.urls(100)).url };
    const store = await openStore(changes.RUMINATE_STORE);
    await using receiver = await startReceiver();
    await new Webhooks({ store, keys: null, allowLoopback: true }).create({ tenant: 'acme', url: `${receiver.url}/hook`, events: ['job.*'] });
    // A job whose message was lost, and one that was cancelled by somebody who died before he told anyone.
    await using api = await bundles.onNode('api', { ...environment, ...changes, RUMINATE_QUEUE: 'none' });
    const made = await fetch(`${api.url}/v1/jobs`, { method: 'POST', headers: { authorization, 'content-type': 'application/json' }, body: JSON.stringify({ ...LONG, budget: { length: 40, width: 2 } }) });
    const { id } = (await made.json()) as { id: string };
    await createJob(store, { tenant: 'acme', job: 'untold' }, '{}');
    await endJob(store, { tenant: 'acme', job: 'untold' }, 'cancelled');

    const aware = { ...environment, ...changes, RUMINATE_EMF: 'Ruminate', RUMINATE_WEBHOOKS_TO_LOOPBACK: '1' };
    const scheduled = { version: '0', source: 'aws.scheduler', 'detail-type': 'Scheduled Event', resources: [], detail: {} };
    await using first = await bundles.onLambda('reconciler', aware, ric ?? '');
    expect(await invoke(first, scheduled)).toMatchObject({ sent: 0, work: { waiting: 1 } });
    expect(receiver.received.map(({ body }) => (JSON.parse(body) as { type: string; data: { id: string } }))).toMatchObject([{ type: 'job.cancelled', data: { id: 'untold' } }]);
    // A minute ago, as another instance finds it.
    const memory = await store.get('walk/memory.json', { bytesMax: 1e6 });
    const aged = JSON.parse(Buffer.concat(memory?.chunks ?? []).toString()) as { seen: [string, string, number][] };
    for (const each of aged.seen) each[2] -= 60_000;
    await store.put('walk/memory.json', [Buffer.from(JSON.stringify(aged))]);
    await using second = await bundles.onLambda('reconciler', aware, ric ?? '');
    expect(await invoke(second, scheduled)).toMatchObject({ sent: 1 });
    expect(JSON.parse(second.log.text.split('\n').find((line) => line.startsWith('{"_aws"')) ?? '{}')).toMatchObject({ Service: 'reconciler', JobsWaiting: 1, BacklogSeconds: 60 });

    const child = await stoppingWorker(1_000, changes.RUMINATE_QUEUE, changes.RUMINATE_STORE);
    await vi.waitFor(async () => {
      expect(await (await fetch(`${api.url}/v1/jobs/${id}`, { headers: { authorization } })).json()).toMatchObject({ state: 'done' });
    }, { timeout: 60_000, interval: 200 });
    await ended(child, 'SIGKILL');
  }, 180_000);
});
