/** /v1/chat/completions as lines of a batch: read, refused and answered by what reads, refuses and answers the request alone. */
import type { BatchEndpoint } from '../../engine/control/batch-lines.ts';
import type { Platform } from '../../engine/control/platform.ts';
import { failureAsked } from '../asked.ts';
import { check } from '../endpoint.ts';
import { HttpError } from '../errors.ts';
import { endOf } from '../foreground.ts';
import { Transcript } from '../transcript.ts';
import { chatJob, chatRequest } from './chat-request.ts';
import { completionOf } from './completion.ts';
import { envelopeOf } from './errors.ts';

export function batchOfChats(platform: Pick<Platform, 'models' | 'events'>): BatchEndpoint {
  return {
    url: '/v1/chat/completions',
    async parse(body, { tenant, signal }) {
      const request = check(chatRequest, body);
      if (request.stream === true) throw new HttpError('invalid_value', 'stream must be false in a batch.', { param: 'stream' });
      if (request.store === false) throw new HttpError('invalid_value', 'store must not be false in a batch.', { param: 'store' });
      const { spec, budget } = await chatJob(request, () => platform.models({ tenant, signal }));
      return {
        spec,
        async answer(view, options) {
          const transcript = new Transcript();
          for await (const event of platform.events(view.id, options)) transcript.take(event);
          return completionOf(view, budget, { transcript, result: endOf(transcript, view.id) });
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
