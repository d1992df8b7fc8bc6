/** The API as Lambda functions behind Function URLs that stream: nothing is paid for while nobody asks. */
import {
  aws_cloudwatch as cloudwatch, aws_codedeploy as codedeploy, aws_lambda as lambda, aws_secretsmanager as secrets, CfnOutput, CfnParameter, Duration, Stack, type StackProps,
} from 'aws-cdk-lib';
import { Construct } from 'constructs';

import type { StageConfig } from '../config.ts';
import type { Bundles } from './bundles.ts';
import { frontEnvironment } from './environment.ts';
import { accept, ANYWHERE, roleOf, skipCheckov } from './iam.ts';
import { logGroupOf, writeLogs } from './logs.ts';
import { NODE } from './schedule.ts';
import { frontRights, ownEnvironment, type Places } from './rights.ts';
import type { AlarmTopic } from './topic.ts';

/** Answers that are not streamed wait up to ten minutes (docs/FUNCTIONS.md). */
const SECONDS_MAX = 900;

export interface ControlOptions extends StackProps {
  readonly config: StageConfig;
  readonly places: Places;
  readonly apiKeys: secrets.ISecret;
  readonly bundles: Bundles;
  readonly alarms: AlarmTopic;
}

export class ControlStack extends Stack {
  readonly functions: readonly lambda.Function[];
  /** Of the function that answers everything. */
  readonly publicUrl: string;

  constructor(scope: Construct, id: string, { config, places, apiKeys, bundles, alarms, ...props }: ControlOptions) {
    super(scope, id, props);
    const keys = apiKeysIn(this, apiKeys);
    const names = config.control.functions === 'api' ? ['api'] : bundles.fronts;
    const fronts = names.map((name) => new Front(this, name, { name, config, places, apiKeys: keys, code: bundles.at(name), alarms }));
    this.functions = fronts.map(({ made }) => made);
    this.publicUrl = fronts.find(({ name }) => name === 'api')?.url ?? '';
    for (const { name, url } of fronts) new CfnOutput(this, `${name}Url`, { value: url, description: `Of the function ${name}` });
  }
}

/** The secret's text as it was at the version that the deploy names: another version is another text, so that CloudFormation sees the change. */
function apiKeysIn(scope: Construct, secret: secrets.ISecret): string {
  const version = new CfnParameter(scope, 'ApiKeysVersion', { description: 'Version id of the secret with the API keys', allowedPattern: '^[A-Za-z0-9-]{32,64}$' });
  return `{{resolve:secretsmanager:${secret.secretArn}:SecretString:::${version.valueAsString}}}`;
}

class Front extends Construct {
  readonly name: string;
  readonly made: lambda.Function;
  readonly url: string;

  constructor(scope: Construct, id: string, { name, config, places, apiKeys, code, alarms }: { readonly name: string; readonly config: StageConfig; readonly places: Places; readonly apiKeys: string; readonly code: string; readonly alarms: AlarmTopic }) {
    super(scope, id);
    this.name = name;
    const logGroup = logGroupOf(this, 'Log', config, places.dataKey);
    const role = roleOf(this, 'Role', {
      service: 'lambda.amazonaws.com',
      description: `The function ${name}`,
      rights: [...frontRights(name, places), ownEnvironment(this, places), writeLogs(logGroup)],
    });
    const { concurrency, memoryMiB, canary } = config.control;
    this.made = new lambda.Function(this, 'Function', {
      description: `Ruminate: ${name}`,
      code: lambda.Code.fromAsset(code),
      handler: 'index.handler',
      runtime: lambda.Runtime.NODEJS_22_X,
      architecture: lambda.Architecture.ARM_64,
      memorySize: memoryMiB,
      timeout: Duration.seconds(SECONDS_MAX),
      role,
      logGroup,
      environment: frontEnvironment(name, { config, places, apiKeys }),
      environmentEncryption: places.dataKey,
      ...(concurrency === null ? {} : { reservedConcurrentExecutions: concurrency }),
    });
    skipCheckov(this.made, {
      CKV_AWS_50: 'Spans are sent over OTLP by whoever runs jobs; X-Ray would need rights on everything.',
      CKV_AWS_116: 'It is asked over HTTP, and answers; nothing is lost without a dead-letter queue.',
      CKV_AWS_117: 'It reaches S3, SQS and KMS by their public names over TLS, with its role; in a network it would need endpoints that are paid for while nobody asks.',
      ...(concurrency === null ? { CKV_AWS_115: 'As much as the account has: a stage to try things.' } : {}),
    });
    const alias = new lambda.Alias(this, 'Live', { aliasName: 'live', version: this.made.currentVersion });
    const errors = new cloudwatch.Alarm(this, 'Errors', {
      alarmDescription: `The function ${name} fails`,
      metric: alias.metricErrors({ period: Duration.minutes(1) }),
      threshold: 1, evaluationPeriods: 3, datapointsToAlarm: 2, treatMissingData: cloudwatch.TreatMissingData.NOT_BREACHING,
    });
    errors.addAlarmAction(alarms.told);
    const shift = new codedeploy.LambdaDeploymentGroup(this, 'Shift', {
      alias,
      // The first tenth for five minutes; whatever alarms then brings the version before back.
      deploymentConfig: canary ? codedeploy.LambdaDeploymentConfig.CANARY_10PERCENT_5MINUTES : codedeploy.LambdaDeploymentConfig.ALL_AT_ONCE,
      alarms: [errors],
      autoRollback: { failedDeployment: true, stoppedDeployment: true, deploymentInAlarm: true },
      role: roleOf(this, 'ShiftRole', {
        service: 'codedeploy.amazonaws.com',
        description: `Moves requests of ${name} from version to version`,
        rights: [
          { sid: 'Alias', actions: ['lambda:GetAlias', 'lambda:UpdateAlias', 'lambda:GetProvisionedConcurrencyConfig'], resources: [this.made.functionArn, `${this.made.functionArn}:live`] },
          { sid: 'Alarms', actions: ['cloudwatch:DescribeAlarms'], resources: ['*'], because: ANYWHERE },
        ],
      }),
    });
    void shift;
    const url = alias.addFunctionUrl({ authType: lambda.FunctionUrlAuthType.NONE, invokeMode: lambda.InvokeMode.RESPONSE_STREAM });
    skipCheckov(url, { CKV_AWS_258: 'Clients of OpenAI\'s API sign nothing: the function itself asks for an API key, and answers 401 without one.' });
    accept(this.made, { 'AwsSolutions-L1': NODE });
    // Without the slash at its end, to which paths are added.
    this.url = url.url;
  }
}
