/** A batch as anyone may ask for it at any moment: derived, never stored. */
import { type JobState, hasResult, isTerminal } from '../kv/head.ts';
import type { BatchRecord, End, Fault, Stop, Verdict } from './records.ts';

export type BatchStatus = 'validating' | 'failed' | 'in_progress' | 'finalizing' | 'completed' | 'expired' | 'cancelling' | 'cancelled';

export interface BatchView {
  readonly id: string;
  readonly status: BatchStatus;
  readonly endpoint: string;
  readonly inputFileId: string;
  readonly outputFileId: string | null;
  readonly errorFileId: string | null;
  readonly metadata: Readonly<Record<string, string>> | null;
  readonly faults: readonly Fault[];
  readonly counts: { readonly total: number; readonly completed: number; readonly failed: number };
  /** Of the wall clock, as all of these; null: it has not come to that. */
  readonly createdMs: number;
  readonly expiresMs: number;
  readonly inProgressMs: number | null;
  readonly failedMs: number | null;
  readonly stoppedMs: number | null;
  readonly endedMs: number | null;
}

/** What the store says of a batch. */
export interface BatchState {
  readonly record: BatchRecord;
  /** null: its lines have not been looked at. */
  readonly verdict: Verdict | null;
  readonly stop: Stop | null;
  readonly end: End | null;
}

/** OpenAI's completion window. */
export const WINDOW_MS = 24 * 3_600_000;

/** @param jobs the state of each line's job, null for one that was not made; needed while there is a verdict and no end. */
export function batchView({ record, verdict, stop, end }: BatchState, jobs: readonly (JobState | null)[]): BatchView {
  const { id, endpoint, inputFileId, metadata, createdMs } = record;
  const refused = verdict !== null && verdict.faults.length > 0;
  const completed = end?.completed ?? jobs.filter((state) => state !== null && hasResult(state)).length;
  const failed = end?.failed ?? jobs.filter((state) => state !== null && isTerminal(state) && !hasResult(state)).length;
  return {
    id, endpoint, inputFileId, metadata, createdMs,
    status: statusOf({ record, verdict, stop, end }, jobs),
    outputFileId: end?.outputFileId ?? null,
    errorFileId: end?.errorFileId ?? null,
    faults: verdict?.faults ?? [],
    counts: { total: verdict?.lines ?? 0, completed, failed },
    expiresMs: createdMs + WINDOW_MS,
    inProgressMs: verdict === null || refused ? null : verdict.atMs,
    failedMs: refused ? verdict.atMs : null,
    stoppedMs: stop?.atMs ?? null,
    endedMs: end?.atMs ?? null,
  };
}

function statusOf({ verdict, stop, end }: BatchState, jobs: readonly (JobState | null)[]): BatchStatus {
  if (end !== null) return end.status;
  if (verdict !== null && verdict.faults.length > 0) return 'failed';
  if (stop?.why === 'cancelled') return 'cancelling';
  if (verdict === null) return 'validating';
  return stop !== null || isOver(jobs, false) ? 'finalizing' : 'in_progress';
}

/** No job of it will change: all have ended, and those that were not made will not be. */
export function isOver(jobs: readonly (JobState | null)[], isStopped: boolean): boolean {
  return jobs.every((state) => (state === null ? isStopped : isTerminal(state)));
}
