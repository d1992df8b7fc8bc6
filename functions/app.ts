/** The HTTP API on any Platform: the same code on Node, as a Lambda handler and on workerd. */
import { OpenAPIHono } from '@hono/zod-openapi';

import { NO_TELEMETRY } from '../engine/ports/telemetry.ts';
import { type App, type AppEnv, type AppOptions, type Services } from './context.ts';
import { webClock } from './clock.ts';
import { docs } from './docs.ts';
import type { Registry } from './endpoint.ts';
import { type Failure, HttpError, failureOf } from './errors.ts';
import { health, metrics } from './health.ts';
import { HTTP_LIMITS } from './limits.ts';
import { jobEvents } from './jobs/events.ts';
import { jobs } from './jobs/jobs.ts';
import { batches } from './openai/batches.ts';
import { chatCompletions } from './openai/chat.ts';
import { envelopeResponse } from './openai/errors.ts';
import { files } from './openai/files.ts';
import { models } from './openai/models.ts';
import { responses } from './openai/responses.ts';
import { problemResponse } from './problem.ts';
import { Guesses, Rates } from './rates.ts';
import { webhooks } from './webhooks/webhooks.ts';

/** @example serve({ fetch: createApp({ platform, auth: null, log: pino() }).fetch, port: 8787, hostname: '127.0.0.1' }) */
export function createApp(options: AppOptions): App {
  const app: App = new OpenAPIHono<AppEnv>();
  const services = servicesOf(options);
  const registry: Registry = { app, services, auth: options.auth, rates: new Rates(services.clock), guesses: new Guesses(services.clock), methods: new Map() };

  app.use(async (c, next) => {
    const start = services.clock.nowMs();
    c.set('requestId', requestId(c.req.header('x-request-id')));
    try {
      await next();
    } catch (thrown) {
      // onError sees Errors only; some libraries throw other things.
      services.log.error({ request: c.get('requestId'), job: c.get('job'), err: thrown }, 'failed');
      c.res = failed(c.req.path, c.get('requestId'), failureOf(thrown));
    }
    c.res.headers.set('x-request-id', c.get('requestId'));
    const { status } = c.res;
    const fields = { request: c.get('requestId'), method: c.req.method, path: c.req.path, status, ms: services.clock.nowMs() - start, tenant: c.get('caller')?.tenant, job: c.get('job') };
    services.log.info(fields, 'request');
  });

  chatCompletions(registry);
  responses(registry);
  models(registry);
  jobs(registry);
  jobEvents(registry);
  if (options.storage !== undefined) {
    files(registry, options.storage.files);
    batches(registry, options.storage.batches);
  }
  if (options.webhooks !== undefined) webhooks(registry, options.webhooks);
  health(registry);
  if (options.metrics !== undefined) metrics(registry, options.metrics);
  docs(registry, options.version ?? '0');

  for (const [path, methods] of registry.methods) {
    const allow = methods.map((method) => method.toUpperCase()).join(', ');
    app.all(path, (c) => {
      throw new HttpError('method_not_allowed', `${c.req.path} takes ${allow}.`, { headers: { allow } });
    });
  }
  app.notFound((c) => failed(c.req.path, c.get('requestId'), failureOf(new HttpError('not_found', 'There is no such address; GET /openapi.json lists them.'))));
  app.onError((error, c) => {
    const failure = failureOf(error);
    if (failure.status >= 500) services.log.error({ request: c.get('requestId'), job: c.get('job'), code: failure.code, err: error }, 'failed');
    return failed(c.req.path, c.get('requestId'), failure);
  });
  return app;
}

function servicesOf({ platform, log, clock, telemetry, limits }: AppOptions): Services {
  return {
    platform,
    log,
    telemetry: telemetry ?? NO_TELEMETRY,
    clock: clock ?? webClock,
    keepAliveMs: limits?.keepAliveMs ?? HTTP_LIMITS.KEEP_ALIVE_MS,
    progressMs: limits?.progressMs ?? HTTP_LIMITS.PROGRESS_MS,
    foregroundMs: limits?.foregroundMs ?? HTTP_LIMITS.FOREGROUND_MS,
    queueAgeMs: limits?.queueAgeMs ?? HTTP_LIMITS.QUEUE_AGE_MS,
  };
}

/** OpenAI's envelope where its clients ask, problem details elsewhere. */
function failed(path: string, request: string, failure: Failure): Response {
  const native = !path.startsWith('/v1/') || /^\/v1\/(jobs|quotes|checkpoints|webhooks)(\/|$)/.test(path);
  return native ? problemResponse(failure, request) : envelopeResponse(failure);
}

/** The client's own, if it can stand in a log; else a fresh one. */
function requestId(given: string | undefined): string {
  const usable = given !== undefined && given.length <= HTTP_LIMITS.REQUEST_ID_CHARS_MAX && /^[\w.-]+$/.test(given);
  return usable ? given : `req_${crypto.randomUUID().replaceAll('-', '')}`;
}
