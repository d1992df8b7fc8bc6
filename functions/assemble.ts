/** What every function of the HTTP API has around its endpoints: request ids, the log, failures, health and its document. */
import { OpenAPIHono } from '@hono/zod-openapi';

import { systemClock } from '../engine/core/clock.ts';
import { NO_TELEMETRY } from '../engine/ports/telemetry.ts';
import { failureAsked } from './asked.ts';
import { type App, type AppEnv, type AppOptions, type Services } from './context.ts';
import { docs } from './docs.ts';
import type { Registry } from './endpoint.ts';
import { type Failure, HttpError, failureOf, isFault } from './errors.ts';
import { health } from './health.ts';
import { HTTP_LIMITS } from './limits.ts';
import { envelopeResponse } from './openai/errors.ts';
import { problemResponse } from './problem.ts';
import { Guesses, Rates } from './rates.ts';

/** Declares some of them. */
export type AddEndpoints = (registry: Registry, options: AppOptions) => void;

export function assemble(options: AppOptions, add: AddEndpoints): App {
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
    for (const [name, value] of Object.entries({ ...c.get('rates'), 'x-request-id': c.get('requestId') })) c.res.headers.set(name, value);
    const { status } = c.res;
    const fields = { request: c.get('requestId'), method: c.req.method, path: c.req.path, status, ms: services.clock.nowMs() - start, tenant: c.get('caller')?.tenant, job: c.get('job') };
    services.log.info(fields, 'request');
  });

  add(registry, options);
  health(registry);
  docs(registry, options.version);

  for (const [path, methods] of registry.methods) {
    const allow = methods.map((method) => method.toUpperCase()).join(', ');
    app.all(path, (c) => {
      throw new HttpError('method_not_allowed', `${c.req.path} takes ${allow}.`, { headers: { allow } });
    });
  }
  app.notFound((c) => failed(c.req.path, c.get('requestId'), failureOf(new HttpError('not_found', 'There is no such address; GET /openapi.json lists them.'))));
  app.onError((error, c) => {
    const failure = failureAsked(error, c.get('asked'));
    const fields = { request: c.get('requestId'), job: c.get('job'), code: failure.code };
    if (isFault(failure)) services.log.error({ ...fields, err: error }, 'failed');
    else if (failure.status >= 500) services.log.info(fields, 'refused');
    return failed(c.req.path, c.get('requestId'), failure);
  });
  return app;
}

function servicesOf({ platform, log, clock, telemetry, asksStore = true, limits }: AppOptions): Services {
  return {
    platform,
    log,
    telemetry: telemetry ?? NO_TELEMETRY,
    clock: clock ?? systemClock,
    asksStore,
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
