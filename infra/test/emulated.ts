/**
 * The resources of templates on servers of this machine: a small interpreter of exactly the types and properties that are needed. Whatever it does not know
 * is an error, so that nothing is skipped unseen. Buckets are made twice: where the platform keeps its objects (versitygw, which has no
 * lifecycle), and on moto, which has all settings and is asked what became of them.
 */
import {
  CreateBucketCommand, PutBucketEncryptionCommand, PutBucketLifecycleConfigurationCommand, PutBucketLoggingCommand, PutBucketOwnershipControlsCommand, PutBucketPolicyCommand, PutBucketVersioningCommand, PutPublicAccessBlockCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { CreateQueueCommand, type SQSClient } from '@aws-sdk/client-sqs';

import type { Found, Synthesised } from './synthesised.ts';

export const ACCOUNT = '000000000000';

export interface Servers {
  readonly objects: S3Client;
  /** null: not here. */
  readonly settings: S3Client | null;
  readonly queues: SQSClient;
}

interface Made {
  readonly ref: string;
  readonly attributes: Readonly<Record<string, string>>;
}

type Apply = (client: S3Client, Bucket: string, value: any) => Promise<unknown>;

/** null: nothing to do on any server. */
const BUCKET: Readonly<Record<string, Apply | null>> = {
  BucketEncryption: (client, Bucket, { ServerSideEncryptionConfiguration }) => client.send(new PutBucketEncryptionCommand({
    Bucket, ServerSideEncryptionConfiguration: { Rules: ServerSideEncryptionConfiguration.map(({ ServerSideEncryptionByDefault, BucketKeyEnabled }: any) => ({ ApplyServerSideEncryptionByDefault: ServerSideEncryptionByDefault, BucketKeyEnabled })) },
  })),
  LifecycleConfiguration: (client, Bucket, { Rules }) => client.send(new PutBucketLifecycleConfigurationCommand({ Bucket, LifecycleConfiguration: { Rules: Rules.map(ruleOf) } })),
  LoggingConfiguration: (client, Bucket, { DestinationBucketName, LogFilePrefix = '', ...rest }) => {
    nothingElse('LoggingConfiguration', rest);
    if (DestinationBucketName === undefined) return Promise.resolve();
    return client.send(new PutBucketLoggingCommand({ Bucket, BucketLoggingStatus: { LoggingEnabled: { TargetBucket: DestinationBucketName, TargetPrefix: LogFilePrefix } } }));
  },
  OwnershipControls: (client, Bucket, OwnershipControls) => client.send(new PutBucketOwnershipControlsCommand({ Bucket, OwnershipControls })),
  PublicAccessBlockConfiguration: (client, Bucket, PublicAccessBlockConfiguration) => client.send(new PutPublicAccessBlockCommand({ Bucket, PublicAccessBlockConfiguration })),
  VersioningConfiguration: (client, Bucket, VersioningConfiguration) => client.send(new PutBucketVersioningCommand({ Bucket, VersioningConfiguration })),
  Tags: null,
};

/** In CloudFormation's words and in the API's. */
function ruleOf({ Id, Status, AbortIncompleteMultipartUpload, ExpirationInDays, NoncurrentVersionExpiration, ...rest }: any): any {
  nothingElse(`rule ${Id}`, rest);
  return {
    ID: Id, Status, Filter: { Prefix: '' },
    ...(AbortIncompleteMultipartUpload === undefined ? {} : { AbortIncompleteMultipartUpload }),
    ...(ExpirationInDays === undefined ? {} : { Expiration: { Days: ExpirationInDays } }),
    ...(NoncurrentVersionExpiration === undefined ? {} : { NoncurrentVersionExpiration }),
  };
}

/** Of a queue: which become attributes as they are. */
const QUEUE = ['VisibilityTimeout', 'MessageRetentionPeriod', 'ReceiveMessageWaitTimeSeconds', 'RedrivePolicy', 'RedriveAllowPolicy'];
/** What no server of ours has: SQS's own encryption, whose key is AWS's matter. */
const QUEUE_OF_AWS = ['KmsMasterKeyId', 'KmsDataKeyReusePeriodSeconds', 'QueueName', 'Tags'];

function nothingElse(where: string, rest: object): void {
  const names = Object.keys(rest);
  if (names.length > 0) throw new Error(`${where}: ${names.join(', ')} is not known to the interpreter.`);
}

export class Emulated {
  readonly #made = new Map<string, Made>();

  private constructor(readonly stage: Synthesised, readonly servers: Servers, readonly parameters: Readonly<Record<string, string>>) {}

  /** @throws Error: a type or property that it does not know, or a server that refuses. */
  static async create(stage: Synthesised, servers: Servers, parameters: Readonly<Record<string, string>>): Promise<Emulated> {
    const emulated = new Emulated(stage, servers, parameters);
    const of = (type: string) => stage.all(type);
    for (const key of of('AWS::KMS::Key')) emulated.#keep(key, `key-${key.id}`, { Arn: `arn:aws:kms:${stage.config.region}:${ACCOUNT}:key/${key.id}` });
    const { region } = stage.config;
    // Of these only the names are needed.
    for (const group of of('AWS::Logs::LogGroup')) emulated.#keep(group, group.id, { Arn: `arn:aws:logs:${region}:${ACCOUNT}:log-group:${group.id}:*` });
    for (const secret of of('AWS::SecretsManager::Secret')) emulated.#keep(secret, `arn:aws:secretsmanager:${region}:${ACCOUNT}:secret:${secret.id}`, {});
    for (const url of of('AWS::Lambda::Url')) emulated.#keep(url, url.id, { FunctionUrl: `https://${url.id.toLowerCase()}.lambda-url.${region}.on.aws/` });
    for (const images of of('AWS::ECR::Repository')) emulated.#keep(images, images.id.toLowerCase(), { Arn: `arn:aws:ecr:${region}:${ACCOUNT}:repository/${images.id.toLowerCase()}` });
    for (const bucket of of('AWS::S3::Bucket')) await emulated.#bucket(bucket);
    // Before what they allow: who is to write access logs is asked for when a bucket is to have them.
    for (const policy of of('AWS::S3::BucketPolicy')) await emulated.#bucketPolicy(policy);
    for (const bucket of of('AWS::S3::Bucket')) await emulated.#settings(bucket);
    const queues = of('AWS::SQS::Queue').sort((a, b) => Number(a.Properties.RedrivePolicy !== undefined) - Number(b.Properties.RedrivePolicy !== undefined));
    for (const queue of queues) await emulated.#queue(queue);
    return emulated;
  }

  /** A value of a stack as text: what CloudFormation would make of it. */
  text(value: unknown, stack: string): string {
    return String(this.value(value, stack));
  }

  value(value: unknown, stack: string): unknown {
    if (Array.isArray(value)) return value.map((item) => this.value(item, stack));
    if (typeof value !== 'object' || value === null) return value;
    const entries = Object.entries(value);
    const [name, of] = entries[0] ?? ['', undefined];
    if (entries.length !== 1 || !(name === 'Ref' || name.startsWith('Fn::'))) return Object.fromEntries(entries.map(([key, item]) => [key, this.value(item, stack)]));
    switch (name) {
      case 'Ref': return this.#ref(String(of), stack);
      case 'Fn::GetAtt': return this.#attribute(of as [string, string], stack);
      case 'Fn::Join': return (of as [string, unknown[]])[1].map((part) => this.text(part, stack)).join((of as [string])[0]);
      case 'Fn::Select': return (this.value((of as [number, unknown])[1], stack) as unknown[])[(of as [number])[0]];
      case 'Fn::Split': return this.text((of as [string, unknown])[1], stack).split((of as [string])[0]);
      case 'Fn::ImportValue': return this.#imported(String(of));
      default: throw new Error(`${name} is not known to the interpreter.`);
    }
  }

  /** Variables of a process. */
  environment(variables: Readonly<Record<string, unknown>>, stack: string): Record<string, string> {
    return Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, this.text(value, stack)]));
  }

  #keep({ stack, id }: Found, ref: string, attributes: Readonly<Record<string, string>>): void {
    this.#made.set(`${stack}/${id}`, { ref, attributes });
  }

  #ref(id: string, stack: string): string {
    const pseudo: Readonly<Record<string, string>> = { 'AWS::Region': this.stage.config.region, 'AWS::AccountId': ACCOUNT, 'AWS::Partition': 'aws', 'AWS::URLSuffix': 'amazonaws.com' };
    const found = pseudo[id] ?? this.parameters[id] ?? this.#made.get(`${stack}/${id}`)?.ref;
    if (found === undefined) throw new Error(`${stack}: ${id} is neither a parameter nor a resource that the interpreter has made.`);
    return found;
  }

  #attribute([id, attribute]: [string, string], stack: string): string {
    const found = this.#made.get(`${stack}/${id}`)?.attributes[attribute] ?? this.parameters[`${stack}/${id}.${attribute}`];
    if (found === undefined) throw new Error(`${stack}: the interpreter knows no ${id}.${attribute}.`);
    return found;
  }

  #imported(name: string): string {
    for (const [stack, { Outputs = {} }] of this.stage.templates) {
      for (const { Export, Value } of Object.values(Outputs)) if (Export?.Name === name) return this.text(Value, stack);
    }
    throw new Error(`No stack exports ${name}.`);
  }

  async #bucket(found: Found): Promise<void> {
    const { Properties, id, stack } = found;
    const name = `ruminate-${this.stage.name}-${id}`.toLowerCase();
    const properties = this.value(Properties, stack) as Record<string, unknown>;
    nothingElse(`AWS::S3::Bucket ${id}`, Object.fromEntries(Object.entries(properties).filter(([key]) => !Object.hasOwn(BUCKET, key))));
    await this.servers.objects.send(new CreateBucketCommand({ Bucket: name }));
    this.#keep(found, name, { Arn: `arn:aws:s3:::${name}`, RegionalDomainName: `${name}.s3.${this.stage.config.region}.amazonaws.com` });
    await this.servers.settings?.send(new CreateBucketCommand({ Bucket: name }));
  }

  async #settings({ Properties, id, stack }: Found): Promise<void> {
    const { settings } = this.servers;
    if (settings === null) return;
    for (const [key, value] of Object.entries(this.value(Properties, stack) as Record<string, unknown>)) await BUCKET[key]?.(settings, this.#ref(id, stack), value);
  }

  async #bucketPolicy({ Properties, stack }: Found): Promise<void> {
    const { Bucket, PolicyDocument, ...rest } = this.value(Properties, stack) as Record<string, any>;
    nothingElse('AWS::S3::BucketPolicy', rest);
    await this.servers.settings?.send(new PutBucketPolicyCommand({ Bucket, Policy: JSON.stringify(PolicyDocument) }));
  }

  async #queue(found: Found): Promise<void> {
    const { Properties, id, stack } = found;
    const properties = this.value(Properties, stack) as Record<string, unknown>;
    nothingElse(`AWS::SQS::Queue ${id}`, Object.fromEntries(Object.entries(properties).filter(([key]) => !QUEUE.includes(key) && !QUEUE_OF_AWS.includes(key))));
    // ElasticMQ says who may send the dead back by asking; it has no RedriveAllowPolicy.
    const Attributes = Object.fromEntries(QUEUE.filter((key) => key !== 'RedriveAllowPolicy' && properties[key] !== undefined).map((key) => [key, typeof properties[key] === 'object' ? JSON.stringify(properties[key]) : String(properties[key])]));
    const { QueueUrl = '' } = await this.servers.queues.send(new CreateQueueCommand({ QueueName: String(properties.QueueName), Attributes }));
    const { region } = this.stage.config;
    this.#keep(found, QueueUrl, { Arn: `arn:aws:sqs:${region}:${ACCOUNT}:${String(properties.QueueName)}`, QueueName: String(properties.QueueName) });
  }
}
