/** The engine's refusals in the caller's words: what a spec calls `length` came as `max_tokens`, or however the request called it. */
import { type Failure, HttpError, failureOf } from './errors.ts';
import { at } from './given.ts';

/** The engine's field: where a request may have it, and the first that it has is to blame. */
const PLACES: Readonly<Record<string, readonly string[]>> = {
  length: ['length', 'max_completion_tokens', 'max_tokens', 'max_output_tokens', 'hyperscale.length', 'budget.length', 'budget.lengths'],
  compression_ratio: ['hyperscale.compression_ratio', 'budget.compression_ratio'],
  'hyperscale.kv_read_budget': ['hyperscale.kv_read_budget', 'budget.kv_read_budget', 'kv_read_budget'],
  shards: ['hyperscale.shards', 'shards'],
  'sampling.logit_bias': ['logit_bias', 'sampling.logit_bias'],
  messages: ['messages', 'input', 'prompt', 'raw_prompt'],
  raw_prompt: ['raw_prompt', 'prompt'],
  format: ['response_format.json_schema.schema', 'text.format.schema', 'format', 'tools'],
};

/** @param error whatever was thrown. @param body of the request, as the client gave it; undefined: it had none. */
export function failureAsked(error: unknown, body: unknown): Failure {
  const failure = failureOf(error);
  // The edge names fields as they came.
  if (error instanceof HttpError) return failure;
  // A length that leaves no room is of the same code as a prompt that does.
  const field = failure.code === 'context_length_exceeded' && failure.message.startsWith('length ') ? 'length' : failure.param;
  const places = field !== null && Object.hasOwn(PLACES, field) ? PLACES[field] : undefined;
  // Items of an input are no messages yet, and are counted otherwise.
  if (field?.startsWith('messages.') === true && at(body, ['input']) !== undefined) return { ...failure, param: 'input' };
  const place = places?.find((name) => at(body, name.split('.')) !== undefined);
  if (field === null || place === undefined) return failure;
  return { ...failure, param: place, message: renamed(failure.message, field, place) };
}

/** A sentence begins with the field that it is about. */
export function renamed(message: string, field: string, name: string): string {
  return message.startsWith(`${field} `) ? name + message.slice(field.length) : message;
}
