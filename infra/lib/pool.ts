/**
 * Workers on machines that ECS makes for them (Managed Instances): one worker a machine, none while nothing waits. Spot and on demand are services
 * of their own, because a strategy over both divides by weight and never falls back; scaling.ts says when each has workers.
 */
import { aws_ec2 as ec2, aws_ecs as ecs, aws_iam as iam, type aws_logs as logs, Duration, Size } from 'aws-cdk-lib';
import { Construct } from 'constructs';

import { GPUS, type PoolConfig, STOP_SECONDS } from '../config.ts';
import { CACHE, METRICS_PORT } from './environment.ts';
import { accept } from './iam.ts';

/** Images, and models that were pulled. */
const DISK_GIB = 200;
/** What ECS's agent and the system take of a machine. */
const MACHINE_MARGIN_MIB = 1_024;
/** Both are drained on SIGTERM; only their price and how they end differ. */
export type Capacity = 'SPOT' | 'ON_DEMAND';

export interface PoolParts {
  readonly cluster: ecs.Cluster;
  readonly subnets: readonly ec2.ISubnet[];
  readonly securityGroup: ec2.ISecurityGroup;
  readonly isIsolated: boolean;
  readonly taskRole: iam.IRole;
  readonly executionRole: iam.IRole;
  readonly infrastructureRole: iam.IRole;
  readonly instanceProfile: iam.IInstanceProfile;
  readonly logGroup: logs.ILogGroup;
}

export interface PoolOptions extends PoolParts {
  readonly pool: PoolConfig;
  readonly capacity: Capacity;
  /** With its digest. */
  readonly image: string;
  readonly environment: Readonly<Record<string, string>>;
  /** Workers that run from the start; scaling changes it. */
  readonly desired: number;
  readonly provider: ecs.ManagedInstancesCapacityProvider;
}

/** Machines of one kind. */
export function providerOf(scope: Construct, id: string, { pool, capacity, subnets, securityGroup, infrastructureRole, instanceProfile, cluster }: PoolParts & { readonly pool: PoolConfig; readonly capacity: Capacity }): ecs.ManagedInstancesCapacityProvider {
  const { gpu, cpus, memoryMiB, idleSeconds } = pool;
  const provider = new ecs.ManagedInstancesCapacityProvider(scope, id, {
    subnets: [...subnets],
    securityGroups: [securityGroup],
    infrastructureRole,
    ec2InstanceProfile: instanceProfile,
    taskVolumeStorage: Size.gibibytes(DISK_GIB),
    propagateTags: ecs.PropagateManagedInstancesTags.CAPACITY_PROVIDER,
    capacityOptionType: capacity === 'SPOT' ? ecs.CapacityOptionType.SPOT : ecs.CapacityOptionType.ON_DEMAND,
    instanceRequirements: {
      vCpuCountMin: cpus,
      memoryMin: Size.mebibytes(memoryMiB + MACHINE_MARGIN_MIB),
      // One machine, one worker: what is larger is paid for and not used.
      memoryMax: Size.mebibytes(memoryMiB * 4),
      cpuManufacturers: [ec2.CpuManufacturer.INTEL, ec2.CpuManufacturer.AMD],
      instanceGenerations: [ec2.InstanceGeneration.CURRENT],
      ...(gpu === null ? { burstablePerformance: ec2.BurstablePerformance.EXCLUDED } : {
        acceleratorCountMin: 1, acceleratorCountMax: 1, acceleratorTypes: [ec2.AcceleratorType.GPU], acceleratorManufacturers: [ec2.AcceleratorManufacturer.NVIDIA],
        acceleratorNames: [gpu as ec2.AcceleratorName], acceleratorTotalMemoryMin: Size.gibibytes(Math.floor(GPUS[gpu].memoryGiB * 0.9)),
      }),
    },
  });
  const resource = provider.node.defaultChild as ecs.CfnCapacityProvider;
  // The L2 does not know it.
  resource.addPropertyOverride('ManagedInstancesProvider.InfrastructureOptimization', { ScaleInAfter: idleSeconds });
  cluster.addManagedInstancesCapacityProvider(provider);
  return provider;
}

export class Pool extends Construct {
  readonly service: ecs.FargateService;
  readonly task: ecs.TaskDefinition;

  constructor(scope: Construct, id: string, options: PoolOptions) {
    super(scope, id);
    const { pool, cluster, capacity, image, environment, logGroup, taskRole, executionRole, subnets, securityGroup, isIsolated, desired, provider } = options;
    this.task = new ecs.TaskDefinition(this, 'Task', {
      compatibility: ecs.Compatibility.MANAGED_INSTANCES,
      cpu: String(pool.cpus * 1_024),
      memoryMiB: String(pool.memoryMiB),
      // A task with an address of its own has no public one on these machines: without endpoints it goes out by its machine's.
      networkMode: isIsolated ? ecs.NetworkMode.AWS_VPC : ecs.NetworkMode.HOST,
      runtimePlatform: { cpuArchitecture: ecs.CpuArchitecture.X86_64, operatingSystemFamily: ecs.OperatingSystemFamily.LINUX },
      taskRole,
      executionRole,
      volumes: [{ name: 'cache' }, { name: 'tmp' }],
    });
    accept(this.task, { 'AwsSolutions-ECS2': 'They are names of places and numbers; whoever may read a task may know them. The worker has no secret but its role.' });
    const container = this.task.addContainer('worker', {
      image: ecs.ContainerImage.fromRegistry(image),
      command: ['worker', ...pool.warm.flatMap((model) => ['--model', model])],
      environment: { ...environment },
      ...(pool.gpu === null ? {} : { gpuCount: 1 }),
      // Two workers in one machine's network would want the same port: ECS puts the second on another machine.
      ...(isIsolated ? {} : { portMappings: [{ containerPort: METRICS_PORT }] }),
      memoryLimitMiB: pool.memoryMiB,
      healthCheck: {
        command: ['CMD', '/usr/local/bin/node', '-e', `fetch('http://127.0.0.1:${METRICS_PORT}/health/live').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))`],
        interval: Duration.seconds(30), timeout: Duration.seconds(5), retries: 3, startPeriod: Duration.seconds(300),
      },
      readonlyRootFilesystem: true,
      privileged: false,
      user: USER,
      // Longer than the worker's grace, so that what runs is handed back before it is killed.
      stopTimeout: Duration.seconds(STOP_SECONDS),
      logging: ecs.LogDrivers.awsLogs({ logGroup, streamPrefix: capacity.toLowerCase().replace('_', '-'), mode: ecs.AwsLogDriverMode.NON_BLOCKING, maxBufferSize: Size.mebibytes(16) }),
      linuxParameters: new ecs.LinuxParameters(this, 'Linux', { initProcessEnabled: true }),
    });
    container.addMountPoints({ containerPath: `${CACHE}/ruminate`, sourceVolume: 'cache', readOnly: false }, { containerPath: '/tmp', sourceVolume: 'tmp', readOnly: false });
    this.service = new ecs.FargateService(this, 'Service', {
      cluster,
      taskDefinition: this.task,
      capacityProviderStrategies: [{ capacityProvider: provider.capacityProviderName, weight: 1 }],
      desiredCount: desired,
      vpcSubnets: { subnets: [...subnets] },
      securityGroups: [securityGroup],
      assignPublicIp: false,
      // The new worker is there before the old one is told to stop, and takes what that hands back.
      minHealthyPercent: 100,
      maxHealthyPercent: 200,
      circuitBreaker: { enable: true, rollback: true },
      enableECSManagedTags: true,
      propagateTags: ecs.PropagatedTagSource.SERVICE,
      enableExecuteCommand: false,
      availabilityZoneRebalancing: ecs.AvailabilityZoneRebalancing.DISABLED,
    });
    // A task in its machine's network has its machine's subnet and group.
    if (!isIsolated) (this.service.node.defaultChild as ecs.CfnService).addPropertyDeletionOverride('NetworkConfiguration');
  }
}

/** Of the image: nobody in particular. */
const USER = '65532:65532';
