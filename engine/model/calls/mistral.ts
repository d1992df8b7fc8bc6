/**
 * Mistral's two ways: until 2024 one list of JSON objects after `[TOOL_CALLS]`, since then each call after one of its own, its name bare and
 * its arguments after `[ARGS]`.
 */
import { JsonCall } from './json-call.ts';
import { NamedCall } from './named-call.ts';
import type { CallSyntax } from './syntax.ts';

const OPEN = '[TOOL_CALLS]';

export const mistral: CallSyntax = {
  name: 'mistral',
  markers: [OPEN],
  opens: [OPEN],
  silent: ['[', ',', ']'],
  bare: { first: false, next: true },
  reader: (isOffered) => new JsonCall(isOffered),
  form: { start: `${OPEN}[`, separator: ', ', end: ']', call: (name) => [`{"name": "${name}", "arguments": `, '}'] },
};

const ARGS = '[ARGS]';
const ID = '[CALL_ID]';

export const mistralArgs: CallSyntax = {
  name: 'mistral_args',
  markers: [OPEN, ID, ARGS],
  opens: [OPEN],
  silent: [],
  bare: { first: false, next: false },
  // The identifier that some write between the two is theirs: ours is a function of the job.
  reader: (isOffered) => new NamedCall(isOffered, /^([\w-]+)\s*(?:\[CALL_ID\]\w*)?\s*(?:\[ARGS\])?\s*$/),
  form: { start: '', separator: '', end: '', call: (name) => [`${OPEN}${name}${ARGS}`, ''] },
};
