/** POST /v1/chat/completions. Every request is a stored job: its id is in `x-ruminate-job`, and `chatcmpl-<id>` is the completion's. */
import { behind, endpoint, noteFailed, type Registry } from '../endpoint.ts';
import { answering, cancelQuietly, forget, refuseUnstored, waitFor } from '../foreground.ts';
import { idempotencyHeaders, idempotencyKey, submit } from '../idempotency.ts';
import { frame, sseResponse, sseSchema } from '../sse.ts';
import { chatJob, chatRequest } from './chat-request.ts';
import { chatFrames } from './chat-stream.ts';
import { completionOf, completionSchema } from './completion.ts';
import { OPENAI_FAILURES, envelopeOf } from './errors.ts';

const DESCRIPTION = `One choice is the chain that the vote elected; with \`n\` above 1 there is no vote, and each chain is a choice.

Streams: one chain, or \`n\` choices, are sent token by token, thinking as \`reasoning_content\`. While several chains vote, chunks with an
empty delta say how far each is (\`hyperscale.chains\`); the elected chain's text comes at the end.

A client that goes away cancels the job, unless it gave an Idempotency-Key to come back with.`;

export function chatCompletions(registry: Registry): void {
  const { services } = registry;
  endpoint(registry, {
    method: 'post',
    path: '/v1/chat/completions',
    tag: 'OpenAI',
    summary: 'Answer a chat',
    description: DESCRIPTION,
    scope: 'write',
    loads: 'named',
    body: chatRequest,
    headers: idempotencyHeaders,
    responses: {
      200: { description: 'The completion, or its chunks', content: { 'application/json': { schema: completionSchema }, 'text/event-stream': { schema: sseSchema } } },
      ...OPENAI_FAILURES,
    },
  }, async ({ c, caller, body, signal, admit, hold }) => {
    const { tenant } = caller;
    const key = idempotencyKey(c.req.raw);
    refuseUnstored(body.store, { key });
    const { spec, budget } = await chatJob(body, () => services.platform.models({ tenant, signal }));
    const view = await submit(services, spec, { tenant, key, admit, trace: c.get('trace') });
    c.set('job', view.id);
    const headers = { 'x-ruminate-job': view.id };
    if (body.stream !== true) {
      const waited = await answering(services, { job: view.id, tenant, store: body.store }, () => waitFor(services, view.id, tenant, signal, key !== undefined));
      return Response.json(completionOf(view, budget, waited), { headers });
    }
    const release = hold();
    const options = { ...budget, view, includeUsage: body.stream_options?.include_usage === true, progressMs: services.progressMs, clock: services.clock };
    return sseResponse((gone) => chatFrames(services.platform.events(view.id, { tenant, signal: gone }), options), {
      ...services,
      headers,
      onError: (error) => frame(JSON.stringify(envelopeOf(noteFailed(services, c, error)))),
      onEnd: (gone) => {
        release();
        if (body.store === false) behind(c, forget(services, view.id, tenant));
        else if (gone && key === undefined) behind(c, cancelQuietly(services, view.id, tenant));
      },
    });
  });
}
