/** What runs by the clock, whether anybody asks or not: the reconciler each minute, and whoever collects garbage each day. */
import { aws_cloudwatch as cloudwatch, aws_lambda as lambda, aws_scheduler as scheduler, Duration, Stack, type StackProps } from 'aws-cdk-lib';
import { Construct } from 'constructs';

import type { StageConfig } from '../config.ts';
import type { Bundles } from './bundles.ts';
import { collectorEnvironment, reconcilerEnvironment } from './environment.ts';
import { type Right, roleOf, skipCheckov, accept } from './iam.ts';
import { logGroupOf, writeLogs } from './logs.ts';
import { collectorRights, ownEnvironment, type Places, reconcilerRights } from './rights.ts';
import type { AlarmTopic } from './topic.ts';

export interface ScheduleOptions extends StackProps {
  readonly stage: string;
  readonly config: StageConfig;
  readonly places: Places;
  readonly bundles: Bundles;
  readonly publicUrl: string;
  readonly alarms: AlarmTopic;
}

interface Chore {
  readonly name: string;
  readonly doing: string;
  readonly expression: string;
  readonly timeout: Duration;
  readonly rights: readonly Right[];
  readonly environment: Readonly<Record<string, string>>;
}

export class ScheduleStack extends Stack {
  constructor(scope: Construct, id: string, { stage, config, places, bundles, publicUrl, alarms, ...props }: ScheduleOptions) {
    super(scope, id, props);
    const chores: readonly Chore[] = [
      {
        name: 'reconciler', doing: 'finds jobs that lost their message or their worker, sends webhooks, counts what there is to do', expression: 'rate(1 minute)', timeout: Duration.minutes(5),
        rights: reconcilerRights(places), environment: reconcilerEnvironment({ stage, config, places, publicUrl }),
      },
      {
        name: 'collector', doing: 'deletes what no job needs any more', expression: 'cron(17 3 * * ? *)', timeout: Duration.minutes(15),
        rights: collectorRights(places), environment: collectorEnvironment({ config, places }),
      },
    ];
    for (const chore of chores) new Scheduled(this, chore.name, { ...chore, config, places, code: bundles.at(chore.name), alarms });
  }
}

class Scheduled extends Construct {
  constructor(scope: Construct, id: string, { name, doing, expression, timeout, rights, environment, config, places, code, alarms }: Chore & { readonly config: StageConfig; readonly places: Places; readonly code: string; readonly alarms: AlarmTopic }) {
    super(scope, id);
    const logGroup = logGroupOf(this, 'Log', config, places.dataKey);
    const made = new lambda.Function(this, 'Function', {
      description: `Ruminate: ${doing}`,
      code: lambda.Code.fromAsset(code),
      handler: 'index.handler',
      runtime: lambda.Runtime.NODEJS_22_X,
      architecture: lambda.Architecture.ARM_64,
      memorySize: 512,
      timeout,
      // A second one would do the same work at the same time; it may, but need not.
      reservedConcurrentExecutions: 1,
      // The next one comes by itself.
      retryAttempts: 0,
      role: roleOf(this, 'Role', { service: 'lambda.amazonaws.com', description: `The ${name}`, rights: [...rights, ownEnvironment(this, places), writeLogs(logGroup)] }),
      logGroup,
      environment: { ...environment },
      environmentEncryption: places.dataKey,
    });
    accept(made, { 'AwsSolutions-L1': NODE });
    skipCheckov(made, {
      CKV_AWS_50: 'Its log says what it did; X-Ray would need rights on everything.',
      CKV_AWS_116: 'What one run did not do the next one does.',
      CKV_AWS_117: 'It reaches S3, SQS and KMS by their public names over TLS, with its role; webhooks go to the internet.',
    });
    new scheduler.CfnSchedule(this, 'Schedule', {
      description: `Ruminate: the ${name}`,
      scheduleExpression: expression,
      flexibleTimeWindow: { mode: 'OFF' },
      kmsKeyArn: places.dataKey.keyArn,
      target: {
        arn: made.functionArn,
        roleArn: roleOf(this, 'ScheduleRole', {
          service: 'scheduler.amazonaws.com',
          description: `Starts the ${name}`,
          rights: [{ sid: 'Start', actions: ['lambda:InvokeFunction'], resources: [made.functionArn] }, { sid: 'Own', actions: ['kms:Decrypt'], resources: [places.dataKey.keyArn], conditions: { StringEquals: { 'kms:ViaService': `scheduler.${Stack.of(this).region}.amazonaws.com` } } }],
        }).roleArn,
        retryPolicy: { maximumRetryAttempts: 0, maximumEventAgeInSeconds: 60 },
      },
    });
    new cloudwatch.Alarm(this, 'Errors', {
      alarmDescription: `The ${name} fails`,
      metric: made.metricErrors({ period: Duration.minutes(5) }),
      threshold: 1, evaluationPeriods: 2, treatMissingData: cloudwatch.TreatMissingData.NOT_BREACHING,
    }).addAlarmAction(alarms.told);
  }
}

/** Of cdk-nag's L1. */
export const NODE = 'Node 22 is what the bundles are tested on; AWS maintains it until April 2027.';
