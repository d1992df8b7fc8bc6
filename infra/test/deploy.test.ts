/** The deploy against moto: what it asks, what it makes, and that a dry run makes nothing. */
import { CloudFormationClient, CreateStackCommand } from '@aws-sdk/client-cloudformation';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { CreateRepositoryCommand, ECRClient } from '@aws-sdk/client-ecr';
import { CreateSecretCommand, GetSecretValueCommand, ListSecretsCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { PutParameterCommand, SSMClient } from '@aws-sdk/client-ssm';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { main } from '../deploy/main.ts';
import { STEPS } from '../deploy/steps.ts';
import { type Moto, startMoto } from './moto.ts';
import { SYNTHESISED } from './synthesised.ts';

const REGION = 'eu-central-1';
let moto: Moto | null = null;
let said: string[] = [];
const say = (line: string): void => void said.push(line);
const errors: string[] = [];
const before = { ...process.env };
const stderr = process.stderr.write.bind(process.stderr);

beforeAll(async () => {
  moto = await startMoto();
  if (moto === null) process.stdout.write('skipped: the deploy against moto: infra/check.mjs installs it\n');
  Object.assign(process.env, { AWS_ENDPOINT_URL: moto?.endpoint, AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test', AWS_REGION: REGION, RUMINATE_S3_PATH_STYLE: '1', RUMINATE_API_KEY: '' });
});

afterAll(async () => {
  process.env = before;
  await moto?.[Symbol.asyncDispose]();
});

beforeEach(() => {
  said = [];
  errors.length = 0;
});

/** As the command, with what it wrote to standard error. */
async function deploy(...args: readonly string[]): Promise<number> {
  process.stderr.write = (text: string | Uint8Array): boolean => {
    errors.push(String(text));
    return true;
  };
  try {
    return await main(args, say);
  } finally {
    process.stderr.write = stderr;
  }
}

describe('the command', () => {
  test('names its steps, and what is wrong with what was asked', async () => {
    expect(await deploy('--help')).toBe(0);
    for (const { name } of STEPS) expect(said.join('\n')).toContain(name);
    for (const [args, wrong] of [[[], 'Say which stage'], [['--stage', 'prod', '--only', 'sing'], 'There is no step "sing"'], [['--stage', 'none'], 'There is no stage "none"'], [['--stage', 'dev', '--data'], '--data is of --destroy'], [['--stage', 'dev', '--rollback'], 'No earlier deploy'], [['--stage', 'dev', '--canary'], 'A canary is of a pool']] as const) {
      errors.length = 0;
      expect(await deploy(...args)).toBe(1);
      expect(errors.join('')).toContain(wrong);
    }
  });

  test('in a dry run destroys everything but the data, unless it is told', async () => {
    expect(await deploy('--stage', 'dev', '--destroy', '--dry-run')).toBe(0);
    expect(said.join('\n')).toMatch(/would run: .*destroy Watch Schedule Workers Control Network Queues --force/);
    said = [];
    await deploy('--stage', 'dev', '--destroy', '--data', '--dry-run');
    expect(said.join('\n')).toMatch(/destroy .* Queues Data --force/);
  });
});

/** What later steps read of the stack Data, made by hand: moto's CloudFormation does not take a template with keys that others refer to. @returns the secret. */
async function dataStack(): Promise<string> {
  const [secrets, images, objects, stacks] = [new SecretsManagerClient({ region: REGION }), new ECRClient({ region: REGION }), new S3Client({ region: REGION, forcePathStyle: true }), new CloudFormationClient({ region: REGION })];
  const { ARN = '' } = await secrets.send(new CreateSecretCommand({ Name: 'api-keys', SecretString: '[]' }));
  const { repository } = await images.send(new CreateRepositoryCommand({ repositoryName: 'images' }));
  await objects.send(new CreateBucketCommand({ Bucket: 'store', CreateBucketConfiguration: { LocationConstraint: REGION } }));
  const values = { ApiKeysSecret: ARN, ImagesUri: repository?.repositoryUri, StoreUrl: 's3://store/platform', ModelsStoreUrl: 's3://models/models' };
  // The template has these outputs, and no step reads another.
  const { Outputs = {} } = JSON.parse(readFileSync(path.join(SYNTHESISED, 'dev', 'Data.template.json'), 'utf8')) as { readonly Outputs: object };
  expect(Object.keys(Outputs)).toEqual(expect.arrayContaining(Object.keys(values)));
  await stacks.send(new CreateStackCommand({
    StackName: 'Ruminate-dev-Data', TemplateBody: JSON.stringify({ Resources: { Nothing: { Type: 'AWS::SNS::Topic' } }, Outputs: Object.fromEntries(Object.entries(values).map(([name, Value]) => [name, { Value }])) }),
  }));
  return ARN;
}

describe('against moto', () => {
  test('preflight says all that is wrong at once, and nothing when it is put right', async ({ skip }) => {
    if (moto === null) skip();
    expect(await deploy('--stage', 'verify', '--only', 'preflight')).toBe(1);
    expect(said.join('\n')).toMatch(/ok {2}credentials: arn:aws/);
    expect(said.join('\n')).toMatch(/WRONG {2}CDK bootstrap: none/);
    expect(said.join('\n')).toMatch(/ok {2}machines: \d+ types/);
    await new SSMClient({ region: REGION }).send(new PutParameterCommand({ Name: '/cdk-bootstrap/hnb659fds/version', Value: '30', Type: 'String' }));
    said = [];
    const code = await deploy('--stage', 'verify', '--only', 'preflight');
    expect(said.filter((line) => line.includes('WRONG')).join('\n') || said.join('\n')).not.toContain('CDK bootstrap: none');
    expect(code, said.join('\n')).toBe(0);
  });

  test('a dry run of every step after synth makes nothing', async ({ skip }) => {
    if (moto === null) skip();
    expect(await deploy('--stage', 'dev', '--dry-run', '--from', 'data'), errors.join('')).toBe(0);
    expect(said.join('\n')).toMatch(/would run: .*models push models\/countdown/);
    expect(said.join('\n')).toMatch(/would run: .*cdk deploy --all/);
    expect((await new SecretsManagerClient({ region: REGION }).send(new ListSecretsCommand({}))).SecretList).toEqual([]);
  });

  test('the first key is made once, shown once, and kept as its hash alone', async ({ skip }) => {
    if (moto === null) skip();
    const SecretId = await dataStack();
    expect(await deploy('--stage', 'dev', '--only', 'keys'), errors.join('')).toBe(0);
    const key = /rk_[\w-]{43}/.exec(said.join('\n'))?.[0] ?? '';
    const { SecretString = '' } = await new SecretsManagerClient({ region: REGION }).send(new GetSecretValueCommand({ SecretId }));
    expect(JSON.parse(SecretString)).toEqual([{ sha256: createHash('sha256').update(key).digest('hex'), tenant: 'default' }]);
    said = [];
    expect(await deploy('--stage', 'dev', '--only', 'keys')).toBe(0);
    expect(said.join('\n')).toContain('1 there');
    expect(said.join('\n')).not.toContain('rk_');
  });

  test('an image that is not there is said to be missing, and nothing is deployed', async ({ skip }) => {
    if (moto === null) skip();
    expect(await deploy('--stage', 'dev', '--only', 'image', '--image', `sha256:${'1'.repeat(64)}`)).toBe(1);
    expect(errors.join('')).toMatch(/has no image sha256:1+: push it first/);
    expect(await deploy('--stage', 'dev', '--only', 'image', '--image', 'latest')).toBe(1);
    expect(errors.join('')).toContain('--image must be a digest');
  });

  test('where no job has begun workers may be exchanged at once', async ({ skip }) => {
    if (moto === null) skip();
    expect(await deploy('--stage', 'dev', '--only', 'release'), errors.join('')).toBe(0);
    expect(said.join('\n')).toContain('no job has begun and not ended');
  });
});
