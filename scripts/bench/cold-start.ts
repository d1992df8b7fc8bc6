/**
 * `npm run bench -- cold-start`: from the start of a worker's process to the first token of a job that waits, on a machine that has neither model nor
 * cache, with models, jobs and messages on S3 and SQS; against plain ranged GETs of the same bytes, in the same run.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { GetObjectCommand, ListObjectsV2Command } from '@aws-sdk/client-s3';

import { inParallel } from '../../engine/core/waiting.ts';
import { startElasticmq } from '../../test/helpers/elasticmq.ts';
import type { S3Peer } from '../../test/helpers/s3-peer.ts';
import { startVersitygw } from '../../test/helpers/versitygw.ts';
import { ensurePeer } from '../peers/build.mjs';
import { ROOT } from './conditions.ts';
import { FrontProcess } from './front-process.ts';
import { median } from './statistics.ts';
import { LARGE_SHAPE, SMALL_SHAPE, type SyntheticShape, writeSyntheticModel } from './synthetic-model.ts';
import { WorkerProcess } from './worker-process.ts';

export interface ColdStartPlan {
  readonly shapes: Readonly<Record<string, SyntheticShape>>;
  readonly rounds: number;
}
export const FULL_COLD_START: ColdStartPlan = { shapes: { small: SMALL_SHAPE, large: LARGE_SHAPE }, rounds: 3 };
export const QUICK_COLD_START: ColdStartPlan = { shapes: { small: SMALL_SHAPE }, rounds: 1 };

/** In the order in which they pass; together they are the whole. */
export const COLD_PHASES = ['process', 'store', 'queue', 'message', 'resolve', 'fetch', 'verify', 'map', 'warm', 'job', 'take', 'prefill', 'first_token'] as const;
export type ColdPhase = (typeof COLD_PHASES)[number];

export interface ColdStart {
  readonly model: string;
  readonly bytes: number;
  /** Medians over the rounds, ms. */
  readonly phases: Readonly<Record<ColdPhase, number>>;
  readonly total_ms: number;
  /** The same bytes by ranged GETs of 8 MiB, eight at once, to nowhere. */
  readonly read_ms: number;
  /** total_ms / read_ms */
  readonly ratio: number;
  /** Of the processors, until the first token, and for reading alone: what a machine that others use too changes less. */
  readonly cpu_ms: number;
  readonly read_cpu_ms: number;
}

/** As the engine fetches them (LIMITS). */
const RANGE_BYTES = 8 << 20;
const RANGES_AT_ONCE = 8;
const JOB = { prompt: '4 20 8 13 target 59', vote: 'none', sampling: { logit_bias: [[2, -100]] }, budget: { length: 8, width: 1 } };

export async function measureColdStarts({ shapes, rounds }: ColdStartPlan, say: (line: string) => void, signal: AbortSignal): Promise<{ readonly starts: readonly ColdStart[] }> {
  const [gateway, jars] = [ensurePeer('versitygw'), ensurePeer('elasticmq')];
  if ('missing' in gateway) throw new Error(gateway.missing);
  if ('missing' in jars) throw new Error(jars.missing);
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-bench-'));
  try {
    await using s3 = await startVersitygw(gateway.binary);
    await using sqs = await startElasticmq(jars.binary);
    const models = `s3://${s3.bucket}/models`;
    const env = { ...process.env, ...s3.environment, ...sqs.environment, RUMINATE_MODELS_STORE: models, RUMINATE_MODELS: path.join(folder, 'none') };
    const starts: ColdStart[] = [];
    for (const [model, shape] of Object.entries(shapes)) {
      say(`making and pushing ${model}`);
      const directory = writeSyntheticModel(folder, model, shape);
      await finished(['models', 'push', directory, models, '--name', model], { ...env, RUMINATE_CACHE: path.join(folder, 'pushing') });
      rmSync(directory, { recursive: true });
      const seen: { readonly phases: Record<ColdPhase, number>; readonly bytes: number; readonly cpuMs: number; readonly readMs: number; readonly readCpuMs: number }[] = [];
      for (let round = 0; round < rounds; round++) {
        signal.throwIfAborted();
        const place = path.join(folder, `${model}-${round}`);
        const { url } = await sqs.urls(100);
        const args = ['--store', `s3://${s3.bucket}/jobs-${model}-${round}`, '--queue', url];
        const cold = await coldStart(model, args, { ...env, RUMINATE_CACHE: path.join(place, 'worker') }, { ...env, RUMINATE_CACHE: path.join(place, 'front') });
        rmSync(place, { recursive: true, force: true });
        // Beside each start, so that both meet the same machine.
        seen.push({ ...cold, ...(await readBytes(s3, `models/${model}/blobs/`, signal)) });
        say(`${model}, round ${round + 1} of ${rounds}: ${Math.round(sum(cold.phases))} ms, reading alone ${Math.round(seen.at(-1)?.readMs ?? 0)} ms`);
      }
      const phases = Object.fromEntries(COLD_PHASES.map((phase) => [phase, Math.round(median(seen.map((each) => each.phases[phase])))])) as Record<ColdPhase, number>;
      const [totalMs, readMs] = [median(seen.map((each) => sum(each.phases))), median(seen.map((each) => each.readMs))];
      starts.push({
        model, bytes: seen[0]?.bytes ?? 0, phases, total_ms: Math.round(totalMs), read_ms: Math.round(readMs), ratio: Math.round((totalMs / readMs) * 100) / 100,
        cpu_ms: Math.round(median(seen.map((each) => each.cpuMs))), read_cpu_ms: Math.round(median(seen.map((each) => each.readCpuMs))),
      });
    }
    return { starts };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const sum = (phases: Readonly<Record<ColdPhase, number>>): number => COLD_PHASES.reduce((all, phase) => all + phases[phase], 0);

async function coldStart(model: string, args: readonly string[], env: NodeJS.ProcessEnv, frontEnv: NodeJS.ProcessEnv): Promise<{ readonly phases: Record<ColdPhase, number>; readonly bytes: number; readonly cpuMs: number }> {
  await using front = await FrontProcess.start([path.join(ROOT, 'bin', 'ruminate.mjs'), 'serve', '--no-worker', '--model', model, '--port', '0', '--log-level', 'warn', ...args], frontEnv);
  const made = await front.post<{ readonly id?: string }>('/v1/jobs', { ...JOB, model });
  const { id } = made;
  if (id === undefined) throw new Error(`the job was refused: ${JSON.stringify(made)}`);
  await using worker = new WorkerProcess(['--log-level', 'debug', ...args], { env });
  const first = await worker.says('slice reached', 'first_token');
  const { cpuMs } = worker;
  const [started, taken, loaded, begun, prefilled] = await Promise.all([
    worker.says('worker started'), worker.says('slice started'), worker.says('slice reached', 'loaded'), worker.says('slice begun'), worker.says('slice reached', 'prefilled'),
  ]);
  const { store_ms: store = 0, queue_ms: queue = 0 } = started;
  const { load } = loaded;
  if (load === undefined) throw new Error('the worker has not said what loading took');
  const [resolve, fetch, verify, map, warm] = [load.resolve_ms, load.fetch_ms, load.verify_ms, load.map_ms, load.warm_ms];
  return {
    bytes: load.bytes,
    cpuMs,
    phases: {
      process: started.time - worker.spawnedMs - store - queue, store, queue, message: taken.time - started.time, resolve, fetch, verify, map, warm,
      // Its head and spec, and who the model is by all of its weights.
      job: loaded.time - taken.time - resolve - fetch - verify - map - warm,
      take: begun.time - loaded.time, prefill: prefilled.time - begun.time, first_token: first.time - prefilled.time,
    },
  };
}

async function readBytes({ client, bucket }: S3Peer, prefix: string, signal: AbortSignal): Promise<{ readonly readMs: number; readonly readCpuMs: number }> {
  const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix }));
  const ranges = Contents.flatMap(({ Key, Size = 0 }) => Array.from({ length: Math.ceil(Size / RANGE_BYTES) }, (_, i) => ({ Key, Range: `bytes=${i * RANGE_BYTES}-${Math.min(Size, (i + 1) * RANGE_BYTES) - 1}` })));
  const [startMs, cpu] = [performance.now(), process.cpuUsage()];
  await inParallel(ranges.length, RANGES_AT_ONCE, signal, async (i) => {
    const { Body } = await client.send(new GetObjectCommand({ Bucket: bucket, Key: ranges[i]?.Key ?? '', Range: ranges[i]?.Range }));
    for await (const _ of Body as AsyncIterable<Uint8Array>);
  });
  const { user, system } = process.cpuUsage(cpu);
  return { readMs: performance.now() - startMs, readCpuMs: (user + system) / 1_000 };
}

async function finished(args: readonly string[], env: NodeJS.ProcessEnv): Promise<void> {
  const child = spawn(process.execPath, [path.join(ROOT, 'bin', 'ruminate.mjs'), ...args], { env, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => { said += chunk.toString(); });
  const code = await new Promise((resolve) => child.once('close', resolve));
  if (code !== 0) throw new Error(`ruminate ${args.join(' ')} ended with ${String(code)}: ${said}`);
}
