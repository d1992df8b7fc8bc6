/** A spec and the model it names, made into everything a run needs. Allocates nothing large and starts nothing. */
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { CallRules } from '../model/calls/parser.ts';
import type { ResolvedModel } from '../model/registry.ts';
import type { ChatTemplate } from '../model/template.ts';
import type { Tokenizer } from '../model/tokenizer.ts';
import type { KvType, ModelInfo, Sampling } from '../runtime/native.ts';
import { type AnswerRule, DEFAULT_THINKING, type Thinking } from './answer.ts';
import { type Quote, cacheGeometry, cacheShape, defaultKvType, kvBytesPerToken, plan } from './budget.ts';
import { type OutputFormat, formatOf } from './grammar.ts';
import { type Prompt, type PromptModel, callRulesOf, promptOf } from './prompt.ts';
import { type Shard, checkShards, sharesOf } from './shards.ts';
import type { JobSpec, SamplingSpec } from './spec.ts';
import { type Verifier, verifierNamed } from './verifier.ts';
import type { VoteRule } from './vote.ts';

/** What is read of a model before its weights. */
export interface LoadedModel {
  readonly resolved: ResolvedModel;
  /** Over the directory's policy; `info` tells what came of them. */
  readonly overrides: readonly (readonly [string, string])[];
  readonly info: ModelInfo;
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate | null;
  readonly samplingDefaults: SamplingSpec;
}

/** A spec with nothing left open. */
export interface PreparedJob {
  readonly model: LoadedModel;
  readonly promptIds: readonly number[];
  /** As of Prompt: whoever takes a new job refuses it by that name. */
  readonly ignored: string | null;
  /** What the verifier sees: the user's words. */
  readonly question: string;
  /** How the model calls functions, of the spec that has some; null: what it writes is text. */
  readonly calls: CallRules | null;
  /** Special tokens that are part of its text all the same: the markup of calls. */
  readonly keptIds: ReadonlySet<number>;
  /** Whether the prompt already ends inside the thinking. */
  readonly opened: boolean;
  /** [width] */
  readonly lengths: readonly number[];
  readonly seed: bigint;
  readonly sampling: Sampling;
  readonly stop: readonly string[];
  readonly vote: VoteRule;
  readonly earlyStop: boolean;
  readonly answer: AnswerRule;
  readonly verifier: Verifier | null;
  readonly thinking: Thinking | null;
  /** null: any text. */
  readonly format: OutputFormat | null;
  /** How many alternatives have a log-probability beside the token's; null: none of them has one. */
  readonly logprobs: number | null;
  /** Of the whole job, also in a shard. */
  readonly kvReadBudget: number | null;
  /** How many shards the job has; null: it has none, or this is one of them. */
  readonly shards: number | null;
  /** Which chains of its job this is; null: all of them. */
  readonly shard: Shard | null;
  /** What the quote counts on: as the spec says or, of the model's own policy, its card; null: neither does. */
  readonly keptFraction: number | null;
  readonly deadlineMs: number | null;
  readonly backend: 'cpu' | 'reference';
  readonly kv: KvType;
  readonly pageSlots: number;
  readonly bytesPerToken: number;
}

export function promptModel({ resolved, template, tokenizer, info }: LoadedModel): PromptModel {
  return { name: resolved.name, template, tokenizer, vocabSize: info.vocabSize, context: info.maxPositions };
}

/**
 * @param prompt of this spec and model, if it was encoded elsewhere.
 * @throws EngineError ERR_OPTION, ERR_TEMPLATE, ERR_TOOLS, ERR_TOKENIZER, ERR_PROMPT_TOO_LONG
 */
export function prepare(spec: JobSpec, model: LoadedModel, prompt?: Prompt): PreparedJob {
  const { info, resolved } = model;
  checkRatio(spec, model);
  checkBias(spec, info.vocabSize);
  const given = prompt ?? promptOf(spec, promptModel(model));
  const calls = callRulesOf(spec, given);
  const task = resolved.card?.task ?? null;
  const vote = spec.vote ?? task?.vote ?? 'majority';
  const verifierName = spec.verifier ?? task?.verifier ?? null;
  if (vote === 'verifier' && verifierName === null) {
    throw new EngineError('ERR_OPTION', `vote must be majority, first or none for ${resolved.name}, which has no verifier; got verifier.`);
  }
  const thinking = spec.thinking !== undefined ? spec.thinking : task !== null ? task.thinking : DEFAULT_THINKING;
  const kv = spec.kv ?? defaultKvType(info);
  checkShards(spec, vote, info);
  return {
    model,
    promptIds: given.ids,
    ignored: given.ignored,
    question: spec.prompt ?? (typeof spec.raw_prompt === 'string' ? spec.raw_prompt : null) ?? spec.messages?.findLast((message) => message.role === 'user')?.content ?? '',
    calls,
    keptIds: new Set((calls?.syntax.markers ?? []).flatMap((marker) => model.tokenizer.tokenToId(marker) ?? [])),
    opened: thinking !== null && given.end.endsWith(thinking.open),
    lengths: lengthsOf(spec, given.ids.length, info.maxPositions),
    seed: BigInt(spec.seed ?? 0),
    sampling: samplingOf({ ...model.samplingDefaults, ...spec.sampling }),
    stop: spec.stop ?? [],
    vote,
    earlyStop: spec.early_stop ?? true,
    // Text that is made for programs is compared whole.
    answer: spec.answer ?? (spec.format !== undefined ? { rule: 'exact' } : (task?.answer ?? { rule: 'auto' })),
    verifier: verifierName === null ? null : verifierNamed(verifierName),
    thinking,
    format: formatOf(spec),
    logprobs: spec.logprobs ?? null,
    kvReadBudget: spec.budget?.kv_read_budget ?? null,
    shards: spec.shards ?? null,
    shard: null,
    keptFraction: spec.kept_fraction ?? (model.overrides.length > 0 ? null : (resolved.variantCard?.figures?.kept_fraction ?? null)),
    deadlineMs: spec.budget?.deadline_ms ?? null,
    backend: spec.backend ?? 'cpu',
    kv,
    pageSlots: spec.page_slots ?? LIMITS.PAGE_SLOTS_DEFAULT,
    bytesPerToken: kvBytesPerToken(info, kv),
  };
}

/** A model with a card has chosen its variant by the ratio; a plain directory is what it is. */
function checkRatio({ budget }: JobSpec, { resolved, info }: LoadedModel): void {
  const asked = budget?.compression_ratio;
  if (asked === undefined || resolved.card !== null) return;
  const ratio = Math.max(1, info.policy.targetCr);
  if (asked !== ratio) {
    throw new EngineError('ERR_OPTION', `compression_ratio must be ${ratio} for ${resolved.name}, which has one variant of CR ${ratio}; got ${asked}.`);
  }
}

/** A run would refuse it, too, but only when a worker has taken the job. */
function checkBias({ sampling }: JobSpec, vocabSize: number): void {
  const strange = sampling?.logit_bias?.find(([id]) => id >= vocabSize);
  if (strange !== undefined) throw new EngineError('ERR_OPTION', `sampling.logit_bias must have token ids below ${vocabSize}; got ${strange[0]}.`);
}

/** @throws EngineError ERR_BUDGET */
export function quoteOf(job: PreparedJob, weightBytes: number): Quote {
  return plan({
    promptTokens: job.promptIds.length,
    lengths: job.lengths,
    shape: cacheShape(job.model.info, job.keptFraction),
    geometry: cacheGeometry(job.model.info, job.kv, job.pageSlots),
    vocabSize: job.model.info.vocabSize,
    bytesPerToken: job.bytesPerToken,
    ...sharesOf(job),
    weightBytes,
  });
}

/** What a job that was admitted is expected to make at most, all chains together: its lengths, as far as its budget pays for them. */
export function plannedTokens(job: PreparedJob): number {
  return quoteOf(job, 0).expected.completion_tokens;
}

function lengthsOf({ budget }: JobSpec, promptTokens: number, maxPositions: number): readonly number[] {
  const room = maxPositions - promptTokens;
  if (room < 1) {
    throw new EngineError('ERR_PROMPT_TOO_LONG', `The prompt must leave room for an answer in the context of ${maxPositions} tokens; it has ${promptTokens}.`);
  }
  const length = budget?.length ?? Math.min(room, LIMITS.LENGTH_DEFAULT_MAX);
  const lengths = budget?.lengths ?? Array.from({ length: budget?.width ?? LIMITS.WIDTH_DEFAULT }, () => length);
  const longest = Math.max(...lengths);
  if (longest > room) {
    throw new EngineError('ERR_PROMPT_TOO_LONG', `length must be an integer from 1 to ${room} after a prompt of ${promptTokens} tokens in a context of ${maxPositions}; got ${longest}.`);
  }
  return lengths;
}

function samplingOf(sampling: SamplingSpec): Sampling {
  return {
    temperature: sampling.temperature ?? 1,
    topK: sampling.top_k ?? 0,
    topP: sampling.top_p ?? 1,
    minP: sampling.min_p ?? 0,
    repetitionPenalty: sampling.repetition_penalty ?? 1,
    presencePenalty: sampling.presence_penalty ?? 0,
    frequencyPenalty: sampling.frequency_penalty ?? 0,
    logitBias: sampling.logit_bias ?? [],
  };
}
