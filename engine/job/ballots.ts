/** From a run's report to texts, answers and ballots. A function of the job and the report alone. */
import { assert } from '../core/assert.ts';
import type { ChainReport } from '../runtime/native.ts';
import { answerKey, extractAnswer, splitThinking } from './answer.ts';
import type { ChainResult, FinishReason } from './generate.ts';
import type { PreparedJob } from './prepare.ts';
import type { CastBallot } from './vote.ts';

/** The text of a chain: special tokens and the end-of-sequence id left out, cut before a stop string. */
export function chainText({ model: { tokenizer, info } }: PreparedJob, chain: ChainReport): string {
  const last = chain.tokens.at(-1);
  const ended = chain.finish === 'stop' && chain.stopBytes === null && last !== undefined && info.eosIds.includes(last);
  const bytes = tokenizer.bytesOf([...(ended ? chain.tokens.subarray(0, -1) : chain.tokens)], { skipSpecial: true });
  return tokenizer.textOf(chain.stopBytes === null ? bytes : bytes.subarray(0, chain.stopBytes));
}

/**
 * The ballot of a chain that finished. One that was ended from outside has no answer: the vote did not wait for it.
 * @param text of the chain, if it is known: making it is most of the work.
 */
export function castBallot(job: PreparedJob, index: number, chain: ChainReport, text?: string): CastBallot {
  assert(chain.finish !== null, 'only finished chains vote');
  const answer = chain.finish === 'ended' ? null : chainAnswer(job, chain, text ?? chainText(job, chain));
  return {
    chain: index,
    step: chain.tokens.length,
    answer,
    key: answer === null ? null : answerKey(answer),
    verified: answer === null || job.verifier === null ? null : job.verifier(job.question, answer),
  };
}

function chainAnswer(job: PreparedJob, chain: ChainReport, text: string): string | null {
  const { answer } = splitThinking(text, job.thinking, job.opened);
  return answer === null ? null : extractAnswer(answer, job.answer, chain.finish === 'stop');
}

/** `ended`: why chains that did not finish by themselves were ended. */
export function chainResult(chain: ChainReport, text: string, ballot: CastBallot, ended: FinishReason | null, headCount: number): ChainResult {
  const finish = chain.finish === 'ended' ? ended : chain.finish;
  assert(finish !== null, 'a chain of a result has a finish reason');
  return {
    tokens: [...chain.tokens],
    text,
    finish_reason: finish,
    answer: ballot.answer,
    live_kv_tokens: chain.liveSum / headCount,
  };
}
