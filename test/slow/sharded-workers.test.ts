/** One job over several machines: two workers as processes of their own run its shards over S3 and SQS, one after the other is killed, and it is the job that one run gives. */
import { rmSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { ensurePeer } from '../../scripts/peers/build.mjs';
import { startElasticmq } from '../helpers/elasticmq.ts';
import { serve, type Served } from '../helpers/served.ts';
import { readSse } from '../helpers/sse.ts';
import { startVersitygw } from '../helpers/versitygw.ts';
import { work, type Working } from '../helpers/working.ts';
import { temporary } from '../resume/jobs.ts';

/** One whose chains end only at their length, and one that the vote ends early. */
const JOBS = {
  long: { model: 'countdown@dense', prompt: '3 5 7 11 13 17 target 997', sampling: { temperature: 1, logit_bias: [[2, -100]] }, budget: { width: 8, length: 600 }, vote: 'none' },
  early: { model: 'countdown@cr2', prompt: '4 20 8 13 target 59', seed: 2, budget: { width: 8, length: 700 }, vote: 'first' },
} as const;
const MORE = { length: 800, width: 11 };
const OFTEN = ['--journal-time', '100ms', '--checkpoint-tokens', '40', '--threads', '1', '--slots', '2'];

interface Job {
  readonly id: string;
  readonly state: string;
  readonly step: number;
}

let folder: string;
const expected = new Map<string, { readonly result: unknown; readonly events: readonly string[] }>();
const temp = () => (folder ??= temporary({ quick: true }));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Every event that has a number, as it came; the last one has the job's name. */
async function read(server: Served, id: string, last = Infinity): Promise<readonly string[]> {
  const events: string[] = [];
  await readSse(await fetch(`${server.url}/v1/jobs/${id}/events`), ({ id: seq, data }) => {
    if (seq === null) return false;
    events.push(`${seq} ${JSON.stringify(data)}`);
    return Number(seq) >= last;
  });
  return events;
}

beforeAll(async () => {
  await using server = await serve(path.join(temp(), 'quiet'));
  for (const [name, spec] of Object.entries(JOBS)) {
    const { id } = await server.post<Job>('/v1/jobs', spec);
    const events = await read(server, id);
    expected.set(name, { result: await server.get(`/v1/jobs/${id}/result`), events: events.slice(0, -1) });
    if (name !== 'early') continue;
    const { id: larger } = await server.post<Job>(`/v1/jobs/${id}/extend`, MORE);
    const more = await read(server, larger);
    expected.set('larger', { result: await server.get(`/v1/jobs/${larger}/result`), events: more.slice(0, -1) });
  }
}, 600_000);

async function isOne(store: string, args: readonly string[], env: Readonly<Record<string, string>>): Promise<void> {
  const before = { ...process.env };
  Object.assign(process.env, env);
  try {
    await using server = await serve(store, '--no-worker', ...args);
    const asked: { readonly name: string; readonly id: string }[] = [];
    for (const [name, spec] of Object.entries(JOBS)) {
      for (const shards of [3, 8]) {
        const job = await server.post<Job>('/v1/jobs', { ...spec, shards });
        expect(job).toMatchObject({ state: 'queued' });
        asked.push({ name, id: job.id });
      }
    }
    const worker = () => work({ store, args: [...OFTEN, ...args] });
    const workers: Working[] = [await worker(), await worker()];
    try {
      for (const { id } of asked.slice(0, 2)) {
        await read(server, id, 400);
        expect(await workers.shift()?.kill('SIGKILL')).toEqual({ code: null, signal: 'SIGKILL' });
        workers.push(await worker());
      }
      for (const { name, id } of asked) {
        const events = await read(server, id);
        expect(await server.get<Job>(`/v1/jobs/${id}`)).toMatchObject({ state: 'done' });
        expect(await server.get(`/v1/jobs/${id}/result`)).toEqual(expected.get(name)?.result);
        expect(events.slice(0, -1)).toEqual(expected.get(name)?.events);
      }
      for (const { id } of asked.filter(({ name }) => name === 'early')) {
        const { id: larger } = await server.post<Job>(`/v1/jobs/${id}/extend`, MORE);
        const events = await read(server, larger);
        expect(await server.get(`/v1/jobs/${larger}/result`)).toEqual(expected.get('larger')?.result);
        expect(events.slice(0, -1)).toEqual(expected.get('larger')?.events);
      }
    } finally {
      for (const each of workers) await each[Symbol.asyncDispose]();
    }
  } finally {
    process.env = before;
  }
}

describe('sharded jobs on two workers that are killed', () => {
  test('over a directory and the queue in it', { timeout: 300_000 }, async () => {
    await isOne(path.join(temp(), 'store'), [], {});
  });

  const [jars, gateway] = [ensurePeer('elasticmq'), ensurePeer('versitygw')];
  test.skipIf('missing' in jars || 'missing' in gateway)('over S3 and SQS', { timeout: 600_000 }, async () => {
    if ('missing' in jars || 'missing' in gateway) return;
    await using sqs = await startElasticmq(jars.binary);
    await using s3 = await startVersitygw(gateway.binary);
    const { url, batchUrl } = await sqs.urls(100);
    await isOne(`s3://${s3.bucket}/jobs`, ['--queue', url, '--batch-queue', batchUrl], { ...s3.environment, ...sqs.environment });
  });
});
