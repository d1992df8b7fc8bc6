/** Whoever runs jobs: pools of machines, the worker as a function, and the reconciler, which counts what there is to do. */
import { aws_ec2 as ec2, aws_ecr as ecr, aws_ecs as ecs, aws_iam as iam, type aws_sqs as sqs, CfnCondition, CfnParameter, Fn, Stack, type StackProps } from 'aws-cdk-lib';
import type { Construct } from 'constructs';

import type { PoolConfig, StageConfig } from '../config.ts';
import { clusterOf } from './cluster.ts';
import { workerEnvironment } from './environment.ts';
import { ANYWHERE, roleOf } from './iam.ts';
import { logGroupOf, writeLogs } from './logs.ts';
import { type Capacity, Pool, type PoolParts, providerOf } from './pool.ts';
import { type Places, protectItself, workerRights } from './rights.ts';
import { WorkerScaling } from './scaling.ts';
import { LambdaWorker, type LambdaWorkerOptions } from './worker-lambda.ts';

export interface WorkersOptions extends StackProps {
  readonly stage: string;
  readonly config: StageConfig;
  readonly places: Places;
  readonly queues: { readonly interactive: sqs.IQueue; readonly batch: sqs.IQueue };
  readonly images: ecr.IRepository;
  readonly network: { readonly vpc: ec2.IVpc; readonly workers: ec2.ISecurityGroup; readonly subnets: ec2.SubnetSelection } | null;
  readonly publicUrl: string;
}

const DIGEST = '^sha256:[0-9a-f]{64}$';

export class WorkersStack extends Stack {
  readonly pools: Pool[] = [];
  readonly lambda: LambdaWorker | null;

  constructor(scope: Construct, id: string, options: WorkersOptions) {
    super(scope, id, options);
    const { config, places, queues, images, network } = options;
    // Never a tag: what runs is what was tried.
    const digest = new CfnParameter(this, 'ImageDigest', { description: 'Of the image that workers run', allowedPattern: DIGEST });
    // 0 while a deploy waits for what these workers have begun (deploy/drain.ts).
    const begin = new CfnParameter(this, 'Begin', { description: 'Whether workers begin jobs; 0: they go on with those that have begun', default: '1', allowedValues: ['0', '1'] }).valueAsString;
    const { lambda, pool } = config.workers;
    this.lambda = lambda === null ? null : new LambdaWorker(this, 'Lambda', { config: config as LambdaWorkerOptions['config'], places, queues, images, digest, begin });
    if (pool !== null && network !== null) this.#pools(pool, digest, begin, { ...options, network });
  }

  #pools(pool: PoolConfig, digest: CfnParameter, begin: string, options: WorkersOptions & { readonly network: NonNullable<WorkersOptions['network']> }): void {
    const { stage, queues, images } = options;
    const parts = this.#parts(options);
    const imageOf = (parameter: CfnParameter) => `${images.repositoryUri}@${parameter.valueAsString}`;
    const made = (name: string, capacity: Capacity, desired: number, image: string, provider = providerOf(parts.cluster, `${name}Machines`, { ...parts, pool, capacity })): Pool =>
      new Pool(this, name, { ...parts, pool, capacity, image, desired, provider, environment: workerEnvironment({ stage, config: options.config, places: options.places, pool, isSpot: capacity === 'SPOT', publicUrl: options.publicUrl, begin }) });
    const onDemandMachines = providerOf(parts.cluster, 'OnDemandMachines', { ...parts, pool, capacity: 'ON_DEMAND' });
    const spot = pool.spot ? made('Spot', 'SPOT', 0, imageOf(digest)) : null;
    const onDemand = made('OnDemand', 'ON_DEMAND', 0, imageOf(digest), onDemandMachines);
    this.pools.push(...(spot === null ? [] : [spot]), onDemand);
    const services = this.pools.map(({ service }) => service);
    for (const [name, { service }, role] of [...(spot === null ? [] : [['SpotScaling', spot, 'first'] as const]), ['OnDemandScaling', onDemand, spot === null ? 'first' : 'fallback'] as const] as const) {
      new WorkerScaling(this, name, { stage, pool, queues, service, services, role });
    }

    // A new engine first runs on one machine beside the others, for as long as the deploy looks at it.
    const canary = new CfnParameter(this, 'CanaryDigest', { description: 'Of an image that one more worker tries; empty: none', default: '', allowedPattern: `^$|${DIGEST}` });
    const { service, task } = made('Canary', 'ON_DEMAND', 1, imageOf(canary), onDemandMachines);
    const isTried = new CfnCondition(this, 'IsTried', { expression: Fn.conditionNot(Fn.conditionEquals(canary.valueAsString, '')) });
    for (const resource of [service, task]) (resource.node.defaultChild as ecs.CfnService | ecs.CfnTaskDefinition).cfnOptions.condition = isTried;
  }

  #parts({ stage, config, places, images, network }: WorkersOptions & { readonly network: NonNullable<WorkersOptions['network']> }): PoolParts {
    const cluster = clusterOf(this, 'Cluster', { vpc: network.vpc, clusterName: `ruminate-${stage}` });
    const logGroup = logGroupOf(this, 'Log', config, places.dataKey);
    const here = (resource: string) => this.formatArn({ service: 'ecs', resource, resourceName: `ruminate-${stage}/*` });
    const instanceRoleName = `ecsInstanceRole-ruminate-${stage}`;
    const instanceRole = roleOf(this, 'MachineRole', {
      service: 'ec2.amazonaws.com',
      description: 'Machines of workers: what the agent of ECS asks for',
      // ECS may pass roles by this name alone.
      roleName: instanceRoleName,
      rights: [
        { sid: 'Agent', actions: ['ecs:DiscoverPollEndpoint'], resources: ['*'], because: ANYWHERE },
        { sid: 'Cluster', actions: ['ecs:RegisterContainerInstance', 'ecs:SubmitAttachmentStateChanges', 'ecs:SubmitTaskStateChange'], resources: [cluster.clusterArn] },
        { sid: 'Machine', actions: ['ecs:Poll', 'ecs:StartTelemetrySession', 'ecs:PutSystemLogEvents'], resources: [here('container-instance')], because: 'Machines of a cluster have no names before they are there.' },
      ],
    });
    const infrastructureRole = roleOf(this, 'InfrastructureRole', {
      service: 'ecs.amazonaws.com',
      description: 'ECS makes machines and takes them away',
      rights: [],
      managed: { AmazonECSInfrastructureRolePolicyForManagedInstances: 'AWS changes it as the service learns to make other machines; it is held to what ECS has tagged as its own.' },
    });
    return {
      cluster, logGroup, infrastructureRole,
      subnets: network.vpc.selectSubnets(network.subnets).subnets,
      securityGroup: network.workers,
      isIsolated: config.network.access === 'private',
      instanceProfile: new iam.InstanceProfile(this, 'MachineProfile', { instanceProfileName: instanceRoleName, role: instanceRole }),
      taskRole: roleOf(this, 'TaskRole', {
        service: 'ecs-tasks.amazonaws.com',
        description: 'ruminate worker',
        rights: [...workerRights(places), protectItself(here('task'))],
      }),
      executionRole: roleOf(this, 'ExecutionRole', {
        service: 'ecs-tasks.amazonaws.com',
        description: 'ECS starts workers',
        rights: [
            { sid: 'Login', actions: ['ecr:GetAuthorizationToken'], resources: ['*'], because: ANYWHERE },
          { sid: 'Pull', actions: ['ecr:BatchGetImage', 'ecr:GetDownloadUrlForLayer', 'ecr:BatchCheckLayerAvailability'], resources: [images.repositoryArn] },
          writeLogs(logGroup),
        ],
      }),
    };
  }
}
