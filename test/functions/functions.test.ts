/** What every function's bundle keeps to, and its configuration; test/slow/functions.test.ts runs them over S3 and SQS. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { LOG_LEVELS, consoleLog } from '../../functions/console-log.ts';
import { type Environment, readEnv } from '../../functions/env.ts';
import { BYTES_MAX, type BuiltFunction, FUNCTIONS, SCHEDULED, bundleFunctions } from '../../scripts/functions.mjs';
import { Bundles, openaiAt } from '../helpers/hosts.ts';
import { ROOT } from '../helpers/setup.ts';

const KEYS = JSON.stringify([{ sha256: createHash('sha256').update('acme').digest('hex'), tenant: 'acme' }]);
const MEMORY = { RUMINATE_STORE: 'memory:', RUMINATE_MODELS_STORE: 'memory:', RUMINATE_QUEUE: 'none', RUMINATE_API_KEYS: KEYS, RUMINATE_LOG_LEVEL: 'error' };
const AWS = {
  RUMINATE_STORE: 's3://bucket/jobs', RUMINATE_MODELS_STORE: 's3://bucket/models', RUMINATE_QUEUE: 'https://sqs.eu-central-1.amazonaws.com/123456789012/jobs', RUMINATE_API_KEYS: KEYS,
  AWS_REGION: 'eu-central-1', AWS_ACCESS_KEY_ID: 'id', AWS_SECRET_ACCESS_KEY: 'secret', AWS_SESSION_TOKEN: 'token',
};

let built: readonly BuiltFunction[];
beforeAll(async () => {
  built = await bundleFunctions();
});

describe('the bundle', () => {
  test.each(FUNCTIONS)('of %s imports nothing, knows nothing native, and is under 1 MB', (name) => {
    const { index, bytes, metafile } = built.find((one) => one.name === name) as BuiltFunction;
    expect(bytes).toBeLessThan(BYTES_MAX);
    expect(Object.values(metafile.outputs)[0]?.imports).toEqual([]);
    const inputs = Object.keys(metafile.inputs);
    expect(inputs.filter((file) => /engine\/(runtime|worker)\//.test(file))).toEqual([]);
    expect(inputs.some((file) => file.endsWith('functions/front.ts'))).toBe(true);
    // What only Node has is no import: workerd would say so at the first call.
    const ours = inputs.filter((file) => /^(engine|functions)\//.test(file) && !file.includes('node_modules'));
    expect(ours.filter((file) => /\bBuffer\./.test(readFileSync(path.join(ROOT, file), 'utf8')))).toEqual([]);
    // Lambda's part is beside it, and has no second copy of it.
    expect(index).toContain('./front.mjs');
    expect(index.length).toBeLessThan(50_000);
  });

  test.each(SCHEDULED)('of %s imports at most modules of Node, knows nothing native, and is under 1 MB', (name) => {
    const { front, bytes, metafile } = built.find((one) => one.name === name) as BuiltFunction;
    expect(front).toBeNull();
    expect(bytes).toBeLessThan(BYTES_MAX);
    const imports = Object.values(metafile.outputs)[0]?.imports ?? [];
    expect(imports.filter((one) => !one.path.startsWith('node:'))).toEqual([]);
    expect(Object.keys(metafile.inputs).filter((file) => /engine\/runtime\/|engine\/job\/(slice|session|restore)\.ts/.test(file))).toEqual([]);
  });

  test('is as large as docs/FUNCTIONS.md says, within a fiftieth', () => {
    const page = readFileSync(path.join(ROOT, 'docs', 'FUNCTIONS.md'), 'utf8');
    for (const { name, bytes, gzipBytes } of built) {
      const said = new RegExp(SCHEDULED.includes(name) ? `functions/${name}/index\\.mjs\` \\((\\d+) kB, gzip (\\d+) kB\\)` : `^\\| ${name} \\|.*\\| (\\d+) kB \\| (\\d+) kB \\|$`, 'm').exec(page);
      for (const [i, is] of [bytes, gzipBytes].entries()) expect(Math.abs(Number(said?.[i + 1]) * 1_000 - is) / is, `${name}: ${Math.round(is / 1_000)} kB${i === 0 ? '' : ' as gzip'}`).toBeLessThan(0.02);
    }
  });

  test('of one function is not that of all', () => {
    const inputs = (name: string) => Object.keys(built.find((one) => one.name === name)?.metafile.inputs ?? {});
    expect(inputs('api').some((file) => file.endsWith('openai/responses.ts'))).toBe(true);
    expect(inputs('chat').some((file) => file.endsWith('openai/responses.ts'))).toBe(false);
  });
});

describe('on workerd, without a store to reach', () => {
  let bundles: Bundles;
  beforeAll(() => {
    bundles = Bundles.of(built);
  });
  afterAll(() => bundles[Symbol.dispose]());

  test('it starts, documents itself, and knows its callers', async () => {
    await using instance = await bundles.onWorkerd('api', MEMORY);
    expect(await (await fetch(`${instance.url}/health/ready`)).json()).toMatchObject({ state: 'ready' });
    const { paths } = (await (await fetch(`${instance.url}/openapi.json`)).json()) as { paths: object };
    expect(Object.keys(paths)).toEqual(expect.arrayContaining(['/v1/chat/completions', '/v1/jobs', '/v1/batches', '/v1/checkpoints', '/v1/webhooks']));
    expect(Object.keys(paths).filter((name) => /verify|export|metrics/.test(name))).toEqual([]);
    expect(await (await fetch(`${instance.url}/v1/checkpoints`, { headers: { authorization: 'Bearer acme' } })).json()).toEqual({ object: 'list', data: [], has_more: false });
    expect((await openaiAt(instance, 'acme').models.list()).data).toEqual([]);
    await expect(openaiAt(instance, 'other').models.list()).rejects.toMatchObject({ status: 401 });
    await expect(openaiAt(instance, 'acme').chat.completions.create({ model: 'none', messages: [{ role: 'user', content: 'x' }] })).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
    const file = await openaiAt(instance, 'acme').files.create({ file: new File(['{}\n'], 'a.jsonl'), purpose: 'batch' });
    expect(await (await openaiAt(instance, 'acme').files.content(file.id)).text()).toBe('{}\n');
  });

  test('it says that it is not configured, and not how', async () => {
    await using instance = await bundles.onWorkerd('api', { ...MEMORY, RUMINATE_STORE: 's3://secret-bucket-name/x' });
    const response = await fetch(`${instance.url}/health/live`);
    expect(response.status).toBe(500);
    expect(await response.text()).not.toContain('AWS');
  });
});

describe('the configuration', () => {
  const wrong = (environment: Environment): string => {
    try {
      readEnv(environment);
      return '';
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_OPTION' });
      return (error as Error).message;
    }
  };

  test('of S3 and SQS is read whole', () => {
    const { auth, ...config } = readEnv({ ...AWS, RUMINATE_MODEL_NAMES: 'countdown, qwen3-8b', RUMINATE_KEY: 'kms:alias/ruminate', RUMINATE_BATCH_QUEUE: 'sqs:https://sqs.eu-central-1.amazonaws.com/1/batches', RUMINATE_WORKER_BYTES: '8589934592', RUMINATE_USD_PER_HOUR: '0.25', RUMINATE_RESULT_RETENTION: '12h', KV: { binding: true } });
    expect(config).toEqual({
      store: { kind: 's3', bucket: 'bucket', prefix: 'jobs' },
      models: { kind: 's3', bucket: 'bucket', prefix: 'models' },
      modelNames: ['countdown', 'qwen3-8b'],
      queue: { url: AWS.RUMINATE_QUEUE, batchUrl: 'https://sqs.eu-central-1.amazonaws.com/1/batches' },
      keyId: 'alias/ruminate',
      aws: { credentials: { accessKeyId: 'id', secretAccessKey: 'secret', sessionToken: 'token' }, region: 'eu-central-1', s3Endpoint: null, s3PathStyle: false, sqsEndpoint: null, kmsEndpoint: null },
      workerBytes: 8_589_934_592,
      usdPerHour: 0.25,
      retention: { kvMs: 7 * 86_400_000, resultMs: 12 * 3_600_000 },
      logLevel: 'info',
    });
    expect(auth.find).toBeTypeOf('function');
  });

  test('that is missing or wrong in many places is told of all of them at once', () => {
    const lines = wrong({ RUMINATE_MODELS_STORE: 'file:/srv/models', RUMINATE_API_KEYS: '[{"sha256":"short","tenant":"acme"}]', RUMINATE_QUEUE: 'https://sqs/jobs.fifo', RUMINATE_WORKER_BYTES: 'much', RUMINATE_KEY: 'file:/key', RUMINATE_LOG_LEVEL: 'loud', RUMINATE_S3_ENDPOINT: 'localhost' }).split('\n').slice(1);
    for (const name of ['RUMINATE_STORE', 'RUMINATE_MODELS_STORE', 'RUMINATE_API_KEYS', 'RUMINATE_QUEUE', 'RUMINATE_WORKER_BYTES', 'RUMINATE_KEY', 'RUMINATE_LOG_LEVEL', 'RUMINATE_S3_ENDPOINT']) {
      expect(lines.filter((line) => line.startsWith(`  ${name}`)), name).toHaveLength(1);
    }
  });

  test.each(Object.keys(AWS).filter((name) => name !== 'AWS_SESSION_TOKEN'))('without %s is refused by that name', (name) => {
    expect(wrong({ ...AWS, [name]: '' })).toContain(name);
  });

  test.each(['s3://B/x', 's3:/bucket', 'gs://bucket', '/srv/jobs', 'memory:x', 's3://bucket/../x'])('takes no store %s', (store) => {
    expect(wrong({ ...AWS, RUMINATE_STORE: store })).toMatch(/RUMINATE_STORE/);
  });

  test('keeps secrets to itself when it is refused', () => {
    expect(wrong({ ...AWS, AWS_SECRET_ACCESS_KEY: 'top-secret', RUMINATE_STORE: 'x' })).not.toContain('top-secret');
  });
});

test('the log is lines of JSON from its level on, errors with what they say', () => {
  const written: string[] = [];
  const spy = vi.spyOn(console, 'log').mockImplementation((line: string) => void written.push(line));
  try {
    const log = consoleLog('warn');
    log.info({ request: 'r' }, 'quiet');
    log.error({ request: 'r', err: Object.assign(new Error('broke'), { code: 'ERR_STORE' }) }, 'failed');
    for (const level of LOG_LEVELS) consoleLog('silent')[level === 'warn' ? 'warn' : 'error']({}, level);
  } finally {
    spy.mockRestore();
  }
  expect(written.map((line) => JSON.parse(line) as object)).toEqual([expect.objectContaining({ level: 'error', request: 'r', msg: 'failed', err: expect.objectContaining({ code: 'ERR_STORE', message: 'broke' }) as object })]);
});
