/** A job of a server that is read along with while what serves it ends. */
import { rmSync } from 'node:fs';
import path from 'node:path';
import { expect } from 'vitest';

import { temporary } from '../resume/jobs.ts';
import { serve, type Served } from './served.ts';
import { type SseEvent, readSse } from './sse.ts';

/** Seconds of work for two cores; its chains end only at their length. */
export const LONG = { model: 'countdown@dense', prompt: '3 5 7 11 13 17 target 997', sampling: { temperature: 1, logit_bias: [[2, -100]] }, budget: { width: 8, length: 600 }, vote: 'none' };
/** So that a kill loses little. */
export const OFTEN = ['--journal-time', '50ms', '--checkpoint-tokens', '100'];

export interface Job {
  readonly id: string;
  readonly state: string;
  readonly slice: number;
  readonly step: number;
  readonly chains: readonly { readonly tokens: number }[];
}

let folder: string | null = null;
let stores = 0;

/** A folder of its own for each store of a file; `removeStores` after all. */
export function freshStore(): string {
  folder ??= temporary({ quick: true });
  return path.join(folder, `store-${stores++}`);
}

export function removeStores(): void {
  if (folder !== null) rmSync(folder, { recursive: true, force: true });
  folder = null;
}

const numbered = (events: readonly SseEvent[]) => events.filter(({ id, event }) => id !== null && event !== 'end');

export async function follow({ url }: Served, id: string, after = -1, until: (event: SseEvent) => boolean = () => false): Promise<readonly SseEvent[]> {
  return numbered(await readSse(await fetch(`${url}/v1/jobs/${id}/events`, { headers: { 'last-event-id': `${after}` } }), until));
}

export const isAt = (seq: number) => ({ id }: SseEvent) => Number(id) >= seq;
const lastOf = (events: readonly SseEvent[]) => Number(events.at(-1)?.id);

/** What a reader of LONG is told when nothing ends meanwhile. */
export async function quietRun(): Promise<readonly SseEvent[]> {
  await using server = await serve(freshStore());
  const events = await follow(server, (await server.post<Job>('/v1/jobs', LONG)).id);
  expect(events.at(-1)?.event).toBe('result');
  return events;
}

/** Begins the job, reads its first events, and `end`s the process that serves it; another goes on, and the reader with it. */
export async function disturbed(end: (first: Served) => Promise<void>): Promise<{ readonly read: readonly SseEvent[]; readonly again: readonly SseEvent[]; readonly job: Job; readonly log: string }> {
  for (let begun = 1; ; begun++) {
    const at = freshStore();
    const first = await serve(at, ...OFTEN);
    const { id } = await first.post<Job>('/v1/jobs', LONG);
    const before = await follow(first, id, -1, isAt(1_000));
    await end(first);
    await using second = await serve(at, ...OFTEN);
    const after = await follow(second, id, lastOf(before));
    const job = await second.get<Job>(`/v1/jobs/${id}`);
    // This process may have stood still until there was nothing to disturb any more.
    if (job.slice === 1 && begun < 5) continue;
    return { read: [...before, ...after], again: await follow(second, id), job, log: first.log };
  }
}
