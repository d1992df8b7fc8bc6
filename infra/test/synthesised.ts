/** Templates as they would be deployed. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { parseStage, STAGE_NAMES, type StageConfig, stageOf } from '../config.ts';
import { ROOT } from '../lib/bundles.ts';
import { buildStage } from '../lib/stage.ts';

export interface Resource {
  readonly Type: string;
  readonly Properties: Record<string, any>;
  readonly DeletionPolicy?: string;
  readonly UpdateReplacePolicy?: string;
  readonly Condition?: string;
  readonly Metadata?: Record<string, any>;
}

export interface Template {
  readonly Resources: Readonly<Record<string, Resource>>;
  readonly Outputs?: Readonly<Record<string, { readonly Value: unknown; readonly Export?: { readonly Name: string } }>>;
  readonly Parameters?: Readonly<Record<string, { readonly Type: string; readonly Default?: string; readonly AllowedPattern?: string }>>;
  readonly Conditions?: Readonly<Record<string, unknown>>;
}

/** A resource with where it is. */
export type Found = Resource & { readonly id: string; readonly stack: string };

export class Synthesised {
  constructor(readonly name: string, readonly config: StageConfig, readonly folder: string, readonly templates: ReadonlyMap<string, Template>) {}

  all(type: string): Found[] {
    return this.resources.filter(({ Type }) => Type === type);
  }

  get resources(): Found[] {
    return [...this.templates].flatMap(([stack, { Resources }]) => Object.entries(Resources).map(([id, resource]) => ({ ...resource, id, stack })));
  }

  /** The folder of a function's code, as it would be uploaded. */
  assetOf({ Properties }: Found): string {
    const key = String(Properties.Code.S3Key).replace(/\.zip$/, '');
    return path.join(this.folder, `asset.${key}`);
  }
}

/** Where test/setup.ts puts them: a folder of each run, so that several may be under way. infra/check.mjs says which, as its linters look there. */
export const SYNTHESISED = process.env.RUMINATE_INFRA_STAGES ??= path.join(ROOT, 'build', 'infra', `stages-${process.pid}`);

/** @throws what AwsSolutions or CloudFormation's own rules find, and nobody has accepted. */
export function synthesise(name: string): void {
  const outdir = path.join(SYNTHESISED, name);
  rmSync(outdir, { recursive: true, force: true });
  const { app, stacks } = buildStage({ name, config: configOf(name), outdir });
  app.synth();
  writeFileSync(path.join(outdir, 'order.json'), JSON.stringify(stacks.map(({ node }) => node.id)));
}

/** As it was synthesised last. */
export function stageNamed(name: string): Synthesised {
  const folder = path.join(SYNTHESISED, name);
  const order = JSON.parse(readFileSync(path.join(folder, 'order.json'), 'utf8')) as string[];
  return new Synthesised(name, configOf(name), folder, new Map(order.map((id) => [id, JSON.parse(readFileSync(path.join(folder, `${id}.template.json`), 'utf8')) as Template])));
}

/** What no stage of ours has, and the code allows: subnets without a way out, a server on Fargate, jobs in the clear, on-demand machines alone. */
export const OTHER = 'other';
const otherConfig = () => parseStage(OTHER, {
  region: 'us-east-1',
  network: { access: 'private' },
  control: { host: 'fargate', certificateArn: 'arn:aws:acm:us-east-1:111122223333:certificate/00000000-0000-0000-0000-000000000000', hostName: 'api.example.com' },
  workers: { pool: { gpu: 'l40s', memoryMiB: 65_536, cpus: 8, tasksMax: 2, spot: false } },
  seal: false,
  emails: ['ops@example.com'],
});
const configOf = (name: string): StageConfig => (name === OTHER ? otherConfig() : stageOf(name));

export const EVERY = [...STAGE_NAMES, OTHER];
