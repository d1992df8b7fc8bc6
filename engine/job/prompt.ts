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
 * @throws EngineError ERR_OPTION, ERR_TEMPLATE, ERR_TOOLS, ERR_TOKENIZER, ERR_PROMPT_TOO_LONG
 */
export function promptOf(spec: JobSpec, { name, template, tokenizer, vocabSize, context }: PromptModel): Prompt {
  if (spec.raw_prompt !== undefined) return rawPrompt(spec.raw_prompt, tokenizer, vocabSize, context);
  if (template === null && spec.messages !== undefined) {
    throw new EngineError('ERR_TEMPLATE', `${name} has no chat template for messages; give a prompt, which is used as it is.`);
  }
  const tools = spec.tool_choice === 'none' ? [] : (spec.tools ?? []);
  if (template === null && tools.length > 0) throw new EngineError('ERR_TOOLS', `${name} has no chat template, which would tell it of tools.`);
  const system = spec.instructions === undefined ? [] : [{ role: 'system', content: spec.instructions }];
  const turns = [...system, ...(spec.messages ?? [{ role: 'user', content: spec.prompt ?? '' }])].map(turnOf);
  checkResults(turns);
  const speaksOfTools = tools.length > 0 || turns.some(({ role, calls }) => role === 'tool' || calls !== undefined);
  const known = template === null || !speaksOfTools ? null : toolsOf(template.forTools, tokenizer);
  const text = template === null ? (spec.prompt ?? '') : rendered(spec, turns, tools, template, known, tokenizer);
  const ids = encoded(text, template === null, tokenizer, context);
  if (ids.length === 0) throw new EngineError('ERR_OPTION', 'prompt must have at least one token; got none.');
  return { ids, end: endOf(text), syntax: known === null || tools.length === 0 ? null : known.syntax.name };
}

/** How the calls of a spec's chains are known; null: it offers no functions. */
export function callRulesOf({ tools = [], tool_choice: choice, parallel_tool_calls: parallel = true }: JobSpec, { syntax }: Pick<Prompt, 'syntax'>): CallRules | null {
  if (syntax === null) return null;
  const offered = typeof choice === 'object' ? [choice.name] : tools.map((tool) => tool.function.name);
  return { syntax: syntaxNamed(syntax), offered: new Set(offered), most: parallel ? LIMITS.TOOLS_MAX : 1 };
}

/** Text as a tokenizer takes it by itself: with what it puts before every text. */
function rawPrompt(prompt: string | readonly number[], tokenizer: Tokenizer, vocabSize: number, context: number): Prompt {
  if (typeof prompt === 'string') return { ids: encoded(prompt, true, tokenizer, context), end: endOf(prompt), syntax: null };
  const strange = prompt.find((id) => id >= vocabSize);
  if (strange !== undefined) throw new EngineError('ERR_OPTION', `raw_prompt must have token ids below ${vocabSize}; got ${strange}.`);
  return { ids: prompt, end: endOf(tokenizer.decode(prompt, { skipSpecial: false })), syntax: null };
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

/** A result answers a call that was made before it; of whom it is may be left out. */
function checkResults(turns: readonly Turn[]): void {
  const made = new Set<string>();
  for (const [i, { role, calls = [], tool_call_id: answered }] of turns.entries()) {
    for (const { id } of calls) made.add(id);
    if (role !== 'tool' || answered === undefined || made.has(answered)) continue;
    throw new EngineError('ERR_OPTION', `messages.${i}.tool_call_id must be that of a call in an earlier turn; got ${JSON.stringify(answered.slice(0, 64))}.`);
  }
}

function rendered(spec: JobSpec, turns: readonly Turn[], tools: readonly Tool[], template: ChatTemplate, known: TemplateTools | null, { bosToken, eosToken }: Tokenizer): string {
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

function turnOf({ tool_calls: made = [], ...turn }: NonNullable<JobSpec['messages']>[number]): Turn {
  if (made.length === 0) return turn;
  const calls = made.map(({ id, function: { name, arguments: given } }) => ({ id: id ?? '', name, arguments: typeof given === 'string' ? given : JSON.stringify(given) }));
  return { ...turn, calls };
}
