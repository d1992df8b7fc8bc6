/** /v1/responses: a job in the foreground or the background, read again and followed from anywhere, cancelled, erased. */
import { z } from '@hono/zod-openapi';
import type { Context } from 'hono';

import type { JobView } from '../../engine/control/platform.ts';
import type { AppEnv } from '../context.ts';
import { behind, endpoint, noteFailed, type Registry } from '../endpoint.ts';
import { HttpError } from '../errors.ts';
import { answering, cancelQuietly, forget, refuseUnstored, waitFor } from '../foreground.ts';
import { idempotencyHeaders, idempotencyKey, submit } from '../idempotency.ts';
import { jobId } from '../jobs/common.ts';
import { STATUS, isOver } from '../jobs/views.ts';
import { wholeNumber } from '../query.ts';
import { frame, sseResponse, sseSchema } from '../sse.ts';
import { Transcript } from '../transcript.ts';
import { OPENAI_FAILURES, envelopeOf } from './errors.ts';
import { inputItemsPage, inputItemsQuery, inputItemsSchema } from './input-items.ts';
import { resolved } from './references.ts';
import { type Ended, type ResponseObject, endedResponse, jobOfResponse, pendingResponse, responseId, responseSchema } from './response-object.ts';
import { responseJob, responseRequest } from './response-request.ts';
import { responseFrames } from './response-stream.ts';

const TAG = 'OpenAI';
const whole = { 'application/json': { schema: responseSchema } };
const answers = { 200: { description: 'The response, or its events', content: { ...whole, 'text/event-stream': { schema: sseSchema } } }, ...OPENAI_FAILURES } as const;

const flag = z.enum(['true', 'false']).transform((text) => text === 'true');

export function responses(registry: Registry): void {
  const { services } = registry;
  const { platform } = services;

  endpoint(registry, {
    method: 'post', path: '/v1/responses', tag: TAG, summary: 'Make a response', scope: 'write', loads: 'named',
    description: 'In the foreground a client that goes away cancels it, unless it gave an Idempotency-Key. Several chains show the elected one at the end.',
    body: responseRequest, headers: idempotencyHeaders, responses: answers,
  }, async ({ c, caller: { tenant }, body, signal, admit, hold }) => {
    const key = idempotencyKey(c.req.raw);
    const spec = await responseJob(await resolved(body, (job) => outputOf(job, tenant, signal)), () => platform.models({ tenant, signal }));
    refuseUnstored(body.store, { key, background: body.background });
    const asked = body.previous_response_id;
    const previous = asked === undefined ? undefined : { job: jobOfResponse(asked), param: 'previous_response_id' };
    const view = await submit(services, spec, { tenant, key, admit, previous, via: body.background === true ? 'response' : undefined, trace: c.get('trace') });
    const keep = body.background === true || key !== undefined;
    if (body.stream === true) return streamed(c, view, { tenant, startingAfter: null, release: hold(), keep, store: body.store });
    c.set('job', view.id);
    if (body.background === true) return answered(isOver(view.state) ? await readEnded(view, tenant, signal) : pendingResponse(view, STATUS[view.state]));
    return await answering(services, { job: view.id, tenant, store: body.store }, async () => {
      const { transcript } = await waitFor(services, view.id, tenant, signal, keep);
      return answered(endedResponse(await settled(view, tenant, signal), transcript));
    });
  });

  endpoint(registry, {
    method: 'get', path: '/v1/responses/{id}', tag: TAG, summary: 'Look at a response, or follow it', scope: 'read',
    description: 'With `stream`, its events from after `starting_after`, a `sequence_number`: the same from every instance.',
    query: z.strictObject({ stream: flag.optional(), starting_after: wholeNumber(0).optional(), include_obfuscation: z.literal('false').optional() }),
    responses: answers,
  }, async ({ c, caller: { tenant }, query, signal, id, hold }) => {
    if (query.stream !== true && query.starting_after !== undefined) throw new HttpError('invalid_value', 'starting_after needs stream=true.', { param: 'starting_after' });
    const view = await platform.get(jobId(jobOfResponse(id)), { tenant, signal });
    c.set('job', view.id);
    if (query.stream === true) return streamed(c, view, { tenant, startingAfter: query.starting_after ?? null, release: hold(), keep: true });
    return answered(isOver(view.state) ? await readEnded(view, tenant, signal) : pendingResponse(view, STATUS[view.state]));
  });

  endpoint(registry, {
    method: 'get', path: '/v1/responses/{id}/input_items', tag: TAG, summary: 'List what a response was made of', scope: 'read',
    description: 'All turns that the model was shown, also those of the responses before it, in pages; not its instructions.',
    query: inputItemsQuery,
    responses: { 200: { description: 'Items', content: { 'application/json': { schema: inputItemsSchema } } }, ...OPENAI_FAILURES },
  }, async ({ c, caller: { tenant }, query, signal, id }) => {
    const job = jobId(jobOfResponse(id));
    c.set('job', job);
    return inputItemsPage(job, await platform.turns(job, { tenant, signal }), query);
  });

  endpoint(registry, {
    method: 'post', path: '/v1/responses/{id}/cancel', tag: TAG, summary: 'Cancel a response', scope: 'write',
    description: 'One that has ended stays as it ended.', responses: { 200: { description: 'The response', content: whole }, ...OPENAI_FAILURES },
  }, async ({ c, caller: { tenant }, signal, id }) => {
    const view = await platform.cancel(jobId(jobOfResponse(id)), { tenant, signal });
    c.set('job', view.id);
    return answered(isOver(view.state) ? await readEnded(view, tenant, signal) : pendingResponse(view, STATUS[view.state]));
  });

  endpoint(registry, {
    method: 'delete', path: '/v1/responses/{id}', tag: TAG, summary: 'Erase a response', scope: 'write',
    responses: {
      200: { description: 'It is gone', content: { 'application/json': { schema: z.object({ id: z.string(), object: z.literal('response'), deleted: z.literal(true) }) } } },
      ...OPENAI_FAILURES,
    },
  }, async ({ c, caller: { tenant }, signal, id }) => {
    const job = jobId(jobOfResponse(id));
    c.set('job', job);
    await platform.erase(job, { tenant, signal });
    return Response.json({ id: responseId(job), object: 'response', deleted: true });
  });

  /** All of a response that is over: its events say it, and they end. */
  async function readEnded(view: JobView, tenant: string, signal: AbortSignal): Promise<ResponseObject> {
    const transcript = new Transcript();
    for await (const event of platform.events(view.id, { tenant, signal })) transcript.take(event);
    return endedResponse({ view, endedMs: await platform.endedMs(view.id, { tenant, signal }) }, transcript);
  }

  async function outputOf(job: string, tenant: string, signal: AbortSignal): Promise<ResponseObject['output']> {
    const view = await platform.get(jobId(job), { tenant, signal });
    // What is still being written is nobody's to go on from.
    return isOver(view.state) ? (await readEnded(view, tenant, signal)).output : [];
  }

  /** How much of a prompt was read and not computed is known once it has begun. */
  async function settled(view: JobView, tenant: string, signal: AbortSignal): Promise<Ended> {
    const { id, parent } = view;
    return { view: parent?.kind === 'continue' ? await platform.get(id, { tenant, signal }) : view, endedMs: await platform.endedMs(id, { tenant, signal }) };
  }

  interface Following {
    readonly tenant: string;
    readonly startingAfter: number | null;
    readonly release: () => void;
    /** The job goes on when its reader leaves. */
    readonly keep: boolean;
    readonly store?: boolean | undefined;
  }

  function streamed(c: Context<AppEnv>, view: JobView, { tenant, startingAfter, release, keep, store }: Following): Response {
    c.set('job', view.id);
    return sseResponse((gone) => responseFrames(platform.events(view.id, { tenant, signal: gone }), view, () => settled(view, tenant, gone), startingAfter), {
      ...services,
      headers: { 'x-ruminate-job': view.id },
      onError: (error) => frame(JSON.stringify({ type: 'error', ...envelopeOf(noteFailed(services, c, error)) }), { event: 'error' }),
      onEnd: (gone) => {
        release();
        if (store === false) behind(c, forget(services, view.id, tenant));
        else if (gone && !keep) behind(c, cancelQuietly(services, view.id, tenant));
      },
    });
  }
}

function answered(response: ResponseObject): Response {
  return Response.json(response, { headers: { 'x-ruminate-job': jobOfResponse(response.id) } });
}
