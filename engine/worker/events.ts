/** What a worker says of itself, for logs and metrics: ids, counts and codes, never prompts or tokens. */
import type { Work } from '../control/work.ts';
import type { ModelTiming, Usage } from '../job/generate.ts';
import type { Begun } from '../job/slice.ts';
import type { JobState } from '../kv/head.ts';
import type { JobKey } from '../kv/names.ts';
import type { Strike } from '../kv/strikes.ts';

/**
 * Why a run was asked to let go. `slice`: its time is over. `turn`: something more urgent waits, or a job that must run alone. `drain`: this
 * machine, process or invocation ends. `interrupt`: the job was ended or taken from outside. `memory`: it began last, and those before it need the room.
 * `cancel`: it is about to be ended here.
 */
export type StopReason = 'slice' | 'turn' | 'drain' | 'interrupt' | 'memory' | 'cancel';

export type Phase = 'loaded' | 'prefilled' | 'first_token';

/**
 * `finishes`: why each chain ended. `margin`: votes of the elected answer over those of the next; null: nothing was elected. `tokenMs`: of one chain, in
 * the mean over the steps of this slice; null: it made none.
 */
export type WorkerEvent =
  | { readonly kind: 'started'; readonly where: JobKey; readonly slice: number; readonly alone: boolean; readonly traceparent: string | undefined }
  /** How the slice goes on: from the store, by computing again, or from the beginning. */
  | { readonly kind: 'begun'; readonly where: JobKey; readonly mode: Begun['outcome']; readonly recomputed: number }
  /** `loaded`: its model is there. `prefilled`: the prompt, and whatever was to be computed again, is. `first_token`: of the job, and not of the slice. `load`: of `loaded`. */
  | { readonly kind: 'reached'; readonly where: JobKey; readonly phase: Phase; readonly model: string; readonly ranMs: number; readonly load?: ModelTiming }
  | { readonly kind: 'ended'; readonly where: JobKey; readonly state: JobState; readonly usage: Usage; readonly finishes: readonly string[]; readonly margin: number | null; readonly ranMs: number; readonly tokenMs: number | null }
  /** The last of a job's shards was joined here, and so ended it; of each shard there is an `ended` too. */
  | { readonly kind: 'joined'; readonly where: JobKey; readonly state: JobState; readonly finishes: readonly string[] }
  /** `step`, `tokens`: of the whole job. */
  | { readonly kind: 'parked'; readonly where: JobKey; readonly why: StopReason; readonly step: number; readonly tokens: number; readonly ranMs: number }
  /** Someone else has the job, or has ended it. */
  | { readonly kind: 'fenced'; readonly where: JobKey; readonly step: number; readonly ranMs: number }
  /** It will be tried again after `delayMs`. */
  | { readonly kind: 'failed'; readonly where: JobKey; readonly error: unknown; readonly delayMs: number }
  /** There is no room for it beside what runs; it comes back soon. */
  | { readonly kind: 'full'; readonly where: JobKey }
  /** It cannot be run at all, here or elsewhere. */
  | { readonly kind: 'refused'; readonly where: JobKey; readonly error: unknown }
  | { readonly kind: 'poisoned'; readonly where: JobKey; readonly strikes: number; readonly evidence: readonly Strike[] }
  /** It waited longer than it was to wait for its first worker. */
  | { readonly kind: 'expired'; readonly where: JobKey }
  /** A message that is none of ours: left for the dead letters. */
  | { readonly kind: 'foreign'; readonly received: number }
  /** A message that nothing is to be done for. */
  | { readonly kind: 'dropped'; readonly where: JobKey; readonly why: 'no such job' | 'ended' | 'older slice' }
  | { readonly kind: 'reconciled'; readonly sent: number }
  /** A walk has seen all that lives. */
  | { readonly kind: 'counted'; readonly work: Work }
  | { readonly kind: 'unreadable'; readonly key: string; readonly error: unknown }
  /** The queue or the store, not a job. */
  | { readonly kind: 'trouble'; readonly doing: 'receive' | 'settle' | 'extend' | 'depth' | 'reconcile' | 'rates'; readonly error: unknown };
