/** s3-transport.ts by fetch: on workerd, and in the bundles of functions wherever they run. */
import type { S3ClientConfig } from '@aws-sdk/client-s3';

import { OddAnswer } from './s3-errors.ts';

/** The SDK's own, by fetch; every attempt has a signal with a deadline. */
export function requestHandler(): NonNullable<S3ClientConfig['requestHandler']> {
  return {};
}

export async function readExactly(body: unknown, bytes: number, signal: AbortSignal, into?: Uint8Array): Promise<Uint8Array> {
  if (!(body instanceof ReadableStream)) throw new OddAnswer('no body');
  const reader = (body as ReadableStream<Uint8Array>).getReader();
  const abort = () => void reader.cancel().catch(() => undefined);
  signal.addEventListener('abort', abort, { once: true });
  try {
    const chunk = into === undefined || into.byteLength < bytes ? new Uint8Array(bytes) : into.subarray(0, bytes);
    let at = 0;
    for (;;) {
      const { done, value } = await reader.read();
      signal.throwIfAborted();
      if (done) break;
      if (at + value.byteLength > bytes) throw new OddAnswer('more bytes than announced');
      chunk.set(value, at);
      at += value.byteLength;
    }
    if (at < bytes) throw new OddAnswer(`${at} of ${bytes} bytes`);
    return chunk;
  } finally {
    signal.removeEventListener('abort', abort);
    reader.cancel().catch(() => undefined);
  }
}

/** What is left of it is not wanted. One that is being read is its reader's. */
export function discard(body: unknown): void {
  if (body instanceof ReadableStream && !body.locked) body.cancel().catch(() => undefined);
}
