/**
 * One way to declare an endpoint: the schemas that validate a request are those that document it. The order is always the same: who asks,
 * whether they may now, whether there is room, then the body.
 */
import { type RouteConfig, z } from '@hono/zod-openapi';
import type { Context } from 'hono';

import { type Caller, type KeyLookup, type Scope, authorize, requireScope } from './auth.ts';
import { readJson } from './body.ts';
import type { App, AppEnv, Services } from './context.ts';
import { type Failure, HttpError, failureOf, isFault } from './errors.ts';
import { at, fieldName, isName, parseGiven, refuseMalformed } from './given.ts';
import { HTTP_LIMITS } from './limits.ts';
import { queryOf } from './query.ts';
import type { Admitted, Guesses, Rates } from './rates.ts';
import { traceRequest } from './trace.ts';

type Responses = RouteConfig['responses'];

export interface Endpoint<B extends z.ZodType, Q extends z.ZodType> {
  readonly method: 'get' | 'post' | 'put' | 'delete';
  /** `/v1/jobs/{id}` */
  readonly path: string;
  readonly tag: string;
  readonly summary: string;
  readonly description?: string | undefined;
  readonly scope: Scope;
  /**
   * Makes work: refused while jobs wait too long or the server drains, or the tenant has as many jobs as it may. `named`: it makes none under a key or
   * id that stands for one, and leaves the last of these to whoever finds out (Asked.admit). `asks`: the same, and an id may stand in its body.
   */
  readonly loads?: 'named' | 'asks' | undefined;
  readonly body?: B | undefined;
  /** A form that the endpoint reads itself (upload.ts); for the documentation. */
  readonly form?: z.ZodObject | undefined;
  /** Default: it takes none. */
  readonly query?: Q | undefined;
  readonly headers?: z.ZodObject | undefined;
  readonly responses: Responses;
}

export interface Asked<B, Q> {
  readonly c: Context<AppEnv>;
  readonly caller: Caller;
  readonly body: B;
  readonly query: Q;
  /** Of the connection: aborts when the client goes. */
  readonly signal: AbortSignal;
  /** The `{id}` of the path. */
  readonly id: string;
  /** Before a job is made. @throws HttpError too_many_jobs */
  admit(): Promise<void>;
  /** The request goes on after its answer has begun, until the returned function is called. */
  hold(): () => void;
}

/** A failure in the middle of a stream: the status has gone out already. */
export function noteFailed({ log }: Services, c: Context<AppEnv>, error: unknown): Failure {
  const failure = failureOf(error);
  const fields = { request: c.get('requestId'), job: c.get('job'), code: failure.code, err: error };
  if (isFault(failure)) log.error(fields, 'a stream failed');
  else log.info(fields, 'a stream ended early');
  return failure;
}

/** What is done although nobody waits for it; a host that ends a request with its client (workerd) is told to let it be done. */
export function behind(c: Context<AppEnv>, work: Promise<unknown>): void {
  let host: { waitUntil(work: Promise<unknown>): void } | null = null;
  try {
    host = c.executionCtx;
  } catch {
    // Hono's way to say that there is none.
  }
  host?.waitUntil(work);
}

export interface Registry {
  readonly app: App;
  readonly services: Services;
  readonly auth: KeyLookup | null;
  readonly rates: Rates;
  readonly guesses: Guesses;
  /** Methods of each path, for 405. */
  readonly methods: Map<string, string[]>;
}

export function endpoint<B extends z.ZodType = z.ZodUndefined, Q extends z.ZodType = z.ZodUndefined>(
  registry: Registry, declared: Endpoint<B, Q>, answer: (asked: Asked<z.infer<B>, z.infer<Q>>) => Promise<Response>,
): void {
  const { app, services, auth, rates, guesses } = registry;
  document(app, declared, auth !== null);
  const path = declared.path.replaceAll(/\{(\w+)\}/g, ':$1');
  const schema = declared.query ?? NO_QUERY;
  registry.methods.set(path, [...(registry.methods.get(path) ?? []), declared.method]);
  app.on(declared.method, path, async (c) => {
    const trace = traceRequest(services, c, declared.method, declared.path);
    let admitted: Admitted | null = null;
    let held = false;
    let body: unknown;
    const release = () => {
      admitted?.release();
      trace.end();
    };
    try {
      const caller = await authorize(c.req.raw, auth, guesses, c.env?.remote);
      c.set('caller', caller);
      admitted = rates.admit(caller);
      c.set('rates', admitted.headers);
      // After the rate: refusals count too.
      requireScope(caller, declared.scope);
      const room = () => refuseMany(services, caller, c.req.raw.signal);
      const isNamed = declared.loads === 'asks' || (declared.method === 'put' || c.req.raw.headers.has('idempotency-key'));
      if (declared.loads !== undefined) await refuseMore(services);
      if (declared.loads !== undefined && !isNamed) await room();
      const query = check(schema, queryOf(c.req.raw, schema));
      body = declared.body === undefined ? undefined : check(declared.body, await readJson(c.req.raw, services.clock));
      trace.model((body as { readonly model?: unknown } | undefined)?.model);
      const response = await answer({
        c,
        caller,
        body: body as z.infer<B>,
        query: query as z.infer<Q>,
        signal: c.req.raw.signal,
        id: c.req.param('id') ?? '',
        admit: isNamed ? room : async () => undefined,
        hold: () => {
          held = true;
          return release;
        },
      });
      trace.answered(response.status);
      // HEAD is answered by GET without its body: a stream that nobody will read ends here, and gives back what it holds.
      if (c.req.raw.method === 'HEAD') await response.body?.cancel();
      return response;
    } catch (error) {
      held = false;
      trace.failed(error);
      c.set('asked', body);
      throw error;
    } finally {
      if (!held) release();
    }
  });
}

const NO_QUERY = z.strictObject({});

function document<B extends z.ZodType, Q extends z.ZodType>(app: App, { body, form, query, headers, ...declared }: Endpoint<B, Q>, keys: boolean): void {
  const params = [...declared.path.matchAll(/\{(\w+)\}/g)].map((match) => [match[1] ?? '', z.string()] as const);
  app.openAPIRegistry.registerPath({
    method: declared.method,
    path: declared.path,
    tags: [declared.tag],
    summary: declared.summary,
    ...(declared.description === undefined ? {} : { description: declared.description }),
    ...(keys ? { security: [{ key: [] }] } : {}),
    request: {
      ...(params.length === 0 ? {} : { params: z.object(Object.fromEntries(params)) }),
      ...(query === undefined ? {} : { query: query as unknown as z.ZodObject }),
      ...(headers === undefined ? {} : { headers }),
      ...(body === undefined ? {} : { body: { required: true, content: { 'application/json': { schema: body } } } }),
      ...(form === undefined ? {} : { body: { required: true, content: { 'multipart/form-data': { schema: form } } } }),
    },
    responses: declared.responses,
  });
}

async function refuseMore({ platform, queueAgeMs }: Services): Promise<void> {
  const health = await platform.health();
  const headers = { 'retry-after': `${HTTP_LIMITS.SHED_RETRY_S}` };
  if (health.state === 'draining') throw new HttpError('draining', 'The server is going down and takes no new work.', { headers });
  if (health.queueAgeMs > queueAgeMs) throw new HttpError('overloaded', `Jobs have waited for ${Math.round(health.queueAgeMs)} ms; try again later.`, { headers });
}

async function refuseMany({ platform }: Services, { tenant, limits }: Caller, signal: AbortSignal): Promise<void> {
  const most = limits?.jobs;
  if (most !== undefined && (await platform.live(most, { tenant, signal })) >= most) {
    throw new HttpError('too_many_jobs', `The API key may have ${most} jobs that have not ended; try again when one has.`, { headers: { 'retry-after': `${HTTP_LIMITS.JOBS_RETRY_S}` } });
  }
}

/** What is wrong with a key that cannot be named is said of what it stands in. */
function nameOf(issue: z.core.$ZodIssue | undefined): string {
  const path = issue?.path ?? [];
  return fieldName(issue?.code === 'invalid_key' && !isName(path.at(-1) ?? '') ? path.slice(0, -1) : path);
}

/** @param value the caller's own (parseGiven). @throws HttpError that names the field; what stood in it is not repeated. */
export function check<T extends z.ZodType>(schema: T, value: unknown): z.infer<T> {
  refuseMalformed(value);
  const parsed = parseGiven(schema, value);
  if (parsed.success) return parsed.data;
  const { issues } = parsed.error;
  const isMissing = (one: (typeof issues)[number] | undefined) => (one?.code === 'invalid_type' || one?.code === 'invalid_union') && one.path.length > 0 && at(value, one.path) === undefined;
  // Whoever calls a field otherwise than we do has not forgotten it.
  const issue = (isMissing(issues[0]) ? issues.find(({ code }) => code === 'unrecognized_keys') : undefined) ?? issues[0];
  const path = nameOf(issue);
  if (issue?.code === 'unrecognized_keys') {
    const name = fieldName([...issue.path, issue.keys[0] ?? '']);
    throw new HttpError('unsupported_parameter', `${name} is not supported.`, { param: name });
  }
  if (isMissing(issue)) throw new HttpError('invalid_value', `${path} is required.`, { param: path });
  throw new HttpError('invalid_value', `${path === '' ? 'The body' : path}: ${issue?.message ?? 'is invalid'}`, { param: path === '' ? null : path });
}
