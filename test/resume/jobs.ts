/** Jobs for proofs about resuming: pages of four tokens, a prompt longer than three windows, three chains of which one ends early. */
import { cpSync, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { type Clock, systemClock } from '../../engine/core/clock.ts';
import { type CheckpointPolicy, DEFAULT_POLICY } from '../../engine/job/checkpointer.ts';
import type { JobResult } from '../../engine/job/generate.ts';
import { type OpenedJob, Session } from '../../engine/job/session.ts';
import { type SliceOutcome, runSlice } from '../../engine/job/slice.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { storedSpecOf } from '../../engine/job/stored-spec.ts';
import { createJob } from '../../engine/kv/create.ts';
import type { JobKey } from '../../engine/kv/names.ts';
import { takeJob } from '../../engine/kv/take.ts';
import { modelIdOf } from '../../engine/model/identity.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import type { EngineIdentity, NativeEngine, NativeRun } from '../../engine/runtime/native.ts';
import { bundledModel, tinyModel } from '../helpers/setup.ts';

export const MODELS = ['countdown cr8', 'tiny_qwen3_dms', 'tiny_qwen3_dms_separate'] as const;
export type ModelName = (typeof MODELS)[number];
export const LENGTH = 300;

const MEMORY = '/dev/shm';
const folders: string[] = [];
const directories = new Map<ModelName, string>();

/** @param quick in memory where that is possible: a write then takes a fraction of a step, so that there are many. */
export function temporary({ quick = false } = {}): string {
  const made = mkdtempSync(path.join(quick && existsSync(MEMORY) ? MEMORY : tmpdir(), 'ruminate-resume-'));
  folders.push(made);
  return made;
}

export function removeTemporary(): void {
  for (const made of folders.splice(0)) rmSync(made, { recursive: true, force: true });
  directories.clear();
}

/** The fixtures have weights alone; the bundled model's tokenizer has as many tokens as they have. */
export function directoryOf(model: ModelName): string {
  if (model === 'countdown cr8') return bundledModel('cr8');
  const known = directories.get(model);
  if (known !== undefined) return known;
  const directory = path.join(temporary(), model);
  cpSync(tinyModel(model), directory, { recursive: true });
  for (const file of ['tokenizer.json', 'tokenizer_config.json']) cpSync(path.join(bundledModel('cr8'), file), path.join(directory, file));
  directories.set(model, directory);
  return directory;
}

const EOS = 2;
/** More than three windows of 16 tokens. */
const PROMPT = Array.from({ length: 24 }, (_, i) => `${i + 1} ${(7 * i) % 23 + 1} ${(5 * i) % 19 + 1}`).join(' ') + ' target 59';

/** Never ended by the model itself, so that every chain is as long as it may be. */
export function jobOf(model: ModelName, more: Partial<JobSpec> = {}): JobSpec {
  return {
    model: directoryOf(model),
    prompt: PROMPT,
    page_slots: 4,
    seed: 5,
    threads: 1,
    early_stop: false,
    sampling: { temperature: 1, frequency_penalty: 0.1, logit_bias: [[EOS, -100]] },
    budget: { lengths: [LENGTH, 90, LENGTH] },
    ...more,
  };
}

/** What a result must be the same in, however often the job was interrupted. */
export function comparable(result: JobResult): string {
  const { timing: _, resumed: _r, ...same } = result as JobResult & { readonly resumed?: unknown };
  return JSON.stringify(same);
}

export interface Bench extends OpenedJob {
  readonly spec: JobSpec;
  readonly identity: EngineIdentity;
  readonly modelId: string;
}

export async function benchOf(session: Session, spec: JobSpec): Promise<Bench> {
  const opened = await session.open(spec);
  const identity = await opened.engine.identity();
  return { ...opened, spec, identity, modelId: modelIdOf(opened.job.model, identity.weightsDigest) };
}

export async function create(store: ObjectStore, where: JobKey, { spec, job, modelId }: Bench): Promise<void> {
  await createJob(store, where, JSON.stringify(storedSpecOf(spec, job, modelId, null)));
}

export interface SliceOptions {
  /** Parks when this step is done; default: never. */
  readonly stopAt?: number;
  /** Throws when this step is done, as a process that is killed would: what is on its way is written, and the job is not let go. */
  readonly crashAt?: number;
  readonly policy?: Partial<CheckpointPolicy>;
  readonly identity?: EngineIdentity;
  readonly modelId?: string;
  /** Default: of this machine. One that stands still measures no rate, so that a checkpoint is always read. */
  readonly clock?: Clock;
}

/** One slice of a job that is there, taken whatever its owner does. */
export async function slice(store: ObjectStore, where: JobKey, bench: Bench, { stopAt = Infinity, crashAt = Infinity, policy = {}, ...other }: SliceOptions = {}): Promise<SliceOutcome> {
  const stop = new AbortController();
  let isDead = false;
  const mortal = changed(store, {
    put: async (key, body, options) => {
      if (isDead && key.endsWith('/HEAD') && Buffer.concat(body).includes('"state":"parked"')) throw new Crash();
      return await store.put(key, body, options);
    },
  });
  const lease = await takeJob(mortal, where, { owner: 'test', force: true });
  return await runSlice(bench.job, lease, null, {
    ...bench,
    clock: systemClock,
    ...other,
    engine: watched(bench.engine, Math.min(stopAt, crashAt), () => {
      if (stopAt <= crashAt) stop.abort();
      else {
        isDead = true;
        throw new Crash();
      }
    }),
    store,
    keys: null,
    policy: { ...DEFAULT_POLICY, ...policy },
    cancelled: stop.signal,
    deadline: null,
  });
}

export class Crash extends Error {}

/** The engine, of whose runs `reached` hears after an exact step. */
function watched(engine: NativeEngine, at: number, reached: () => void): NativeEngine {
  const watchedRun = (run: NativeRun): NativeRun => {
    const look = () => {
      if (run.report().step >= at) reached();
    };
    return changed(run, {
      prefill: async (signal) => {
        await run.prefill(signal);
        look();
      },
      step: async (maxSteps, signal) => {
        await run.step(Math.min(maxSteps, Math.max(1, at - run.report().step)), signal);
        look();
      },
    });
  };
  return changed(engine, {
    createRun: (options) => watchedRun(engine.createRun(options)),
    restoreRun: async (options) => watchedRun(await engine.restoreRun(options)),
  });
}

/** The same object but for some of its methods. */
export function changed<T extends object>(target: T, changes: Partial<T>): T {
  return new Proxy(target, {
    get(_, key) {
      if (Object.hasOwn(changes, key)) return changes[key as keyof T];
      const value: unknown = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
