/**
 * The arithmetic of a job: prompt, length, width and kept fraction to KV reads, tokens and bytes (DESIGN.md 4). The only file that
 * knows it. Integers throughout but for the kept fraction, so dense figures are exact equalities with a run's.
 *
 * One unit everywhere: a "token" of KV is the mean over (layer, KV head) of live entries.
 */
import { EngineError } from '../core/errors.ts';
import type { KvType, ModelInfo, RunReport } from '../runtime/native.ts';
import type { Usage } from './generate.ts';

/** How a cache grows. Dense is keptFraction 1, whatever the window. */
export interface CacheShape {
  /** Tokens before the current one that always stay. */
  readonly window: number;
  /** k = 1 / CR: of the tokens that leave the window, the part that stays. */
  readonly keptFraction: number;
  /**
   * KVzap: the prompt stays whole until it ends and is pruned once; then generated tokens go as they leave the window, or only those
   * of the prompt before its last `window`. Without it tokens go from the first one on.
   */
  readonly pruning?: 'after_prompt' | 'prompt_only';
}

/** Live entries of a chain that has been fed `tokens`, `prompt` of them its prompt; without it all are, and it is pruned. */
export function live(tokens: number, { window, keptFraction, pruning }: CacheShape, prompt = tokens): number {
  const outside = Math.max(0, (pruning === 'prompt_only' ? Math.min(tokens - 1, prompt) : tokens - 1) - window);
  return tokens - outside + keptFraction * outside;
}

/** live(1) + … + live(tokens): what feeding a chain from nothing reads if tokens go as they leave the window. */
export function liveSum(tokens: number, { window, keptFraction }: CacheShape): number {
  const full = window + 1;
  if (tokens <= full) return triangle(tokens);
  return triangle(full) + (tokens - full) * full + keptFraction * triangle(tokens - full);
}

/**
 * KV reads of one chain that generates `generated` tokens after `prompt`: the last one is never fed, so `generated` - 1 steps.
 * @example kvReads(9, 50, { window: 0, keptFraction: 1 }) // 1666
 */
export function kvReads(prompt: number, generated: number, shape: CacheShape): number {
  if (generated <= 1) return 0;
  const last = prompt + generated - 1;
  if (shape.pruning !== 'prompt_only') return liveSum(last, shape) - liveSum(prompt, shape);
  const outside = (generated - 1) * Math.max(0, prompt - shape.window);
  return triangle(last) - triangle(prompt) - outside + shape.keptFraction * outside;
}

/** KV reads of the prompt, once whatever the width. */
export function prefillReads(prompt: number, shape: CacheShape): number {
  return shape.pruning !== undefined ? triangle(prompt) : liveSum(prompt, shape);
}

/** Most live entries of one chain, its prompt included. */
export function peakTokens(prompt: number, generated: number, shape: CacheShape): number {
  const end = live(prompt + Math.max(0, generated - 1), shape, prompt);
  return shape.pruning !== undefined ? Math.max(prompt, end) : end;
}

/** Entries of the prompt in full pages, which the chains of a job share. */
export function sharedTokens(prompt: number, { window, keptFraction }: CacheShape, pageSlots: number): number {
  return pageSlots * Math.floor((keptFraction * Math.max(0, prompt - window - 1)) / pageSlots);
}

/** Bytes of K and V of one token over all layers and KV heads. */
export function kvBytesPerToken(info: Pick<ModelInfo, 'layers' | 'kvHeads' | 'headDim'>, kv: KvType): number {
  return 2 * info.layers * info.kvHeads * info.headDim * (kv === 'f32' ? 4 : 2);
}

/** What the native engine keeps when nobody chose. */
export function defaultKvType(info: Pick<ModelInfo, 'weightType'>): KvType {
  return info.weightType === 'f32' ? 'f32' : 'bf16';
}

/** k as measured (by the card, or as the caller says); else what the checkpoint was trained for, all under KVzap; dense keeps all. */
export function cacheShape(info: Pick<ModelInfo, 'policy'>, measured: number | null): CacheShape {
  const { name, window, disableEviction, targetCr, kvzap } = info.policy;
  const dense = name === 'dense' || disableEviction;
  return {
    window: dense ? 0 : window,
    keptFraction: dense ? 1 : (measured ?? 1 / Math.max(1, targetCr)),
    ...(kvzap !== null && { pruning: kvzap.decode ? 'after_prompt' : 'prompt_only' }),
  };
}

/** What native/cache/layout.h and page_pool.cc make of a cache: the figures below are theirs. */
export interface CacheGeometry {
  /** layers x KV heads: each has a ring and pages of its own. */
  readonly heads: number;
  readonly headDim: number;
  readonly elementBytes: number;
  /** Of the policy, whether or not it evicts: the ring has one slot more. */
  readonly window: number;
  readonly pageSlots: number;
}

export function cacheGeometry(info: Pick<ModelInfo, 'layers' | 'kvHeads' | 'headDim' | 'policy'>, kv: KvType, pageSlots: number): CacheGeometry {
  return { heads: info.layers * info.kvHeads, headDim: info.headDim, elementBytes: kv === 'f32' ? 4 : 2, window: info.policy.window, pageSlots };
}

const roundUp = (bytes: number, multiple: number) => Math.ceil(bytes / multiple) * multiple;
/** Slots per vector: K pads its slots and V its rows to it. */
const LANES = 16;

/** K transposed with its slots padded, V with its rows padded. */
function slotBytes({ headDim, elementBytes }: CacheGeometry, slots: number): number {
  return (headDim * roundUp(slots, LANES) + slots * roundUp(headDim, LANES)) * elementBytes;
}

/** The ring of one head, whole from the first token on: K, V and a flag for each slot. */
export function ringBytes(geometry: CacheGeometry): number {
  const slots = geometry.window + 1;
  return roundUp(slotBytes(geometry, slots) + slots, 64);
}

/** From page to page: K, V and a position for each slot. */
export function pageBytes(geometry: CacheGeometry): number {
  return roundUp(slotBytes(geometry, geometry.pageSlots) + 4 * geometry.pageSlots, 64);
}

/** Pages of one head of a chain of `tokens` with `liveTokens` entries: what the ring does not hold, the open page whole. */
function pagesOf(geometry: CacheGeometry, tokens: number, liveTokens: number): number {
  return Math.ceil(Math.max(0, liveTokens - Math.min(tokens, geometry.window + 1)) / geometry.pageSlots);
}

/** Bytes of one chain of `tokens` that shares nothing: rings, pages, its row of logits and its tokens. */
export function chainBytes(tokens: number, shape: CacheShape, geometry: CacheGeometry, vocabSize: number): number {
  const cache = ringBytes(geometry) + pagesOf(geometry, tokens, live(tokens, shape)) * pageBytes(geometry);
  return geometry.heads * cache + 4 * vocabSize + 4 * tokens;
}

/**
 * Most bytes of rings and pages that a job holds. The prompt is one chain; then its full pages are shared and everything else is
 * each chain's own.
 */
export function kvAllocatedBytes(prompt: number, lengths: readonly number[], shape: CacheShape, geometry: CacheGeometry): number {
  const ring = ringBytes(geometry);
  const page = pageBytes(geometry);
  const whole = shape.pruning === undefined ? live(prompt, shape) : prompt;
  const shared = Math.floor(Math.max(0, live(prompt, shape) - Math.min(prompt, geometry.window + 1)) / geometry.pageSlots);
  const ends = lengths.map((length) => {
    const tokens = prompt + Math.max(0, length - 1);
    return pagesOf(geometry, tokens, live(tokens, shape, prompt));
  });
  const alone = ring + pagesOf(geometry, prompt, whole) * page;
  const together = lengths.length * ring + (sum(ends) - (lengths.length - 1) * shared) * page;
  return geometry.heads * Math.max(alone, together);
}

export interface PlanInput {
  readonly promptTokens: number;
  /** [width] */
  readonly lengths: readonly number[];
  readonly shape: CacheShape;
  readonly geometry: CacheGeometry;
  readonly vocabSize: number;
  readonly bytesPerToken: number;
  readonly kvReadBudget: number | null;
  /** Where each chain has a share of it: the smallest. null: they have it together. */
  readonly kvReadShare?: number | null;
  /** As packed, which is as large as the file; the mapped file is page cache. 0 if they are already in memory. */
  readonly weightBytes: number;
}

/** Of what the budget pays for: a run ends before the first step that it does not. */
export interface Estimate {
  /** Of all chains. */
  readonly completion_tokens: number;
  readonly kv_reads: number;
  readonly peak_kv_tokens: number;
  /** Of live entries (DESIGN.md 4). */
  readonly peak_kv_bytes: number;
  /** Of the rings and pages that hold them. */
  readonly kv_allocated_bytes: number;
  /** All that the job takes: weights, rings and pages, logits, tokens. */
  readonly allocated_bytes: number;
}

/** A plan with its price. `expected` keeps what the card measured, `worst` keeps everything; both run every chain to its length, or as far as the budget pays. */
export interface Quote {
  readonly prompt_tokens: number;
  readonly lengths: readonly number[];
  readonly kept_fraction: number;
  readonly window: number;
  readonly kv_bytes_per_token: number;
  readonly kv_reads_prefill: number;
  readonly kv_read_budget: number | null;
  readonly weight_bytes: number;
  readonly expected: Estimate;
  readonly worst: Estimate;
}

/** @throws EngineError ERR_BUDGET if the budget does not pay for feeding one token to each chain. */
export function plan(input: PlanInput): Quote {
  const { promptTokens, lengths, shape, kvReadBudget, kvReadShare = null } = input;
  const firstToken = live(promptTokens + 1, shape, promptTokens);
  if (kvReadShare !== null && kvReadShare < firstToken && lengths.some((length) => length > 1)) {
    throw new EngineError(
      'ERR_BUDGET',
      `kv_read_budget cannot pay for one token of each chain: the first one after ${promptTokens} prompt tokens reads ${Math.ceil(firstToken)}, and of a sharded ` +
        `job each chain has an equal share; got ${kvReadShare}.`,
    );
  }
  const firstStep = lengths.filter((length) => length > 1).length * firstToken;
  if (kvReadBudget !== null && kvReadBudget < firstStep) {
    throw new EngineError(
      'ERR_BUDGET',
      `kv_read_budget cannot pay for one token: the first step of ${lengths.length} chains after ${promptTokens} prompt tokens reads ` +
        `${Math.ceil(firstStep)}; got ${kvReadBudget}.`,
    );
  }
  return {
    prompt_tokens: promptTokens,
    lengths,
    kept_fraction: shape.keptFraction,
    window: shape.window,
    kv_bytes_per_token: input.bytesPerToken,
    kv_reads_prefill: prefillReads(promptTokens, shape),
    kv_read_budget: kvReadBudget,
    weight_bytes: input.weightBytes,
    expected: estimate(input, shape),
    worst: estimate(input, { ...shape, keptFraction: 1 }),
  };
}

function estimate(input: PlanInput, shape: CacheShape): Estimate {
  const { promptTokens, bytesPerToken, geometry } = input;
  const lengths = paidLengths(input, shape);
  const reads = sum(lengths.map((length) => kvReads(promptTokens, length, shape)));
  const peak = sum(lengths.map((length) => peakTokens(promptTokens, length, shape)));
  // Chains begin when the prompt has been pruned: its dense buffer is never beside them.
  const ends = sum(lengths.map((length) => live(promptTokens + length - 1, shape, promptTokens)));
  const shared = (lengths.length - 1) * sharedTokens(promptTokens, shape, geometry.pageSlots);
  const held = shape.pruning !== undefined ? Math.max(promptTokens, ends - shared) : ends - shared;
  const kvAllocated = kvAllocatedBytes(promptTokens, lengths, shape, geometry);
  return {
    completion_tokens: sum(lengths),
    kv_reads: reads,
    peak_kv_tokens: peak,
    peak_kv_bytes: Math.ceil(held * bytesPerToken),
    kv_allocated_bytes: kvAllocated,
    allocated_bytes: input.weightBytes + kvAllocated + workBytes(input),
  };
}

/** How far the budget lets each chain come: together they end at one step, and of a sharded job each when its share is spent, as native/run ends them. */
function paidLengths({ promptTokens, lengths, kvReadBudget, kvReadShare = null }: PlanInput, shape: CacheShape): readonly number[] {
  if (kvReadBudget === null) return lengths;
  const within = (most: number, of: readonly number[]) => {
    const end = lastPaid(Math.max(...of), (end) => sum(of.map((length) => kvReads(promptTokens, Math.min(length, end), shape))) <= most);
    return of.map((length) => Math.min(length, end));
  };
  if (kvReadShare === null) return within(kvReadBudget, lengths);
  const more = kvReadBudget - kvReadShare * lengths.length;
  return lengths.flatMap((length, i) => within(kvReadShare + (i < more ? 1 : 0), [length]));
}

/** The greatest length up to `longest` that is paid, by halves: a longer chain reads more. One token needs no step. */
function lastPaid(longest: number, isPaid: (length: number) => boolean): number {
  let [paid, most] = [1, longest];
  while (paid < most) {
    const middle = Math.ceil((paid + most) / 2);
    if (isPaid(middle)) paid = middle;
    else most = middle - 1;
  }
  return paid;
}

/** A row of logits for each chain, the prompt's tokens and room for all that may be generated, whatever the budget. */
function workBytes({ promptTokens, lengths, vocabSize }: PlanInput): number {
  return 4 * (lengths.length * vocabSize + promptTokens + sum(lengths));
}

/**
 * Refuses what this machine cannot hold, before anything is allocated. Admission goes by the expected case: the worst is survived by
 * ending the job, not by refusing work that fits.
 * @throws EngineError ERR_MEMORY with the numbers.
 */
export function admit(quote: Quote, availableBytes: number): void {
  const { allocated_bytes: needed, kv_allocated_bytes: kv } = quote.expected;
  if (needed > availableBytes) {
    throw new EngineError(
      'ERR_MEMORY',
      `The job needs ${needed} bytes (weights ${quote.weight_bytes}, KV ${kv} for ${quote.lengths.length} chains of ` +
        `${quote.prompt_tokens} + ${Math.max(...quote.lengths)} tokens with a window of ${quote.window}, logits and tokens ${needed - quote.weight_bytes - kv}) ` +
        `but ${availableBytes} are available; lower width or length, or raise compression_ratio.`,
    );
  }
}

/** What a run used, in the words of DESIGN.md 4. Prompt pages count once: they are shared. */
export function usageOf(report: RunReport, promptTokens: number, bytesPerToken: number): Usage {
  const { headCount, chains } = report;
  const peakSum = sum(chains.map((chain) => chain.peakSum));
  const readSum = sum(chains.map((chain) => chain.readSum));
  const denseReadSum = sum(chains.map((chain) => chain.denseReadSum));
  const liveTotal = sum(chains.map((chain) => chain.liveSum));
  const sharedTwice = Math.max(0, chains.length - 1) * report.sharedSum;
  // One chain's peak may be that of its prompt, which was held before there were others.
  const heldPeakSum = Math.max(...chains.map((chain) => chain.peakSum), sum(chains.map((chain) => chain.decodePeakSum)) - sharedTwice);
  return {
    prompt_tokens: promptTokens,
    completion_tokens: sum(chains.map((chain) => chain.tokens.length)),
    kv_reads: readSum / headCount,
    kv_reads_prefill: report.prefillReadSum / headCount,
    peak_kv_tokens: peakSum / headCount,
    peak_kv_bytes: (heldPeakSum * bytesPerToken) / headCount,
    compression_ratio: liveTotal === 0 ? 1 : (sum(chains.map((chain) => chain.fed)) * headCount) / liveTotal,
    read_ratio: readSum === 0 ? 1 : denseReadSum / readSum,
  };
}

/** 1 + 2 + … + n. n (n + 1) stays below 2^53 for n up to LIMITS.LENGTH_MAX and far beyond. */
function triangle(n: number): number {
  return (n * (n + 1)) / 2;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
