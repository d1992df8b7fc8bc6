/**
 * What a shard knows of the job's vote while it runs: its own chains, and of all others what their shards have committed and told the parent
 * (kv/join). So every shard ends its chains at a step at which the vote is decided; which was the first such step is known when all have been there.
 */
import type { Clock } from '../core/clock.ts';
import { digestOf } from '../kv/canonical.ts';
import { readJob } from '../kv/create.ts';
import { isTerminal } from '../kv/head.ts';
import { type JoinOptions, type Sharded, joinShard } from '../kv/join.ts';
import type { Manifest, Vote } from '../kv/manifest.ts';
import { type JobKey, rootOf } from '../kv/names.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import type { RunReport } from '../runtime/native.ts';
import { castBallot } from './ballots.ts';
import type { PreparedJob } from './prepare.ts';
import type { Shard } from './shards.ts';
import { type KnownChain, decidedStep } from './vote.ts';

type Ballot = NonNullable<Vote['ballots'][number]>;
type ManifestChain = Manifest['chains'][number];

export interface ShardVoteOptions {
  readonly store: ObjectStore;
  /** The shard. */
  readonly where: JobKey;
  readonly job: PreparedJob;
  readonly shard: Shard;
  /** Of a sealed job: without it an answer cannot be told from its digest. */
  readonly ballotKey: Uint8Array | undefined;
  readonly clock: Clock;
  /** The job is over, whatever this shard does. */
  readonly onOver: () => void;
  /** The shard is to be let go: nobody is told any more. */
  readonly signal: AbortSignal;
}

export class ShardVote {
  readonly #o: ShardVoteOptions;
  readonly #rule: Vote['rule'];
  /** By chain of this shard. */
  readonly #cast = new Map<number, Ballot>();
  /** Of the parent, when it was last asked. */
  #parent: Manifest | null = null;
  #begun: Vote['begun'];

  constructor(options: ShardVoteOptions) {
    this.#o = options;
    this.#rule = options.job.earlyStop ? options.job.vote : 'none';
  }

  /** Of an extension: what its chains had when it was made, of each. undefined: it is none. */
  begins(begun: Vote['begun']): void {
    this.#begun = begun;
  }

  /** For the manifest of this report: what the others need to know. */
  of(report: RunReport): Vote {
    const { width, first } = this.#o.shard;
    return { rule: this.#rule, width, first, ballots: report.chains.map((_, i) => this.#ballot(report, i)), ...(this.#begun === undefined ? {} : { begun: this.#begun }) };
  }

  /** The step at which the chains here end, as far as is known; null: none yet. */
  stopAt(report: RunReport): number | null {
    const own = report.chains.map(({ tokens, finish }, i) => known(this.#o.shard.first + i, tokens.length, finish, this.#ballot(report, i)));
    return this.#rule === 'none' ? null : (decidedStep(this.#rule, this.#all(own))?.step ?? null);
  }

  /** A chain has finished of which no manifest tells: others may be waiting to hear of it. */
  isNews(report: RunReport, told: readonly { readonly finish: string | null }[]): boolean {
    return this.#rule !== 'none' && report.chains.some(({ finish }, i) => finish !== null && (told[i]?.finish ?? null) === null);
  }

  /** How the job stands, before anything runs. @throws EngineError ERR_STORE, ERR_CHECKPOINT, ERR_CANCELLED. */
  async ask({ signal }: CallOptions = {}): Promise<void> {
    this.#take(await readJob(this.#o.store, rootOf(this.#o.where), { signal }));
  }

  /** After each commit. A store that fails now is heard of at the next one: what is not told today is told with what comes. */
  async committed(manifest: Manifest): Promise<void> {
    const { store, where, clock, signal } = this.#o;
    try {
      await this.ask({ signal });
      if (this.#rule !== 'none' && this.#hasToTell(manifest)) this.#take(await joinShard(store, where, { settle, clock, signal }));
    } catch {
      // The end of the shard tells all of it.
    }
  }

  #take({ head, manifest }: Sharded): void {
    this.#parent = manifest;
    if (isTerminal(head.state)) this.#o.onOver();
  }

  /** Finished chains; and how far the others are, once that is all that is missing for the vote to be decided. */
  #hasToTell({ chains, vote }: Manifest): boolean {
    const { first, width } = this.#o.shard;
    const told = chains.map((_, i) => this.#parent?.chains[first + i]);
    if (chains.some(({ finish }, i) => finish !== null && (told[i]?.finish ?? null) === null)) return true;
    const own = chains.map(({ tokens, finish }, i) => known(first + i, tokens, finish, vote?.ballots[i] ?? null));
    const hopeful = decidedStep(this.#rule, this.#all(own).map((chain) => ('step' in chain ? chain : { unfinishedAt: Infinity })));
    if (hopeful === null || width === chains.length) return false;
    return chains.some(({ tokens, finish }, i) => finish === null && tokens >= hopeful.step && (told[i]?.tokens ?? 0) < hopeful.step);
  }

  /** Every chain of the job, with what is known of those here. */
  #all(own: readonly KnownChain[]): readonly KnownChain[] {
    const { first, width } = this.#o.shard;
    return Array.from({ length: width }, (_, i) => own[i - first] ?? knownTo(i, this.#parent));
  }

  #ballot({ chains }: RunReport, i: number): Ballot | null {
    const chain = chains[i];
    if (chain === undefined || chain.finish === null || chain.finish === 'ended') return null;
    const before = this.#cast.get(i);
    if (before !== undefined) return before;
    const { key, verified } = castBallot(this.#o.job, i, chain);
    const ballot = { key: key === null ? null : digestOf(key, this.#o.ballotKey).slice(0, 32), verified };
    this.#cast.set(i, ballot);
    return ballot;
  }
}

/** What all of them have said, elected: as the run would have ended that had all chains. The `settle` of a join. */
export const settle: JoinOptions['settle'] = (all) => {
  const rule = all.vote?.rule ?? 'none';
  // All shards are over: one that says nothing of a chain was ended before its prompt was fed.
  const chains = all.chains.map((chain): ManifestChain => ({ ...chain, finish: chain.finish ?? 'deadline' }));
  const decided = rule === 'none' ? null : decidedStep(rule, chains.map((_, i) => knownTo(i, { ...all, chains })));
  const official = chains.map((chain, i): ManifestChain => {
    const isNatural = chain.finish !== null && NATURAL.includes(chain.finish);
    const end = endOf(decided?.step ?? Infinity, all.vote?.begun?.[i]);
    return chain.tokens < end || (isNatural && chain.tokens === end) ? chain : { ...chain, tokens: end, finish: 'early_stop' };
  });
  const reasons = official.map(({ finish }) => finish ?? '').filter((finish) => !NATURAL.includes(finish));
  const ended = ['deadline', 'memory', 'kv_read_budget', 'cancelled', 'early_stop'].find((reason) => reasons.includes(reason)) ?? null;
  const isWhole = official.every(({ finish }) => finish === 'stop' || finish === 'length' || finish === 'early_stop');
  return { state: isWhole ? 'done' : 'incomplete', ended, chains: official.map((chain) => ({ ...chain, finish: NATURAL.includes(chain.finish ?? '') ? chain.finish : 'ended' })) };
};

/** Where a chain ends that goes on at the step at which the vote is decided. @param begun tokens that it had when its job was made, of an extension. */
export function endOf(decided: number, begun = 0): number {
  return Math.max(decided, begun);
}

/** Of chains that came to an end of their own, and vote. */
const NATURAL: readonly string[] = ['stop', 'length', 'kv_read_budget', 'memory'];

function knownTo(i: number, parent: Manifest | null): KnownChain {
  const chain = parent?.chains[i];
  return chain === undefined ? { unfinishedAt: 0 } : known(i, chain.tokens, chain.finish, parent?.vote?.ballots[i] ?? null);
}

/** One that was ended at a decided vote would have gone on; one that was ended by anything else never will. */
function known(chain: number, tokens: number, finish: string | null, ballot: Ballot | null): KnownChain {
  if (finish !== null && NATURAL.includes(finish)) return { chain, step: tokens, answer: ballot?.key ?? null, key: ballot?.key ?? null, verified: ballot?.verified ?? null };
  return { unfinishedAt: finish === null || finish === 'early_stop' ? tokens : Infinity };
}
