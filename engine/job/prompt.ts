/** A prompt as its model reads it. */
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { CallRules } from '../model/calls/parser.ts';
import { type TemplateTools, type Turn, conversationOf, syntaxNamed, toolsOf } from '../model/calls/prompt.ts';
import type { CallSyntax, Tool } from '../model/calls/syntax.ts';
import type { ChatTemplate, Message } from '../model/template.ts';
import type { Tokenizer } from '../model/tokenizer.ts';
import type { JobSpec } from './spec.ts';

export interface Prompt {
  readonly ids: readonly number[];
  /** What its text ends in, without white space after it: longer than any delimiter. */
  readonly end: string;
  /** How its model calls the functions that it offers; null: it offers none. */
  readonly syntax: CallSyntax['name'] | null;
  /** A field of the spec that says something to the model and of which nothing is in the prompt: `messages.2.name`; null: there is none. */
  readonly ignored: string | null;
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
/** Of them all, bytes of four. */
const END_TOKENS = 4 * END_CHARS;

/**
 * A template writes its own special tokens, so none are added to what it renders.
 * @throws EngineError ERR_OPTION, ERR_TEMPLATE, ERR_TOOLS, ERR_TOKENIZER, ERR_PROMPT_TOO_LONG
 */
export function promptOf(spec: JobSpec, { name, template, tokenizer, vocabSize, context }: PromptModel): Prompt {
  if (spec.raw_prompt !== undefined) return { ...rawPrompt(spec.raw_prompt, tokenizer, vocabSize, context), ignored: ofTemplates(spec) };
  if (template === null && spec.messages !== undefined) {
    throw new EngineError('ERR_TEMPLATE', `${name} has no chat template for messages; give a prompt, which is used as it is.`);
  }
  const tools = spec.tool_choice === 'none' ? [] : (spec.tools ?? []);
  if (template === null && tools.length > 0) throw new EngineError('ERR_TOOLS', `${name} has no chat template, which would tell it of tools.`);
  const turns = turnsOf(spec);
  checkResults(turns);
  const speaksOfTools = tools.length > 0 || turns.some(({ role, calls }) => role === 'tool' || calls !== undefined);
  const known = template === null || !speaksOfTools ? null : toolsOf(template.forTools, tokenizer);
  const render = (shown: JobSpec) => (template === null ? (spec.prompt ?? '') : rendered(shown, tools, template, known, tokenizer));
  const text = render(spec);
  const ids = encoded(text, template === null, tokenizer, context);
  if (ids.length === 0) throw new EngineError('ERR_OPTION', 'prompt must have at least one token; got none.');
  const ignored = template === null ? ofTemplates(spec) : notInText(spec, text, render);
  return { ids, end: endOf(text), syntax: known === null || tools.length === 0 ? null : known.syntax.name, ignored };
}

/** How the calls of a spec's chains are known; null: it offers no functions. */
export function callRulesOf({ tools = [], tool_choice: choice, parallel_tool_calls: parallel = true }: JobSpec, { syntax }: Pick<Prompt, 'syntax'>): CallRules | null {
  if (syntax === null) return null;
  const offered = typeof choice === 'object' ? [choice.name] : tools.map((tool) => tool.function.name);
  return { syntax: syntaxNamed(syntax), offered: new Set(offered), most: parallel ? LIMITS.TOOLS_MAX : 1 };
}

/** Text as a tokenizer takes it by itself: with what it puts before every text. */
function rawPrompt(prompt: string | readonly number[], tokenizer: Tokenizer, vocabSize: number, context: number): Omit<Prompt, 'ignored'> {
  if (typeof prompt === 'string') return { ids: encoded(prompt, true, tokenizer, context), end: endOf(prompt), syntax: null };
  if (prompt.length >= context) throw tooLong(context, prompt.length);
  const strange = prompt.find((id) => id >= vocabSize);
  if (strange !== undefined) throw new EngineError('ERR_OPTION', `raw_prompt must have token ids below ${vocabSize}; got ${strange}.`);
  return { ids: prompt, end: endOf(tokenizer.decode(prompt.slice(-END_TOKENS), { skipSpecial: false })), syntax: null };
}

function encoded(text: string, addSpecial: boolean, tokenizer: Tokenizer, context: number): readonly number[] {
  const least = tokenizer.leastTokens(text);
  const ids = least >= context ? null : tokenizer.encodeAtMost(text, { addSpecial, most: context - 1 });
  if (ids !== null) return ids;
  throw tooLong(context, Math.max(least, context));
}

function tooLong(context: number, tokens: number): EngineError {
  return new EngineError('ERR_PROMPT_TOO_LONG', `The prompt must leave room for an answer in the context of ${context} tokens; it has at least ${tokens}.`);
}

function endOf(text: string): string {
  return text.trimEnd().slice(-END_CHARS);
}

/** A result answers a call that was made before it; of whom it is may be left out. */
function checkResults(turns: readonly Turn[]): void {
  const made = new Set<string>();
  for (const [i, { role, calls = [], tool_call_id: answered }] of turns.entries()) {
    for (const { id } of calls) made.add(id);
    if (role !== 'tool' || answered === undefined || made.has(answered)) continue;
    throw new EngineError('ERR_OPTION', `messages.${i}.tool_call_id must be that of a call in an earlier turn; got ${JSON.stringify(answered.slice(0, 64))}.`);
  }
}

function rendered(spec: JobSpec, tools: readonly Tool[], template: ChatTemplate, known: TemplateTools | null, { bosToken, eosToken }: Tokenizer): string {
  const turns = turnsOf(spec);
  const chat: { readonly messages: readonly Message[]; readonly tools?: readonly Tool[] | undefined } = known === null ? { messages: turns } : conversationOf(turns, tools, known);
  const text = (known === null ? template : template.forTools).render({
    messages: chat.messages,
    addGenerationPrompt: true,
    bosToken,
    eosToken,
    enableThinking: spec.enable_thinking,
    tools: chat.tools,
    documents: spec.documents,
    date: spec.date,
    extra: spec.template_variables,
  });
  if (tools.some((tool) => !text.includes(tool.function.name))) throw new EngineError('ERR_TOOLS', 'The chat template of this model shows neither tools nor a system turn that could tell of them.');
  return text;
}

const CERTAIN_CHARS = 32;
/** Each is a rendering more; all others are one. */
const ROLES = ['system', 'user', 'assistant', 'tool'];

/** What only a chat template could tell the model. */
function ofTemplates(spec: JobSpec): string | null {
  const tools = spec.tool_choice === 'none' ? [] : (spec.tools ?? []);
  return (tools.length > 0 ? 'tools' : (['documents', 'date', 'template_variables', 'enable_thinking'] as const).find((field) => spec[field] !== undefined)) ?? null;
}

/**
 * A template is asked by leaving out what it may not know; one that refuses the rest has missed it. Not asked of: thoughts of earlier turns, which
 * most leave out on purpose, and switches, one of whose values changes nothing. A result may name the function that it is of, as its call has.
 */
function notInText(spec: JobSpec, text: string, render: (shown: JobSpec) => string): string | null {
  const { messages = [], instructions } = spec;
  const isSame = (change: Partial<JobSpec>): boolean => {
    try {
      return render({ ...spec, ...change }) === text;
    } catch (error) {
      if (error instanceof EngineError) return false;
      throw error;
    }
  };
  // What is long and in the text came there from nowhere else.
  const isMissing = (said: string) => said.trim() !== '' && (said.trim().length < CERTAIN_CHARS || !text.includes(said.trim()));
  if (instructions !== undefined && isMissing(instructions) && isSame({ instructions: undefined })) return 'instructions';
  const silent = new Set(messages.filter(({ role, content }) => role === 'system' && isMissing(content)));
  if (silent.size > 0 && isSame({ messages: messages.filter((message) => !silent.has(message)) })) return `messages.${messages.findIndex((message) => silent.has(message))}.content`;
  const made = new Map(messages.flatMap(({ tool_calls: calls = [] }) => calls.map(({ id, function: { name } }) => [id, name] as const)));
  const named = new Set(messages.filter(({ role, name, tool_call_id: answered }) => name !== undefined && !(role === 'tool' && name === made.get(answered))));
  const kindOf = ({ role }: { readonly role: string }) => (ROLES.includes(role) ? role : 'other');
  for (const kind of new Set([...named].map(kindOf))) {
    const isOne = (message: (typeof messages)[number]) => named.has(message) && kindOf(message) === kind;
    if (isSame({ messages: messages.map((message) => (isOne(message) ? { ...message, name: undefined } : message)) })) return `messages.${messages.findIndex(isOne)}.name`;
  }
  return (['documents', 'date'] as const).find((field) => spec[field] !== undefined && isSame({ [field]: undefined })) ?? null;
}

function turnsOf({ instructions, messages, prompt = '' }: JobSpec): readonly Turn[] {
  const system = instructions === undefined ? [] : [{ role: 'system', content: instructions }];
  return [...system, ...(messages ?? [{ role: 'user', content: prompt }])].map(turnOf);
}

function turnOf({ tool_calls: made = [], ...turn }: NonNullable<JobSpec['messages']>[number]): Turn {
  if (made.length === 0) return turn;
  const calls = made.map(({ id, function: { name, arguments: given } }) => ({ id: id ?? '', name, arguments: typeof given === 'string' ? given : JSON.stringify(given) }));
  return { ...turn, calls };
}
