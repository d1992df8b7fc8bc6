/** What there is of a job before anything of it is known. */
import type { ChainReport, RunReport } from '../runtime/native.ts';
import type { PreparedJob } from './prepare.ts';

export const NO_TOKENS: ChainReport = { tokens: new Int32Array(0), logprobs: null, finish: null, stopBytes: null, liveSum: 0, peakSum: 0, decodePeakSum: 0, readSum: 0, denseReadSum: 0, fed: 0 };

export function headCountOf({ model: { info } }: PreparedJob): number {
  return info.layers * info.kvHeads;
}

export function emptyReport(job: PreparedJob): RunReport {
  return { step: 0, prefilled: false, prefillReadSum: 0, sharedSum: 0, headCount: headCountOf(job), running: 0, caughtUp: 0, chains: job.lengths.map(() => NO_TOKENS) };
}
