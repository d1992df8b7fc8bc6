/** From ballots to the answer, and the least step at which no unfinished chain can change it (DESIGN.md 3). Pure. */
import { assertNever } from '../core/assert.ts';

/**
 * `majority`: most ballots; among equals the key whose first ballot came first. `first`: the first ballot with an answer.
 * `verifier`: the first ballot the verifier accepts, else no answer. `none`: chains are returned, nothing is chosen.
 * First = lowest (step, chain).
 */
export type VoteRule = 'majority' | 'first' | 'verifier' | 'none';

/** A finished chain. `step`: tokens it had generated, which is the logical step of its end. */
export interface CastBallot {
  readonly chain: number;
  readonly step: number;
  readonly answer: string | null;
  readonly key: string | null;
  readonly verified: boolean | null;
}

export interface Winner {
  readonly chain: number;
  readonly answer: string;
  readonly key: string;
}

interface Tally {
  readonly key: string;
  readonly count: number;
  readonly first: CastBallot;
}

/** @example electedBallot('first', ballots)?.answer */
export function electedBallot(rule: VoteRule, ballots: readonly CastBallot[]): Winner | null {
  const cast = inOrder(ballots);
  switch (rule) {
    case 'majority':
      return winner(tally(cast)[0]?.first);
    case 'first':
      return winner(cast.find((ballot) => ballot.key !== null));
    case 'verifier':
      return winner(cast.find((ballot) => ballot.verified === true));
    case 'none':
      return null;
    default:
      return assertNever(rule);
  }
}

/**
 * Whether `remaining` chains, all of which finish at later steps than every ballot here, can no longer change the winner.
 * A late key loses every tie, so a newcomer needs strictly more ballots than the leader.
 * @param early how many of them may have finished at an earlier step after all, which is not known here: these may win ties.
 */
export function isDecided(rule: VoteRule, ballots: readonly CastBallot[], remaining: number, early = 0): boolean {
  if (remaining === 0) return true;
  switch (rule) {
    case 'majority': {
      const [leader, ...rivals] = tally(inOrder(ballots));
      if (leader === undefined || remaining > leader.count || (early > 0 && remaining === leader.count)) return false;
      return rivals.every((rival) => {
        const most = rival.count + remaining;
        return most < leader.count || (most === leader.count && early === 0 && earlier(leader.first, rival.first));
      });
    }
    case 'first':
      return ballots.some((ballot) => ballot.key !== null);
    case 'verifier':
      return ballots.some((ballot) => ballot.verified === true);
    case 'none':
      return false;
    default:
      return assertNever(rule);
  }
}

/** What is known of a chain: its ballot, or that it has not finished with so many tokens; `Infinity`: it never will. */
export type KnownChain = CastBallot | { readonly unfinishedAt: number };

/**
 * The least step at which the vote is known to be decided; null: it is not. The real one is there or before: it is this one as soon as every chain
 * is known up to here (`isExact`). Knowing more never makes it later.
 */
export function decidedStep(rule: VoteRule, chains: readonly KnownChain[]): { readonly step: number; readonly isExact: boolean } | null {
  const ballots = chains.filter((chain) => 'step' in chain);
  for (const step of [...new Set(ballots.map((ballot) => ballot.step))].sort((a, b) => a - b)) {
    const cast = ballots.filter((ballot) => ballot.step <= step);
    const early = chains.filter((chain) => 'unfinishedAt' in chain && chain.unfinishedAt < step).length;
    if (isDecided(rule, cast, chains.length - cast.length, early)) return { step, isExact: early === 0 };
  }
  return null;
}

/** Best first. */
function tally(cast: readonly CastBallot[]): readonly Tally[] {
  const tallies = new Map<string, Tally>();
  for (const ballot of cast) {
    if (ballot.key === null) continue;
    const so = tallies.get(ballot.key);
    tallies.set(ballot.key, { key: ballot.key, count: (so?.count ?? 0) + 1, first: so?.first ?? ballot });
  }
  return [...tallies.values()].sort((a, b) => b.count - a.count || (earlier(a.first, b.first) ? -1 : 1));
}

function inOrder(ballots: readonly CastBallot[]): readonly CastBallot[] {
  return ballots.toSorted((a, b) => a.step - b.step || a.chain - b.chain);
}

function earlier(a: CastBallot, b: CastBallot): boolean {
  return a.step < b.step || (a.step === b.step && a.chain < b.chain);
}

function winner(ballot: CastBallot | undefined): Winner | null {
  if (ballot === undefined || ballot.answer === null || ballot.key === null) return null;
  return { chain: ballot.chain, answer: ballot.answer, key: ballot.key };
}

/** Between the answer with most ballots and the next; null: no ballot has an answer. */
export function marginOf(ballots: readonly { readonly key: string | null }[]): number | null {
  const votes = new Map<string, number>();
  for (const { key } of ballots) if (key !== null) votes.set(key, (votes.get(key) ?? 0) + 1);
  const [first, second = 0] = [...votes.values()].sort((a, b) => b - a);
  return first === undefined ? null : first - second;
}
