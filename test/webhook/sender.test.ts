/** Where webhooks may go, and that no receiver can do anything with the one who sends but answer. */
import { createSocket } from 'node:dgram';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { describe, expect, test, vi } from 'vitest';

import { createNodeSender } from '../../engine/adapters/sender-node.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import { isAllowed, parseTarget } from '../../engine/webhook/address.ts';
import { startReceiver } from '../helpers/receiver.ts';

const PUBLIC = { allowLoopback: false };
const DEVELOPMENT = { allowLoopback: true };
const message = (url: string) => ({ url, headers: { 'content-type': 'application/json', 'webhook-id': 'msg_1' }, body: '{"a":"é"}' });

describe('a target', () => {
  test.each([
    'https://127.0.0.1/', 'https://127.1/', 'https://2130706433/', 'https://0x7f000001/', 'https://0177.0.0.1/', 'https://0/', 'https://[::1]/', 'https://[::]/',
    'https://[::ffff:127.0.0.1]/', 'https://[::ffff:7f00:1]/', 'https://[::127.0.0.1]/', 'https://[::10.0.0.1]/', 'https://[::169.254.169.254]/', 'https://[::808:808]/', 'https://[4000::1]/', 'https://10.0.0.1/', 'https://172.16.0.1/', 'https://192.168.1.1/', 'https://169.254.169.254/latest/meta-data',
    'https://100.64.0.1/', 'https://[fd00:ec2::254]/', 'https://[fe80::1]/', 'https://[fec0::1]/', 'https://[64:ff9b::a00:1]/', 'https://[2002:a00:1::]/', 'https://224.0.0.1/', 'https://255.255.255.255/',
    'https://localhost/', 'https://LOCALHOST./x', 'https://api.localhost:8443/', 'https://printer.local/', 'https://metadata.google.internal/', 'https://nas.home.arpa/',
    'http://example.com/', 'ftp://example.com/', 'file:///etc/passwd', 'https://user@example.com/', 'https://:pass@example.com/', 'example.com', '', `https://example.com/${'x'.repeat(3_000)}`,
  ])('like %s is refused before anything is stored', (url) => {
    expect(() => parseTarget(url, PUBLIC)).toThrow(expect.objectContaining({ code: 'ERR_OPTION', message: expect.stringMatching(/^url must /) }));
  });

  test('of the public internet is taken; for development also this machine, and nothing else', () => {
    for (const url of ['https://example.com/hooks?a=b', 'https://8.8.8.8:8443/', 'https://[2001:4860:4860::8888]/', 'https://localhost.example.com/', 'https://notlocalhost/']) expect(parseTarget(url, PUBLIC).href).toBe(url);
    for (const url of ['http://127.0.0.1:8080/', 'http://[::1]/', 'http://localhost/', 'https://127.0.0.1/', 'http://host.docker.internal/']) parseTarget(url, DEVELOPMENT);
    for (const url of ['http://8.8.8.8/', 'http://10.0.0.1/', 'https://192.168.0.1/', 'http://169.254.169.254/']) expect(() => parseTarget(url, DEVELOPMENT)).toThrow();
    // Names are judged by what they resolve to, when they are asked.
    expect(isAllowed(new URL('http://localhost/'), '93.184.216.34', DEVELOPMENT)).toBe(false);
    expect(isAllowed(new URL('https://example.com/'), 'no address', PUBLIC)).toBe(false);
    expect(isAllowed(new URL('https://example.com/'), '::a9fe:a9fe', PUBLIC)).toBe(false);
    expect(isAllowed(new URL('https://example.com/'), '::ffff:8.8.8.8', PUBLIC)).toBe(true);
  });
});

describe('a sender', () => {
  test('carries headers and bytes to the receiver, and believes its status and nothing more', async () => {
    await using receiver = await startReceiver(202);
    const sender = createNodeSender(DEVELOPMENT);
    expect(await sender.send(message(`${receiver.url}/hooks?x=1`))).toEqual({ kind: 'answered', status: 202 });
    expect(receiver.received).toMatchObject([{ path: '/hooks?x=1', body: '{"a":"é"}', headers: { 'webhook-id': 'msg_1', 'content-type': 'application/json', 'content-length': '10' } }]);
    expect(await sender.send(message(`http://localhost:${receiver.port}/by-name`))).toEqual({ kind: 'answered', status: 202 });
    expect(receiver.received.pop()?.path).toBe('/by-name');
    receiver.answer = (response) => response.writeHead(302, { location: 'http://169.254.169.254/latest' }).end();
    expect(await sender.send(message(receiver.url))).toEqual({ kind: 'answered', status: 302 });
    expect(receiver.received).toHaveLength(2);
  });

  test('asks a name once, connects to what it was told then, and not at all if any of it is private', async () => {
    await using receiver = await startReceiver();
    const asked: string[] = [];
    const answers = [['127.0.0.1'], ['10.0.0.1']];
    const rebinding = createNodeSender({ ...DEVELOPMENT, resolve: async (host) => {
      asked.push(host);
      return answers.shift() ?? [];
    } });
    const url = `http://rebind.example:${receiver.port}/`;
    expect(await rebinding.send(message(url))).toEqual({ kind: 'answered', status: 204 });
    expect(asked).toEqual(['rebind.example']);
    expect(receiver.received[0]?.headers.host).toBe(`rebind.example:${receiver.port}`);
    expect(await rebinding.send(message(url))).toEqual({ kind: 'failed', why: 'address_refused' });
    const mixed = createNodeSender({ ...DEVELOPMENT, resolve: async () => ['127.0.0.1', '10.0.0.1'] });
    expect(await mixed.send(message(url))).toEqual({ kind: 'failed', why: 'address_refused' });
    const inside = createNodeSender({ ...PUBLIC, resolve: async () => ['::ffff:127.0.0.1'] });
    expect(await inside.send(message(`https://inside.example:${receiver.port}/`))).toEqual({ kind: 'failed', why: 'address_refused' });
    // A literal is never asked for, and a URL that was stored before a rule changed is refused too.
    expect(await createNodeSender(PUBLIC).send(message(receiver.url))).toEqual({ kind: 'failed', why: 'address_refused' });
    expect(receiver.received).toHaveLength(1);
  });

  test('waits for nobody: a receiver that hangs, that drips, or that never ends its answer', async () => {
    await using receiver = await startReceiver(() => undefined);
    const sender = createNodeSender({ ...DEVELOPMENT, timeoutMs: 300 });
    expect(await sender.send(message(receiver.url))).toEqual({ kind: 'failed', why: 'timeout' });
    receiver.answer = (response) => void response.writeHead(200).write('x');
    // Its time is over when the status has come, and not before.
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    try {
      const status = new Promise<void>((come) => {
        const heard = () => {
          unsubscribe('http.client.response.finish', heard);
          come();
        };
        subscribe('http.client.response.finish', heard);
      });
      const reply = sender.send(message(receiver.url));
      await status;
      vi.advanceTimersByTime(300);
      expect(await reply).toEqual({ kind: 'answered', status: 200 });
    } finally {
      vi.useRealTimers();
    }
    let sent = 0;
    receiver.answer = (response) => {
      response.writeHead(500);
      const more = () => {
        if (response.destroyed) return;
        sent += 65_536;
        response.write('x'.repeat(65_536), more);
      };
      more();
    };
    expect(await createNodeSender(DEVELOPMENT).send(message(receiver.url))).toEqual({ kind: 'answered', status: 500 });
    expect(sent).toBeLessThan(LIMITS.WEBHOOK_ANSWER_BYTES_MAX + (16 << 20));
    // A name whose server never answers, with as many attempts as may be on their way: files can be read meanwhile.
    let asked = 0;
    const names = createSocket('udp4').on('message', () => { asked += 1; });
    await new Promise<void>((resolve) => names.bind(0, '127.0.0.1', resolve));
    const nameServers = [`127.0.0.1:${names.address().port}`];
    const leaving = Array.from({ length: LIMITS.WEBHOOKS_IN_FLIGHT }, () => new AbortController());
    const slow = createNodeSender({ ...PUBLIC, timeoutMs: 600_000, nameServers });
    let done = false;
    const attempts = leaving.map(async (leave, n) => await slow.send(message(`https://slow-${n}.example/`), leave).finally(() => { done = true; }));
    const replies = Promise.allSettled(attempts);
    await vi.waitFor(() => expect(asked).toBeGreaterThanOrEqual(2 * LIMITS.WEBHOOKS_IN_FLIGHT), { timeout: 20_000 });
    await readFile(new URL(import.meta.url));
    expect(done).toBe(false);
    for (const leave of leaving) leave.abort();
    for (const reply of await replies) expect(reply).toMatchObject({ status: 'rejected', reason: { code: 'ERR_CANCELLED' } });
    expect(await createNodeSender({ ...PUBLIC, timeoutMs: 100, nameServers }).send(message('https://slow.example/'))).toEqual({ kind: 'failed', why: 'timeout' });
    await new Promise<void>((resolve) => names.close(() => resolve()));
    const late = createNodeSender({ ...DEVELOPMENT, timeoutMs: 100, resolve: () => new Promise(() => undefined) });
    expect(await late.send(message('http://slow.example/'))).toEqual({ kind: 'failed', why: 'timeout' });
  });

  test('says why nobody answered', async () => {
    const sender = createNodeSender({ ...DEVELOPMENT, resolve: async () => { throw new Error('ENOTFOUND'); } });
    expect(await sender.send(message('http://nobody.example/'))).toEqual({ kind: 'failed', why: 'host_not_found' });
    await using receiver = await startReceiver();
    // A receiver without TLS where TLS is spoken.
    expect(await createNodeSender(DEVELOPMENT).send(message(`https://127.0.0.1:${receiver.port}/`))).toEqual({ kind: 'failed', why: 'tls' });
    const closing = createServer((socket) => socket.destroy());
    await new Promise<void>((resolve) => closing.listen(0, '127.0.0.1', resolve));
    const { port } = closing.address() as AddressInfo;
    expect(await createNodeSender(DEVELOPMENT).send(message(`http://127.0.0.1:${port}/`))).toEqual({ kind: 'failed', why: 'connection' });
    await new Promise((resolve) => closing.close(resolve));
    expect(await createNodeSender(DEVELOPMENT).send(message(`http://127.0.0.1:${port}/`))).toEqual({ kind: 'failed', why: 'connection' });
    const stop = AbortSignal.abort();
    await expect(createNodeSender(DEVELOPMENT).send(message(receiver.url), { signal: stop })).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
  });
});
