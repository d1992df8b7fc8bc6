import { type aws_kms as kms, aws_logs as logs, RemovalPolicy } from 'aws-cdk-lib';
import type { Construct } from 'constructs';

import type { StageConfig } from '../config.ts';
import type { Right } from './iam.ts';

/** Of one kind of process: encrypted, kept as long as the stage says. */
export function logGroupOf(scope: Construct, id: string, config: StageConfig, encryptionKey: kms.IKey): logs.LogGroup {
  return new logs.LogGroup(scope, id, { retention: config.logDays, encryptionKey, removalPolicy: RemovalPolicy.DESTROY });
}

export function writeLogs(group: logs.ILogGroup): Right {
  return { sid: 'WriteLogs', actions: ['logs:CreateLogStream', 'logs:PutLogEvents'], resources: [group.logGroupArn] };
}
