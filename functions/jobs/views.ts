/** Jobs, results and quotes as the native API shows them: the seam's own words, in JSON's case. */
import { z } from '@hono/zod-openapi';

import type { JobView } from '../../engine/control/platform.ts';
import { ERROR_CODES, type ErrorCode } from '../../engine/core/errors.ts';
import type { JobState } from '../../engine/kv/head.ts';

export const states = ['queued', 'running', 'parked', 'done', 'incomplete', 'failed', 'cancelled', 'expired', 'poisoned', 'erased'] as const satisfies readonly JobState[];
const statuses = ['queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled'] as const;
export type JobStatus = (typeof statuses)[number];

/** OpenAI's word for a state (DESIGN.md 2). */
export const STATUS: Readonly<Record<JobState, JobStatus>> = {
  queued: 'queued',
  running: 'in_progress',
  parked: 'in_progress',
  done: 'completed',
  incomplete: 'incomplete',
  failed: 'failed',
  cancelled: 'cancelled',
  expired: 'failed',
  poisoned: 'failed',
  erased: 'cancelled',
};

export function isOver(state: JobState): boolean {
  return STATUS[state] !== 'queued' && STATUS[state] !== 'in_progress';
}

export const jobSchema = z.object({
  object: z.literal('job'),
  id: z.string(),
  state: z.enum(states),
  status: z.enum(statuses).openapi({ description: 'The state in OpenAI\'s words.' }),
  model: z.string().openapi({ description: 'Empty: what was asked is damaged or lost.' }),
  created_at: z.int().openapi({ description: 'Unix time, seconds.' }),
  slice: z.int(),
  epoch: z.int(),
  step: z.int().openapi({ description: 'Tokens that every unfinished chain has.' }),
  chains: z.array(z.object({ tokens: z.int(), finish: z.string().nullable() })),
  ended: z.string().nullable().openapi({ description: 'Why it ended; null: it has not.' }),
  parent: z.object({ job: z.string(), kind: z.enum(['extend', 'fork', 'continue']) }).nullable(),
  cached_tokens: z.int().openapi({ description: 'Of a conversation that goes on: tokens of its prompt whose KV came from the turn before.' }),
  expires_at: z.int().nullable().openapi({ description: 'Unix time, seconds, of a job that has ended: until when its result is kept; null: until it is deleted.' }),
  incomplete_details: z.object({ reason: z.string() }).nullable().openapi({ description: 'Of a job that ended before it was done: why; /result has what there was by then.' }),
  metadata: z.record(z.string(), z.string()).nullable(),
  user: z.string().nullable(),
  evidence: z.array(z.object({ epoch: z.int(), code: z.string().nullable(), message: z.string(), found_at: z.int() })).nullable().openapi({
    description: 'Of a job that is poisoned or failed: how each of its takes without progress ended, last why it failed; code null: without a word.',
  }),
}).openapi('Job');

export const jobListSchema = z.object({ object: z.literal('list'), data: z.array(jobSchema), has_more: z.boolean() }).openapi('JobList');

export function jobOf(view: JobView): z.infer<typeof jobSchema> {
  return {
    object: 'job',
    id: view.id,
    state: view.state,
    status: STATUS[view.state],
    model: view.model,
    created_at: Math.floor(view.createdMs / 1_000),
    slice: view.slice,
    epoch: view.epoch,
    step: view.step,
    chains: view.chains.map(({ tokens, finish }) => ({ tokens, finish })),
    ended: view.ended,
    parent: view.parent === null ? null : { job: view.parent.job, kind: view.parent.kind },
    cached_tokens: view.cachedTokens,
    expires_at: view.expiresMs === null ? null : Math.floor(view.expiresMs / 1_000),
    incomplete_details: isOver(view.state) && view.state !== 'done' ? { reason: view.ended ?? view.state } : null,
    metadata: view.metadata === null ? null : { ...view.metadata },
    user: view.user,
    evidence: view.evidence?.map(({ epoch, code, atMs }) => ({ epoch, code, message: sentenceOf(code), found_at: Math.floor(atMs / 1_000) })) ?? null,
  };
}

/** What was really said may name a machine's folders, and is for its operator. */
function sentenceOf(code: string | null): string {
  if (code === null) return 'It ended without a word.';
  return Object.hasOwn(ERROR_CODES, code) ? ERROR_CODES[code as ErrorCode][1] : 'It failed.';
}

export const resultSchema = z.object({
  answer: z.string().nullable(),
  ballots: z.array(z.object({ chain: z.int(), answer: z.string().nullable(), key: z.string().nullable(), verified: z.boolean().nullable() })),
  chains: z.array(z.object({
    tokens: z.array(z.int()), logprobs: z.object({ tokens: z.array(z.number()), top: z.array(z.array(z.array(z.number()))) }).optional(), text: z.string(), finish_reason: z.string(), answer: z.string().nullable(),
    tool_calls: z.array(z.object({ name: z.string(), arguments: z.string() })).optional().openapi({ description: 'Of a job with tools.' }),
    live_kv_tokens: z.number(),
  })),
  usage: z.object({
    prompt_tokens: z.int(), completion_tokens: z.int(), kv_reads: z.number(), kv_reads_prefill: z.number(), peak_kv_tokens: z.number(),
    peak_kv_bytes: z.number(), compression_ratio: z.number(), read_ratio: z.number(),
  }),
}).openapi('JobResult');

const side = z.object({ completion_tokens: z.int(), kv_reads: z.number(), peak_kv_tokens: z.number(), peak_kv_bytes: z.number() });

export const quoteSchema = z.object({
  model: z.string(),
  prompt_tokens: z.int(),
  length: z.int(),
  width: z.int(),
  compression_ratio: z.number(),
  expected: side.openapi({ description: 'By the variant\'s card.' }),
  worst: side.openapi({ description: 'Nothing is evicted.' }),
  seconds: z.number().nullable().openapi({ description: 'Of decoding, estimated; null: no worker has had the model yet.' }),
  seconds_by: z.enum(['this_worker', 'workers']).nullable().openapi({ description: 'Whose speed that is: the worker beside this server, or what workers elsewhere have said of theirs.' }),
  seconds_basis: z.enum(['jobs', 'probe', 'no_worker_yet']).openapi({ description: 'By what it is known: the last jobs of the model; a few steps that a worker timed when it had loaded it; or not, as no worker of the store has.' }),
  cost_usd: z.number().nullable().openapi({ description: 'Of `seconds`; null: there are none, or the server was not told what an hour of a worker costs.' }),
  refusal: z.object({ code: z.string(), message: z.string() }).nullable().openapi({ description: 'null: it would be admitted.' }),
}).openapi('Quote');
