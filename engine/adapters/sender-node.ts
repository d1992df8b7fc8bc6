/** Webhooks over Node's own HTTP client: the one thing that connects to addresses of somebody else's choosing. */
import { Resolver } from 'node:dns/promises';
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
  /** Every address of a name; none: there is no such host. Default: DNS. */
  readonly resolve?: Resolve | undefined;
  /** `address:port` of each. Default: the system's. */
  readonly nameServers?: readonly string[] | undefined;
}

type Resolve = (host: string, signal: AbortSignal) => Promise<readonly string[]>;

/** @example const sender = createNodeSender({ allowLoopback: false }); */
export function createNodeSender(options: NodeSenderOptions): Sender {
  const { timeoutMs = LIMITS.WEBHOOK_ATTEMPT_MS, nameServers, resolve = (host, signal) => resolveAll(host, signal, nameServers) } = options;
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

async function attempt({ url: text, headers, body }: Outgoing, signal: AbortSignal, rules: AddressRules, resolve: Resolve): Promise<Reply> {
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

async function namesOf(host: string, resolve: Resolve, signal: AbortSignal): Promise<readonly string[] | SendFault> {
  const late = new Promise<SendFault>((give) => signal.addEventListener('abort', () => give('timeout'), { once: true }));
  const found = await Promise.race([resolve(host, signal).catch((): SendFault => 'host_not_found'), late]);
  // A resolver that was told to stop has found nothing.
  return signal.aborted ? 'timeout' : found;
}

const DNS = { timeout: 5_000, tries: 2 };

/**
 * Not the system's resolver (`lookup`): that holds one of the process's four threads, which files and keys need too, for as long as somebody's name
 * server takes.
 */
async function resolveAll(host: string, signal: AbortSignal, nameServers: readonly string[] | undefined): Promise<readonly string[]> {
  // In no name server.
  if (host === 'localhost') return ['127.0.0.1', '::1'];
  const resolver = new Resolver(DNS);
  if (nameServers !== undefined) resolver.setServers(nameServers);
  const stop = () => resolver.cancel();
  signal.addEventListener('abort', stop, { once: true });
  try {
    const found = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
    return found.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []));
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

function failed(why: SendFault): Reply {
  return { kind: 'failed', why };
}

function faultOf({ code = '' }: NodeJS.ErrnoException): SendFault {
  return /CERT|TLS|SSL|SELF_SIGNED|ISSUER|ALTNAME|EPROTO/.test(code) ? 'tls' : code === 'ETIMEDOUT' ? 'timeout' : 'connection';
}
