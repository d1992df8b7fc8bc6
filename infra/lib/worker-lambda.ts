/** The worker as a function (functions/worker.ts): Lambda takes messages from the queues and gives it one at a time. CPU engine, from zero in seconds. */
import { type aws_cloudwatch as cloudwatch, aws_ecr as ecr, aws_lambda as lambda, aws_lambda_event_sources as sources, type aws_sqs as sqs, type CfnParameter, Duration, Size } from 'aws-cdk-lib';
import { Construct } from 'constructs';

import type { StageConfig } from '../config.ts';
import { lambdaWorkerEnvironment } from './environment.ts';
import { roleOf, skipCheckov } from './iam.ts';
import { logGroupOf, writeLogs } from './logs.ts';
import { ownEnvironment, type Places, workerRights } from './rights.ts';

export const LAMBDA_WORKER_SECONDS = 900;
/** Weights and images unpacked. */
const SCRATCH_MIB = 4_096;

export interface LambdaWorkerOptions {
  readonly config: StageConfig & { readonly workers: { readonly lambda: NonNullable<StageConfig['workers']['lambda']> } };
  readonly places: Places;
  readonly queues: { readonly interactive: sqs.IQueue; readonly batch: sqs.IQueue };
  readonly images: ecr.IRepository;
  /** `sha256:…` of the image. */
  readonly digest: CfnParameter;
  /** `1` or `0`: whether it begins jobs. */
  readonly begin: string;
}

export class LambdaWorker extends Construct {
  readonly made: lambda.DockerImageFunction;

  constructor(scope: Construct, id: string, { config, places, queues, images, digest, begin }: LambdaWorkerOptions) {
    super(scope, id);
    const { memoryMiB, concurrency } = config.workers.lambda;
    const logGroup = logGroupOf(this, 'Log', config, places.dataKey);
    this.made = new lambda.DockerImageFunction(this, 'Function', {
      description: 'Ruminate: a slice of a job for each message',
      code: lambda.DockerImageCode.fromEcr(images, { tagOrDigest: digest.valueAsString, cmd: ['lambda'] }),
      architecture: lambda.Architecture.X86_64,
      memorySize: memoryMiB,
      ephemeralStorageSize: Size.mebibytes(SCRATCH_MIB),
      timeout: Duration.seconds(LAMBDA_WORKER_SECONDS),
      role: roleOf(this, 'Role', {
        service: 'lambda.amazonaws.com',
        description: 'The worker as a function',
        // Lambda itself receives and deletes, with this role.
        rights: [...workerRights(places), ownEnvironment(this, places), writeLogs(logGroup)],
      }),
      logGroup,
      environment: lambdaWorkerEnvironment({ places, begin }),
      environmentEncryption: places.dataKey,
    });
    // The image of all workers, whose command speaks Lambda's runtime API. By its digest: CDK takes a parameter for a tag.
    (this.made.node.defaultChild as lambda.CfnFunction).addPropertyOverride('Code.ImageUri', `${images.repositoryUri}@${digest.valueAsString}`);
    skipCheckov(this.made, {
      CKV_AWS_50: 'Spans are sent over OTLP; X-Ray would need rights on everything.',
      CKV_AWS_115: 'Its event sources say how many run at a time.',
      CKV_AWS_116: 'What it does not finish goes back to its queue, which has a dead-letter queue.',
      CKV_AWS_117: 'It reaches S3, SQS and KMS by their public names over TLS, with its role.',
    });
    // One message an invocation: the second of two would wait hidden, unextended, while the first runs. Batches get a half, and never more.
    for (const [queue, maxConcurrency] of [[queues.interactive, concurrency], [queues.batch, Math.max(2, Math.floor(concurrency / 2))]] as const) {
      this.made.addEventSource(new sources.SqsEventSource(queue, { batchSize: 1, reportBatchItemFailures: true, maxConcurrency }));
    }
  }

  get errors(): cloudwatch.Metric {
    return this.made.metricErrors({ period: Duration.minutes(5) });
  }
}
