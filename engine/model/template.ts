/** Chat templates: Hugging Face's Jinja, from tokenizer_config.json or chat_template.jinja. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { readBounded } from './registry.ts';

export interface Message {
  readonly role: string;
  readonly content: string;
}

export interface TemplateVariables {
  readonly messages: readonly Message[];
  readonly addGenerationPrompt: boolean;
  readonly bosToken: string | null;
  readonly eosToken: string | null;
  /** undefined: the template's own default. */
  readonly enableThinking?: boolean | undefined;
  readonly tools?: readonly unknown[] | undefined;
}

/**
 * @example ChatTemplate.load(directory, tokenizer.config)?.render({ messages, addGenerationPrompt: true, bosToken, eosToken });
 */
export class ChatTemplate {
  readonly source: string;
  readonly #template: Template;

  /** @throws EngineError ERR_TEMPLATE if the source does not parse. */
  constructor(source: string) {
    if (Buffer.byteLength(source) > LIMITS.TEMPLATE_BYTES_MAX) {
      throw new EngineError('ERR_TEMPLATE', `The chat template is larger than ${LIMITS.TEMPLATE_BYTES_MAX} bytes.`);
    }
    this.source = source;
    try {
      this.#template = new Template(source);
    } catch (cause) {
      throw new EngineError('ERR_TEMPLATE', `The chat template does not parse: ${messageOf(cause)}.`, { cause });
    }
  }

  /** null: the model has none, and prompts are used as they are. The file wins over the config, as in transformers. */
  static load(directory: string, tokenizerConfig: Readonly<Record<string, unknown>>): ChatTemplate | null {
    const path = join(directory, 'chat_template.jinja');
    const source = existsSync(path) ? readBounded(path, LIMITS.TEMPLATE_BYTES_MAX) : sourceOf(tokenizerConfig.chat_template);
    return source === null ? null : new ChatTemplate(source);
  }

  /** @throws EngineError ERR_TEMPLATE if the template refuses the messages. */
  render(variables: TemplateVariables): string {
    try {
      return this.#template.render({
        messages: variables.messages.map((message) => ({ ...message })),
        add_generation_prompt: variables.addGenerationPrompt,
        bos_token: variables.bosToken ?? '',
        eos_token: variables.eosToken ?? '',
        ...(variables.enableThinking === undefined ? {} : { enable_thinking: variables.enableThinking }),
        ...(variables.tools === undefined ? {} : { tools: [...variables.tools] }),
      });
    } catch (cause) {
      throw new EngineError('ERR_TEMPLATE', `The chat template cannot be rendered: ${messageOf(cause)}.`, { cause });
    }
  }
}

/** A string, or a list of {name, template} of which `default` is for plain chats. */
function sourceOf(template: unknown): string | null {
  if (template === undefined || template === null) return null;
  if (typeof template === 'string') return template;
  if (Array.isArray(template)) {
    const named = (template as { name?: unknown; template?: unknown }[]).find((entry) => entry?.name === 'default') ?? template[0];
    if (typeof named?.template === 'string') return named.template;
  }
  throw new EngineError('ERR_TEMPLATE', 'chat_template in tokenizer_config.json is neither a string nor a list of named templates.');
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message.replace(/\.$/, '') : String(cause);
}
