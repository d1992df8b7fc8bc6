/**
 * Bytes of any length in a store, in pieces that fit in memory, sealed where jobs are sealed. A blob is there once a record names it:
 * pieces have a nonce in their names, so that two writers never write the same object, and what nobody names is garbage.
 *
 * Sealed: AES-256-GCM with a key of the blob's own, wrapped as a job's is; the nonce of a piece is its index, and it is authenticated
 * with the tenant, the blob's id, its index and whether it is the last, so that none can be moved, left out or cut off.
 */
import type { webcrypto } from 'node:crypto';

import { base64Of, bytesOfBase64, hexOf, joined, randomBytes, utf8Of } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { checkpointError } from '../kv/reason.ts';
import { DATA_KEY_BYTES, type KeyProvider } from '../ports/keys.ts';
import type { Body, CallOptions, ObjectStore } from '../ports/object-store.ts';

/** Where a blob is and to whom it belongs. */
export interface BlobPlace {
  readonly store: ObjectStore;
  /** null: stored in the clear. */
  readonly keys: KeyProvider | null;
  readonly tenant: string;
  /** Of whatever names the blob. */
  readonly id: string;
  /** Ends with `/`. */
  readonly prefix: string;
}

/** What a record keeps of a blob. */
export interface Blob {
  readonly bytes: number;
  /** 8 bytes as hex. */
  readonly nonce: string;
  /** Base64; null: stored in the clear. */
  readonly key: string | null;
}

type CryptoKey = webcrypto.CryptoKey;

const NONCE_BYTES = 8;
const IV_BYTES = 12;
const TAG_BYTES = 16;

/** @example const writer = await BlobWriter.open(place); await writer.add(bytes); const blob = await writer.close(); */
export class BlobWriter {
  readonly #place: BlobPlace;
  readonly #nonce = hexOf(randomBytes(NONCE_BYTES));
  readonly #key: CryptoKey | null;
  readonly #wrapped: string | null;
  readonly #signal: AbortSignal | undefined;
  #held: Uint8Array[] = [];
  #heldBytes = 0;
  #pieces = 0;
  #bytes = 0;

  private constructor(place: BlobPlace, key: CryptoKey | null, wrapped: string | null, signal: AbortSignal | undefined) {
    this.#place = place;
    this.#key = key;
    this.#wrapped = wrapped;
    this.#signal = signal;
  }

  /** @throws EngineError ERR_KEY, ERR_CANCELLED. */
  static async open(place: BlobPlace, { signal }: CallOptions = {}): Promise<BlobWriter> {
    if (place.keys === null) return new BlobWriter(place, null, null, signal);
    const dataKey = randomBytes(DATA_KEY_BYTES);
    try {
      const wrapped = await place.keys.wrap(dataKey, contextOf(place), { signal });
      return new BlobWriter(place, await importKey(dataKey), base64Of(wrapped), signal);
    } finally {
      dataKey.fill(0);
    }
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Keeps `chunk` until its piece is full. @throws EngineError ERR_STORE, ERR_CANCELLED. */
  async add(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.byteLength;) {
      // Not as soon as it is full: the last piece says that it is.
      if (this.#heldBytes === LIMITS.FILE_PIECE_BYTES) await this.#flush(false);
      const part = chunk.subarray(at, at + LIMITS.FILE_PIECE_BYTES - this.#heldBytes);
      this.#held.push(part);
      this.#heldBytes += part.byteLength;
      this.#bytes += part.byteLength;
      at += part.byteLength;
    }
  }

  async close(): Promise<Blob> {
    await this.#flush(true);
    return { bytes: this.#bytes, nonce: this.#nonce, key: this.#wrapped };
  }

  /** What was written is named by nobody. */
  async discard(): Promise<void> {
    await this.#place.store.delete(Array.from({ length: this.#pieces }, (_, i) => pieceKey(this.#place, this.#nonce, i)), { signal: this.#signal });
  }

  async #flush(isLast: boolean): Promise<void> {
    const index = this.#pieces++;
    const body = this.#key === null ? this.#held : [await seal(this.#key, whole(this.#held), this.#place, index, isLast)];
    const { store } = this.#place;
    const outcome = await store.put(pieceKey(this.#place, this.#nonce, index), body, { signal: this.#signal });
    if (outcome.kind !== 'written') throw new EngineError('ERR_STORE', `${store.url}: a piece of ${this.#place.id} was not written (${outcome.kind}).`);
    this.#held = [];
    this.#heldBytes = 0;
  }
}

/** In order, a piece at a time. @throws EngineError ERR_CHECKPOINT: a piece is missing or is not what was written; ERR_KEY; ERR_STORE; ERR_CANCELLED. */
export async function* readBlob(place: BlobPlace, blob: Blob, { signal }: CallOptions = {}): AsyncGenerator<Uint8Array> {
  const key = await openKey(place, blob, signal);
  const count = piecesOf(blob);
  for (let index = 0; index < count; index++) {
    const plain = index < count - 1 ? LIMITS.FILE_PIECE_BYTES : blob.bytes - index * LIMITS.FILE_PIECE_BYTES;
    const stored = await readPiece(place, blob, index, plain + (key === null ? 0 : TAG_BYTES), signal);
    yield key === null ? joined(stored) : await unseal(key, whole(stored), place, index, index === count - 1);
  }
}

function piecesOf({ bytes }: Blob): number {
  return Math.max(1, Math.ceil(bytes / LIMITS.FILE_PIECE_BYTES));
}

function pieceKey({ prefix }: BlobPlace, nonce: string, index: number): string {
  return `${prefix}${nonce}-${index}`;
}

async function readPiece(place: BlobPlace, { nonce }: Blob, index: number, bytes: number, signal: AbortSignal | undefined): Promise<Body> {
  // One byte more, to see a longer object without reading it.
  const found = await place.store.get(pieceKey(place, nonce, index), { range: { offset: 0, bytes: bytes + 1 }, bytesMax: bytes + 1, signal });
  if (found === null) throw checkpointError('missing', `there is no piece ${index} of ${place.id}`);
  if (found.bytes !== bytes) throw checkpointError(found.bytes < bytes ? 'truncated' : 'damaged', `piece ${index} of ${place.id} has another length than was written`);
  return found.chunks;
}

async function openKey(place: BlobPlace, { key }: Blob, signal: AbortSignal | undefined): Promise<CryptoKey | null> {
  const { keys, id } = place;
  if (keys === null) {
    if (key !== null) throw new EngineError('ERR_KEY', `${id} is encrypted: set RUMINATE_KEY to the key that it was sealed under.`);
    return null;
  }
  // Whoever can write to the store could else put plain bytes of his own in place of sealed ones.
  if (key === null) throw new EngineError('ERR_KEY', `${id} is not encrypted, but a key is set.`);
  const wrapped = bytesOfBase64(key);
  if (wrapped === null) throw checkpointError('damaged', `the key of ${id} is not base64`);
  const dataKey = await keys.unwrap(wrapped, contextOf(place), { signal });
  try {
    return await importKey(dataKey);
  } finally {
    dataKey.fill(0);
  }
}

function contextOf({ tenant, id }: BlobPlace): { readonly tenant: string; readonly job: string; readonly origin: string } {
  return { tenant, job: id, origin: id };
}

async function importKey(dataKey: Uint8Array): Promise<CryptoKey> {
  return await crypto.subtle.importKey('raw', Uint8Array.from(dataKey), 'AES-GCM', false, ['encrypt', 'decrypt']);
}

async function seal(key: CryptoKey, plain: Uint8Array<ArrayBuffer>, place: BlobPlace, index: number, isLast: boolean): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.encrypt(boundTo(place, index, isLast), key, plain));
}

async function unseal(key: CryptoKey, sealed: Uint8Array<ArrayBuffer>, place: BlobPlace, index: number, isLast: boolean): Promise<Uint8Array> {
  try {
    return new Uint8Array(await crypto.subtle.decrypt(boundTo(place, index, isLast), key, sealed));
  } catch (cause) {
    throw checkpointError('damaged', `piece ${index} of ${place.id} is not what was sealed`, cause);
  }
}

function boundTo({ tenant, id }: BlobPlace, index: number, isLast: boolean): webcrypto.AesGcmParams {
  const iv = new Uint8Array(IV_BYTES);
  new DataView(iv.buffer).setUint32(0, index);
  // Names hold no NUL.
  return { name: 'AES-GCM', iv, additionalData: utf8Of(`${tenant}\0${id}\0${index}\0${isLast ? 'last' : ''}`) };
}

/** A copy, which nobody else changes. */
function whole(body: Body): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(joined(body));
}
