/**
 * What each kind of process may do, and nothing more. test/live.test.ts runs them behind a guard that refuses all else, and says which of these
 * nobody used.
 */
import { type aws_kms as kms, type aws_s3 as s3, type aws_sqs as sqs, Aws, Stack } from 'aws-cdk-lib';
import type { Construct } from 'constructs';

import { MODELS_PREFIX, STORE_PREFIX } from './data.ts';
import type { Right } from './iam.ts';

export interface Places {
  readonly store: s3.IBucket;
  readonly models: s3.IBucket;
  readonly dataKey: kms.IKey;
  readonly jobsKey: kms.IKey | null;
  readonly interactive: sqs.IQueue;
  readonly batch: sqs.IQueue;
}

/** What of the platform a function needs. */
export interface FunctionNeeds {
  /** Jobs, and what is kept about them. */
  readonly store: 'none' | 'read' | 'write';
  /** Sends messages. */
  readonly queue: boolean;
}

/** By the name of its entry; a function that is not here gets everything that a front may. */
const NEEDS: Readonly<Record<string, FunctionNeeds>> = {
  checkpoints: { store: 'read', queue: false },
  models: { store: 'none', queue: false },
  webhooks: { store: 'write', queue: false },
};
export const needsOf = (name: string): FunctionNeeds => NEEDS[name] ?? { store: 'write', queue: true };

export function frontRights(name: string, places: Places): Right[] {
  const { store, queue } = needsOf(name);
  return [
    ...readModels(places),
    ...(store === 'read' ? useStore(places, ['s3:GetObject']) : []),
    ...(store !== 'write' ? [] : [...useStore(places, ['s3:GetObject', 's3:PutObject', 's3:DeleteObject']), ...useJobsKey(places)]),
    ...(queue ? [{ sid: 'SendMessages', actions: ['sqs:SendMessage', 'sqs:GetQueueAttributes'], resources: [places.interactive.queueArn, places.batch.queueArn] }] : []),
    useDataKey(places),
  ];
}

/** Of `ruminate worker`. What its commits have replaced it collects; a head, a spec or a file it can never delete. */
export function workerRights(places: Places, { settlesItself = true } = {}): Right[] {
  const messages = ['sqs:SendMessage', 'sqs:GetQueueAttributes', 'sqs:ReceiveMessage', 'sqs:ChangeMessageVisibility', ...(settlesItself ? ['sqs:DeleteMessage'] : [])];
  return [
    ...readModels(places),
    ...useStore(places, ['s3:GetObject', 's3:PutObject']),
    deleteMarks(places),
    { sid: 'CollectReplaced', actions: ['s3:DeleteObject'], resources: REPLACED.map((kind) => places.store.arnForObjects(`${STORE_PREFIX}/kv/*/${kind}/*`)), because: OBJECTS },
    ...useJobsKey(places),
    { sid: 'Messages', actions: messages, resources: [places.interactive.queueArn, places.batch.queueArn] },
    useDataKey(places),
  ];
}

/** Of a task: ECS's agent asks with its role that it be kept while it works. Only `UpdateTaskProtection`: the worker never asks how it stands. */
export function protectItself(tasks: string): Right {
  return { sid: 'ProtectWhileBusy', actions: ['ecs:UpdateTaskProtection'], resources: [tasks], because: 'Tasks of a cluster have no names before they are there.' };
}

/** Of the reconciler: it ends and sends again, and delivers webhooks; batches that it moves on make jobs. */
export function reconcilerRights(places: Places): Right[] {
  return [
    ...readModels(places),
    ...useStore(places, ['s3:GetObject', 's3:PutObject']),
    deleteMarks(places),
    ...useJobsKey(places),
    { sid: 'SendMessages', actions: ['sqs:SendMessage', 'sqs:GetQueueAttributes'], resources: [places.interactive.queueArn, places.batch.queueArn] },
    useDataKey(places),
  ];
}

/** Of the collector, which nobody can ask: it writes a fence into heads, and deletes what jobs, files and batches are made of, and hints of what is over. */
export function collectorRights(places: Places): Right[] {
  const { store } = places;
  const under = (...folders: string[]) => folders.map((folder) => store.arnForObjects(`${STORE_PREFIX}/${folder}/*`));
  return [
    { sid: 'Read', actions: ['s3:GetObject'], resources: under('kv', 'files', 'batches', 'gc', 'keep'), because: OBJECTS },
    { sid: 'Fence', actions: ['s3:PutObject'], resources: under('kv', 'gc', 'expire'), because: OBJECTS },
    { sid: 'Collect', actions: ['s3:DeleteObject'], resources: under('kv', 'files', 'batches', 'strikes', 'live', 'read', 'keep', 'expire'), because: OBJECTS },
    listOf('ListStore', store, STORE_PREFIX),
    useDataKey(places),
  ];
}

/** Hints and signs, which can be made again; the objects with which a store is tried; copies of prompts of batches that have ended; deliveries that are old. */
const MARKS = ['probe', 'live', 'due', 'read', 'open', 'batches', 'deliveries'] as const;
/** Segments, tails, journals and manifests, as engine/kv/names.ts names them. */
const REPLACED = ['s', 't', 'j', 'm'] as const;

function deleteMarks({ store }: Places): Right {
  return { sid: 'DeleteMarks', actions: ['s3:DeleteObject'], resources: MARKS.map((mark) => store.arnForObjects(`${STORE_PREFIX}/${mark}/*`)), because: OBJECTS };
}

function readModels({ models }: Places): Right[] {
  return [
    { sid: 'ReadModels', actions: ['s3:GetObject'], resources: [models.arnForObjects(`${MODELS_PREFIX}/*`)], because: OBJECTS },
    listOf('ListModels', models, MODELS_PREFIX),
  ];
}

function useStore({ store }: Places, actions: readonly string[]): Right[] {
  return [
    { sid: 'Store', actions: [...actions, 's3:AbortMultipartUpload'], resources: [store.arnForObjects(`${STORE_PREFIX}/*`)], because: OBJECTS },
    listOf('ListStore', store, STORE_PREFIX),
  ];
}

/**
 * Without it S3 answers 403 for a key that is not there, and a store could not tell. Asked for a key S3 has no prefix to compare, so that the condition must
 * let that pass; a list without a prefix is of a bucket that has nothing but this.
 */
function listOf(sid: string, bucket: s3.IBucket, prefix: string): Right {
  return { sid, actions: ['s3:ListBucket'], resources: [bucket.bucketArn], conditions: { StringLikeIfExists: { 's3:prefix': [`${prefix}/*`] } } };
}

function useJobsKey({ jobsKey }: Places): Right[] {
  return jobsKey === null ? [] : [{ sid: 'JobsKey', actions: ['kms:Encrypt', 'kms:Decrypt'], resources: [jobsKey.keyArn] }];
}

/** Only through S3 and SQS: whoever has the role can decrypt nothing by itself. */
function useDataKey({ dataKey }: Places): Right {
  return {
    sid: 'DataKey', actions: ['kms:Decrypt', 'kms:GenerateDataKey'], resources: [dataKey.keyArn],
    conditions: { StringEquals: { 'kms:ViaService': [`s3.${Aws.REGION}.amazonaws.com`, `sqs.${Aws.REGION}.amazonaws.com`] } },
  };
}

/** Lambda decrypts a function's variables with the function's role, for functions of this stack alone. */
export function ownEnvironment(scope: Construct, { dataKey }: Places): Right {
  const functions = `arn:${Aws.PARTITION}:lambda:${Aws.REGION}:${Aws.ACCOUNT_ID}:function:${Stack.of(scope).stackName}-*`;
  return { sid: 'OwnVariables', actions: ['kms:Decrypt'], resources: [dataKey.keyArn], conditions: { ArnLike: { 'kms:EncryptionContext:aws:lambda:FunctionArn': functions } } };
}

/** Why an object's ARN ends in a star. */
const OBJECTS = 'An object can be named by its prefix alone; what is under it is the platform\'s.';
