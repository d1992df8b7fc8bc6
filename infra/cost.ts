/**
 * `npm run cost -- --stage NAME` (in infra): what a stage costs in a month in which nobody asks it for anything, from its own templates and the prices of
 * engine/core/prices.ts. What is not in the table costs nothing while it is idle: functions, queues, ECS without tasks, roles, gateways.
 */
import { AS_OF, PRICES } from '../engine/core/prices.ts';
import { IDLE_ROUND } from '../engine/job/cost.ts';
import { EVERY, type Found, stageNamed, synthesise } from './test/synthesised.ts';

export interface Line {
  readonly what: string;
  readonly count: number;
  readonly usdPerMonth: number;
}

const HOURS = 730;
const MINUTES = HOURS * 60;
/** Of an idle round of the reconciler, start included: assumed. */
const ROUND_SECONDS = 1;
/** An event source of SQS keeps five long polls of 20 s open, as AWS documents it. */
const POLLS_PER_MINUTE = 5 * 3;
/** What the reconciler says each minute (docs/QUEUE.md, Scaling): each is a metric of its own. */
const METRICS = ['BacklogSeconds', 'WaitingSeconds', 'QueueAgeSeconds', 'JobsWaiting', 'JobsRunning'];
/** An image and its predecessors, as pushed. */
const IMAGES_GIB = 0.2;

type Price = (resource: Found, all: readonly Found[]) => number;

/** A month of one resource. */
const PER_MONTH: Readonly<Record<string, Price>> = {
  'AWS::KMS::Key': () => PRICES.kms.keyMonth,
  'AWS::SecretsManager::Secret': () => PRICES.secrets.secretMonth,
  'AWS::CloudWatch::Alarm': ({ Properties: { Metrics } }) => PRICES.cloudwatch.alarmMonth * Math.max(1, (Metrics as { MetricStat?: unknown }[] | undefined)?.filter(({ MetricStat }) => MetricStat !== undefined).length ?? 1),
  'AWS::CloudWatch::CompositeAlarm': () => PRICES.cloudwatch.compositeAlarmMonth,
  'AWS::CloudWatch::Dashboard': () => PRICES.cloudwatch.dashboardMonth,
  'AWS::ECR::Repository': () => PRICES.ecr.gibMonth * IMAGES_GIB,
  'AWS::EC2::VPCEndpoint': ({ Properties: { VpcEndpointType, SubnetIds } }) => (VpcEndpointType === 'Interface' ? PRICES.vpc.endpointHour * HOURS * (SubnetIds as unknown[]).length : 0),
  'AWS::ElasticLoadBalancingV2::LoadBalancer': () => PRICES.loadBalancer.hour * HOURS,
  'AWS::Lambda::EventSourceMapping': () => PRICES.sqs.request * POLLS_PER_MINUTE * MINUTES,
  'AWS::Scheduler::Schedule': scheduled,
  'AWS::ECS::Service': serving,
};

/** Invocations, and for the reconciler what each asks of store and queue. */
function scheduled({ Properties: { ScheduleExpression, Target } }: Found, all: readonly Found[]): number {
  const [, digits = '', unit = ''] = /^rate\((\d+) (minute|hour|day)s?\)$/.exec(String(ScheduleExpression)) ?? [];
  const minutes = Number(digits) * ({ minute: 1, hour: 60, day: 1_440 }[unit] ?? Number.NaN);
  // Once a day, whatever it is: next to nothing.
  const rounds = MINUTES / (Number.isNaN(minutes) ? 1_440 : minutes);
  const id = (Target?.Arn?.['Fn::GetAtt'] as string[] | undefined)?.[0];
  const memoryGib = Number(all.find((one) => one.Type === 'AWS::Lambda::Function' && one.id === id)?.Properties.MemorySize ?? 512) / 1_024;
  const asks = id?.startsWith('reconciler') === true ? (IDLE_ROUND.lists + IDLE_ROUND.puts) * PRICES.s3.put + IDLE_ROUND.gets * PRICES.s3.get + IDLE_ROUND.queue * PRICES.sqs.request : 0;
  return rounds * (PRICES.lambda.request + ROUND_SECONDS * memoryGib * PRICES.lambda.gibSecond + asks);
}

/** Tasks that are always there: those of the API on Fargate. Workers start at none. */
function serving({ Properties: { DesiredCount = 0, TaskDefinition, LaunchType } }: Found, all: readonly Found[]): number {
  const id = (TaskDefinition as { Ref?: string })?.Ref;
  const task = all.find((one) => one.Type === 'AWS::ECS::TaskDefinition' && one.id === id);
  if (LaunchType !== 'FARGATE' || task === undefined) return 0;
  const { Cpu, Memory } = task.Properties;
  return DesiredCount * HOURS * ((Number(Cpu) / 1_024) * PRICES.fargate.cpuHour + (Number(Memory) / 1_024) * PRICES.fargate.gibHour);
}

/** @param all resources of a stage. A canary that is not there costs nothing. */
export function idle(all: readonly Found[]): readonly Line[] {
  const lines = new Map<string, Line>();
  const add = (what: string, count: number, usdPerMonth: number) => {
    const { count: before = 0, usdPerMonth: sum = 0 } = lines.get(what) ?? {};
    if (usdPerMonth > 0) lines.set(what, { what, count: before + count, usdPerMonth: sum + usdPerMonth });
  };
  for (const resource of all) if (resource.Condition === undefined) add(resource.Type, 1, PER_MONTH[resource.Type]?.(resource, all) ?? 0);
  if (all.some(({ Type }) => Type === 'AWS::Scheduler::Schedule')) add('metrics of the reconciler', METRICS.length, METRICS.length * PRICES.cloudwatch.metricMonth);
  return [...lines.values()].sort((a, b) => b.usdPerMonth - a.usdPerMonth);
}

export function total(lines: readonly Line[]): number {
  return lines.reduce((sum, { usdPerMonth }) => sum + usdPerMonth, 0);
}

function main(args: readonly string[]): void {
  const name = args[args.indexOf('--stage') + 1] ?? '';
  if (!args.includes('--stage') || !EVERY.includes(name)) {
    process.stderr.write(`cost: say which with --stage: ${EVERY.join(', ')}\n`);
    process.exitCode = 2;
    return;
  }
  synthesise(name);
  const lines = idle(stageNamed(name).resources);
  const row = ({ what, count, usdPerMonth }: Line) => `${usdPerMonth.toFixed(2).padStart(8)}  ${what}${count === 1 ? '' : `, ${count}`}\n`;
  process.stdout.write(`USD a month while idle, ${name}, list prices of us-east-1 as of ${AS_OF}\n${lines.map(row).join('')}${row({ what: 'in all', count: 1, usdPerMonth: total(lines) })}`);
}

if (process.argv[1]?.endsWith('cost.ts')) main(process.argv.slice(2));
