/** Writing to S3: one conditional attempt, or unconditional until the deadline, in parts when large. */
import {
  AbortMultipartUploadCommand, CompleteMultipartUploadCommand, CreateMultipartUploadCommand, HeadObjectCommand, PutObjectCommand, UploadPartCommand, type S3Client,
} from '@aws-sdk/client-s3';

import type { Body, CallOptions, Condition, PutOutcome } from '../ports/object-store.ts';
import { bytesOf, sliceOf } from './body.ts';
import { attemptOnce, insist, unexpected, type S3Calls } from './s3-calls.ts';
import { OddAnswer, verdictOn } from './s3-errors.ts';
import { hexOf, randomBytes } from '../core/bytes.ts';
import { inParallel, pause, throwIfCancelled } from '../core/waiting.ts';
import { PART_BYTES } from './s3-get.ts';

/** Above this a body goes in parts, so that a lost connection costs one of them. */
export const SINGLE_BYTES_MAX = 64 << 20;
/** S3's bound. */
const PARTS_MAX = 10_000;
const PARTS_AT_ONCE = 4;
/** What is larger is not hashed for its signature, which would cost as much as all else that is done to it here. */
const HASHED_BYTES_MAX = 64 << 10;
/** Metadata by which a multipart upload knows its own object again. */
const MARK = 'ruminate-upload';

/** The signature of a large body is over its CRC32 and not over itself: the store checks that one, and readers check digests of their own. */
export function leaveLargeBodiesUnhashed(client: S3Client): void {
  client.middlewareStack.add((next) => async (args) => {
    const { body, headers } = args.request as { readonly body?: unknown; readonly headers: Record<string, string> };
    if (body instanceof Uint8Array && body.byteLength > HASHED_BYTES_MAX) headers['x-amz-content-sha256'] = 'UNSIGNED-PAYLOAD';
    return await next(args);
  }, { step: 'build', name: 'leaveLargeBodiesUnhashed' });
}

export async function putObject(calls: S3Calls, key: string, body: Body, { signal }: CallOptions): Promise<PutOutcome> {
  try {
    if (bytesOf(body) > SINGLE_BYTES_MAX) return await putParts(calls, key, body, signal);
    return await insist(calls, { bytes: bytesOf(body), signal }, (abortSignal) => putWhole(calls, key, body, null, abortSignal));
  } catch (error) {
    throw unexpected(calls, error);
  }
}

/** Sent once. No answer, or one that does not say whether the object was written: `unknown`. */
export async function putConditionally(calls: S3Calls, key: string, body: Body, condition: Condition, { signal }: CallOptions): Promise<PutOutcome> {
  try {
    return await attemptOnce(calls, { bytes: bytesOf(body), signal }, (abortSignal) => putWhole(calls, key, body, condition, abortSignal));
  } catch (error) {
    throwIfCancelled(signal);
    const verdict = verdictOn(error, calls.url);
    // 404: If-Match of an object that is gone.
    if (verdict.kind === 'refused' || verdict.kind === 'absent') return { kind: 'refused' };
    if (verdict.kind === 'wrong') throw verdict.error;
    return { kind: 'unknown', cause: error };
  }
}

async function putWhole(calls: S3Calls, key: string, body: Body, condition: Condition | null, abortSignal: AbortSignal): Promise<PutOutcome> {
  const bytes = bytesOf(body);
  const command = new PutObjectCommand({
    Bucket: calls.bucket,
    Key: calls.keyOf(key),
    Body: sliceOf(body, 0, bytes),
    ContentLength: bytes,
    ...(condition?.kind === 'if_absent' ? { IfNoneMatch: '*' } : {}),
    ...(condition?.kind === 'if_match' ? { IfMatch: condition.etag } : {}),
  });
  const { ETag: etag } = await calls.client.send(command, { abortSignal });
  if (etag === undefined) throw new OddAnswer('PUT without an etag');
  return { kind: 'written', etag };
}

async function putParts(calls: S3Calls, key: string, body: Body, signal: AbortSignal | undefined): Promise<PutOutcome> {
  const target = { Bucket: calls.bucket, Key: calls.keyOf(key) };
  const mark = hexOf(randomBytes(16));
  const uploadId = await insist(calls, { signal }, async (abortSignal) => {
    const { UploadId } = await calls.client.send(new CreateMultipartUploadCommand({ ...target, ChecksumAlgorithm: 'CRC32', Metadata: { [MARK]: mark } }), { abortSignal });
    if (UploadId === undefined) throw new OddAnswer('an upload without an id');
    return UploadId;
  });
  const upload = { ...target, UploadId: uploadId };
  const bytes = bytesOf(body);
  const partBytes = Math.max(PART_BYTES, Math.ceil(bytes / PARTS_MAX));
  try {
    const parts = await inParallel(Math.ceil(bytes / partBytes), PARTS_AT_ONCE, signal, (i, either) => {
      const piece = sliceOf(body, i * partBytes, Math.min((i + 1) * partBytes, bytes));
      const PartNumber = i + 1;
      return insist(calls, { bytes: piece.byteLength, signal: either }, async (abortSignal) => {
        const command = new UploadPartCommand({ ...upload, PartNumber, Body: piece, ContentLength: piece.byteLength });
        const { ETag, ChecksumCRC32 } = await calls.client.send(command, { abortSignal });
        if (ETag === undefined) throw new OddAnswer('a part without an etag');
        return { PartNumber, ETag, ...(ChecksumCRC32 === undefined ? {} : { ChecksumCRC32 }) };
      });
    });
    return await insist(calls, { signal }, async (abortSignal) => {
      const { ETag } = await calls.client.send(new CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts: [...parts] } }), { abortSignal });
      if (ETag === undefined) throw new OddAnswer('a completed upload without an etag');
      return { kind: 'written' as const, etag: ETag };
    });
  } catch (error) {
    const done = verdictOn(error, calls.url).kind === 'no_upload' ? await completedBefore(calls, key, mark, signal) : null;
    if (done !== null) return done;
    await abortUpload(calls, upload);
    throw error;
  }
}

/** An upload that is not known any more was completed by an attempt whose answer was lost, if the object bears its mark. */
async function completedBefore(calls: S3Calls, key: string, mark: string, signal: AbortSignal | undefined): Promise<PutOutcome | null> {
  const head = new HeadObjectCommand({ Bucket: calls.bucket, Key: calls.keyOf(key) });
  const found = await insist(calls, { signal }, (abortSignal) => calls.client.send(head, { abortSignal })).catch(() => null);
  return found?.Metadata?.[MARK] === mark && found.ETag !== undefined ? { kind: 'written', etag: found.ETag } : null;
}

/** Parts on their way when an upload is aborted may be kept all the same, and the upload with them: it is aborted until the store knows it no more. */
const ABORTS_MAX = 4;
const ABORT_PAUSE_MS = 200;

/** Parts that nobody completes are paid for until someone aborts them. The caller's signal may have aborted; the deadline holds. */
async function abortUpload(calls: S3Calls, upload: { readonly Bucket: string; readonly Key: string; readonly UploadId: string }): Promise<void> {
  for (let tries = 0; tries < ABORTS_MAX; tries++) {
    if (tries > 0) await pause(calls.clock, ABORT_PAUSE_MS, undefined);
    // Also if it cannot be aborted now.
    const isOver = await insist(calls, {}, (abortSignal) => calls.client.send(new AbortMultipartUploadCommand(upload), { abortSignal })).then(() => false, () => true);
    if (isOver) return;
  }
}
