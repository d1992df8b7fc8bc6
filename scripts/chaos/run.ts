/** One chaos run: a quiet run to compare with, then the same jobs on a system that is broken all the time, then what must hold of it. */
import { setTimeout as sleep } from 'node:timers/promises';

import { type Receiver, startReceiver } from '../../test/helpers/receiver.ts';
import { Client } from './client.ts';
import { type Done, Faults } from './faults.ts';
import type { Plan, Submission } from './plan.ts';
import { type JobSeen, quietly } from './quiet.ts';
import { System, type SystemOptions } from './system.ts';
import { judge, type Verdict } from './verdict.ts';

export interface ChaosOptions extends Omit<SystemOptions, 'plan'> {
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
}

export interface ChaosFigures extends Verdict {
  readonly done: Done;
  /** Workers in a process namespace of their own. */
  readonly apart: number;
  /** Of all logs, by message. */
  readonly said: Readonly<Record<string, number>>;
  /** Requests and streams that the client had to begin again. */
  readonly again: number;
  readonly followed: number;
  readonly seconds: { readonly quiet: number; readonly chaos: number; readonly calm: number; readonly judged: number };
}

const SAY_MS = 5_000;
const LOOK_MS = 500;
const AGAIN_MS = 2_000;
/** When the last fault is over, no longer than this passes between two ends; all of them take what the machine takes. */
const STILL_MS_MAX = 300_000;
const OVER = ['completed', 'incomplete', 'failed', 'cancelled'];

export async function runChaos(plan: Plan, { say, signal, ...where }: ChaosOptions): Promise<ChaosFigures> {
  const lap = laps();
  say(`the quiet run of ${plan.specs.length} specs`);
  const quiet = await quietly(plan, where.folder, signal);
  const quietS = lap();
  await using receiver = await startReceiver();
  await using system = await System.start({ ...where, plan });
  const client = new Client(system.url, signal, system.site.apiKey);
  const hook = system.front === null ? null : { ...await client.ask<{ readonly id: string }>('POST', '/v1/webhooks', { url: receiver.url, events: ['job.*'] }), receiver };
  say(`${plan.workers} workers, ${system.apart} of them in namespaces of their own; ${plan.jobs} jobs, ${plan.kills} kills in ${plan.minutes} min`);
  const faults = new Faults(system);
  const followed = new Map<string, string[]>();
  const readers: Promise<unknown>[] = [];
  let submitted = 0;
  const submit = async ({ id, spec, isFollowed }: Submission): Promise<void> => {
    await client.ask<JobSeen>('PUT', `/v1/jobs/${id}`, plan.specs[spec]);
    submitted++;
    if (!isFollowed) return;
    const events: string[] = [];
    followed.set(id, events);
    readers.push(client.follow(id, events));
  };
  lap();
  const startMs = performance.now();
  const sayHow = () => say(`${((performance.now() - startMs) / 1_000).toFixed(0)} s: ${submitted} of ${plan.jobs} jobs submitted, ${toldOf(receiver)} told to have ended; ${described(faults.done)}`);
  const timer = setInterval(sayHow, SAY_MS);
  try {
    const timeline = [
      ...plan.submissions.map((each) => ({ atMs: each.atMs, act: () => submit(each) })),
      ...plan.faults.map((each) => ({ atMs: each.atMs, act: () => faults.do(each) })),
    ].sort((a, b) => a.atMs - b.atMs);
    await along(timeline, startMs, signal);
    const chaosS = lap();
    say('calm: nothing is broken any more');
    await untilAllEnded(plan, client, { told: () => toldOf(receiver), againMs: system.front === null ? AGAIN_MS : null, signal });
    await Promise.all(readers);
    const calmS = lap();
    sayHow();
    const verdict = await judge({ plan, system, client, quiet, hook, followed });
    return {
      ...verdict, done: faults.done, apart: system.apart, said: Object.fromEntries(system.said), again: client.again, followed: followed.size,
      seconds: { quiet: quietS, chaos: chaosS, calm: calmS, judged: lap() },
    };
  } finally {
    clearInterval(timer);
  }
}

/** Begins each thing when it is due, and resolves when all of them are done; the first that fails ends it. */
async function along(timeline: readonly { readonly atMs: number; readonly act: () => Promise<void> }[], startMs: number, signal: AbortSignal): Promise<void> {
  const failed = new AbortController();
  const stop = AbortSignal.any([signal, failed.signal]);
  const begun: Promise<void>[] = [];
  try {
    for (const { atMs, act } of timeline) {
      await sleep(Math.max(0, atMs - (performance.now() - startMs)), undefined, { signal: stop });
      begun.push(act().catch((error: unknown) => failed.abort(error)));
    }
    await Promise.all(begun);
  } catch (error) {
    if (!failed.signal.aborted) throw error;
  }
  if (failed.signal.aborted) throw failed.signal.reason;
}

interface Ending {
  /** Jobs that a webhook has been told of: whether anything moves at all. */
  readonly told: () => number;
  /** How often whoever waits asks for the job once more, under its name: a hint, as the message of a worker that died is hidden for as long as its queue says. null: never. */
  readonly againMs: number | null;
  readonly signal: AbortSignal;
}

async function untilAllEnded({ submissions, specs }: Plan, client: Client, { told, againMs, signal }: Ending): Promise<void> {
  for (const { id, spec } of submissions) {
    let moved = { told: told(), atMs: performance.now() };
    let askedMs = moved.atMs;
    for (;;) {
      const { state, status } = await client.ask<JobSeen>('GET', `/v1/jobs/${id}`);
      if (OVER.includes(status)) break;
      if (told() !== moved.told) moved = { told: told(), atMs: performance.now() };
      if (performance.now() - moved.atMs > STILL_MS_MAX) throw new Error(`${id} is still ${state}, and nothing has ended for ${STILL_MS_MAX / 1_000} s`);
      if (againMs !== null && performance.now() - askedMs > againMs) {
        await client.ask<JobSeen>('PUT', `/v1/jobs/${id}`, specs[spec]);
        askedMs = performance.now();
      }
      await sleep(LOOK_MS, undefined, { signal });
    }
  }
}

function toldOf({ received }: Receiver): number {
  return new Set(received.map(({ body }) => (JSON.parse(body) as { readonly data: { readonly id: string } }).data.id)).size;
}

export function described({ interrupted, messagesDeleted, ...kinds }: Done): string {
  return `${Object.entries(kinds).map(([kind, count]) => `${kind} ${count}`).join(', ')}; ${interrupted} slices killed, ${messagesDeleted} messages deleted`;
}

/** Seconds since it was asked last. */
function laps(): () => number {
  let lastMs = performance.now();
  return () => {
    const tookMs = performance.now() - lastMs;
    lastMs += tookMs;
    return Math.round(tookMs / 100) / 10;
  };
}
