/** A deploy that must not strand a parked job, with one: the real engine parks it in a store, and the deploy waits until it has ended. Stacks and store are moto's. */
import { CloudFormationClient, CreateStackCommand, DescribeStacksCommand } from '@aws-sdk/client-cloudformation';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { drain } from '../deploy/drain.ts';
import { pinnedIn } from '../deploy/pinned.ts';
import { type Identity, type Pinned, rolloutOf } from '../deploy/rollout.ts';
import { ROOT } from '../lib/bundles.ts';
import { type Moto, startMoto } from './moto.ts';
import { SYNTHESISED } from './synthesised.ts';

const region = 'us-east-1';
const credentials = { accessKeyId: 'test', secretAccessKey: 'test' };
const IMAGE = `sha256:${'a'.repeat(64)}`;
const CANARY = `sha256:${'b'.repeat(64)}`;
const EVERY_MS = 50;
/** Chains that hardly ever end by themselves: seconds, and a checkpoint long before. */
const LONG = ['--length', '900', '--width', '64', '--temperature', '8', '--no-early-stop', '--threads', '1', '--checkpoint-tokens', '20', '--seed', '7'];
const canRun = existsSync(path.join(ROOT, 'build', 'native'));
if (!canRun) process.stdout.write('skipped: a drain with a real checkpoint: the native engine is not built\n');

describe.skipIf(!canRun)('workers that could not go on with what is parked', () => {
  let moto: Moto | null = null;
  let objects: S3Client;
  let stacks: CloudFormationClient;
  let child: ChildProcess | null = null;
  const said: string[] = [];

  beforeAll(async () => {
    moto = await startMoto();
    if (moto === null) return void process.stdout.write('skipped: a drain: infra/check.mjs installs moto\n');
    objects = new S3Client({ endpoint: moto.endpoint, region, credentials, forcePathStyle: true });
    stacks = new CloudFormationClient({ endpoint: moto.endpoint, region, credentials });
    await objects.send(new CreateBucketCommand({ Bucket: 'store' }));
    // With the parameters of the real one, whose resources moto does not have; and it has no CDK bootstrap to look for.
    const { Parameters: { BootstrapVersion: _, ...Parameters } } = JSON.parse(readFileSync(path.join(SYNTHESISED, 'verify', 'Workers.template.json'), 'utf8')) as { readonly Parameters: Record<string, object> };
    const TemplateBody = JSON.stringify({ Parameters, Resources: { Begins: { Type: 'AWS::SNS::Topic', Properties: { DisplayName: { Ref: 'Begin' } } } } });
    const given = { ImageDigest: IMAGE, CanaryDigest: CANARY };
    await stacks.send(new CreateStackCommand({ StackName: 'Ruminate-verify-Workers', TemplateBody, Parameters: Object.entries(given).map(([ParameterKey, ParameterValue]) => ({ ParameterKey, ParameterValue })) }));
  });

  afterAll(async () => {
    child?.kill('SIGKILL');
    objects?.destroy();
    stacks?.destroy();
    await moto?.[Symbol.asyncDispose]();
  });

  const look = async (): Promise<readonly Pinned[]> => await pinnedIn(objects, 'store', 'platform');
  const parameters = async (): Promise<Record<string, string | undefined>> => {
    const { Stacks: [stack] = [] } = await stacks.send(new DescribeStacksCommand({ StackName: 'Ruminate-verify-Workers' }));
    return Object.fromEntries((stack?.Parameters ?? []).map(({ ParameterKey, ParameterValue }) => [ParameterKey, ParameterValue]));
  };
  const drained = (to: Identity, deadlineMs: number, stop = new AbortController()): Promise<void> =>
    drain({ clients: { stacks } as never, stackName: (part) => `Ruminate-verify-${part}`, say: (line) => void said.push(line), signal: stop.signal, options: { stage: 'verify' } as never }, { to, look, deadlineMs, everyMs: EVERY_MS });

  function ruminate(...args: readonly string[]): ChildProcess {
    return (child = spawn(process.execPath, ['bin/ruminate.mjs', ...args, '--store', 's3://store/platform'], {
      cwd: ROOT, stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, AWS_ACCESS_KEY_ID: 'test', AWS_SECRET_ACCESS_KEY: 'test', AWS_REGION: region, RUMINATE_S3_ENDPOINT: moto?.endpoint ?? '', RUMINATE_S3_PATH_STYLE: '1' },
    }));
  }

  test('wait for those that are there to finish it, say how far that is, and may be stopped and run again', async ({ skip }) => {
    if (moto === null) skip();
    let parked = '';
    // Where this process stood still, the job may have ended before it was told to park.
    for (let begun = 1; (await look()).length === 0; begun++) {
      expect(begun).toBeLessThan(5);
      parked = `parked-${begun}`;
      const running = ruminate('run', '4 20 8 13 target 59', '--model', 'countdown@cr2', ...LONG, '--job', parked);
      const over = once(running, 'close');
      let fault = '';
      running.stderr?.on('data', (chunk: Buffer) => { fault += chunk.toString(); });
      await vi.waitFor(async () => expect((await look()).length === 1 || running.exitCode === 0, fault).toBe(true), { timeout: 60_000, interval: EVERY_MS });
      running.kill('SIGINT');
      await over;
    }
    const [pin] = (await look()) as [Pinned];
    expect(pin.jobs).toBe(1);
    const own: Identity = { numericsId: pin.numericsId, layoutId: pin.layoutId, modelIds: [pin.modelId], formats: [pin.format] };
    const next: Identity = { ...own, numericsId: 'another' };

    // Who could go on with it waits for nobody.
    expect(rolloutOf(own, [pin])).toEqual({ kind: 'roll' });

    await expect(drained(next, 3 * EVERY_MS)).rejects.toThrow(/1 job would go on with other bits .*Run the same command to wait on/);
    // Those that are there have their own image still, and begin nothing.
    expect(await parameters()).toMatchObject({ Begin: '0', ImageDigest: IMAGE, CanaryDigest: CANARY });

    const stop = new AbortController();
    const first = drained(next, 600_000, stop);
    await vi.waitFor(() => expect(said.filter((line) => line.includes('1 job left')).length).toBeGreaterThan(1), { timeout: 30_000, interval: EVERY_MS });
    stop.abort();
    await expect(first).rejects.toThrow(/Stopped while those that are there finish.*--rollback/);

    let isOver = false;
    const again = drained(next, 600_000).then(() => { isOver = true; });
    const resumed = ruminate('resume', parked);
    await vi.waitFor(async () => expect((await look()).length).toBe(1), { timeout: 60_000, interval: EVERY_MS });
    expect(isOver).toBe(false);
    expect(await once(resumed, 'close')).toEqual([0, null]);
    await again;
    expect(await look()).toEqual([]);
    expect(said.at(-1)).toMatch(/none is left after \d+ s/);
    expect(said.filter((line) => line.includes('begin nothing from now on'))).toHaveLength(1);
    expect(await parameters()).toMatchObject({ Begin: '0', ImageDigest: IMAGE, CanaryDigest: CANARY });
  }, 180_000);

  test('are not waited for where there is no stack yet', async ({ skip }) => {
    if (moto === null) skip();
    await expect(drain({ clients: { stacks } as never, stackName: (part) => `Ruminate-none-${part}`, say: (line) => void said.push(line), signal: new AbortController().signal, options: { stage: 'none' } as never }, { to: { numericsId: '', layoutId: '', modelIds: [], formats: [] }, look: async () => [], deadlineMs: 1_000 })).resolves.toBeUndefined();
  });
});
