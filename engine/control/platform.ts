/**
 * What functions call: the use cases of a platform of stored jobs, and nothing of how they are done. Whoever implements it decides where
 * jobs are stored and who runs them; the state is in the store, so any instance answers any request. Control-plane code: knows no native engine.
 */
import type { FinishReason, JobResult } from '../job/generate.ts';
import type { JsonFormat } from '../job/grammar.ts';
import type { TokenLogprob } from '../job/logprobs.ts';
import type { JobSpec, ToolChoice } from '../job/spec.ts';
import type { TextDelta } from '../job/splitter.ts';
import type { JobState } from '../kv/head.ts';
import type { Via } from '../kv/hints.ts';
import type { Strike } from '../kv/strikes.ts';
import type { Basis } from './rates.ts';

export interface CallerOptions {
  /** Whose jobs: a name part, from the API key and never from the request. */
  readonly tenant: string;
  readonly signal?: AbortSignal | undefined;
  /** Of the request, for whoever traces; jobs that it makes are linked to it. */
  readonly traceparent?: string | undefined;
}

export interface SubmitOptions extends CallerOptions {
  /** The client's own id of the job (PUT). Default: a fresh ULID. */
  readonly id?: string | undefined;
  /** Two calls with one key and body make one job. */
  readonly idempotencyKey?: string | undefined;
  /** Asked before the job is made, and not if it is there already; what it throws refuses it. */
  readonly admit?: (() => Promise<void>) | undefined;
  /** The job that has given an answer, to which the spec's messages are the next turn. */
  readonly previous?: string | undefined;
  /** As what it is asked for, for whoever is told of its end. Default: as a job. */
  readonly via?: Via | undefined;
}

/** A job as anyone may ask for it at any moment. */
export interface JobView {
  readonly id: string;
  readonly state: JobState;
  readonly model: string;
  /** Of the wall clock, ms. */
  readonly createdMs: number;
  readonly slice: number;
  readonly epoch: number;
  /** Tokens that every unfinished chain has, as of the last commit. */
  readonly step: number;
  readonly chains: readonly { readonly tokens: number; readonly finish: string | null }[];
  /** Why the job ended; null while it has not. */
  readonly ended: FinishReason | string | null;
  readonly parent: { readonly job: string; readonly kind: ParentKind } | null;
  /** Of `continue`: tokens of the prompt whose KV came from the parent's checkpoint. 0 also while that is not known: before the first commit. */
  readonly cachedTokens: number;
  /** null: the job offers no functions. */
  readonly tools: OfferedTools | null;
  /** The caller's own words; null: none. */
  readonly metadata: Readonly<Record<string, string>> | null;
  readonly user: string | null;
  /** null, each: not asked for, or the job is sealed and cannot be read here. */
  readonly asked: {
    /** Defaults filled in. */
    readonly temperature: number | null;
    readonly topP: number | null;
    readonly format: JsonFormat | null;
    readonly logprobs: number | null;
    readonly instructions: string | null;
    /** The spec's own. */
    readonly repeated: Readonly<Record<string, unknown>> | null;
  };
  /** Tokens that the longest chain may have. */
  readonly length: number;
  /** Until when it is kept, of the wall clock, ms; null: until it is erased, or it has not ended. */
  readonly expiresMs: number | null;
  /** Of a job that is poisoned or failed: what became of its takes, oldest first; the last is why it failed. */
  readonly evidence: readonly Strike[] | null;
}

/** `extend`: more budget; `fork`: another way from a token; `continue`: the next turn of a conversation. */
export type ParentKind = 'extend' | 'fork' | 'continue';

/** The functions that a job offers its model, as they were asked for. */
export interface OfferedTools {
  readonly tools: NonNullable<JobSpec['tools']>;
  readonly choice: ToolChoice;
  /** Whether one turn may make several calls. */
  readonly parallel: boolean;
}

interface ChainEvent {
  readonly seq: number;
  readonly chain: number;
  readonly delta: TextDelta;
  /** Of a job that keeps them: of tokens of the content, each once and in order, at the latest with its text. */
  readonly logprobs?: readonly TokenLogprob[];
}

/**
 * What a stream consists of. `seq` counts from 0 within the job, is a function of the job alone (ordered by step, then chain), and
 * `after` names the last one that a reader has: it gets every later one once, from whichever instance it asks.
 */
export type JobEvent =
  | (ChainEvent & { readonly kind: 'token'; readonly index: number; readonly token: number })
  | (ChainEvent & { readonly kind: 'finish'; readonly reason: FinishReason; readonly answer: string | null })
  /** Last event of a job that ended by itself or its budget. */
  | { readonly kind: 'result'; readonly seq: number; readonly state: JobState; readonly result: Omit<JobResult, 'timing'> }
  /** Not numbered, may be missed: the state changed (queued, running, parked), or nothing happened for a while. `fault`: the code of why it failed. */
  | { readonly kind: 'state'; readonly state: JobState; readonly fault?: string }
  | { readonly kind: 'idle' };

/** What was said to a model, or by one before. */
export type Turn = NonNullable<JobSpec['messages']>[number];

export interface QuoteView {
  readonly model: string;
  readonly prompt_tokens: number;
  readonly length: number;
  readonly width: number;
  readonly compression_ratio: number;
  /** `expected`: by the variant's card; `worst`: nothing is evicted. */
  readonly expected: QuoteSide;
  readonly worst: QuoteSide;
  /** Of decoding, on a worker that has nothing else to do. null: no worker of the store has said yet how fast it is on this model. */
  readonly seconds: number | null;
  /** By whose rate: that of the worker in this process, or what others of the store have said of it, or of another variant. null: no seconds. */
  readonly seconds_by: 'this_worker' | 'workers' | null;
  /** By what that is known: the last jobs of the model, or a few steps that were timed when it was loaded; or why it is not. */
  readonly seconds_basis: Basis | 'no_worker_yet';
  /** `seconds` at the price of the machine; null: no price is configured. */
  readonly cost_usd: number | null;
  /** null: it would be admitted. */
  readonly refusal: { readonly code: string; readonly message: string } | null;
}

export interface QuoteSide {
  readonly completion_tokens: number;
  readonly kv_reads: number;
  readonly peak_kv_tokens: number;
  readonly peak_kv_bytes: number;
}

export interface ModelView {
  /** `countdown@cr8`. */
  readonly id: string;
  readonly compression_ratio: number;
  readonly context: number;
  readonly default: boolean;
}

/** Of a job that is made of another; default: a fresh one. */
export interface ChildNames {
  readonly as?: string | undefined;
  /** Names it too, where `as` does not: two calls with one key make one job. */
  readonly idempotencyKey?: string | undefined;
  /** As of SubmitOptions. */
  readonly admit?: SubmitOptions['admit'];
}

export interface ForkOptions extends CallerOptions, ChildNames {
  readonly at: number;
  readonly chain: number;
  readonly width: number;
  readonly seed?: bigint | undefined;
  readonly length?: number | undefined;
}

export interface ExtendOptions extends CallerOptions, ChildNames {
  readonly length?: number | undefined;
  /** Chains in all. */
  readonly width?: number | undefined;
  readonly kvReadBudget?: number | undefined;
}

export interface ListOptions extends CallerOptions {
  readonly limit: number;
  /** The id after which to go on; newest first. */
  readonly after?: string | undefined;
}

export interface PlatformHealth {
  readonly state: 'starting' | 'ready' | 'draining';
  /** Jobs that wait for a worker, those of batches too. */
  readonly queued: number;
  readonly running: number;
  /** Of the oldest that waits and is of no batch; 0: none does. */
  readonly queueAgeMs: number;
}

/** Every method throws EngineError with a stable code; another tenant's job is ERR_JOB_NOT_FOUND. */
export interface Platform {
  /** Parsed, bounded, quoted and admitted before anything is stored. @throws EngineError ERR_OPTION, ERR_BUDGET, ERR_MEMORY, ERR_JOB_CONFLICT, ERR_MODEL_NOT_FOUND … */
  submit(spec: JobSpec, options: SubmitOptions): Promise<JobView>;
  get(id: string, options: CallerOptions): Promise<JobView>;
  list(options: ListOptions): Promise<{ readonly jobs: readonly JobView[]; readonly more: boolean }>;
  /** How many of the tenant's jobs have not ended, counted up to `most`. By hints: one that has just ended may be among them. */
  live(most: number, options: CallerOptions): Promise<number>;
  /** Idempotent; a job that has ended stays as it ended. */
  cancel(id: string, options: CallerOptions): Promise<JobView>;
  /** All that the model was shown as turns, in order, without instructions; a raw prompt is none. @throws EngineError also ERR_KEY. */
  turns(id: string, options: CallerOptions): Promise<readonly Turn[]>;
  /** When the job ended, of the wall clock, ms; null: it has not, or the store has no clock. */
  endedMs(id: string, options: CallerOptions): Promise<number | null>;
  /** Erases everything of the job but its tombstone. */
  erase(id: string, options: CallerOptions): Promise<void>;
  /** null: it has not ended. What a cancelled job has counts as its result. */
  result(id: string, options: CallerOptions): Promise<Omit<JobResult, 'timing'> | null>;
  /** Ends after `result`, or when the job is cancelled, failed, expired or poisoned (after a `state`), or with the signal (ERR_CANCELLED). */
  events(id: string, options: CallerOptions & { readonly after?: number | undefined }): AsyncIterable<JobEvent>;
  fork(id: string, options: ForkOptions): Promise<JobView>;
  extend(id: string, options: ExtendOptions): Promise<JobView>;
  quote(spec: JobSpec, options: CallerOptions): Promise<QuoteView>;
  models(options: CallerOptions): Promise<readonly ModelView[]>;
  /** As it is now, also of the queue, unless that does not answer soon. */
  health(): Promise<PlatformHealth>;
  /** Whether the store answers, as of some seconds ago; told within some, also where it does not. */
  isStoreThere(): Promise<boolean>;
}
