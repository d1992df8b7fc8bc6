/** The use case of this package: one prompt, W chains, one budget, one answer. The types below are its whole interface. */
import type { Clock } from '../core/clock.ts';
import type { PullProgress, PullTiming } from '../model/pull.ts';
import type { ModelFinder } from '../ports/models.ts';
import type { ChainLogprobs } from './logprobs.ts';
import { openSession } from './session.ts';
import type { JobSpec } from './spec.ts';

/** Why a chain ended. `early_stop`: the vote was decided without it. */
export type FinishReason = 'stop' | 'length' | 'kv_read_budget' | 'memory' | 'early_stop' | 'cancelled' | 'deadline';

export interface ChainResult {
  readonly tokens: readonly number[];
  /** Only if the spec asks for them. */
  readonly logprobs?: ChainLogprobs;
  readonly text: string;
  readonly finish_reason: FinishReason;
  readonly answer: string | null;
  /** There if and only if the job offers functions. Arguments are as the model wrote them. */
  readonly tool_calls?: readonly { readonly name: string; readonly arguments: string }[];
  /** Mean live length over (layer, KV head) when the chain ended. */
  readonly live_kv_tokens: number;
}

/** One chain's answer as it entered the vote. */
export interface Ballot {
  readonly chain: number;
  readonly answer: string | null;
  /** Normalised form that is compared; null: no answer. */
  readonly key: string | null;
  /** What the verifier said; null without one, or without an answer to show it. */
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
    /** What `load_ms` was spent on; absent where whoever opened the engine did not say. */
    readonly model?: ModelTiming;
  };
}

/** From a name to weights that are ready. What a session has loaded already costs nothing again. */
export interface ModelTiming extends PullTiming {
  /** Headers, tokenizer and template read, files mapped. */
  readonly map_ms: number;
  /** Every weight read, checked and packed. */
  readonly warm_ms: number;
}

/** A picture of the job between native calls, for live views. */
export interface Progress {
  readonly phase: 'fetch' | 'load' | 'prefill' | 'decode' | 'done';
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
  /** In phase `fetch`. */
  readonly fetch?: PullProgress;
}

export interface GenerateOptions {
  readonly onProgress?: (progress: Progress) => void;
  /** Aborted while the model loads: ERR_CANCELLED. Later: the result so far, unfinished chains `cancelled`. */
  readonly signal?: AbortSignal;
  /** Over the spec's; default: all of this machine. */
  readonly threads?: number;
  /** Where models come from; default: this machine. */
  readonly models?: ModelFinder;
  /** Tests pass their own. */
  readonly clock?: Clock;
}

/**
 * Runs one job in this process. Several jobs on one model: `openSession` of session.ts.
 * @example const { answer } = await generate({ model: 'countdown', prompt: '4 20 8 13 target 59', budget: { width: 8 } });
 * @throws EngineError with a stable code before anything is allocated, if the spec is wrong or cannot fit.
 */
export async function generate(spec: JobSpec, options: GenerateOptions = {}): Promise<JobResult> {
  using session = openSession(options.models);
  return await session.generate(spec, options);
}
