/**
 * What a job costs: the machine for as long as it is needed, and storage for what is parked. Decoding is bound by memory: a step reads the weights once,
 * whatever the number of chains, and every chain's live KV. So a machine that holds n chains makes
 *
 *   tokens/s = n / step,   step = (weights + n * mean reads * bytes per token) / (bandwidth * REACHED)
 *
 * with the mean of the reads of a chain's steps as budget.ts has it. Compression makes the reads fewer and n larger. An estimate, for machines that
 * nobody has measured; what workers measure of themselves (control/rates.ts) goes before it.
 */
import { type CacheShape, kvReads, peakTokens } from './budget.ts';

export interface Accelerator {
  readonly name: string;
  readonly memoryBytes: number;
  /** Of its memory, as its maker states it. */
  readonly bytesPerSecond: number;
}

/** GPUs of the machines of core/prices.ts, from their data sheets. */
export const ACCELERATORS = {
  gpu: { name: 'L4', memoryBytes: 24e9, bytesPerSecond: 300e9 },
  gpu48: { name: 'L40S', memoryBytes: 48e9, bytesPerSecond: 864e9 },
} as const satisfies Readonly<Record<string, Accelerator>>;

/** Of the bandwidth, what decoding reaches: vLLM 0.30 on one H100, Qwen3-8B in BF16, with 1, 32 and 64 chains and at 8K: 66 to 67 % (published, 2026-09). */
export const REACHED = 0.67;
/** Beyond it nobody has shown that memory is still the bound; short chains would fit by the thousand. */
const CHAINS_MAX = 64;
/** Of the memory, what is there for weights and KV. */
const USABLE = 0.92;

export interface Decoding {
  /** Read in a step, and held: matrices, and with them embeddings that are looked up only. */
  readonly weights: { readonly readBytes: number; readonly heldBytes: number };
  readonly bytesPerToken: number;
  readonly shape: CacheShape;
  readonly promptTokens: number;
  readonly length: number;
}

export interface DecodeRate {
  /** That the machine runs at a time: as many as it holds, each at its largest, and 64 at most. */
  readonly chains: number;
  /** Of all of them together. */
  readonly tokensPerSecond: number;
}

/** null: not even one chain fits. @example decodeRate({ ... }, ACCELERATORS.gpu)?.tokensPerSecond */
export function decodeRate({ weights, bytesPerToken, shape, promptTokens, length }: Decoding, { memoryBytes, bytesPerSecond }: Accelerator): DecodeRate | null {
  const room = memoryBytes * USABLE - weights.heldBytes;
  const chains = Math.min(CHAINS_MAX, Math.floor(room / (peakTokens(promptTokens, length, shape) * bytesPerToken)));
  if (chains < 1) return null;
  const meanReads = length > 1 ? kvReads(promptTokens, length, shape) / (length - 1) : promptTokens;
  const stepSeconds = (weights.readBytes + chains * meanReads * bytesPerToken) / (bytesPerSecond * REACHED);
  return { chains, tokensPerSecond: chains / stepSeconds };
}

/** Of a worker that is never idle. */
export function usdPerMillionTokens(tokensPerSecond: number, usdPerHour: number): number {
  return (usdPerHour / 3_600 / tokensPerSecond) * 1e6;
}

/** The worked example of docs/COST.md: Qwen3-8B in BF16, whose embeddings are held but not read, dense and with a window of 512 at CR 8. */
export const EXAMPLE = {
  name: 'Qwen3-8B',
  width: 8,
  promptTokens: 1_024,
  length: 31_744,
  bytesPerToken: 147_456,
  weights: { readBytes: 15.14e9, heldBytes: 16.4e9 },
  shapes: { 1: { window: 0, keptFraction: 1 }, 8: { window: 512, keptFraction: 1 / 8 } },
} as const satisfies Omit<Decoding, 'shape'> & { readonly name: string; readonly width: number; readonly shapes: Readonly<Record<1 | 8, CacheShape>> };

/** A job of the example with all chains at their length. Bytes. */
export function exampleParkedBytes(cr: 1 | 8): number {
  return EXAMPLE.width * peakTokens(EXAMPLE.promptTokens, EXAMPLE.length, EXAMPLE.shapes[cr]) * EXAMPLE.bytesPerToken;
}

/**
 * Requests of one round of the reconciler (functions/reconciler.ts) over a store in which nothing lives: what a deployment asks for each minute while
 * nobody asks it for anything. test/functions/reconciler.test.ts counts them.
 */
export const IDLE_ROUND = { lists: 4, puts: 1, gets: 1, queue: 1 } as const;
