/** The API as a server (`ruminate serve --no-worker`) on Fargate behind a load balancer, for who wants /v1/checkpoints, /metrics or a name of their own. */
import {
  aws_certificatemanager as acm, aws_ec2 as ec2, type aws_ecr as ecr, aws_ecs as ecs, aws_elasticloadbalancingv2 as elb, type aws_lambda as lambda, aws_s3 as s3, aws_secretsmanager as secrets, CfnParameter, Duration,
  RemovalPolicy, Stack, type StackProps,
} from 'aws-cdk-lib';
import type { Construct } from 'constructs';

import type { StageConfig } from '../config.ts';
import { clusterOf } from './cluster.ts';
import { CACHE, serverEnvironment } from './environment.ts';
import { accept, ANYWHERE, roleOf, skipCheckov } from './iam.ts';
import { logGroupOf, writeLogs } from './logs.ts';
import type { NetworkStack } from './network.ts';
import { frontRights, type Places } from './rights.ts';

export interface ControlFargateOptions extends StackProps {
  readonly config: StageConfig;
  readonly places: Places;
  readonly apiKeys: secrets.ISecret;
  readonly images: ecr.IRepository;
  readonly network: NetworkStack;
}

const PORT = 8787;

export class ControlFargateStack extends Stack {
  readonly functions: readonly lambda.IFunction[] = [];
  readonly publicUrl: string;

  constructor(scope: Construct, id: string, { config, places, apiKeys, images, network, ...props }: ControlFargateOptions) {
    super(scope, id, props);
    const { certificateArn, hostName, tasks, memoryMiB } = config.control;
    if (certificateArn === null || hostName === null) throw new Error('Fargate needs certificateArn and hostName.');
    this.publicUrl = `https://${hostName}`;
    const digest = new CfnParameter(this, 'ImageDigest', { description: 'Of the image that answers', allowedPattern: '^sha256:[0-9a-f]{64}$' });
    const logGroup = logGroupOf(this, 'Log', config, places.dataKey);
    const cluster = clusterOf(this, 'Cluster', network);
    const environment = serverEnvironment({ config, places, publicUrl: this.publicUrl });
    const task = new ecs.FargateTaskDefinition(this, 'Task', {
      cpu: 512,
      memoryLimitMiB: Math.max(1_024, memoryMiB),
      taskRole: roleOf(this, 'TaskRole', { service: 'ecs-tasks.amazonaws.com', description: 'ruminate serve', rights: frontRights('api', places) }),
      executionRole: roleOf(this, 'ExecutionRole', {
        service: 'ecs-tasks.amazonaws.com',
        description: 'ECS starts the API',
        rights: [
          { sid: 'Login', actions: ['ecr:GetAuthorizationToken'], resources: ['*'], because: ANYWHERE },
          { sid: 'Pull', actions: ['ecr:BatchGetImage', 'ecr:GetDownloadUrlForLayer', 'ecr:BatchCheckLayerAvailability'], resources: [images.repositoryArn] },
          { sid: 'ApiKeys', actions: ['secretsmanager:GetSecretValue'], resources: [apiKeys.secretArn] },
          { sid: 'OpenApiKeys', actions: ['kms:Decrypt'], resources: [places.dataKey.keyArn], conditions: { StringEquals: { 'kms:ViaService': `secretsmanager.${this.region}.amazonaws.com` } } },
          writeLogs(logGroup),
        ],
      }),
      runtimePlatform: { cpuArchitecture: ecs.CpuArchitecture.X86_64, operatingSystemFamily: ecs.OperatingSystemFamily.LINUX },
      volumes: [{ name: 'tmp' }, { name: 'cache' }],
    });
    accept(task, { 'AwsSolutions-ECS2': 'They are names of places and numbers; keys come from the secret.' });
    // By its ARN: given the secret itself, CDK would write the role into the policy of its key, in another stack.
    const keys = secrets.Secret.fromSecretCompleteArn(this, 'ApiKeys', apiKeys.secretArn);
    const container = task.addContainer('api', {
      image: ecs.ContainerImage.fromRegistry(`${images.repositoryUri}@${digest.valueAsString}`),
      command: ['serve', '--no-worker', '--host', '0.0.0.0', '--port', String(PORT), '--proxies', '1', ...config.models.flatMap((model) => ['--model', model])],
      environment,
      secrets: { RUMINATE_API_KEYS: ecs.Secret.fromSecretsManager(keys) },
      portMappings: [{ containerPort: PORT }],
      readonlyRootFilesystem: true,
      user: '65532:65532',
      stopTimeout: Duration.seconds(60),
      healthCheck: { command: ['CMD', '/usr/local/bin/node', '-e', `fetch('http://127.0.0.1:${PORT}/health/live').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))`], startPeriod: Duration.seconds(30) },
      logging: ecs.LogDrivers.awsLogs({ logGroup, streamPrefix: 'api' }),
    });
    container.addMountPoints({ containerPath: '/tmp', sourceVolume: 'tmp', readOnly: false }, { containerPath: `${CACHE}/ruminate`, sourceVolume: 'cache', readOnly: false });
    const security = new ec2.SecurityGroup(this, 'Api', { vpc: network.vpc, allowAllOutbound: false, description: 'The API: from its balancer, HTTPS out' });
    security.addEgressRule(ec2.Peer.anyIpv4(), ec2.Port.tcp(443), 'S3, SQS, KMS');
    const service = new ecs.FargateService(this, 'Service', {
      cluster, taskDefinition: task, desiredCount: tasks, vpcSubnets: network.subnets, securityGroups: [security], assignPublicIp: config.network.access === 'public',
      minHealthyPercent: 100, maxHealthyPercent: 200, circuitBreaker: { enable: true, rollback: true }, enableExecuteCommand: false, healthCheckGracePeriod: Duration.seconds(60),
    });
    this.#balancer({ network, service, security, certificateArn });
  }

  #balancer({ network, service, security, certificateArn }: { readonly network: NetworkStack; readonly service: ecs.FargateService; readonly security: ec2.SecurityGroup; readonly certificateArn: string }): void {
    const door = new ec2.SecurityGroup(this, 'Door', { vpc: network.vpc, allowAllOutbound: false, description: 'The balancer: HTTPS from anywhere' });
    door.addIngressRule(ec2.Peer.anyIpv4(), ec2.Port.tcp(443), 'Clients');
    accept(door, { 'AwsSolutions-EC23': 'It is the door of a public API; every request needs an API key.' });
    door.addEgressRule(security, ec2.Port.tcp(PORT), 'The API');
    security.addIngressRule(door, ec2.Port.tcp(PORT), 'The balancer');
    const logs = new s3.Bucket(this, 'BalancerLogs', {
      // Balancers write to SSE-S3 alone.
      encryption: s3.BucketEncryption.S3_MANAGED, blockPublicAccess: s3.BlockPublicAccess.BLOCK_ALL, objectOwnership: s3.ObjectOwnership.BUCKET_OWNER_ENFORCED, enforceSSL: true, minimumTLSVersion: 1.2,
      removalPolicy: RemovalPolicy.RETAIN, lifecycleRules: [{ id: 'old-logs', expiration: Duration.days(90), abortIncompleteMultipartUploadAfter: Duration.days(1) }],
    });
    accept(logs, { 'AwsSolutions-S1': 'It is where access logs go; logging it into itself would never end.' });
    skipCheckov(logs, { CKV_AWS_18: 'It is where access logs go.', CKV_AWS_21: 'Logs are written once and expire.' });
    const balancer = new elb.ApplicationLoadBalancer(this, 'Balancer', {
      vpc: network.vpc, internetFacing: true, vpcSubnets: { subnetGroupName: 'balancer' }, securityGroup: door, dropInvalidHeaderFields: true, deletionProtection: true,
      // Longer than a client waits for an answer that is not streamed.
      idleTimeout: Duration.seconds(900),
    });
    balancer.logAccessLogs(logs);
    const listener = balancer.addListener('Https', { port: 443, protocol: elb.ApplicationProtocol.HTTPS, certificates: [acm.Certificate.fromCertificateArn(this, 'Certificate', certificateArn)], sslPolicy: elb.SslPolicy.TLS13_13, open: false });
    const group = listener.addTargets('Api', { port: PORT, protocol: elb.ApplicationProtocol.HTTP, targets: [service], deregistrationDelay: Duration.seconds(60), healthCheck: { path: '/health/ready', interval: Duration.seconds(15) } });
    skipCheckov(group, { CKV_AWS_378: 'From the balancer to the API inside the network; TLS ends at the balancer.' });
    skipCheckov(balancer, { CKV2_AWS_28: 'Each request needs an API key, and rates are limited by key; a firewall can be put before it by its ARN.' });
  }
}
