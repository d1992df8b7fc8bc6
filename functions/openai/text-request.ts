/** What /v1/completions takes: prompts that are gone on with as they are. Every field that is not here is refused by name. */
import { z } from '@hono/zod-openapi';

import type { ModelView } from '../../engine/control/platform.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { HttpError } from '../errors.ts';
import { HTTP_LIMITS } from '../limits.ts';
import { type ChosenBudget, budgetOf } from './budget.ts';
import { biasOf, hyperscale, labelsOf, length, logitBias, modelName, openaiLabels, rawPrompt, sampling, samplingOf, seed, serviceTier, stop, width } from './fields.ts';
import { topLogprobs } from './output.ts';

/** OpenAI's, for this endpoint alone. */
const MAX_TOKENS_DEFAULT = 16;

type Prompt = string | readonly number[];

/** A text, a list of token ids, or a list of either. */
function promptsOf(value: unknown): readonly Prompt[] | null {
  const all = Array.isArray(value) && typeof value[0] !== 'number' ? (value as unknown[]) : [value];
  if (all.length === 0 || all.length > HTTP_LIMITS.PROMPTS_MAX) return null;
  return all.every((prompt) => rawPrompt.safeParse(prompt).success) ? (all as Prompt[]) : null;
}

const prompts = z.custom<unknown>((value) => promptsOf(value) !== null, {
  error: `must be text, a list of token ids, or a list of at most ${HTTP_LIMITS.PROMPTS_MAX} of either`,
}).openapi({ type: ['string', 'array'], description: `Text or token ids, or a list of at most ${HTTP_LIMITS.PROMPTS_MAX}, each a job of its own. No chat template.` });

export const textRequest = z.strictObject({
  model: modelName,
  prompt: prompts,
  stream: z.boolean().optional(),
  stream_options: z.strictObject({ include_usage: z.boolean().optional(), include_obfuscation: z.literal(false).optional() }).optional(),
  max_tokens: length.optional().openapi({ description: `Default: ${MAX_TOKENS_DEFAULT}.` }),
  n: width.optional().openapi({ description: 'Chains of each prompt, each a choice of its own, and no vote.' }),
  best_of: width.optional().openapi({ description: 'Must be n: all that is generated is shown.' }),
  echo: z.boolean().optional().openapi({ description: 'Begin each text with its prompt.' }),
  seed: seed.optional(),
  stop: stop.optional(),
  ...sampling,
  logit_bias: logitBias.optional(),
  logprobs: topLogprobs.optional().openapi({ description: 'Of each token, and of so many of the likeliest in its place.' }),
  hyperscale: hyperscale.optional(),
  service_tier: serviceTier,
  ...openaiLabels,
}).openapi('CompletionRequest', { example: { model: 'countdown', prompt: '<s> user 4 20 8 13 target 59 <think>', max_tokens: 100 } });

export type TextRequest = z.infer<typeof textRequest>;

export interface TextJobs {
  /** One for each prompt. */
  readonly specs: readonly JobSpec[];
  /** What each text begins with. */
  readonly echoes: readonly string[];
  readonly budget: ChosenBudget;
}

/** @throws HttpError */
export async function textJobs(request: TextRequest, models: () => Promise<readonly ModelView[]>): Promise<TextJobs> {
  const { n = 1, best_of: bestOf, echo } = request;
  if (request.stream !== true && request.stream_options !== undefined) throw new HttpError('invalid_value', 'stream_options needs stream=true.', { param: 'stream_options' });
  if (bestOf !== undefined && bestOf !== n) throw new HttpError('invalid_value', `best_of must be n, which is ${n}: all that is generated is shown, and hyperscale.vote elects one.`, { param: 'best_of' });
  const all = promptsOf(request.prompt) ?? [];
  if (echo === true && all.some((prompt) => typeof prompt !== 'string')) throw new HttpError('invalid_value', 'echo must not be given with token ids: it shows text.', { param: 'echo' });
  if (echo === true && request.logprobs !== undefined) throw new HttpError('invalid_value', 'logprobs must not be given with echo: tokens of a prompt have none.', { param: 'logprobs' });
  const length = request.max_tokens ?? (request.hyperscale?.length === undefined ? MAX_TOKENS_DEFAULT : undefined);
  const budget = await budgetOf({ model: request.model, effort: undefined, hyperscale: request.hyperscale, lengths: [['max_tokens', length]], n }, models);
  const bias = biasOf(request.logit_bias);
  const chosen = { ...samplingOf(request), ...(bias.length === 0 ? {} : { logit_bias: bias }) };
  const shared = {
    model: request.model,
    // All of what is generated is the text.
    thinking: null,
    ...budget.spec,
    // So that under one key another number of prompts is another request.
    ...labelsOf(request, { prompts: all.length > 1 ? all.length : undefined }),
    ...(Object.keys(chosen).length === 0 ? {} : { sampling: chosen }),
    ...(request.seed === undefined ? {} : { seed: request.seed }),
    ...(request.logprobs === undefined ? {} : { logprobs: request.logprobs }),
    ...(request.stop === undefined ? {} : { stop: typeof request.stop === 'string' ? [request.stop] : request.stop }),
  };
  return {
    specs: all.map((prompt) => ({ ...shared, raw_prompt: typeof prompt === 'string' ? prompt : [...prompt] })),
    echoes: all.map((prompt) => (echo === true && typeof prompt === 'string' ? prompt : '')),
    budget,
  };
}
