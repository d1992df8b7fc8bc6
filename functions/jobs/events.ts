/** GET /v1/jobs/{id}/events: a job's events as they were and come, from after the last one that the reader has. Any instance serves it. */
import { z } from '@hono/zod-openapi';

import type { JobEvent } from '../../engine/control/platform.ts';
import type { JobState } from '../../engine/kv/head.ts';
import { type Registry, endpoint, noteFailed } from '../endpoint.ts';
import { HttpError } from '../errors.ts';
import { problemOf } from '../problem.ts';
import { wholeNumber } from '../query.ts';
import { frame, sseResponse, sseSchema } from '../sse.ts';
import { isOver } from './views.ts';
import { NATIVE_FAILURES, jobId } from './common.ts';

const DESCRIPTION = `Server-sent events. Numbered ones (\`id:\` is the number) are \`token\`, \`finish\` and \`result\`: they come once each and in order, the
same from every instance. \`state\` carries no number and may be missed. \`end\` is last and repeats the last number: who reconnects with it is
told 204, which ends a browser's EventSource. Go on with \`Last-Event-ID\` or \`?after=\`; the header counts if both are given.`;

/** Empty: as if it were not there, which is what clients mean by it. */
const LAST_EVENT_ID = /^(-1|\d{1,15})?$/;
/** -1: from the beginning. */
const query = z.strictObject({ after: wholeNumber(-1).optional() });

export function jobEvents(registry: Registry): void {
  const { services } = registry;
  const { platform } = services;
  endpoint(registry, {
    method: 'get',
    path: '/v1/jobs/{id}/events',
    tag: 'Jobs',
    summary: 'Follow a job',
    description: DESCRIPTION,
    scope: 'read',
    query,
    headers: z.object({ 'last-event-id': z.string().regex(LAST_EVENT_ID).optional() }),
    responses: {
      200: { description: 'The events', content: { 'text/event-stream': { schema: sseSchema } } },
      204: { description: 'The job is over and the reader has everything' },
      ...NATIVE_FAILURES,
    },
  }, async ({ c, caller: { tenant }, query: { after: asked }, signal, id, hold }) => {
    const after = lastEventId(c.req.header('last-event-id')) ?? asked;
    const job = jobId(id);
    c.set('job', job);
    const view = await platform.get(job, { tenant, signal });
    if (after !== undefined && isOver(view.state) && !(await hasMore(platform.events(job, { tenant, signal, after })))) return new Response(null, { status: 204 });
    const release = hold();
    return sseResponse((gone) => eventFrames(platform.events(job, { tenant, signal: gone, after }), view.state, after ?? -1), {
      ...services,
      onError: (error) => frame(JSON.stringify(problemOf(noteFailed(services, c, error), c.get('requestId'))), { event: 'error' }),
      onEnd: release,
    });
  });
}

async function hasMore(events: AsyncIterable<JobEvent>): Promise<boolean> {
  for await (const event of events) if ('seq' in event) return true;
  return false;
}

async function* eventFrames(events: AsyncIterable<JobEvent>, before: JobState, after: number): AsyncGenerator<string> {
  let state = before;
  let last = after;
  for await (const event of events) {
    if (event.kind === 'state' || event.kind === 'result') state = event.state;
    if ('seq' in event) last = event.seq;
    const text = frameOf(event);
    if (text !== null) yield text;
  }
  yield frame(JSON.stringify({ state }), { event: 'end', id: `${last}` });
}

/** null: nothing that a reader is told. */
function frameOf(event: JobEvent): string | null {
  switch (event.kind) {
    case 'token': {
      const { seq, chain, index, token, delta, logprobs } = event;
      return frame(JSON.stringify({ seq, chain, index, token, ...delta, logprobs }), { event: 'token', id: `${seq}` });
    }
    case 'finish': {
      const { seq, chain, reason, answer, delta, logprobs } = event;
      return frame(JSON.stringify({ seq, chain, reason, answer, ...delta, logprobs }), { event: 'finish', id: `${seq}` });
    }
    case 'result': {
      const { seq, state, result } = event;
      return frame(JSON.stringify({ seq, state, result }), { event: 'result', id: `${seq}` });
    }
    case 'state':
      return frame(JSON.stringify({ state: event.state }), { event: 'state' });
    case 'idle':
      return null;
  }
}

function lastEventId(header: string | undefined): number | undefined {
  if (header === undefined || header === '') return undefined;
  if (LAST_EVENT_ID.test(header)) return Number(header);
  throw new HttpError('invalid_value', 'Last-Event-ID must be the number of an event.', { param: 'last-event-id' });
}
