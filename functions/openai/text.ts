/** POST /v1/completions: raw prompts, each a job of its own. The ids are in `x-ruminate-job`, in the order of the prompts. */
import type { JobView } from '../../engine/control/platform.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import type { Services } from '../context.ts';
import { type Registry, behind, endpoint, noteFailed } from '../endpoint.ts';
import { failureOf } from '../errors.ts';
import { cancelQuietly, waitFor } from '../foreground.ts';
import { type SubmitAs, idempotencyHeaders, idempotencyKey, submit } from '../idempotency.ts';
import { frame, sseResponse, sseSchema } from '../sse.ts';
import { OPENAI_FAILURES, envelopeOf } from './errors.ts';
import { textFrames, textOfJobs, textSchema } from './text-object.ts';
import { textJobs, textRequest } from './text-request.ts';

const DESCRIPTION = `The prompt is gone on with as it is: no chat template, and thinking is text like any other. With several prompts the choices of the
first come first. A client that goes away cancels the jobs, unless it gave an Idempotency-Key to come back with.`;

export function textCompletions(registry: Registry): void {
  const { services } = registry;
  endpoint(registry, {
    method: 'post', path: '/v1/completions', tag: 'OpenAI', summary: 'Go on with a text', description: DESCRIPTION, scope: 'write', loads: 'named',
    body: textRequest, headers: idempotencyHeaders,
    responses: {
      200: { description: 'The completion, or its chunks', content: { 'application/json': { schema: textSchema }, 'text/event-stream': { schema: sseSchema } } },
      ...OPENAI_FAILURES,
    },
  }, async ({ c, caller: { tenant }, body, signal, admit, hold }) => {
    const key = idempotencyKey(c.req.raw);
    const { specs, echoes, budget } = await textJobs(body, () => services.platform.models({ tenant, signal }));
    const views = await submitAll(services, specs, { tenant, key, admit, trace: c.get('trace') });
    const jobs = views.map((view, at) => ({ view, echo: echoes[at] ?? '' }));
    c.set('job', views[0]?.id ?? '');
    const headers = { 'x-ruminate-job': views.map(({ id }) => id).join(', ') };
    const leave = () => (key === undefined ? cancelAll(services, views, tenant) : undefined);
    if (body.stream !== true) {
      try {
        const waited = await Promise.all(views.map(({ id }) => waitFor(services, id, tenant, signal, key !== undefined)));
        return Response.json(textOfJobs(jobs, budget, waited), { headers });
      } catch (error) {
        // One that failed leaves no answer for the others; one that only takes long does.
        if (failureOf(error).code !== 'still_running') await leave();
        throw error;
      }
    }
    const release = hold();
    return sseResponse((gone) => textFrames((job) => services.platform.events(job, { tenant, signal: gone }), jobs, budget, body.stream_options?.include_usage === true), {
      ...services,
      headers,
      onError: (error) => frame(JSON.stringify(envelopeOf(noteFailed(services, c, error)))),
      onEnd: (gone) => {
        release();
        if (gone && key === undefined) behind(c, cancelAll(services, views, tenant));
      },
    });
  });
}

/** All or none: those that were made before one is refused are cancelled. */
async function submitAll(services: Services, specs: readonly JobSpec[], as: SubmitAs): Promise<readonly JobView[]> {
  const views: JobView[] = [];
  try {
    for (const [at, spec] of specs.entries()) views.push(await submit(services, spec, { ...as, key: keyOf(as.key, at) }));
    return views;
  } catch (error) {
    if (as.key === undefined) await cancelAll(services, views, as.tenant);
    throw error;
  }
}

/** Of the job of a prompt: no key that a client can send, but for the first. */
function keyOf(key: string | undefined, at: number): string | undefined {
  return key === undefined || at === 0 ? key : `${key}\n${at}`;
}

async function cancelAll(services: Services, views: readonly JobView[], tenant: string): Promise<void> {
  await Promise.all(views.map(({ id }) => cancelQuietly(services, id, tenant)));
}
