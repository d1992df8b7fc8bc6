/** Whether to send work here, for load balancers and people; and /metrics, if whoever made the app has some. None of it needs a key. */
import { z } from '@hono/zod-openapi';

import type { PlatformHealth } from '../engine/control/platform.ts';
import type { AppOptions } from './context.ts';
import type { Registry } from './endpoint.ts';

const healthSchema = z.object({
  state: z.enum(['starting', 'ready', 'draining']),
  queued: z.int().openapi({ description: 'Jobs that wait for a worker.' }),
  running: z.int(),
  queue_age_ms: z.number().openapi({ description: 'Of the job that waits longest; jobs of batches do not count.' }),
  store: z.enum(['reachable', 'unreachable']).optional().openapi({ description: 'Where readiness is asked for: whether the store has answered in the last seconds.' }),
}).openapi('Health');

type Check = 'live' | 'startup' | 'ready';

/** `live`: the process answers. `startup`: it has begun. `ready`: it takes work, and its store answers. */
const CHECKS = {
  '/health/live': ['The process answers', 'live'],
  '/health/startup': ['It has started', 'startup'],
  '/health/ready': ['It takes work, and its store answers', 'ready'],
  /** As vLLM's. */
  '/health': ['As /health/ready', 'ready'],
  /** As the Open Inference Protocol's. */
  '/v2/health/live': ['As /health/live', 'live'],
  '/v2/health/ready': ['As /health/ready', 'ready'],
} as const satisfies Readonly<Record<string, readonly [string, Check]>>;

const PASSES: Readonly<Record<Check, (state: PlatformHealth['state']) => boolean>> = { live: () => true, startup: (state) => state !== 'starting', ready: (state) => state === 'ready' };

export function health({ app, services, methods }: Registry): void {
  for (const [path, [summary, check]] of Object.entries(CHECKS)) {
    const content = { 'application/json': { schema: healthSchema } };
    app.openAPIRegistry.registerPath({
      method: 'get', path, tags: ['Operation'], summary,
      responses: { 200: { description: 'Yes', content }, ...(check === 'live' ? {} : { 503: { description: 'Not now', content } }) },
    });
    methods.set(path, ['get']);
    app.get(path, async () => {
      const { state, queued, running, queueAgeMs } = await services.platform.health();
      const passes = PASSES[check](state);
      const isThere = check === 'ready' && passes && services.asksStore ? await services.platform.isStoreThere() : null;
      const store = isThere === null ? {} : { store: isThere ? 'reachable' as const : 'unreachable' as const };
      const body: z.infer<typeof healthSchema> = { state, queued, running, queue_age_ms: queueAgeMs, ...store };
      return Response.json(body, { status: passes && isThere !== false ? 200 : 503, headers: { 'cache-control': 'no-store' } });
    });
  }
}

export function metrics({ app, methods }: Registry, collect: NonNullable<AppOptions['metrics']>): void {
  app.openAPIRegistry.registerPath({
    method: 'get', path: '/metrics', tags: ['Operation'], summary: 'Metrics for Prometheus',
    responses: { 200: { description: 'The metrics', content: { 'text/plain': { schema: z.string() } } } },
  });
  methods.set('/metrics', ['get']);
  app.get('/metrics', async () => {
    const { contentType, body } = await collect();
    return new Response(body, { headers: { 'content-type': contentType, 'cache-control': 'no-store' } });
  });
}
