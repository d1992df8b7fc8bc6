import { type aws_ec2 as ec2, aws_ecs as ecs } from 'aws-cdk-lib';
import type { Construct } from 'constructs';

import { accept, skipCheckov } from './iam.ts';

const UNINSIGHTFUL = 'Its metrics are paid for whether a task runs or not, and nothing here reads them: ECS tells the CPUs of each service for nothing, and workers and the reconciler tell the rest themselves.';

/** Without Container Insights. */
export function clusterOf(scope: Construct, id: string, { vpc, clusterName }: { readonly vpc: ec2.IVpc; readonly clusterName?: string }): ecs.Cluster {
  const cluster = new ecs.Cluster(scope, id, { vpc, containerInsightsV2: ecs.ContainerInsights.DISABLED, ...(clusterName === undefined ? {} : { clusterName }) });
  accept(cluster, { 'AwsSolutions-ECS4': UNINSIGHTFUL });
  skipCheckov(cluster, { CKV_AWS_65: UNINSIGHTFUL });
  return cluster;
}
