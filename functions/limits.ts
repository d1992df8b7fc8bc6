/** Every bound of the HTTP edge, with its reason. Bounds of what a job may be are the engine's (engine/core/limits.ts). */
export const HTTP_LIMITS = {
  /** A prompt of PROMPT_BYTES_MAX with half of it escaped; also what a Lambda function may be sent. */
  BODY_BYTES_MAX: 6 << 20,
  /** A body that trickles in holds a connection: the whole of it within this. */
  BODY_MS_MAX: 30_000,
  /** Beside the bytes of an uploaded file: its form. */
  FORM_BYTES_MAX: 64 << 10,
  /** Parts of a form: the file, its purpose, and room for what is refused by name. */
  FORM_PARTS_MAX: 8,
  /** A whole file over a slow line: 16 MiB at 1 Mbit/s. */
  UPLOAD_MS_MAX: 150_000,
  /** Of an Idempotency-Key: a UUID has 36. */
  IDEMPOTENCY_KEY_CHARS_MAX: 255,
  /** Of a client's own x-request-id. */
  REQUEST_ID_CHARS_MAX: 128,
  /** An answer that is not streamed: what OpenAI's clients wait for. The job goes on. */
  FOREGROUND_MS: 600_000,
  /** Below the idle timeout of common proxies: 30 s and up. */
  KEEP_ALIVE_MS: 15_000,
  /** Between two pictures of chains that are not shown token by token. */
  PROGRESS_MS: 500,
  /** Making a job is a few writes of the store, each with a deadline of its own. */
  SUBMIT_MS: 30_000,
  /** What no client waits for may take: the cancelling of a job whose client has gone. */
  CLEAN_UP_MS: 10_000,
  /** Jobs that wait longer than this say that more would only wait: new ones are sent away. */
  QUEUE_AGE_MS: 60_000,
  /** When to come again after that. */
  SHED_RETRY_S: 10,
  /** When to ask again for a job while there are as many as there may be: one of them may end at any moment. */
  JOBS_RETRY_S: 5,
  /** Prompts of one completion: each is a job that is made, and followed, before the answer begins. */
  PROMPTS_MAX: 32,
  /** Earlier responses whose items one request names: each is read whole. */
  REFERENCES_MAX: 64,
  LIST_MAX: 100,
  LIST_DEFAULT: 20,
  /** Of one address (of version 6: of one /64), each with a key that nobody has: far more than a person mistypes. */
  BAD_KEYS_A_MINUTE: 60,
  /** Objects and lists in each other: JSON schemas of tools have under 20. */
  JSON_DEPTH_MAX: 64,
  /** Of one object: each that is refused costs more than one that is taken, and no schema of a tool has so many properties. */
  OBJECT_FIELDS_MAX: 2_048,
  /** From this on a body is decoded, counted, parsed and checked in turns of their own. */
  BODY_TURNS_BYTES: 16 << 10,
  /** Keys whose rates are remembered by an instance; the one not seen for longest is forgotten. */
  KEYS_MAX: 10_000,
} as const;
