/** DeepSeek V3 and R1, and R1's distillations: the name bare, the arguments in a fenced block. */
import { NamedCall } from './named-call.ts';
import type { CallSyntax } from './syntax.ts';

const LIST = '<｜tool▁calls▁begin｜>';
const OPEN = '<｜tool▁call▁begin｜>';
const BREAK = '<｜tool▁sep｜>';
const CLOSE = '<｜tool▁call▁end｜>';
const END = '<｜tool▁calls▁end｜>';
const FENCE = '```';

/** `function` and the name, or (V3.1) the name alone. */
const BEFORE = /^(?:function<｜tool▁sep｜>)?([\w-]+)\s*(?:<｜tool▁sep｜>|```(?:json)?)?\s*$/;

export const deepseek: CallSyntax = {
  name: 'deepseek',
  markers: [LIST, OPEN, BREAK, CLOSE, END],
  opens: [LIST, OPEN],
  silent: [FENCE, CLOSE, END],
  bare: { first: false, next: false },
  reader: (isOffered) => new NamedCall(isOffered, BEFORE),
  form: { start: LIST, separator: '\n', end: END, call: (name) => [`${OPEN}function${BREAK}${name}\n${FENCE}json\n`, `\n${FENCE}${CLOSE}`] },
};
