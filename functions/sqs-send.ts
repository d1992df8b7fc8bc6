/** Until the queue's own adapter is here: messages for workers, and how many wait. */
import { GetQueueAttributesCommand, SQSClient, SendMessageCommand } from '@aws-sdk/client-sqs';

import type { Queue } from '../engine/ports/queue.ts';
import type { AwsConfig } from './env.ts';

export function sqsSender(url: string, { credentials, region, sqsEndpoint }: AwsConfig): Pick<Queue, 'send' | 'depth'> {
  const client = new SQSClient({ region, maxAttempts: 3, ...(credentials === null ? {} : { credentials }), ...(sqsEndpoint === null ? {} : { endpoint: sqsEndpoint }) });
  return {
    async send(message, { signal } = {}) {
      await client.send(new SendMessageCommand({ QueueUrl: url, MessageBody: JSON.stringify(message) }), signal === undefined ? {} : { abortSignal: signal });
    },
    async depth({ signal } = {}) {
      const { Attributes = {} } = await client.send(new GetQueueAttributesCommand({ QueueUrl: url, AttributeNames: ['All'] }), signal === undefined ? {} : { abortSignal: signal });
      return { visible: Number(Attributes.ApproximateNumberOfMessages ?? 0), inFlight: Number(Attributes.ApproximateNumberOfMessagesNotVisible ?? 0), oldestAgeMs: 0, batch: { visible: 0, inFlight: 0, oldestAgeMs: 0 } };
    },
  };
}
