/** A job from outside, as a client's: what a deployed stage has to be able to do. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Context } from './context.ts';

/** A machine from nothing, its image and its model. */
const JOB_MS_MAX = 20 * 60_000;
const ASK_MS_MAX = 60_000;

/** @throws Error: what did not answer as it should. */
export async function smoke(base: string, key: string, { say, signal, options: { config } }: Pick<Context, 'say' | 'signal' | 'options'>): Promise<void> {
  const url = base.replace(/\/$/, '');
  if (key === '') throw new Error('Say with RUMINATE_API_KEY as whom to ask.');
  const ask = async (path: string, init: RequestInit = {}, authorization = `Bearer ${key}`): Promise<any> => {
    const response = await fetch(`${url}${path}`, { ...init, headers: { authorization, 'content-type': 'application/json' }, signal: AbortSignal.any([signal, AbortSignal.timeout(ASK_MS_MAX)]) });
    return { status: response.status, body: await response.json().catch(() => null) };
  };
  const expect = (what: string, holds: boolean, got: unknown): void => {
    if (!holds) throw new Error(`${what}: ${JSON.stringify(got)}`);
    say(`  ok  ${what}`);
  };
  const health = await ask('/health/ready');
  expect('it is ready', health.status === 200, health);
  expect('it asks for a key', (await ask('/v1/models', {}, 'Bearer nobody')).status === 401, 'no 401');
  const models = await ask('/v1/models');
  expect(`it has ${config.models.join(', ')}`, config.models.every((model) => models.body?.data?.some(({ id }: { id: string }) => id.split('@')[0] === model)), models);
  // What is not there is 404: S3 tells that from 403 only with the right to list.
  const none = await ask('/v1/jobs/00000000000000000000000000');
  expect('a job that is not there is not found', none.status === 404, none);
  const made = await ask('/v1/jobs', { method: 'POST', body: JSON.stringify({ model: config.models[0], prompt: '4 20 8 13 target 59', budget: { length: 64, width: 1 } }) });
  expect('it takes a job', made.status === 201, made);
  const startedMs = performance.now();
  for (let state = ''; !['done', 'incomplete'].includes(state); await sleep(2_000, undefined, { signal })) {
    const view = await ask(`/v1/jobs/${made.body.id}`);
    state = String(view.body?.state);
    if (['failed', 'poisoned', 'expired', 'cancelled'].includes(state)) throw new Error(`The job ended as ${state}: ${JSON.stringify(view.body)}`);
    if (performance.now() - startedMs > JOB_MS_MAX) throw new Error(`The job is still ${state} after ${JOB_MS_MAX / 60_000} minutes: is there a worker? Look at the service's events and at the log of the workers.`);
  }
  say(`  ok  it has run, after ${Math.round((performance.now() - startedMs) / 1_000)} s`);
}
