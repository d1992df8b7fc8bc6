/** What the simulator goes by: the output of `npm run bench -- slices`. */
import { readFileSync } from 'node:fs';

import type { CacheGeometry, CacheShape } from '../../engine/job/budget.ts';
import type { Conditions } from '../bench/conditions.ts';

export interface MeasuredVariant {
  readonly shape: CacheShape;
  readonly geometry: CacheGeometry;
  readonly vocab_size: number;
  readonly bytes_per_token: number;
}

/** Times are of the processor. A call of s steps of w chains that read r tokens of KV takes step_ms s + token_ms w s + read_ms r. */
export interface Measured {
  readonly bench: 'slices';
  readonly step_ms: number;
  readonly token_ms: number;
  readonly read_ms: number;
  readonly prefill_token_ms: number;
  readonly checkpoint_chain_bytes: number;
  readonly checkpoint_live_token_bytes: number;
  readonly save_byte_ms: number;
  readonly resume_byte_ms: number;
  /** Of one job from its message to its end, whatever it is: store, queue and bookkeeping, beside its prompt and its steps. */
  readonly job_ms: number;
  /** Of each slice after its first: the same of a hand-over, from saving to the next slice's first step, beside the bytes. */
  readonly handover_ms: number;
  /** Calls of the store of one job in one slice, from its making to its end: those that S3 counts as writes (listings too), and reads. */
  readonly job_puts: number;
  readonly job_gets: number;
  /** Of a worker's process, its model included. */
  readonly start_ms: number;
  readonly variants: Readonly<Record<string, MeasuredVariant>>;
  readonly conditions: Conditions;
}

/** @throws Error that says what is missing. */
export function readMeasured(file: string): Measured {
  const value = JSON.parse(readFileSync(file, 'utf8')) as Partial<Measured>;
  const numbers = ['step_ms', 'token_ms', 'read_ms', 'prefill_token_ms', 'checkpoint_chain_bytes', 'checkpoint_live_token_bytes', 'save_byte_ms', 'resume_byte_ms', 'job_ms', 'handover_ms', 'job_puts', 'job_gets', 'start_ms'] as const;
  for (const name of numbers) if (typeof value[name] !== 'number' || !(value[name] >= 0)) throw new Error(`${file}: ${name} is no number, 0 or more; it is the output of \`npm run bench -- slices\``);
  if (value.variants?.dense === undefined || value.variants.cr8 === undefined || value.conditions === undefined) throw new Error(`${file}: it has no variants dense and cr8, or does not say under what conditions it was measured`);
  return value as Measured;
}
