/** The wire that chaos runs put between a process and a server breaks what it is told to, and nothing else. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { afterEach, expect, test } from 'vitest';

import { Wire } from '../../scripts/chaos/wire.ts';

let server: Server;
afterEach(() => server.close());

/** What comes back for one piece, until the connection is over. */
async function said(by: (server: Server) => void): Promise<string> {
  server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  by(server);
  await using wire = await Wire.to({ port: (server.address() as AddressInfo).port, delayMs: () => 20 });
  const socket = connect(Number(new URL(wire.endpoint).port), '127.0.0.1');
  let text = '';
  socket.on('data', (piece: Buffer) => { text += piece.toString(); });
  socket.write('question');
  await once(socket, 'close').catch(() => undefined);
  return text;
}

test('what a server said before it hung up arrives, however long it was held up', async () => {
  expect(await said((from) => from.once('connection', (socket) => socket.once('data', () => socket.end('answer'))))).toBe('answer');
});

test('a server that breaks off is heard of', async () => {
  expect(await said((from) => from.once('connection', (socket) => socket.once('data', () => socket.resetAndDestroy())))).toBe('');
});
