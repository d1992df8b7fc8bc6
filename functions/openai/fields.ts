/** Request fields that the OpenAI endpoints share. Bounds are the engine's; its own check of the spec comes after. */
import { z } from '@hono/zod-openapi';

import { LIMITS } from '../../engine/core/limits.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { EFFORTS } from './effort.ts';

/** A name, never a path: a request cannot make the server look at a folder. */
export const modelName = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(@[A-Za-z0-9][A-Za-z0-9._-]{0,63})?$/, { error: 'must be a name of GET /v1/models' })
  .openapi({ example: 'countdown@cr8' });

export const length = z.int().min(1).max(LIMITS.LENGTH_MAX);
export const width = z.int().min(1).max(LIMITS.WIDTH_MAX);
export const shards = z.int().min(1).max(LIMITS.SHARDS_MAX).openapi({ description: 'Among so many workers the chains are divided, at most one for each chain; a KV-read budget is then an equal share for each. Default: one worker has them all.' });
export const seed = z.int().min(0).max(Number.MAX_SAFE_INTEGER);
export const effort = z.enum(EFFORTS);

export const stop = z.union([z.string().min(1).max(LIMITS.STOP_BYTES_MAX), z.array(z.string().min(1).max(LIMITS.STOP_BYTES_MAX)).max(LIMITS.STOP_MAX)], {
  error: `must be text or a list of at most ${LIMITS.STOP_MAX} texts of 1 to ${LIMITS.STOP_BYTES_MAX} bytes`,
});

/** As OpenAI's, and what vLLM's servers take beside them. */
export const sampling = {
  temperature: z.number().min(0).max(LIMITS.TEMPERATURE_MAX).optional(),
  top_p: z.number().gt(0).max(1).optional(),
  top_k: z.int().min(0).max(LIMITS.TOP_K_MAX).optional(),
  min_p: z.number().min(0).lt(1).optional(),
  repetition_penalty: z.number().gt(0).max(LIMITS.REPETITION_PENALTY_MAX).optional(),
  presence_penalty: z.number().min(-2).max(2).optional(),
  frequency_penalty: z.number().min(-2).max(2).optional(),
} as const;

const samplingObject = z.object(sampling);

const TOKEN_ID_MAX = LIMITS.LENGTH_MAX * 4;

/** By token id, as OpenAI has it. */
export const logitBias = z.record(z.string().refine((id) => /^\d{1,7}$/.test(id) && Number(id) <= TOKEN_ID_MAX), z.number().min(-100).max(100), {
  error: ({ code }) => (code === 'invalid_key' ? `must be a token id from 0 to ${TOKEN_ID_MAX}` : undefined),
});

/** As the engine has it. */
export function biasOf(bias: z.infer<typeof logitBias> = {}): [number, number][] {
  return Object.entries(bias).map(([id, value]) => [Number(id), value]);
}

export const hyperscale = z.strictObject({
  length: length.optional().openapi({ description: 'Tokens that a chain may generate. Default: what the prompt leaves of the context.' }),
  width: width.optional().openapi({ description: 'Chains. Default: 1, or what the effort says.' }),
  compression_ratio: z.number().min(1).max(LIMITS.COMPRESSION_RATIO_MAX).optional().openapi({ description: 'Chooses the variant of the model.' }),
  shards: shards.optional(),
  kv_read_budget: z.int().min(1).max(LIMITS.KV_READ_BUDGET_MAX).optional().openapi({ description: 'KV reads of all chains together, never exceeded.' }),
  vote: z.enum(['majority', 'first', 'verifier', 'none']).optional().openapi({ description: 'How chains elect the answer. Default: the model\'s.' }),
  early_stop: z.boolean().optional().openapi({ description: 'End the others once the vote is decided. Default: true.' }),
}).openapi('Hyperscale');

export type Hyperscale = z.infer<typeof hyperscale>;

/** The fields of `request` that are sampling's; undefined: none is given. */
export function samplingOf(request: z.infer<typeof samplingObject>): JobSpec['sampling'] {
  const given = Object.keys(sampling).flatMap((key) => {
    const value = request[key as keyof typeof sampling];
    return value === undefined ? [] : [[key, value] as const];
  });
  return given.length === 0 ? undefined : Object.fromEntries(given);
}

/** By hand: a union would write down every one of a million strange tokens. */
function isRawPrompt(value: unknown): value is string | number[] {
  if (typeof value === 'string') return value !== '';
  return Array.isArray(value) && value.length > 0 && value.length <= LIMITS.LENGTH_MAX && value.every((id) => Number.isSafeInteger(id) && (id as number) >= 0);
}

export const rawPrompt = z.custom<string | number[]>(isRawPrompt, { error: 'must be text or a list of token ids' })
  .openapi({ type: ['string', 'array'], items: { type: 'integer' }, description: 'Gone on with as it is: no chat template.' });

/** The caller's own words about a request: kept with its job and given back. */
export const labels = {
  metadata: z.record(z.string().max(LIMITS.METADATA_KEY_CHARS_MAX), z.string().max(LIMITS.METADATA_VALUE_CHARS_MAX), {
    error: ({ code }) => (code === 'invalid_key' ? `must have keys of at most ${LIMITS.METADATA_KEY_CHARS_MAX} characters` : `must have texts of at most ${LIMITS.METADATA_VALUE_CHARS_MAX} characters`),
  }).refine((pairs) => Object.keys(pairs).length <= LIMITS.METADATA_MAX, { error: `must have at most ${LIMITS.METADATA_MAX} pairs` }).optional(),
  user: z.string().min(1).max(LIMITS.USER_BYTES_MAX).optional(),
} as const;

/** And OpenAI's own words for whoever is behind it: nobody here has a cache by name, or watches users. */
export const openaiLabels = { ...labels, safety_identifier: z.string().min(1).max(LIMITS.USER_BYTES_MAX).optional(), prompt_cache_key: z.string().min(1).max(LIMITS.USER_BYTES_MAX).optional() } as const;

const labelsObject = z.object(openaiLabels);

/** @param repeated what else an answer says again although the job does not depend on it; what is undefined was not said. */
export function labelsOf(
  { metadata, user, safety_identifier, prompt_cache_key }: z.infer<typeof labelsObject>, repeated: Readonly<Record<string, unknown>> = {},
): Pick<JobSpec, 'metadata' | 'user' | 'repeated'> {
  const said = Object.entries({ safety_identifier, prompt_cache_key, ...repeated }).filter(([, value]) => value !== undefined);
  return {
    ...(metadata === undefined ? {} : { metadata }),
    ...(user === undefined ? {} : { user }),
    ...(said.length === 0 ? {} : { repeated: Object.fromEntries(said) }),
  };
}

/** There is one tier. */
export const serviceTier = z.enum(['auto', 'default']).optional();

/** What a response has and nothing is in. */
export const emptyList = z.array(z.unknown()).max(0);

/** `logprobs`: of a text that a response gave and a client hands back; what it says of the text changes nothing. */
const textPart = z.strictObject({ type: z.enum(['text', 'input_text', 'output_text']), text: z.string(), annotations: emptyList.optional(), logprobs: z.array(z.unknown()).optional() });

export const content = z.union([z.string(), z.array(textPart).min(1).max(LIMITS.MESSAGES_MAX)], { error: 'must be text or a list of text parts' });

export function textOf(given: z.infer<typeof content>): string {
  return typeof given === 'string' ? given : given.map(({ text }) => text).join('');
}
