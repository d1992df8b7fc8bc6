/** Webhooks over Node's own HTTP client: the one thing that connects to addresses of somebody else's choosing. */
import { lookup } from 'node:dns/promises';
import http from 'node:http';
import https from 'node:https';
import { isIP, type LookupFunction } from 'node:net';

import { LIMITS } from '../core/limits.ts';
import { throwIfCancelled } from '../core/waiting.ts';
import type { CallOptions } from '../ports/object-store.ts';
import type { Outgoing, Reply, Sender, SendFault } from '../ports/sender.ts';
import { type AddressRules, isAllowed, literalOf } from '../webhook/address.ts';

export interface NodeSenderOptions extends AddressRules {
  /** Of one attempt, from the name to the end of the answer. */
  readonly timeoutMs?: number | undefined;
  /** Every address of a name. Default: the system's resolver. */
  readonly resolve?: ((host: string) => Promise<readonly string[]>) | undefined;
}

/** @example const sender = createNodeSender({ allowLoopback: false }); */
export function createNodeSender(options: NodeSenderOptions): Sender {
  const { timeoutMs = LIMITS.WEBHOOK_ATTEMPT_MS, resolve = resolveAll } = options;
  return {
    async send(message: Outgoing, { signal }: CallOptions = {}): Promise<Reply> {
      throwIfCancelled(signal);
      const stop = new AbortController();
      const abort = () => stop.abort();
      const timer = setTimeout(abort, timeoutMs);
      signal?.addEventListener('abort', abort, { once: true });
      try {
        const reply = await attempt(message, stop.signal, options, resolve);
        throwIfCancelled(signal);
        return reply;
      } finally {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
      }
    },
  };
}

async function attempt({ url: text, headers, body }: Outgoing, signal: AbortSignal, rules: AddressRules, resolve: (host: string) => Promise<readonly string[]>): Promise<Reply> {
  const url = new URL(text);
  const literal = literalOf(url);
  const addresses = literal === null ? await namesOf(url.hostname, resolve, signal) : [literal];
  if (typeof addresses === 'string') return failed(addresses);
  // All of them: a name that also resolves to an address inside is somebody's attempt.
  if (addresses.length === 0) return failed('host_not_found');
  if (!addresses.every((address) => isAllowed(url, address, rules))) return failed('address_refused');
  const { request: begin } = url.protocol === 'https:' ? https : http;
  return await new Promise<Reply>((settle) => {
    let reply: Reply | null = null;
    const request = begin(url, {
      method: 'POST',
      // Of its own: no connection to one tenant's receiver serves another's.
      agent: false,
      lookup: pinned(addresses),
      headers: { ...headers, 'content-length': Buffer.byteLength(body), connection: 'close' },
      signal,
    });
    request.once('error', (error: NodeJS.ErrnoException) => settle(reply ?? failed(signal.aborted ? 'timeout' : faultOf(error))));
    request.once('response', (response) => {
      const answered: Reply = { kind: 'answered', status: response.statusCode ?? 0 };
      reply = answered;
      let left = LIMITS.WEBHOOK_ANSWER_BYTES_MAX;
      const end = () => {
        settle(answered);
        request.destroy();
      };
      // Read, so that the receiver can finish what it writes, and thrown away. The status is known: what happens from here on changes nothing.
      response.on('data', (chunk: Buffer) => {
        left -= chunk.byteLength;
        if (left < 0) end();
      });
      for (const event of ['end', 'error', 'close']) response.once(event, end);
    });
    request.end(body);
  });
}

/** The name is resolved once, before; a second answer, which may be another, is never asked for. */
function pinned(addresses: readonly string[]): LookupFunction {
  const found = addresses.map((address) => ({ address, family: isIP(address) }));
  return (_host, options, callback) => {
    if (options.all === true) callback(null, found);
    else callback(null, found[0]?.address ?? '', found[0]?.family ?? 4);
  };
}

async function namesOf(host: string, resolve: (host: string) => Promise<readonly string[]>, signal: AbortSignal): Promise<readonly string[] | SendFault> {
  const late = new Promise<SendFault>((give) => signal.addEventListener('abort', () => give('timeout'), { once: true }));
  // A resolver cannot be stopped; its answer is thrown away.
  return await Promise.race([resolve(host).catch((): SendFault => 'host_not_found'), late]);
}

async function resolveAll(host: string): Promise<readonly string[]> {
  return (await lookup(host, { all: true, verbatim: true })).map(({ address }) => address);
}

function failed(why: SendFault): Reply {
  return { kind: 'failed', why };
}

function faultOf({ code = '' }: NodeJS.ErrnoException): SendFault {
  return /CERT|TLS|SSL|SELF_SIGNED|ISSUER|ALTNAME|EPROTO/.test(code) ? 'tls' : code === 'ETIMEDOUT' ? 'timeout' : 'connection';
}
