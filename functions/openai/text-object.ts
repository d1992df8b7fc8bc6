/** Jobs of raw prompts as OpenAI's text_completion, whole and in chunks. */
import { z } from '@hono/zod-openapi';

import type { JobEvent, JobView } from '../../engine/control/platform.ts';
import { electedChain } from '../../engine/job/elected.ts';
import type { JobResult } from '../../engine/job/generate.ts';
import type { TokenLogprob } from '../../engine/job/logprobs.ts';
import { type Waited, endOf } from '../foreground.ts';
import { frame } from '../sse.ts';
import { Transcript, contentOf } from '../transcript.ts';
import type { ChosenBudget } from './budget.ts';
import { TextLogprobs, textLogprobsSchema } from './text-logprobs.ts';
import { openaiFinish, outcomeOf, outcomeSchema } from './usage.ts';

const usageSchema = z.object({
  prompt_tokens: z.int().openapi({ description: 'Of all prompts, each once.' }),
  completion_tokens: z.int().openapi({ description: 'Of all chains.' }),
  total_tokens: z.int(),
  hyperscale: z.object({ kv_reads: z.number(), kv_reads_prefill: z.number() }),
}).openapi('TextCompletionUsage');

type TextUsage = z.infer<typeof usageSchema>;

export const textSchema = z.object({
  id: z.string().openapi({ example: 'cmpl-01J9ZK0T9WQ2Y4ZJ4N5T6V7X8Y' }),
  object: z.literal('text_completion'),
  created: z.int(),
  model: z.string(),
  choices: z.array(z.object({ index: z.int(), text: z.string(), finish_reason: z.enum(['stop', 'length']), logprobs: textLogprobsSchema.nullable() })),
  usage: usageSchema,
  hyperscale: z.array(outcomeSchema).openapi({ description: 'Of each prompt.' }),
}).openapi('TextCompletion');

/** One prompt's job. */
export interface TextJob {
  readonly view: JobView;
  readonly echo: string;
}

/** Choices are numbered prompt by prompt: those of prompt p have the numbers from p times this on. */
const choicesOf = ({ separate, width }: ChosenBudget): number => (separate ? width : 1);

export function textOfJobs(jobs: readonly TextJob[], budget: ChosenBudget, waited: readonly Waited[]): z.infer<typeof textSchema> {
  return {
    ...head(jobs),
    choices: waited.flatMap(({ transcript, result }, at) => shown(budget, result).map((chain, place) => {
      const { logprobs } = transcript.chain(chain);
      return {
        index: at * choicesOf(budget) + place,
        text: (jobs[at]?.echo ?? '') + contentOf(transcript.chain(chain)),
        finish_reason: openaiFinish(result.chains[chain]?.finish_reason ?? 'stop'),
        logprobs: logprobs === null ? null : new TextLogprobs().next(logprobs),
      };
    })),
    usage: waited.reduce((sum, { result }) => added(sum, result), NOTHING),
    hyperscale: waited.map(({ result }) => outcomeOf(result, elected(budget, result))),
  };
}

interface ChunkMore {
  readonly finish?: string | null;
  readonly logprobs?: readonly TokenLogprob[];
  readonly hyperscale?: unknown;
}

/** Prompt after prompt, though their jobs run side by side: a choice's chunks come in order, and which choice comes first is nobody's concern. */
export async function* textFrames(
  events: (job: string) => AsyncIterable<JobEvent>, jobs: readonly TextJob[], budget: ChosenBudget, includeUsage: boolean,
): AsyncGenerator<string> {
  const live = budget.separate || budget.width === 1;
  let usage = NOTHING;
  for (const [at, { view, echo }] of jobs.entries()) {
    const kept = new Map<number, TextLogprobs>();
    const chunk = (place: number, text: string, { finish = null, logprobs = [], ...extension }: ChunkMore = {}): string => {
      if (!kept.has(place)) kept.set(place, new TextLogprobs());
      const choice = { index: at * choicesOf(budget) + place, text, finish_reason: finish, logprobs: logprobs.length === 0 ? null : kept.get(place)?.next(logprobs) };
      return frame(JSON.stringify({ ...head(jobs), choices: [choice], ...(includeUsage ? { usage: null } : {}), ...extension }));
    };
    const transcript = new Transcript();
    if (echo !== '') for (let chain = 0; chain < choicesOf(budget); chain++) yield chunk(chain, echo);
    for await (const event of events(view.id)) {
      transcript.take(event);
      if (!live || (event.kind !== 'token' && event.kind !== 'finish')) continue;
      const { chain, delta: { content }, logprobs = [] } = event;
      if (content !== '' || logprobs.length > 0) yield chunk(chain, content, { logprobs });
    }
    const result = endOf(transcript, view.id);
    usage = added(usage, result);
    const chains = shown(budget, result);
    const one = transcript.chain(chains[0] ?? 0);
    if (!live) yield chunk(0, contentOf(one), { logprobs: one.logprobs ?? [] });
    for (const [place, chain] of chains.entries()) {
      const outcome = place === chains.length - 1 ? { hyperscale: [outcomeOf(result, elected(budget, result))] } : {};
      yield chunk(place, '', { finish: openaiFinish(result.chains[chain]?.finish_reason ?? 'stop'), ...outcome });
    }
  }
  if (includeUsage) yield frame(JSON.stringify({ ...head(jobs), choices: [], usage }));
  yield frame('[DONE]');
}

const NOTHING: TextUsage = { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0, hyperscale: { kv_reads: 0, kv_reads_prefill: 0 } };

function added(sum: TextUsage, { usage }: Omit<JobResult, 'timing'>): TextUsage {
  return {
    prompt_tokens: sum.prompt_tokens + usage.prompt_tokens,
    completion_tokens: sum.completion_tokens + usage.completion_tokens,
    total_tokens: sum.total_tokens + usage.prompt_tokens + usage.completion_tokens,
    hyperscale: { kv_reads: sum.hyperscale.kv_reads + usage.kv_reads, kv_reads_prefill: sum.hyperscale.kv_reads_prefill + usage.kv_reads_prefill },
  };
}

function elected({ separate }: ChosenBudget, result: Omit<JobResult, 'timing'>): number | null {
  return separate ? null : electedChain(result);
}

function shown(budget: ChosenBudget, result: Omit<JobResult, 'timing'>): readonly number[] {
  const one = elected(budget, result);
  return one === null ? result.chains.map((_, chain) => chain) : [one];
}

function head(jobs: readonly TextJob[]) {
  const first = jobs[0]?.view;
  return { id: `cmpl-${first?.id ?? ''}`, object: 'text_completion' as const, created: Math.floor((first?.createdMs ?? 0) / 1_000), model: first?.model ?? '' };
}
