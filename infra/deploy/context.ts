/** What the steps of a deploy share: what was asked for, what was found, and what earlier runs have finished. */
import { EC2Client } from '@aws-sdk/client-ec2';
import { CloudFormationClient, DescribeStacksCommand } from '@aws-sdk/client-cloudformation';
import { ECRClient } from '@aws-sdk/client-ecr';
import { LambdaClient } from '@aws-sdk/client-lambda';
import { S3Client } from '@aws-sdk/client-s3';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { ServiceQuotasClient } from '@aws-sdk/client-service-quotas';
import { SSMClient } from '@aws-sdk/client-ssm';
import { STSClient } from '@aws-sdk/client-sts';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import type { StageConfig } from '../config.ts';
import { ROOT } from '../lib/bundles.ts';
import type { Identity } from './rollout.ts';

export interface Options {
  readonly stage: string;
  readonly config: StageConfig;
  /** Says what would be done; asks, and writes nothing. */
  readonly dryRun: boolean;
  /** `sha256:…` of the image in the stage's repository; null: the one of the last deploy. */
  readonly image: string | null;
  readonly data: boolean;
  /** How long the workers that are there may take to finish what only they can; 0: it is not waited for. */
  readonly drainMs: number;
  /** One more worker tries the new image; the others keep theirs. */
  readonly canary: boolean;
}

/** Kept between runs: a step that was interrupted is begun again, one that is done is looked at again and changes nothing. */
export interface Kept {
  image?: string;
  /** Of the release before, for its way back. */
  previous?: string;
  /** Of what the workers run. */
  identity?: Omit<Identity, 'formats'> & Partial<Pick<Identity, 'formats'>>;
  /** Of the engine in each image that was deployed, by its digest: a way back is decided by what it goes back to. */
  engines?: Record<string, Pick<Identity, 'numericsId' | 'layoutId'> & Partial<Pick<Identity, 'formats'>>>;
}

export class Context {
  readonly #file: string;
  readonly kept: Kept;
  readonly folder: string;
  readonly clients;
  /** Of what is to run, once the step release has asked. */
  next: Identity | null = null;

  constructor(readonly options: Options, readonly say: (line: string) => void, readonly signal: AbortSignal, home = path.join(ROOT, 'build', 'infra', 'deploy')) {
    const { stage, config } = options;
    this.folder = path.join(home, stage);
    this.#file = path.join(home, `${stage}.json`);
    this.kept = existsSync(this.#file) ? (JSON.parse(readFileSync(this.#file, 'utf8')) as Kept) : {};
    // Credentials and endpoints come as for every tool of AWS.
    const common = { region: config.region };
    this.clients = {
      sts: new STSClient(common), ec2: new EC2Client(common), ssm: new SSMClient(common), lambda: new LambdaClient(common), quotas: new ServiceQuotasClient(common), stacks: new CloudFormationClient(common),
      secrets: new SecretsManagerClient(common), images: new ECRClient(common), objects: new S3Client({ ...common, forcePathStyle: process.env.RUMINATE_S3_PATH_STYLE === '1' }),
    };
  }

  keep(changes: Kept): void {
    if (this.options.dryRun) return;
    Object.assign(this.kept, changes);
    mkdirSync(path.dirname(this.#file), { recursive: true });
    writeFileSync(this.#file, `${JSON.stringify(this.kept, null, 2)}\n`);
  }

  stackName(part: string): string {
    return `Ruminate-${this.options.stage}-${part}`;
  }

  /** null: there is no such stack, or it has no such output. */
  async output(part: string, key: string): Promise<string | null> {
    try {
      const { Stacks: [stack] = [] } = await this.clients.stacks.send(new DescribeStacksCommand({ StackName: this.stackName(part) }));
      return stack?.Outputs?.find(({ OutputKey }) => OutputKey === key)?.OutputValue ?? null;
    } catch (error) {
      if (/does not exist/.test((error as Error).message)) return null;
      throw error;
    }
  }

  /** Runs it and shows what it says; in a dry run it only says what it would run. @throws Error: it failed. */
  async run(command: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<void> {
    const shown = command.map((word) => path.isAbsolute(word) ? path.relative(ROOT, word) : word).join(' ');
    if (this.options.dryRun) return this.say(`  would run: ${shown}`);
    const [program = '', ...args] = command;
    const child = spawn(program, args, { cwd: ROOT, env: { ...process.env, ...environment }, stdio: ['ignore', 'inherit', 'inherit'], signal: this.signal, killSignal: 'SIGTERM' });
    const code = await new Promise<number>((resolve, reject) => child.on('error', reject).on('close', (status) => resolve(status ?? 1)));
    if (code !== 0) throw new Error(`${shown} ended with ${code}.`);
  }

  cdk(...args: readonly string[]): readonly string[] {
    return [process.execPath, path.join(ROOT, 'infra', 'node_modules', 'aws-cdk', 'bin', 'cdk'), ...args, '--app', this.folder];
  }
}
