/** Llama 3.1, 3.2 and 3.3: a turn that is JSON with `parameters` is a call; more of them after `;` or a new line. `<|python_tag|>` may come first. */
import { JsonCall } from './json-call.ts';
import type { CallSyntax } from './syntax.ts';

const TAG = '<|python_tag|>';

export const llama: CallSyntax = {
  name: 'llama',
  markers: [TAG],
  opens: [TAG],
  silent: [';'],
  bare: { first: true, next: true },
  reader: (isOffered) => new JsonCall(isOffered),
  form: { start: '', separator: '; ', end: '', call: (name) => [`{"name": "${name}", "parameters": `, '}'] },
};
