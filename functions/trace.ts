/** A span for each request that an endpoint answers: its route, its status and the ids of what it was about; never an address, a header or a body. */
import type { Context } from 'hono';

import { ATTRIBUTE, OPERATION, PROVIDER } from '../engine/telemetry/names.ts';
import type { AppEnv, Services } from './context.ts';
import { failureOf } from './errors.ts';

export interface RequestTrace {
  /** What the body asked for, once it was checked. */
  model(name: unknown): void;
  answered(status: number): void;
  failed(error: unknown): void;
  /** When the answer has ended: of a stream, its last frame. Idempotent. */
  end(): void;
}

/** For the rest of the request its traceparent is `c.get('trace')`. */
export function traceRequest({ telemetry }: Services, c: Context<AppEnv>, method: string, route: string): RequestTrace {
  const span = telemetry.start(`${method.toUpperCase()} ${route}`, {
    kind: 'server', parent: c.req.header('traceparent'), attributes: { [ATTRIBUTE.METHOD]: method.toUpperCase(), [ATTRIBUTE.ROUTE]: route },
  });
  c.set('trace', span.traceparent);
  let code: string | null = null;
  return {
    model(name) {
      if (typeof name === 'string') span.set({ [ATTRIBUTE.GEN_AI_OPERATION]: OPERATION, [ATTRIBUTE.GEN_AI_PROVIDER]: PROVIDER, [ATTRIBUTE.GEN_AI_MODEL]: name });
    },
    answered: (status) => span.set({ [ATTRIBUTE.STATUS]: status }),
    failed(error) {
      const failure = failureOf(error);
      span.set({ [ATTRIBUTE.STATUS]: failure.status });
      // What a client does wrong is no fault of the server's.
      if (failure.status >= 500) code = failure.code;
    },
    end() {
      span.set({ [ATTRIBUTE.TENANT]: c.get('caller')?.tenant, [ATTRIBUTE.JOB]: c.get('job') });
      span.end(code);
    },
  };
}
