/** What the plan's specs come to where nothing is ever disturbed: one server with its own worker over a directory. */
import path from 'node:path';

import { serve } from '../../test/helpers/served.ts';
import { Client } from './client.ts';
import type { Plan } from './plan.ts';

/** All that the API says of a job that has ended, but for its name and how often it was taken. */
export interface Outcome {
  readonly state: string;
  readonly result: unknown;
  readonly events: readonly string[];
}

export interface JobSeen {
  readonly id: string;
  readonly state: string;
  readonly status: string;
  readonly slice: number;
  readonly epoch: number;
}

export async function outcomeOf(client: Client, id: string): Promise<Outcome & { readonly job: JobSeen }> {
  const events = await client.follow(id);
  const job = await client.ask<JobSeen>('GET', `/v1/jobs/${id}`);
  return { job, state: job.state, result: await client.ask('GET', `/v1/jobs/${id}/result`), events };
}

/** One for each of the plan's specs. */
export async function quietly({ specs }: Plan, folder: string, signal: AbortSignal): Promise<readonly Outcome[]> {
  await using server = await serve(path.join(folder, 'quiet'), '--log-level', 'error');
  const client = new Client(server.url, signal);
  const jobs = await Promise.all(specs.map((spec) => client.ask<JobSeen>('POST', '/v1/jobs', spec)));
  const outcomes: Outcome[] = [];
  for (const { id } of jobs) {
    const { state, result, events } = await outcomeOf(client, id);
    outcomes.push({ state, result, events });
  }
  return outcomes;
}
