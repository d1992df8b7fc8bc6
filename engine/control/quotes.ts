/** What a job would cost, in words for whoever asks. */
import { EngineError } from '../core/errors.ts';
import { type Estimate, admit } from '../job/budget.ts';
import type { PreparedJob } from '../job/prepare.ts';
import { shardJob } from '../job/shards.ts';
import type { Shelf } from '../ports/shelf.ts';
import type { QuoteSide, QuoteView } from './platform.ts';
import type { ModelRates } from './rates.ts';
import type { WorkerState } from './workers.ts';

export interface Rates {
  /** As a worker of this process knows it; null: there is none, or it has not had the model yet. */
  readonly here: Pick<WorkerState, 'speed'>;
  /** As workers elsewhere have said it in the store. */
  readonly elsewhere: ModelRates;
  /** Of the machine; null: not configured. */
  readonly usdPerHour: number | null;
}

/** Of a job that is new: those that are stored began as they are. @throws EngineError ERR_OPTION */
export function refuseIgnored({ ignored }: PreparedJob): void {
  if (ignored !== null) throw new EngineError('ERR_OPTION', `${ignored} must not be given: this model's prompt would be the same without it.`);
}

/** @throws EngineError ERR_BUDGET, ERR_MEMORY: whoever runs jobs here would not take it. */
export function admitJob(job: PreparedJob, shelf: Shelf): void {
  // Each worker takes a shard: the largest must fit.
  admit(shelf.quote(job.shards === null ? job : shardJob(job, job.shards - 1)), shelf.freeBytes);
}

export function quoteView(job: PreparedJob, shelf: Shelf, rates: Rates): QuoteView {
  // A budget too small for one token has no plan of its own; without it the job has, which says what would be enough.
  const refusal = refusalOf(() => admitJob(job, shelf));
  const quote = shelf.quote(refusal?.code === 'ERR_BUDGET' ? { ...job, kvReadBudget: null } : job);
  const { resolved: { name, variant, variantCard }, info } = job.model;
  const model = variant === null ? name : `${name}@${variant}`;
  const expected = sideOf(quote.expected);
  const { here, elsewhere, usdPerHour } = rates;
  const [mine, theirs] = [here, elsewhere].map((some) => some.speed(model, quote.lengths.length));
  const speed = mine ?? theirs ?? null;
  const seconds = speed === null ? null : expected.completion_tokens / speed.tokensPerSecond;
  return {
    model,
    prompt_tokens: quote.prompt_tokens,
    length: Math.max(...quote.lengths),
    width: quote.lengths.length,
    compression_ratio: variantCard?.compression_ratio ?? Math.max(1, info.policy.targetCr),
    expected,
    worst: sideOf(quote.worst),
    seconds,
    seconds_by: speed === null ? null : speed === mine ? 'this_worker' : 'workers',
    seconds_basis: speed?.basis ?? 'no_worker_yet',
    cost_usd: seconds === null || usdPerHour === null ? null : (seconds * usdPerHour) / 3_600,
    refusal,
  };
}

function sideOf({ completion_tokens, kv_reads, peak_kv_tokens, peak_kv_bytes }: Estimate): QuoteSide {
  return { completion_tokens, kv_reads, peak_kv_tokens, peak_kv_bytes };
}

function refusalOf(work: () => void): QuoteView['refusal'] {
  try {
    work();
    return null;
  } catch (error) {
    if (error instanceof EngineError && (error.code === 'ERR_BUDGET' || error.code === 'ERR_MEMORY')) return { code: error.code, message: error.message };
    throw error;
  }
}
