/** `npm run bench -- batching`: jobs of one model one at a time against the same jobs in slots of one session, which step together. */
import { Session } from '../../engine/job/session.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { median } from './statistics.ts';

export interface BatchingPlan {
  readonly jobs: number;
  readonly slots: readonly number[];
  readonly length: number;
  readonly rounds: number;
}
export const FULL_BATCHING: BatchingPlan = { jobs: 64, slots: [2, 8, 32], length: 400, rounds: 5 };
export const QUICK_BATCHING: BatchingPlan = { jobs: 8, slots: [8], length: 100, rounds: 1 };

export interface BatchingFigures {
  readonly model: string;
  readonly jobs: number;
  readonly tokens_a_job: number;
  readonly one_at_a_time_tokens_per_s: number;
  readonly one_at_a_time_core_us_per_token: number;
  /** ratio, core_ratio: of the medians, by the wall clock and by the processor's time, which company changes less; all results were compared with those of the jobs one at a time. */
  readonly together: readonly { readonly slots: number; readonly tokens_per_s: number; readonly ratio: number; readonly core_us_per_token: number; readonly core_ratio: number }[];
}

interface Rate {
  readonly perS: number;
  readonly coreUs: number;
}

const MODEL = 'countdown@cr8';
const EOS = 2;

export async function measureBatching({ jobs, slots, length, rounds }: BatchingPlan, say: (line: string) => void, signal: AbortSignal): Promise<BatchingFigures> {
  const specOf = (seed: number): JobSpec => ({
    model: MODEL, prompt: '4 20 8 13 target 59', seed: BigInt(seed), threads: 1, vote: 'none', sampling: { logit_bias: [[EOS, -100]] }, budget: { length, width: 1 },
  });
  using session = new Session();
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
    say(`round ${round + 1} of ${rounds}: ${[...rates].map(([count, seen]) => `${count} at a time ${Math.round(seen.at(-1)?.perS ?? 0)}/s`).join(', ')}`);
  }
  const of = (count: number): number => Math.round(median((rates.get(count) ?? []).map(({ perS }) => perS)));
  const coreOf = (count: number): number => median((rates.get(count) ?? []).map(({ coreUs }) => coreUs));
  const tenths = (us: number): number => Math.round(us * 10) / 10;
  const together = slots.map((count) => ({
    slots: count, tokens_per_s: of(count), ratio: Number((of(count) / of(1)).toFixed(2)),
    core_us_per_token: tenths(coreOf(count)), core_ratio: Number((coreOf(1) / coreOf(count)).toFixed(2)),
  }));
  return { model: MODEL, jobs, tokens_a_job: length, one_at_a_time_tokens_per_s: of(1), one_at_a_time_core_us_per_token: tenths(coreOf(1)), together };
}
