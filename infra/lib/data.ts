/**
 * What outlives everything else: models, jobs, keys, who may ask, images. Its resources stay when the stack is deleted; `npm run deploy -- --destroy --data`
 * alone removes them.
 */
import { aws_ecr as ecr, aws_iam as iam, aws_kms as kms, aws_s3 as s3, aws_secretsmanager as secrets, Aws, Duration, RemovalPolicy, SecretValue, Stack, type StackProps } from 'aws-cdk-lib';
import type { Construct } from 'constructs';

import type { StageConfig } from '../config.ts';
import { accept, skipCheckov } from './iam.ts';

/** Where in its bucket each kind of thing lies. */
export const STORE_PREFIX = 'platform';
export const MODELS_PREFIX = 'models';

const PART_DAYS = 1;
const ACCESS_LOG_DAYS = 90;
const IMAGES_KEPT = 20;

export class DataStack extends Stack {
  /** Of buckets, queues, secrets and logs at rest. */
  readonly dataKey: kms.Key;
  /** Wraps the data keys of jobs (docs/KEYS.md); null: jobs are in the clear to whoever may read the store. */
  readonly jobsKey: kms.Key | null;
  readonly models: s3.Bucket;
  readonly store: s3.Bucket;
  /** JSON of `RUMINATE_API_KEYS`: hashes only. */
  readonly apiKeys: secrets.Secret;
  readonly images: ecr.Repository;

  constructor(scope: Construct, id: string, { config, ...props }: StackProps & { readonly config: StageConfig }) {
    super(scope, id, props);
    this.dataKey = new kms.Key(this, 'DataKey', { description: 'Buckets, queues, secrets and logs', enableKeyRotation: true, removalPolicy: RemovalPolicy.RETAIN });
    // Services that encrypt on their own behalf, and only for this account.
    for (const [sid, service, conditions] of [
      ['Logs', `logs.${Aws.REGION}.amazonaws.com`, { ArnLike: { 'kms:EncryptionContext:aws:logs:arn': `arn:${Aws.PARTITION}:logs:${Aws.REGION}:${Aws.ACCOUNT_ID}:log-group:*` } }],
      ['Alarms', 'cloudwatch.amazonaws.com', { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } }],
      ['Budgets', 'budgets.amazonaws.com', { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } }],
    ] as const) {
      this.dataKey.addToResourcePolicy(new iam.PolicyStatement({ sid, principals: [new iam.ServicePrincipal(service)], actions: ['kms:Encrypt', 'kms:Decrypt', 'kms:GenerateDataKey', 'kms:DescribeKey'], resources: ['*'], conditions }));
    }
    this.jobsKey = config.seal ? new kms.Key(this, 'JobsKey', { description: 'Wraps the data keys of jobs', enableKeyRotation: true, removalPolicy: RemovalPolicy.RETAIN }) : null;

    const logs = new s3.Bucket(this, 'AccessLogs', {
      ...CLOSED,
      // Who delivers access logs can write to SSE-S3 alone.
      encryption: s3.BucketEncryption.S3_MANAGED,
      lifecycleRules: [{ id: 'old-logs', expiration: Duration.days(ACCESS_LOG_DAYS), abortIncompleteMultipartUploadAfter: Duration.days(PART_DAYS) }],
    });
    accept(logs, { 'AwsSolutions-S1': 'It is where access logs go; logging it into itself would never end.' });
    skipCheckov(logs, { CKV_AWS_18: 'It is where access logs go; logging it into itself would never end.', CKV_AWS_21: 'Logs are written once and expire.' });
    const kept = { ...CLOSED, encryption: s3.BucketEncryption.KMS, encryptionKey: this.dataKey, bucketKeyEnabled: true, serverAccessLogsBucket: logs } as const;

    this.models = new s3.Bucket(this, 'Models', {
      ...kept,
      serverAccessLogsPrefix: 'models/',
      // A model that was pushed over can be had back, for a month.
      versioned: true,
      lifecycleRules: [{ id: 'parts', abortIncompleteMultipartUploadAfter: Duration.days(PART_DAYS) }, { id: 'replaced', noncurrentVersionExpiration: Duration.days(30) }],
    });
    this.store = new s3.Bucket(this, 'Store', {
      ...kept,
      serverAccessLogsPrefix: 'store/',
      // Jobs, their KV and what came of them are one store, because one compare-and-swap decides about all three. Not versioned: erasing a job deletes
      // its wrapped keys, and an old version would keep them (docs/KEYS.md); a head alone is rewritten every few seconds.
      versioned: false,
      // Nothing here expires by age: the first pages of a job that runs today may be older than any age.
      lifecycleRules: [{ id: 'parts', abortIncompleteMultipartUploadAfter: Duration.days(PART_DAYS) }],
    });
    skipCheckov(this.store, { CKV_AWS_21: 'An old version would keep the wrapped keys of an erased job (docs/KEYS.md).' });

    this.apiKeys = new secrets.Secret(this, 'ApiKeys', {
      description: 'Who may ask, as JSON of RUMINATE_API_KEYS: hashes of keys, tenants, rates',
      encryptionKey: this.dataKey,
      // Nobody may ask before the deploy has made a key.
      secretStringValue: SecretValue.unsafePlainText('[]'),
      removalPolicy: RemovalPolicy.RETAIN,
    });
    accept(this.apiKeys, { 'AwsSolutions-SMG4': 'It holds hashes of keys that clients have; to rotate one is to give a client another.' });
    skipCheckov(this.apiKeys, { CKV_AWS_149: 'It is encrypted by this stack\'s own key.' });

    this.images = new ecr.Repository(this, 'Images', {
      imageScanOnPush: true,
      imageTagMutability: ecr.TagMutability.IMMUTABLE,
      encryption: ecr.RepositoryEncryption.KMS,
      encryptionKey: this.dataKey,
      removalPolicy: RemovalPolicy.RETAIN,
      lifecycleRules: [{ description: 'A rollback needs the last few', maxImageCount: IMAGES_KEPT }],
    });
    if (config.workers.lambda !== null) {
      this.images.addToResourcePolicy(new iam.PolicyStatement({
        sid: 'LambdaPulls', principals: [new iam.ServicePrincipal('lambda.amazonaws.com')], actions: ['ecr:BatchGetImage', 'ecr:GetDownloadUrlForLayer'],
        conditions: { StringEquals: { 'aws:SourceAccount': Aws.ACCOUNT_ID } },
      }));
    }
  }
}

const CLOSED = {
  blockPublicAccess: s3.BlockPublicAccess.BLOCK_ALL,
  objectOwnership: s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
  enforceSSL: true,
  minimumTLSVersion: 1.2,
  removalPolicy: RemovalPolicy.RETAIN,
} as const;
