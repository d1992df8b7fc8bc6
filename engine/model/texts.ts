/** What a model is made of beside its weights, as texts: what a front reads of a store, and a push writes there. */
import { ChatTemplate, templateSource } from './template.ts';
import { Tokenizer } from './tokenizer.ts';

export interface ModelTexts {
  /** Of tokenizer.json. */
  readonly tokenizer: string;
  /** Of tokenizer_config.json; null: there is none. */
  readonly tokenizerConfig: string | null;
  /** Of chat_template.jinja; null: what the config says. */
  readonly template: string | null;
  /** Of generation_config.json; null: there is none. */
  readonly generationConfig: string | null;
}

/** @throws EngineError ERR_TOKENIZER, ERR_TEMPLATE */
export function readTexts({ tokenizer: json, tokenizerConfig, template: own }: ModelTexts, where: string): { readonly tokenizer: Tokenizer; readonly template: ChatTemplate | null } {
  const tokenizer = Tokenizer.parse(json, tokenizerConfig ?? '{}', where);
  const source = own ?? templateSource(tokenizer.config.chat_template);
  return { tokenizer, template: source === null ? null : new ChatTemplate(source) };
}
