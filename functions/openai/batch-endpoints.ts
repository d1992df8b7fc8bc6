/** OpenAI's endpoints as lines of a batch: each read, refused and answered by what reads, refuses and answers the request alone. */
import type { z } from '@hono/zod-openapi';

import type { BatchEndpoint, LineRequest } from '../../engine/control/batch-lines.ts';
import type { CallerOptions, JobView, ModelView, Platform } from '../../engine/control/platform.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { failureAsked } from '../asked.ts';
import { check } from '../endpoint.ts';
import { HttpError } from '../errors.ts';
import { type Waited, endOf } from '../foreground.ts';
import { Transcript } from '../transcript.ts';
import { chatJob, chatRequest } from './chat-request.ts';
import { completionOf } from './completion.ts';
import { envelopeOf } from './errors.ts';
import { endedResponse } from './response-object.ts';
import { responseJob, responseRequest } from './response-request.ts';
import { textOfJobs } from './text-object.ts';
import { textJobs, textRequest } from './text-request.ts';

export type BatchPlatform = Pick<Platform, 'models' | 'events' | 'endedMs'>;
type Models = () => Promise<readonly ModelView[]>;

interface Made {
  readonly spec: JobSpec;
  /** Of a job that has ended with a result. */
  answer(view: JobView, waited: Waited, options: CallerOptions): unknown;
}

export const BATCH_URLS = ['/v1/chat/completions', '/v1/completions', '/v1/responses'] as const;

export function batchEndpoints(platform: BatchPlatform): readonly BatchEndpoint[] {
  return [batchOfChats(platform), batchOfTexts(platform), batchOfResponses(platform)];
}

export function batchOfChats(platform: BatchPlatform): BatchEndpoint {
  return endpointOf('/v1/chat/completions', platform, async (body, models) => {
    const request = alone(chatRequest, body);
    const { spec, budget } = await chatJob(request, models);
    return { spec, answer: (view, waited) => completionOf(view, budget, waited) };
  });
}

function batchOfTexts(platform: BatchPlatform): BatchEndpoint {
  return endpointOf('/v1/completions', platform, async (body, models) => {
    const request = alone(textRequest, body);
    const { specs: [spec, ...more], echoes: [echo = ''], budget } = await textJobs(request, models);
    if (spec === undefined || more.length > 0) throw new HttpError('invalid_value', 'prompt must be one text in a batch: each line is a job.', { param: 'prompt' });
    return { spec, answer: (view, waited) => textOfJobs([{ view, echo }], budget, [waited]) };
  });
}

function batchOfResponses(platform: BatchPlatform): BatchEndpoint {
  return endpointOf('/v1/responses', platform, async (body, models) => {
    const request = alone(responseRequest, body);
    if (request.background === true) throw new HttpError('invalid_value', 'background must be false in a batch, all of which is.', { param: 'background' });
    if (request.previous_response_id !== undefined) {
      throw new HttpError('invalid_value', 'previous_response_id must not be given in a batch: give all turns as input.', { param: 'previous_response_id' });
    }
    return { spec: await responseJob(request, models), answer: async (view, { transcript }, options) => endedResponse({ view, endedMs: await platform.endedMs(view.id, options) }, transcript) };
  });
}

/** A line is answered whole, and later. */
function alone<T extends z.ZodType<{ readonly stream?: boolean | undefined; readonly store?: boolean | undefined }>>(schema: T, body: unknown): z.infer<T> {
  const request = check(schema, body);
  if (request.stream === true) throw new HttpError('invalid_value', 'stream must be false in a batch.', { param: 'stream' });
  if (request.store === false) throw new HttpError('invalid_value', 'store must not be false in a batch.', { param: 'store' });
  return request;
}

function endpointOf(url: (typeof BATCH_URLS)[number], platform: BatchPlatform, make: (body: unknown, models: Models) => Promise<Made>): BatchEndpoint {
  return {
    url,
    async parse(body, { tenant, signal }): Promise<LineRequest> {
      const { spec, answer } = await make(body, () => platform.models({ tenant, signal }));
      return {
        spec,
        async answer(view, options) {
          const transcript = new Transcript();
          for await (const event of platform.events(view.id, options)) transcript.take(event);
          return await answer(view, { transcript, result: endOf(transcript, view.id) }, options);
        },
      };
    },
    failure(error, asked) {
      const failure = failureAsked(error, asked);
      const body = envelopeOf(failure);
      const { code, message, param } = body.error;
      return { status: failure.status, body, fault: { code: code ?? failure.code, message, param } };
    },
  };
}
