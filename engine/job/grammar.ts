/** What a job's text must look like, as one grammar over all that a chain writes, thinking included. Pure; constraint.ts makes chains keep it. */
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { Thinking } from './answer.ts';
import { Rules, literal, textUntil } from './ebnf.ts';
import { addJsonRules } from './json-rules.ts';
import { schemaRule } from './schema-grammar.ts';

/** What a spec or its choice of tools asks for; absent: any text. */
export type OutputFormat =
  | { readonly kind: 'json_object' }
  | { readonly kind: 'json_schema'; readonly schema: unknown }
  | ToolsFormat;

/** One call of one of these tools, or, with `parallel`, one or more. */
export interface ToolsFormat {
  readonly kind: 'tools';
  readonly tools: readonly { readonly name: string; /** A JSON Schema of an object; null: any arguments. */ readonly parameters: unknown }[];
  /** null: any of them. */
  readonly name: string | null;
  readonly parallel: boolean;
}

/** How a family of models writes calls: `start call (separator call)* end`, where a call is its arguments as JSON between two texts. */
export interface CallForm {
  readonly start: string;
  readonly end: string;
  readonly separator: string;
  /** @example (name) => [`<tool_call>\n{"name": "${name}", "arguments": `, '}\n</tool_call>'] */
  call(name: string): readonly [before: string, after: string];
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
  if (sizeOf(format) > LIMITS.SCHEMA_BYTES_MAX) throw new EngineError('ERR_OPTION', `format must have at most ${LIMITS.SCHEMA_BYTES_MAX} characters as JSON.`);
  const calls: CallForm = { start: '', end: '', separator: '', call: () => ['', ''] };
  grammarOf(format, { thinking: null, opened: false, calls });
}

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
    case 'tools': return callsRule(rules, format, calls);
  }
}

function callsRule(rules: Rules, { tools, name, parallel }: ToolsFormat, calls: CallForm | null): string {
  if (calls === null) throw new EngineError('ERR_OPTION', 'format must not ask for calls of tools: this model has no way to write them.');
  const chosen = tools.filter((tool) => name === null || tool.name === name);
  if (chosen.length === 0) throw new EngineError('ERR_OPTION', 'format.name must be the name of one of its tools.');
  const each = chosen.map((tool) => {
    const [before, after] = calls.call(tool.name);
    const value = tool.parameters === null ? 'object' : schemaRule(rules, tool.parameters, `format.tools.${tool.name}.parameters`);
    return `${literal(before)} ${value} ${literal(after)}`;
  });
  const call = rules.add('call', each.join(' | '));
  const end = literal(calls.end);
  if (!parallel) return rules.add('calls', `${literal(calls.start)} ${call} ${end}`);
  const more = rules.fresh('calls');
  rules.set(more, `${end} | ${literal(calls.separator)} ${call} ${more}`);
  return rules.add('calls', `${literal(calls.start)} ${call} ${more}`);
}
