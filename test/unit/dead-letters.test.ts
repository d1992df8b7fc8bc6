/** What SQS answers for each message of a batch by itself. */
import { DeleteMessageBatchCommand, GetQueueAttributesCommand, ReceiveMessageCommand, type SQSClient } from '@aws-sdk/client-sqs';
import { expect, test } from 'vitest';

import { SqsDeadLetters } from '../../engine/adapters/sqs-dead.ts';
import type { SqsCalls } from '../../engine/adapters/sqs-calls.ts';
import { systemClock } from '../../engine/core/clock.ts';

const Body = '{"v":1,"tenant":"acme","job":"sums","slice":0}';

test('what SQS could not delete is not counted as deleted', async () => {
  const rounds = [[1, 2, 3], []];
  const send = (command: unknown) => {
    if (command instanceof GetQueueAttributesCommand) return { Attributes: { RedrivePolicy: '{"deadLetterTargetArn":"arn:aws:sqs:us-east-1:1:dead"}' } };
    if (command instanceof ReceiveMessageCommand) return { Messages: (rounds.shift() ?? []).map((n) => ({ MessageId: `m${n}`, ReceiptHandle: `r${n}`, Body })) };
    if (command instanceof DeleteMessageBatchCommand) return { Successful: [{ Id: '0' }, { Id: '2' }], Failed: [{ Id: '1', SenderFault: false, Code: 'InternalError' }] };
    return {};
  };
  const calls: SqsCalls = { client: { send: (command: unknown) => Promise.resolve(send(command)) } as unknown as SQSClient, clock: systemClock, random: () => 0, deadlineMs: 10_000 };
  expect(await new SqsDeadLetters(calls, ['http://127.0.0.1:1/1/jobs'], async () => undefined).purge()).toBe(2);
});
