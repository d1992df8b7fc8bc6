/** The use case of this package: one prompt, W chains, one budget, one answer. The types below are its whole interface. */
import type { JobSpec } from './spec.ts';

/** Why a chain ended. `early_stop`: the vote was decided without it. */
export type FinishReason = 'stop' | 'length' | 'kv_read_budget' | 'early_stop' | 'cancelled' | 'deadline';

export interface ChainResult {
  readonly tokens: readonly number[];
  readonly text: string;
  readonly finish_reason: FinishReason;
  readonly answer: string | null;
  /** Mean live length over (layer, KV head) when the chain ended. */
  readonly live_kv_tokens: number;
}

/** One chain's answer as it entered the vote. */
export interface Ballot {
  readonly chain: number;
  readonly answer: string | null;
  /** Normalised form that is compared; null: no answer. */
  readonly key: string | null;
  /** What the verifier said; null without one. */
  readonly verified: boolean | null;
}

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly kv_reads: number;
  readonly kv_reads_prefill: number;
  readonly peak_kv_tokens: number;
  readonly peak_kv_bytes: number;
  readonly compression_ratio: number;
  readonly read_ratio: number;
}

/** All but `timing` is a function of the spec. */
export interface JobResult {
  readonly answer: string | null;
  readonly ballots: readonly Ballot[];
  readonly chains: readonly ChainResult[];
  readonly usage: Usage;
  readonly timing: {
    readonly load_ms: number;
    readonly prefill_ms: number;
    readonly decode_ms: number;
    readonly tokens_per_second: number;
    readonly kv_allocated_bytes: number;
    readonly weight_bytes: number;
    readonly threads: number;
    readonly isa: string;
  };
}

/** A picture of the job between native calls, for live views. */
export interface Progress {
  readonly phase: 'load' | 'prefill' | 'decode' | 'done';
  readonly chains: readonly {
    readonly tokens: number;
    readonly live_kv_tokens: number;
    readonly compression_ratio: number;
    readonly finish_reason: FinishReason | null;
    /** The newest text, whole characters only. */
    readonly tail: string;
  }[];
  readonly kv_reads: number;
  readonly kv_read_budget: number | null;
}

export interface GenerateOptions {
  readonly onProgress?: (progress: Progress) => void;
  readonly signal?: AbortSignal;
  readonly threads?: number;
}

/**
 * Runs one job in this process.
 * @throws EngineError with a stable code before anything is allocated, if the spec is wrong or cannot fit.
 */
export declare function generate(spec: JobSpec, options?: GenerateOptions): Promise<JobResult>;
