/** Checkpoints of a cache in the shape of Qwen3-8B: deltas measured on synthetic pages, larger sizes and re-prefill computed from them. */
import { nativeBench } from './native-bench.ts';

/** 36 layers, 8 KV heads of 128, BF16; 512 is the window of its published DMS checkpoint. */
const WINDOW = 512;
const CR = 8;
const DELTA_TOKENS = 2_048;
const TOKENS_PER_SECOND = 60;
export const ROUNDS = 25;
const CONTEXTS = [2_048, 4_096, 8_192, 16_384, 32_768] as const;

/** Prefill of T tokens: weights without the embedding, and causal attention over 36 layers of 4,096 (KV.md 6). */
const MATRIX_WEIGHTS = 6.95e9;
const ATTENTION_PER_TOKEN_PAIR = 4 * 36 * 4_096 / 2;
export const ACCELERATOR_FLOPS = 400e12;
/** Stores beyond the measured one: stated, not measured. */
export const STORE_GB_PER_S = [0.1, 1, 5] as const;

export interface LargeDelta {
  readonly variant: string;
  readonly window: number;
  /** Of each KV head in this delta. */
  readonly survivors: number;
  readonly bytes: number;
  readonly gb_per_s: Readonly<Record<'memcpyWarm' | 'memcpyFresh' | 'blake3' | 'save' | 'restoreCrc' | 'restoreDigest' | 'prepare' | 'preparedCrc' | 'preparedDigest', number>>;
  /** Of generation at 60 tokens/s with a delta every 2,048 tokens. */
  readonly save_share: number;
}

export interface LargeSize {
  readonly tokens: number;
  readonly dense_bytes: number;
  readonly cr8_bytes: number;
  readonly prefill_s: number;
  /** Above this a store is sooner than computing again, GB/s. */
  readonly break_even_dense: number;
  readonly break_even_cr8: number;
}

export interface LargeModel {
  readonly threads: number;
  readonly deltas: readonly LargeDelta[];
  readonly sizes: readonly LargeSize[];
}

export async function measureLargeModel(threads: number): Promise<LargeModel> {
  const dense = await delta('dense', DELTA_TOKENS, 1, threads);
  const sparse = await delta('CR 8', DELTA_TOKENS / CR, WINDOW, threads);
  const perSurvivor = (dense.bytes - (await delta('dense', DELTA_TOKENS / 2, 1, threads)).bytes) / (DELTA_TOKENS / 2);
  const sizes = CONTEXTS.map((tokens) => {
    const denseBytes = dense.bytes + (tokens - DELTA_TOKENS) * perSurvivor;
    const sparseBytes = sparse.bytes + (Math.max(0, tokens - WINDOW) / CR - sparse.survivors) * perSurvivor;
    const prefill = (2 * MATRIX_WEIGHTS * tokens + ATTENTION_PER_TOKEN_PAIR * tokens * tokens) / ACCELERATOR_FLOPS;
    return {
      tokens,
      dense_bytes: denseBytes,
      cr8_bytes: sparseBytes,
      prefill_s: prefill,
      break_even_dense: denseBytes / prefill / 1e9,
      break_even_cr8: sparseBytes / prefill / 1e9,
    };
  });
  return { threads, deltas: [dense, sparse], sizes };
}

async function delta(variant: string, survivors: number, window: number, threads: number): Promise<LargeDelta> {
  const args = ['--survivors', `${survivors}`, '--window', `${window}`, '--threads', `${threads}`, '--rounds', `${ROUNDS}`];
  const { bytes, gbPerS } = (await nativeBench('restore_bench', args, { show: false })) as unknown as { readonly bytes: number; readonly gbPerS: LargeDelta['gb_per_s'] };
  return { variant, window, survivors, bytes, gb_per_s: gbPerS, save_share: bytes / 1e9 / gbPerS.save / (DELTA_TOKENS / TOKENS_PER_SECOND) };
}
