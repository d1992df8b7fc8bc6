/** `npm run bench -- drain`: thousands of tiny jobs that wait, one worker that runs them: how fast they drain, and what memory that takes. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { ROOT } from './conditions.ts';
import { FrontProcess } from './front-process.ts';
import { WorkerProcess } from './worker-process.ts';

export interface DrainPlan {
  readonly jobs: number;
  readonly submitters: number;
}
export const FULL_DRAIN: DrainPlan = { jobs: 5_000, submitters: 16 };
export const QUICK_DRAIN: DrainPlan = { jobs: 300, submitters: 16 };

interface Quarter {
  /** Jobs that have ended. */
  readonly ended: number;
  /** Since the quarter before. */
  readonly jobs_per_s: number;
  readonly worker_rss_mib: number;
  readonly front_rss_mib: number;
}

export interface DrainFigures {
  readonly jobs: number;
  readonly tokens_a_job: number;
  readonly submitted_per_s: number;
  readonly jobs_per_s: number;
  readonly cpu_ms_a_job: number;
  readonly worker_rss_mib_idle: number;
  readonly quarters: readonly Quarter[];
  /** Of the worker, from the end of the first quarter to the end: what a job leaves behind, KiB. */
  readonly kib_a_job: number;
}

const TOKENS = 8;
/** What ends it: the length, so that all are alike. Of a batch: of those as many may wait as there are, for as long as it takes. */
const tiny = (seed: number) => ({ model: 'countdown@cr8', priority: 'batch', prompt: '4 20 8 13 target 59', seed, vote: 'none', sampling: { logit_bias: [[2, -100]] }, budget: { length: TOKENS, width: 1 } });
const LOOK_MS = 200;

export async function measureDrain({ jobs, submitters }: DrainPlan, say: (line: string) => void, signal: AbortSignal): Promise<DrainFigures> {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-bench-'));
  try {
    const store = path.join(folder, 'store');
    await using front = await FrontProcess.start([path.join(ROOT, 'bin', 'ruminate.mjs'), 'serve', '--no-worker', '--port', '0', '--store', store, '--log-level', 'warn']);
    const submitMs = performance.now();
    let next = 0;
    await Promise.all(Array.from({ length: submitters }, async () => {
      while (next < jobs) {
        signal.throwIfAborted();
        const made = await front.post<{ readonly id?: string }>('/v1/jobs', tiny(next++));
        if (made.id === undefined) throw new Error(`a job was refused: ${JSON.stringify(made)}`);
      }
    }));
    const submittedPerS = (jobs * 1_000) / (performance.now() - submitMs);
    say(`${jobs} jobs wait; submitted at ${submittedPerS.toFixed(0)}/s`);
    await using worker = new WorkerProcess(['--store', store, '--model', 'countdown@cr8'], { keep: ({ msg }) => msg === 'worker started' });
    await worker.says('worker started');
    const idle = worker.rssMib;
    const quarters: Quarter[] = [];
    const cpuMs = worker.cpuMs;
    const startMs = performance.now();
    let last = { ended: 0, atMs: startMs };
    while (worker.count('slice ended') < jobs) {
      await sleep(LOOK_MS, undefined, { signal });
      if (worker.count('slice ended') < Math.min(jobs, ((quarters.length + 1) * jobs) / 4)) continue;
      const now = { ended: worker.count('slice ended'), atMs: performance.now() };
      const quarter = { ended: now.ended, jobs_per_s: Math.round(((now.ended - last.ended) * 10_000) / (now.atMs - last.atMs)) / 10, worker_rss_mib: worker.rssMib, front_rss_mib: front.rssMib };
      last = now;
      quarters.push(quarter);
      say(`${quarter.ended} ended, ${quarter.jobs_per_s}/s, ${quarter.worker_rss_mib} MiB`);
    }
    const tookMs = performance.now() - startMs;
    const usedMs = worker.cpuMs - cpuMs;
    const [first, end] = [quarters[0], quarters.at(-1)];
    return {
      jobs, tokens_a_job: TOKENS, submitted_per_s: Math.round(submittedPerS), jobs_per_s: Math.round((jobs * 10_000) / tookMs) / 10, cpu_ms_a_job: Math.round((usedMs / jobs) * 100) / 100,
      worker_rss_mib_idle: idle, quarters,
      kib_a_job: first === undefined || end === undefined ? 0 : Math.round(((end.worker_rss_mib - first.worker_rss_mib) * 1_024 * 100) / Math.max(1, end.ended - first.ended)) / 100,
    };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
