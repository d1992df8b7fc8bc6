/**
 * `npx tsx cost.ts --stage NAME` (in infra): what a stage costs in a month in which nobody asks it for anything, counted in its own templates and priced by
 * engine/job/idle.ts, which `ruminate quote --stage` reads too.
 */
import { AS_OF } from '../engine/core/prices.ts';
import { HOURS_PER_MONTH, type IdleLine, idleMonth, type IdleParts, ROUND_GIB } from '../engine/job/idle.ts';
import { EVERY, type Found, stageNamed, synthesise } from './test/synthesised.ts';

const MINUTES = HOURS_PER_MONTH * 60;
const DAYS = 30.4;
/** An event source of SQS keeps five long polls of 20 s open, as AWS documents it. */
const POLLS_PER_MINUTE = 5 * 3;
/** What the reconciler says each minute (docs/QUEUE.md, Scaling): each is a metric of its own. */
const METRICS = ['BacklogSeconds', 'WaitingSeconds', 'QueueAgeSeconds', 'JobsWaiting', 'JobsRunning'];
/** An image and its predecessors, as pushed. */
const IMAGES_GIB = 0.2;

type Counted = (resource: Found, all: readonly Found[]) => IdleParts;

/** Of one resource. */
const COUNTED: Readonly<Record<string, Counted>> = {
  'AWS::KMS::Key': () => ({ keys: 1 }),
  'AWS::SecretsManager::Secret': () => ({ secrets: 1 }),
  'AWS::CloudWatch::Alarm': ({ Properties: { Metrics } }) => ({ alarms: Math.max(1, (Metrics as { MetricStat?: unknown }[] | undefined)?.filter(({ MetricStat }) => MetricStat !== undefined).length ?? 1) }),
  // One that tracks a target makes two alarms of its own, over what it is told to look at.
  'AWS::ApplicationAutoScaling::ScalingPolicy': ({ Properties }) => ({ alarms: 2 * ((Properties.TargetTrackingScalingPolicyConfiguration?.CustomizedMetricSpecification.Metrics ?? []) as { MetricStat?: unknown }[]).filter(({ MetricStat }) => MetricStat !== undefined).length }),
  'AWS::CloudWatch::Dashboard': () => ({ dashboards: 1 }),
  'AWS::ECR::Repository': () => ({ imagesGib: IMAGES_GIB }),
  'AWS::EC2::VPCEndpoint': ({ Properties: { VpcEndpointType, SubnetIds } }) => (VpcEndpointType === 'Interface' ? { endpoints: (SubnetIds as unknown[]).length } : {}),
  'AWS::ElasticLoadBalancingV2::LoadBalancer': () => ({ balancers: 1 }),
  'AWS::Lambda::EventSourceMapping': () => ({ polls: POLLS_PER_MINUTE * MINUTES }),
  'AWS::Scheduler::Schedule': scheduled,
  'AWS::ECS::Service': serving,
};

function scheduled({ Properties: { ScheduleExpression, Target } }: Found, all: readonly Found[]): IdleParts {
  const id = (Target?.Arn?.['Fn::GetAtt'] as string[] | undefined)?.[0];
  const memoryGib = Number(all.find((one) => one.Type === 'AWS::Lambda::Function' && one.id === id)?.Properties.MemorySize) / 1_024;
  if (memoryGib !== ROUND_GIB) throw new Error(`${id} has ${memoryGib} GiB, and engine/job/idle.ts says ${ROUND_GIB}.`);
  if (ScheduleExpression === 'rate(1 minute)') return { reconcilerRounds: MINUTES, metrics: METRICS.length };
  if (/^cron\(\d+ \d+ \* \* \? \*\)$/.test(String(ScheduleExpression))) return { collectorRounds: DAYS };
  throw new Error(`How often ${String(ScheduleExpression)} is, nobody has counted.`);
}

/** Tasks that are always there: those of the API on Fargate. Workers start at none. */
function serving({ Properties: { DesiredCount = 0, TaskDefinition, LaunchType } }: Found, all: readonly Found[]): IdleParts {
  const id = (TaskDefinition as { Ref?: string })?.Ref;
  const task = all.find((one) => one.Type === 'AWS::ECS::TaskDefinition' && one.id === id);
  if (LaunchType !== 'FARGATE' || task === undefined) return {};
  const { Cpu, Memory } = task.Properties;
  return { fargateCpus: (DesiredCount * Number(Cpu)) / 1_024, fargateGib: (DesiredCount * Number(Memory)) / 1_024 };
}

/** @param all resources of a stage. A canary that is not there costs nothing. */
export function partsOf(all: readonly Found[]): IdleParts {
  const sum: Record<string, number> = {};
  for (const resource of all) {
    if (resource.Condition !== undefined) continue;
    for (const [part, count] of Object.entries(COUNTED[resource.Type]?.(resource, all) ?? {})) if (count > 0) sum[part] = (sum[part] ?? 0) + count;
  }
  return sum;
}

function main(args: readonly string[]): void {
  const name = args[args.indexOf('--stage') + 1] ?? '';
  if (!args.includes('--stage') || !EVERY.includes(name)) {
    process.stderr.write(`cost: say which with --stage: ${EVERY.join(', ')}\n`);
    process.exitCode = 2;
    return;
  }
  synthesise(name);
  const { lines, usdPerMonth } = idleMonth(partsOf(stageNamed(name).resources));
  const row = ({ what, count, usdPerMonth: usd }: IdleLine) => `${usd.toFixed(2).padStart(8)}  ${what}${count === 1 ? '' : `, ${count}`}\n`;
  process.stdout.write(`USD a month while idle, ${name}, list prices of us-east-1 as of ${AS_OF}\n${lines.map(row).join('')}${row({ what: 'in all', count: 1, usdPerMonth })}`);
}

if (process.argv[1]?.endsWith('cost.ts')) main(process.argv.slice(2));
