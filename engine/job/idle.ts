/**
 * What a stage of infra/ costs in a month in which nobody asks it for anything: how much it has of whatever is paid for by the month, times
 * core/prices.ts. infra/cost.ts counts that in the templates of a stage, and its test holds `STAGES` to them. What is not here costs nothing while it is idle:
 * functions, queues, ECS without tasks, roles, gateways.
 */
import { PRICES } from '../core/prices.ts';
import { IDLE_ROUND } from './cost.ts';

export const HOURS_PER_MONTH = 730;
/** Of the reconciler's function and of the collector's. */
export const ROUND_GIB = 0.5;
/** Of an idle round, start included: assumed. */
const ROUND_SECONDS = 1;
const roundUsd = PRICES.lambda.request + ROUND_SECONDS * ROUND_GIB * PRICES.lambda.gibSecond;

/** Of each: what it is, and USD a month. */
const PARTS = {
  endpoints: { what: 'interface endpoints, each in one zone', usd: PRICES.vpc.endpointHour * HOURS_PER_MONTH },
  fargateCpus: { what: 'CPUs of the API on Fargate', usd: PRICES.fargate.cpuHour * HOURS_PER_MONTH },
  fargateGib: { what: 'GiB of the API on Fargate', usd: PRICES.fargate.gibHour * HOURS_PER_MONTH },
  balancers: { what: 'load balancers', usd: PRICES.loadBalancer.hour * HOURS_PER_MONTH },
  alarms: { what: 'alarms, by the metrics that they watch', usd: PRICES.cloudwatch.alarmMonth },
  dashboards: { what: 'dashboards', usd: PRICES.cloudwatch.dashboardMonth },
  keys: { what: 'keys of KMS', usd: PRICES.kms.keyMonth },
  metrics: { what: 'metrics of the reconciler', usd: PRICES.cloudwatch.metricMonth },
  reconcilerRounds: { what: 'rounds of the reconciler', usd: roundUsd + (IDLE_ROUND.lists + IDLE_ROUND.puts) * PRICES.s3.put + IDLE_ROUND.gets * PRICES.s3.get + IDLE_ROUND.queue * PRICES.sqs.request },
  polls: { what: 'long polls by Lambda', usd: PRICES.sqs.request },
  secrets: { what: 'secrets', usd: PRICES.secrets.secretMonth },
  imagesGib: { what: 'GiB of images', usd: PRICES.ecr.gibMonth },
  collectorRounds: { what: 'rounds of the collector', usd: roundUsd },
} as const satisfies Readonly<Record<string, { readonly what: string; readonly usd: number }>>;

/** What a stage has. */
export type IdleParts = Readonly<Partial<Record<keyof typeof PARTS, number>>>;

export interface IdleLine {
  readonly what: string;
  readonly count: number;
  readonly usdPerMonth: number;
}

/** The dearest first. */
export function idleMonth(parts: IdleParts): { readonly lines: readonly IdleLine[]; readonly usdPerMonth: number } {
  const lines = Object.entries(PARTS).map(([name, { what, usd }]): IdleLine => {
    const count = parts[name as keyof typeof PARTS] ?? 0;
    return { what, count, usdPerMonth: count * usd };
  }).filter(({ count }) => count > 0).sort((a, b) => b.usdPerMonth - a.usdPerMonth);
  return { lines, usdPerMonth: lines.reduce((sum, { usdPerMonth }) => sum + usdPerMonth, 0) };
}

/** Interface endpoints that workers without a way out need, in each zone. */
export const PRIVATE_ENDPOINTS = 9;

export interface Stage {
  readonly parts: IdleParts;
  /** Zones of its network; 0: it has none, because Lambda runs its workers. */
  readonly zones: number;
}

const COMMON = { keys: 2, secrets: 1, dashboards: 1, metrics: 5, imagesGib: 0.2, reconcilerRounds: HOURS_PER_MONTH * 60, collectorRounds: 30.4 } as const;
/** Of a worker that is a function: each event source of SQS keeps five long polls of 20 s open. */
const LAMBDA_POLLS = 2 * 5 * 3 * HOURS_PER_MONTH * 60;

/** Those of infra/config.ts. */
export const STAGES: Readonly<Record<string, Stage>> = {
  dev: { zones: 0, parts: { ...COMMON, alarms: 9, polls: LAMBDA_POLLS } },
  prod: { zones: 2, parts: { ...COMMON, alarms: 52 } },
  verify: { zones: 2, parts: { ...COMMON, alarms: 53, polls: LAMBDA_POLLS } },
};
