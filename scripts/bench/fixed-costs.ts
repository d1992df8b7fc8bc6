/** What a job and a hand-over cost a worker whatever they are: the same tiny jobs from a queue to their results, in one slice each and in as many as they can have. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { WholePlatform } from '../../test/helpers/whole-platform.ts';
import { ROOT } from './conditions.ts';
import { FrontProcess } from './front-process.ts';
import { median } from './statistics.ts';
import { WorkerProcess } from './worker-process.ts';

export interface FixedCosts {
  /** Of a worker's processor, ms: of one job in one slice, all told. */
  readonly job_ms: number;
  /** Of a slice more: from saving to the next slice's first step, all told. */
  readonly slice_ms: number;
  /** What such a job is to the engine. */
  readonly prompt_tokens: number;
  readonly steps: number;
  readonly kv_reads: number;
}

/** Calls of the store, as S3 counts them. */
export interface Calls {
  /** Written, copied or listed. */
  readonly puts: number;
  readonly gets: number;
}

interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly kv_reads: number;
}

const LENGTH = 400;
const tiny = (seed: number) => ({ model: 'countdown@cr8', priority: 'batch', prompt: '4 20 8 13 target 59', seed, vote: 'none', sampling: { logit_bias: [[2, -100]] }, budget: { length: LENGTH, width: 1 } });
/** The shortest that a worker takes: each slice is a native call. */
const SLICE = '1ms';

export async function measureFixed({ jobs, rounds }: { readonly jobs: number; readonly rounds: number }, say: (line: string) => void, signal: AbortSignal): Promise<FixedCosts> {
  const [whole, slices]: [number[], number[]] = [[], []];
  let usage: Usage | null = null;
  for (let round = 0; round < rounds; round++) {
    // In turns, so that both meet the same machine.
    const one = await drained(jobs, '1h', signal);
    const cut = await drained(Math.ceil(jobs / 8), SLICE, signal);
    const jobMs = one.usedMs / jobs;
    whole.push(jobMs);
    slices.push((cut.usedMs - Math.ceil(jobs / 8) * jobMs) / Math.max(1, cut.parks));
    usage = one.usage;
    say(`fixed costs, round ${round + 1} of ${rounds}: ${jobMs.toFixed(1)} ms a job, ${slices.at(-1)?.toFixed(1)} ms a slice more, of ${cut.parks}`);
  }
  if (usage === null) throw new Error('nothing was measured');
  return { job_ms: median(whole), slice_ms: median(slices), prompt_tokens: usage.prompt_tokens, steps: usage.completion_tokens, kv_reads: usage.kv_reads };
}

/** Of one such job from its making to its end, in one slice: of the platform and the worker that have it. */
export async function countCalls(): Promise<Calls> {
  await using platform = new WholePlatform();
  const me = { tenant: 'bench' };
  const { vote: _, ...job } = tiny(1);
  const run = async (seed: bigint): Promise<Calls> => {
    const from = platform.store.log.length;
    const { id } = await platform.submit({ ...job, priority: 'interactive', vote: 'none', seed, sampling: { logit_bias: [[2, -100]] } }, me);
    // The marker is the last to go.
    while ([...platform.store.snapshot().keys()].some((key) => key.startsWith('live/') && key.endsWith(`/${id}`))) await sleep(10);
    const kinds = platform.store.log.slice(from).map(({ kind }) => kind);
    const of = (...some: readonly string[]) => kinds.filter((kind) => some.includes(kind)).length;
    return { puts: of('put', 'copy', 'list'), gets: of('get', 'head') };
  };
  // The first has what a new store and a new worker ask for once.
  await run(1n);
  return await run(2n);
}

/** All wait before the worker starts; counted from when it has its model. */
async function drained(jobs: number, sliceTime: string, signal: AbortSignal): Promise<{ readonly usedMs: number; readonly parks: number; readonly usage: Usage }> {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-bench-'));
  try {
    await using front = await FrontProcess.start([path.join(ROOT, 'bin', 'ruminate.mjs'), 'serve', '--no-worker', '--port', '0', '--store', folder, '--log-level', 'warn']);
    let id = '';
    for (let seed = 0; seed < jobs; seed++) {
      signal.throwIfAborted();
      const made = await front.post<{ readonly id?: string }>('/v1/jobs', tiny(seed));
      if (made.id === undefined) throw new Error(`a job was refused: ${JSON.stringify(made)}`);
      id = made.id;
    }
    await using worker = new WorkerProcess(['--store', folder, '--model', 'countdown@cr8', '--slots', '8', '--threads', '1', '--slice-time', sliceTime, '--log-level', 'debug'], { keep: ({ msg }) => msg === 'worker started' });
    await worker.says('worker started');
    const before = worker.cpuMs;
    await worker.counts('slice ended', jobs, signal);
    const usedMs = worker.cpuMs - before;
    return { usedMs, parks: worker.count('slice parked'), usage: (await front.get<{ readonly usage: Usage }>(`/v1/jobs/${id}/result`)).usage };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
