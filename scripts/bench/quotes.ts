/** `npm run bench -- quotes`: seconds that /v1/quotes says before anything has run, and after a first job, against those that the job then takes. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { systemClock } from '../../engine/core/clock.ts';
import { pause } from '../../engine/core/waiting.ts';
import { ROOT } from './conditions.ts';
import { FrontProcess } from './front-process.ts';
import { median } from './statistics.ts';
import { LARGE_SHAPE, SMALL_SHAPE, type SyntheticShape, writeSyntheticModel } from './synthetic-model.ts';

export interface QuotesPlan {
  readonly models: readonly string[];
  /** Of chance, as large as a step of it is worth timing. */
  readonly synthetic: SyntheticShape;
  readonly widths: readonly number[];
  readonly length: number;
  readonly runs: number;
}
export const FULL_QUOTES: QuotesPlan = { models: ['countdown@dense', 'countdown@cr8', 'synthetic'], synthetic: LARGE_SHAPE, widths: [1, 8, 32], length: 900, runs: 3 };
export const QUICK_QUOTES: QuotesPlan = { models: ['countdown@cr8', 'synthetic'], synthetic: SMALL_SHAPE, widths: [4], length: 200, runs: 1 };

interface Quoted {
  readonly model: string;
  readonly width: number;
  readonly length: number;
  readonly basis: string;
  readonly quoted_s: number;
  /** From its submission to its end, as a client sees it: the prompt, the commits and the queue are in it. Median. */
  readonly took_s: number;
  readonly took_over_quoted: number;
}

/** Every chain makes all of its tokens: what is quoted is what is made. */
const jobOf = (model: string, budget: object) => ({ model, prompt: '4 20 8 13 target 59', vote: 'none', early_stop: false, sampling: { logit_bias: [[2, -100]] }, budget });
const POLL_MS = 20;

/** @param say what is going on, for whoever waits. */
export async function measureQuotes({ models, synthetic, widths, length, runs }: QuotesPlan, say: (line: string) => void, signal: AbortSignal): Promise<{ readonly quotes: readonly Quoted[] }> {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-bench-'));
  const quotes: Quoted[] = [];
  try {
    writeSyntheticModel(folder, 'synthetic', synthetic);
    for (const model of models) {
      // Of a large one every token costs the reading of its weights: fewer of them tell as much.
      const lengthOf = model === 'synthetic' ? Math.ceil(length / 9) : length;
      for (const width of widths) {
        const shape = { width, length: lengthOf };
        // A server of its own for each: what jobs before have said of the model is not known.
        await using front = await FrontProcess.start([path.join(ROOT, 'bin', 'ruminate.mjs'), 'serve', '--port', '0', '--store', path.join(folder, `${model}-${width}`), '--model', model, '--log-level', 'warn'], { ...process.env, RUMINATE_MODELS: folder });
        for (const basis of ['probe', 'jobs']) {
          const quoted_s = await quotedBy(front, jobOf(model, shape), basis, signal);
          const took: number[] = [];
          for (let i = 0; i < (basis === 'probe' ? 1 : runs); i++) took.push(await tookOf(front, jobOf(model, shape), signal));
          const took_s = median(took);
          const figure = { model, ...shape, basis, quoted_s, took_s, took_over_quoted: took_s / quoted_s };
          say(`${model} ${shape.width} x ${shape.length}, by ${basis}: quoted ${quoted_s.toFixed(2)} s, took ${took_s.toFixed(2)} s, ${figure.took_over_quoted.toFixed(2)}`);
          quotes.push(figure);
        }
      }
    }
    return { quotes };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** What is measured of a model is known a little after it was. */
async function quotedBy(front: FrontProcess, job: object, basis: string, signal: AbortSignal): Promise<number> {
  for (;;) {
    const quote = await front.post<{ seconds: number | null; seconds_basis: string }>('/v1/quotes', job);
    if (quote.seconds !== null && quote.seconds_basis === basis) return quote.seconds;
    await pause(systemClock, 50, signal);
  }
}

async function tookOf(front: FrontProcess, job: object, signal: AbortSignal): Promise<number> {
  const start = performance.now();
  const { id } = await front.post<{ id: string }>('/v1/jobs', job);
  for (;;) {
    const { state } = await front.get<{ state: string }>(`/v1/jobs/${id}`);
    if (state === 'done' || state === 'incomplete') return (performance.now() - start) / 1_000;
    if (state !== 'queued' && state !== 'running') throw new Error(`the job is ${state}`);
    await pause(systemClock, POLL_MS, signal);
  }
}
