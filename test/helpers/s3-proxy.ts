/** What lies between a client and its store: an HTTP proxy that a test tells how to misbehave. Signatures stay valid: the Host is passed on. */
import { once } from 'node:events';
import { createServer, request, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

import { GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';

import type { S3Peer } from './s3-peer.ts';

/**
 * - `pass`.
 * - `drop_reply`: the store has done it, the client hears nothing: the connection is reset.
 * - `cut_body`: of the reply only the first `bytes` come, then the connection is reset; with `politely` its length is changed to fit.
 * - `answer`: the store is never asked.
 * - `hang`: nothing is ever answered.
 * - `whole_body`: a ranged GET is answered with 200 and the whole object.
 * - `damage`: one bit of the request's body is another when it arrives.
 * - `no_conditions`: a PUT is done without its If-Match or If-None-Match.
 */
export type Misdeed =
  | { readonly kind: 'pass' | 'drop_reply' | 'hang' | 'whole_body' | 'damage' | 'no_conditions' }
  | { readonly kind: 'cut_body'; readonly bytes: number; readonly politely: boolean }
  | { readonly kind: 'answer'; readonly status: number; readonly code: string };

export interface Seen {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly conditional: boolean;
}

export interface S3Proxy extends AsyncDisposable {
  readonly endpoint: string;
  readonly seen: readonly Seen[];
  /** Asked for every request. */
  misdeed: (request: Seen) => Misdeed;
}

export async function startProxy(peer: S3Peer): Promise<S3Proxy> {
  const seen: Seen[] = [];
  const upstream = new URL(peer.endpoint);
  const proxy = { misdeed: (_: Seen): Misdeed => ({ kind: 'pass' }) };

  const server = createServer((incoming, outgoing) => {
    const { method = '', url = '', headers } = incoming;
    const one = { method, url, conditional: headers['if-match'] !== undefined || headers['if-none-match'] !== undefined };
    seen.push(one);
    serve(proxy.misdeed(one), incoming, outgoing).catch(() => outgoing.destroy());
  });

  async function serve(misdeed: Misdeed, incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    if (misdeed.kind === 'hang') return;
    const body = Buffer.concat(await incoming.toArray() as Buffer[]);
    if (misdeed.kind === 'damage') body[body.byteLength >> 1]! ^= 1;
    if (misdeed.kind === 'answer') return void outgoing.writeHead(misdeed.status, { 'content-type': 'application/xml' }).end(`<Error><Code>${misdeed.code}</Code><Message>as told</Message></Error>`);
    const key = decodeURIComponent(new URL(incoming.url ?? '', upstream).pathname.slice(peer.bucket.length + 2));
    if (misdeed.kind === 'no_conditions' && incoming.method === 'PUT') {
      const { ETag = '' } = await peer.client.send(new PutObjectCommand({ Bucket: peer.bucket, Key: key, Body: body }));
      return void outgoing.writeHead(200, { etag: ETag }).end();
    }
    if (misdeed.kind === 'whole_body') {
      const { Body, ETag = '' } = await peer.client.send(new GetObjectCommand({ Bucket: peer.bucket, Key: key }));
      return void outgoing.writeHead(200, { etag: ETag }).end(await Body?.transformToByteArray());
    }
    const { host, port } = { host: upstream.hostname, port: upstream.port };
    const onward = request({ host, port, method: incoming.method, path: incoming.url, headers: incoming.headers });
    // A store that resets the connection after its reply, too.
    onward.on('error', () => outgoing.destroy());
    onward.end(body);
    const [reply] = (await once(onward, 'response')) as [IncomingMessage];
    const replyBody = Buffer.concat(await reply.toArray() as Buffer[]);
    if (misdeed.kind === 'drop_reply') return void outgoing.destroy();
    if (misdeed.kind !== 'cut_body') return void outgoing.writeHead(reply.statusCode ?? 0, reply.headers).end(replyBody);
    const start = replyBody.subarray(0, misdeed.bytes);
    if (misdeed.politely) return void outgoing.writeHead(reply.statusCode ?? 0, { ...reply.headers, 'content-length': String(start.byteLength) }).end(start);
    outgoing.writeHead(reply.statusCode ?? 0, reply.headers).write(start, () => outgoing.destroy());
  }

  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return Object.assign(proxy, {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  });
}
