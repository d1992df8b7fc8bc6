/** Two classes of messages, each with where the dead go (docs/QUEUE.md); and the topic by which people hear of what is wrong. */
import { aws_kms as kms, aws_sqs as sqs, Duration, Stack, type StackProps } from 'aws-cdk-lib';
import type { Construct } from 'constructs';

import type { StageConfig } from '../config.ts';
import { AlarmTopic } from './topic.ts';
import { LAMBDA_WORKER_SECONDS } from './worker-lambda.ts';

/** A backstop: jobs are poisoned long before. */
export const RECEIVES_MAX = 100;
/** A worker extends it every 40 s; Lambda takes no source with less than its own timeout. */
const VISIBILITY_SECONDS = 120;
const LAMBDA_MARGIN_SECONDS = 60;
/** As long as SQS can. The walk finds the jobs of messages that are lost. */
const KEPT_DAYS = 14;

export class QueuesStack extends Stack {
  readonly interactive: sqs.Queue;
  readonly batch: sqs.Queue;
  readonly dead: readonly sqs.Queue[];
  readonly alarms: AlarmTopic;

  constructor(scope: Construct, id: string, { stage, config, dataKey, ...props }: StackProps & { readonly stage: string; readonly config: StageConfig; readonly dataKey: kms.IKey }) {
    super(scope, id, props);
    const common = { encryption: sqs.QueueEncryption.KMS, encryptionMasterKey: dataKey, dataKeyReuse: Duration.hours(1), enforceSSL: true, retentionPeriod: Duration.days(KEPT_DAYS) } as const;
    const seconds = config.workers.lambda === null ? VISIBILITY_SECONDS : LAMBDA_WORKER_SECONDS + LAMBDA_MARGIN_SECONDS;
    const queue = (name: string): { readonly queue: sqs.Queue; readonly dead: sqs.Queue } => {
      // Named, so that each of the two can say which the other is.
      const queueName = `ruminate-${stage}-${name.toLowerCase()}`;
      const sourceQueueArns = [this.formatArn({ service: 'sqs', resource: queueName })];
      // Only its own may be sent there, and sent again from there.
      const dead = new sqs.Queue(this, `${name}Dead`, { ...common, queueName: `${queueName}-dead` });
      (dead.node.defaultChild as sqs.CfnQueue).redriveAllowPolicy = { redrivePermission: 'byQueue', sourceQueueArns };
      const made = new sqs.Queue(this, name, {
        ...common,
        queueName,
        visibilityTimeout: Duration.seconds(seconds),
        receiveMessageWaitTime: Duration.seconds(20),
        deadLetterQueue: { queue: dead, maxReceiveCount: RECEIVES_MAX },
      });
      return { queue: made, dead };
    };
    const [interactive, batch] = [queue('Interactive'), queue('Batch')];
    this.interactive = interactive.queue;
    this.batch = batch.queue;
    this.dead = [interactive.dead, batch.dead];
    this.alarms = new AlarmTopic(this, 'Alarms', { stage, emails: config.emails, dataKey });
  }
}
