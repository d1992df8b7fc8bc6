/**
 * One report of a sharded job, from those of its shards: as the run would have it that has all its chains. A decided vote ends every chain at s*, the
 * least step at which it is (DESIGN.md 3); what shards generated beyond it, before they heard of it, is neither shown nor billed.
 */
import type { Vote } from '../kv/manifest.ts';
import type { ChainReport, RunReport } from '../runtime/native.ts';
import { castBallot } from './ballots.ts';
import { cutChain, shortened } from './cut.ts';
import type { Decisions } from './decode-journals.ts';
import type { FinishReason } from './generate.ts';
import { NO_TOKENS, headCountOf } from './no-tokens.ts';
import type { PreparedJob } from './prepare.ts';
import { shardRange } from './shards.ts';
import { endOf } from './shard-vote.ts';
import { type CastBallot, type KnownChain, decidedStep } from './vote.ts';

/** What is known of one shard. */
export interface ShardReport {
  readonly report: RunReport;
  /** Why chains were ended that did not finish by themselves; null: none was, or it goes on. */
  readonly ended: FinishReason | null;
  /** As its manifest says. */
  readonly begun?: Vote['begun'];
}

/** Of one job: texts are made and read once for each chain that finishes. */
export class Ballots {
  readonly #job: PreparedJob;
  readonly #cast = new Map<number, CastBallot>();

  constructor(job: PreparedJob) {
    this.#job = job;
  }

  /** @param index within the job. */
  of(index: number, chain: ChainReport): CastBallot {
    const known = this.#cast.get(index);
    if (known !== undefined) return known;
    const ballot = castBallot(this.#job, index, chain);
    this.#cast.set(index, ballot);
    return ballot;
  }
}

/** All chains together, cut at s* as far as it is known. Counters of those that are cut are not theirs: see `billed`. @param parts by shard; null: nothing is known of it. */
export function officialReport(job: PreparedJob, parts: readonly (ShardReport | null)[], ballots: Ballots): RunReport {
  const whole = together(job, parts);
  const step = decidedAt(job, whole, ballots);
  if (step === null) return whole;
  const ends = endsOf(job, parts, step);
  return withChains(whole, whole.chains.map((chain, i) => (isCut(chain, ends(i)) ? { ...shortened(chain, ends(i)), ended: 'early_stop' as const } : chain)));
}

/** As `officialReport`, with what the chains had used there. @param decisions of the shard's journals. @throws EngineError ERR_CHECKPOINT, ERR_STORE, ERR_KEY, ERR_CANCELLED. */
export async function billed(job: PreparedJob, parts: readonly (ShardReport | null)[], ballots: Ballots, decisions: (shard: number) => Promise<Decisions>): Promise<RunReport> {
  const whole = together(job, parts);
  const step = decidedAt(job, whole, ballots);
  if (step === null) return whole;
  const chains = [...whole.chains];
  const ends = endsOf(job, parts, step);
  for (const shard of parts.keys()) {
    const { first, end } = shardRange(chains.length, parts.length, shard);
    let known: Decisions | null = null;
    for (let i = first; i < end; i++) {
      const chain = chains[i];
      const end = ends(i);
      if (chain === undefined || !isCut(chain, end)) continue;
      // Stopped there, as others were: nothing has to be taken off.
      const isThere = chain.tokens.length === end && (chain.finish === 'ended' || chain.finish === null);
      known ??= isThere ? null : await decisions(shard);
      const cut = isThere || known === null ? shortened(chain, end) : cutChain(chain, end, i, known, whole.headCount, job.model.info.policy);
      chains[i] = { ...cut, ended: 'early_stop' };
    }
  }
  return withChains(whole, chains);
}

/** Where each chain ends at the latest. */
function endsOf(job: PreparedJob, parts: readonly (ShardReport | null)[], step: number): (chain: number) => number {
  return (i) => {
    const { part, at } = partOf(job, parts, i);
    return endOf(step, part?.begun?.[at]);
  };
}

function partOf(job: PreparedJob, parts: readonly (ShardReport | null)[], chain: number): { readonly part: ShardReport | null; readonly at: number } {
  const shard = parts.findIndex((_, s) => chain < shardRange(job.lengths.length, parts.length, s).end);
  return { part: parts[shard] ?? null, at: chain - shardRange(job.lengths.length, parts.length, shard).first };
}

function together(job: PreparedJob, parts: readonly (ShardReport | null)[]): RunReport {
  const reports = parts.flatMap((part) => (part === null ? [] : [part.report]));
  const chains = job.lengths.map((_, i): ChainReport => {
    const { part, at } = partOf(job, parts, i);
    const chain = part?.report.chains[at] ?? NO_TOKENS;
    return part === null || part.ended === null ? chain : { ...chain, ended: part.ended };
  });
  return withChains({
    step: Math.max(0, ...reports.map(({ step }) => step)),
    prefilled: reports.some(({ prefilled }) => prefilled),
    // Each shard has fed the prompt; the job has fed it once.
    prefillReadSum: Math.max(0, ...reports.map(({ prefillReadSum }) => prefillReadSum)),
    sharedSum: Math.max(0, ...reports.map(({ sharedSum }) => sharedSum)),
    headCount: headCountOf(job),
    running: 0,
    caughtUp: 0,
    chains,
  }, chains);
}

function withChains(report: RunReport, chains: readonly ChainReport[]): RunReport {
  return { ...report, chains, running: chains.filter(({ finish }) => finish === null).length, step: Math.max(0, ...chains.map(({ tokens }) => tokens.length)) };
}

function decidedAt(job: PreparedJob, { chains }: RunReport, ballots: Ballots): number | null {
  if (!job.earlyStop) return null;
  const known = chains.map((chain, i): KnownChain => {
    if (chain.finish !== null && chain.finish !== 'ended') return ballots.of(i, chain);
    return { unfinishedAt: chain.finish === null || chain.ended === 'early_stop' ? chain.tokens.length : Infinity };
  });
  return decidedStep(job.vote, known)?.step ?? null;
}

/** It came to its end by then, or was ended before by something else. */
function isCut({ finish, tokens, ended }: ChainReport, step: number): boolean {
  if (finish !== null && finish !== 'ended') return tokens.length > step;
  return tokens.length > step || (tokens.length === step && (finish === null || ended === 'early_stop' || ended === undefined));
}
