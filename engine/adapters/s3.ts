/**
 * `s3://bucket/prefix`: S3 and what speaks its protocol, through AWS's SDK. The SDK tries nothing again by itself: conditional writes are
 * sent once (KV.md 4), and everything else is tried again here, on an injected clock, where a deadline can be kept (s3-calls.ts).
 * Credentials and region come from AWS's standard chain.
 */
import { CopyObjectCommand, DeleteObjectsCommand, ListObjectsV2Command, S3Client } from '@aws-sdk/client-s3';

import { systemClock, type Clock } from '../core/clock.ts';
import type {
  Body, CallOptions, GetOptions, ListedObject, ObjectInfo, ObjectStore, PutOptions, PutOutcome, StoredBody,
} from '../ports/object-store.ts';
import { checkKey, checkPrefix } from './keys.ts';
import { probeConditions } from './probe.ts';
import { insist, unexpected, type S3Calls } from './s3-calls.ts';
import { OddAnswer, verdictOn } from './s3-errors.ts';
import { getObject, headObject } from './s3-get.ts';
import { leaveLargeBodiesUnhashed, putConditionally, putObject } from './s3-put.ts';
import { requestHandler } from './s3-transport.ts';

export interface S3StoreOptions {
  readonly bucket: string;
  /** '' or without a slash at its end; every key lies below it. */
  readonly prefix: string;
  /** null: AWS's own. */
  readonly endpoint: string | null;
  /** http://host/bucket/key instead of http://bucket.host/key. */
  readonly pathStyle: boolean;
  /** Default: AWS's standard chain. */
  readonly region?: string;
  /** Default: AWS's standard chain. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken?: string };
  readonly clock?: Clock;
  /** From 0 to below 1, for the jitter of the backoff. */
  readonly random?: () => number;
  /** For one call with all its attempts; bodies add a millisecond for every 1,000 bytes. */
  readonly deadlineMs?: number;
}

const DEADLINE_MS = 60_000;
/** S3's bound on one DeleteObjects. */
const DELETE_KEYS_MAX = 1_000;
const LOST_OBJECTS = new Set(['NoSuchKey', 'NotFound']);

export class S3Store implements ObjectStore {
  readonly url: string;
  readonly #calls: S3Calls;
  readonly #prefix: string;

  constructor(options: S3StoreOptions) {
    const { bucket, prefix, endpoint, pathStyle, region, credentials, clock = systemClock, random = Math.random, deadlineMs = DEADLINE_MS } = options;
    this.url = `s3://${bucket}${prefix === '' ? '' : `/${prefix}`}`;
    this.#prefix = prefix === '' ? '' : `${prefix}/`;
    const client = new S3Client({
      maxAttempts: 1,
      forcePathStyle: pathStyle,
      ...(endpoint === null ? {} : { endpoint }),
      ...(region === undefined ? {} : { region }),
      ...(credentials === undefined ? {} : { credentials }),
      requestChecksumCalculation: 'WHEN_SUPPORTED',
      // A checksum of the whole object says nothing about a range of it; what we store carries its own.
      responseChecksumValidation: 'WHEN_REQUIRED',
      requestHandler: requestHandler(),
    });
    leaveLargeBodiesUnhashed(client);
    this.#calls = { client, bucket, url: this.url, keyOf: (key) => this.#prefix + key, clock, random, deadlineMs };
  }

  async get(key: string, options: GetOptions): Promise<StoredBody | null> {
    checkKey(key);
    return await getObject(this.#calls, key, options);
  }

  async head(key: string, options: CallOptions = {}): Promise<ObjectInfo | null> {
    checkKey(key);
    return await headObject(this.#calls, key, options);
  }

  async put(key: string, body: Body, options: PutOptions = {}): Promise<PutOutcome> {
    checkKey(key);
    const { condition } = options;
    return condition === undefined ? await putObject(this.#calls, key, body, options) : await putConditionally(this.#calls, key, body, condition, options);
  }

  async copy(from: string, to: string, { signal }: CallOptions = {}): Promise<boolean> {
    checkKey(from);
    checkKey(to);
    const { client, bucket: Bucket, keyOf } = this.#calls;
    const source = `${Bucket}/${keyOf(from).split('/').map(encodeURIComponent).join('/')}`;
    try {
      await insist(this.#calls, { signal }, (abortSignal) => client.send(new CopyObjectCommand({ Bucket, Key: keyOf(to), CopySource: source }), { abortSignal }));
      return true;
    } catch (error) {
      if (verdictOn(error, this.url).kind === 'absent') return false;
      throw unexpected(this.#calls, error);
    }
  }

  async *list(prefix: string, { signal }: CallOptions = {}): AsyncIterable<ListedObject> {
    checkPrefix(prefix);
    const { client, bucket: Bucket, keyOf } = this.#calls;
    let token: string | undefined;
    try {
      do {
        const page = await insist(this.#calls, { signal }, async (abortSignal) => {
          const command = new ListObjectsV2Command({ Bucket, Prefix: keyOf(prefix), ...(token === undefined ? {} : { ContinuationToken: token }) });
          const answer = await client.send(command, { abortSignal });
          const next = answer.NextContinuationToken;
          if (answer.IsTruncated === true && (next === undefined || next === token)) throw new OddAnswer('a list that goes on without saying where');
          return answer;
        });
        for (const { Key, Size, LastModified } of page.Contents ?? []) {
          if (Key?.startsWith(this.#prefix) === true && Size !== undefined) yield { key: Key.slice(this.#prefix.length), bytes: Size, writtenAtMs: LastModified?.getTime() };
        }
        token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
      } while (token !== undefined);
    } catch (error) {
      throw unexpected(this.#calls, error);
    }
  }

  async delete(keys: readonly string[], { signal }: CallOptions = {}): Promise<void> {
    keys.forEach(checkKey);
    for (let at = 0; at < keys.length; at += DELETE_KEYS_MAX) {
      const batch = keys.slice(at, at + DELETE_KEYS_MAX);
      await insist(this.#calls, { signal }, (abortSignal) => this.#deleteBatch(batch, abortSignal)).catch((error: unknown) => {
        throw unexpected(this.#calls, error);
      });
    }
  }

  probe(options: CallOptions = {}): Promise<void> {
    return probeConditions(this, options);
  }

  async #deleteBatch(keys: readonly string[], abortSignal: AbortSignal): Promise<void> {
    const { client, bucket: Bucket, keyOf } = this.#calls;
    const objects = keys.map((key) => ({ Key: keyOf(key) }));
    const { Errors = [] } = await client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects: objects, Quiet: true } }), { abortSignal });
    const failure = Errors.find(({ Code }) => !LOST_OBJECTS.has(Code ?? ''));
    if (failure !== undefined) throw Object.assign(new OddAnswer(failure.Message ?? 'a delete failed'), { name: failure.Code ?? 'Unknown' });
  }
}
