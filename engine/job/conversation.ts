/** The next turn of a conversation: what was asked before and the elected answer become part of the prompt, as the model's template writes them. */
import { EngineError } from '../core/errors.ts';
import { splitThinking } from './answer.ts';
import { callIdOf } from './call-id.ts';
import { electedChain } from './elected.ts';
import type { JobResult } from './generate.ts';
import type { PreparedJob } from './prepare.ts';
import { shardOfChain } from './shards.ts';
import type { JobSpec } from './spec.ts';
import { splitCalls } from './splitter.ts';
import type { Parent, StoredSpec } from './stored-spec.ts';

/** A job that has given an answer. */
export interface Said {
  readonly job: string;
  /** Of its last manifest. */
  readonly version: number;
  readonly stored: StoredSpec;
  readonly prepared: PreparedJob;
  readonly result: Omit<JobResult, 'timing'>;
}

/**
 * `spec` with the turns before it: all of them are in its messages, so that no conversation is followed through its ancestors. Instructions are
 * not inherited.
 * @throws EngineError ERR_OPTION: no turns came before, or there are none to add.
 */
export function nextTurn(spec: JobSpec, said: Said): JobSpec {
  const { prompt, messages, ...rest } = spec;
  const turns = messages ?? (prompt === undefined ? [] : [{ role: 'user', content: prompt }]);
  if (turns.length === 0) throw new EngineError('ERR_OPTION', 'messages must be given to go on with a conversation.');
  const before = turnsOf(said.stored);
  if (before === null) throw new EngineError('ERR_OPTION', 'previous must be an answer to messages; a raw prompt has no turns.');
  return { ...rest, messages: [...before, answerOf(said), ...turns] };
}

/** As its template saw them, without instructions; null: a raw prompt has none. */
export function turnsOf({ spec }: StoredSpec): NonNullable<JobSpec['messages']> | null {
  const { messages, prompt } = spec as Pick<JobSpec, 'messages' | 'prompt'>;
  return messages ?? (prompt === undefined ? null : [{ role: 'user', content: prompt }]);
}

function answerOf({ job, prepared, result }: Said): NonNullable<JobSpec['messages']>[number] {
  const chain = electedChain(result);
  const { thinking, answer } = splitThinking(result.chains[chain]?.text ?? '', prepared.thinking, prepared.opened);
  const { content, calls } = answer === null || prepared.calls === null ? { content: answer ?? '', calls: [] } : splitCalls(answer, prepared.calls);
  return {
    role: 'assistant',
    content,
    ...(thinking === '' ? {} : { reasoning_content: thinking }),
    ...(calls.length === 0 ? {} : { tool_calls: calls.map((call, index) => ({ id: callIdOf(job, chain, index), type: 'function' as const, function: { ...call } })) }),
  };
}

/** How far the prompt is what the model has seen before: so far its KV need not be computed again. Another model has seen nothing. */
export function continuationOf(job: PreparedJob, modelId: string, { job: name, version, stored, result }: Said): Parent {
  const chain = electedChain(result);
  const seen = [...stored.prompt, ...(result.chains[chain]?.tokens ?? [])];
  const { promptIds } = job;
  // The last token of the prompt is fed whatever happens: the first new token comes of it.
  const most = stored.model_id === modelId ? Math.min(seen.length, promptIds.length - 1) : 0;
  let at = 0;
  while (at < most && seen[at] === promptIds[at]) at++;
  const { shards } = stored.spec as Pick<JobSpec, 'shards'>;
  const home = shards === undefined ? { job: name, chain } : chainIn(name, stored.lengths.length, shards, chain);
  return { ...home, version, kind: 'continue', at };
}

/** Of a sharded job it is one of its shards that has the chain. */
function chainIn(name: string, width: number, shards: number, of: number): Pick<Parent, 'job' | 'chain'> {
  const { at, chain } = shardOfChain({ tenant: '', job: name }, width, shards, of);
  return { job: at.job, chain };
}
