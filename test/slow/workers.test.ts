/** Two workers and a server as processes of their own, over one store and one queue: whoever is killed, the job is none the worse, and billed once. */
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

/** Its chains end only at their length. */
const LONG = { model: 'countdown@dense', prompt: '3 5 7 11 13 17 target 997', sampling: { temperature: 1, logit_bias: [[2, -100]] }, budget: { width: 8, length: 600 }, vote: 'none' };
const OFTEN = ['--journal-time', '100ms', '--checkpoint-tokens', '100', '--threads', '1'];
const JOBS = 4;

interface Job {
  readonly id: string;
  readonly state: string;
  readonly slice: number;
}

let folder: string;
beforeAll(() => {
  folder = temporary({ quick: true });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Reads the job until it has so many events, or to its end. */
async function read(server: Served, id: string, seq = Infinity): Promise<void> {
  await readSse(await fetch(`${server.url}/v1/jobs/${id}/events`), (event) => Number(event.id) >= seq);
}

let expected: unknown;
beforeAll(async () => {
  await using server = await serve(path.join(folder, 'quiet'));
  const { id } = await server.post<Job>('/v1/jobs', LONG);
  await read(server, id);
  expected = await server.get(`/v1/jobs/${id}/result`);
}, 600_000);

interface Place {
  readonly store: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

async function survives({ store, args, env }: Place): Promise<void> {
  const before = { ...process.env };
  Object.assign(process.env, env);
  try {
    await using server = await serve(store, '--no-worker', ...args);
    const workers: Working[] = [await work({ store, args: [...OFTEN, ...args] }), await work({ store, args: [...OFTEN, ...args] })];
    try {
      // Where they start slowly all may have ended before the second kill, and where nothing else runs before the first: until one was killed at work.
      for (let again = 0; again === 0;) {
        const jobs = await Promise.all(Array.from({ length: JOBS }, () => server.post<Job>('/v1/jobs', LONG)));
        // As soon as it has done something, each in turn; another takes its place.
        for (const [i, { id }] of jobs.slice(0, 3).entries()) {
          await read(server, id, 200 * (i + 1));
          const victim = workers.shift();
          expect(await victim?.kill('SIGKILL')).toEqual({ code: null, signal: 'SIGKILL' });
          workers.push(await work({ store, args: [...OFTEN, ...args] }));
        }
        for (const { id } of jobs) await read(server, id);
        for (const { id } of jobs) {
          const job = await server.get<Job>(`/v1/jobs/${id}`);
          expect(job).toMatchObject({ state: 'done' });
          // Tokens, ballots and usage: as if nothing had happened.
          expect(await server.get(`/v1/jobs/${id}/result`)).toEqual(expected);
          again += job.slice - 1;
        }
      }
    } finally {
      for (const worker of workers) await worker[Symbol.asyncDispose]();
    }
  } finally {
    process.env = before;
  }
}

describe('two workers, of which one after the other is killed with SIGKILL', () => {
  test('over a directory and the queue in it', { timeout: 300_000 }, async () => {
    await survives({ store: path.join(folder, 'store'), args: [], env: {} });
  });

  const [jars, gateway] = [ensurePeer('elasticmq'), ensurePeer('versitygw')];
  test.skipIf('missing' in jars || 'missing' in gateway)('over S3 and SQS', { timeout: 600_000 }, async () => {
    if ('missing' in jars || 'missing' in gateway) return;
    await using sqs = await startElasticmq(jars.binary);
    await using s3 = await startVersitygw(gateway.binary);
    const { url, batchUrl } = await sqs.urls(100);
    await survives({ store: `s3://${s3.bucket}/jobs`, args: ['--queue', url, '--batch-queue', batchUrl], env: { ...s3.environment, ...sqs.environment } });
  });
});
