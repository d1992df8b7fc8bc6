/** What must hold when everything has been broken and is whole again; everything that does not is said. */
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';

import type { Receiver } from '../../test/helpers/receiver.ts';
import type { Client } from './client.ts';
import type { Plan, Submission } from './plan.ts';
import { type JobSeen, type Outcome, outcomeOf } from './quiet.ts';
import type { System } from './system.ts';

export interface Hook {
  readonly id: string;
  readonly receiver: Receiver;
}

export interface Verdict {
  /** None: it has passed. */
  readonly broken: readonly string[];
  /** Takes of all jobs together: each job has at least one. */
  readonly takes: number;
  readonly slices: number;
  readonly completionTokens: number;
}

const AT_ONCE = 4;
/** An attempt whose sender died is made again after 80 s; a marker is removed by the walk that comes every 5. */
const SETTLE_MS_MAX = 150_000;
const LOOK_MS = 500;

export interface Judged {
  readonly plan: Plan;
  readonly system: System;
  readonly client: Client;
  readonly quiet: readonly Outcome[];
  /** null: the API is somebody else's, who lets webhooks go to no loopback. */
  readonly hook: Hook | null;
  /** What readers that came at the beginning were told, by job. */
  readonly followed: ReadonlyMap<string, readonly string[]>;
}

export async function judge(judged: Judged): Promise<Verdict> {
  const { plan, client } = judged;
  const broken: string[] = [];
  const jobs: JobSeen[] = [];
  let completionTokens = 0;
  const queue = [...plan.submissions];
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      const outcome = await outcomeOf(client, next.id);
      jobs.push(outcome.job);
      completionTokens += (outcome.result as { readonly usage: { readonly completion_tokens: number } }).usage.completion_tokens;
      broken.push(...differences(judged, next, outcome));
    }
  }));
  broken.push(...(await hooksOf(judged, jobs)), ...(await leftovers(judged)));
  return { broken, takes: jobs.reduce((sum, { epoch }) => sum + epoch, 0), slices: jobs.reduce((sum, { slice }) => sum + slice, 0), completionTokens };
}

function differences({ quiet, followed }: Judged, { id, spec }: Submission, { state, result, events }: Outcome): readonly string[] {
  const expected = quiet[spec] as Outcome;
  const told = followed.get(id);
  return [
    ...(state === expected.state ? [] : [`${id} is ${state}; undisturbed, ${expected.state}`]),
    ...(isDeepStrictEqual(result, expected.result) ? [] : [`${id} has another result than undisturbed (tokens, ballots, usage): ${JSON.stringify(usageOf(result))}, not ${JSON.stringify(usageOf(expected.result))}`]),
    ...compared(`${id}, read at the end`, events, expected.events),
    ...(told === undefined ? [] : compared(`${id}, read from its beginning`, told, expected.events)),
  ];
}

const usageOf = (result: unknown) => (result as { readonly usage?: unknown }).usage;

/** Events of a job are a function of the job alone, and the last of them is its end. */
function compared(what: string, events: readonly string[], expected: readonly string[]): readonly string[] {
  const at = events.findIndex((event, i) => event !== expected[i]);
  if (at < 0 && events.length === expected.length) return [];
  const from = at < 0 ? Math.min(events.length, expected.length) : at;
  return [`${what}: ${events.length} events of ${expected.length}; number ${from} is ${events[from]?.slice(0, 120) ?? 'missing'}, not ${expected[from]?.slice(0, 120) ?? 'there'}`];
}

interface Delivery {
  readonly id: string;
  readonly type: string;
  readonly subject: string;
  readonly state: string;
}

/** Each job's end is told under one name, however often it is sent. */
async function hooksOf({ client, hook }: Judged, jobs: readonly JobSeen[]): Promise<readonly string[]> {
  if (hook === null) return [];
  let deliveries: readonly Delivery[] = [];
  for (const startedMs = performance.now(); performance.now() - startedMs < SETTLE_MS_MAX; await sleep(LOOK_MS)) {
    deliveries = await deliveriesOf(client, hook.id);
    if (deliveries.length >= jobs.length && deliveries.every(({ state }) => state === 'delivered')) break;
  }
  const received = new Map<string, Set<string>>();
  for (const { headers, body } of hook.receiver.received) {
    const { data } = JSON.parse(body) as { readonly data: { readonly id: string } };
    received.set(data.id, (received.get(data.id) ?? new Set()).add(String(headers['webhook-id'])));
  }
  return jobs.flatMap(({ id, status }) => {
    const of = deliveries.filter(({ subject }) => subject === id);
    const [one] = of;
    if (of.length !== 1 || one === undefined) return [`${id} has ${of.length} deliveries to its webhook`];
    const names = [...(received.get(id) ?? [])];
    return one.type === `job.${status}` && one.state === 'delivered' && names.length === 1 && names[0] === one.id ? []
      : [`${id}: ${status}, but its webhook was told ${one.type} (${one.state}) under ${names.length} names`];
  });
}

async function deliveriesOf(client: Client, hook: string): Promise<readonly Delivery[]> {
  const all: Delivery[] = [];
  for (;;) {
    const after = all.at(-1)?.id;
    const page = await client.ask<{ readonly data: readonly Delivery[]; readonly has_more: boolean }>('GET', `/v1/webhooks/${hook}/deliveries?limit=100${after === undefined ? '' : `&after=${after}`}`);
    all.push(...page.data);
    if (!page.has_more || page.data.length === 0) return all;
  }
}

/** No marker of a job that has ended, no message that anybody could still take, no dead letter. */
async function leftovers({ plan, system: { site } }: Judged): Promise<readonly string[]> {
  let left: readonly string[] = [];
  for (const startedMs = performance.now(); performance.now() - startedMs < SETTLE_MS_MAX; await sleep(LOOK_MS)) {
    const markers: string[] = [];
    for await (const { key } of site.store.list('live/')) if (key.includes(`/chaos-${plan.seed}-`)) markers.push(key);
    const { visible, dead } = await site.messages();
    left = [
      ...(markers.length === 0 ? [] : [`${markers.length} markers of jobs that have ended are left: ${markers.slice(0, 3).join(', ')}`]),
      ...(visible === 0 ? [] : [`${visible} messages are left`]),
      ...(dead === 0 ? [] : [`${dead} messages are dead`]),
    ];
    if (left.length === 0) return left;
  }
  return left;
}
