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
}

const END_CHARS = 256;

/**
 * A template writes its own special tokens, so none are added to what it renders.
 * @throws EngineError ERR_OPTION, ERR_TEMPLATE, ERR_TOKENIZER, ERR_PROMPT_TOO_LONG
 */
export function promptOf(spec: JobSpec, { name, template, tokenizer, context }: PromptModel): Prompt {
  if (template === null && spec.messages !== undefined) {
    throw new EngineError('ERR_TEMPLATE', `${name} has no chat template for messages; give a prompt, which is used as it is.`);
  }
  const messages = spec.messages ?? [{ role: 'user', content: spec.prompt ?? '' }];
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
  const least = tokenizer.leastTokens(text);
  const ids = least >= context ? null : tokenizer.encodeAtMost(text, { addSpecial: template === null, most: context - 1 });
  if (ids === null) {
    throw new EngineError('ERR_PROMPT_TOO_LONG', `The prompt must leave room for an answer in the context of ${context} tokens; it has at least ${Math.max(least, context)}.`);
  }
  if (ids.length === 0) throw new EngineError('ERR_OPTION', 'prompt must have at least one token; got none.');
  return { ids, end: text.trimEnd().slice(-END_CHARS) };
}
