/** What the demo compares: one budget of KV reads, spent on long compressed chains or on short dense ones. */
import { readFileSync } from 'node:fs';

import type { JobSpec } from '../../engine/job/spec.ts';
import { resolve } from '../../engine/model/registry.ts';

export interface Setting {
  readonly name: string;
  readonly cr: number;
  /** Most tokens of a chain. */
  readonly length: number;
  readonly width: number;
}

/** Both settings read about 58,000 KV tokens when chains run to their ends (models/countdown/RESULTS.md). */
export const KV_READ_BUDGET = 58_000;
export const HYPERSCALED: Setting = { name: 'CR 8', cr: 8, length: 512, width: 4 };
export const DENSE: Setting = { name: 'CR 1', cr: 1, length: 128, width: 8 };

/**
 * The first held-out problem that, at seed 0, CR 8 solves with a longer chain than CR 1 can pay for. Every machine gets the same run.
 */
export const DEFAULT_PROBLEM = 4;
export const DEFAULT_SEED = 0;

/**
 * Figures that the card does not hold. `second_sample`: RESULTS.md, `vanilla, many short chains`, L 128, W 8. `hard_limit`: the demo's own
 * jobs, where the budget also stops the unlucky ones: `npm run demo -- --problems 96 --seed S` for S from 0 to 3, 384 jobs each.
 */
export const MEASURED = { second_sample: { dense: 0.566 }, hard_limit: { dense: 0.516, hyperscaled: 0.646 } } as const;

export interface Problem {
  readonly id: string;
  readonly task: string;
  /** The prompt as a user writes it. */
  readonly content: string;
  readonly numbers?: readonly number[];
  readonly target?: number;
  readonly prompt_ids: readonly number[];
}

/** The held-out problems of four numbers, in the order of the file: the card's figures are over the first 96. */
export function heldOutProblems(): readonly Problem[] {
  const file = new URL('../../models/countdown/eval_problems.jsonl', import.meta.url);
  const lines = readFileSync(file, 'utf8').trim().split('\n');
  return lines.map((line) => JSON.parse(line) as Problem).filter((problem) => problem.task === 'countdown4');
}

/** @example jobOf(HYPERSCALED, '4 20 8 13 target 59', 1) */
export function jobOf({ cr, length, width }: Setting, prompt: string, seed: number): JobSpec {
  return {
    model: 'countdown',
    prompt,
    seed,
    budget: { length, width, compression_ratio: cr, kv_read_budget: KV_READ_BUDGET },
    vote: 'verifier',
  };
}

export interface CardRate {
  readonly score: number;
  readonly standard_error: number;
  readonly kv_reads: number;
}

/** What the model card says that a setting solves of countdown4 within its reads. */
export function cardRate({ cr, length, width }: Setting): CardRate {
  const { variantCard } = resolve('countdown', { cr });
  const point = variantCard?.figures?.frontier.find((p) => p.task === 'countdown4' && p.length === length && p.width === width);
  if (point === undefined) throw new Error(`models/countdown/model.json has no countdown4 figure for CR ${cr}, length ${length}, width ${width}`);
  return { score: point.score, standard_error: point.standard_error, kv_reads: point.kv_reads };
}
