/**
 * What a stage is: one typed value each, with defaults that work. `npm run deploy -- --stage NAME` makes an account into it. Anything that is
 * wrong is said at once, all of it, before anything is synthesised.
 */
import { z } from 'zod';

/**
 * GPUs by the name that EC2 has for them, with their memory. A pool has GPUs of one name only: `numericsId` differs between architectures, and a
 * job goes on bit by bit only where it is the same (docs/NUMERICS.md).
 */
export const GPUS = {
  t4: { memoryGiB: 16, families: ['g4dn'] },
  a10g: { memoryGiB: 24, families: ['g5'] },
  l4: { memoryGiB: 24, families: ['g6', 'gr6'] },
  l40s: { memoryGiB: 48, families: ['g6e'] },
  a100: { memoryGiB: 40, families: ['p4d', 'p4de'] },
  h100: { memoryGiB: 80, families: ['p5'] },
} as const;
export type GpuName = keyof typeof GPUS;

/** What Fargate, Lambda and ECS call them. */
const SECONDS_STOP_MAX = 120;

const pool = z.strictObject({
  /** null: a pool without GPUs, for the CPU engine. */
  gpu: z.enum(Object.keys(GPUS) as [GpuName, ...GpuName[]]).nullable(),
  /** Of one worker. Weights are mapped and packed: about twice the size of the model's files, and the KV cache of its jobs. */
  memoryMiB: z.int().min(2_048).max(2_000_000),
  cpus: z.int().min(1).max(192),
  /** The most workers of this pool; each has a machine of its own. What it can cost in an hour is this times a machine's price. */
  tasksMax: z.int().min(1).max(200),
  /** Jobs at a time of one worker, as memory allows. */
  slots: z.int().min(1).max(64).default(8),
  /** How long a job runs before the next one's turn. */
  sliceTime: z.string().regex(/^\d{1,4}[smh]$/, 'must be a duration such as 10m').default('10m'),
  /** How many seconds of work may wait for each worker before there is another one. */
  backlogSeconds: z.int().min(10).max(86_400).default(300),
  /** After so long without work there is no worker, and its machine goes when this is over once more. */
  idleSeconds: z.int().min(60).max(3_600).default(300),
  /**
   * Spot first; on demand only for what Spot has let wait for `fallbackSeconds`. false: on demand alone.
   */
  spot: z.boolean().default(true),
  fallbackSeconds: z.int().min(60).max(21_600).default(600),
  /** Models that a worker loads before its first job, by name. */
  warm: z.array(z.string()).max(16).default([]),
});
export type PoolConfig = z.infer<typeof pool>;

const lambdaWorker = z.strictObject({
  /** Lambda gives a CPU for each 1,769 MB. */
  memoryMiB: z.int().min(1_024).max(10_240).default(4_096),
  /** Workers at a time. */
  concurrency: z.int().min(2).max(1_000).default(4),
});

const stage = z.strictObject({
  region: z.string().regex(/^[a-z]{2}(-[a-z]+)+-\d$/, 'must be a region such as eu-central-1'),
  /** Of the bundled or hub models: pushed to the models bucket before anything runs, and the only ones that may be asked for. */
  models: z.array(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._/-]{0,95}$/, 'must be the name of a model')).min(1).max(64).default(['countdown']),
  network: z.strictObject({
    /**
     * `public`: workers go out through an internet gateway, by TLS alone, and nothing is let in; it costs nothing while no worker runs. `private`: they have no way to
     * the internet at all and reach AWS by interface endpoints, which cost about 66 USD a month in each zone, work or not (`ruminate quote --stage`); they
     * leave webhooks to the reconciler. S3 has a gateway endpoint in both, and neither has a NAT.
     */
    access: z.enum(['public', 'private']).default('public'),
    /** More zones: more Spot capacity, and, where access is private, more endpoints to pay for. */
    zones: z.int().min(1).max(3).default(2),
  }).prefault({}),
  control: z.strictObject({
    /** `lambda`: nothing to pay while nobody asks. `fargate`: `ruminate serve` behind a load balancer, with /v1/checkpoints and /metrics. */
    host: z.enum(['lambda', 'fargate']).default('lambda'),
    /** `api`: one function that answers all. `split`: each of functions/entries by itself too, with its own URL and only its own rights. */
    functions: z.enum(['api', 'split']).default('api'),
    /** Of each function; null: as the account has. A bound on what strangers can make it cost. */
    concurrency: z.int().min(1).max(1_000).nullable().default(null),
    memoryMiB: z.int().min(256).max(10_240).default(1_024),
    /** Of Fargate: for its load balancer, in ACM of the region, and the name that it is for. */
    certificateArn: z.string().regex(/^arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate\/[0-9a-f-]+$/, 'must be the ARN of a certificate in ACM').nullable().default(null),
    hostName: z.string().regex(/^([a-z0-9-]+\.)+[a-z]{2,}$/, 'must be a host name').nullable().default(null),
    tasks: z.int().min(1).max(20).default(2),
    /** A new version answers a tenth of the requests for five minutes first, and whatever alarms brings the old one back. */
    canary: z.boolean().default(true),
  }).prefault({}),
  /** Whether jobs are encrypted by a KMS key of their own before they leave a process (docs/KEYS.md), beside what S3 does. */
  seal: z.boolean().default(true),
  workers: z.strictObject({
    /** Scales to zero by itself, starts in seconds; CPU engine, 15 minutes a slice. */
    lambda: lambdaWorker.nullable().default(null),
    pool: pool.nullable().default(null),
  }),
  /** Of one worker's machine, for quotes. */
  usdPerHour: z.number().positive().max(1_000).nullable().default(null),
  logDays: z.union([z.literal(7), z.literal(30), z.literal(90), z.literal(365)]).default(365),
  /** Who hears of alarms and of the budget. The address confirms once, by a mail of AWS. */
  emails: z.array(z.email()).max(10).default([]),
  budgetUsdPerMonth: z.number().positive().max(1_000_000).default(100),
  /** The oldest message may wait this long before somebody is told. */
  waitSecondsMax: z.int().min(60).max(86_400).default(1_800),
}).superRefine((config, context) => {
  const wrong = (path: (string | number)[], message: string) => context.addIssue({ code: 'custom', path, message });
  const { lambda, pool: workers } = config.workers;
  if (lambda === null && workers === null) wrong(['workers'], 'nothing would run a job: give it `lambda`, `pool` or both');
  if (config.control.host === 'fargate') {
    if (config.control.certificateArn === null || config.control.hostName === null) wrong(['control'], 'Fargate needs certificateArn and hostName: API keys are not sent in the clear');
    if (config.control.functions === 'split') wrong(['control', 'functions'], 'Fargate runs one server; `split` is of Lambda');
    if (config.network.zones < 2) wrong(['network', 'zones'], 'a load balancer needs two');
  }
  if (workers !== null && workers.gpu === null && workers.spot && workers.fallbackSeconds > config.waitSecondsMax) wrong(['workers', 'pool', 'fallbackSeconds'], 'is longer than waitSecondsMax: the alarm would come before the fallback');
  if (workers !== null && workers.gpu !== null && workers.memoryMiB < GPUS[workers.gpu].memoryGiB * 1_024 / 2) wrong(['workers', 'pool', 'memoryMiB'], `is less than half of the memory of its GPU (${GPUS[workers.gpu].memoryGiB} GiB): weights pass through it`);
});
export type StageConfig = z.output<typeof stage>;
export type StageInput = z.input<typeof stage>;

/** Between SIGTERM and SIGKILL, as ECS lets it be at most; a worker hands back what it has in less. */
export const STOP_SECONDS = SECONDS_STOP_MAX;
export const GRACE_SECONDS = 100;

const STAGES = {
  /** To try it: nothing runs while nobody asks; docs/COST.md says what that costs. */
  dev: {
    region: 'eu-central-1',
    control: { canary: false },
    workers: { lambda: {} },
    logDays: 30,
    budgetUsdPerMonth: 20,
  },
  /** GPUs from zero, Spot first. */
  prod: {
    region: 'eu-central-1',
    control: { functions: 'split', concurrency: 100 },
    workers: { pool: { gpu: 'l4', memoryMiB: 24_576, cpus: 4, tasksMax: 8, warm: ['countdown'] } },
    usdPerHour: 0.98,
    budgetUsdPerMonth: 2_000,
  },
  /** What `--stage verify` makes, looks at and takes away again: every kind of part once, as small as it can be. */
  verify: {
    region: 'eu-central-1',
    control: { functions: 'split', canary: false },
    workers: { lambda: {}, pool: { gpu: null, memoryMiB: 4_096, cpus: 2, tasksMax: 2, idleSeconds: 60 } },
    logDays: 7,
    budgetUsdPerMonth: 20,
  },
} as const satisfies Readonly<Record<string, StageInput>>;
export type StageName = keyof typeof STAGES;
export const STAGE_NAMES = Object.keys(STAGES) as StageName[];

/** @throws Error that names all that is wrong. */
export function parseStage(name: string, input: unknown): StageConfig {
  const parsed = stage.safeParse(input);
  if (parsed.success) return parsed.data;
  throw new Error(`infra/config.ts, stage ${name}:\n${parsed.error.issues.map(({ path, message }) => `  ${path.join('.') || 'stage'}: ${message}`).join('\n')}`);
}

/** @throws Error */
export function stageOf(name: string): StageConfig {
  if (!Object.hasOwn(STAGES, name)) throw new Error(`There is no stage ${JSON.stringify(name)}; infra/config.ts has ${STAGE_NAMES.join(', ')}.`);
  return parseStage(name, STAGES[name as StageName]);
}
