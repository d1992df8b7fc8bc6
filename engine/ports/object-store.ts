/**
 * Where checkpoints and models live: a flat map from key to bytes with one conditional write. Every adapter passes the one contract
 * suite of test/contract/object-store.ts.
 *
 * What every adapter promises:
 * - A put is whole or not at all, and once it has answered `written`, every later read on any machine sees it (no stale reads).
 * - `if_match` and `if_absent` are decided by the store, atomically against every other writer. A store that cannot is refused by
 *   `probe`, before a job begins.
 * - Reads, lists, deletes and unconditional puts are tried again with backoff and full jitter until the deadline. A conditional put is
 *   sent once: whether one without an answer was applied is for the commit protocol to find out (KV.md 4), and an automatic second
 *   attempt would read its own success as a refusal.
 * - Every byte count is bounded by the caller before it is read; a body that is longer is ERR_STORE.
 * - A cancelled call throws ERR_CANCELLED, and what it was about to write may have been written, as with `unknown`.
 * - An etag names one version of one key and is never used again for another content; it means nothing to another store.
 * - Keys have letters, digits, `/` and `. _ = @ + ~ , -`; no part is empty, `.` or `..` (engine/adapters/keys.ts): else ERR_STORE_CONFIG.
 * @throws EngineError ERR_STORE (no answer in time, or an answer that makes no sense), ERR_STORE_CONFIG (denied, no bucket, unsuitable),
 * ERR_CANCELLED.
 */
export interface ObjectStore {
  /** For messages, such as `file:/var/kv` or `s3://bucket/prefix`; holds no secret. */
  readonly url: string;

  /** null: no such object. `range.bytes` may pass the end: what there is comes back. Refuses a body of more than `bytesMax` before reading it. */
  get(key: string, options: GetOptions): Promise<StoredBody | null>;
  /** null: no such object. */
  head(key: string, options?: CallOptions): Promise<ObjectInfo | null>;
  put(key: string, body: Body, options?: PutOptions): Promise<PutOutcome>;
  /** Within the store, so that bytes need not pass through here. false: no such source. */
  copy(from: string, to: string, options?: CallOptions): Promise<boolean>;
  /** Ascending by key; sees every object that was there before the first step and is there after the last. */
  list(prefix: string, options?: CallOptions): AsyncIterable<ListedObject>;
  /** Objects that are gone already are no error. */
  delete(keys: readonly string[], options?: CallOptions): Promise<void>;
  /** Writes and removes a small object under `probe/` to see that conditional writes are honoured. @throws ERR_STORE_CONFIG if not. */
  probe(options?: CallOptions): Promise<void>;
}

/** Chunks of one body, in order; whoever reads them never joins them. */
export type Body = readonly Uint8Array[];

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

export interface GetOptions extends CallOptions {
  /** `offset` at or past the end: an empty body. */
  readonly range?: { readonly offset: number; readonly bytes: number } | undefined;
  readonly bytesMax: number;
  /** Memory for a body that fits: the answer may be a view of it, or lie elsewhere. Once the call has ended, in whatever way, nothing is written there. */
  readonly into?: Uint8Array | undefined;
}

export interface PutOptions extends CallOptions {
  readonly condition?: Condition | undefined;
}

export type Condition = { readonly kind: 'if_absent' } | { readonly kind: 'if_match'; readonly etag: string };

/**
 * `refused`: the condition did not hold (412), or the store saw a conflict it could not decide (409); the object is not ours.
 * `unknown`: no answer came to a conditional put; it was applied, was not, or may be yet.
 */
export type PutOutcome =
  | { readonly kind: 'written'; readonly etag: string }
  | { readonly kind: 'refused' }
  | { readonly kind: 'unknown'; readonly cause: unknown };

export interface StoredBody {
  readonly chunks: Body;
  readonly bytes: number;
  /** Of the whole object, for `if_match`; ranges of one object are of one version only if their etags agree. */
  readonly etag: string;
}

export interface ObjectInfo {
  readonly bytes: number;
  readonly etag: string;
}

export interface ListedObject {
  readonly key: string;
  readonly bytes: number;
  /** Since 1970, by the store's clock, if it has one: for people; nothing is decided by it. */
  readonly writtenAtMs?: number | undefined;
}
