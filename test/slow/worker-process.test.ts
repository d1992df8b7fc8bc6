/** `ruminate worker` as an operator has it: a process beside the one that answers, what makes it stop, and what becomes of its jobs then. */
import { spawn } from 'node:child_process';
import { GetQueueAttributesCommand, SendMessageCommand } from '@aws-sdk/client-sqs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { follow, freshStore, isAt, type Job, LONG as WIDE, OFTEN, removeStores } from '../helpers/followed-job.ts';
import { startFauxqs } from '../helpers/fauxqs.ts';
import { serve } from '../helpers/served.ts';
import type { SseEvent } from '../helpers/sse.ts';
import { ROOT } from '../helpers/setup.ts';
import { work, Working } from '../helpers/working.ts';

const LONG = { ...WIDE, budget: { width: 4, length: 600 } };
/** Longer than anything here waits. */
const VAST = { ...WIDE, budget: { width: 64, length: 900 } };

// In a fresh checkout the first run builds.
beforeAll(async () => void await (await serve(freshStore())).kill('SIGTERM'), 600_000);
afterAll(removeStores);

let quiet: readonly SseEvent[];
beforeAll(async () => {
  await using server = await serve(freshStore());
  quiet = await follow(server, (await server.post<Job>('/v1/jobs', LONG)).id);
});

describe('a worker beside the server', () => {
  test('runs what the server is asked for; the server itself runs nothing', async () => {
    const store = freshStore();
    await using server = await serve(store, '--no-worker');
    expect(server.banner).toContain('no worker here');
    const { id } = await server.post<Job>('/v1/jobs', LONG);
    expect(await server.get<object>('/health')).toMatchObject({ queued: 1, running: 0 });
    await using worker = await work({ store, args: [...OFTEN, '--metrics-port', '0'] });
    expect(await follow(server, id)).toEqual(quiet);
    expect(await server.get<Job>(`/v1/jobs/${id}`)).toMatchObject({ state: 'done', slice: 1 });
    const at = /metrics and health at (http:\S+)/.exec(worker.log)?.[1] ?? '';
    const lineOf = async (name: string) => (await (await fetch(`${at}/metrics`)).text()).split('\n').find((line) => line.startsWith(`ruminate_${name} `))?.split(' ')[1];
    expect(await (await fetch(`${at}/health/ready`)).json()).toMatchObject({ state: 'ready' });
    const NAMES = ['e2e_request_latency_seconds_count', 'request_time_per_output_token_seconds_count', 'request_queue_time_seconds_count', 'worker_slots', 'worker_occupancy'];
    // It has told the job's end before it is through with it.
    await vi.waitFor(async () => expect(await Promise.all(NAMES.map(lineOf))).toEqual(['1', '1', '1', '8', '0']), { timeout: 60_000, interval: 50 });
    expect(Number(await lineOf('worker_slot_seconds_total'))).toBeGreaterThan(0);
    expect(Number(await lineOf('backlog_seconds'))).toBeGreaterThanOrEqual(0);
  });

  test('stops for SIGTERM: its job is handed back in good order, and another goes on from there', async () => {
    const store = freshStore();
    await using server = await serve(store, '--no-worker');
    const { id } = await server.post<Job>('/v1/jobs', VAST);
    const first = await work({ store, args: [...OFTEN, '--model', 'countdown@dense'] });
    await follow(server, id, -1, isAt(400));
    expect(await first.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(first.log).toContain('1 job was handed back');
    const parked = await server.get<Job>(`/v1/jobs/${id}`);
    expect(parked).toMatchObject({ state: 'parked', slice: 1 });
    expect(await server.get<object>('/health'), 'its continuation').toMatchObject({ queued: 1 });
    await using _ = await work({ store, args: OFTEN });
    await follow(server, id, -1, isAt(VAST.budget.width * (parked.step + 1)));
    expect(await server.get<Job>(`/v1/jobs/${id}`)).toMatchObject({ state: 'running', slice: 2 });
  });

  test('stops for SIGTERM while it still waits for its store', async () => {
    const silent = createServer();
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const endpoint = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    const env = { ...process.env, RUMINATE_S3_ENDPOINT: endpoint, AWS_REGION: 'us-east-1', AWS_ACCESS_KEY_ID: 'a', AWS_SECRET_ACCESS_KEY: 'b' };
    const worker = new Working(spawn(process.execPath, [path.join(ROOT, 'bin', 'ruminate.mjs'), 'worker', '--store', 's3://bucket/jobs', '--queue', freshStore()], { env, stdio: ['ignore', 'ignore', 'pipe'] }));
    await new Promise((resolve) => silent.once('request', resolve));
    expect(await worker.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(worker.log).toContain('stopped; 0 jobs were handed back');
    silent.closeAllConnections();
    silent.close();
  });

  test('stops for a Spot notice as for a signal', async () => {
    const store = freshStore();
    const metadata = new Metadata();
    const endpoint = await metadata.listen();
    await using server = await serve(store, '--no-worker');
    const { id } = await server.post<Job>('/v1/jobs', VAST);
    const worker = await work({ store, args: [...OFTEN, '--spot'], env: { AWS_EC2_METADATA_SERVICE_ENDPOINT: endpoint } });
    await follow(server, id, -1, isAt(100));
    metadata.notice = { action: 'terminate', time: '2026-11-25T12:00:00Z' };
    expect(await worker.exited).toEqual({ code: 0, signal: null });
    expect(worker.log).toContain('EC2 takes this machine back (terminate at 2026-11-25T12:00:00Z)');
    expect(await server.get<Job>(`/v1/jobs/${id}`)).toMatchObject({ state: 'parked', slice: 1 });
    expect(metadata.asked.every((each) => each.startsWith('PUT /latest/api/token') || each.endsWith('token')), 'IMDSv2').toBe(true);
    await metadata.close();
  });

  test('stops for a notice of EventBridge that is about its machine', async () => {
    await using sqs = await startFauxqs();
    const { url } = await sqs.urls(10);
    const worker = await work({ store: freshStore(), args: ['--notices', url], env: { ...sqs.environment, RUMINATE_INSTANCE: 'i-1' } });
    const notice = { source: 'aws.ec2', 'detail-type': 'EC2 Spot Instance Interruption Warning', time: new Date().toISOString(), detail: { 'instance-id': 'i-1', 'instance-action': 'terminate' } };
    await sqs.client.send(new SendMessageCommand({ QueueUrl: url, MessageBody: JSON.stringify(notice) }));
    expect(await worker.exited).toEqual({ code: 0, signal: null });
    expect(worker.log).toContain('EC2 takes this machine back (terminate at ');
    const { Attributes = {} } = await sqs.client.send(new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ['All'] }));
    expect([Attributes.ApproximateNumberOfMessages, Attributes.ApproximateNumberOfMessagesNotVisible], 'it is removed before it exits').toEqual(['0', '0']);
  });

  test('stops before its time limit, and does not begin with a memory limit that leaves no room for a job', async () => {
    const store = freshStore();
    await using server = await serve(store, '--no-worker');
    const { id } = await server.post<Job>('/v1/jobs', VAST);
    const timed = await work({ store, args: [...OFTEN, '--time-limit', '33s', '--grace', '30s'] });
    expect(await timed.exited).toEqual({ code: 0, signal: null });
    expect(timed.log).toContain('time limit of 33000 ms');
    // Where there is much else to do it may not have begun, and where there is nothing else it may have ended.
    expect((await server.get<Job>(`/v1/jobs/${id}`)).state).not.toBe('running');
    await expect(work({ store, args: ['--memory-limit', '1MiB'] })).rejects.toThrow(/ERR_OPTION.*--memory-limit.*1048576 bytes/);
  });
});

describe('a configuration', () => {
  test('that is wrong is refused before anything, with all that is wrong', async () => {
    await expect(work({ store: freshStore(), args: ['--slots', '0', '--grace', 'soon'], env: { RUMINATE_SPOT: 'yes' } })).rejects.toThrow(/ERR_OPTION: 3 things.*--grace.*--slots.*RUMINATE_SPOT/s);
    await expect(work({ store: freshStore(), args: ['--queue', 'amqp://x'] })).rejects.toThrow(/ERR_QUEUE_CONFIG.*unknown scheme "amqp:"/);
    await expect(work({ store: freshStore(), args: ['--notices', 'https://sqs.eu-central-1.amazonaws.com/123456789012/notices'], env: { AWS_EC2_METADATA_SERVICE_ENDPOINT: 'http://127.0.0.1:9' } })).rejects.toThrow(/ERR_OPTION.*RUMINATE_INSTANCE/);
    await expect(work({ store: 'memory:' })).rejects.toThrow(/ERR_OPTION.*--queue or RUMINATE_QUEUE/);
  });
});

/** The instance's metadata service, as far as it is asked. */
class Metadata {
  notice: object | null = null;
  readonly asked: string[] = [];
  readonly #server = createServer((request, response) => {
    const token = request.headers['x-aws-ec2-metadata-token'];
    this.asked.push(`${request.method} ${request.url} ${token === 'good' ? 'token' : ''}`);
    const [status, body] = request.method === 'PUT' ? [200, 'good'] : token !== 'good' ? [401, ''] : this.notice === null ? [404, ''] : [200, JSON.stringify(this.notice)];
    response.writeHead(status).end(body);
  });

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
