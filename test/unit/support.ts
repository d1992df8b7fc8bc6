/** What several unit tests read: the bundled model's problems and reference runs. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const COUNTDOWN = fileURLToPath(new URL('../../models/countdown', import.meta.url));

export interface Problem {
  readonly id: string;
  readonly task: 'countdown3' | 'countdown4' | 'eval';
  readonly content: string;
  readonly answer: number;
  readonly solution: string;
  readonly prompt: string;
  readonly prompt_ids: readonly number[];
}

export interface ReferenceRun {
  readonly id: string;
  readonly prompt: string;
  readonly prompt_ids: readonly number[];
  readonly generated_ids: readonly number[];
  readonly text: string;
  readonly finished: boolean;
  readonly solved: boolean;
  readonly live_counts_final: readonly (readonly number[])[];
  readonly kv_reads: number;
  readonly peak_tokens: number;
}

export function readProblems(): readonly Problem[] {
  return readFileSync(`${COUNTDOWN}/eval_problems.jsonl`, 'utf8').trim().split('\n').map((line) => JSON.parse(line) as Problem);
}

export function readReference(): Readonly<Record<string, readonly ReferenceRun[]>> {
  return (JSON.parse(readFileSync(`${COUNTDOWN}/reference_outputs.json`, 'utf8')) as { checkpoints: Record<string, ReferenceRun[]> }).checkpoints;
}
