/** Usage in OpenAI's words, with what it has no words for under `hyperscale`. */
import { z } from '@hono/zod-openapi';

import type { FinishReason, JobResult, Usage } from '../../engine/job/generate.ts';
import type { Transcript } from '../transcript.ts';

export const usageSchema = z.object({
  prompt_tokens: z.int(),
  completion_tokens: z.int().openapi({ description: 'Of all chains.' }),
  total_tokens: z.int(),
  completion_tokens_details: z.object({ reasoning_tokens: z.int() }),
  hyperscale: z.object({
    kv_reads: z.number().openapi({ description: 'Mean over (layer, KV head), summed over chains; prefill apart.' }),
    kv_reads_prefill: z.number(),
    peak_kv_tokens: z.number(),
    peak_kv_bytes: z.number(),
    compression_ratio: z.number(),
    read_ratio: z.number().openapi({ description: 'Reads without eviction / reads.' }),
  }),
}).openapi('CompletionUsage');

export type ChatUsage = z.infer<typeof usageSchema>;

export function chatUsage(usage: Usage, transcript: Transcript): ChatUsage {
  return {
    prompt_tokens: usage.prompt_tokens,
    completion_tokens: usage.completion_tokens,
    total_tokens: usage.prompt_tokens + usage.completion_tokens,
    completion_tokens_details: { reasoning_tokens: transcript.reasoningTokens() },
    hyperscale: hyperscaleUsage(usage),
  };
}

export function hyperscaleUsage({ prompt_tokens: _, completion_tokens: __, ...rest }: Usage): ChatUsage['hyperscale'] {
  return rest;
}

/** OpenAI knows two ends of a text: by itself, or by a bound. The exact one is under `hyperscale`. */
export function openaiFinish(reason: FinishReason): 'stop' | 'length' {
  return reason === 'stop' ? 'stop' : 'length';
}

/** And of a chat that ended by itself, whether it is to go on with what its calls come to. */
export function chatFinish(reason: FinishReason, calls: number): 'stop' | 'tool_calls' | 'length' {
  return reason === 'stop' && calls > 0 ? 'tool_calls' : openaiFinish(reason);
}

export const outcomeSchema = z.object({
  answer: z.string().nullable().openapi({ description: 'What was elected; null: nothing was.' }),
  elected: z.int().nullable().openapi({ description: 'The chain that is shown; null: each is a choice.' }),
  ballots: z.array(z.object({ chain: z.int(), answer: z.string().nullable(), key: z.string().nullable(), verified: z.boolean().nullable() })),
  chains: z.array(z.object({ tokens: z.int(), finish: z.string() })),
}).openapi('HyperscaleOutcome');

export type Outcome = z.infer<typeof outcomeSchema>;

export function outcomeOf({ answer, ballots, chains }: Omit<JobResult, 'timing'>, elected: number | null): Outcome {
  return {
    answer,
    elected,
    ballots: ballots.map((ballot) => ({ ...ballot })),
    chains: chains.map(({ tokens, finish_reason }) => ({ tokens: tokens.length, finish: finish_reason })),
  };
}
