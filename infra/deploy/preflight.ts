/** Whether an account can become the stage, asked before anything is made of it: all that is wrong at once. It writes nothing. */
import { DescribeInstanceTypeOfferingsCommand, type EC2Client } from '@aws-sdk/client-ec2';
import { GetAccountSettingsCommand, type LambdaClient } from '@aws-sdk/client-lambda';
import { GetServiceQuotaCommand, type ServiceQuotasClient } from '@aws-sdk/client-service-quotas';
import { GetParameterCommand, type SSMClient } from '@aws-sdk/client-ssm';
import { GetCallerIdentityCommand, type STSClient } from '@aws-sdk/client-sts';

import { GPUS, type StageConfig } from '../config.ts';

export interface PreflightClients {
  readonly sts: STSClient;
  readonly ec2: EC2Client;
  readonly ssm: SSMClient;
  readonly lambda: LambdaClient;
  readonly quotas: ServiceQuotasClient;
}

export interface Finding {
  /** wrong: the deploy would fail. unknown: it could not be asked. */
  readonly kind: 'ok' | 'wrong' | 'unknown';
  readonly what: string;
}

const BOOTSTRAP = '/cdk-bootstrap/hnb659fds/version';
/** Of CDK's resources in an account, which later CLIs ask for. */
const BOOTSTRAP_MIN = 21;
/** vCPUs that may run: on demand and Spot, of G and VT machines, of P machines, and of the standard ones. */
const QUOTAS = { G: ['L-DB2E81BA', 'L-3819A6DF'], P: ['L-417A185B', 'L-7212CCBC'], standard: ['L-1216C47A', 'L-34B43A08'] } as const;
/** Lambda keeps so many for functions without a reservation. */
const UNRESERVED_MIN = 100;

export async function preflight(config: StageConfig, clients: PreflightClients): Promise<readonly Finding[]> {
  const checks: readonly (readonly [string, () => Promise<Finding>])[] = [
    ['credentials', () => credentials(clients)],
    ['CDK bootstrap', () => bootstrap(config, clients)],
    ['Lambda concurrency', () => concurrency(config, clients)],
    ['machines of the region', () => machines(config, clients)],
    ...([0, 1] as const).map((i) => [`quota of ${i === 0 ? 'on-demand' : 'Spot'} CPUs`, () => quota(config, clients, i)] as const),
  ];
  return await Promise.all(checks.map(async ([what, check]) => await check().catch((error: Error): Finding => ({ kind: what === 'credentials' ? 'wrong' : 'unknown', what: `${what}: ${error.message || error.name}` }))));
}

async function credentials({ sts }: PreflightClients): Promise<Finding> {
  const { Arn } = await sts.send(new GetCallerIdentityCommand({}));
  return { kind: 'ok', what: `credentials: ${Arn}` };
}

async function bootstrap({ region }: StageConfig, { ssm }: PreflightClients): Promise<Finding> {
  const { Parameter } = await ssm.send(new GetParameterCommand({ Name: BOOTSTRAP })).catch((error: Error) => {
    if (error.name === 'ParameterNotFound') return { Parameter: undefined };
    throw error;
  });
  const version = Number(Parameter?.Value ?? 0);
  return version >= BOOTSTRAP_MIN ? { kind: 'ok', what: `CDK bootstrap: version ${version}` } : { kind: 'wrong', what: `CDK bootstrap: ${version === 0 ? 'none' : `version ${version}, of ${BOOTSTRAP_MIN} needed`}; run \`npx cdk bootstrap aws://ACCOUNT/${region}\` in infra once` };
}

async function concurrency({ control, workers }: StageConfig, { lambda }: PreflightClients): Promise<Finding> {
  const { AccountLimit } = await lambda.send(new GetAccountSettingsCommand({}));
  const free = AccountLimit?.UnreservedConcurrentExecutions ?? 0;
  const functions = control.host === 'lambda' ? (control.functions === 'api' ? 1 : 8) : 0;
  // The two scheduled ones have one each.
  const needed = (control.concurrency ?? 0) * functions + 2 + (workers.lambda?.concurrency ?? 0);
  return free - needed >= UNRESERVED_MIN || (control.concurrency === null && free - 2 >= UNRESERVED_MIN)
    ? { kind: 'ok', what: `Lambda concurrency: ${free} free, ${needed} needed` }
    : { kind: 'wrong', what: `Lambda concurrency: ${free} free, of which ${UNRESERVED_MIN} must stay, and ${needed} needed; lower control.concurrency or ask for more` };
}

function familiesOf({ workers: { pool } }: StageConfig): readonly string[] {
  return pool === null ? [] : pool.gpu === null ? ['m7i', 'm6i', 'c7i'] : GPUS[pool.gpu].families;
}

async function machines(config: StageConfig, { ec2 }: PreflightClients): Promise<Finding> {
  const { pool } = config.workers;
  if (pool === null) return { kind: 'ok', what: 'machines: none needed' };
  const families = familiesOf(config);
  const types: string[] = [];
  let NextToken: string | undefined;
  do {
    const page = await ec2.send(new DescribeInstanceTypeOfferingsCommand({ LocationType: 'region', NextToken }));
    types.push(...(page.InstanceTypeOfferings ?? []).map(({ InstanceType }) => String(InstanceType)).filter((type) => families.includes(type.split('.')[0] ?? '')));
    NextToken = page.NextToken;
  } while (NextToken !== undefined);
  return types.length > 0 ? { kind: 'ok', what: `machines: ${types.length} types with ${pool.gpu ?? 'no GPU'} in ${config.region}` } : { kind: 'wrong', what: `machines: ${config.region} has none of ${families.join(', ')} (${pool.gpu ?? 'no GPU'}); choose another region or GPU` };
}

async function quota(config: StageConfig, { quotas }: PreflightClients, which: 0 | 1): Promise<Finding> {
  const { pool } = config.workers;
  const name = which === 0 ? 'on-demand' : 'Spot';
  if (pool === null || (which === 1 && !pool.spot)) return { kind: 'ok', what: `${name} CPUs: none needed` };
  const family = familiesOf(config)[0] ?? '';
  const QuotaCode = QUOTAS[pool.gpu === null ? 'standard' : family.startsWith('p') ? 'P' : 'G'][which];
  const { Quota } = await quotas.send(new GetServiceQuotaCommand({ ServiceCode: 'ec2', QuotaCode }));
  const [has, needed] = [Quota?.Value ?? 0, pool.cpus];
  // Less than all workers want is a limit; less than one is a stage that never runs anything.
  if (has < needed) return { kind: 'wrong', what: `${name} CPUs: ${has}, and one worker needs ${needed}; ask for quota ${QuotaCode}` };
  return { kind: 'ok', what: `${name} CPUs: ${has}, enough for ${Math.min(pool.tasksMax, Math.floor(has / needed))} of ${pool.tasksMax} workers` };
}
