/** `npm run bench -- front`: requests a second of the HTTP front, how soon it answers while the engine is saturated, and a thousand streams. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import autocannon from 'autocannon';

import { pause } from '../../engine/core/waiting.ts';
import { systemClock } from '../../engine/core/clock.ts';
import { openStreams, type StreamRequest } from '../../test/helpers/streams.ts';
import { FrontProcess, type LoopFigures } from './front-process.ts';
import { median } from './statistics.ts';

export interface FrontPlan {
  readonly rounds: number;
  readonly roundS: number;
  readonly connections: number;
  /** Of the engine while /health is asked. */
  readonly saturatedS: number;
  readonly streams: readonly number[];
}
export const FULL_FRONT: FrontPlan = { rounds: 3, roundS: 4, connections: 16, saturatedS: 20, streams: [100, 500, 1_000] };
export const QUICK_FRONT: FrontPlan = { rounds: 1, roundS: 1, connections: 16, saturatedS: 4, streams: [50, 100] };

interface Rate {
  readonly path: string;
  readonly front_per_s: number;
  readonly bare_per_s: number;
  /** front / bare */
  readonly ratio: number;
}

interface Latency {
  readonly requests: number;
  readonly p50_ms: number;
  readonly p99_ms: number;
  readonly max_ms: number;
}

export interface FrontFigures {
  readonly rates: readonly Rate[];
  readonly saturated: { readonly chains: number; readonly health: Latency; readonly bare: Latency; readonly loop: LoopFigures; readonly bare_loop: LoopFigures };
  readonly streams: {
    readonly rss_mib: readonly { readonly streams: number; readonly rss_mib: number }[];
    readonly rss_after_mib: number;
    readonly events: number;
    readonly complete: number;
    readonly health: Latency;
    readonly loop: LoopFigures;
  };
}

const QUOTE = { model: 'countdown', prompt: '4 20 8 13 target 59', budget: { width: 8 } };
const CHAINS = 64;
/** Never ends by itself. */
const LONG = { model: 'countdown@dense', prompt: '3 5 7 11 13 17 target 997', vote: 'none', early_stop: false, sampling: { logit_bias: [[2, -100]] }, budget: { width: CHAINS, length: 900 } };
/** Streams that are a job of their own; they come first, before jobs have waited so long that more are sent away. */
const CHATS = 25;
/** What all others follow together: a thousand events. */
const FOLLOWED = { ...LONG, budget: { width: 4, length: 250 } };
const CHAT = { model: 'countdown@cr8', messages: [{ role: 'user', content: '4 20 8 13 target 59' }], max_tokens: 16, stream: true };

/** @param say what is going on, for whoever waits. */
export async function measureFront(plan: FrontPlan, say: (line: string) => void, signal: AbortSignal): Promise<FrontFigures> {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-bench-'));
  try {
    const alone = await (async () => {
      await using bare = await FrontProcess.bare();
      await using front = await FrontProcess.served(path.join(folder, 'store'));
      const rates = await ratesOf(front, bare, plan, say);
      say(`/health/live beside ${CHAINS} chains`);
      return { rates, saturated: await saturatedBy(front, bare, plan, signal) };
    })();
    await using front = await FrontProcess.served(path.join(folder, 'streams'));
    return { ...alone, streams: await streamsOf(front, plan, say, signal) };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function ratesOf(front: FrontProcess, bare: FrontProcess, { rounds, roundS, connections }: FrontPlan, say: (line: string) => void): Promise<readonly Rate[]> {
  const rates: Rate[] = [];
  const requests = [['GET', '/health/live'], ['GET', '/v1/models'], ['POST', '/v1/quotes']] as const;
  for (const [method, at] of requests) {
    say(`requests a second: ${at}`);
    const body = method === 'POST' ? { body: JSON.stringify(QUOTE), headers: { 'content-type': 'application/json' } } : {};
    const rate = async ({ url }: FrontProcess): Promise<number> => {
      const { requests: { average }, non2xx, errors } = await autocannon({ url: url + at, method, ...body, connections, duration: roundS });
      if (non2xx + errors > 0) throw new Error(`${at}: ${non2xx} answers were no success, ${errors} requests failed`);
      return average;
    };
    // One after the other, so that what else runs on the machine meets both; the first round warms up.
    const of = { front: [] as number[], bare: [] as number[] };
    for (let round = 0; round <= rounds; round++) {
      const [ours, theirs] = [await rate(front), await rate(bare)];
      if (round > 0) of.front.push(ours), of.bare.push(theirs);
    }
    const [ours, theirs] = [median(of.front), median(of.bare)];
    rates.push({ path: at, front_per_s: Math.round(ours), bare_per_s: Math.round(theirs), ratio: ours / theirs });
  }
  return rates;
}

async function saturatedBy(front: FrontProcess, bare: FrontProcess, { saturatedS }: FrontPlan, signal: AbortSignal): Promise<FrontFigures['saturated']> {
  const before = await front.post<{ readonly id: string }>('/v1/jobs', { ...LONG, seed: 0 });
  const more = Array.from({ length: 24 }, async (_, i) => await front.post('/v1/jobs', { ...LONG, seed: i + 1 }));
  await Promise.all(more);
  while ((await front.get<{ readonly state: string }>(`/v1/jobs/${before.id}`)).state === 'queued') await pause(systemClock, 20, signal);
  await Promise.all([front.loop(), bare.loop()]);
  const [health, plain] = await Promise.all([healthOf(front, saturatedS, signal), healthOf(bare, saturatedS, signal)]);
  const [loop, bareLoop] = await Promise.all([front.loop(), bare.loop()]);
  return { chains: CHAINS, health, bare: plain, loop, bare_loop: bareLoop };
}

async function streamsOf(front: FrontProcess, { streams: steps }: FrontPlan, say: (line: string) => void, signal: AbortSignal): Promise<FrontFigures['streams']> {
  // It runs while readers come, so that all of them are there before what they read begins.
  const busy = await front.post<{ readonly id: string }>('/v1/jobs', LONG);
  const { id } = await front.post<{ readonly id: string }>('/v1/jobs', FOLLOWED);
  const requestOf = (i: number): StreamRequest => (i < CHATS ? { url: `${front.url}/v1/chat/completions`, body: { ...CHAT, seed: i } } : { url: `${front.url}/v1/jobs/${id}/events` });
  const rss = [{ streams: 0, rss_mib: front.rssMib }];
  const open = [];
  await front.loop();
  for (const count of steps) {
    say(`${count} streams`);
    open.push(...(await openStreams(Array.from({ length: count - open.length }, (_, i) => requestOf(open.length + i)))));
    await pause(systemClock, 1_000, signal);
    rss.push({ streams: count, rss_mib: front.rssMib });
  }
  await front.post(`/v1/jobs/${busy.id}/cancel`, {});
  let done = false;
  const health = healthOf(front, 3_600, signal, () => done);
  await Promise.all(open.map(({ ended }) => ended));
  done = true;
  const latency = await health;
  const loop = await front.loop();
  await pause(systemClock, 5_000, signal);
  return {
    rss_mib: rss,
    rss_after_mib: front.rssMib,
    events: open.reduce((sum, { events }) => sum + events, 0),
    complete: open.filter(({ inOrder, last }) => inOrder && (last.includes('event: end') || last === 'data: [DONE]')).length,
    health: latency,
    loop,
  };
}

/** Asked a hundred times a second at most, one request after the other. */
async function healthOf(front: FrontProcess, forS: number, signal: AbortSignal, until: () => boolean = () => false): Promise<Latency> {
  const took: number[] = [];
  const endsMs = performance.now() + forS * 1_000;
  while (performance.now() < endsMs && !until()) {
    const startMs = performance.now();
    await (await fetch(`${front.url}/health/live`)).text();
    took.push(performance.now() - startMs);
    await pause(systemClock, 10, signal);
  }
  took.sort((a, b) => a - b);
  const at = (share: number) => took[Math.min(took.length - 1, Math.floor(share * took.length))] ?? NaN;
  return { requests: took.length, p50_ms: at(0.5), p99_ms: at(0.99), max_ms: at(1) };
}
