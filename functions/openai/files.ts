/** /v1/files, as OpenAI's: what batches read and what they write. */
import { z } from '@hono/zod-openapi';

import type { FileView } from '../../engine/control/files.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import { byteStream } from '../byte-stream.ts';
import type { AppOptions } from '../context.ts';
import { type Registry, check, endpoint } from '../endpoint.ts';
import { idempotencyHeaders, idempotencyKey, once } from '../idempotency.ts';
import { readUpload } from '../upload.ts';
import { OPENAI_FAILURES } from './errors.ts';
import { pageQuery, pageResponse, pageSchema } from './list.ts';

const TAG = 'OpenAI';

const fileSchema = z.object({
  id: z.string().openapi({ example: 'file-01J9ZK0T9WQ2Y4ZJ4N5T6V7X8Y' }),
  object: z.literal('file'),
  bytes: z.int(),
  created_at: z.int(),
  filename: z.string(),
  purpose: z.enum(['batch', 'batch_output']),
  status: z.literal('processed'),
}).openapi('File');

const uploadSchema = z.strictObject({ purpose: z.literal('batch') });

const one = { 200: { description: 'The file', content: { 'application/json': { schema: fileSchema } } }, ...OPENAI_FAILURES };

export function files(registry: Registry, store: NonNullable<AppOptions['storage']>['files']): void {
  const { clock, log } = registry.services;

  endpoint(registry, {
    method: 'post', path: '/v1/files', tag: TAG, summary: 'Upload a file of requests', scope: 'write',
    description: `JSON lines, for a batch: at most ${LIMITS.BATCH_LINES_MAX} of them and ${LIMITS.FILE_BYTES_MAX} bytes.`,
    form: uploadSchema.extend({ file: z.string().openapi({ format: 'binary' }) }), headers: idempotencyHeaders,
    responses: one,
  }, async ({ c, caller: { tenant }, signal }) => {
    const key = idempotencyKey(c.req.raw);
    const { filename, content, fields } = await readUpload(c.req.raw, clock, 'file');
    check(uploadSchema, fields);
    return Response.json(fileOf(await once('idempotency-key', async () => await store.create(content, { filename, idempotencyKey: key, tenant, signal }))));
  });

  endpoint(registry, {
    method: 'get', path: '/v1/files', tag: TAG, summary: 'List your files', scope: 'read',
    query: pageQuery.extend({
      order: z.enum(['asc', 'desc']).default('desc'),
      purpose: z.string().max(64).optional(),
    }),
    responses: { 200: { description: 'Files', content: { 'application/json': { schema: pageSchema(fileSchema) } } }, ...OPENAI_FAILURES },
  }, async ({ caller: { tenant }, query, signal }) => {
    const { files: found, more } = await store.list({ ...query, tenant, signal });
    return pageResponse(found.map(fileOf), more);
  });

  endpoint(registry, {
    method: 'get', path: '/v1/files/{id}', tag: TAG, summary: 'Look at a file', scope: 'read', responses: one,
  }, async ({ caller: { tenant }, id, signal }) => Response.json(fileOf(await store.get(id, { tenant, signal }))));

  endpoint(registry, {
    method: 'get', path: '/v1/files/{id}/content', tag: TAG, summary: 'Read a file', scope: 'read',
    responses: { 200: { description: 'Its bytes', content: { 'application/octet-stream': { schema: z.string().openapi({ format: 'binary' }) } } }, ...OPENAI_FAILURES },
  }, async ({ c, caller: { tenant }, id, hold }) => {
    const gone = new AbortController();
    const { file, content } = await store.read(id, { tenant, signal: gone.signal });
    const release = hold();
    const body = byteStream(content, (error) => {
      release();
      gone.abort();
      if (error !== null) log.error({ request: c.get('requestId'), file: id, err: error }, 'a file could not be read to its end');
    });
    return new Response(body, { headers: { 'content-type': 'application/octet-stream', 'content-length': `${file.bytes}` } });
  });

  endpoint(registry, {
    method: 'delete', path: '/v1/files/{id}', tag: TAG, summary: 'Delete a file', scope: 'write',
    responses: { 200: { description: 'Deleted', content: { 'application/json': { schema: z.object({ id: z.string(), object: z.literal('file'), deleted: z.literal(true) }) } } }, ...OPENAI_FAILURES },
  }, async ({ caller: { tenant }, id, signal }) => {
    await store.delete(id, { tenant, signal });
    return Response.json({ id, object: 'file', deleted: true });
  });
}

function fileOf({ id, bytes, createdMs, filename, purpose }: FileView): z.infer<typeof fileSchema> {
  return { id, object: 'file', bytes, created_at: Math.floor(createdMs / 1_000), filename, purpose, status: 'processed' };
}
