/** @huggingface/jinja with a measure: a template comes from the model's files, and a few characters of Jinja can ask for any amount of work. */
import { Environment, Interpreter } from '@huggingface/jinja';
import { systemClock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';

/** The library's own declarations do not resolve under NodeNext; this is what we use of them. */
interface Value {
  readonly type: string;
  readonly value: unknown;
  __bool__(): { readonly value: boolean };
}
interface Scope {
  /** Declares a variable, and gives back what the interpreter makes of the value. */
  set(name: string, value: unknown): Value;
  readonly tests: ReadonlyMap<string, (...values: Value[]) => boolean>;
}
interface Node {
  readonly type: string;
  readonly [part: string]: unknown;
}
const Scope = Environment as unknown as new () => Scope;
const Base = Interpreter as unknown as new (scope: Scope) => { run(program: unknown): Value; evaluate(node: Node | undefined, scope: Scope): Value };

/**
 * Renders a parsed template with the variables and no others: nothing here knows the time or the machine.
 * @throws Error, in words, when the template refuses, is wrong, or is too much.
 */
export function render(program: unknown, variables: Readonly<Record<string, unknown>>): string {
  const scope = new Scope();
  for (const [name, value] of Object.entries({ ...globals, ...variables })) if (value !== undefined) scope.set(name, value);
  return String(new MeasuredInterpreter(scope).run(program).value);
}

const globals: Readonly<Record<string, unknown>> = {
  true: true, True: true, false: false, False: false, none: null, None: null,
  raise_exception: (message: unknown) => {
    throw new Error(String(message));
  },
  range: (...bounds: number[]) => {
    const [start = 0, stop = 0] = bounds.length < 2 ? [0, bounds[0]] : bounds;
    const step = bounds[2] ?? 1;
    if (![start, stop, step].every(Number.isSafeInteger) || step === 0) throw new Error('range() takes integers and a step that is not 0');
    const length = Math.max(0, Math.ceil((stop - start) / step));
    if (length > LIMITS.TEMPLATE_ITEMS_MAX) throw tooMuch('items', LIMITS.TEMPLATE_ITEMS_MAX);
    return Array.from({ length }, (_, i) => start + i * step);
  },
};

class MeasuredInterpreter extends Base {
  readonly #endsMs = systemClock.nowMs() + LIMITS.TEMPLATE_MS_MAX;
  #steps = 0;

  override evaluate(node: Node | undefined, scope: Scope): Value {
    if (++this.#steps > LIMITS.TEMPLATE_STEPS_MAX) throw tooMuch('steps', LIMITS.TEMPLATE_STEPS_MAX);
    // No step takes long by itself: looking at the clock is enough, and costs no thread as a watchdog would.
    if (this.#steps % STEPS_A_LOOK === 0 && systemClock.nowMs() > this.#endsMs) throw tooLate();
    const result = (node === undefined ? undefined : this.#asJinja(node, scope)) ?? super.evaluate(node, scope);
    const { value } = result;
    // Doubling is how a short template makes a long text: each step is looked at, so nothing grows past twice the bound.
    if (typeof value === 'string' && value.length > LIMITS.TEMPLATE_CHARS_MAX) throw tooMuch('characters', LIMITS.TEMPLATE_CHARS_MAX);
    if (Array.isArray(value) && value.length > LIMITS.TEMPLATE_ITEMS_MAX) throw tooMuch('items', LIMITS.TEMPLATE_ITEMS_MAX);
    return result;
  }

  /** As the library's, but what an expression gives is written as Python writes it: True, and None instead of nothing. */
  evaluateBlock(nodes: readonly Node[], scope: Scope): Value {
    let text = '';
    for (const node of nodes) {
      const value = this.evaluate(node, scope);
      if (value.type !== 'NullValue' || !STATEMENTS.has(node.type)) text += textOf(value);
      if (text.length > LIMITS.TEMPLATE_CHARS_MAX) throw tooMuch('characters', LIMITS.TEMPLATE_CHARS_MAX);
    }
    return valueOf(text);
  }

  /** What the library has not, or has as JavaScript means it: strip, trim, select, reject, and ~ of none and booleans. */
  #asJinja(node: Node, scope: Scope): Value | undefined {
    switch (node.type) {
      case 'CallExpression': {
        const callee = node.callee as Node;
        const method = callee.type === 'MemberExpression' && callee.computed === false ? (callee.property as Node).value : undefined;
        if (method !== 'strip' && method !== 'lstrip' && method !== 'rstrip') return undefined;
        const text = this.evaluate(callee.object as Node, scope);
        // Never handed on: the library would evaluate the operand again, and a chain of those doubles at every link.
        if (text.type !== 'StringValue') throw new Error(`${text.type} has no ${method}()`);
        return this.#strip(String(text.value), node.args as Node[], scope, method);
      }
      case 'FilterExpression': {
        const filter = node.filter as Node;
        const name = (filter.type === 'CallExpression' ? (filter.callee as Node) : filter).value;
        const args = filter.type === 'CallExpression' ? (filter.args as Node[]) : [];
        if (name === 'trim') return this.#strip(textOf(this.evaluate(node.operand as Node, scope)), args, scope, 'strip');
        if (name === 'select' || name === 'reject') return this.#select(this.evaluate(node.operand as Node, scope), args, scope, name === 'select');
        return undefined;
      }
      case 'BinaryExpression': {
        if ((node.operator as Node).value !== '~') return undefined;
        const sides = [this.evaluate(node.left as Node, scope), this.evaluate(node.right as Node, scope)];
        return valueOf(sides.map(textOf).join(''));
      }
    }
    return undefined;
  }

  #strip(value: string, args: readonly Node[], scope: Scope, method: 'strip' | 'lstrip' | 'rstrip'): Value {
    const given = args[0] === undefined ? null : this.evaluate(args[0], scope).value;
    const chars = typeof given === 'string' ? new Set(given) : null;
    const goes = (char: string | undefined) => char !== undefined && (chars === null ? SPACE.test(char) : chars.has(char));
    const text = Array.from(value);
    let from = 0;
    let to = text.length;
    if (method !== 'rstrip') while (from < to && goes(text[from])) from++;
    if (method !== 'lstrip') while (to > from && goes(text[to - 1])) to--;
    return valueOf(text.slice(from, to).join(''));
  }

  #select({ type, value }: Value, args: readonly Node[], scope: Scope, keep: boolean): Value {
    if (!Array.isArray(value)) throw new Error(`${type} is no list to choose from`);
    const [name, ...rest] = args.map((arg) => this.evaluate(arg, scope));
    const test = name === undefined ? (item: Value) => item.__bool__().value : scope.tests.get(String(name.value));
    if (test === undefined) throw new Error(`Unknown test: ${String(name?.value)}`);
    const list = valueOf([]);
    (list.value as Value[]).push(...(value as Value[]).filter((item) => test(item, ...rest) === keep));
    return list;
  }
}

const STEPS_A_LOOK = 16;
const STATEMENTS: ReadonlySet<string> = new Set(['Set', 'If', 'For', 'Macro', 'CallStatement', 'FilterStatement', 'Comment']);
/** Python's str.isspace. */
const SPACE = /[\p{White_Space}\x1c-\x1f]/u;
const valueOf = (value: unknown) => new Scope().set('value', value);

/** Python's str. */
function textOf(value: Value): string {
  if (value.type === 'NullValue') return 'None';
  if (value.type === 'UndefinedValue') return '';
  return value.type === 'BooleanValue' ? (value.value === true ? 'True' : 'False') : String(value);
}

export const tooLate = () => new EngineError('ERR_TEMPLATE', `The chat template is not done after ${LIMITS.TEMPLATE_MS_MAX / 1_000} s.`);
const tooMuch = (what: string, limit: number) => new Error(`it needs more than ${limit} ${what}`);
