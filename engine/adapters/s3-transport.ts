/**
 * How S3 is spoken to over Node's own HTTP. Where there is no Node, s3-transport.web.ts stands in its place (`browser` in package.json, as the
 * SDK's own parts are replaced).
 */
import { Writable, type Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

import type { S3ClientConfig } from '@aws-sdk/client-s3';

import { OddAnswer } from './s3-errors.ts';

const CONNECT_MS = 5_000;
/** Without a byte for so long a connection is dead. */
const IDLE_MS = 15_000;
const SOCKETS_MAX = 64;

export function requestHandler(): NonNullable<S3ClientConfig['requestHandler']> {
  const agent = { keepAlive: true, maxSockets: SOCKETS_MAX };
  return { connectionTimeout: CONNECT_MS, socketTimeout: IDLE_MS, httpAgent: agent, httpsAgent: agent };
}

/** Into one buffer a part, `into` if it has room: a list of socket reads would be 256 of them. By events, not by `for await`, which takes half as long again. */
export async function readExactly(body: unknown, bytes: number, signal: AbortSignal, into?: Uint8Array): Promise<Uint8Array> {
  if (body === undefined) throw new OddAnswer('no body');
  const chunk = into === undefined || into.byteLength < bytes ? Buffer.allocUnsafeSlow(bytes) : into.subarray(0, bytes);
  let at = 0;
  const sink = new Writable({
    // Above one socket read, or every one of them would pause the socket.
    highWaterMark: 1 << 20,
    write(piece: Uint8Array, _, done) {
      if (at + piece.byteLength > bytes) return done(new OddAnswer('more bytes than announced'));
      chunk.set(piece, at);
      at += piece.byteLength;
      done();
    },
  });
  // The SDK has answered and no longer listens to the signal.
  await pipeline(body as Readable, sink, { signal });
  if (at < bytes) throw new OddAnswer(`${at} of ${bytes} bytes`);
  return chunk;
}

/** What is left of it is not wanted. */
export function discard(body: unknown): void {
  (body as Readable | undefined)?.destroy();
}
