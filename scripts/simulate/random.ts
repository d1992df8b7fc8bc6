/** Chance by a seed and a name: each kind of event has its own stream, so that a policy that draws more of one changes none of the others. */
import { createHash } from 'node:crypto';

export interface Random {
  /** From 0 to below 1. */
  next(): number;
  exponential(mean: number): number;
  /** Log-normal of that median; `spread` 0: always the median. */
  around(median: number, spread: number): number;
}

/** @example randomOf(7, 'reclaims', machine) */
export function randomOf(seed: number, ...name: readonly (string | number)[]): Random {
  let state = createHash('sha256').update(`${seed}/${name.join('/')}`).digest().readUInt32LE(0);
  // mulberry32
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    exponential: (mean) => -mean * Math.log(1 - next()),
    around: (median, spread) => median * Math.exp(spread * Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next())),
  };
}
