/** From a run's report to texts, answers and ballots. A function of the job and the report alone. */
import { assert } from '../core/assert.ts';
import type { Call } from '../model/calls/syntax.ts';
import type { ChainReport } from '../runtime/native.ts';
import { answerKey, answerOfCalls, extractAnswer, jsonKey, splitThinking } from './answer.ts';
import type { ChainResult, FinishReason } from './generate.ts';
import { chainLogprobs } from './logprobs.ts';
import type { PreparedJob } from './prepare.ts';
import { splitCalls } from './splitter.ts';
import type { CastBallot } from './vote.ts';

/** The text of a chain: special tokens and the end-of-sequence id left out, cut before a stop string. */
export function chainText({ model: { tokenizer, info }, keptIds }: PreparedJob, chain: ChainReport): string {
  const last = chain.tokens.at(-1);
  const ended = chain.finish === 'stop' && chain.stopBytes === null && last !== undefined && info.eosIds.includes(last);
  const bytes = tokenizer.bytesOf([...(ended ? chain.tokens.subarray(0, -1) : chain.tokens)], { skipSpecial: true, kept: keptIds });
  return tokenizer.textOf(chain.stopBytes === null ? bytes : bytes.subarray(0, chain.stopBytes));
}

/**
 * The ballot of a chain that finished. One that was ended from outside has no answer: the vote did not wait for it.
 * @param text of the chain, if it is known: making it is most of the work.
 */
export function castBallot(job: PreparedJob, index: number, chain: ChainReport, text?: string): CastBallot {
  assert(chain.finish !== null, 'only finished chains vote');
  const { answer, key, isCall } = chain.finish === 'ended' ? NO_ANSWER : chainAnswer(job, chain, text ?? chainText(job, chain));
  return {
    chain: index,
    step: chain.tokens.length,
    answer,
    key,
    verified: answer === null || job.verifier === null || isCall ? null : job.verifier(job.question, answer),
  };
}

const NO_ANSWER = { answer: null, key: null, isCall: false } as const;

/**
 * A chain that calls votes for its calls, all of them in their order, whatever it says beside them and however it writes them. One whose
 * arguments are no JSON objects, or that was cut, has no answer.
 */
function chainAnswer(job: PreparedJob, chain: ChainReport, text: string): { readonly answer: string | null; readonly key: string | null; readonly isCall: boolean } {
  const { content, calls } = textSays(job, text);
  if (calls.length > 0) {
    const answer = chain.finish === 'stop' ? answerOfCalls(calls) : null;
    return { answer, key: answer === null ? null : `calls ${answer}`, isCall: true };
  }
  const answer = content === null ? null : extractAnswer(content, job.answer, chain.finish === 'stop');
  return { answer, key: answer === null ? null : writesJson(job) ? jsonKey(answer) : answerKey(answer), isCall: false };
}

/** Its text is JSON wherever it is no call. */
function writesJson({ format }: PreparedJob): boolean {
  return format !== null && (format.kind !== 'tools' || format.instead !== null);
}

/** `content` null: it did not come to an answer. */
function textSays(job: PreparedJob, text: string): { readonly content: string | null; readonly calls: readonly Call[] } {
  const { answer } = splitThinking(text, job.thinking, job.opened);
  return answer === null || job.calls === null ? { content: answer, calls: [] } : splitCalls(answer, job.calls);
}

/** @param ended why chains that did not finish by themselves were ended, unless they say so themselves; null: not known yet. */
export function reasonOf(chain: ChainReport, ended: FinishReason | null): FinishReason | null {
  return chain.finish === 'ended' ? ((chain.ended as FinishReason | undefined) ?? ended) : chain.finish;
}

/** `ended`: why chains that did not finish by themselves were ended. */
export function chainResult(job: PreparedJob, chain: ChainReport, text: string, ballot: CastBallot, ended: FinishReason | null, headCount: number): ChainResult {
  const finish = reasonOf(chain, ended);
  assert(finish !== null, 'a chain of a result has a finish reason');
  return {
    tokens: [...chain.tokens],
    ...(chain.logprobs === null ? {} : { logprobs: chainLogprobs(chain.logprobs) }),
    text,
    finish_reason: finish,
    answer: ballot.answer,
    ...(job.calls === null ? {} : { tool_calls: textSays(job, text).calls }),
    live_kv_tokens: chain.liveSum / headCount,
  };
}
