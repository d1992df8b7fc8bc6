/** The steps of a deploy in their order. Each looks at what there is and does what is missing, so that any of them may be run again. */
import { DescribeImagesCommand } from '@aws-sdk/client-ecr';
import { GetSecretValueCommand, PutSecretValueCommand } from '@aws-sdk/client-secrets-manager';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, rmSync } from 'node:fs';
import path from 'node:path';

import { ROOT } from '../lib/bundles.ts';
import { STORE_PREFIX } from '../lib/data.ts';
import { buildStage } from '../lib/stage.ts';
import type { Context } from './context.ts';
import { drain } from './drain.ts';
import { localIdentity } from './identity.ts';
import { pinnedIn } from './pinned.ts';
import { preflight } from './preflight.ts';
import { FIRST_FORMATS, type Identity, mayShareQueue, rolloutOf, sentenceOf } from './rollout.ts';
import { smoke } from './smoke.ts';

export interface Step {
  readonly name: string;
  readonly does: string;
  /** @throws Error: it is not done, and why. */
  readonly run: (context: Context) => Promise<void>;
}

/** Lambda's variables have 4 kB together. */
const KEYS_BYTES_MAX = 3_000;
const RUMINATE = path.join(ROOT, 'bin', 'ruminate.mjs');

export const STEPS: readonly Step[] = [
  {
    name: 'preflight', does: 'asks whether the account and its region have what the stage needs',
    async run({ options: { config }, clients, say }) {
      const findings = await preflight(config, clients);
      for (const { kind, what } of findings) say(`  ${{ ok: 'ok', wrong: 'WRONG', unknown: 'not known' }[kind]}  ${what}`);
      const wrong = findings.filter(({ kind }) => kind === 'wrong').length;
      if (wrong > 0) throw new Error(`${wrong} of these must be put right first.`);
    },
  },
  {
    name: 'synth', does: 'writes the templates, and looks for what AwsSolutions finds wrong',
    async run({ options: { stage, config }, folder, say }) {
      rmSync(folder, { recursive: true, force: true });
      const { app, stacks } = buildStage({ name: stage, config, outdir: folder });
      app.synth();
      say(`  ${stacks.map(({ stackName }) => stackName).join(', ')}`);
    },
  },
  {
    name: 'data', does: 'makes what everything else needs first: buckets, keys, the repository of images',
    run: async (context) => await context.run(context.cdk('deploy', 'Data', '--require-approval', 'never')),
  },
  {
    name: 'models', does: 'pushes the models of the stage to its bucket; what is there already is not sent again',
    async run(context) {
      const url = await needed(context, 'ModelsStoreUrl');
      for (const model of context.options.config.models) await context.run([process.execPath, RUMINATE, 'models', 'push', existsSync(path.join(ROOT, 'models', model)) ? path.join('models', model) : model, url ?? 's3://…/models']);
    },
  },
  { name: 'keys', does: 'makes the first API key, if there is none, and says it once', run: firstKey },
  { name: 'image', does: 'looks whether the image is in the repository', run: imageIsThere },
  { name: 'release', does: 'decides whether parked jobs could go on with this engine and these models; if not, the workers that are there finish them, and begin no others', run: release },
  {
    name: 'diff', does: 'says what would change',
    run: async (context) => await context.run(context.cdk('diff', '--all')),
  },
  {
    name: 'deploy', does: 'makes or changes every stack',
    async run(context) {
      await context.run(context.cdk('deploy', '--all', '--require-approval', 'never', ...await parameters(context)));
      if (context.options.canary || context.options.dryRun) return;
      const identity = await identityOf(context);
      const { numericsId, layoutId, formats } = identity;
      context.keep({ identity, engines: { ...context.kept.engines, [context.options.image ?? context.kept.image ?? '']: { numericsId, layoutId, formats } } });
    },
  },
  {
    name: 'smoke', does: 'runs a job from outside and says where the platform is',
    async run(context) {
      const url = await context.output('Control', 'PublicUrl');
      if (context.options.dryRun || url === null) return context.say(`  would ask ${url ?? 'the URL that deploy makes'}`);
      await smoke(url, process.env.RUMINATE_API_KEY ?? '', context);
      context.say(`\n${url}`);
    },
  },
];

/** null in a dry run before there is anything. @throws Error */
async function needed(context: Context, key: string): Promise<string | null> {
  const value = await context.output('Data', key);
  if (value === null && !context.options.dryRun) throw new Error(`The stack ${context.stackName('Data')} has no ${key}: run the step data first.`);
  return value;
}

async function firstKey(context: Context): Promise<void> {
  const { clients: { secrets }, say, options: { dryRun } } = context;
  const SecretId = await needed(context, 'ApiKeysSecret');
  if (SecretId === null) return say('  would make one');
  const { SecretString = '[]' } = await secrets.send(new GetSecretValueCommand({ SecretId }));
  if (Buffer.byteLength(SecretString) > KEYS_BYTES_MAX) throw new Error(`The secret ${SecretId} has more than ${KEYS_BYTES_MAX} bytes, which are too many for variables of a function: take keys out, or host the API on Fargate.`);
  const keys = JSON.parse(SecretString) as readonly unknown[];
  if (keys.length > 0) return say(`  ${keys.length} there`);
  if (dryRun) return say('  would make one');
  const key = `rk_${randomBytes(32).toString('base64url')}`;
  await secrets.send(new PutSecretValueCommand({ SecretId, SecretString: JSON.stringify([{ sha256: createHash('sha256').update(key).digest('hex'), tenant: 'default' }]) }));
  process.env.RUMINATE_API_KEY ??= key;
  say(`  the API key of tenant "default", shown once and kept nowhere:\n\n    ${key}\n`);
}

async function imageIsThere(context: Context): Promise<void> {
  const { clients: { images }, say, options } = context;
  const imageDigest = options.image ?? context.kept.image;
  const uri = await needed(context, 'ImagesUri');
  if (imageDigest === undefined) {
    if (options.dryRun) return say('  would need --image sha256:…');
    throw new Error(`Say which image workers run: build it (infra/image), push it to ${uri}, and give its digest with --image sha256:….`);
  }
  if (!/^sha256:[0-9a-f]{64}$/.test(imageDigest)) throw new Error(`--image must be a digest, sha256: and 64 hex digits; got ${imageDigest}.`);
  if (uri === null) return say(`  would look for ${imageDigest}`);
  await images.send(new DescribeImagesCommand({ repositoryName: uri.replace(/^[^/]+\//, ''), imageIds: [{ imageDigest }] })).catch((error: Error) => {
    throw new Error(error.name === 'ImageNotFoundException' ? `${uri} has no image ${imageDigest}: push it first.` : error.message);
  });
  const { image: before } = context.kept;
  context.keep({ image: imageDigest, ...(before !== undefined && before !== imageDigest ? { previous: before } : {}) });
  say(`  ${imageDigest}`);
}

async function release(context: Context): Promise<void> {
  const store = await needed(context, 'StoreUrl');
  if (store === null) return context.say('  nothing is there yet');
  const bucket = new URL(store).hostname;
  const look = async () => await pinnedIn(context.clients.objects, bucket, STORE_PREFIX);
  const pinned = await look();
  if (context.options.canary) {
    const { identity } = context.kept;
    const next = await identityOf(context);
    if (identity !== undefined && !mayShareQueue({ formats: FIRST_FORMATS, ...identity }, next)) throw new Error('A canary takes from the queue of the others, and could not go on with what they park, or they with what it parks: deploy without one.');
  }
  const jobs = pinned.reduce((sum, one) => sum + one.jobs, 0);
  if (jobs === 0) return context.say('  no job has begun and not ended: workers may be exchanged at once');
  const to = await identityOf(context);
  const rollout = rolloutOf(to, pinned);
  context.say(`  ${jobs} job${jobs === 1 ? ' has' : 's have'} begun: ${sentenceOf(rollout)}`);
  if (rollout.kind === 'roll') return;
  const { dryRun, drainMs } = context.options;
  if (dryRun) return context.say('  would wait for them');
  if (drainMs === 0) throw new Error('The workers that are there have to finish first: without --drain 0s this step waits for them.');
  await drain(context, { to, deadlineMs: drainMs, look });
}

/** Of the image that is to run, with the models of this checkout, which are pushed before. An image that was never deployed from here is taken to be of this checkout. */
async function identityOf(context: Context): Promise<Identity> {
  const { kept, options } = context;
  const engine = kept.engines?.[options.image ?? kept.image ?? ''];
  return (context.next ??= { ...await localIdentity(context), ...(engine === undefined ? {} : { formats: FIRST_FORMATS, ...engine }) });
}

/** What CloudFormation cannot know: which image, and which version of the keys. */
async function parameters(context: Context): Promise<readonly string[]> {
  const { kept, options, clients: { secrets } } = context;
  const SecretId = await needed(context, 'ApiKeysSecret');
  const version = SecretId === null ? null : (await secrets.send(new GetSecretValueCommand({ SecretId }))).VersionId ?? null;
  const digest = options.image ?? kept.image ?? 'sha256:…';
  const { control, workers } = options.config;
  // Beside the workers as they are; without --canary it is gone, and they have its image.
  const isTried = options.canary && kept.previous !== undefined;
  return [
    '--parameters', `${context.stackName('Workers')}:ImageDigest=${isTried ? kept.previous : digest}`,
    ...(workers.pool === null ? [] : ['--parameters', `${context.stackName('Workers')}:CanaryDigest=${isTried ? digest : ''}`]),
    // Whatever a drain before it said.
    '--parameters', `${context.stackName('Workers')}:Begin=1`,
    '--parameters', control.host === 'lambda' ? `${context.stackName('Control')}:ApiKeysVersion=${version ?? '…'}` : `${context.stackName('Control')}:ImageDigest=${digest}`,
  ];
}
