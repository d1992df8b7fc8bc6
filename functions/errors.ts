/**
 * The one table from error codes to what a client sees. `openai/errors.ts` and `problem.ts` give it the two forms. A failure of ours tells
 * a client its code and one fixed sentence: what happened is for the log.
 */
import { ERROR_CODES, type EngineError, type ErrorCode } from '../engine/core/errors.ts';
import { isUnreadable } from '../engine/kv/reason.ts';

export type ErrorType = 'invalid_request_error' | 'authentication_error' | 'permission_error' | 'rate_limit_error' | 'server_error';

/** What went wrong, for whichever form. */
export interface Failure {
  readonly status: number;
  /** `model_not_found`: OpenAI's word where it has one. A promise to clients, as engine codes are. */
  readonly code: string;
  readonly type: ErrorType;
  /** The field or header that is to blame. */
  readonly param: string | null;
  readonly message: string;
  /** Retry-After, Allow, x-should-retry. */
  readonly headers: Readonly<Record<string, string>>;
}

/** A refusal that the HTTP edge makes itself. */
export class HttpError extends Error implements Failure {
  readonly status: number;
  readonly code: string;
  readonly type: ErrorType;
  readonly param: string | null;
  readonly headers: Readonly<Record<string, string>>;
  constructor(code: HttpCode, message: string, options: { readonly param?: string | null; readonly headers?: Readonly<Record<string, string>> } = {}) {
    super(message);
    this.name = 'HttpError';
    [this.status, this.type] = HTTP_CODES[code];
    this.code = code;
    this.param = options.param ?? null;
    this.headers = options.headers ?? {};
  }
}

/** Codes of the edge: [status, type]. */
export const HTTP_CODES = {
  invalid_json: [400, 'invalid_request_error'],
  invalid_value: [400, 'invalid_request_error'],
  /** Known or not: a parameter that would be ignored is refused. */
  unsupported_parameter: [400, 'invalid_request_error'],
  invalid_api_key: [401, 'authentication_error'],
  insufficient_scope: [403, 'permission_error'],
  /** A page of another site asks in its visitor's name. */
  foreign_origin: [403, 'permission_error'],
  not_found: [404, 'invalid_request_error'],
  /** OpenAI's word. */
  previous_response_not_found: [404, 'invalid_request_error'],
  method_not_allowed: [405, 'invalid_request_error'],
  body_timeout: [408, 'invalid_request_error'],
  job_cancelled: [409, 'invalid_request_error'],
  not_ended: [409, 'invalid_request_error'],
  /** An Idempotency-Key or an id that stands for what was erased since. */
  erased: [410, 'invalid_request_error'],
  body_too_large: [413, 'invalid_request_error'],
  /** An Idempotency-Key or an id that stands for another request. */
  used_for_another: [422, 'invalid_request_error'],
  unsupported_media_type: [415, 'invalid_request_error'],
  rate_limit_exceeded: [429, 'rate_limit_error'],
  too_many_requests_at_once: [429, 'rate_limit_error'],
  /** That have not ended, of one tenant. */
  too_many_jobs: [429, 'rate_limit_error'],
  /** From one address: whoever guesses is slowed. */
  too_many_bad_keys: [429, 'rate_limit_error'],
  job_failed: [500, 'server_error'],
  internal_error: [500, 'server_error'],
  overloaded: [503, 'server_error'],
  draining: [503, 'server_error'],
  job_expired: [504, 'server_error'],
  still_running: [504, 'server_error'],
} as const satisfies Record<string, readonly [number, ErrorType]>;

export type HttpCode = keyof typeof HTTP_CODES;

/** [status, code, param]. From 500 on, and for MASKED, the message is the fixed sentence of the code. */
export const ENGINE_CODES: Readonly<Record<ErrorCode, readonly [number, string, string | null]>> = {
  ERR_MODEL_NOT_FOUND: [404, 'model_not_found', 'model'],
  ERR_MODEL_FILE: [500, 'model_broken', null],
  ERR_MODEL_CONFIG: [500, 'model_broken', null],
  ERR_MODEL_TENSOR: [500, 'model_broken', null],
  ERR_MODEL_WEIGHTS: [500, 'model_broken', null],
  ERR_MODEL_CONFLICT: [500, 'model_broken', null],
  ERR_MODEL_CACHE: [503, 'model_cache', null],
  ERR_TOKENIZER: [500, 'model_broken', null],
  ERR_TEMPLATE: [400, 'template_refused', 'messages'],
  ERR_TOOLS: [400, 'tools_unsupported', 'tools'],
  ERR_OPTION: [400, 'invalid_value', null],
  ERR_PROMPT_TOO_LONG: [400, 'context_length_exceeded', 'messages'],
  ERR_FORMAT: [400, 'format_refused', null],
  ERR_BUDGET: [400, 'budget_too_small', 'hyperscale.kv_read_budget'],
  // Not 503: the same job would be refused again, and clients retry those.
  ERR_MEMORY: [422, 'insufficient_memory', null],
  ERR_OVERLOADED: [503, 'overloaded', null],
  ERR_NATIVE_MISSING: [503, 'engine_missing', null],
  ERR_OUTPUT: [500, 'internal_error', null],
  ERR_NUMERICS: [500, 'numerics', null],
  ERR_STORE: [503, 'store_unavailable', null],
  ERR_STORE_CONFIG: [500, 'store_config', null],
  ERR_QUEUE: [503, 'queue_unavailable', null],
  ERR_QUEUE_CONFIG: [500, 'queue_config', null],
  ERR_JOB_NOT_FOUND: [404, 'job_not_found', null],
  ERR_FILE_NOT_FOUND: [404, 'file_not_found', null],
  ERR_BATCH_NOT_FOUND: [404, 'batch_not_found', null],
  ERR_WEBHOOK_NOT_FOUND: [404, 'webhook_not_found', null],
  ERR_RESULT_EXPIRED: [410, 'result_expired', null],
  ERR_PARENT_ERASED: [410, 'parent_erased', null],
  ERR_JOB_CONFLICT: [409, 'job_conflict', null],
  ERR_FENCED: [409, 'fenced', null],
  ERR_CHECKPOINT: [500, 'checkpoint_damaged', null],
  ERR_KEY: [500, 'key_unavailable', null],
  ERR_BUSY: [500, 'internal_error', null],
  ERR_DISPOSED: [500, 'internal_error', null],
  ERR_CANCELLED: [499, 'cancelled', null],
  ERR_INTERNAL: [500, 'internal_error', null],
};

/** All that a client may be told. */
export const CODES: readonly string[] = [...new Set([...Object.keys(HTTP_CODES), ...Object.values(ENGINE_CODES).map(([, code]) => code)])].sort();

/** From 500 on, and yet nothing that is wrong here and not told elsewhere: for now there is no more work, or of a job its worker has said why. */
const REFUSALS = ['overloaded', 'draining', 'job_failed', 'job_expired', 'still_running'];

/** Below 500, as asking again is of no use, and yet what somebody should look at who runs this server. */
const LOSSES = ['checkpoint_damaged'];

/** Whether somebody who runs this server should look at it. */
export function isFault({ status, code }: Failure): boolean {
  return LOSSES.includes(code) || (status >= 500 && !REFUSALS.includes(code));
}

/** Below 500, but with a message that may name this machine's folders or another's job. */
const MASKED: readonly ErrorCode[] = ['ERR_MODEL_NOT_FOUND', 'ERR_JOB_NOT_FOUND', 'ERR_FILE_NOT_FOUND', 'ERR_BATCH_NOT_FOUND', 'ERR_WEBHOOK_NOT_FOUND', 'ERR_FENCED', 'ERR_CANCELLED'];

/** Whatever was thrown, as a client may see it. */
export function failureOf(error: unknown): Failure {
  if (error instanceof HttpError) return error;
  if (!isEngineError(error)) {
    return { status: 500, code: 'internal_error', type: 'server_error', param: null, message: ERROR_SENTENCE.internal, headers: {} };
  }
  const [given, code, param] = ENGINE_CODES[error.code];
  // Not as it was written, and never again: what was asked for is gone.
  const status = isUnreadable(error) ? 410 : given;
  const masked = error.code === 'ERR_CHECKPOINT' || status >= 500 || MASKED.includes(error.code);
  return {
    status,
    code,
    type: status >= 500 ? 'server_error' : 'invalid_request_error',
    param: error.code === 'ERR_OPTION' ? fieldOf(error.message) : param,
    message: masked ? ERROR_CODES[error.code][1] : withoutGiven(error.message),
    headers: status === 503 ? { 'retry-after': '5' } : {},
  };
}

const ERROR_SENTENCE = { internal: 'The server failed; the request id says where to look.' } as const;

/** By shape: a bundle may hold the class twice. */
function isEngineError(error: unknown): error is EngineError {
  return error instanceof Error && error.name === 'EngineError' && Object.hasOwn(ENGINE_CODES, String((error as Partial<EngineError>).code));
}

/** The engine's sentences end with what was given, in quotes, for people at a terminal; it may be the start of somebody's prompt. */
function withoutGiven(message: string): string {
  return message.replace(/(?:[;,]? got|:) "(?:[^"\\]|\\.)*"(?: and "(?:[^"\\]|\\.)*")*/g, '');
}

/** The engine's sentences begin with the field: `budget.width must be …`, `sampling.top is not an option`. */
function fieldOf(message: string): string | null {
  return /^([a-z_]+(?:\.[a-z0-9_]+)*) (?:must|is not)/.exec(message)?.[1] ?? null;
}
