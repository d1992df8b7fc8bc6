/** What a job's text must look like, as one grammar over all that a chain writes, thinking included. Pure; constraint.ts makes chains keep it. */
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { CallForm } from '../model/calls/syntax.ts';
import type { Thinking } from './answer.ts';
import { Rules, literal, textUntil } from './ebnf.ts';
import { addJsonRules } from './json-rules.ts';
import { schemaRule } from './schema-grammar.ts';
import type { JobSpec } from './spec.ts';

/** What a spec and its choice of tools ask for; absent: any text. */
export type OutputFormat = JsonFormat | ToolsFormat;

export type JsonFormat = { readonly kind: 'json_object' } | { readonly kind: 'json_schema'; readonly schema: unknown };

/** One call of one of these tools, or, with `parallel`, one or more; or what is asked for instead of a call. */
export interface ToolsFormat {
  readonly kind: 'tools';
  readonly tools: readonly { readonly name: string; /** A JSON Schema of an object; null: any arguments. */ readonly parameters: unknown; /** In the spec. */ readonly where: string }[];
  readonly parallel: boolean;
  /** null: there must be a call. */
  readonly instead: JsonFormat | null;
}

/** null: any text. */
export function formatOf({ format, tools = [], tool_choice: choice = 'auto', parallel_tool_calls: parallel = true }: Pick<JobSpec, 'format' | 'tools' | 'tool_choice' | 'parallel_tool_calls'>): OutputFormat | null {
  if (tools.length === 0 || choice === 'none' || (choice === 'auto' && format === undefined)) return format ?? null;
  const all = tools.map(({ function: { name, parameters } }, i) => ({ name, parameters: parameters ?? null, where: `tools.${i}.function.parameters` }));
  const chosen = all.filter(({ name }) => typeof choice === 'string' || name === choice.name);
  return { kind: 'tools', tools: chosen, parallel, instead: choice === 'auto' ? (format ?? null) : null };
}

export interface GrammarContext {
  readonly thinking: Thinking | null;
  /** Whether the prompt already ends inside the thinking. */
  readonly opened: boolean;
  /** null: the model writes no calls. */
  readonly calls: CallForm | null;
}

/**
 * The grammar in xgrammar's EBNF, with the rule `root`. What a chain thinks is free up to the closing delimiter, as splitThinking parts it.
 * @throws EngineError ERR_OPTION about `format`: a schema that cannot be kept, a tool that is not there.
 */
export function grammarOf(format: OutputFormat, { thinking, opened, calls }: GrammarContext): string {
  const rules = new Rules(() => new EngineError('ERR_OPTION', 'format must have a smaller schema: its grammar is too large.'));
  rules.set('root', '');
  addJsonRules(rules);
  const answer = rules.set('answer', answerRule(rules, format, calls));
  if (thinking === null) {
    rules.set('root', answer);
  } else {
    // Most begin their answer after an empty line.
    const until = textUntil(rules, thinking.close, rules.set('after_thinking', `${answer} | "\\n" ${answer} | "\\n\\n" ${answer}`));
    rules.set('root', opened ? until : `${answer} | ${literal(thinking.open)} ${until}`);
  }
  return rules.text();
}

/** What a spec may hold: its size, then the schemas, whatever model it is for. Some 10 ms at the most. @throws EngineError ERR_OPTION */
export function checkFormat(format: OutputFormat): void {
  if (format.kind === 'json_schema' && typeof format.schema === 'object' && format.schema !== null && checked.has(format.schema)) return;
  if (sizeOf(format) > LIMITS.SCHEMA_BYTES_MAX) throw new EngineError('ERR_OPTION', `format must have at most ${LIMITS.SCHEMA_BYTES_MAX} characters as JSON.`);
  const calls: CallForm = { start: '', end: '', separator: '', call: () => ['', ''] };
  grammarOf(format, { thinking: null, opened: false, calls });
  if (format.kind === 'json_schema' && typeof format.schema === 'object' && format.schema !== null) checked.add(format.schema);
}

/** Schemas that can be kept: on its way to a job each is looked at by several, and never changed. */
const checked = new WeakSet<object>();

/** Infinity: nested deeper than can be written. */
function sizeOf(format: OutputFormat): number {
  try {
    return JSON.stringify(format).length;
  } catch {
    return Infinity;
  }
}

function answerRule(rules: Rules, format: OutputFormat, calls: CallForm | null): string {
  switch (format.kind) {
    case 'json_object': return 'object';
    case 'json_schema': return schemaRule(rules, format.schema, 'format.schema');
    case 'tools': return format.instead === null ? callsRule(rules, format, calls) : `${callsRule(rules, format, calls)} | ${answerRule(rules, format.instead, calls)}`;
  }
}

function callsRule(rules: Rules, { tools, parallel }: ToolsFormat, calls: CallForm | null): string {
  if (calls === null) throw new EngineError('ERR_TOOLS', 'This model has no way to write calls.');
  const each = tools.map((tool) => {
    const [before, after] = calls.call(tool.name);
    const value = tool.parameters === null ? 'object' : schemaRule(rules, tool.parameters, tool.where);
    return `${literal(before)} ${value} ${literal(after)}`;
  });
  const call = rules.add('call', each.join(' | '));
  const end = literal(calls.end);
  if (!parallel) return rules.add('calls', `${literal(calls.start)} ${call} ${end}`);
  const more = rules.fresh('calls');
  rules.set(more, `${end} | ${literal(calls.separator)} ${call} ${more}`);
  return rules.add('calls', `${literal(calls.start)} ${call} ${more}`);
}
