/** Reading from S3: ranged GETs side by side, because one connection carries about 90 MB/s; all of one version of the object. */
import { GetObjectCommand, HeadObjectCommand } from '@aws-sdk/client-s3';

import { EngineError } from '../core/errors.ts';
import type { CallOptions, GetOptions, ObjectInfo, StoredBody } from '../ports/object-store.ts';
import { wantedOf } from './body.ts';
import { insist, unexpected, type S3Calls } from './s3-calls.ts';
import { OddAnswer, verdictOn } from './s3-errors.ts';
import { discard, readExactly } from './s3-transport.ts';
import { inParallel } from '../core/waiting.ts';

/** AWS advises 8 to 16 MiB. */
export const PART_BYTES = 16 << 20;
const PARTS_AT_ONCE = 8;
/** The object was overwritten between two of its ranges, so often in a row. */
const CHANGED_MAX = 5;

/** The answer to a ranged GET whose body is still on its way. */
interface OpenRange {
  /** A stream of the SDK's, of Node or of the web. */
  readonly body: unknown;
  readonly bytes: number;
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
async function getVersion(calls: S3Calls, key: string, options: GetOptions, tries = 0): Promise<StoredBody | null> {
  const { range, bytesMax, into, signal } = options;
  const offset = range?.offset ?? 0;
  const firstBytes = Math.min(PART_BYTES, range?.bytes ?? PART_BYTES, bytesMax);
  if (firstBytes === 0) return await nothingOf(calls, key, options, tries);
  let first: OpenRange;
  try {
    first = await insist(calls, { signal }, (abortSignal) => openRange(calls, key, { offset, bytes: firstBytes, etag: null }, abortSignal));
  } catch (error) {
    // No byte at that offset: the object is empty or ends before it.
    if (verdictOn(error, calls.url).kind === 'range') return await nothingOf(calls, key, options, tries);
    throw error;
  }
  try {
    const { bytes } = wantedOf(first.size, options, key);
    // Its header has said which version and how much: the other ranges need not wait for its body.
    const chunks = await inParallel(1 + Math.ceil((bytes - first.bytes) / PART_BYTES), PARTS_AT_ONCE, signal, async (i, either) => {
      const from = i === 0 ? 0 : first.bytes + (i - 1) * PART_BYTES;
      const wanted = { offset: offset + from, bytes: i === 0 ? first.bytes : Math.min(PART_BYTES, bytes - from), etag: first.etag };
      let open = i === 0 ? first : null;
      return await insist(calls, { bytes: wanted.bytes, signal: either }, async (abortSignal) => {
        const answer = open ?? (await openRange(calls, key, wanted, abortSignal));
        open = null;
        return await readExactly(answer.body, answer.bytes, abortSignal, bytes === first.bytes ? into : undefined);
      });
    });
    return { chunks, bytes, etag: first.etag };
  } finally {
    discard(first.body);
  }
}

async function nothingOf(calls: S3Calls, key: string, options: GetOptions, tries: number): Promise<StoredBody | null> {
  const info = await headObject(calls, key, options);
  if (info === null) return null;
  const { bytes } = wantedOf(info.bytes, options, key);
  // Written meanwhile, unless it goes on.
  if (bytes > 0 && tries < CHANGED_MAX) return await getVersion(calls, key, options, tries + 1);
  if (bytes > 0) throw new EngineError('ERR_STORE', `${calls.url}: ${key} has bytes where the store said that there are none.`);
  return { chunks: [], bytes: 0, etag: info.etag };
}

interface WantedRange {
  readonly offset: number;
  readonly bytes: number;
  /** null: the first one, which says what the others must match. */
  readonly etag: string | null;
}

async function openRange(calls: S3Calls, key: string, { offset, bytes, etag }: WantedRange, abortSignal: AbortSignal): Promise<OpenRange> {
  const Range = `bytes=${offset}-${offset + bytes - 1}`;
  const command = new GetObjectCommand({ Bucket: calls.bucket, Key: calls.keyOf(key), Range, ...(etag === null ? {} : { IfMatch: etag }) });
  const answer = await calls.client.send(command, { abortSignal });
  const body: unknown = answer.Body;
  try {
    if (answer.ETag === undefined || (etag !== null && answer.ETag !== etag)) throw new OddAnswer('another etag than asked for');
    const [from, to, size] = contentRange(answer.ContentRange) ?? whole(answer.ContentLength);
    const expected = Math.min(bytes, size - offset);
    if (from !== offset || to - from + 1 !== expected) throw new OddAnswer(`bytes ${from} to ${to} of ${size} where ${bytes} from ${offset} were asked for`);
    return { body, bytes: expected, etag: answer.ETag, size };
  } catch (error) {
    discard(body);
    throw error;
  }
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
