/**
 * `reasoning.effort` as a budget (DESIGN.md 7): low, medium and high are the (length, width) whose KV reads are 1/4, 1 and 4 times those of
 * one dense chain at the model's default length. Compression pays for the chains: at CR 8, `medium` is 8 chains for the reads of one.
 *
 * The arithmetic is nominal, so that the numbers can be printed beside a model: prompt and window count for nothing, and the variant keeps
 * 1/CR of every token. Then W chains of L tokens read W L^2 / (2 CR), a dense chain of L0 tokens L0^2 / 2, and
 * `W = ceil(share CR)`, `L = L0 sqrt(share CR / W)`.
 */
import { LIMITS } from '../../engine/core/limits.ts';

export const EFFORTS = ['low', 'medium', 'high'] as const;
export type Effort = (typeof EFFORTS)[number];

const SHARE: Readonly<Record<Effort, number>> = { low: 1 / 4, medium: 1, high: 4 };

export interface Preset {
  /** null: the model's default, which is what the prompt leaves of the context. */
  readonly length: number | null;
  readonly width: number;
}

/** @param context positions of the model, tokens. */
export function defaultLength(context: number): number {
  return Math.min(context, LIMITS.LENGTH_DEFAULT_MAX);
}

/** @example presetOf('low', 32_768, 1) // { length: 16_384, width: 1 } */
export function presetOf(effort: Effort, modelLength: number, compressionRatio: number): Preset {
  const chains = SHARE[effort] * compressionRatio;
  const width = Math.min(LIMITS.WIDTH_MAX, Math.ceil(chains));
  const length = Math.max(1, Math.floor(modelLength * Math.sqrt(chains / width)));
  return { length: length >= modelLength ? null : length, width };
}
