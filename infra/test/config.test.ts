import { describe, expect, test } from 'vitest';

import { GPUS, GRACE_SECONDS, parseStage, STAGE_NAMES, stageOf, STOP_SECONDS } from '../config.ts';

const CPU = { gpu: null, memoryMiB: 4_096, cpus: 2, tasksMax: 2 } as const;

describe('the configuration of a stage', () => {
  test.each(STAGE_NAMES)('%s is complete with its defaults', (name) => {
    const config = stageOf(name);
    expect(config.models).toContain('countdown');
    expect(config.seal).toBe(true);
    expect(config.budgetUsdPerMonth).toBeGreaterThan(0);
  });

  test('says all that is wrong at once, and where', () => {
    const wrong = () => parseStage('mine', { region: 'Frankfurt', workers: { pool: { ...CPU, tasksMax: 0, sliceTime: 'soon' } }, emails: ['nobody'], colour: 'blue' });
    expect(wrong).toThrow(/region: must be a region such as/);
    expect(wrong).toThrow(/workers\.pool\.tasksMax/);
    expect(wrong).toThrow(/workers\.pool\.sliceTime: must be a duration/);
    expect(wrong).toThrow(/emails\.0/);
    expect(wrong).toThrow(/colour/);
  });

  test('a stage where nothing would run a job is refused', () => {
    expect(() => parseStage('mine', { region: 'eu-central-1', workers: {} })).toThrow(/nothing would run a job/);
  });

  test('Fargate is refused without a certificate, with functions of their own, and in one zone', () => {
    const wrong = () => parseStage('mine', { region: 'eu-central-1', workers: { pool: CPU }, control: { host: 'fargate', functions: 'split' }, network: { zones: 1 } });
    expect(wrong).toThrow(/certificateArn and hostName/);
    expect(wrong).toThrow(/`split` is of Lambda/);
    expect(wrong).toThrow(/a load balancer needs two/);
  });

  test('weights pass through the memory of the host: a GPU with too little of it is refused', () => {
    expect(() => parseStage('mine', { region: 'eu-central-1', workers: { pool: { ...CPU, gpu: 'h100' } } })).toThrow(/less than half of the memory of its GPU \(80 GiB\)/);
  });

  test('a stage that is not there names those that are', () => {
    expect(() => stageOf('production')).toThrow(/dev, prod, verify/);
  });

  test('a pool has GPUs of one architecture, so that its workers share a numericsId', () => {
    expect(new Set(Object.values(GPUS).flatMap(({ families }) => [...families])).size).toBe(Object.values(GPUS).flatMap(({ families }) => [...families]).length);
  });

  test('a worker is killed only after the grace in which it hands back what it runs', () => {
    expect(STOP_SECONDS).toBeGreaterThan(GRACE_SECONDS + 10);
  });
});
