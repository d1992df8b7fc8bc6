/** The configuration of `ruminate worker`, from options and environment. */
import { describe, expect, test } from 'vitest';

import { workerConfig } from '../../functions/worker-env.ts';

describe('a configuration', () => {
  test('takes options before the environment, and the environment before defaults', () => {
    const environment = { RUMINATE_STORE: 's3://bucket', RUMINATE_SLOTS: '3', RUMINATE_GRACE: '20s', RUMINATE_WORKER_MEMORY: '6GiB', RUMINATE_SPOT: '1', RUMINATE_TIME_LIMIT: '' };
    expect(workerConfig({ slots: '2', timeLimit: '14m' }, environment)).toEqual({
      store: 's3://bucket', models: [], slots: 2, threads: undefined, sliceMs: undefined, graceMs: 20_000, timeLimitMs: 840_000, memoryLimitBytes: 6 * 2 ** 30, spot: true, notices: null, begins: true, taskAgent: null, delivers: true, publicUrl: null, walkMs: undefined, policy: {}, webhooksToLoopback: false, retention: { kvMs: 7 * 86_400_000, resultMs: null }, metrics: null, emfNamespace: null, logLevel: 'info',
    });
  });

  test('of a time limit shorter than the grace, or a slice longer than a queue hides a message, is refused', () => {
    for (const flags of [{ timeLimit: '1m' }, { sliceTime: '12h' }, { memoryLimit: '6GB' }, { threads: '-1' }, { metricsPort: '70000' }, { emf: 'AWS/SQS' }, { retention: 'a week' }, { resultRetention: '0s' }, { logLevel: 'loud' }]) {
      expect(() => workerConfig({ store: 'x', ...flags }, {})).toThrow(/The configuration is wrong/);
    }
    expect(workerConfig({ store: 'x' }, { RUMINATE_WEBHOOKS: '0' }).delivers).toBe(false);
    expect(() => workerConfig({ store: 'x' }, { RUMINATE_WEBHOOKS: 'no' })).toThrow(/RUMINATE_WEBHOOKS must be 1 or 0/);
    expect(() => workerConfig({ store: 'x' }, { RUMINATE_PUBLIC_URL: 'api.example' })).toThrow(/The configuration is wrong: RUMINATE_PUBLIC_URL must be/);
  });
});
