/**
 * `kms:KEY`: the wrapping key stays within AWS KMS, and who may use it, for which tenant, is a matter of its policy
 * (`kms:EncryptionContext:tenant`). Credentials and region come from AWS's standard chain; the region of a key's ARN goes before it.
 */
import { DecryptCommand, EncryptCommand, KMSClient } from '@aws-sdk/client-kms';

import { assert } from '../core/assert.ts';
import { systemClock, type Clock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { DATA_KEY_BYTES, type KeyContext, type KeyProvider } from '../ports/keys.ts';
import type { CallOptions } from '../ports/object-store.ts';
import { describeKmsError, kmsRefusal } from './kms-errors.ts';
import { withRetries } from './retry.ts';

export interface KmsOptions {
  /** Key id, key ARN, `alias/…` or alias ARN. */
  readonly keyId: string;
  /** null: AWS's own. */
  readonly endpoint: string | null;
  /** Default: AWS's standard chain. */
  readonly region?: string;
  /** Default: AWS's standard chain. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken?: string };
  readonly clock?: Clock;
  /** From 0 to below 1, for the jitter of the backoff. */
  readonly random?: () => number;
  /** For one call with all its attempts. */
  readonly deadlineMs?: number;
}

/** A job waits for this before its first token; KMS answers in tens of milliseconds. */
const DEADLINE_MS = 30_000;
const ATTEMPT_MS = 5_000;
const CONNECT_MS = 2_000;

export class KmsKeys implements KeyProvider {
  readonly id: string;
  readonly #client: KMSClient;
  readonly #keyId: string;
  readonly #limits: { readonly clock: Clock; readonly random: () => number; readonly deadlineMs: number };

  constructor(options: KmsOptions) {
    const { keyId, endpoint, region, credentials, clock = systemClock, random = Math.random, deadlineMs = DEADLINE_MS } = options;
    this.id = `kms:${keyId}`;
    this.#keyId = keyId;
    this.#limits = { clock, random, deadlineMs };
    this.#client = new KMSClient({
      maxAttempts: 1,
      ...(endpoint === null ? {} : { endpoint }),
      ...(region === undefined ? {} : { region }),
      ...(credentials === undefined ? {} : { credentials }),
      requestHandler: { connectionTimeout: CONNECT_MS, socketTimeout: ATTEMPT_MS },
    });
  }

  async wrap(dataKey: Uint8Array, context: KeyContext, { signal }: CallOptions = {}): Promise<Uint8Array> {
    assert(dataKey.byteLength === DATA_KEY_BYTES, 'a data key has its length');
    return await this.#call(context, signal, async (abortSignal) => {
      const command = new EncryptCommand({ KeyId: this.#keyId, Plaintext: dataKey, EncryptionContext: boundTo(context) });
      return (await this.#client.send(command, { abortSignal })).CiphertextBlob;
    });
  }

  async unwrap(wrapped: Uint8Array, context: KeyContext, { signal }: CallOptions = {}): Promise<Uint8Array> {
    return await this.#call(context, signal, async (abortSignal) => {
      // The key is named: KMS would else decrypt what anyone wrapped under a key of his own.
      const command = new DecryptCommand({ KeyId: this.#keyId, CiphertextBlob: wrapped, EncryptionContext: boundTo(context) });
      return (await this.#client.send(command, { abortSignal })).Plaintext;
    });
  }

  /** Errors carry no cause: the SDK's hold what KMS answered, which may be a data key. */
  async #call({ job }: KeyContext, signal: AbortSignal | undefined, attempt: (signal: AbortSignal) => Promise<Uint8Array | undefined>): Promise<Uint8Array> {
    const answer = await withRetries(attempt, {
      ...this.#limits,
      attemptMs: ATTEMPT_MS,
      signal,
      final: (error) => kmsRefusal(error, this.id, job),
      late: (error, attempts) => new EngineError('ERR_STORE', `${this.id}: no answer that could be used in ${attempts} attempts; the last: ${describeKmsError(error)}.`),
    });
    if (answer === undefined) throw new EngineError('ERR_STORE', `${this.id}: an answer without a key.`);
    return answer;
  }
}

function boundTo({ tenant, job, origin }: KeyContext): Record<string, string> {
  return { tenant, job, origin };
}
