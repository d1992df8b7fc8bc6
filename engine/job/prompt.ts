/** A prompt as its model reads it. */
import { EngineError } from '../core/errors.ts';
import type { ChatTemplate } from '../model/template.ts';
import type { Tokenizer } from '../model/tokenizer.ts';
import type { JobSpec } from './spec.ts';

export interface Prompt {
  readonly ids: readonly number[];
  /** What its text ends in, without white space after it: longer than any delimiter. */
  readonly end: string;
}

export interface PromptModel {
  /** For people. */
  readonly name: string;
  readonly template: ChatTemplate | null;
  readonly tokenizer: Tokenizer;
  /** Tokens of prompt and answer. */
  readonly context: number;
  /** Token ids are below it. */
  readonly vocabSize: number;
}

const END_CHARS = 256;

/**
 * A template writes its own special tokens, so none are added to what it renders.
 * @throws EngineError ERR_OPTION, ERR_TEMPLATE, ERR_TOKENIZER, ERR_PROMPT_TOO_LONG
 */
export function promptOf(spec: JobSpec, model: PromptModel): Prompt {
  if (typeof spec.raw_prompt === 'object') return givenIds(spec.raw_prompt, model);
  const { tokenizer, context } = model;
  const text = spec.raw_prompt ?? render(spec, model);
  const least = tokenizer.leastTokens(text);
  // Raw text is what a tokenizer takes by itself: with what it puts before every text.
  const addSpecial = spec.raw_prompt !== undefined || model.template === null;
  const ids = least >= context ? null : tokenizer.encodeAtMost(text, { addSpecial, most: context - 1 });
  if (ids === null) {
    throw new EngineError('ERR_PROMPT_TOO_LONG', `The prompt must leave room for an answer in the context of ${context} tokens; it has at least ${Math.max(least, context)}.`);
  }
  if (ids.length === 0) throw new EngineError('ERR_OPTION', 'prompt must have at least one token; got none.');
  return { ids, end: endOf(text) };
}

function givenIds(ids: readonly number[], { tokenizer, vocabSize }: PromptModel): Prompt {
  const strange = ids.find((id) => id >= vocabSize);
  if (strange !== undefined) throw new EngineError('ERR_OPTION', `raw_prompt must have token ids below ${vocabSize}; got ${strange}.`);
  return { ids, end: endOf(tokenizer.decode(ids.slice(-END_CHARS), { skipSpecial: false })) };
}

function endOf(text: string): string {
  return text.trimEnd().slice(-END_CHARS);
}

function render(spec: JobSpec, { name, template, tokenizer }: PromptModel): string {
  if (template === null && spec.messages !== undefined) {
    throw new EngineError('ERR_TEMPLATE', `${name} has no chat template for messages; give a prompt, which is used as it is.`);
  }
  const system = spec.instructions === undefined ? [] : [{ role: 'system', content: spec.instructions }];
  return template?.render({
    messages: [...system, ...(spec.messages ?? [{ role: 'user', content: spec.prompt ?? '' }])],
    addGenerationPrompt: true,
    bosToken: tokenizer.bosToken,
    eosToken: tokenizer.eosToken,
    enableThinking: spec.enable_thinking,
    tools: spec.tools,
    documents: spec.documents,
    date: spec.date,
    extra: spec.template_variables,
  }) ?? spec.prompt ?? '';
}
