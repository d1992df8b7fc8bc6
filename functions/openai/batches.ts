/** /v1/batches, as OpenAI's, over the same jobs as every other request. */
import { z } from '@hono/zod-openapi';

import type { BatchView } from '../../engine/control/batch-view.ts';
import type { AppOptions } from '../context.ts';
import { type Registry, endpoint } from '../endpoint.ts';
import { idempotencyHeaders, idempotencyKey, once } from '../idempotency.ts';
import { BATCH_URLS } from './batch-endpoints.ts';
import { OPENAI_FAILURES } from './errors.ts';
import { labels } from './fields.ts';
import { pageQuery, pageResponse, pageSchema } from './list.ts';

const TAG = 'OpenAI';

const batchRequest = z.strictObject({
  input_file_id: z.string().min(1).max(64),
  endpoint: z.enum(BATCH_URLS, { error: `must be one of ${BATCH_URLS.join(', ')}: nothing else runs in batches` }),
  completion_window: z.literal('24h'),
  metadata: labels.metadata,
}).openapi('BatchRequest');

const time = z.int().nullable();

const batchSchema = z.object({
  id: z.string().openapi({ example: 'batch_01J9ZK0T9WQ2Y4ZJ4N5T6V7X8Y' }),
  object: z.literal('batch'),
  endpoint: z.string(),
  errors: z.object({
    object: z.literal('list'),
    data: z.array(z.object({ code: z.string(), message: z.string(), param: z.string().nullable(), line: z.int().nullable() })),
  }).nullable().openapi({ description: 'Why it failed, line by line; then none of it has run.' }),
  input_file_id: z.string(),
  completion_window: z.literal('24h'),
  status: z.enum(['validating', 'failed', 'in_progress', 'finalizing', 'completed', 'expired', 'cancelling', 'cancelled']),
  output_file_id: z.string().nullable(),
  error_file_id: z.string().nullable(),
  created_at: z.int(),
  in_progress_at: time,
  expires_at: z.int(),
  finalizing_at: time,
  completed_at: time,
  failed_at: time,
  expired_at: time,
  cancelling_at: time,
  cancelled_at: time,
  request_counts: z.object({ total: z.int(), completed: z.int(), failed: z.int() }),
  metadata: z.record(z.string(), z.string()).nullable(),
}).openapi('Batch');

const one = { 200: { description: 'The batch', content: { 'application/json': { schema: batchSchema } } }, ...OPENAI_FAILURES };

const DESCRIPTION = `Each line of the file becomes a job. Every line is checked before any of them runs: if one is refused, the batch is \`failed\` and
\`errors\` names the lines. One whose server died goes on with any other.`;

export function batches(registry: Registry, store: NonNullable<AppOptions['storage']>['batches']): void {
  endpoint(registry, {
    method: 'post', path: '/v1/batches', tag: TAG, summary: 'Run a file of requests', description: DESCRIPTION, scope: 'write', loads: 'named',
    body: batchRequest, headers: idempotencyHeaders, responses: one,
  }, async ({ c, caller: { tenant }, body, signal, admit }) => {
    const asked = { endpoint: body.endpoint, inputFileId: body.input_file_id, metadata: body.metadata ?? null, idempotencyKey: idempotencyKey(c.req.raw), admit, tenant, signal };
    return Response.json(batchOf(await once('idempotency-key', async () => await store.create(asked))));
  });

  endpoint(registry, {
    method: 'get', path: '/v1/batches', tag: TAG, summary: 'List your batches, newest first', scope: 'read',
    query: pageQuery,
    responses: { 200: { description: 'Batches', content: { 'application/json': { schema: pageSchema(batchSchema) } } }, ...OPENAI_FAILURES },
  }, async ({ caller: { tenant }, query, signal }) => {
    const { batches: found, more } = await store.list({ ...query, tenant, signal });
    return pageResponse(found.map(batchOf), more);
  });

  endpoint(registry, {
    method: 'get', path: '/v1/batches/{id}', tag: TAG, summary: 'Look at a batch', scope: 'read', responses: one,
  }, async ({ caller: { tenant }, id, signal }) => Response.json(batchOf(await store.get(id, { tenant, signal }))));

  endpoint(registry, {
    method: 'post', path: '/v1/batches/{id}/cancel', tag: TAG, summary: 'Cancel a batch', scope: 'write',
    description: 'What has been answered by then is its output.', responses: one,
  }, async ({ caller: { tenant }, id, signal }) => Response.json(batchOf(await store.cancel(id, { tenant, signal }))));
}

function batchOf(view: BatchView): z.infer<typeof batchSchema> {
  const { status, faults } = view;
  const seconds = (ms: number | null) => (ms === null ? null : Math.floor(ms / 1_000));
  const endedAs = (end: BatchView['status']) => (status === end ? seconds(view.endedMs) : null);
  return {
    id: view.id,
    object: 'batch',
    endpoint: view.endpoint,
    errors: faults.length === 0 ? null : { object: 'list', data: faults.map(({ code, message, param, line }) => ({ code, message, param, line })) },
    input_file_id: view.inputFileId,
    completion_window: '24h',
    status,
    output_file_id: view.outputFileId,
    error_file_id: view.errorFileId,
    created_at: Math.floor(view.createdMs / 1_000),
    in_progress_at: seconds(view.inProgressMs),
    expires_at: Math.floor(view.expiresMs / 1_000),
    // Nothing is stored when the last job ends: the end is the first that is known.
    finalizing_at: seconds(view.endedMs),
    completed_at: endedAs('completed'),
    failed_at: seconds(view.failedMs),
    expired_at: endedAs('expired'),
    cancelling_at: status === 'cancelling' || status === 'cancelled' ? seconds(view.stoppedMs) : null,
    cancelled_at: endedAs('cancelled'),
    request_counts: { ...view.counts },
    metadata: view.metadata === null ? null : { ...view.metadata },
  };
}
