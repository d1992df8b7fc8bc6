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
  /** Rows of the embedding. */
  readonly vocabSize: number;
  /** Tokens of prompt and answer. */
  readonly context: number;
}

const END_CHARS = 256;

/**
 * A template writes its own special tokens, so none are added to what it renders.
 * @throws EngineError ERR_OPTION, ERR_TEMPLATE, ERR_TOKENIZER, ERR_PROMPT_TOO_LONG
 */
export function promptOf(spec: JobSpec, { name, template, tokenizer, vocabSize, context }: PromptModel): Prompt {
  if (spec.raw_prompt !== undefined) return rawPrompt(spec.raw_prompt, tokenizer, vocabSize, context);
  if (template === null && spec.messages !== undefined) {
    throw new EngineError('ERR_TEMPLATE', `${name} has no chat template for messages; give a prompt, which is used as it is.`);
  }
  const system = spec.instructions === undefined ? [] : [{ role: 'system', content: spec.instructions }];
  const messages = [...system, ...(spec.messages ?? [{ role: 'user', content: spec.prompt ?? '' }])];
  const text = template?.render({
    messages,
    addGenerationPrompt: true,
    bosToken: tokenizer.bosToken,
    eosToken: tokenizer.eosToken,
    enableThinking: spec.enable_thinking,
    tools: spec.tools,
    documents: spec.documents,
    date: spec.date,
    extra: spec.template_variables,
  }) ?? spec.prompt ?? '';
  const ids = encoded(text, template === null, tokenizer, context);
  if (ids.length === 0) throw new EngineError('ERR_OPTION', 'prompt must have at least one token; got none.');
  return { ids, end: endOf(text) };
}

/** Text as a tokenizer takes it by itself: with what it puts before every text. */
function rawPrompt(prompt: string | readonly number[], tokenizer: Tokenizer, vocabSize: number, context: number): Prompt {
  if (typeof prompt === 'string') return { ids: encoded(prompt, true, tokenizer, context), end: endOf(prompt) };
  const strange = prompt.find((id) => id >= vocabSize);
  if (strange !== undefined) throw new EngineError('ERR_OPTION', `raw_prompt must have token ids below ${vocabSize}; got ${strange}.`);
  return { ids: prompt, end: endOf(tokenizer.decode(prompt, { skipSpecial: false })) };
}

function encoded(text: string, addSpecial: boolean, tokenizer: Tokenizer, context: number): readonly number[] {
  const least = tokenizer.leastTokens(text);
  const ids = least >= context ? null : tokenizer.encodeAtMost(text, { addSpecial, most: context - 1 });
  if (ids !== null) return ids;
  throw new EngineError('ERR_PROMPT_TOO_LONG', `The prompt must leave room for an answer in the context of ${context} tokens; it has at least ${Math.max(least, context)}.`);
}

function endOf(text: string): string {
  return text.trimEnd().slice(-END_CHARS);
}
