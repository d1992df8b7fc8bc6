/**
 * Every error code of the engine, with one sentence each. A code is a promise to callers: it is never renamed.
 * `kind` says who can do something about it: the caller, the machine, or us.
 */
export const ERROR_CODES = {
  ERR_MODEL_NOT_FOUND: ['caller', 'No model of that name or at that path.'],
  ERR_MODEL_FILE: ['caller', 'A model file is missing, unreadable, truncated or inconsistent.'],
  ERR_MODEL_CONFIG: ['caller', 'config.json has a missing, unknown or absurd value.'],
  ERR_MODEL_TENSOR: ['caller', 'A tensor is missing or has the wrong shape or type.'],
  ERR_MODEL_WEIGHTS: ['caller', 'A weight is NaN or infinite.'],
  ERR_MODEL_CONFLICT: ['caller', 'Another model is stored under that name and revision already.'],
  ERR_MODEL_CACHE: ['machine', 'The model cache cannot be written, or has no room for the model.'],
  ERR_TOKENIZER: ['caller', 'The tokenizer is missing, unsupported or does not fit the embedding.'],
  ERR_TEMPLATE: ['caller', 'The chat template is missing or cannot be rendered.'],
  ERR_TOOLS: ['caller', 'The model has no known way to be told of tools or to call them.'],
  ERR_OPTION: ['caller', 'An option is out of range.'],
  ERR_PROMPT_TOO_LONG: ['caller', 'Prompt and length do not fit the context of the model.'],
  ERR_FORMAT: ['caller', 'The model cannot write in the format that the job asks for, or its grammar takes too long to make.'],
  ERR_BUDGET: ['caller', 'The budget cannot pay for a single token.'],
  ERR_MEMORY: ['machine', 'The job does not fit in the memory of this machine.'],
  ERR_OVERLOADED: ['machine', 'Too much is asked for at once; try again later.'],
  ERR_NATIVE_MISSING: ['machine', 'The native engine is not built for this machine.'],
  ERR_OUTPUT: ['machine', 'The result cannot be written.'],
  ERR_NUMERICS: ['machine', 'The model produced a logit that is not finite.'],
  ERR_STORE: ['machine', 'The object store failed or did not answer in time.'],
  ERR_STORE_CONFIG: ['caller', 'The object store is wrongly named, denies access or cannot do what a checkpoint needs.'],
  ERR_QUEUE: ['machine', 'The queue failed or did not answer in time.'],
  ERR_QUEUE_CONFIG: ['caller', 'The queue is wrongly named, denies access or cannot do what a worker needs.'],
  ERR_JOB_NOT_FOUND: ['caller', 'No job of that name in this store.'],
  ERR_WEBHOOK_NOT_FOUND: ['caller', 'No webhook or delivery of that name.'],
  ERR_RESULT_EXPIRED: ['caller', 'The result of the job was kept for as long as this platform keeps results, and is gone.'],
  ERR_JOB_CONFLICT: ['caller', 'The job exists with another spec, or is in a state that does not allow this.'],
  ERR_PARENT_ERASED: ['caller', 'The job that this one goes on from was erased before this one had begun.'],
  ERR_FILE_NOT_FOUND: ['caller', 'No file of that name.'],
  ERR_BATCH_NOT_FOUND: ['caller', 'No batch of that name.'],
  ERR_FENCED: ['caller', 'Another owner has taken the job; nothing more was written.'],
  ERR_CHECKPOINT: ['caller', 'A checkpoint is damaged or of another model, layout or numerics; the reason is named.'],
  ERR_KEY: ['caller', 'An encryption key is missing, wrong or denied.'],
  ERR_BUSY: ['bug', 'The handle is in use by another call.'],
  ERR_DISPOSED: ['bug', 'The handle was used after it was disposed.'],
  ERR_CANCELLED: ['caller', 'The call was cancelled.'],
  ERR_INTERNAL: ['bug', 'The engine broke one of its own rules.'],
} as const satisfies Record<string, readonly ['caller' | 'machine' | 'bug', string]>;

export type ErrorCode = keyof typeof ERROR_CODES;

/**
 * An expected failure: a stable `code` and one sentence that says what to do.
 * @example throw new EngineError('ERR_OPTION', 'length must be an integer from 1 to 1015; got 0.');
 */
export class EngineError extends Error {
  readonly code: ErrorCode;
  readonly kind: 'caller' | 'machine' | 'bug';
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'EngineError';
    this.code = code;
    this.kind = ERROR_CODES[code][0];
  }
}

/** undefined: it is none of the engine's. */
export function codeOf(error: unknown): ErrorCode | undefined {
  return error instanceof EngineError ? error.code : undefined;
}
