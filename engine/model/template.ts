/** Chat templates: Hugging Face's Jinja, from tokenizer_config.json or chat_template.jinja. */
import { Template } from '@huggingface/jinja';
import { utf8Bytes } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { withinMs } from '../core/within.ts';
import { render, tooLate } from './interpreter.ts';
import { parseDate, strftime } from './strftime.ts';

/** A turn, as transformers takes it; templates read what they know and leave the rest. */
export interface Message {
  readonly role: string;
  /** null: a turn that only calls tools. */
  readonly content: string | null;
  /** What an assistant thought; most templates drop it from earlier turns. */
  readonly reasoning_content?: string | undefined;
  readonly tool_calls?: readonly unknown[] | undefined;
  readonly tool_call_id?: string | undefined;
  readonly name?: string | undefined;
}

export interface TemplateVariables {
  readonly messages: readonly Message[];
  readonly addGenerationPrompt: boolean;
  readonly bosToken: string | null;
  readonly eosToken: string | null;
  /** undefined: the template's own default. */
  readonly enableThinking?: boolean | undefined;
  /** JSON schemas of functions, as in OpenAI's API. */
  readonly tools?: readonly unknown[] | undefined;
  readonly documents?: readonly unknown[] | undefined;
  /** `2024-07-26` or `2024-07-26T14:30:05`: what strftime_now says. undefined: there is no strftime_now, and templates fall back. */
  readonly date?: string | undefined;
  /** Whatever else a template asks for (`date_string`, `builtin_tools`, `thinking_budget`). What has a field of its own here keeps it. */
  readonly extra?: Readonly<Record<string, unknown>> | undefined;
}

/**
 * @example templateIn(directory, tokenizer.config)?.render({ messages, addGenerationPrompt: true, bosToken, eosToken });
 */
export class ChatTemplate {
  readonly source: string;
  readonly #template: Template;

  /** @throws EngineError ERR_TEMPLATE if the source does not parse. */
  constructor(source: string) {
    if (utf8Bytes(source) > LIMITS.TEMPLATE_BYTES_MAX) {
      throw new EngineError('ERR_TEMPLATE', `The chat template is larger than ${LIMITS.TEMPLATE_BYTES_MAX} bytes.`);
    }
    this.source = source;
    this.#template = refusing('does not parse', () => withinMs(LIMITS.TEMPLATE_MS_MAX, () => new Template(source), tooLate));
  }

  /**
   * A function of the variables alone: a template learns the date only from them.
   * @throws EngineError ERR_TEMPLATE if the template refuses the messages or does not come to an end.
   */
  render(variables: TemplateVariables): string {
    const { date, extra } = variables;
    const now = date === undefined ? null : parseDate(date);
    if (date !== undefined && now === null) throw new EngineError('ERR_TEMPLATE', `The date must be like 2024-07-26 or 2024-07-26T14:30:05; got ${JSON.stringify(date.slice(0, 40))}.`);
    const asksForDate = now === null && /\bstrftime_now\b/.test(this.source);
    return refusing('cannot be rendered', () => render(this.#template.parsed, {
      ...extra,
      messages: variables.messages.map(given),
      add_generation_prompt: variables.addGenerationPrompt,
      bos_token: variables.bosToken ?? '',
      eos_token: variables.eosToken ?? '',
      // transformers always passes these two: templates compare them with none.
      tools: variables.tools?.map(given) ?? null,
      documents: variables.documents?.map(given) ?? null,
      ...(variables.enableThinking === undefined ? {} : { enable_thinking: variables.enableThinking }),
      strftime_now: now === null ? undefined : (format: unknown) => strftime(now, String(format)),
    }), { hint: asksForDate ? ' (it may need a date, and none was given)' : '', own: this.source });
  }
}

/** @param own the template: words that are not from it may be the messages', and stand in quotes, as everything that was given does. */
function refusing<T>(what: string, work: () => T, { hint = '', own }: { readonly hint?: string; readonly own?: string } = {}): T {
  try {
    return work();
  } catch (cause) {
    const why = messageOf(cause);
    const words = own === undefined || own.includes(why) ? why : JSON.stringify(why);
    throw cause instanceof EngineError ? cause : new EngineError('ERR_TEMPLATE', `The chat template ${what}: ${words}${hint}.`, { cause });
  }
}

/** Without its undefined fields: a template asks whether a field is there. */
function given<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as T;
}

/**
 * The chat_template of a tokenizer_config.json: a string, or a list of {name, template} of which `default` is for plain chats; null: none.
 * @throws EngineError ERR_TEMPLATE
 */
export function templateSource(template: unknown): string | null {
  if (template === undefined || template === null) return null;
  if (typeof template === 'string') return template;
  if (Array.isArray(template)) {
    const named = (template as { name?: unknown; template?: unknown }[]).find((entry) => entry?.name === 'default') ?? template[0];
    if (typeof named?.template === 'string') return named.template;
  }
  throw new EngineError('ERR_TEMPLATE', 'chat_template in tokenizer_config.json is neither a string nor a list of named templates.');
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message.slice(0, 500).replace(/\.$/, '') : String(cause);
}
