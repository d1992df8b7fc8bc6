/** /v1/webhooks: where a tenant is told that its jobs and batches have ended, and what it was told. */
import { z } from '@hono/zod-openapi';

import { LIMITS } from '../../engine/core/limits.ts';
import { EVENT_PATTERNS } from '../../engine/webhook/events.ts';
import type { DeliveryView, HookView } from '../../engine/webhook/webhooks.ts';
import type { AppOptions } from '../context.ts';
import { type Registry, endpoint } from '../endpoint.ts';
import { refuseKey } from '../idempotency.ts';
import { NATIVE_FAILURES } from '../jobs/common.ts';
import { listLimit } from '../query.ts';

const TAG = 'Webhooks';

const request = z.strictObject({
  url: z.string().min(1).max(LIMITS.WEBHOOK_URL_CHARS_MAX).openapi({ description: 'https://, of the public internet.', example: 'https://example.com/hooks' }),
  events: z.array(z.enum(EVENT_PATTERNS)).min(1).max(EVENT_PATTERNS.length).openapi({ example: ['job.*', 'batch.completed'] }),
}).openapi('WebhookRequest');

const fields = {
  object: z.literal('webhook'),
  id: z.string().openapi({ example: 'we_01J9ZK0T9WQ2Y4ZJ4N5T6V7X8Y' }),
  url: z.string(),
  events: z.array(z.string()),
  created_at: z.int(),
};
const webhookSchema = z.object(fields).openapi('Webhook');
const withSecret = z.object({ ...fields, secret: z.string().openapi({ description: 'Told here and never again.', example: 'whsec_…' }) }).openapi('WebhookWithSecret');

const deliverySchema = z.object({
  object: z.literal('webhook.delivery'),
  id: z.string().openapi({ description: 'The webhook-id, the same at every attempt.' }),
  type: z.string(),
  subject: z.string().openapi({ description: 'The job or batch.' }),
  state: z.enum(['pending', 'delivered', 'failed']),
  attempts: z.int().openapi({ description: 'Since it was made, or replayed last.' }),
  replays: z.int(),
  last_status: z.int().nullable().openapi({ description: 'HTTP status of the last attempt; null: nobody has answered.' }),
  last_fault: z.string().nullable().openapi({ description: 'Why nobody has.' }),
  created_at: z.int(),
  next_attempt_at: z.int().nullable(),
  ended_at: z.int().nullable(),
}).openapi('WebhookDelivery');

const listOf = <T extends z.ZodType>(item: T) => z.object({ object: z.literal('list'), data: z.array(item), has_more: z.boolean() });
const json = <T extends z.ZodType>(description: string, schema: T) => ({ description, content: { 'application/json': { schema } } });

const DESCRIPTION = `POST requests signed as [Standard Webhooks](https://www.standardwebhooks.com) have it. A webhook names what has ended and where to read it;
the result stays readable whatever becomes of the webhook. Attempts go on for about 28 hours; any 2xx ends them, 410 gives up.`;

export function webhooks(registry: Registry, store: NonNullable<AppOptions['webhooks']>): void {
  endpoint(registry, {
    method: 'post', path: '/v1/webhooks', tag: TAG, summary: 'Be told when something ends', description: DESCRIPTION, scope: 'write',
    body: request, responses: { 201: json('The webhook, with its secret', withSecret), ...NATIVE_FAILURES },
  }, async ({ c, caller: { tenant }, body, signal }) => {
    // The secret is told once: a repetition could not be told it.
    refuseKey(c.req.raw, 'GET /v1/webhooks says whether the webhook was made, and its rotate gives another secret.');
    const made = await store.create({ ...body, tenant, signal });
    return Response.json({ ...webhookOf(made), secret: made.secret }, { status: 201, headers: { location: `/v1/webhooks/${made.id}` } });
  });

  endpoint(registry, {
    method: 'get', path: '/v1/webhooks', tag: TAG, summary: 'List your webhooks', scope: 'read',
    responses: { 200: json('All of them', listOf(webhookSchema)), ...NATIVE_FAILURES },
  }, async ({ caller: { tenant }, signal }) => Response.json({ object: 'list', data: (await store.list({ tenant, signal })).map(webhookOf), has_more: false }));

  endpoint(registry, {
    method: 'get', path: '/v1/webhooks/{id}', tag: TAG, summary: 'Look at a webhook', scope: 'read', responses: { 200: json('The webhook', webhookSchema), ...NATIVE_FAILURES },
  }, async ({ caller: { tenant }, id, signal }) => Response.json(webhookOf(await store.get(id, { tenant, signal }))));

  endpoint(registry, {
    method: 'delete', path: '/v1/webhooks/{id}', tag: TAG, summary: 'Be told no more', scope: 'write',
    description: 'What is due to it is not sent.', responses: { 204: { description: 'It is gone' }, ...NATIVE_FAILURES },
  }, async ({ caller: { tenant }, id, signal }) => {
    await store.delete(id, { tenant, signal });
    return new Response(null, { status: 204 });
  });

  endpoint(registry, {
    method: 'post', path: '/v1/webhooks/{id}/rotate', tag: TAG, summary: 'Get a new secret', scope: 'write',
    description: 'The one before signs beside it for a day.', responses: { 200: json('The webhook, with its new secret', withSecret), ...NATIVE_FAILURES },
  }, async ({ caller: { tenant }, id, signal }) => {
    const rotated = await store.rotate(id, { tenant, signal });
    return Response.json({ ...webhookOf(rotated), secret: rotated.secret });
  });

  endpoint(registry, {
    method: 'get', path: '/v1/webhooks/{id}/deliveries', tag: TAG, summary: 'What it was told, and what it is to be told', scope: 'read',
    description: 'Kept for a week after their end.',
    query: z.strictObject({
      limit: listLimit,
      after: z.string().max(64).optional().openapi({ description: 'The id after which to go on.' }),
    }),
    responses: { 200: json('Deliveries, newest first', listOf(deliverySchema)), ...NATIVE_FAILURES },
  }, async ({ caller: { tenant }, id, query, signal }) => {
    const { deliveries, more } = await store.deliveries(id, { ...query, tenant, signal });
    return Response.json({ object: 'list', data: deliveries.map(deliveryOf), has_more: more });
  });

  endpoint(registry, {
    method: 'post', path: '/v1/webhooks/{id}/deliveries/{delivery}/replay', tag: TAG, summary: 'Send it once more', scope: 'write',
    description: 'With the same webhook-id, and again if that fails.', responses: { 200: json('The delivery', deliverySchema), ...NATIVE_FAILURES },
  }, async ({ c, caller: { tenant }, id, signal }) => Response.json(deliveryOf(await store.replay(id, c.req.param('delivery') ?? '', { tenant, signal }))));
}

function webhookOf({ id, url, events, createdMs }: HookView): z.infer<typeof webhookSchema> {
  return { object: 'webhook', id, url, events: [...events], created_at: Math.floor(createdMs / 1_000) };
}

function deliveryOf({ id, type, subject, state, attempts, round, status, fault, createdMs, nextMs, endedMs }: DeliveryView): z.infer<typeof deliverySchema> {
  const seconds = (ms: number | null) => (ms === null ? null : Math.floor(ms / 1_000));
  return {
    object: 'webhook.delivery', id, type, subject, state, attempts, replays: round, last_status: status, last_fault: fault,
    created_at: Math.floor(createdMs / 1_000), next_attempt_at: seconds(nextMs), ended_at: seconds(endedMs),
  };
}
