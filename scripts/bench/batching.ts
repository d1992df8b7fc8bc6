/**
 * `npm run bench -- batching`: jobs of one model one at a time against the same jobs in slots, which step together: in one session, which is the engine's share;
 * and in `ruminate worker`, from its queue to its results, with a slot and with eight: of the bundled model, where a job is mostly what the store and the queue do
 * for it, and of one whose weights are larger than any cache, where it is mostly steps.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { sharedBy } from '../../engine/core/listeners.ts';
import { Session } from '../../engine/job/session.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { ROOT } from './conditions.ts';
import { FrontProcess } from './front-process.ts';
import { median } from './statistics.ts';
import { LARGE_SHAPE, SMALL_SHAPE, type SyntheticShape, writeSyntheticModel } from './synthetic-model.ts';
import { WorkerProcess } from './worker-process.ts';

export interface BatchingPlan {
  readonly jobs: number;
  readonly slots: readonly number[];
  readonly length: number;
  readonly rounds: number;
  /** Of the other model. */
  readonly synthetic: { readonly shape: SyntheticShape; readonly jobs: number; readonly length: number };
}
export const FULL_BATCHING: BatchingPlan = { jobs: 64, slots: [2, 8, 32], length: 400, rounds: 5, synthetic: { shape: LARGE_SHAPE, jobs: 24, length: 40 } };
export const QUICK_BATCHING: BatchingPlan = { jobs: 8, slots: [8], length: 100, rounds: 1, synthetic: { shape: SMALL_SHAPE, jobs: 8, length: 40 } };

export interface BatchingFigures {
  readonly model: string;
  readonly jobs: number;
  readonly tokens_a_job: number;
  readonly one_at_a_time_tokens_per_s: number;
  readonly one_at_a_time_core_us_per_token: number;
  /** ratio, core_ratio: of the medians, by the wall clock and by the processor's time, which company changes less; all results were compared with those of the jobs one at a time. */
  readonly together: readonly Together[];
  readonly workers: readonly WorkerFigures[];
}

interface WorkerFigures extends Together {
  readonly model: string;
  readonly jobs: number;
  readonly tokens_a_job: number;
  readonly one_at_a_time_tokens_per_s: number;
  readonly one_at_a_time_core_us_per_token: number;
}

interface Together {
  readonly slots: number;
  readonly tokens_per_s: number;
  readonly ratio: number;
  readonly core_us_per_token: number;
  readonly core_ratio: number;
}

interface Rate {
  readonly perS: number;
  readonly coreUs: number;
}

const MODEL = 'countdown@cr8';
const EOS = 2;
const WORKER_SLOTS = 8;

/** Of exactly `length` tokens. */
const jobOf = (length: number): Omit<JobSpec, 'seed'> => ({ model: MODEL, prompt: '4 20 8 13 target 59', vote: 'none', sampling: { logit_bias: [[EOS, -100]] }, budget: { length, width: 1 } });

export async function measureBatching(plan: BatchingPlan, say: (line: string) => void, signal: AbortSignal): Promise<BatchingFigures> {
  const session = await inSession(plan, say, signal);
  const models = mkdtempSync(path.join(tmpdir(), 'ruminate-bench-'));
  try {
    writeSyntheticModel(models, 'synthetic', plan.synthetic.shape);
    const workers = [await inWorkers({ ...plan, model: MODEL }, process.env, say, signal), await inWorkers({ ...plan.synthetic, rounds: plan.rounds, model: 'synthetic' }, { ...process.env, RUMINATE_MODELS: models }, say, signal)];
    return {
      model: MODEL, jobs: plan.jobs, tokens_a_job: plan.length,
      one_at_a_time_tokens_per_s: perSOf(session, 1), one_at_a_time_core_us_per_token: tenths(coreUsOf(session, 1)), together: plan.slots.map((slots) => against(session, slots)), workers,
    };
  } finally {
    rmSync(models, { recursive: true, force: true });
  }
}

async function inWorkers(plan: WorkerPlan, env: NodeJS.ProcessEnv, say: (line: string) => void, signal: AbortSignal): Promise<WorkerFigures> {
  const rates = new Map([1, WORKER_SLOTS].map((count): [number, Rate[]] => [count, []]));
  for (let round = 0; round < plan.rounds; round++) {
    for (const [slots, seen] of rates) seen.push(await inWorker(plan, slots, env, signal));
    say(`worker, ${plan.model}, ${told(rates, round, plan)}`);
  }
  const { model, jobs, length } = plan;
  return { model, jobs, tokens_a_job: length, one_at_a_time_tokens_per_s: perSOf(rates, 1), one_at_a_time_core_us_per_token: tenths(coreUsOf(rates, 1)), ...against(rates, WORKER_SLOTS) };
}

interface WorkerPlan {
  readonly model: string;
  readonly jobs: number;
  readonly length: number;
  readonly rounds: number;
}

type Rates = ReadonlyMap<number, Rate[]>;

const perSOf = (rates: Rates, slots: number): number => Math.round(median((rates.get(slots) ?? []).map(({ perS }) => perS)));
const coreUsOf = (rates: Rates, slots: number): number => median((rates.get(slots) ?? []).map(({ coreUs }) => coreUs));
const tenths = (us: number): number => Math.round(us * 10) / 10;
const told = (rates: Rates, round: number, { rounds }: { readonly rounds: number }): string =>
  `round ${round + 1} of ${rounds}: ${[...rates].map(([count, seen]) => `${count} at a time ${Math.round(seen.at(-1)?.perS ?? 0)}/s`).join(', ')}`;

const against = (rates: Rates, slots: number): Together => ({
  slots, tokens_per_s: perSOf(rates, slots), ratio: Number((perSOf(rates, slots) / perSOf(rates, 1)).toFixed(2)),
  core_us_per_token: tenths(coreUsOf(rates, slots)), core_ratio: Number((coreUsOf(rates, 1) / coreUsOf(rates, slots)).toFixed(2)),
});

async function inSession({ jobs, slots, length, rounds }: Omit<BatchingPlan, 'synthetic'>, say: (line: string) => void, signal: AbortSignal): Promise<Rates> {
  const specOf = (seed: number): JobSpec => ({ ...jobOf(length), seed: BigInt(seed), threads: 1 });
  using session = new Session();
  sharedBy(Math.max(...slots), signal);
  const answers = new Map<number, string>();
  const run = async (seed: number): Promise<void> => {
    const { chains } = await session.generate(specOf(seed), { signal });
    const text = JSON.stringify(chains);
    if (text !== (answers.get(seed) ?? text)) throw new Error(`the job of seed ${seed} has other tokens in company`);
    answers.set(seed, text);
  };
  const rate = async (atATime: number): Promise<Rate> => {
    const [startMs, cpu] = [performance.now(), process.cpuUsage()];
    let next = 0;
    await Promise.all(Array.from({ length: atATime }, async () => {
      while (next < jobs) await run(next++);
    }));
    const [tookMs, { user, system }] = [performance.now() - startMs, process.cpuUsage(cpu)];
    return { perS: (jobs * length * 1_000) / tookMs, coreUs: (user + system) / (jobs * length) };
  };
  await run(0);
  const rates = new Map([1, ...slots].map((count): [number, Rate[]] => [count, []]));
  // In turns, so that all of them meet the same machine.
  for (let round = 0; round < rounds; round++) {
    for (const [count, seen] of rates) seen.push(await rate(count));
    say(told(rates, round, { rounds }));
  }
  return rates;
}

/** All wait before the worker starts; counted from when it has its model. */
async function inWorker({ jobs, length, model }: WorkerPlan, slots: number, env: NodeJS.ProcessEnv, signal: AbortSignal): Promise<Rate> {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-bench-'));
  try {
    {
      await using front = await FrontProcess.start([path.join(ROOT, 'bin', 'ruminate.mjs'), 'serve', '--no-worker', '--port', '0', '--store', folder, '--log-level', 'warn'], env);
      for (let seed = 0; seed < jobs; seed++) {
        const made = await front.post<{ readonly id?: string }>('/v1/jobs', { ...jobOf(length), model, seed, priority: 'batch' });
        if (made.id === undefined) throw new Error(`a job was refused: ${JSON.stringify(made)}`);
      }
    }
    await using worker = new WorkerProcess(['--store', folder, '--model', model, '--slots', String(slots), '--threads', '1'], { env, keep: ({ msg }) => msg === 'worker started' });
    await worker.says('worker started');
    const [startMs, cpuMs] = [performance.now(), worker.cpuMs];
    await worker.counts('slice ended', jobs, signal);
    const [tookMs, usedMs] = [performance.now() - startMs, worker.cpuMs - cpuMs];
    return { perS: (jobs * length * 1_000) / tookMs, coreUs: (usedMs * 1_000) / (jobs * length) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
