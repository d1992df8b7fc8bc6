/** What a worker says of itself, for logs and metrics: ids, counts and codes, never prompts or tokens. */
import type { Usage } from '../job/generate.ts';
import type { JobState } from '../kv/head.ts';
import type { JobKey } from '../kv/names.ts';

/** Why a run was asked to let go. */
export type StopReason = 'slice' | 'drain' | 'interrupt' | 'cancel';

export type WorkerEvent =
  | { readonly kind: 'started'; readonly where: JobKey; readonly slice: number }
  | { readonly kind: 'ended'; readonly where: JobKey; readonly state: JobState; readonly usage: Usage; readonly ranMs: number }
  /** `step`, `tokens`: of the whole job. */
  | { readonly kind: 'parked'; readonly where: JobKey; readonly why: StopReason; readonly step: number; readonly tokens: number; readonly ranMs: number }
  /** Someone else has the job, or has ended it. */
  | { readonly kind: 'fenced'; readonly where: JobKey; readonly step: number; readonly ranMs: number }
  /** It will be tried again after `delayMs`. */
  | { readonly kind: 'failed'; readonly where: JobKey; readonly error: unknown; readonly delayMs: number }
  /** It cannot be run at all, here or elsewhere. */
  | { readonly kind: 'refused'; readonly where: JobKey; readonly error: unknown }
  /** `error`: what was met last, if it was met here. */
  | { readonly kind: 'poisoned'; readonly where: JobKey; readonly strikes: number; readonly error: unknown }
  /** A message that nothing is to be done for. */
  | { readonly kind: 'dropped'; readonly where: JobKey; readonly why: 'no such job' | 'ended' | 'older slice' }
  | { readonly kind: 'reconciled'; readonly sent: number }
  | { readonly kind: 'unreadable'; readonly key: string; readonly error: unknown }
  /** The queue or the store, not a job. */
  | { readonly kind: 'trouble'; readonly doing: 'receive' | 'settle' | 'extend' | 'reconcile'; readonly error: unknown };
