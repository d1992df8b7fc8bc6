/** Reading from S3: ranged GETs side by side, because one connection carries about 90 MB/s; all of one version of the object. */
import type { Readable } from 'node:stream';

import { GetObjectCommand, HeadObjectCommand } from '@aws-sdk/client-s3';

import { EngineError } from '../core/errors.ts';
import type { CallOptions, GetOptions, ObjectInfo, StoredBody } from '../ports/object-store.ts';
import { tooLarge, wantedOf } from './body.ts';
import { insist, unexpected, type S3Calls } from './s3-calls.ts';
import { OddAnswer, verdictOn } from './s3-errors.ts';
import { inParallel } from '../core/waiting.ts';

/** AWS advises 8 to 16 MiB. */
export const PART_BYTES = 16 << 20;
const PARTS_AT_ONCE = 8;
/** The object was overwritten between two of its ranges, so often in a row. */
const CHANGED_MAX = 5;

interface Part {
  readonly chunk: Uint8Array;
  readonly etag: string;
  /** Of the whole object. */
  readonly size: number;
}

export async function getObject(calls: S3Calls, key: string, options: GetOptions): Promise<StoredBody | null> {
  for (let tries = 0; tries < CHANGED_MAX; tries++) {
    try {
      return await getVersion(calls, key, options);
    } catch (error) {
      const { kind } = verdictOn(error, calls.url);
      if (kind === 'absent') return null;
      if (kind !== 'refused') throw unexpected(calls, error);
    }
  }
  throw new EngineError('ERR_STORE', `${calls.url}: ${key} changed ${CHANGED_MAX} times while it was read.`);
}

export async function headObject(calls: S3Calls, key: string, { signal }: CallOptions): Promise<ObjectInfo | null> {
  try {
    return await insist(calls, { signal }, async (abortSignal) => {
      const { ContentLength: bytes, ETag: etag } = await calls.client.send(new HeadObjectCommand({ Bucket: calls.bucket, Key: calls.keyOf(key) }), { abortSignal });
      if (bytes === undefined || etag === undefined) throw new OddAnswer('HEAD without a length or an etag');
      return { bytes, etag };
    });
  } catch (error) {
    if (verdictOn(error, calls.url).kind === 'absent') return null;
    throw unexpected(calls, error);
  }
}

/** @throws a 412 of the SDK if the object changes meanwhile, a 404 if there is none. */
async function getVersion(calls: S3Calls, key: string, options: GetOptions): Promise<StoredBody | null> {
  const { range, bytesMax, signal } = options;
  const offset = range?.offset ?? 0;
  const firstBytes = Math.min(PART_BYTES, range?.bytes ?? PART_BYTES, bytesMax);
  if (firstBytes === 0) return await nothingOf(calls, key, options);
  let first: Part;
  try {
    first = await getPart(calls, key, { offset, bytes: firstBytes, etag: null, options, signal });
  } catch (error) {
    // No byte at that offset: the object is empty or ends before it.
    if (verdictOn(error, calls.url).kind === 'range') return await nothingOf(calls, key, options);
    throw error;
  }
  const { bytes } = wantedOf(first.size, options, key);
  const rest = Math.ceil((bytes - first.chunk.byteLength) / PART_BYTES);
  const others = await inParallel(rest, PARTS_AT_ONCE, signal, async (i, either) => {
    const from = first.chunk.byteLength + i * PART_BYTES;
    const part = await getPart(calls, key, { offset: offset + from, bytes: Math.min(PART_BYTES, bytes - from), etag: first.etag, options, signal: either });
    return part.chunk;
  });
  return { chunks: [first.chunk, ...others], bytes, etag: first.etag };
}

async function nothingOf(calls: S3Calls, key: string, options: GetOptions): Promise<StoredBody | null> {
  const info = await headObject(calls, key, options);
  if (info === null) return null;
  const { bytes } = wantedOf(info.bytes, options, key);
  if (bytes > 0) throw new EngineError('ERR_STORE', `${calls.url}: ${key} has bytes where the store said that there are none.`);
  return { chunks: [], bytes: 0, etag: info.etag };
}

interface PartRequest {
  readonly offset: number;
  readonly bytes: number;
  /** null: the first part, which says what the others must match. */
  readonly etag: string | null;
  readonly options: GetOptions;
  readonly signal: AbortSignal | undefined;
}

function getPart(calls: S3Calls, key: string, { offset, bytes, etag, options, signal }: PartRequest): Promise<Part> {
  return insist(calls, { bytes, signal }, async (abortSignal) => {
    const command = new GetObjectCommand({ Bucket: calls.bucket, Key: calls.keyOf(key), Range: `bytes=${offset}-${offset + bytes - 1}`, ...(etag === null ? {} : { IfMatch: etag }) });
    const answer = await calls.client.send(command, { abortSignal });
    const body = answer.Body as Readable | undefined;
    try {
      if (answer.ETag === undefined || (etag !== null && answer.ETag !== etag)) throw new OddAnswer('another etag than asked for');
      const [from, to, size] = contentRange(answer.ContentRange) ?? whole(answer.ContentLength);
      if (etag === null) refuseTooLarge(size, options, key);
      const expected = Math.min(bytes, size - offset);
      if (from !== offset || to - from + 1 !== expected) throw new OddAnswer(`bytes ${from} to ${to} of ${size} where ${bytes} from ${offset} were asked for`);
      return { chunk: await readExactly(body, expected, abortSignal), etag: answer.ETag, size };
    } finally {
      body?.destroy();
    }
  });
}

function refuseTooLarge(size: number, options: GetOptions, key: string): void {
  wantedOf(size, options, key);
  if (!Number.isSafeInteger(size)) throw tooLarge(key, size, options.bytesMax);
}

/** [first, last, size of the object]. */
function contentRange(header: string | undefined): readonly [number, number, number] | null {
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(header ?? '');
  return match === null ? null : [Number(match[1]), Number(match[2]), Number(match[3])];
}

/** 200 for 206: the store overlooked the range. Of an empty object that is as well. */
function whole(contentLength: number | undefined): readonly [number, number, number] {
  if (contentLength === 0) return [0, -1, 0];
  throw new OddAnswer('the whole object where a range was asked for');
}

/** Into one buffer a part: a list of socket reads would be 256 of them. */
async function readExactly(body: Readable | undefined, bytes: number, signal: AbortSignal): Promise<Uint8Array> {
  const chunk = Buffer.allocUnsafeSlow(bytes);
  if (body === undefined) throw new OddAnswer('no body');
  // The SDK has answered and no longer listens.
  const abort = () => body.destroy(new OddAnswer('the time for the body was up'));
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  let at = 0;
  try {
    for await (const piece of body as AsyncIterable<Uint8Array>) {
      if (at + piece.byteLength > bytes) throw new OddAnswer('more bytes than announced');
      chunk.set(piece, at);
      at += piece.byteLength;
    }
  } finally {
    signal.removeEventListener('abort', abort);
  }
  if (at < bytes) throw new OddAnswer(`${at} of ${bytes} bytes`);
  return chunk;
}
