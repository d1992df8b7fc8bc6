/** One stage as stacks, in the order in which they depend on each other. */
import { App, Aws, CfnOutput, Stack, Tags, Validations } from 'aws-cdk-lib';
import { AwsSolutionsChecks } from 'cdk-nag';

import type { StageConfig } from '../config.ts';
import { Bundles } from './bundles.ts';
import { ControlStack } from './control.ts';
import { ControlFargateStack } from './control-fargate.ts';
import { DataStack } from './data.ts';
import { NetworkStack } from './network.ts';
import { QueuesStack } from './queues.ts';
import { ScheduleStack } from './schedule.ts';
import { WatchStack } from './watch.ts';
import { WorkersStack } from './workers.ts';

/** CDK's newer ways; those of a new project, as far as they concern what is used here. */
const FLAGS = {
  '@aws-cdk/core:validateAgainstDefaultRules': true,
  '@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy': true,
  '@aws-cdk/aws-iam:minimizePolicies': false,
  '@aws-cdk/core:checkSecretUsage': true,
  '@aws-cdk/aws-kms:reduceCrossAccountRegionPolicyScope': true,
  '@aws-cdk/aws-lambda:recognizeLayerVersion': true,
  '@aws-cdk/aws-lambda:recognizeVersionProps': true,
  '@aws-cdk/aws-codedeploy:removeAlarmsFromDeploymentGroup': true,
  '@aws-cdk/aws-ecs:removeDefaultDeploymentAlarm': true,
  '@aws-cdk/core:enablePartitionLiterals': true,
};

export interface StageOptions {
  readonly name: string;
  readonly config: StageConfig;
  readonly bundles?: Bundles;
  /** Where the templates go. */
  readonly outdir?: string;
}

export interface BuiltStage {
  readonly app: App;
  readonly stacks: readonly Stack[];
}

/** @throws Error: the bundles are not built. `app.synth()` throws what AwsSolutions finds and nobody has accepted. */
export function buildStage({ name, config, bundles = new Bundles(), outdir }: StageOptions): BuiltStage {
  const app = new App({ context: FLAGS, analyticsReporting: false, ...(outdir === undefined ? {} : { outdir }) });
  Validations.of(app).addPlugins(new AwsSolutionsChecks(app));
  const of = (part: string, description: string) => ({ stackName: `Ruminate-${name}-${part}`, description: `Ruminate ${name}: ${description}`, env: { region: config.region, account: Aws.ACCOUNT_ID } });
  const data = new DataStack(app, 'Data', { ...of('Data', 'models, jobs, keys, images'), terminationProtection: true, config });
  const queues = new QueuesStack(app, 'Queues', { ...of('Queues', 'messages, and whom alarms tell'), stage: name, config, dataKey: data.dataKey });
  const places = { ...data, store: data.store, models: data.models, dataKey: data.dataKey, jobsKey: data.jobsKey, interactive: queues.interactive, batch: queues.batch };
  const needsNetwork = config.workers.pool !== null || config.control.host === 'fargate';
  const network = needsNetwork ? new NetworkStack(app, 'Network', { ...of('Network', 'where workers run'), config, dataKey: data.dataKey, bucketArns: [data.store.bucketArn, data.models.bucketArn] }) : null;
  const control = config.control.host === 'lambda'
    ? new ControlStack(app, 'Control', { ...of('Control', 'the API'), config, places, apiKeys: data.apiKeys, bundles, alarms: queues.alarms })
    : new ControlFargateStack(app, 'Control', { ...of('Control', 'the API'), config, places, apiKeys: data.apiKeys, images: data.images, network: network as NetworkStack });
  const { publicUrl } = control;
  const workers = new WorkersStack(app, 'Workers', { ...of('Workers', 'whoever runs jobs'), stage: name, config, places, queues, images: data.images, network, publicUrl });
  const schedule = new ScheduleStack(app, 'Schedule', { ...of('Schedule', 'what runs by the clock'), stage: name, config, places, bundles, publicUrl, alarms: queues.alarms });
  const watch = new WatchStack(app, 'Watch', {
    ...of('Watch', 'alarms, dashboard, budget'), stage: name, config, queues, workers, fronts: control.functions,
  });
  new CfnOutput(control, 'PublicUrl', { value: publicUrl, description: 'Where clients ask' });
  new CfnOutput(data, 'StoreUrl', { value: `s3://${data.store.bucketName}/platform` });
  new CfnOutput(data, 'ModelsStoreUrl', { value: `s3://${data.models.bucketName}/models` });
  new CfnOutput(data, 'ApiKeysSecret', { value: data.apiKeys.secretArn });
  new CfnOutput(data, 'ImagesUri', { value: data.images.repositoryUri });
  const stacks: Stack[] = [data, queues, ...(network === null ? [] : [network]), control, workers, schedule, watch];
  for (const stack of stacks) Tags.of(stack).add('ruminate:stage', name);
  return { app, stacks };
}
