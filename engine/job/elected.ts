/** The chain that stands for a job. Imports nothing: the HTTP edge shows it, and a conversation goes on from it. */
import type { JobResult } from './generate.ts';

/**
 * The first that gave the elected answer. Where nothing was elected (`vote` none, or no chain has an answer that counts), the first to have
 * ended by itself, else chain 0. First = lowest (step, chain), as votes count.
 */
export function electedChain({ answer, ballots, chains }: Omit<JobResult, 'timing'>): number {
  const agree = ballots.filter((ballot) => answer !== null && ballot.answer === answer).map(({ chain }) => chain);
  const stopped = chains.flatMap((chain, index) => (chain.finish_reason === 'stop' ? [index] : []));
  const first = (candidates: readonly number[]) => candidates.toSorted((a, b) => (chains[a]?.tokens.length ?? 0) - (chains[b]?.tokens.length ?? 0) || a - b)[0];
  return first(agree) ?? first(stopped) ?? 0;
}
