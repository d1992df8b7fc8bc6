/**
 * `npm run bench -- slices`: what the fleet simulator must know of a machine and a model: how long a step takes by chains and KV reads, what a checkpoint
 * weighs, how long writing and going on from one takes, what a job and a hand-over cost beside all of these, and how long a worker takes to start. Linear
 * models, fitted to runs of the bundled model on one thread. All times are of the processor, user and system: company on the machine does not make them longer,
 * and what a disk lets wait is not in them.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

import { openFilesystemStore } from '../../engine/adapters/filesystem.ts';
import { unlessCancelled } from '../../engine/core/waiting.ts';
import { cacheGeometry, cacheShape } from '../../engine/job/budget.ts';
import type { PreparedJob } from '../../engine/job/prepare.ts';
import { Session } from '../../engine/job/session.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { resumeStored, runStored } from '../../engine/job/stored.ts';
import { readJob } from '../../engine/kv/create.ts';
import type { Measured, MeasuredVariant } from '../simulate/measured.ts';
import { fit } from './fit.ts';
import { countCalls, measureFixed } from './fixed-costs.ts';
import { median } from './statistics.ts';
import { WorkerProcess } from './worker-process.ts';

export interface SlicesPlan {
  readonly widths: readonly number[];
  readonly lengths: readonly number[];
  readonly rounds: number;
  /** Whose fixed cost is measured. */
  readonly jobs: number;
}
export const FULL_SLICES: SlicesPlan = { widths: [1, 4, 16, 48], lengths: [100, 400, 900], rounds: 3, jobs: 200 };
export const QUICK_SLICES: SlicesPlan = { widths: [1, 4], lengths: [50, 200], rounds: 1, jobs: 10 };

const VARIANTS = ['dense', 'cr8'] as const;
const PROMPT = '4 20 8 13 target 59';
const EOS = 2;
/** How often the prompt is repeated. */
const PROMPTS = [1, 4, 16];
const START_MS_MAX = 120_000;

export async function measureSlices({ widths, lengths, rounds, jobs }: SlicesPlan, say: (line: string) => void, signal: AbortSignal): Promise<Omit<Measured, 'conditions'>> {
  const specOf = (variant: string, width: number, length: number): JobSpec => ({
    model: `countdown@${variant}`, prompt: PROMPT, seed: 1n, threads: 1, vote: 'none', sampling: { logit_bias: [[EOS, -100]] }, budget: { length, width },
  });
  using session = new Session();
  const steps: { readonly row: readonly number[]; readonly y: number }[] = [];
  const prefills: { readonly row: readonly number[]; readonly y: number }[] = [];
  const variants: Record<string, MeasuredVariant> = {};
  for (const variant of VARIANTS) {
    using opened = await session.open(specOf(variant, 1, 50), { threads: 1, signal });
    variants[variant] = variantOf(opened.job);
    for (let round = 0; round < rounds; round++) {
      for (const width of widths) {
        for (const length of lengths) {
          const { used, of: { usage } } = await usedBy(async () => await session.generate(specOf(variant, width, length), { signal }));
          steps.push({ row: [1, length - 1, width * (length - 1), usage.kv_reads], y: used });
        }
      }
      for (const times of PROMPTS) {
        const { used, of: { usage } } = await usedBy(async () => await session.generate({ ...specOf(variant, 1, 1), prompt: Array.from({ length: times }, () => PROMPT).join(' ') }, { signal }));
        prefills.push({ row: [1, usage.prompt_tokens], y: used });
      }
      say(`${variant}, round ${round + 1} of ${rounds}`);
    }
  }
  const [, stepMs = 0, tokenMs = 0, readMs = 0] = fit(steps);
  const [, prefillTokenMs = 0] = fit(prefills);
  const checkpoints = await measureCheckpoints(session, specOf, { widths, lengths }, signal);
  say('checkpoints');
  const fixed = await measureFixed({ jobs, rounds }, say, signal);
  const calls = await countCalls();
  const starts: number[] = [];
  for (let round = 0; round < Math.max(1, rounds); round++) starts.push(await startOfWorker(signal));
  // The rest of what was measured is counted by itself: steps and prompts by chains and tokens, checkpoints by their bytes. Tiny jobs have hardly any of these.
  const engineMs = fixed.prompt_tokens * prefillTokenMs + fixed.steps * (stepMs + tokenMs) + readMs * fixed.kv_reads;
  return {
    bench: 'slices', step_ms: stepMs, token_ms: tokenMs, read_ms: readMs, prefill_token_ms: prefillTokenMs, ...checkpoints,
    job_ms: Math.max(0, fixed.job_ms - engineMs), handover_ms: Math.max(0, fixed.slice_ms), job_puts: calls.puts, job_gets: calls.gets, start_ms: Math.round(median(starts)), variants,
  };
}

/** ms of the processor, of all threads of this process. */
async function usedBy<T>(act: () => Promise<T>): Promise<{ readonly used: number; readonly of: T }> {
  const before = process.cpuUsage();
  const of = await act();
  return { used: usedSince(before), of };
}

function usedSince(before: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1_000;
}

function variantOf(job: PreparedJob): MeasuredVariant {
  const { info } = job.model;
  return { shape: cacheShape(info, job.keptFraction), geometry: cacheGeometry(info, job.kv, job.pageSlots), vocab_size: info.vocabSize, bytes_per_token: job.bytesPerToken };
}

/** A job is parked half way, and goes on. */
async function measureCheckpoints(session: Session, specOf: (variant: string, width: number, length: number) => JobSpec, { widths, lengths }: Pick<SlicesPlan, 'widths' | 'lengths'>, signal: AbortSignal) {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'ruminate-slices-'));
  const [bytes, saves, resumes]: [{ row: number[]; y: number }[], { row: number[]; y: number }[], { row: number[]; y: number }[]] = [[], [], []];
  try {
    const store = await openFilesystemStore(folder);
    for (const variant of VARIANTS) {
      for (const width of widths) {
        for (const length of lengths) {
          const where = { tenant: 'bench', job: `${variant}-${width}-${length}` };
          const stop = new AbortController();
          let park = process.cpuUsage();
          await runStored(specOf(variant, width, length), {
            store, where, session, threads: 1, signal: AbortSignal.any([signal, stop.signal]), policy: { deltaTokens: 1e6, deltaMs: 1e9, journalMs: 1e9 },
            onProgress: ({ chains }) => {
              if (stop.signal.aborted || !chains.every(({ tokens }) => tokens >= length / 2)) return;
              park = process.cpuUsage();
              stop.abort();
            },
          });
          saves.push({ row: [1, 0], y: usedSince(park) });
          const { manifest } = await readJob(store, where);
          const size = manifest?.objects.reduce((sum, object) => sum + object.bytes, 0) ?? 0;
          const shape = variantOf((await session.open(specOf(variant, width, length), { threads: 1 })).job);
          const tokens = manifest?.chains[0]?.tokens ?? 0;
          const live = width * (tokens - Math.max(0, tokens - shape.shape.window) * (1 - shape.shape.keptFraction));
          (saves.at(-1) as { row: number[] }).row[1] = size;
          bytes.push({ row: [width, live], y: size });
          const start = process.cpuUsage();
          let begunMs = 0;
          const go = new AbortController();
          await resumeStored({ store, where, session, threads: 1, signal: AbortSignal.any([signal, go.signal]), onBegun: () => {
            begunMs = usedSince(start);
            go.abort();
          } });
          resumes.push({ row: [1, size], y: begunMs });
        }
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const [chainBytes = 0, liveTokenBytes = 0] = fit(bytes);
  const [, saveByteMs = 0] = fit(saves);
  const [, resumeByteMs = 0] = fit(resumes);
  return { checkpoint_chain_bytes: chainBytes, checkpoint_live_token_bytes: liveTokenBytes, save_byte_ms: saveByteMs, resume_byte_ms: resumeByteMs };
}

/** From nothing to taking messages, with its model loaded. */
async function startOfWorker(signal: AbortSignal): Promise<number> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'ruminate-start-'));
  try {
    await using worker = new WorkerProcess(['--store', folder, '--model', 'countdown@cr8']);
    await unlessCancelled(worker.says('worker started'), AbortSignal.any([signal, AbortSignal.timeout(START_MS_MAX)]));
    return worker.cpuMs;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
