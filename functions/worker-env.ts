/** What a worker is told, as a command or as a function: options before the environment, and everything that is wrong with either said at once. */
import { DEFAULT_RETENTION, type Retention } from '../engine/control/retention.ts';
import { durationOf } from '../engine/core/duration.ts';
import { EngineError } from '../engine/core/errors.ts';
import { LOG_LEVELS, type LogLevel } from './console-log.ts';
import { NAMESPACE_RULE, isNamespace } from './emf.ts';

/** As `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** As they were written. */
export interface WorkerFlags {
  readonly store?: string;
  readonly queue?: string;
  readonly batchQueue?: string;
  readonly model?: readonly string[];
  readonly slots?: string;
  readonly threads?: string;
  readonly sliceTime?: string;
  readonly grace?: string;
  readonly timeLimit?: string;
  readonly memoryLimit?: string;
  readonly spot?: boolean;
  readonly notices?: string;
  readonly checkpointTokens?: string;
  readonly checkpointTime?: string;
  readonly journalTime?: string;
  readonly walkTime?: string;
  readonly webhooksToLoopback?: boolean;
  readonly retention?: string;
  readonly resultRetention?: string;
  readonly metricsPort?: string;
  readonly metricsHost?: string;
  readonly emf?: string;
  readonly logLevel?: string;
}

export interface WorkerConfig {
  readonly store: string;
  readonly models: readonly string[];
  readonly slots: number | undefined;
  readonly threads: number | undefined;
  readonly sliceMs: number | undefined;
  readonly graceMs: number;
  readonly timeLimitMs: number | null;
  readonly memoryLimitBytes: number | null;
  readonly spot: boolean;
  /** Queue of notices of EventBridge; null: none. */
  readonly notices: string | null;
  /** false: it goes on with jobs that have begun and begins none. */
  readonly begins: boolean;
  /** Of ECS, which keeps this task while it works; null: it is not a task of ECS. */
  readonly taskAgent: string | null;
  /** Sends webhooks that are due; false where it has no way out: the reconciler does. */
  readonly delivers: boolean;
  /** As what clients know the API; null: not known, and webhooks link by path. */
  readonly publicUrl: string | null;
  /** Between two looks for jobs that lost their message or their worker. */
  readonly walkMs: number | undefined;
  readonly policy: { readonly deltaTokens?: number; readonly deltaMs?: number; readonly journalMs?: number };
  /** For development: webhooks may go to this machine, and without TLS. */
  readonly webhooksToLoopback: boolean;
  /** How long what a job leaves is kept. */
  readonly retention: Retention;
  /** Where /metrics and /health are; null: nowhere. Port 0: any that is free. */
  readonly metrics: { readonly host: string; readonly port: number } | null;
  /** Of CloudWatch, for scaling signals on standard output; null: none. */
  readonly emfNamespace: string | null;
  readonly logLevel: LogLevel;
}

/** Below the two minutes that a Spot machine has after its notice, and what ECS waits at most. */
export const GRACE_MS = 110_000;
const SLOTS_MAX = 64;
const COUNT_MAX = 1_000_000;
/** A queue hides a message for twelve hours at most; the rest is for restoring and committing. */
const SLICE_MS_MAX = 11 * 3_600_000;
const DAY_MS = 86_400_000;

/** @throws EngineError ERR_OPTION that names all that is wrong. */
export function workerConfig(flags: WorkerFlags, environment: Environment): WorkerConfig {
  const wrong: string[] = [];
  const said = (flag: string | undefined, option: string, variable: string): { readonly text: string; readonly name: string } | null => {
    const text = flag ?? environment[variable] ?? '';
    return text === '' ? null : { text, name: flag === undefined ? variable : option };
  };
  const read = <T>(found: ReturnType<typeof said>, parse: (text: string) => T | null, rule: string): T | null => {
    if (found === null) return null;
    const value = parse(found.text);
    if (value === null) wrong.push(`${found.name} must be ${rule}; got ${JSON.stringify(found.text.slice(0, 40))}`);
    return value;
  };
  const count = (flag: string | undefined, option: string, variable: string, most: number) =>
    read(said(flag, option, variable), (text) => (/^\d{1,9}$/.test(text) && Number(text) >= 1 && Number(text) <= most ? Number(text) : null), `an integer from 1 to ${most}`);
  const time = (flag: string | undefined, option: string, variable: string, mostMs: number) =>
    read(said(flag, option, variable), (text) => timeOf(text, mostMs), `a duration from 1ms to ${mostMs / 3_600_000}h, such as 30s or 14m`);

  const store = said(flags.store, '--store', 'RUMINATE_STORE')?.text ?? null;
  if (store === null) wrong.push('--store or RUMINATE_STORE must say where jobs are kept: a directory, or s3://bucket/prefix');
  const graceMs = time(flags.grace, '--grace', 'RUMINATE_GRACE', DAY_MS) ?? GRACE_MS;
  const timeLimitMs = time(flags.timeLimit, '--time-limit', 'RUMINATE_TIME_LIMIT', 14 * DAY_MS);
  if (timeLimitMs !== null && timeLimitMs <= graceMs) wrong.push(`the time limit (${timeLimitMs} ms) must be longer than the grace (${graceMs} ms) in which the worker hands back what it has`);
  const metricsPort = read(said(flags.metricsPort, '--metrics-port', 'RUMINATE_METRICS_PORT'), (text) => (/^\d{1,5}$/.test(text) && Number(text) <= 65_535 ? Number(text) : null), 'a port from 0 to 65535');
  const [deltaTokens, deltaMs, journalMs] = [
    count(flags.checkpointTokens, '--checkpoint-tokens', 'RUMINATE_CHECKPOINT_TOKENS', COUNT_MAX),
    time(flags.checkpointTime, '--checkpoint-time', 'RUMINATE_CHECKPOINT_TIME', DAY_MS),
    time(flags.journalTime, '--journal-time', 'RUMINATE_JOURNAL_TIME', DAY_MS),
  ];
  const config = {
    store: store ?? '',
    models: flags.model ?? [],
    slots: count(flags.slots, '--slots', 'RUMINATE_SLOTS', SLOTS_MAX) ?? undefined,
    threads: count(flags.threads, '--threads', 'RUMINATE_THREADS', 1_024) ?? undefined,
    sliceMs: time(flags.sliceTime, '--slice-time', 'RUMINATE_SLICE_TIME', SLICE_MS_MAX) ?? undefined,
    graceMs,
    timeLimitMs,
    memoryLimitBytes: read(said(flags.memoryLimit, '--memory-limit', 'RUMINATE_WORKER_MEMORY'), bytesOf, 'a number of bytes, or one such as 900MiB or 6GiB'),
    spot: flags.spot ?? read(said(undefined, '', 'RUMINATE_SPOT'), flagOf, '1 or 0') ?? false,
    notices: said(flags.notices, '--notices', 'RUMINATE_NOTICES')?.text ?? null,
    begins: read(said(undefined, '', 'RUMINATE_BEGIN'), flagOf, '1 or 0') ?? true,
    taskAgent: read(said(undefined, '', 'ECS_AGENT_URI'), (text) => (isWebAddress(text) ? text : null), 'an address that begins with https:// or http://'),
    delivers: read(said(undefined, '', 'RUMINATE_WEBHOOKS'), flagOf, '1 or 0') ?? true,
    publicUrl: read(said(undefined, '', 'RUMINATE_PUBLIC_URL'), (text) => (isWebAddress(text) ? text : null), 'an address that begins with https:// or http://'),
    walkMs: time(flags.walkTime, '--walk-time', 'RUMINATE_WALK_TIME', DAY_MS) ?? undefined,
    policy: { ...(deltaTokens === null ? {} : { deltaTokens }), ...(deltaMs === null ? {} : { deltaMs }), ...(journalMs === null ? {} : { journalMs }) },
    webhooksToLoopback: flags.webhooksToLoopback ?? false,
    retention: retentionOf(flags, environment, wrong),
    metrics: metricsPort === null ? null : { host: said(flags.metricsHost, '--metrics-host', 'RUMINATE_METRICS_HOST')?.text ?? '127.0.0.1', port: metricsPort },
    emfNamespace: read(said(flags.emf, '--emf', 'RUMINATE_EMF'), (text) => (isNamespace(text) ? text : null), NAMESPACE_RULE),
    logLevel: read(said(flags.logLevel, '--log-level', 'RUMINATE_LOG_LEVEL'), (text) => LOG_LEVELS.find((level) => level === text) ?? null, `one of ${LOG_LEVELS.join(', ')}`) ?? 'info',
  };
  if (wrong.length > 0) throw new EngineError('ERR_OPTION', `${wrong.length === 1 ? 'The configuration is wrong' : `${wrong.length} things are wrong with the configuration`}: ${wrong.join('; ')}.`);
  return config;
}

const RETENTION_RULE = 'a duration from 1s to 3650d, such as 7d or 12h, or none';

/** @param wrong what is wrong is added to it. */
export function retentionOf({ retention, resultRetention }: Pick<WorkerFlags, 'retention' | 'resultRetention'>, environment: Readonly<Record<string, unknown>>, wrong: string[]): Retention {
  const read = (flag: string | undefined, option: string, variable: string, otherwise: number | null): number | null => {
    const given = environment[variable];
    const text = flag ?? (typeof given === 'string' ? given : '');
    if (text === '') return otherwise;
    const ms = text === 'none' ? null : timeOf(text, 3_650 * DAY_MS);
    if (text !== 'none' && (ms === null || ms < 1_000)) wrong.push(`${flag === undefined ? variable : option} must be ${RETENTION_RULE}; got ${JSON.stringify(text.slice(0, 40))}`);
    return ms;
  };
  return {
    kvMs: read(retention, '--retention', 'RUMINATE_RETENTION', DEFAULT_RETENTION.kvMs),
    resultMs: read(resultRetention, '--result-retention', 'RUMINATE_RESULT_RETENTION', DEFAULT_RETENTION.resultMs),
  };
}

export function isWebAddress(text: string): boolean {
  return URL.canParse(text) && /^https?:$/.test(new URL(text).protocol);
}

function flagOf(text: string): boolean | null {
  return { 0: false, 1: true, false: false, true: true }[text] ?? null;
}

function timeOf(text: string, mostMs: number): number | null {
  const ms = durationOf(text);
  return ms !== null && ms >= 1 && ms <= mostMs ? ms : null;
}

function bytesOf(text: string): number | null {
  const [, digits = '', unit = ''] = /^(\d{1,15})(KiB|MiB|GiB)?$/.exec(text) ?? [];
  const bytes = Number(digits) * ({ KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30 }[unit] ?? 1);
  return digits !== '' && bytes >= 1 && Number.isSafeInteger(bytes) ? bytes : null;
}
