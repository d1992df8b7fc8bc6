/** What readers of the same process see before the store has it. */
import { describe, expect, test } from 'vitest';

import type { RunReport } from '../../engine/runtime/native.ts';
import { Live } from '../../engine/worker/live.ts';
import { ManualClock } from '../helpers/clock.ts';
import { Bench, LONG, quiet, reaches, whereIs } from './support.ts';

const A = whereIs('a');
const B = whereIs('b');
const reportAt = (step: number): RunReport => ({ step, prefilled: true, prefillReadSum: 0, sharedSum: 0, headCount: 1, running: 1, caughtUp: 0, chains: [] });

async function isOver(waiting: Promise<unknown>, clock: ManualClock): Promise<boolean> {
  let over = false;
  void waiting.then(() => { over = true; }, () => { over = true; });
  await clock.settle();
  return over;
}

describe('the feed', () => {
  test('a reader wakes at the next report of its job, and not at another\'s', async () => {
    const clock = new ManualClock();
    const live = new Live(clock);
    const waiting = live.changed(A, 1_000);
    live.publish(B, reportAt(1));
    expect(await isOver(waiting, clock)).toBe(false);
    live.publish(A, reportAt(2));
    expect(await isOver(waiting, clock)).toBe(true);
    expect(live.report(A)?.step).toBe(2);
  });

  test('a reader wakes when the job stops here, and then there is no report', async () => {
    const clock = new ManualClock();
    const live = new Live(clock);
    live.publish(A, reportAt(1));
    const waiting = live.changed(A, 1_000);
    live.stop(A);
    expect(await isOver(waiting, clock)).toBe(true);
    expect(live.report(A)).toBeNull();
  });

  test('a reader wakes when its time is over, and says so when it was cancelled', async () => {
    const clock = new ManualClock();
    const live = new Live(clock);
    const waiting = live.changed(A, 1_000);
    clock.advance(1_000);
    await waiting;
    const stop = new AbortController();
    const cancelled = live.changed(A, 1_000, stop.signal);
    stop.abort();
    await expect(cancelled).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
    await expect(live.changed(A, 1_000, AbortSignal.abort())).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
  });

  test('a job is followed while someone waits, and until a reader has been away for two seconds', async () => {
    const clock = new ManualClock();
    const live = new Live(clock);
    live.publish(A, reportAt(1));
    expect(live.isFollowed(A)).toBe(false);
    const waiting = live.changed(A, 60_000);
    clock.advance(10_000);
    expect(live.isFollowed(A)).toBe(true);
    live.publish(A, reportAt(2));
    await waiting;
    clock.advance(1_999);
    expect(live.isFollowed(A)).toBe(true);
    clock.advance(1);
    expect(live.isFollowed(A)).toBe(false);
  });
});

test('a reader sees every step soon, and the tokens that the result has', async () => {
  await using bench = new Bench();
  const worker = bench.worker();
  const where = await bench.submit('sums', LONG);
  const seen: RunReport[] = [];
  while (bench.kinds('sums').at(-1) !== 'ended') {
    const report = worker.report(where);
    if (report !== null && report !== seen.at(-1)) seen.push(report);
    await worker.changed(where, 100);
  }
  const { chains } = (await quiet(LONG)) as { readonly chains: readonly { readonly tokens: readonly number[] }[] };
  expect(seen.length).toBeGreaterThan(20);
  for (const report of seen) {
    report.chains.forEach(({ tokens }, i) => expect([...tokens]).toEqual(chains[i]?.tokens.slice(0, tokens.length)));
  }
  // The first call may have been made before anyone had asked.
  const followed = seen.filter(({ step }) => step > 64);
  for (const [i, report] of followed.entries()) if (i > 0) expect(report.step - (followed[i - 1]?.step ?? 0)).toBeLessThanOrEqual(16);
});

test('nobody reads: fewer, longer calls', async () => {
  await using bench = new Bench();
  const worker = bench.worker();
  const where = await bench.submit('sums', LONG);
  await bench.event('started', 'sums');
  const steps = new Set<number>();
  while (bench.kinds('sums').at(-1) !== 'ended') {
    const report = worker.report(where);
    if (report !== null) steps.add(report.step);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  expect([...steps].every((step) => step % 64 === 0 || step === 900)).toBe(true);
  await reaches(worker, where, 0);
});
