/**
 * What spans and their attributes are called. Those of `gen_ai.` are in development and may change
 * (https://github.com/open-telemetry/semantic-conventions-genai): this is the one place that knows them.
 */
export const ATTRIBUTE = {
  METHOD: 'http.request.method',
  ROUTE: 'http.route',
  STATUS: 'http.response.status_code',
  MESSAGING_SYSTEM: 'messaging.system',
  MESSAGING_OPERATION: 'messaging.operation.type',
  MESSAGING_DESTINATION: 'messaging.destination.name',
  MESSAGE: 'messaging.message.id',
  GEN_AI_OPERATION: 'gen_ai.operation.name',
  GEN_AI_PROVIDER: 'gen_ai.provider.name',
  GEN_AI_MODEL: 'gen_ai.request.model',
  GEN_AI_INPUT_TOKENS: 'gen_ai.usage.input_tokens',
  GEN_AI_OUTPUT_TOKENS: 'gen_ai.usage.output_tokens',
  GEN_AI_FINISH_REASONS: 'gen_ai.response.finish_reasons',
  /** Ours, where there is no other word. */
  TENANT: 'ruminate.tenant',
  JOB: 'ruminate.job',
  SLICE: 'ruminate.slice',
  OUTCOME: 'ruminate.slice.outcome',
  BEGAN: 'ruminate.slice.began',
  RECOMPUTED: 'ruminate.slice.tokens_recomputed',
  STATE: 'ruminate.job.state',
  KV_READS: 'ruminate.kv_reads',
} as const;

export const SPAN = {
  SEND: 'send jobs',
  PROCESS: 'process jobs',
  LOAD: 'load model',
  PREFILL: 'restore and prefill',
  DECODE: 'decode',
} as const;

export const PROVIDER = 'ruminate';
/** Of what a model does here. */
export const OPERATION = 'chat';
export const DESTINATION = 'jobs';
