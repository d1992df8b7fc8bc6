/** Hermes 2 and 3, Qwen2.5, Qwen3, QwQ: each call as JSON within `<tool_call>`. */
import { JsonCall } from './json-call.ts';
import type { CallSyntax } from './syntax.ts';

const OPEN = '<tool_call>';
const CLOSE = '</tool_call>';

export const hermes: CallSyntax = {
  name: 'hermes',
  markers: [OPEN, CLOSE],
  opens: [OPEN],
  silent: [CLOSE],
  bare: { first: false, next: false },
  reader: (isOffered) => new JsonCall(isOffered),
  form: { start: '', separator: '\n', end: '', call: (name) => [`${OPEN}\n{"name": "${name}", "arguments": `, `}\n${CLOSE}`] },
};
