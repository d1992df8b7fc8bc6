/** Who owns a job: two processes on one, an owner that sleeps through a takeover, signals. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, test } from 'vitest';

import { openStore } from '../../engine/adapters/store-url.ts';
import { generate } from '../../engine/job/generate.ts';
import type { StoredResult } from '../../engine/job/slice.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { comparable, jobOf, removeTemporary, temporary } from '../resume/jobs.ts';
import { ruminate } from '../resume/processes.ts';
import { type Said, keptOf, work } from '../resume/workers.ts';

afterAll(removeTemporary);

const SPEC = jobOf('countdown cr8', { budget: { lengths: [640, 90, 640] } });
const POLICY = { deltaTokens: 48, deltaMs: 60_000, journalMs: 1, firstMs: 0 };
const comparableOf = (said: Said | null) => (said?.kind === 'ended' ? comparable(said.result) : said);

async function quickStore(): Promise<ObjectStore> {
  return await openStore(temporary({ quick: true }));
}

describe('two processes on one job', () => {
  test.each(['journal', 'manifest', 'head', 'tail'] as const)('an owner that is stopped at a %s and wakes after a takeover is fenced and changes nothing', async (kind) => {
    const store = await quickStore();
    const common = { store: store.url, job: 'sums', spec: SPEC, policy: POLICY };
    const first = work({ ...common, take: false, kill: { when: 'before', kind, nth: kind === 'tail' ? 4 : kind === 'head' ? 3 : 2, signal: 'SIGSTOP' } });
    await first.stopped;
    const second = await work({ ...common, take: true, kill: null }).ended;
    expect(comparableOf(second)).toBe(comparable(await generate(SPEC)));
    const before = await keptOf(store, 'sums');
    first.process.kill('SIGCONT');
    expect(await first.ended).toMatchObject({ kind: 'failed', code: 'ERR_FENCED' });
    expect(await keptOf(store, 'sums')).toEqual(before);
  }, 120_000);

  test('the second gives up while the first lives, or has its result when that ends; the first is never disturbed', async () => {
    const store = await quickStore();
    const common = { store: store.url, job: 'sums', spec: SPEC, policy: { ...POLICY, deltaMs: 200 }, take: false, kill: null };
    const first = work(common);
    await first.commits(1);
    const second = await work(common).ended;
    const whole = comparable(await generate(SPEC));
    expect(comparableOf(await first.ended)).toBe(whole);
    if (second?.kind === 'failed') expect(second.code).toBe('ERR_JOB_CONFLICT');
    else expect(comparableOf(second)).toBe(whole);
  }, 120_000);
});

/** Once the job has committed something. */
async function whenCommitted(store: ObjectStore, job: string): Promise<void> {
  while (((await keptOf(store, job).catch(() => null))?.manifest ?? null) === null) await sleep(5);
}

describe('signals', () => {
  const flags = (spec: JobSpec) => ['run', spec.prompt ?? '', '--model', spec.model, '--length', '900', '--width', '48', '--seed', '3', '--threads', '1', '--no-early-stop', '--json'];

  test.each(['SIGINT', 'SIGTERM'] as const)('%s parks, the same command goes on, and its JSON is that of a run that was left alone', async (signal) => {
    const store = await quickStore();
    const command = flags(SPEC);
    const stored = [...command, '--store', store.url, '--job', 'sums', '--checkpoint-tokens', '50'];
    let pid = 0;
    const first = ruminate(stored, {}, (started) => { pid = started; });
    await whenCommitted(store, 'sums');
    process.kill(pid, signal);
    const parked = await first;
    expect(parked.status, parked.stderr).toBe(130);
    expect(JSON.parse(parked.stdout)).toMatchObject({ job: 'sums', state: 'parked' });
    expect((await keptOf(store, 'sums'))?.head.state).toBe('parked');
    const [whole, again] = [await ruminate(command), await ruminate(stored)];
    const result = JSON.parse(again.stdout) as StoredResult;
    expect(comparable(result)).toBe(comparable(JSON.parse(whole.stdout) as StoredResult));
    expect(Object.keys(result).filter((key) => key !== 'resumed').sort()).toEqual(Object.keys(JSON.parse(whole.stdout) as object).sort());
    expect(result.resumed).toMatchObject([{ slice: 2, outcome: 'restored', reason: null, tokens_recomputed: 0 }]);
  }, 120_000);

  test('a second SIGINT leaves at once, and what was committed is there', async () => {
    const store = await quickStore();
    // Minutes of work: it cannot end by itself meanwhile.
    const slow = [...flags(SPEC), '--backend', 'reference', '--store', store.url, '--job', 'sums', '--journal-time', '1ms'];
    let pid = 0;
    const ended = ruminate(slow, {}, (started) => { pid = started; });
    await whenCommitted(store, 'sums');
    process.kill(pid, 'SIGINT');
    process.kill(pid, 'SIGINT');
    const left = await ended;
    expect([130, null]).toContain(left.status);
    const kept = await keptOf(store, 'sums');
    expect(kept?.manifest).not.toBeNull();
    expect(['running', 'parked']).toContain(kept?.head.state);
  }, 120_000);
});
