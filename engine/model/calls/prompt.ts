/**
 * What a chat template knows of tools, found by asking it: it is shown a call of a function that nobody has, and what it makes of it says which
 * syntax its model writes, and in which form it wants calls. What it does not show at all is told in words of ours.
 */
import { EngineError } from '../../core/errors.ts';
import { sha256 } from '../../kv/canonical.ts';
import type { ChatTemplate, Message, TemplateVariables } from '../template.ts';
import { deepseek } from './deepseek.ts';
import { hermes } from './hermes.ts';
import { llama } from './llama.ts';
import { mistral, mistralArgs } from './mistral.ts';
import { type Call, type CallSyntax, type Tool, writeCalls } from './syntax.ts';

type Tokens = Pick<TemplateVariables, 'bosToken' | 'eosToken'>;

export interface TemplateTools {
  readonly syntax: CallSyntax;
  /** What it shows of the three; the others are told in words of ours. */
  readonly shows: { readonly tools: boolean; readonly calls: boolean; readonly results: boolean };
  readonly turnForm: TurnForm;
}

/** How a template wants a turn that calls: some read the arguments as an object, some as text; some compare the content with none. */
interface TurnForm {
  readonly content: null | '';
  readonly arguments: 'object' | 'text';
}

const TURN_FORMS: readonly TurnForm[] = [
  { content: null, arguments: 'object' },
  { content: '', arguments: 'object' },
  { content: null, arguments: 'text' },
  { content: '', arguments: 'text' },
];

const NAME = 'probe_of_tools';
const RESULT = 'result_of_probe';
/** Nine letters and digits: the only identifiers that Mistral's templates take. */
const ID = 'callprobe';
const PROBE: Tool = { type: 'function', function: { name: NAME, description: 'A probe.', parameters: { type: 'object', properties: { x: { type: 'integer' } } } } };
const USER: Message = { role: 'user', content: 'A question.' };
const CALL: Call = { name: NAME, arguments: '{"x": 1}' };
const RESULT_TURN: Message = { role: 'tool', content: RESULT, name: NAME, tool_call_id: ID };

/** What the call of the probe is in each syntax, white space aside. */
const WRITTEN: readonly (readonly [CallSyntax, string])[] = [
  [hermes, `<tool_call>{"name":"${NAME}","arguments":{"x":1}}</tool_call>`],
  [mistral, `[TOOL_CALLS][{"name":"${NAME}","arguments":{"x":1}`],
  [mistralArgs, `[TOOL_CALLS]${NAME}[ARGS]{"x":1}`],
  [mistralArgs, `[TOOL_CALLS]${NAME}[CALL_ID]${ID}[ARGS]{"x":1}`],
  [deepseek, `function<｜tool▁sep｜>${NAME}\`\`\`json{"x":1}\`\`\``],
  [deepseek, `<｜tool▁call▁begin｜>${NAME}<｜tool▁sep｜>{"x":1}`],
  [llama, `{"name":"${NAME}","parameters":{"x":1}}`],
];

/** @param name of one. */
export function syntaxNamed(name: CallSyntax['name']): CallSyntax {
  return WRITTEN.find(([syntax]) => syntax.name === name)?.[0] ?? hermes;
}

const known = new WeakMap<ChatTemplate, TemplateTools>();

/** @throws EngineError ERR_TOOLS: it shows tools, but a call as nothing that is known here. */
export function toolsOf(template: ChatTemplate, tokens: Tokens): TemplateTools {
  const before = known.get(template);
  if (before !== undefined) return before;
  const found = ask(template, tokens);
  known.set(template, found);
  return found;
}

function ask(template: ChatTemplate, { bosToken, eosToken }: Tokens): TemplateTools {
  const render = (messages: readonly Message[], tools?: readonly Tool[]) =>
    attempt(template, { messages, tools, addGenerationPrompt: true, bosToken, eosToken, date: '2024-07-26' });
  const tools = render([USER], [PROBE])?.includes(NAME) === true;
  // Some templates know how to go on after a call only where its result follows.
  for (const after of [[RESULT_TURN], []]) {
    for (const turnForm of TURN_FORMS) {
      const turns = [USER, turnOf({ role: 'assistant', content: '' }, [{ ...CALL, id: ID }], turnForm)];
      const text = render([...turns, ...after], [PROBE]);
      // As Python writes a content that is not there.
      const syntax = text === null || (turnForm.content === null && text.includes('None')) ? undefined : writtenAs(text);
      if (text === null || syntax === undefined) continue;
      return { syntax, turnForm, shows: { tools, calls: true, results: text.includes(RESULT) } };
    }
  }
  if (tools) {
    throw new EngineError('ERR_TOOLS', 'The chat template of this model shows tools, but writes calls in a way that is not known here; known are those of Hermes and Qwen, Llama 3, Mistral and DeepSeek.');
  }
  return { syntax: hermes, turnForm: { content: '', arguments: 'object' }, shows: { tools: false, calls: false, results: false } };
}

function writtenAs(text: string): CallSyntax | undefined {
  const bare = text.replace(/\s/g, '');
  return WRITTEN.find(([, written]) => bare.includes(written))?.[0];
}

function attempt(template: ChatTemplate, variables: TemplateVariables): string | null {
  try {
    return template.render(variables);
  } catch (error) {
    if (error instanceof EngineError && error.code === 'ERR_TEMPLATE') return null;
    throw error;
  }
}

/** A call in an earlier turn, and its name for who answers it. */
export interface MadeCall extends Call {
  readonly id: string;
}

/** A turn as it is asked for: `calls` instead of whatever a template may want to have. */
export interface Turn extends Omit<Message, 'tool_calls' | 'content'> {
  readonly content: string;
  readonly calls?: readonly MadeCall[] | undefined;
}

/**
 * The turns as the template shows them. What it does not show is put in words: tools into the system turn, calls into their turn as the model
 * would write them, results into a turn of the user.
 */
export function conversationOf(turns: readonly Turn[], tools: readonly Tool[], { syntax, shows, turnForm }: TemplateTools): { readonly messages: readonly Message[]; readonly tools: readonly Tool[] | undefined } {
  const messages: Message[] = [];
  const names = new Map(turns.flatMap(({ calls = [] }) => calls.map(({ id, name }) => [id, name] as const)));
  const idOf = syntax === mistral || syntax === mistralArgs ? nineOf : (id: string) => id;
  for (const [i, { calls = [], ...turn }] of turns.entries()) {
    if (turn.role === 'tool' && !shows.results) {
      const before = turns[i - 1]?.role === 'tool' ? `${messages.pop()?.content ?? ''}\n` : '';
      messages.push({ role: 'user', content: `${before}<tool_response>\n${turn.content}\n</tool_response>` });
    } else if (turn.role === 'tool') {
      const id = turn.tool_call_id;
      messages.push({ ...turn, name: turn.name ?? names.get(id ?? ''), tool_call_id: id === undefined ? undefined : idOf(id) });
    } else if (calls.length === 0) {
      messages.push(turn);
    } else if (shows.calls) {
      messages.push(turnOf(turn, calls.map((call) => ({ ...call, id: idOf(call.id) })), turnForm));
    } else {
      messages.push({ ...turn, content: [turn.content, writeCalls(syntax, calls)].filter((text) => text !== '').join('\n') });
    }
  }
  if (tools.length === 0 || shows.tools) return { messages, tools: tools.length === 0 ? undefined : tools.map(shown) };
  const [first, ...rest] = messages;
  const told = toldOf(tools, syntax);
  return {
    messages: first?.role === 'system' ? [{ ...first, content: `${first.content ?? ''}\n\n${told}` }, ...rest] : [{ role: 'system', content: told }, ...messages],
    tools: undefined,
  };
}

/** With all that templates expect to find, and without `strict`, which is for us: no model was trained to read it. */
function shown({ type, function: { name, description = '', parameters = { type: 'object', properties: {} } } }: Tool): Tool {
  return { type, function: { name, description, parameters } };
}

/** In the words that Hermes and Qwen are trained with, which other models see most often, too. */
function toldOf(tools: readonly Tool[], syntax: CallSyntax): string {
  const example = writeCalls(syntax, [{ name: '<function-name>', arguments: '<args-json-object>' }]).replace('"<function-name>"', '<function-name>');
  return [
    '# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:',
    `<tools>\n${tools.map((tool) => JSON.stringify(shown(tool))).join('\n')}\n</tools>\n`,
    `For each function call, return the function name and a JSON object of its arguments as follows:\n${example}`,
  ].join('\n');
}

/** The same nine letters and digits for the same identifier. */
function nineOf(id: string): string {
  return /^[A-Za-z0-9]{9}$/.test(id) ? id : sha256(id).slice(0, 9);
}

function turnOf({ content, ...turn }: Turn, calls: readonly MadeCall[], turnForm: TurnForm): Message {
  return {
    ...turn,
    content: content === '' ? turnForm.content : content,
    tool_calls: calls.map(({ id, name, arguments: json }) => ({ id, type: 'function', function: { name, arguments: turnForm.arguments === 'text' ? json : objectOf(json) } })),
  };
}

/** What is no JSON object is handed on as the text that it is: a model is shown what it wrote. */
function objectOf(json: string): unknown {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : json;
  } catch {
    return json;
  }
}
