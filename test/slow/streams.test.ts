/**
 * A thousand streams of one process: each gets all of its events in order, and the process is as large with a thousand as without, but for
 * what a connection is. What they say, and how much memory, decides; never time.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test } from 'vitest';

import { serve, type Served } from '../helpers/served.ts';
import { openStreams, type StreamRequest } from '../helpers/streams.ts';

const EOS = 2;
const LONG = { model: 'countdown@dense', prompt: '3 5 7 11 13 17 target 997', vote: 'none', early_stop: false, sampling: { logit_bias: [[EOS, -100]] } };
const CHAINS = 4;
const LENGTH = 250;
const STREAMS = 1_000;
/** A chat is a job of its own: a store's write and a slice. */
const CHATS = 100;
const BUSY = 40;
/** Of a stream that waits: its socket, its request, its place in the log. */
const WAITING_KIB_MAX = 100;
/** When all have been written to: what is on its way, and garbage. */
const WRITTEN_KIB_MAX = 256;
const MIB = 1_024;

function rssKib(server: Served): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))?.[1]);
}

test(`${STREAMS} streams of one process are complete and in order, and hold little memory`, { timeout: 900_000 }, async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-streams-'));
  try {
    await using server = await serve(path.join(folder, 'store'), '--log-level', 'error');
    // What is needed once, before it is measured.
    for (let i = 0; i < 5; i++) await server.post('/v1/chat/completions', { model: 'countdown@dense', messages: [{ role: 'user', content: '4 20 8 13 target 59' }], max_tokens: 8 });
    // They keep the worker busy while readers come, so that all of them are there before what they read begins.
    const waiting = { ...LONG, budget: { width: CHAINS, length: 1_000 } };
    const busy = await Promise.all(Array.from({ length: BUSY }, (_, seed) => server.post<{ id: string }>('/v1/jobs', { ...waiting, seed })));
    const { id } = await server.post<{ id: string }>('/v1/jobs', { ...LONG, budget: { width: CHAINS, length: LENGTH } });
    const before = rssKib(server);
    const requestOf = (i: number): StreamRequest => i < CHATS
      ? { url: `${server.url}/v1/chat/completions`, body: { model: 'countdown@dense', messages: [{ role: 'user', content: '4 20 8 13 target 59' }], max_tokens: 8, seed: i, stream: true } }
      : { url: `${server.url}/v1/jobs/${id}/events` };
    // Chats first: before jobs have waited so long that more are sent away.
    const streams = await openStreams(Array.from({ length: STREAMS }, (_, i) => requestOf(i)));
    const open = rssKib(server);
    for (const job of busy) await server.post(`/v1/jobs/${job.id}/cancel`, {});
    await Promise.all(streams.map(({ ended }) => ended));
    const after = rssKib(server);
    const chats = streams.slice(0, CHATS);
    const readers = streams.slice(CHATS);
    // A token of each chain and step, the end of each chain, the result.
    expect(new Set(readers.map(({ events }) => events))).toEqual(new Set([CHAINS * LENGTH + CHAINS + 1]));
    expect(readers.every(({ inOrder, last }) => inOrder && last.includes('event: end\n'))).toBe(true);
    expect(chats.every(({ events, last }) => events > 4 && last === 'data: [DONE]')).toBe(true);
    expect(new Set(chats.map(({ job }) => job)).size).toBe(CHATS);
    process.stdout.write(`RSS: ${Math.round(before / MIB)} MiB before, ${Math.round(open / MIB)} with ${STREAMS} streams, ${Math.round(after / MIB)} after them\n`);
    expect((open - before) / STREAMS).toBeLessThan(WAITING_KIB_MAX);
    expect((after - before) / STREAMS).toBeLessThan(WRITTEN_KIB_MAX);
    // A second thousand finds the memory of the first.
    const again = await openStreams(Array.from({ length: STREAMS }, () => ({ url: `${server.url}/v1/jobs/${id}/events` })));
    await Promise.all(again.map(({ ended }) => ended));
    expect(again.every(({ inOrder, events }) => inOrder && events === CHAINS * LENGTH + CHAINS + 1)).toBe(true);
    expect(rssKib(server) - after).toBeLessThan(64 * MIB);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
