/** The native API of jobs: submit, look, cancel, erase, and the children that go on from what a job has. */
import { z } from '@hono/zod-openapi';
import type { Context } from 'hono';

import type { JobView } from '../../engine/control/platform.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import type { AppEnv } from '../context.ts';
import { type Registry, endpoint } from '../endpoint.ts';
import { HttpError } from '../errors.ts';
import { child, idempotencyHeaders, idempotencyKey, refuseKey, submit } from '../idempotency.ts';
import { listLimit } from '../query.ts';
import { length, width } from '../openai/fields.ts';
import { NATIVE_FAILURES, jobId } from './common.ts';
import { jobName, jobRequest, jobSpec, listAfter, seed64 } from './request.ts';
import { jobListSchema, jobOf, jobSchema, quoteSchema, resultSchema } from './views.ts';

const TAG = 'Jobs';
const one = (description: string) => ({ description, content: { 'application/json': { schema: jobSchema } } });

const extension = z.strictObject({
  id: jobName.optional(),
  length: length.optional(),
  width: width.optional().openapi({ description: 'Chains in all.' }),
  kv_read_budget: z.int().min(1).max(LIMITS.KV_READ_BUDGET_MAX).optional(),
}).openapi('Extension', { example: { length: 900 } });

const branch = z.strictObject({
  id: jobName.optional(),
  chain: z.int().min(0).max(LIMITS.WIDTH_MAX - 1),
  at: z.int().min(0).max(LIMITS.LENGTH_MAX).openapi({ description: 'Tokens of the chain that the fork begins with.' }),
  width: width.default(1),
  seed: seed64.optional(),
  length: length.optional(),
}).openapi('Fork', { example: { chain: 0, at: 40, width: 4 } });

/** A fork is of a job, and from its checkpoint: both are names for it. */
const FORKS = [
  ['/v1/jobs/{id}/fork', TAG, undefined],
  ['/v1/checkpoints/{id}/forks', 'Checkpoints', 'As POST /v1/jobs/{id}/fork. It shares the pages of the checkpoint that it begins with, as copies within the store.'],
] as const;

export function jobs(registry: Registry): void {
  const { services } = registry;
  const { platform } = services;

  endpoint(registry, {
    method: 'post', path: '/v1/jobs', tag: TAG, summary: 'Submit a job', scope: 'write', loads: 'named',
    body: jobRequest, headers: idempotencyHeaders, responses: { 201: one('The job'), ...NATIVE_FAILURES },
  }, async ({ c, caller: { tenant }, body, admit }) => created(c, await submit(services, jobSpec(body), { tenant, key: idempotencyKey(c.req.raw), admit, trace: c.get('trace') })));

  endpoint(registry, {
    method: 'put', path: '/v1/jobs/{id}', tag: TAG, summary: 'Submit a job under a name of your own', scope: 'write', loads: 'named',
    description: 'The same body again is the same job; another body is refused with 422.',
    body: jobRequest, responses: { 200: one('The job'), ...NATIVE_FAILURES },
  }, async ({ c, caller: { tenant }, body, id, admit }) => {
    refuseKey(c.req.raw, 'the id in the address is the key.');
    const named = jobName.safeParse(id);
    if (!named.success) throw new HttpError('invalid_value', `id ${named.error.issues[0]?.message ?? 'is invalid'}.`, { param: 'id' });
    return shown(c, await submit(services, jobSpec(body), { tenant, id: named.data, key: undefined, admit, trace: c.get('trace') }));
  });

  endpoint(registry, {
    method: 'get', path: '/v1/jobs', tag: TAG, summary: 'List your jobs, by day, newest first', scope: 'read',
    description: 'Of one day (UTC) by name from the last: for ids that the server drew that is newest first, too.',
    query: z.strictObject({
      limit: listLimit,
      after: listAfter,
    }),
    responses: { 200: { description: 'The jobs', content: { 'application/json': { schema: jobListSchema } } }, ...NATIVE_FAILURES },
  }, async ({ caller: { tenant }, query: { limit, after }, signal }) => {
    const page = await platform.list({ tenant, limit, after, signal });
    return Response.json({ object: 'list', data: page.jobs.map(jobOf), has_more: page.more });
  });

  endpoint(registry, {
    method: 'get', path: '/v1/jobs/{id}', tag: TAG, summary: 'Look at a job', scope: 'read', responses: { 200: one('The job'), ...NATIVE_FAILURES },
  }, async ({ c, caller: { tenant }, signal, id }) => shown(c, await platform.get(jobId(id), { tenant, signal })));

  endpoint(registry, {
    method: 'get', path: '/v1/jobs/{id}/result', tag: TAG, summary: 'What a job has come to', scope: 'read',
    responses: { 200: { description: 'The result', content: { 'application/json': { schema: resultSchema } } }, ...NATIVE_FAILURES },
  }, async ({ caller: { tenant }, signal, id }) => {
    const result = await platform.result(jobId(id), { tenant, signal });
    if (result === null) throw new HttpError('not_ended', `The job ${id} has not ended.`, { headers: { 'retry-after': '1' } });
    return Response.json(result);
  });

  endpoint(registry, {
    method: 'post', path: '/v1/jobs/{id}/cancel', tag: TAG, summary: 'Cancel a job', scope: 'write',
    description: 'A job that has ended stays as it ended.', responses: { 200: one('The job'), ...NATIVE_FAILURES },
  }, async ({ c, caller: { tenant }, signal, id }) => shown(c, await platform.cancel(jobId(id), { tenant, signal })));

  endpoint(registry, {
    method: 'delete', path: '/v1/jobs/{id}', tag: TAG, summary: 'Erase a job', scope: 'write',
    responses: { 204: { description: 'Only its name is left' }, ...NATIVE_FAILURES },
  }, async ({ c, caller: { tenant }, signal, id }) => {
    c.set('job', id);
    await platform.erase(jobId(id), { tenant, signal });
    return new Response(null, { status: 204 });
  });

  endpoint(registry, {
    method: 'post', path: '/v1/jobs/{id}/extend', tag: TAG, summary: 'Go on with more length, chains or reads', scope: 'write', loads: 'asks',
    description: 'A new job, whose chains begin as this one\'s ended.', body: extension, headers: idempotencyHeaders, responses: { 201: one('The new job'), ...NATIVE_FAILURES },
  }, async ({ c, caller: { tenant }, body, signal, id, admit }) => created(c, await child(c.req.raw, body.id, admit, async (names) => await platform.extend(jobId(id), {
    tenant, signal, traceparent: c.get('trace'), ...names, length: body.length, width: body.width, kvReadBudget: body.kv_read_budget,
  }))));

  for (const [path, tag, description] of FORKS) {
    endpoint(registry, {
      method: 'post', path, tag, summary: 'Go another way from a point of a chain', scope: 'write', loads: 'asks', description,
      body: branch, headers: idempotencyHeaders, responses: { 201: one('The new job'), ...NATIVE_FAILURES },
    }, async ({ c, caller: { tenant }, body, signal, id, admit }) => created(c, await child(c.req.raw, body.id, admit, async (names) => await platform.fork(jobId(id), {
      tenant, signal, traceparent: c.get('trace'), ...names, chain: body.chain, at: body.at, width: body.width, length: body.length, seed: body.seed === undefined ? undefined : BigInt(body.seed),
    }))));
  }

  endpoint(registry, {
    method: 'post', path: '/v1/quotes', tag: 'Quotes', summary: 'What a job would cost', scope: 'read',
    description: 'Tokens, KV reads and peak bytes, expected and at worst, before anything runs; `refusal` says why it would not be taken.',
    body: jobRequest, responses: { 200: { description: 'The quote', content: { 'application/json': { schema: quoteSchema } } }, ...NATIVE_FAILURES },
  }, async ({ caller: { tenant }, body, signal }) => Response.json(await platform.quote(jobSpec(body), { tenant, signal })));
}

function created(c: Context<AppEnv>, view: JobView): Response {
  c.set('job', view.id);
  return Response.json(jobOf(view), { status: 201, headers: { location: `/v1/jobs/${view.id}` } });
}

function shown(c: Context<AppEnv>, view: JobView): Response {
  c.set('job', view.id);
  return Response.json(jobOf(view));
}
