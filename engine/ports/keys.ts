/**
 * Who keeps the key that wraps data keys: the only secret that outlives a job. Every adapter passes the one contract suite of
 * test/contract/key-provider.ts.
 *
 * What every adapter promises:
 * - What was wrapped can be unwrapped with the same key and the same context and with nothing else: another key, another tenant, job or
 *   origin, a byte more, less or different is ERR_KEY, never another data key.
 * - Wrapping one data key twice gives different bytes; neither they nor the context need be kept secret.
 * - A wrapped key has at most WRAPPED_KEY_BYTES_MAX bytes, and holds no data key but the one.
 * - Nothing that was wrapped can be unwrapped once every copy of the wrapped bytes is gone: a provider keeps none.
 * - No error and no id holds a byte of a key, wrapped or not.
 * - Calls are tried again with backoff and full jitter until a deadline.
 * @throws EngineError ERR_KEY (missing, wrong, denied, disabled; says what to do), ERR_STORE (no answer in time), ERR_CANCELLED.
 */
import type { CallOptions } from './object-store.ts';

export interface KeyProvider {
  /** Which key, for messages: `file:3f9a60c1d2e4b785`, `kms:alias/ruminate`. */
  readonly id: string;

  /** `dataKey`: DATA_KEY_BYTES bytes, not kept. */
  wrap(dataKey: Uint8Array, context: KeyContext, options?: CallOptions): Promise<Uint8Array>;
  /** The caller's to overwrite with zeros. */
  unwrap(wrapped: Uint8Array, context: KeyContext, options?: CallOptions): Promise<Uint8Array>;
}

/** What a wrapped key is bound to: the job whose manifest carries it, and the job whose objects it was made for (an ancestor, or the same). */
export interface KeyContext {
  readonly tenant: string;
  readonly job: string;
  readonly origin: string;
}

/** AES-256. */
export const DATA_KEY_BYTES = 32;
/** KMS's bound on a ciphertext is 6,144; one of a data key has under 300. As base64 it fits LIMITS.WRAPPED_KEY_CHARS_MAX. */
export const WRAPPED_KEY_BYTES_MAX = 3_072;
