/**
 * The configuration of functions: RUMINATE_* and the standard variables of AWS, read once and whole, so that everything that is wrong with it
 * is said at once. docs/FUNCTIONS.md lists them.
 */
import { REGION_ELSEWHERE, sqsAddress } from '../engine/adapters/aws-address.ts';
import { S3_FORM, parseS3Url } from '../engine/adapters/s3-url.ts';
import type { Retention } from '../engine/control/retention.ts';
import { EngineError } from '../engine/core/errors.ts';
import { parseApiKeys } from './api-keys.ts';
import type { KeyLookup } from './auth.ts';
import { LOG_LEVELS, type LogLevel } from './console-log.ts';
import { NAMESPACE_RULE, isNamespace } from './emf.ts';
import { isWebAddress, retentionOf } from './worker-env.ts';

/** As a host gives it: `process.env`, or the bindings of a Worker, of which the texts count. */
export type Environment = Readonly<Record<string, unknown>>;

export type StorePlace =
  | { readonly kind: 's3'; readonly bucket: string; readonly prefix: string }
  /** Of this instance alone, gone with it: to try out a deployment. */
  | { readonly kind: 'memory' };

export interface PlatformConfig {
  readonly store: StorePlace;
  readonly models: StorePlace;
  /** null: all that the models store has. */
  readonly modelNames: readonly string[] | null;
  /** null: workers find jobs by their walk, within minutes. */
  readonly queue: { readonly url: string; readonly batchUrl: string | null } | null;
  /** KMS key; null: jobs are stored in the clear. */
  readonly keyId: string | null;
  readonly aws: AwsConfig;
  /** What an idle worker has for a job and its weights; null: not known. */
  readonly workerBytes: number | null;
  /** Of a worker, for quotes; null: not known. */
  readonly usdPerHour: number | null;
  /** How long what a job leaves is kept: of jobs whose end is told here. */
  readonly retention: Retention;
  readonly logLevel: LogLevel;
}

export interface FrontConfig extends PlatformConfig {
  readonly auth: KeyLookup;
}

export interface ReconcilerConfig extends PlatformConfig {
  /** As what clients know the API; null: not known, and webhooks link by path. */
  readonly publicUrl: string | null;
  /** For development: webhooks may go to this machine, and without TLS. */
  readonly webhooksToLoopback: boolean;
  /** Of CloudWatch, for scaling signals; null: none. */
  readonly emfNamespace: string | null;
}

export interface AwsConfig {
  /** null: nothing of AWS is used. */
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string; readonly sessionToken?: string } | null;
  readonly region: string;
  readonly s3Endpoint: string | null;
  readonly s3PathStyle: boolean;
  readonly sqsEndpoint: string | null;
  readonly kmsEndpoint: string | null;
}


const KMS_KEY = /^[A-Za-z0-9:/_-]{1,512}$/;
const MODEL_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** @throws EngineError ERR_OPTION with one line for each variable that is wrong or missing. */
export function readEnv(environment: Environment): FrontConfig {
  const env = new Variables(environment);
  const keys = env.required('RUMINATE_API_KEYS', 'the JSON of --api-keys: [{ "sha256": "…", "tenant": "acme" }]');
  const auth = keys === null ? null : env.try('RUMINATE_API_KEYS', () => parseApiKeys(keys, 'RUMINATE_API_KEYS'));
  const config = { ...platformConfig(env), auth };
  env.refuseWrong();
  return config as FrontConfig;
}

/** Of what nobody asks. @throws EngineError as `readEnv`. */
export function readPlatformEnv(environment: Environment): PlatformConfig {
  const env = new Variables(environment);
  const config = platformConfig(env);
  env.refuseWrong();
  return config as PlatformConfig;
}

/** Of the scheduled function, which nobody asks. @throws EngineError as `readEnv`. */
export function readReconcilerEnv(environment: Environment): ReconcilerConfig {
  const env = new Variables(environment);
  const [publicUrl, emf] = [env.text('RUMINATE_PUBLIC_URL'), env.text('RUMINATE_EMF')];
  const config = {
    ...platformConfig(env),
    publicUrl: publicUrl === null ? null : env.check('RUMINATE_PUBLIC_URL', isWebAddress(publicUrl) ? publicUrl : null, 'must begin with https:// or http://'),
    webhooksToLoopback: env.flag('RUMINATE_WEBHOOKS_TO_LOOPBACK'),
    emfNamespace: emf === null ? null : env.check('RUMINATE_EMF', isNamespace(emf) ? emf : null, `must be ${NAMESPACE_RULE}`),
  };
  env.refuseWrong();
  return config as ReconcilerConfig;
}

function platformConfig(env: Variables): Partial<Record<keyof PlatformConfig, unknown>> {
  const store = env.store('RUMINATE_STORE');
  const models = env.store('RUMINATE_MODELS_STORE');
  const queue = env.queue();
  const key = env.text('RUMINATE_KEY');
  const keyId = key === null ? null : env.check('RUMINATE_KEY', key.startsWith('kms:') && KMS_KEY.test(key.slice(4)) ? key.slice(4) : null, 'must be kms:KEY: functions have no files');
  const names = env.text('RUMINATE_MODEL_NAMES')?.split(/[\s,]+/).filter((name) => name !== '') ?? null;
  return {
    store,
    models,
    modelNames: names === null ? null : env.check('RUMINATE_MODEL_NAMES', names.every((name) => MODEL_NAME.test(name)) ? names : null, 'must be names of models, parted by commas'),
    queue,
    keyId,
    aws: env.aws({ isUsed: store?.kind === 's3' || models?.kind === 's3' || queue !== null || keyId !== null }),
    workerBytes: env.number('RUMINATE_WORKER_BYTES'),
    usdPerHour: env.number('RUMINATE_USD_PER_HOUR'),
    retention: env.retention(),
    logLevel: env.choice('RUMINATE_LOG_LEVEL', LOG_LEVELS) ?? 'info',
  };
}

/** Of a host that has one; a Worker has bindings. */
export function processEnvironment(): Environment {
  return (globalThis as { readonly process?: { readonly env?: Environment } }).process?.env ?? {};
}

class Variables {
  readonly #environment: Environment;
  readonly #wrong: string[] = [];

  constructor(environment: Environment) {
    this.#environment = environment;
  }

  /** null: unset or empty. */
  text(name: string): string | null {
    const value = Object.hasOwn(this.#environment, name) ? this.#environment[name] : undefined;
    return typeof value === 'string' && value !== '' ? value : null;
  }

  required(name: string, form: string): string | null {
    const value = this.text(name);
    if (value === null) this.#wrong.push(`${name} must be set: ${form}`);
    return value;
  }

  check<T>(name: string, value: T | null, rule: string): T | null {
    if (value === null) this.#wrong.push(`${name} ${rule}`);
    return value;
  }

  try<T>(name: string, make: () => T): T | null {
    try {
      return make();
    } catch (error) {
      const { message } = error as Error;
      this.#wrong.push(message.startsWith(name) ? message.replace(/\.$/, '') : `${name}: ${message.replace(/\.$/, '')}`);
      return null;
    }
  }

  choice<const T extends readonly string[]>(name: string, of: T): T[number] | null {
    const value = this.text(name);
    return value === null ? null : this.check(name, of.includes(value) ? value : null, `must be one of ${of.join(', ')}`);
  }

  retention(): Retention {
    return retentionOf({}, this.#environment, this.#wrong);
  }

  flag(name: string): boolean {
    return ['1', 'true'].includes(this.choice(name, ['0', '1', 'false', 'true']) ?? '');
  }

  number(name: string): number | null {
    const value = this.text(name);
    return value === null ? null : this.check(name, /^\d{1,15}(\.\d{1,9})?$/.test(value) ? Number(value) : null, 'must be a number, 0 or more');
  }

  store(name: string): StorePlace | null {
    const url = this.required(name, 's3://bucket/prefix');
    if (url === null) return null;
    if (url === 'memory:') return { kind: 'memory' };
    if (/^file:|^[./]/.test(url)) return this.check(name, null, 'is a directory, which functions cannot reach; they take s3://bucket/prefix (`ruminate serve` takes directories)');
    const place = this.try(name, () => this.check(name, parseS3Url(url), S3_FORM));
    return place === null ? null : { kind: 's3', ...place };
  }

  /** `none` is a decision; nothing is a mistake. */
  queue(): PlatformConfig['queue'] {
    const url = this.required('RUMINATE_QUEUE', 'the address of an SQS queue, or none');
    if (url === null || url === 'none') return null;
    const batch = this.text('RUMINATE_BATCH_QUEUE');
    const [main, batchUrl] = [this.#address('RUMINATE_QUEUE', url), batch === null ? null : this.#address('RUMINATE_BATCH_QUEUE', batch)];
    return main === null ? null : { url: main, batchUrl };
  }

  aws({ isUsed }: { readonly isUsed: boolean }): AwsConfig {
    const [accessKeyId, secretAccessKey, sessionToken] = [this.text('AWS_ACCESS_KEY_ID'), this.text('AWS_SECRET_ACCESS_KEY'), this.text('AWS_SESSION_TOKEN')];
    const hasKeys = accessKeyId !== null && secretAccessKey !== null;
    if (isUsed && !hasKeys) this.#wrong.push('AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set, as Lambda sets them');
    const s3Endpoint = this.#endpoint('RUMINATE_S3_ENDPOINT') ?? this.#endpoint('AWS_ENDPOINT_URL_S3');
    const region = this.text('AWS_REGION') ?? this.text('AWS_DEFAULT_REGION');
    if (isUsed && region === null && s3Endpoint === null) this.#wrong.push('AWS_REGION must be set');
    return {
      credentials: hasKeys ? { accessKeyId, secretAccessKey, ...(sessionToken === null ? {} : { sessionToken }) } : null,
      region: region ?? REGION_ELSEWHERE,
      s3Endpoint,
      s3PathStyle: this.flag('RUMINATE_S3_PATH_STYLE'),
      sqsEndpoint: this.#endpoint('RUMINATE_SQS_ENDPOINT') ?? this.#endpoint('AWS_ENDPOINT_URL_SQS'),
      kmsEndpoint: this.#endpoint('AWS_ENDPOINT_URL_KMS'),
    };
  }

  /** @throws EngineError ERR_OPTION */
  refuseWrong(): void {
    if (this.#wrong.length > 0) throw new EngineError('ERR_OPTION', `The configuration is wrong:\n${this.#wrong.map((line) => `  ${line}.`).join('\n')}`);
  }

  #address(name: string, url: string): string | null {
    const found = sqsAddress(url);
    return this.check(name, 'address' in found ? found.address : null, 'must be the http(s) address of a standard SQS queue, /<account>/<name> at its end');
  }

  #endpoint(name: string): string | null {
    const value = this.text(name);
    return value === null ? null : this.check(name, URL.canParse(value) && /^https?:$/.test(new URL(value).protocol) ? value : null, 'must be an http(s) URL');
  }
}
