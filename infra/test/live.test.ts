/**
 * The stage `verify` run for real, as far as servers of this machine go: its buckets and queues made from its templates, its functions started from the
 * folders that would be uploaded, its worker with the command and the variables of its task definition, each behind a guard that lets through
 * what the role of its template allows and nothing else.
 */
import { GetBucketLifecycleConfigurationCommand, GetBucketPolicyCommand, GetBucketVersioningCommand, GetPublicAccessBlockCommand, S3Client } from '@aws-sdk/client-s3';
import { GetQueueAttributesCommand, ReceiveMessageCommand, SendMessageCommand } from '@aws-sdk/client-sqs';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { ensurePeer } from '../../scripts/peers/build.mjs';
import { startElasticmq } from '../../test/helpers/elasticmq.ts';
import { openaiAt } from '../../test/helpers/hosts.ts';
import { type FakeKms, startFakeKms } from '../../test/helpers/kms-fake.ts';
import { ensureRic, invoke, type LambdaFunction, startLambda } from '../../test/helpers/lambda.ts';
import type { S3Peer } from '../../test/helpers/s3-peer.ts';
import type { SqsPeer } from '../../test/helpers/sqs-peer.ts';
import { startVersitygw } from '../../test/helpers/versitygw.ts';
import { localIdentity } from '../deploy/identity.ts';
import { pinnedIn } from '../deploy/pinned.ts';
import { rolloutOf } from '../deploy/rollout.ts';
import { ROOT } from '../lib/bundles.ts';
import { Emulated } from './emulated.ts';
import { Guard, type Statement } from './guard.ts';
import { startMoto } from './moto.ts';
import { type Found, stageNamed } from './synthesised.ts';

const KEY = 'a-key-of-acme';
const DIGEST = `sha256:${'0'.repeat(64)}`;
const CREDENTIALS = { AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'testtest' };
const ASKED = { model: 'countdown@cr2', messages: [{ role: 'user' as const, content: '4 20 8 13 target 59' }], seed: 7, max_tokens: 120 };
/** As long as it may be: token 2 ends a chain. */
const LONG = { model: 'countdown@cr2', prompt: '4 20 8 13 target 59', seed: 7, early_stop: false, budget: { length: 900, width: 2 }, sampling: { temperature: 1, logit_bias: [[2, -100]] } };

const [versitygw, elasticmq, ric] = [ensurePeer('versitygw'), ensurePeer('elasticmq'), ensureRic()];
const missing = 'missing' in versitygw ? versitygw.missing : 'missing' in elasticmq ? elasticmq.missing : ric === null ? 'npm could not fetch aws-lambda-ric' : existsSync(path.join(ROOT, 'build', 'native')) ? null : 'the native engine is not built';
if (missing !== null) process.stdout.write(`skipped: the template run for real: ${missing}\n`);

describe.skipIf(missing !== null)('the stage verify', () => {
  const stage = stageNamed('verify');
  const folder = mkdtempSync(path.join(os.tmpdir(), 'ruminate-live-'));
  const children: ChildProcess[] = [];
  const guards = new Map<string, Guard>();
  const open: AsyncDisposable[] = [];
  let s3: S3Peer;
  let sqs: SqsPeer;
  let kms: FakeKms;
  let settings: S3Client | null = null;
  let emulated: Emulated;
  let api: LambdaFunction;
  /** Of what comes after the first was killed. */
  let second: ChildProcess;

  beforeAll(async () => {
    const moto = await startMoto();
    if (moto !== null) {
      open.push(moto);
      settings = new S3Client({ endpoint: moto.endpoint, forcePathStyle: true, region: 'us-east-1', credentials: { accessKeyId: 'test', secretAccessKey: 'testtest' } });
    }
    [s3, sqs] = await Promise.all([startVersitygw('binary' in versitygw ? versitygw.binary : ''), startElasticmq('binary' in elasticmq ? elasticmq.binary : '')]);
    emulated = await Emulated.create(stage, { objects: s3.client, settings, queues: sqs.client }, { ImageDigest: DIGEST, CanaryDigest: '', Begin: '1', ApiKeysVersion: 'v'.repeat(32) });
    kms = await startFakeKms(stage.all('AWS::KMS::Key').map((key) => emulated.text({ 'Fn::GetAtt': [key.id, 'Arn'] }, key.stack)));
    open.push(s3, sqs, kms);
    // By whoever deploys, whose rights are another matter.
    await command(['bin/ruminate.mjs', 'models', 'push', 'models/countdown', modelsUrl()], s3.environment);
    api = await front('api');
  }, 180_000);

  afterAll(async () => {
    for (const child of children) child.kill('SIGKILL');
    for (const guard of guards.values()) await guard[Symbol.asyncDispose]();
    for (const one of open.reverse()) await one[Symbol.asyncDispose]();
    settings?.destroy();
    rmSync(folder, { recursive: true, force: true });
  });

  const bucket = (id: string): string => emulated.text({ Ref: stage.all('AWS::S3::Bucket').find((found) => found.id.startsWith(id))?.id }, 'Data');
  const modelsUrl = (): string => front_('api').RUMINATE_MODELS_STORE ?? '';
  const functionNamed = (name: string): Found => stage.all('AWS::Lambda::Function').find(({ id }) => id.startsWith(`${name}Function`)) as Found;
  const roleOf = (found: Found, ref: unknown): Found => stage.all('AWS::IAM::Role').find(({ id, stack }) => stack === found.stack && id === (ref as any)['Fn::GetAtt'][0]) as Found;

  /** Variables as the template gives them, the secret resolved. */
  function front_(name: string): Record<string, string> {
    const { Properties, stack } = functionNamed(name);
    const variables = emulated.environment(Properties.Environment.Variables, stack);
    if (variables.RUMINATE_API_KEYS === undefined) return variables;
    expect(variables.RUMINATE_API_KEYS).toMatch(/^\{\{resolve:secretsmanager:\S+:SecretString:::v+\}\}$/);
    return { ...variables, RUMINATE_API_KEYS: JSON.stringify([{ sha256: createHash('sha256').update(KEY).digest('hex'), tenant: 'acme' }]) };
  }

  /** Where servers are that are not AWS, by the guard of a role: all that is added to what the template says. */
  async function elsewhere(name: string, role: Found): Promise<Record<string, string>> {
    let guard = guards.get(name);
    if (guard === undefined) {
      const statements = role.Properties.Policies.flatMap(({ PolicyDocument }: any) => emulated.value(PolicyDocument.Statement, role.stack)) as Statement[];
      guard = await Guard.start(statements, { s3: s3.endpoint, sqs: sqs.endpoint, kms: kms.endpoint, region: stage.config.region });
      guards.set(name, guard);
    }
    return { ...CREDENTIALS, AWS_REGION: 'us-east-1', RUMINATE_S3_ENDPOINT: guard.endpoint, RUMINATE_S3_PATH_STYLE: '1', RUMINATE_SQS_ENDPOINT: guard.endpoint, AWS_ENDPOINT_URL_KMS: guard.endpoint };
  }

  async function front(name: string): Promise<LambdaFunction> {
    const found = functionNamed(name);
    const code = path.join(folder, `${name}-${children.length}-${open.length}`);
    cpSync(stage.assetOf(found), code, { recursive: true });
    const made = await startLambda(ric ?? '', code, { ...front_(name), RUMINATE_LOG_LEVEL: 'warn', ...await elsewhere(name, roleOf(found, found.Properties.Role)) });
    open.push(made);
    return made;
  }

  const onDemand = (): Found => stage.all('AWS::ECS::TaskDefinition').find(({ id }) => id.startsWith('OnDemand')) as Found;

  /** What ECS would start it with; the folder that is mounted and the port on its own loopback are this machine's. */
  async function workerEnvironment(): Promise<Record<string, string>> {
    const task = onDemand();
    const [{ Environment }] = task.Properties.ContainerDefinitions;
    const variables = emulated.environment(Object.fromEntries(Environment.map(({ Name, Value }: any) => [Name, Value])), task.stack);
    return { ...variables, ...await elsewhere('worker', roleOf(task, task.Properties.TaskRoleArn)), RUMINATE_CACHE: path.join(folder, 'cache'), RUMINATE_MODELS: path.join(folder, 'none'), RUMINATE_METRICS_PORT: '0' };
  }

  async function worker(): Promise<ChildProcess & { said: string }> {
    const [{ Command }] = onDemand().Properties.ContainerDefinitions;
    const child = spawn(process.execPath, ['bin/ruminate.mjs', ...Command as string[]], {
      cwd: ROOT, env: { PATH: process.env.PATH, ...await workerEnvironment(), RUMINATE_CHECKPOINT_TOKENS: '40' }, stdio: ['ignore', 'pipe', 'pipe'],
    });
    children.push(child);
    const spoken = Object.assign(child, { said: '' });
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => { spoken.said += chunk.toString(); });
    await vi.waitFor(() => expect(spoken.said).toContain('working for'), { timeout: 60_000, interval: 50 });
    return spoken;
  }

  /** What it printed. */
  async function command(args: readonly string[], environment: Readonly<Record<string, string>>): Promise<string> {
    const child = spawn(process.execPath, args, { cwd: ROOT, env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] });
    children.push(child);
    let [told, said] = ['', ''];
    child.stdout.on('data', (chunk: Buffer) => { told += chunk.toString(); });
    child.stderr.on('data', (chunk: Buffer) => { said += chunk.toString(); });
    const [code] = (await once(child, 'close')) as [number];
    expect(code, told + said).toBe(0);
    return told;
  }

  const authorization = `Bearer ${KEY}`;
  const asJson = { authorization, 'content-type': 'application/json' };

  async function submitted(spec: object): Promise<string> {
    const response = await fetch(`${api.url}/v1/jobs`, { method: 'POST', headers: asJson, body: JSON.stringify(spec) });
    const body = (await response.json()) as { readonly id: string };
    expect(response.status, JSON.stringify(body)).toBe(201);
    return body.id;
  }

  /** A poll of a worker that has just ended may take a message along (docs/QUEUE.md). Messages are hints, which may be repeated: this is one more. */
  const hint = async (job: string): Promise<void> => void await sqs.client.send(new SendMessageCommand({ QueueUrl: front_('api').RUMINATE_QUEUE, MessageBody: JSON.stringify({ v: 1, tenant: 'acme', job, slice: 0 }), MessageGroupId: 'acme' }));

  const viewOf = async (job: string): Promise<any> => await (await fetch(`${api.url}/v1/jobs/${job}`, { headers: { authorization } })).json();
  const ended = async (job: string): Promise<any> => await vi.waitFor(async () => {
    const view = await viewOf(job);
    if (view.state === 'queued' || view.state === 'running') await hint(job);
    expect(['done', 'incomplete']).toContain(view.state);
    return view;
  }, { timeout: 90_000, interval: 1_000 });

  async function resultOf(job: string): Promise<any> {
    await ended(job);
    return await (await fetch(`${api.url}/v1/jobs/${job}/result`, { headers: { authorization } })).json();
  }

  test.skipIf(process.env.RUMINATE_NO_MOTO === '1')('buckets stand as the template says: lifecycle, versions, access', async () => {
    expect(settings, 'moto is installed by infra/check.mjs').not.toBeNull();
    const client = settings as S3Client;
    const { Rules } = await client.send(new GetBucketLifecycleConfigurationCommand({ Bucket: bucket('Store') }));
    expect(Rules?.map(({ ID, Status, Expiration, AbortIncompleteMultipartUpload }) => ({ ID, Status, Expiration, AbortIncompleteMultipartUpload }))).toEqual([{ ID: 'parts', Status: 'Enabled', Expiration: undefined, AbortIncompleteMultipartUpload: { DaysAfterInitiation: 1 } }]);
    expect((await client.send(new GetBucketVersioningCommand({ Bucket: bucket('Store') }))).Status).toBeUndefined();
    expect((await client.send(new GetBucketVersioningCommand({ Bucket: bucket('Models') }))).Status).toBe('Enabled');
    for (const id of ['Store', 'Models', 'AccessLogs']) {
      expect((await client.send(new GetPublicAccessBlockCommand({ Bucket: bucket(id) }))).PublicAccessBlockConfiguration).toEqual({ BlockPublicAcls: true, BlockPublicPolicy: true, IgnorePublicAcls: true, RestrictPublicBuckets: true });
      expect((await client.send(new GetBucketPolicyCommand({ Bucket: bucket(id) }))).Policy).toContain('aws:SecureTransport');
    }
  });

  test('queues stand as the template says: the dead go where they can be sent back from', async () => {
    for (const queue of ['interactive', 'batch']) {
      const { RUMINATE_QUEUE = '', RUMINATE_BATCH_QUEUE = '' } = front_('api');
      const { Attributes = {} } = await sqs.client.send(new GetQueueAttributesCommand({ QueueUrl: queue === 'batch' ? RUMINATE_BATCH_QUEUE : RUMINATE_QUEUE, AttributeNames: ['All'] }));
      expect(JSON.parse(Attributes.RedrivePolicy ?? '')).toEqual({ deadLetterTargetArn: expect.stringContaining(`ruminate-verify-${queue}-dead`), maxReceiveCount: 100 });
      expect(Attributes.VisibilityTimeout).toBe('960');
    }
  });

  // Before there are workers: of one that stops, a poll may take a message along for two minutes (docs/QUEUE.md).
  test('the worker as a function runs what a message of the queue names', async () => {
    const job = await submitted({ ...LONG, budget: { length: 60, width: 1 } });
    const { Properties, stack } = functionNamed('Lambda');
    const variables = emulated.environment(Properties.Environment.Variables, stack);
    const message = await vi.waitFor(async () => {
      const { Messages = [] } = await sqs.client.send(new ReceiveMessageCommand({ QueueUrl: variables.RUMINATE_QUEUE, WaitTimeSeconds: 2, MessageSystemAttributeNames: ['ApproximateReceiveCount'] }));
      const found = Messages.find(({ Body }) => Body?.includes(job));
      expect(found).toBeDefined();
      return found;
    }, { timeout: 30_000, interval: 100 });
    const record = {
      messageId: message?.MessageId, receiptHandle: message?.ReceiptHandle, body: message?.Body, attributes: { ApproximateReceiveCount: message?.Attributes?.ApproximateReceiveCount },
      eventSource: 'aws:sqs', eventSourceARN: `arn:aws:sqs:${stage.config.region}:000000000000:ruminate-verify-interactive`, awsRegion: stage.config.region,
    };
    expect(Properties.ImageConfig.Command).toEqual(['lambda']);
    const code = mkdtempSync(path.join(folder, 'lambda-'));
    const environment = { ...variables, ...await elsewhere('Lambda', roleOf(functionNamed('Lambda'), Properties.Role)), RUMINATE_CACHE: path.join(folder, 'cache'), RUMINATE_MODELS: path.join(folder, 'none') };
    const made = await startLambda(ric ?? '', code, environment, [path.join(ROOT, 'bin', 'ruminate.mjs'), ...Properties.ImageConfig.Command as string[]]);
    open.push(made);
    expect(await invoke(made, { Records: [record] })).toEqual({ batchItemFailures: [] });
    expect((await ended(job)).state).toMatch(/done|incomplete/);
  }, 90_000);

  test('a worker that is killed loses nothing: another one with the same variables gives the same tokens', async () => {
    const seen = () => pinnedIn(s3.client, bucket('Store'), 'platform');
    let job = '';
    // Where this process stood still, the job may have ended before its worker was killed.
    for (let begun = 1; (await seen()).length === 0; begun++) {
      expect(begun).toBeLessThan(5);
      job = await submitted(LONG);
      const first = await worker();
      await hint(job);
      // Until a head names a checkpoint: before that nothing is pinned to anything.
      await vi.waitFor(async () => {
        const pins = (await seen()).map(({ jobs }) => jobs);
        if ((await viewOf(job)).state !== 'done') expect(pins).toEqual([1]);
      }, { timeout: 60_000, interval: 50 });
      first.kill('SIGKILL');
      await once(first, 'close');
    }
    expect((await viewOf(job)).state).toBe('running');
    // What a deploy sees now, and what it makes of it: this engine may take over, another may not.
    const pinned = await seen();
    expect(pinned.map(({ jobs }) => jobs)).toEqual([1]);
    const identity = await localIdentity({ options: { config: stage.config } as never });
    expect(rolloutOf(identity, pinned)).toEqual({ kind: 'roll' });
    expect(rolloutOf({ ...identity, numericsId: 'another' }, pinned)).toEqual({ kind: 'drain', stranded: 0, changed: 1 });
    expect(rolloutOf({ ...identity, modelIds: [] }, pinned)).toEqual({ kind: 'drain', stranded: 1, changed: 0 });
    // Its message is hidden for two minutes; the reconciler would send it again after one.
    second = await worker();
    const again = await submitted(LONG);
    const [whole, uncut] = [await resultOf(job), await resultOf(again)];
    expect(whole.chains.map(({ tokens }: any) => tokens.length)).toEqual([900, 900]);
    expect(whole.chains.map(({ tokens }: any) => tokens)).toEqual(uncut.chains.map(({ tokens }: any) => tokens));
    expect((await viewOf(job)).slice).toBeGreaterThan((await viewOf(again)).slice);
  }, 180_000);

  test('a job goes from the function to the worker and back, whole and streamed', async () => {
    const openai = openaiAt(api, KEY);
    const whole = await openai.chat.completions.create(ASKED);
    let text = '';
    for await (const { choices: [choice] } of await openai.chat.completions.create({ ...ASKED, stream: true })) text += choice?.delta.content ?? '';
    expect(text).toBe(whole.choices[0]?.message.content ?? '');
    expect((await openai.models.list()).data.length).toBeGreaterThan(0);
    await expect(openaiAt(api, 'nobody').models.list()).rejects.toMatchObject({ status: 401 });
  }, 120_000);

  test('a batch goes by the other queue', async () => {
    const openai = openaiAt(api, KEY);
    const line = { custom_id: 'one', method: 'POST', url: '/v1/chat/completions', body: { ...ASKED, max_tokens: 20 } };
    const { id: input_file_id } = await openai.files.create({ purpose: 'batch', file: new File([`${JSON.stringify(line)}\n`], 'lines.jsonl') });
    const { id } = await openai.batches.create({ input_file_id, endpoint: '/v1/chat/completions', completion_window: '24h' });
    await vi.waitFor(async () => expect(await openai.batches.retrieve(id)).toMatchObject({ status: 'completed', request_counts: { completed: 1, failed: 0 } }), { timeout: 60_000, interval: 300 });
    await openai.files.delete(input_file_id);
    // Told to stop as ECS does it, it is gone within its grace.
    second.kill('SIGTERM');
    expect(await once(second, 'close')).toEqual([0, null]);
  }, 120_000);

  test('the scheduled functions do their rounds with their own rights', async () => {
    const event = { version: '0', source: 'aws.scheduler', 'detail-type': 'Scheduled Event', detail: {} };
    expect(await invoke(await front('reconciler'), event)).toMatchObject({ work: { waiting: 0, running: 0 } });
    expect(await invoke(await front('collector'), event)).toMatchObject({ complete: true });
  }, 60_000);

  // Its own workers, started with the command and the variables of the task definition and faster rounds, and killed; its own plan of jobs, with one of each kind.
  test('jobs of workers that are killed end as those that nothing disturbed, with what the task definition hands out', async () => {
    expect(onDemand().Properties.ContainerDefinitions[0].Command).toEqual(['worker']);
    const file = path.join(folder, 'worker.env');
    writeFileSync(file, Object.entries(await workerEnvironment()).map(([name, value]) => `${name}=${JSON.stringify(value)}\n`).join(''));
    const said = await command(['scripts/chaos.mjs', '--worker-env', file, '--url', api.url, '--seed', '5', '--jobs', '7', '--kills', '3', '--minutes', '0.1', '--workers', '2', '--faults', 'kill'], { ...s3.environment, ...sqs.environment, RUMINATE_API_KEY: KEY });
    const last = JSON.parse(said.trimEnd().split('\n').at(-1) ?? '');
    expect(last).toMatchObject({ chaos: 'passed', jobs: 7, broken: 0, done: { kill: 3 } });
    expect(last.done.interrupted, said).toBeGreaterThan(0);
  }, 180_000);

  test('an erased job leaves the store, and nobody was refused anything that he needed', async () => {
    const job = await submitted(LONG);
    expect((await fetch(`${api.url}/v1/jobs/${job}`, { method: 'DELETE', headers: { authorization } })).ok).toBe(true);
    for (const [name, { denied }] of guards) expect(denied, name).toEqual([]);
  });

  test('what a role may and nobody needed is written down with why', () => {
    const unused = [...guards].flatMap(([name, { used }]) => {
      const role = name === 'worker' ? roleOf(onDemand(), onDemand().Properties.TaskRoleArn) : roleOf(functionNamed(name), functionNamed(name).Properties.Role);
      const statements = role.Properties.Policies.flatMap(({ PolicyDocument }: any) => emulated.value(PolicyDocument.Statement, role.stack)) as Statement[];
      return statements.flatMap(({ Action, Resource }) => [Action].flat().flatMap((action) => [Resource].flat().filter((pattern) => !used.has(`${action} ${pattern}`)).map((pattern) => `${name}: ${action} ${String(pattern).replace(/^arn:aws:(s3:::ruminate-verify-)?/, '')}`)));
    });
    expect(unused.filter((right) => !Object.keys(UNUSED).some((pattern) => new RegExp(pattern).test(right)))).toEqual([]);
  });
});

/** Rights that are needed and that these jobs do not use, or that this machine's servers do not ask for. */
const UNUSED: Readonly<Record<string, string>> = {
  'kms:\\w+ kms:.*key/DataKey': 'S3 and SQS ask for it on the caller\'s behalf, and Lambda for its variables: servers of this machine have no such key',
  'logs:': 'Lambda and ECS write logs themselves',
  's3:AbortMultipartUpload': 'of an upload in parts that fails; nothing here is above 64 MiB',
  '^\\w+: s3:ListBucket models': 'tells a model that is not there from one that may not be read',
  '^(worker|Lambda|reconciler): s3:GetObject models': 'this checkout has the model beside it, and no batch was moved on; test/slow/functions.test.ts pulls',
  '^(worker|Lambda|reconciler): sqs:SendMessage': 'a continuation after ten minutes, and what lost its message',
  '^(worker|Lambda): sqs:ChangeMessageVisibility': 'after 40 s, and of what is given back',
  '^worker: ecs:UpdateTaskProtection': 'ECS\'s agent asks, with this role; test/worker/task-protection.test.ts',
  '^Lambda: sqs:(Receive|Delete)Message': 'Lambda itself, with this role',
  '^Lambda: sqs:GetQueueAttributes': 'Lambda itself, with this role',
  '^(worker|Lambda|reconciler): s3:DeleteObject store\\w+/platform/(due|deliveries|open|batches|read|live)/': 'marks of webhooks and of batches that it ends, of jobs that it ends and of readers who came',
  '^(worker|Lambda): s3:DeleteObject store\\w+/platform/kv/\\*/[stjm]/': 'what commits replace, where a slice ended with time left',
  '^Lambda: (kms:\\w+ kms:.*JobsKey|s3:ListBucket store)': 'a job of several slices',
  '^reconciler: (kms:\\w+ kms:.*JobsKey|s3:DeleteObject store\\w+/platform/probe/)': 'batches that it moves on are made of sealed jobs',
  '^collector: s3:(Put|Delete)Object': 'what workers had no time for, and what is over',
  '^collector: s3:GetObject store\\w+/platform/(keep|files|batches)/': 'of jobs, files and batches that are over',
};
