/** The fleet simulator: virtual time, real queue, real votes. */
import path from 'node:path';
import { describe, expect, test } from 'vitest';

import { PRICES } from '../../engine/core/prices.ts';
import { fit } from '../../scripts/bench/fit.ts';
import { type Policy, type Setting, simulate } from '../../scripts/simulate/fleet.ts';
import { Times } from '../../scripts/simulate/machine.ts';
import { readMeasured } from '../../scripts/simulate/measured.ts';
import { parseTrace, synthetic } from '../../scripts/simulate/trace.ts';
import { ROOT } from '../helpers/setup.ts';

/** Whatever was measured last, jobs here take minutes. */
const measured = { ...readMeasured(path.join(ROOT, 'scripts', 'simulate', 'measured.json')), step_ms: 0, token_ms: 0.05, read_ms: 0.000_5, prefill_token_ms: 0.25, save_byte_ms: 0.000_03, resume_byte_ms: 0.000_02, job_ms: 30, handover_ms: 600, job_puts: 14, job_gets: 7, start_ms: 2_400 };
const DENSE = new Times(measured, 'dense', { slower: 1_000, larger: 72 });
const ARRIVALS = synthetic({ seed: 3, hours: 2, jobsAnHour: 6, bursts: 1, tenants: 3, length: 400, width: 4, batchShare: 0.3 });
const SETTING: Setting = {
  seed: 3, times: DENSE, usdPerHour: { spot: 1, onDemand: 3 }, slots: 8, memoryBytes: 1e12, coldStartMs: 60_000, reclaimsPerHour: 4, unannounced: 0.2, targetSeconds: 120, machinesMax: 6,
  idleMs: 120_000, commitMs: 30_000, sliceMs: 300_000,
};
const SPOT: Policy = { name: 'spot', variant: 'dense', checkpoints: true, market: 'spot', machines: null };

describe('a fleet', () => {
  test('comes to the same by the same seed, and to something else by another', async () => {
    const once = await simulate(ARRIVALS, SPOT, SETTING);
    expect(await simulate(ARRIVALS, SPOT, SETTING)).toEqual(once);
    expect(await simulate(ARRIVALS, SPOT, { ...SETTING, seed: 4 })).not.toEqual(once);
    expect(once).toMatchObject({ jobs: ARRIVALS.length, unfinished: 0 });
  });

  test('whose machines are reclaimed makes less again with checkpoints, and nothing when it is told in time', async () => {
    const without = await simulate(ARRIVALS, { ...SPOT, checkpoints: false }, SETTING);
    const withThem = await simulate(ARRIVALS, SPOT, SETTING);
    const told = await simulate(ARRIVALS, SPOT, { ...SETTING, unannounced: 0 });
    expect(without.reclaims).toBeGreaterThan(0);
    expect(without.lost_tokens).toBeGreaterThan(withThem.lost_tokens);
    expect(told.lost_tokens).toBe(0);
    expect((await simulate(ARRIVALS, { ...SPOT, market: 'onDemand', checkpoints: false }, SETTING)).lost_tokens).toBe(0);
  });

  test('scaled by work has no machine while there is nothing to do, and never more than jobs', async () => {
    const [lonely] = ARRIVALS;
    const one = await simulate([{ ...(lonely as (typeof ARRIVALS)[number]), atMs: 86_400_000 }], { ...SPOT, market: 'onDemand' }, SETTING);
    expect(one).toMatchObject({ jobs: 1, unfinished: 0, machines_most: 1 });
    expect(one.machine_hours).toBeLessThan(1);
    const kept = await simulate([{ ...(lonely as (typeof ARRIVALS)[number]), atMs: 86_400_000 }], { ...SPOT, market: 'onDemand', machines: 2 }, SETTING);
    expect(kept.machine_hours).toBeGreaterThan(48);
  });

  test('pays what a job costs beside its steps one job after another, and a hand-over for each slice more', async () => {
    const jobs = Array.from({ length: 8 }, () => ({ atMs: 0, tenant: 'a', priority: 'interactive' as const, prompt: 1, length: 1, width: 1, ends: [1], steps: 1 }));
    const endsAfter = async (costs: { readonly job_ms: number; readonly handover_ms: number }, arrivals: Parameters<typeof simulate>[0], sliceMs = 1e9) =>
      await simulate(arrivals, { ...SPOT, market: 'onDemand', machines: 1 }, { ...SETTING, sliceMs, times: new Times({ ...measured, ...costs }, 'dense', { slower: 1_000, larger: 1 }) });
    const [free, paid] = [await endsAfter({ job_ms: 0, handover_ms: 0 }, jobs), await endsAfter({ job_ms: 10_000, handover_ms: 0 }, jobs)];
    // The slots are as many as the jobs: only the thread that keeps the books is one.
    expect(paid.latency_s.p99 - free.latency_s.p99).toBeCloseTo(80, 0);
    // Calls of the store cost what they cost however short a job is.
    const calls = jobs.length * (14 * PRICES.s3.put + 7 * PRICES.s3.get + 3 * PRICES.sqs.request);
    expect(free.storage_usd).toBeCloseTo(calls, 4);
    expect(calls).toBeGreaterThan(0.000_5);
    const long = [{ ...(jobs[0] as (typeof jobs)[number]), length: 400, ends: [400], steps: 400 }];
    const [whole, cut] = [await endsAfter({ job_ms: 0, handover_ms: 7_000 }, long), await endsAfter({ job_ms: 0, handover_ms: 7_000 }, long, 5_000)];
    expect(cut.slices).toBeGreaterThan(2);
    expect(cut.latency_s.p99 - whole.latency_s.p99).toBeGreaterThanOrEqual(7 * (cut.slices - 1) - 0.2);
  });

  test('hands out what somebody waits for before what nobody does', async () => {
    const row = { tenant: 'a', prompt: 50, length: 300, width: 1, ends: [300], steps: 300 };
    const batch = Array.from({ length: 20 }, (_, i) => ({ ...row, atMs: i, priority: 'batch' as const }));
    const urgent = { ...row, atMs: 1_000, tenant: 'b', priority: 'interactive' as const };
    const { latency_s, batch_latency_s } = await simulate([...batch, urgent], { ...SPOT, market: 'onDemand', machines: 1 }, { ...SETTING, slots: 1 });
    expect(latency_s.p50).toBeLessThan(batch_latency_s.p50);
  });
});

describe('a trace', () => {
  test('is read as CSV or as JSON lines, in order of time', () => {
    const csv = 'at,tenant,priority,prompt,length,width,generated\n30,acme,batch,10,100,2,40\n5,other,,,50,,\n';
    const json = '{"at":30,"tenant":"acme","priority":"batch","prompt":10,"length":100,"width":2,"generated":40}\n{"at":5,"tenant":"other","length":50}\n';
    const [first, second] = parseTrace(csv, 1);
    expect(first).toMatchObject({ atMs: 5_000, tenant: 'other', priority: 'interactive', length: 50, width: 1 });
    expect(second).toMatchObject({ atMs: 30_000, tenant: 'acme', priority: 'batch', prompt: 10, width: 2 });
    expect(Math.max(...(second?.ends ?? []))).toBe(40);
    expect(parseTrace(json, 1)[1]).toMatchObject({ atMs: 30_000, ends: second?.ends });
  });

  test.each([
    ['at,length\n1,100\nsoon,100\n', 'line 3: at must be a number'],
    ['at\n1\n', 'line 2: length must be'],
    ['{"at":1,"length":5}\n{"at":', 'line 2: it is no JSON object'],
    ['at,length,priority\n1,5,urgent\n', 'line 2: priority must be'],
  ])('that is wrong is refused by its line: %j', (text, message) => {
    expect(() => parseTrace(text, 1)).toThrow(message);
  });

  test('ends a job where its chains have decided, as the vote does', () => {
    for (const { ends, steps, length } of ARRIVALS) {
      expect(steps).toBeLessThanOrEqual(Math.max(...ends));
      expect(Math.max(...ends)).toBeLessThanOrEqual(length);
      expect(ends).toContain(steps);
    }
    expect(ARRIVALS.some(({ ends, steps }) => steps < Math.max(...ends))).toBe(true);
  });
});

test('a fit finds what rows were made of, and nothing below zero', () => {
  const rows = [[1, 2], [3, 1], [5, 9], [2, 2]].map((row) => ({ row, y: 3 * (row[0] ?? 0) + 0.5 * (row[1] ?? 0) }));
  expect(fit(rows).map((value) => Number(value.toFixed(6)))).toEqual([3, 0.5]);
  expect(fit([{ row: [1, 1], y: 1 }, { row: [1, 2], y: 0.5 }, { row: [1, 4], y: 0.2 }])[1]).toBe(0);
});
