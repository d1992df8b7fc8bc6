/** The bundled model's jobs that checkpoints are measured on: chains of exactly the length that is asked for. */
import type { JobSpec } from '../../engine/job/spec.ts';
import { heldOutProblems } from '../demo/settings.ts';

export interface Variant {
  readonly name: string;
  readonly cr: number;
}
export const VARIANTS: readonly Variant[] = [{ name: 'dense', cr: 1 }, { name: 'CR 8', cr: 8 }];

/** Ids of 128 that a chain would end with. */
const EOS = 2;
const NEVER = -100;

/**
 * The end token is never sampled, so that every chain reaches `length`: what it says after its answer is of no use, but is cached,
 * evicted and stored like any other text.
 */
export function longJob({ cr }: Variant, length: number, width: number): JobSpec {
  return {
    model: 'countdown',
    prompt: heldOutProblems()[0]?.content ?? '',
    seed: 0,
    sampling: { logit_bias: [[EOS, NEVER]] },
    budget: { length, width, compression_ratio: cr },
    vote: 'none',
    early_stop: false,
  };
}
