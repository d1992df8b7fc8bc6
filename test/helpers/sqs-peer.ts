/** A real SQS server for tests: queues of their own for everyone, each with one for batches and one for dead messages. */
import { randomBytes } from 'node:crypto';

import { CreateQueueCommand, GetQueueAttributesCommand, SQSClient } from '@aws-sdk/client-sqs';

import { createSqsQueue, type SqsOptions, type SqsQueue } from '../../engine/adapters/sqs.ts';

export const CREDENTIALS = { accessKeyId: 'test', secretAccessKey: 'testtest' };

export interface SqsPeer extends AsyncDisposable {
  readonly endpoint: string;
  /** It tells a receiver the message's group. */
  readonly tellsGroups: boolean;
  /** A client without our adapter, for the tests' own eyes. */
  readonly client: SQSClient;
  /** Environment with which `openQueue` and the AWS SDK reach it. */
  readonly environment: Readonly<Record<string, string>>;
  /** Fresh ones. */
  urls(receivesMax: number): Promise<{ readonly url: string; readonly batchUrl: string; readonly deadUrl: string }>;
  queue(receivesMax: number, changes?: Partial<SqsOptions>): Promise<SqsQueue>;
}

export function sqsPeer(endpoint: string, tellsGroups: boolean, stop: () => Promise<void>): SqsPeer {
  const client = new SQSClient({ endpoint, region: 'us-east-1', credentials: CREDENTIALS, maxAttempts: 1 });
  const create = async (name: string, attributes: Record<string, string> = {}) => (await client.send(new CreateQueueCommand({ QueueName: name, Attributes: attributes }))).QueueUrl ?? '';
  const urls: SqsPeer['urls'] = async (receivesMax) => {
    const name = `jobs-${randomBytes(6).toString('hex')}`;
    const deadUrl = await create(`${name}-dead`);
    const { Attributes } = await client.send(new GetQueueAttributesCommand({ QueueUrl: deadUrl, AttributeNames: ['QueueArn'] }));
    const redrive = { RedrivePolicy: JSON.stringify({ deadLetterTargetArn: Attributes?.QueueArn, maxReceiveCount: receivesMax }) };
    return { url: await create(name, redrive), batchUrl: await create(`${name}-batch`, redrive), deadUrl };
  };
  return {
    endpoint,
    tellsGroups,
    client,
    environment: { RUMINATE_SQS_ENDPOINT: endpoint, AWS_REGION: 'us-east-1', AWS_ACCESS_KEY_ID: CREDENTIALS.accessKeyId, AWS_SECRET_ACCESS_KEY: CREDENTIALS.secretAccessKey },
    urls,
    async queue(receivesMax, changes = {}) {
      const { url, batchUrl } = await urls(receivesMax);
      return createSqsQueue({ url, batchUrl, endpoint, region: 'us-east-1', credentials: CREDENTIALS, deadlineMs: 10_000, ...changes });
    },
    async [Symbol.asyncDispose]() {
      client.destroy();
      await stop();
    },
  };
}
