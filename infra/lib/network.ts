/** Where workers run: nobody can reach them, and there is no NAT. */
import { aws_ec2 as ec2, aws_iam as iam, aws_kms as kms, aws_logs as logs, Aws, RemovalPolicy, Stack, type StackProps } from 'aws-cdk-lib';
import type { Construct } from 'constructs';

import type { StageConfig } from '../config.ts';
import { roleOf, skipCheckov } from './iam.ts';

const HTTPS = ec2.Port.tcp(443);

export interface NetworkOptions extends StackProps {
  readonly config: StageConfig;
  readonly dataKey: kms.IKey;
  /** Buckets that may be reached through the gateway. */
  readonly bucketArns: readonly string[];
}

export class NetworkStack extends Stack {
  readonly vpc: ec2.Vpc;
  /** Of workers: nothing in, 443 out. */
  readonly workers: ec2.SecurityGroup;
  readonly subnets: ec2.SubnetSelection;

  constructor(scope: Construct, id: string, { config, dataKey, bucketArns, ...props }: NetworkOptions) {
    super(scope, id, props);
    const { access, zones } = config.network;
    const isIsolated = access === 'private';
    const hasBalancer = config.control.host === 'fargate';
    this.subnets = { subnetGroupName: 'workers' };
    this.vpc = new ec2.Vpc(this, 'Vpc', {
      maxAzs: zones,
      natGateways: 0,
      // CDK empties the default group with a function of its own whose rights are wide; nothing here uses that group.
      restrictDefaultSecurityGroup: false,
      subnetConfiguration: [
        { name: 'workers', subnetType: isIsolated ? ec2.SubnetType.PRIVATE_ISOLATED : ec2.SubnetType.PUBLIC, cidrMask: 20, ...(isIsolated ? {} : { mapPublicIpOnLaunch: true }) },
        ...(hasBalancer ? [{ name: 'balancer', subnetType: ec2.SubnetType.PUBLIC, cidrMask: 24, mapPublicIpOnLaunch: false }] : []),
      ],
    });
    skipCheckov(this.vpc, { CKV2_AWS_12: 'Nothing is in the default group, and emptying it takes a function with wide rights.' });
    if (!isIsolated) {
      for (const subnet of this.vpc.publicSubnets) {
        skipCheckov(subnet, { CKV_AWS_130: 'Its machines go out by their own address, because there is no NAT; their group lets nobody in.' });
      }
    }
    this.#flowLogs(config, dataKey);

    this.workers = new ec2.SecurityGroup(this, 'Workers', { vpc: this.vpc, allowAllOutbound: false, description: 'Workers: nothing in, HTTPS out' });
    // S3 by its gateway has public addresses, so that only routes tell inside from outside: an isolated subnet has none that leads out.
    this.workers.addEgressRule(ec2.Peer.anyIpv4(), HTTPS, isIsolated ? 'Endpoints of AWS' : 'AWS, and webhooks');
    const s3 = this.vpc.addGatewayEndpoint('S3', { service: ec2.GatewayVpcEndpointAwsService.S3, subnets: [this.subnets] });
    // Layers of images lie in a bucket of ECR's.
    const layers = `arn:${Aws.PARTITION}:s3:::prod-${Aws.REGION}-starport-layer-bucket`;
    s3.addToPolicy(new iam.PolicyStatement({ sid: 'Ours', principals: [new iam.AnyPrincipal()], actions: ['s3:GetObject', 's3:PutObject', 's3:DeleteObject', 's3:ListBucket', 's3:AbortMultipartUpload'], resources: bucketArns.flatMap((arn) => [arn, `${arn}/*`]) }));
    s3.addToPolicy(new iam.PolicyStatement({ sid: 'ImageLayers', principals: [new iam.AnyPrincipal()], actions: ['s3:GetObject'], resources: [`${layers}/*`] }));
    if (!isIsolated) return;
    const endpoints = new ec2.SecurityGroup(this, 'Endpoints', { vpc: this.vpc, allowAllOutbound: false, description: 'Endpoints of AWS: HTTPS from workers' });
    endpoints.addIngressRule(this.workers, HTTPS, 'Workers');
    for (const [name, service] of Object.entries(INTERFACES)) {
      const endpoint = this.vpc.addInterfaceEndpoint(name, { service, subnets: this.subnets, securityGroups: [endpoints], open: false, privateDnsEnabled: true });
      // Nobody else's credentials go through it, so that nothing can be carried out of the account.
      endpoint.addToPolicy(new iam.PolicyStatement({ sid: 'ThisAccount', principals: [new iam.AnyPrincipal()], actions: ['*'], resources: ['*'], conditions: { StringEquals: { 'aws:PrincipalAccount': Aws.ACCOUNT_ID } } }));
    }
  }

  #flowLogs(config: StageConfig, encryptionKey: kms.IKey): void {
    const logGroup = new logs.LogGroup(this, 'Flows', { retention: config.logDays, encryptionKey, removalPolicy: RemovalPolicy.DESTROY });
    const role = roleOf(this, 'FlowLogsRole', {
      service: 'vpc-flow-logs.amazonaws.com',
      description: 'Writes flow logs',
      rights: [{ sid: 'Write', actions: ['logs:CreateLogStream', 'logs:PutLogEvents', 'logs:DescribeLogStreams'], resources: [logGroup.logGroupArn] }],
    });
    new ec2.FlowLog(this, 'FlowLog', { resourceType: ec2.FlowLogResourceType.fromVpc(this.vpc), trafficType: ec2.FlowLogTrafficType.REJECT, destination: ec2.FlowLogDestination.toCloudWatchLogs(logGroup, role) });
  }
}

/** What a worker, and ECS for it, asks for by network. */
const INTERFACES = {
  Sqs: ec2.InterfaceVpcEndpointAwsService.SQS,
  Kms: ec2.InterfaceVpcEndpointAwsService.KMS,
  Logs: ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
  EcrApi: ec2.InterfaceVpcEndpointAwsService.ECR,
  EcrDocker: ec2.InterfaceVpcEndpointAwsService.ECR_DOCKER,
  Ecs: ec2.InterfaceVpcEndpointAwsService.ECS,
  EcsAgent: ec2.InterfaceVpcEndpointAwsService.ECS_AGENT,
  EcsTelemetry: ec2.InterfaceVpcEndpointAwsService.ECS_TELEMETRY,
  Secrets: ec2.InterfaceVpcEndpointAwsService.SECRETS_MANAGER,
} as const;
