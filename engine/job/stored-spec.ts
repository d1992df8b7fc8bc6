/** What a job's store keeps of what was asked: the spec with nothing left to the machine that reads it. Immutable, named by its digest. */
import { z } from 'zod';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Plan } from '../kv/hints.ts';
import { isJobName } from '../kv/names.ts';
import type { PreparedJob } from './prepare.ts';
import { type JobSpec, type SamplingSpec, modelName, parseSpec } from './spec.ts';
import type { Sampling } from '../runtime/native.ts';

const tokenIds = z.array(z.int().min(0)).max(LIMITS.LENGTH_MAX);
const hex = z.string().regex(/^[0-9a-f]{64}$/);

/** Where a job's first state comes from, if not from its prompt alone. */
const parent = z.strictObject({
  job: z.string().refine(isJobName),
  /** Of the parent's HEAD when the child was made: what it had then. */
  version: z.int().min(0),
  /** `continue`: the next turn, whose prompt may begin as one of the parent's chains did. */
  kind: z.enum(['extend', 'fork', 'continue']),
  /** The chain that is forked or answered to; null: every chain goes on as itself. */
  chain: z.int().min(0).nullable(),
  /** Tokens of it that the fork begins with; of `continue`, the tokens that the prompt begins with, the parent's prompt included. */
  at: z.int().min(0).nullable(),
});

/** What is no secret of a sealed job, with the model's name. */
export const shownParts = {
  lengths: z.array(z.int().min(1).max(LIMITS.LENGTH_MAX)).min(1).max(LIMITS.WIDTH_MAX),
  model_id: hex,
  parent: parent.nullable(),
};

const stored = z.strictObject({
  format: z.literal('ruminate-job/1'),
  /** As `parseSpec` takes it, but for the seed, which JSON cannot hold. */
  spec: z.record(z.string(), z.unknown()),
  seed: z.string().regex(/^\d{1,20}$/),
  prompt: tokenIds.min(1),
  kv: z.enum(['f32', 'bf16']),
  page_slots: z.int().min(1).max(LIMITS.PAGE_SLOTS_MAX),
  ...shownParts,
});

export type StoredSpec = z.infer<typeof stored>;
export type Parent = z.infer<typeof parent>;

/**
 * A function of the job: asking for the same thing twice gives the same bytes, and so the same digest. What the model's files or this version
 * would have said by default is written down: neither needs to be the same where the job goes on.
 */
export function storedSpecOf(spec: JobSpec, job: PreparedJob, modelId: string, from: Parent | null): StoredSpec {
  const { seed: _, threads: _threads, verifier: _v, budget = {}, ...rest } = spec;
  const { length: _l, width: _w, ...limits } = budget;
  const verifier = spec.verifier ?? job.model.resolved.card?.task?.verifier;
  return {
    format: 'ruminate-job/1',
    spec: {
      ...rest,
      sampling: samplingSpecOf(job.sampling),
      budget: { ...limits, lengths: job.lengths },
      vote: job.vote,
      early_stop: job.earlyStop,
      answer: job.answer,
      ...(verifier === undefined || verifier === null ? {} : { verifier }),
      thinking: job.thinking,
      backend: job.backend,
      kv: job.kv,
      page_slots: job.pageSlots,
    },
    seed: job.seed.toString(),
    prompt: [...job.promptIds],
    lengths: [...job.lengths],
    kv: job.kv,
    page_slots: job.pageSlots,
    model_id: modelId,
    parent: from,
  };
}

function samplingSpecOf(sampling: Sampling): SamplingSpec {
  return {
    temperature: sampling.temperature,
    top_k: sampling.topK,
    top_p: sampling.topP,
    min_p: sampling.minP,
    repetition_penalty: sampling.repetitionPenalty,
    presence_penalty: sampling.presencePenalty,
    frequency_penalty: sampling.frequencyPenalty,
    logit_bias: sampling.logitBias.map(([id, bias]): [number, number] => [id, bias]),
  };
}

/** For its marker: what may be made, at most, and of which model. @param tokens as `plannedTokens` says; default: its lengths, where no model is at hand. */
export function planOf({ spec, lengths }: Pick<StoredSpec, 'spec' | 'lengths'>, tokens = lengths.reduce((sum, length) => sum + length, 0)): Plan {
  return { model: modelName(spec as Pick<JobSpec, 'model' | 'variant'>), tokens };
}

/**
 * @param text of a spec object whose digest has been checked.
 * @throws EngineError ERR_CHECKPOINT
 */
export function parseStoredSpec(text: string): StoredSpec {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new EngineError('ERR_CHECKPOINT', 'damaged: the spec of the job is not JSON.', { cause });
  }
  const parsed = stored.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new EngineError('ERR_CHECKPOINT', `format: the spec of the job: ${issue?.path.join('.') ?? ''} ${issue?.message ?? 'is invalid'}.`);
}

/** What was asked, for this machine. `model` names it here: another path or name than where the job began; its identity is compared. */
export function jobSpecOf({ spec, seed }: StoredSpec, model: string | null): JobSpec {
  const asked = parseSpec({ ...spec, seed: BigInt(seed) });
  return model === null ? asked : { ...asked, model, variant: undefined };
}

/** @throws EngineError ERR_CHECKPOINT model: the job `name` began with another model than the one here. */
export function checkSame(stored: StoredSpec, job: PreparedJob, modelId: string, name: string): void {
  if (stored.model_id !== modelId) {
    throw new EngineError('ERR_CHECKPOINT', `model: ${job.model.resolved.name} is not the model that ${name} began with (weights, configuration, tokenizer or template differ). The model that it began with can be named with --model: a directory, or URL#REVISION of a store that has it.`);
  }
  const same = stored.prompt.length === job.promptIds.length && stored.prompt.every((id, i) => id === job.promptIds[i]);
  if (!same) throw new EngineError('ERR_CHECKPOINT', `model: the prompt of ${name} has other tokens here than when it began.`);
}
