/** The API on Node's own HTTP server. */
import type { IncomingMessage, Server } from 'node:http';
import type { AddressInfo } from 'node:net';

import { createAdaptorServer } from '@hono/node-server';

import { EngineError } from '../engine/core/errors.ts';

export interface ListenOptions {
  readonly fetch: (request: Request, from: { readonly remote?: string | undefined }) => Response | Promise<Response>;
  readonly host: string;
  /** 0: any that is free. */
  readonly port: number;
  /** By which of a command's options it is chosen. Default: `--port`. */
  readonly option?: string | undefined;
  /** How many proxies of ours a request comes through, each of which adds whom it asks for to X-Forwarded-For. Default: none. */
  readonly proxies?: number | undefined;
  /** Before the first request comes. */
  readonly onServer?: ((server: Server) => void) | undefined;
}

export interface Listening {
  readonly url: string;
  /** Takes no new connections; requests that are being answered go on. */
  close(): void;
  /** Ends every answer, finished or not. */
  end(): Promise<void>;
}

/** @throws EngineError ERR_OPTION: the address cannot be listened on. */
export async function listen({ fetch, host, port, option = '--port', proxies = 0, onServer }: ListenOptions): Promise<Listening> {
  const server = createAdaptorServer({ fetch: (request, { incoming }) => fetch(request, { remote: remoteOf(incoming as IncomingMessage, proxies) }) }) as Server;
  onServer?.(server);
  await new Promise<void>((resolve, reject) => {
    const failed = (cause: NodeJS.ErrnoException) => reject(new EngineError('ERR_OPTION', `Cannot listen on ${host}:${port}: ${REASONS[cause.code ?? '']?.(option) ?? cause.message}.`, { cause }));
    server.once('error', failed);
    server.listen(port, host, () => {
      server.off('error', failed);
      resolve();
    });
  });
  const { address, family, port: bound } = server.address() as AddressInfo;
  const closed = new Promise<void>((resolve) => server.once('close', resolve));
  return {
    url: `http://${family === 'IPv6' ? `[${address}]` : address}:${bound}`,
    close: () => void server.close(),
    async end() {
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/** Entries further left than our own proxies' are whatever the client has written. */
function remoteOf({ headers, socket }: IncomingMessage, proxies: number): string | undefined {
  const forwarded = proxies === 0 ? [] : [headers['x-forwarded-for'] ?? []].flat().join(',').split(',').map((entry) => entry.trim()).filter((entry) => entry !== '');
  return [...forwarded, socket.remoteAddress].slice(-1 - proxies)[0];
}

const REASONS: Readonly<Record<string, (option: string) => string>> = {
  EADDRINUSE: (option) => `the port is in use; choose another with ${option}`,
  EACCES: (option) => `this user may not use the port; choose another with ${option}`,
  EADDRNOTAVAIL: () => 'the host is no address of this machine',
  ENOTFOUND: () => 'the host is not known',
};
