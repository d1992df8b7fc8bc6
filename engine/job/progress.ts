/** Pictures of a running job. Keeps one detokenizer a chain, so that a look costs the new tokens only. */
import { LIMITS } from '../core/limits.ts';
import { Detokenizer } from '../model/detokenizer.ts';
import type { PullProgress } from '../model/pull.ts';
import type { RunReport } from '../runtime/native.ts';
import type { FinishReason, Progress } from './generate.ts';
import type { PreparedJob } from './prepare.ts';

interface Seen {
  readonly detokenizer: Detokenizer;
  tokens: number;
  tail: string;
}

export class ProgressView {
  readonly #job: PreparedJob;
  readonly #seen: readonly Seen[];

  constructor(job: PreparedJob) {
    this.#job = job;
    this.#seen = job.lengths.map(() => ({ detokenizer: new Detokenizer(job.model.tokenizer, { stop: job.stop, kept: job.keptIds }), tokens: 0, tail: '' }));
  }

  picture(phase: Progress['phase'], report: RunReport, ended: FinishReason | null): Progress {
    const { headCount } = report;
    return {
      phase,
      chains: report.chains.map((chain, index) => ({
        tokens: chain.tokens.length,
        live_kv_tokens: chain.liveSum / headCount,
        compression_ratio: chain.liveSum === 0 ? 1 : (chain.fed * headCount) / chain.liveSum,
        finish_reason: chain.finish === 'ended' ? ended : chain.finish,
        tail: this.#tail(index, chain.tokens),
      })),
      kv_reads: report.chains.reduce((sum, chain) => sum + chain.readSum, 0) / headCount,
      kv_read_budget: this.#job.kvReadBudget,
    };
  }

  #tail(index: number, tokens: Int32Array): string {
    const seen = this.#seen[index];
    if (seen === undefined) return '';
    const text = seen.tail + seen.detokenizer.push([...tokens.subarray(seen.tokens)]);
    seen.tokens = tokens.length;
    // A cut inside a surrogate pair would show half a character.
    seen.tail = text.slice(-LIMITS.TAIL_CHARS).replace(/^[\uDC00-\uDFFF]/, '');
    return seen.tail;
  }
}

/** Before there is a model. */
export function fetchPicture(fetch: PullProgress): Progress {
  return { phase: 'fetch', chains: [], kv_reads: 0, kv_read_budget: null, fetch };
}

/** Before there is a run to report on. */
export function emptyPicture(phase: Progress['phase'], job: PreparedJob): Progress {
  const chain = { tokens: 0, live_kv_tokens: 0, compression_ratio: 1, finish_reason: null, tail: '' };
  return { phase, chains: job.lengths.map(() => chain), kv_reads: 0, kv_read_budget: job.kvReadBudget };
}
