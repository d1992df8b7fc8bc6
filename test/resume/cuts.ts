/** A run stopped after any step and restored: bytes of K, V and logits, tokens, ballots and usage are those of the run that never stopped. */
import { describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { runJob, runOptions } from '../../engine/job/run.ts';
import { systemClock } from '../../engine/core/clock.ts';
import { openSession } from '../../engine/job/session.ts';
import { type NativeEngine, type NativeRun, type RunOptions, type RunReport, nativeInfo } from '../../engine/runtime/native.ts';
import { open } from '../helpers/setup.ts';
import { type ModelName, LENGTH, MODELS, benchOf, comparable, create, directoryOf, jobOf, slice } from './jobs.ts';
import { Vault, contentsOf, save } from './vault.ts';

const TENANT = 'acme';
/** After a cut: more than a window, so that whatever was in the ring has left it. */
const SAVES_COMPARED = 20;
const plain = (report: RunReport) => ({ ...report, caughtUp: 0, chains: report.chains.map((chain) => ({ ...chain, tokens: [...chain.tokens] })) });

async function stepTo(run: NativeRun, step: number): Promise<void> {
  while (run.report().step < step && run.report().running > 0) await run.step(step - run.report().step);
}

interface Cut {
  readonly vault: Vault;
  /** Contents of what the save at this cut wrote. */
  readonly wrote: readonly string[];
}

/** One uninterrupted run, saved every `stride` steps. */
async function uninterrupted(engine: NativeEngine, options: RunOptions, stride: number) {
  using run = engine.createRun(options);
  await run.prefill();
  const cuts = new Map<number, Cut>();
  let vault = Vault.empty(options.width);
  for (let step = 0; ; step += stride) {
    await stepTo(run, step);
    const saved = await save(run, step);
    vault = vault.with(saved);
    cuts.set(step, { vault, wrote: contentsOf(saved) });
    if (step >= LENGTH) return { cuts, report: plain(run.report()) };
  }
}

/** Of each chain, in order. */
function newestTails(contents: readonly string[]): readonly string[] {
  const newest = new Map<string, string>();
  for (const content of contents) if (content.startsWith('tail')) newest.set(content.split(' ')[1] ?? '', content);
  return [...newest].sort().map(([, content]) => content);
}

/** @param stride of the cuts that are tried; 1: every one. */
export function describeCuts(stride: number): void {
  describe.each(MODELS)(`%s, cut every ${stride} steps`, (model) => {
    test('everything that a restored run saves later is byte for byte what the uninterrupted run saves', async () => {
      await onEngines(model, async (options, engineFor) => {
        const { cuts, report } = await uninterrupted(engineFor(0), options, stride);
        expect(report.chains.map(({ tokens }) => tokens.length)).toEqual([LENGTH, 90, LENGTH]);
        expect(cuts.size).toBeGreaterThan(LENGTH / stride);
        for (const [from, { vault }] of cuts) {
          using run = await engineFor(from / stride).restoreRun(vault.plan(options));
          await run.prefill();
          expect(run.report().caughtUp).toBe(0);
          const later = [...cuts].filter(([step]) => step > from);
          for (const [step, { wrote }] of later.slice(0, SAVES_COMPARED)) {
            await stepTo(run, step);
            expect(contentsOf(await save(run, step)), `cut at ${from}, saved at ${step}`).toEqual(wrote);
          }
          const rest = later.slice(SAVES_COMPARED);
          await stepTo(run, LENGTH);
          if (rest.length > 0) {
            const wanted = newestTails(rest.flatMap(([, { wrote }]) => wrote));
            expect(newestTails(contentsOf(await save(run, LENGTH))), `cut at ${from}`).toEqual(wanted);
          }
          expect(plain(run.report()), `cut at ${from}`).toEqual(report);
        }
      });
    }, 1_800_000);

    test('its chains go on as well in two runs of fewer', async () => {
      await onEngines(model, async (options, engineFor) => {
        const { cuts, report } = await uninterrupted(engineFor(0), options, stride);
        for (const [from, { vault }] of cuts) {
          for (const sources of [[0], [1, 2]]) {
            const part = { ...options, width: sources.length, firstChain: sources[0] ?? 0, lengths: Int32Array.from(sources, (i) => options.lengths[i] ?? 0) };
            using run = await engineFor(from / stride).restoreRun(vault.plan(part, sources));
            await run.prefill();
            await stepTo(run, LENGTH);
            expect(plain(run.report()).chains, `cut at ${from}, chains ${sources.join(' and ')}`).toEqual(sources.map((i) => report.chains[i]));
          }
        }
      });
    }, 1_800_000);

    test('parked in a store and taken again, a job has the tokens, ballots and usage of one that was never parked', async () => {
      using session = openSession();
      const bench = await benchOf(session, jobOf(model));
      const whole = comparable(await runJob(bench.job, { ...bench, clock: systemClock, cancelled: null, deadline: null }));
      const store = new MemoryStore();
      for (let at = 0; at < LENGTH; at += stride) {
        const where = { tenant: TENANT, job: `cut-${at}` };
        await create(store, where, bench);
        expect(await slice(store, where, bench, { stopAt: at })).toMatchObject({ kind: 'parked', step: at });
        const outcome = await slice(store, where, bench);
        if (outcome.kind !== 'ended') throw new Error('the job did not end');
        expect(comparable(outcome.result), `cut at ${at}`).toBe(whole);
        expect(outcome.result.resumed).toEqual([{ slice: 2, outcome: 'restored', reason: null, from_step: at, tokens_recomputed: 0 }]);
      }
    }, 1_800_000);
  });
}

/** Options of the job's run, and an engine for each cut: this machine's best level, the portable one, now and then that with more threads. */
async function onEngines(model: ModelName, work: (options: RunOptions, engineFor: (cut: number) => NativeEngine) => Promise<void>): Promise<void> {
  using session = openSession();
  const { job } = await session.open(jobOf(model));
  expect(job.promptIds.length).toBeGreaterThan(3 * job.model.info.policy.window);
  const layout = { pageSlots: job.pageSlots, kv: job.kv };
  using best = await open(directoryOf(model), { ...layout, isa: nativeInfo().isas.at(-1) ?? null });
  using portable = await open(directoryOf(model), { ...layout, isa: 'portable' });
  using threads = await open(directoryOf(model), { ...layout, isa: 'portable', threads: 2 });
  await work(runOptions(job, null, true), (cut) => (cut % 8 === 6 ? threads : cut % 2 === 1 ? portable : best));
}
