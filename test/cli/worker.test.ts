/** `ruminate worker` as an operator has it: a process beside the one that answers, what makes it stop, and what becomes of its jobs then. */
import { spawn } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { workerConfig } from '../../functions/worker-env.ts';
import { serve, type Served } from '../helpers/served.ts';
import { type SseEvent, readSse } from '../helpers/sse.ts';
import { ROOT } from '../helpers/setup.ts';
import { work, Working } from '../helpers/working.ts';
import { temporary } from '../resume/jobs.ts';

/** Its chains end only at their length. */
const LONG = { model: 'countdown@dense', prompt: '3 5 7 11 13 17 target 997', sampling: { temperature: 1, logit_bias: [[2, -100]] }, budget: { width: 4, length: 600 }, vote: 'none' };
/** Longer than anything here waits. */
const VAST = { ...LONG, budget: { width: 64, length: 900 } };
const OFTEN = ['--journal-time', '50ms', '--checkpoint-tokens', '100'];

interface Job {
  readonly id: string;
  readonly state: string;
  readonly slice: number;
  readonly step: number;
}

let folder: string;
let stores = 0;
const fresh = () => path.join(folder, `store-${stores++}`);
beforeAll(async () => {
  folder = temporary({ quick: true });
  // In a fresh checkout the first run builds.
  await (await serve(fresh())).kill('SIGTERM');
}, 600_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function follow({ url }: Served, id: string, until: (event: SseEvent) => boolean = () => false): Promise<readonly SseEvent[]> {
  return (await readSse(await fetch(`${url}/v1/jobs/${id}/events`), until)).filter((event) => event.id !== null && event.event !== 'end');
}

const isAt = (seq: number) => ({ id }: SseEvent) => Number(id) >= seq;

let quiet: readonly SseEvent[];
beforeAll(async () => {
  await using server = await serve(fresh());
  quiet = await follow(server, (await server.post<Job>('/v1/jobs', LONG)).id);
});

describe('a worker beside the server', () => {
  test('runs what the server is asked for; the server itself runs nothing', async () => {
    const store = fresh();
    await using server = await serve(store, '--no-worker');
    expect(server.banner).toContain('no worker here');
    const { id } = await server.post<Job>('/v1/jobs', LONG);
    expect(await server.get<object>('/health')).toMatchObject({ queued: 1, running: 0 });
    await using _ = await work({ store, args: OFTEN });
    expect(await follow(server, id)).toEqual(quiet);
    expect(await server.get<Job>(`/v1/jobs/${id}`)).toMatchObject({ state: 'done', slice: 1 });
  });

  test('stops for SIGTERM: its job is handed back in good order, and another goes on from there', async () => {
    const store = fresh();
    await using server = await serve(store, '--no-worker');
    const { id } = await server.post<Job>('/v1/jobs', VAST);
    const first = await work({ store, args: [...OFTEN, '--model', 'countdown@dense'] });
    await follow(server, id, isAt(400));
    expect(await first.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(first.log).toContain('1 job was handed back');
    const parked = await server.get<Job>(`/v1/jobs/${id}`);
    expect(parked).toMatchObject({ state: 'parked', slice: 1 });
    expect(await server.get<object>('/health'), 'its continuation').toMatchObject({ queued: 1 });
    await using _ = await work({ store, args: OFTEN });
    await follow(server, id, isAt(VAST.budget.width * (parked.step + 1)));
    expect(await server.get<Job>(`/v1/jobs/${id}`)).toMatchObject({ state: 'running', slice: 2 });
  });

  test('stops for SIGTERM while it still waits for its store', async () => {
    const silent = createServer();
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
    const endpoint = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    const env = { ...process.env, RUMINATE_S3_ENDPOINT: endpoint, AWS_REGION: 'us-east-1', AWS_ACCESS_KEY_ID: 'a', AWS_SECRET_ACCESS_KEY: 'b' };
    const worker = new Working(spawn(process.execPath, [path.join(ROOT, 'bin', 'ruminate.mjs'), 'worker', '--store', 's3://bucket/jobs', '--queue', fresh()], { env, stdio: ['ignore', 'ignore', 'pipe'] }));
    await new Promise((resolve) => silent.once('request', resolve));
    expect(await worker.kill('SIGTERM')).toEqual({ code: 0, signal: null });
    expect(worker.log).toContain('stopped; 0 jobs were handed back');
    silent.closeAllConnections();
    silent.close();
  });

  test('stops for a Spot notice as for a signal', async () => {
    const store = fresh();
    const metadata = new Metadata();
    const endpoint = await metadata.listen();
    await using server = await serve(store, '--no-worker');
    const { id } = await server.post<Job>('/v1/jobs', VAST);
    const worker = await work({ store, args: [...OFTEN, '--spot'], env: { AWS_EC2_METADATA_SERVICE_ENDPOINT: endpoint } });
    await follow(server, id, isAt(100));
    metadata.notice = { action: 'terminate', time: '2026-11-25T12:00:00Z' };
    expect(await worker.exited).toEqual({ code: 0, signal: null });
    expect(worker.log).toContain('EC2 takes this machine back (terminate at 2026-11-25T12:00:00Z)');
    expect(await server.get<Job>(`/v1/jobs/${id}`)).toMatchObject({ state: 'parked', slice: 1 });
    expect(metadata.asked.every((each) => each.startsWith('PUT /latest/api/token') || each.endsWith('token')), 'IMDSv2').toBe(true);
    await metadata.close();
  });

  test('stops before its time limit, and when it has grown over its memory limit', async () => {
    const store = fresh();
    await using server = await serve(store, '--no-worker');
    const { id } = await server.post<Job>('/v1/jobs', VAST);
    const timed = await work({ store, args: [...OFTEN, '--time-limit', '33s', '--grace', '30s'] });
    expect(await timed.exited).toEqual({ code: 0, signal: null });
    expect(timed.log).toContain('time limit of 33000 ms');
    // Where there is much else to do it may not have begun.
    expect(['parked', 'queued']).toContain((await server.get<Job>(`/v1/jobs/${id}`)).state);
    const large = await work({ store, args: ['--memory-limit', '1MiB'] });
    expect(await large.exited).toEqual({ code: 0, signal: null });
    expect(large.log).toMatch(/bytes resident, above its limit of 1048576/);
  });
});

describe('a configuration', () => {
  test('that is wrong is refused before anything, with all that is wrong', async () => {
    await expect(work({ store: fresh(), args: ['--slots', '0', '--grace', 'soon'], env: { RUMINATE_SPOT: 'yes' } })).rejects.toThrow(/ERR_OPTION: 3 things.*--grace.*--slots.*RUMINATE_SPOT/s);
    await expect(work({ store: fresh(), args: ['--queue', 'amqp://x'] })).rejects.toThrow(/ERR_QUEUE_CONFIG.*unknown scheme "amqp:"/);
    await expect(work({ store: 'memory:' })).rejects.toThrow(/ERR_OPTION.*--queue or RUMINATE_QUEUE/);
  });

  test('takes options before the environment, and the environment before defaults', () => {
    const environment = { RUMINATE_STORE: 's3://bucket', RUMINATE_SLOTS: '3', RUMINATE_GRACE: '20s', RUMINATE_WORKER_MEMORY: '6GiB', RUMINATE_SPOT: '1', RUMINATE_TIME_LIMIT: '' };
    expect(workerConfig({ slots: '2', timeLimit: '14m' }, environment)).toEqual({
      store: 's3://bucket', models: [], slots: 2, threads: undefined, sliceMs: undefined, graceMs: 20_000, timeLimitMs: 840_000, memoryLimitBytes: 6 * 2 ** 30, spot: true, publicUrl: null, walkMs: undefined, policy: {}, webhooksToLoopback: false, logLevel: 'info',
    });
  });

  test('of a time limit shorter than the grace, or a slice longer than a queue hides a message, is refused', () => {
    for (const flags of [{ timeLimit: '1m' }, { sliceTime: '12h' }, { memoryLimit: '6GB' }, { threads: '-1' }, { logLevel: 'loud' }]) {
      expect(() => workerConfig({ store: 'x', ...flags }, {})).toThrow(/The configuration is wrong/);
    }
    expect(() => workerConfig({ store: 'x' }, { RUMINATE_PUBLIC_URL: 'api.example' })).toThrow(/The configuration is wrong: RUMINATE_PUBLIC_URL must be/);
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
