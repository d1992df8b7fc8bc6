/** A job of a tiny model that is cut exactly where a test says: what a slice does, with the test in the place of the clock. */
import { systemClock } from '../../engine/core/clock.ts';
import { checkpointOf, type Checkpoint } from '../../engine/job/checkpoint.ts';
import { Checkpointer, DEFAULT_POLICY } from '../../engine/job/checkpointer.ts';
import { restore, type RestoredRun, type RestoreRequest } from '../../engine/job/restore.ts';
import { createJob } from '../../engine/kv/create.ts';
import { openKeys } from '../../engine/kv/seal.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import type { NativeEngine, NativeRun, RunOptions, RunReport } from '../../engine/runtime/native.ts';
import { open, runOptions, tinyModel } from '../helpers/engine.ts';
import { WHERE } from './support.ts';

export const LENGTH = 48;
/** Three windows of prompt, so that its pages seal and are shared; one chain ends early. */
export const JOB: RunOptions = runOptions({
  width: 3, lengths: Int32Array.from([LENGTH, 15, LENGTH]), checkpointed: true, prompt: Int32Array.from({ length: 26 }, (_, i) => (7 * i + 3) % 100),
});

export function openTiny(changes: Parameters<typeof open>[1] = {}): Promise<NativeEngine> {
  return open(tinyModel('tiny_qwen3_dms'), { pageSlots: 4, ...changes });
}

export interface SliceReport {
  /** null: the job began. */
  readonly restored: Omit<RestoredRun, 'run'> | null;
  readonly report: RunReport;
}

/** A processor so fast that reading is never worth it: restores compute again. */
export const COMPUTING_IS_CHEAPER = { prefillTokensPerSecond: 1e12 } as const;

export type Work = (run: NativeRun, restored: SliceReport['restored']) => Promise<unknown>;

/** Takes the job, creating it if need be, lets `work` go on with it, and leaves it parked with everything saved. */
export async function slice(engine: NativeEngine, job: RunOptions, store: ObjectStore, work: Work, more: Partial<RestoreRequest> = {}): Promise<SliceReport> {
  await createJob(store, WHERE, '{}');
  const lease = await takeJob(store, WHERE, { owner: 'test', force: true });
  const { layoutId, numericsId } = await engine.identity();
  using keys = await openKeys(null, WHERE, null);
  const identity = { layoutId, modelId: 'tiny', numericsId };
  let base: Checkpoint = {
    ...identity, step: 0, elapsedMs: 0, ended: null, slices: [], promptTokens: job.prompt.length, promptTail: null, journal: [], keys: null,
    chains: [...job.lengths].map(() => ({ tokens: 0, finish: null, segments: [], tails: [] })),
  };
  let restored: SliceReport['restored'] = null;
  let run: NativeRun;
  if (lease.manifest === null) {
    run = engine.createRun(job);
  } else {
    const { run: goesOn, ...said } = await restore({
      engine, run: job, checkpoint: checkpointOf(lease.manifest, []), own: true, replay: false, prefillTokensPerSecond: null, clock: systemClock,
      chains: [...job.lengths].map((_, source) => ({ source, tokens: null, reopen: false })),
      read: (ref, signal) => lease.read(ref, { signal }),
      sealOf: () => keys.own,
      ...more,
    });
    [run, restored, base] = [goesOn, said, said.kept];
  }
  try {
    await run.prefill();
    await work(run, restored);
    const checkpointer = new Checkpointer({
      run, lease, seal: keys.own, wrapped: () => null, clock: systemClock, policy: DEFAULT_POLICY, base, slices: () => [], adopted: [], elapsedMs: 0,
    });
    await checkpointer.close('parked', null);
    return { restored, report: run.report() };
  } finally {
    run.close();
  }
}

export async function stepTo(run: NativeRun, step: number): Promise<void> {
  while (run.report().running > 0 && run.report().step < step) await run.step(step - run.report().step);
}

export const toTheEnd: Work = (run) => stepTo(run, 1_000_000);

/** All of a run that is a function of the job. */
export function essence({ caughtUp: _, chains, ...rest }: RunReport) {
  return { ...rest, chains: chains.map(({ tokens, ...chain }) => ({ ...chain, tokens: [...tokens] })) };
}

export async function undisturbedRun(engine: NativeEngine, job: RunOptions): Promise<ReturnType<typeof essence>> {
  using run = engine.createRun({ ...job, checkpointed: false });
  await run.prefill();
  await stepTo(run, 1_000_000);
  return essence(run.report());
}
