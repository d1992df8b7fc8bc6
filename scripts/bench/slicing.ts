/** `npm run bench -- slicing`: a job in slices of 10 s and in one, in turns; and what lies between two slices, against the time of one. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { isDeepStrictEqual } from 'node:util';

import { startElasticmq } from '../../test/helpers/elasticmq.ts';
import { startVersitygw } from '../../test/helpers/versitygw.ts';
import { ensurePeer } from '../peers/build.mjs';
import { ROOT } from './conditions.ts';
import { FrontProcess } from './front-process.ts';
import { median } from './statistics.ts';
import { LARGE_SHAPE, SMALL_SHAPE, type SyntheticShape, writeSyntheticModel } from './synthetic-model.ts';
import { WorkerProcess } from './worker-process.ts';

export interface SlicingPlan {
  readonly sliceMs: number;
  readonly shape: SyntheticShape;
  readonly length: number;
  /** The job has as many chains as last that many slices on this machine. */
  readonly slices: number;
  readonly rounds: number;
}
export const FULL_SLICING: SlicingPlan = { sliceMs: 10_000, shape: LARGE_SHAPE, length: 900, slices: 1.5, rounds: 3 };
export const QUICK_SLICING: SlicingPlan = { sliceMs: 1_000, shape: SMALL_SHAPE, length: 900, slices: 2.5, rounds: 1 };

/** Short jobs tell how long a step of so many chains takes on this machine; by the processor's time, which company does not make longer. */
const TRIAL_LENGTH = 100;
const TRIAL_WIDTHS = [4, 8, 16, 32, 64];

export interface Slicing {
  readonly place: string;
  readonly slices: number;
  /** From the end of a slice's time to its successor's next step: the last step, saving, commit, messages, take, restore. Median. */
  readonly between_ms: number;
  /** between_ms / (slice + between_ms) */
  readonly share: number;
  /** Of `between_ms`, medians: until it is parked, until the next slice has begun, until its job is open, until it is taken and restored, until it steps. */
  readonly parts_ms: Readonly<Record<'park' | 'message' | 'open' | 'take' | 'step', number>>;
  /** Of the whole job, medians of the rounds: from its first step to its end, and what its worker took of the processors meanwhile. */
  readonly sliced_s: number;
  readonly whole_s: number;
  readonly sliced_cpu_s: number;
  readonly whole_cpu_s: number;
  /** What a slice more takes of the processors, against one. */
  readonly cpu_ms_a_slice: number;
}

interface Place {
  readonly name: string;
  readonly args: (round: number) => readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

export async function measureSlicing(plan: SlicingPlan, say: (line: string) => void, signal: AbortSignal): Promise<{ readonly slice_ms: number; readonly chains: number; readonly tokens: number; readonly places: readonly Slicing[] }> {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-bench-'));
  try {
    writeSyntheticModel(folder, 'synthetic', plan.shape);
    const env = { ...process.env, RUMINATE_MODELS: folder };
    const [gateway, jars] = [ensurePeer('versitygw'), ensurePeer('elasticmq')];
    const local: Place = { name: 'directory', env, args: (round) => ['--store', path.join(folder, `store-${round}`)] };
    const width = await widthFor({ ...local, args: (trial) => ['--store', path.join(folder, `trial-${trial}`)] }, plan, say, signal);
    const job = { ...plan, width };
    const places = [await measureAt(local, job, say, signal)];
    if (!('missing' in gateway) && !('missing' in jars)) {
      await using s3 = await startVersitygw(gateway.binary);
      await using sqs = await startElasticmq(jars.binary);
      const there: Place = {
        name: 'S3 and SQS', env: { ...env, ...s3.environment, ...sqs.environment },
        args: (round) => ['--store', `s3://${s3.bucket}/jobs-${round}`, '--queue', sqs.standing.url, '--batch-queue', sqs.standing.batchUrl],
      };
      places.push(await measureAt(there, job, say, signal));
    }
    return { slice_ms: plan.sliceMs, chains: width, tokens: width * plan.length, places };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The fewest chains of the trials with which the job lasts for the slices that the plan wants. */
async function widthFor(place: Place, plan: SlicingPlan, say: (line: string) => void, signal: AbortSignal): Promise<number> {
  const wantedMs = plan.slices * plan.sliceMs;
  for (const [i, width] of TRIAL_WIDTHS.entries()) {
    signal.throwIfAborted();
    const { cpuMs } = await one(place, { ...plan, width, length: TRIAL_LENGTH }, 3_600_000, i);
    const lastsMs = (cpuMs * plan.length) / TRIAL_LENGTH;
    say(`${width} chains: ${TRIAL_LENGTH} steps in ${(cpuMs / 1_000).toFixed(2)} s of a core, so about ${(lastsMs / 1_000).toFixed(0)} s for ${plan.length}`);
    if (lastsMs >= wantedMs) return width;
  }
  return TRIAL_WIDTHS.at(-1) ?? 1;
}

type SlicedJob = SlicingPlan & { readonly width: number };

async function measureAt(place: Place, plan: SlicedJob, say: (line: string) => void, signal: AbortSignal): Promise<Slicing> {
  const [sliced, whole]: [One[], One[]] = [[], []];
  for (let round = 0; round < plan.rounds; round++) {
    // In turns, so that both meet the same machine.
    for (const [into, sliceMs] of [[whole, 3_600_000], [sliced, plan.sliceMs]] as const) {
      signal.throwIfAborted();
      into.push(await one(place, plan, sliceMs, into === whole ? 2 * round : 2 * round + 1));
    }
    const [a, b] = [whole.at(-1), sliced.at(-1)];
    if (!isDeepStrictEqual(a?.result, b?.result)) throw new Error('the job in slices has another result than the one in one');
    say(`${place.name}, round ${round + 1} of ${plan.rounds}: ${((a?.tookMs ?? 0) / 1_000).toFixed(1)} s in one, ${((b?.tookMs ?? 0) / 1_000).toFixed(1)} s in ${b?.periodsMs.length ?? 0} slices and the rest`);
  }
  if (sliced.every(({ periodsMs }) => periodsMs.length === 0)) throw new Error(`the job ended within its first slice of ${plan.sliceMs} ms: there is nothing between slices to measure`);
  const betweenMs = median(sliced.flatMap(({ periodsMs }) => periodsMs)) - plan.sliceMs;
  const seconds = (values: readonly number[]) => Math.round(median(values) / 100) / 10;
  return {
    place: place.name,
    slices: sliced.reduce((sum, { periodsMs }) => sum + periodsMs.length, 0),
    between_ms: Math.round(betweenMs),
    share: Math.round((betweenMs / (plan.sliceMs + betweenMs)) * 10_000) / 10_000,
    parts_ms: Object.fromEntries((['park', 'message', 'open', 'take', 'step'] as const).map((part) => [part, Math.round(median(sliced.flatMap(({ parts }) => parts.map((each) => each[part]))))])) as Slicing['parts_ms'],
    sliced_s: seconds(sliced.map(({ tookMs }) => tookMs)), whole_s: seconds(whole.map(({ tookMs }) => tookMs)),
    cpu_ms_a_slice: Math.round((median(sliced.map(({ cpuMs }) => cpuMs)) - median(whole.map(({ cpuMs }) => cpuMs))) / Math.max(1, median(sliced.map(({ periodsMs }) => periodsMs.length)))),
    sliced_cpu_s: seconds(sliced.map(({ cpuMs }) => cpuMs)), whole_cpu_s: seconds(whole.map(({ cpuMs }) => cpuMs)),
  };
}

interface One {
  readonly tookMs: number;
  readonly cpuMs: number;
  /** From one slice's first step to the next one's. */
  readonly periodsMs: readonly number[];
  readonly parts: readonly Slicing['parts_ms'][];
  readonly result: unknown;
}

async function one({ args, env }: Place, { width, length }: SlicedJob, sliceMs: number, round: number): Promise<One> {
  await using front = await FrontProcess.start([path.join(ROOT, 'bin', 'ruminate.mjs'), 'serve', '--no-worker', '--port', '0', '--log-level', 'warn', ...args(round)], env);
  const job = { model: 'synthetic', prompt: '4 20 8 13 target 59', seed: 7, vote: 'none', early_stop: false, sampling: { logit_bias: [[2, -100]] }, budget: { width, length } };
  const made = await front.post<{ readonly id?: string }>('/v1/jobs', job);
  const { id } = made;
  if (id === undefined) throw new Error(`the job was refused: ${JSON.stringify(made)}`);
  await using worker = new WorkerProcess([...args(round), '--log-level', 'debug', '--slice-time', `${sliceMs}ms`, '--threads', '1', '--slots', '1', '--model', 'synthetic'], { env });
  const first = await worker.says('slice reached', 'prefilled');
  const cpuMs = worker.cpuMs;
  const { time } = await worker.says('slice ended');
  const usedMs = worker.cpuMs - cpuMs;
  const starts = worker.all('slice reached', 'prefilled').map((line) => line.time);
  const at = (msg: string, i: number, phase?: string) => worker.all(msg, phase)[i]?.time ?? NaN;
  const parts = starts.slice(1).map((step, i) => {
    const [end, parked, begins, open, taken] = [(starts[i] ?? 0) + sliceMs, at('slice parked', i), at('slice started', i + 1), at('slice reached', i + 1, 'loaded'), at('slice begun', i + 1)];
    return { park: parked - end, message: begins - parked, open: open - begins, take: taken - open, step: step - taken };
  });
  return { tookMs: time - first.time, cpuMs: usedMs, periodsMs: starts.slice(1).map((step, i) => step - (starts[i] ?? 0)), parts, result: await front.get(`/v1/jobs/${id}/result`) };
}
