/** Whole jobs of the bundled model in a store, small enough to be run a hundred times: pages seal, the prompt is shared, one chain ends early. */
import { expect } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { type Clock, systemClock } from '../../engine/core/clock.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { DEFAULT_POLICY } from '../../engine/job/checkpointer.ts';
import { generate, type JobResult, type Progress } from '../../engine/job/generate.ts';
import type { PreparedJob } from '../../engine/job/prepare.ts';
import { openSession } from '../../engine/job/session.ts';
import { runSlice, type SliceContext, type SliceOutcome, type StoredResult } from '../../engine/job/slice.ts';
import { type JobSpec, parseSpec } from '../../engine/job/spec.ts';
import { storedSpecOf } from '../../engine/job/stored-spec.ts';
import { resumeStored, runStored, type StoredOptions, type StoredOutcome } from '../../engine/job/stored.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import { createJob, readJob } from '../../engine/kv/create.ts';
import type { Lease } from '../../engine/kv/lease.ts';
import type { JobKey } from '../../engine/kv/names.ts';
import { takeJob } from '../../engine/kv/take.ts';
import { modelIdOf } from '../../engine/model/identity.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';

export const WHERE: JobKey = { tenant: 'acme', job: 'sums' };
export const HEAD_KEY = 'kv/acme/sums/HEAD';
export const PROMPT = '4 20 8 13 target 59';
export const SPEC: JobSpec = {
  model: 'countdown', prompt: PROMPT, seed: 7, early_stop: false, page_slots: 4, threads: 1,
  budget: { compression_ratio: 8, lengths: [48, 20, 48] },
};

/** A look at the run every 16 steps, and a delta at every look. */
export function options(more: Partial<StoredOptions> & Pick<StoredOptions, 'store'>): StoredOptions {
  return { where: WHERE, take: true, threads: 1, policy: { deltaTokens: 16, firstMs: 0 }, onProgress: () => undefined, ...more };
}

export const begin = (more: Partial<StoredOptions> & Pick<StoredOptions, 'store'>): Promise<StoredOutcome> => runStored(SPEC, options(more));
export const resume = (more: Partial<StoredOptions> & Pick<StoredOptions, 'store'>): Promise<StoredOutcome> => resumeStored(options(more));

/** What nothing may change. */
export type Answer = Omit<JobResult, 'timing'>;

export function answerOf({ answer, ballots, chains, usage }: JobResult): Answer {
  return { answer, ballots, chains, usage };
}

let golden: Promise<Answer> | null = null;
/** Of a run that no store has heard of. */
export function undisturbed(): Promise<Answer> {
  return (golden ??= generate(SPEC).then(answerOf));
}

export async function expectUndisturbed(outcome: SliceOutcome): Promise<StoredResult> {
  if (outcome.kind !== 'ended') throw new Error(`the job is ${outcome.kind}`);
  expect(answerOf(outcome.result)).toEqual(await undisturbed());
  return outcome.result;
}

/** Parks at step 36: the run is looked at every 16 steps and when a chain ends, which one does at 20. */
export async function park(more: Partial<StoredOptions> & Pick<StoredOptions, 'store'>): Promise<void> {
  const stop = new AbortController();
  const onProgress = ({ chains }: Progress) => { if ((chains[0]?.tokens ?? 0) >= 32) stop.abort(); };
  expect(await begin({ signal: stop.signal, onProgress, ...more })).toMatchObject({ kind: 'parked', step: 36 });
}

export async function parked(): Promise<MemoryStore> {
  const store = new MemoryStore();
  await park({ store });
  return store;
}

/** The same objects in a store of their own, with new etags. */
export async function copyOf(store: MemoryStore, changed: (key: string, bytes: Uint8Array) => Uint8Array | null = (_, bytes) => bytes): Promise<MemoryStore> {
  const copy = new MemoryStore();
  for (const [key, bytes] of store.snapshot()) {
    const content = changed(key, bytes);
    if (content !== null) await copy.put(key, [content]);
  }
  return copy;
}

/** Digests by key: comparing these tells as much as comparing bytes, and sooner. */
export function contents(store: MemoryStore): Readonly<Record<string, string>> {
  return Object.fromEntries([...store.snapshot()].map(([key, bytes]) => [key, sha256(bytes)]));
}

/** Keys of what the manifest of the job names, by kind of object. */
export async function namedObjects(store: MemoryStore, where = WHERE): Promise<readonly { readonly key: string; readonly kind: string }[]> {
  const { manifest } = await readJob(store, where);
  const kinds = { s: 'segment', t: 'tail', j: 'journal' } as const;
  return (manifest?.objects ?? []).map(({ name }) => ({ key: `kv/${where.tenant}/${where.job}/${name}`, kind: kinds[name[0] as keyof typeof kinds] }));
}

export async function errorOf(work: Promise<unknown>): Promise<EngineError> {
  const error: unknown = await work.then((value) => `no error: ${JSON.stringify(value)?.slice(0, 200)}`, (reason: unknown) => reason);
  expect(error).toBeInstanceOf(EngineError);
  return error as EngineError;
}

export const refused = (reason: string) => ({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(new RegExp(`^${reason}: `)) as string });

export interface Taken extends Disposable {
  readonly lease: Lease;
  readonly context: SliceContext;
  /** As the lease's owner; `more` stands in for parts of the context. */
  run(more?: Partial<SliceContext> & { readonly job?: PreparedJob }): Promise<SliceOutcome>;
  readonly job: PreparedJob;
}

/** The job of SPEC, created if it is not there and taken, but not yet run. */
export async function taken(store: ObjectStore, { owner, clock = systemClock }: { readonly owner: string; readonly clock?: Clock }): Promise<Taken> {
  const session = openSession();
  const { job, ...opened } = await session.open(parseSpec(SPEC), { threads: 1 });
  const identity = await opened.engine.identity();
  const modelId = modelIdOf(job.model, identity.weightsDigest);
  await createJob(store, WHERE, JSON.stringify(storedSpecOf(SPEC, job, modelId, null)));
  const lease = await takeJob(store, WHERE, { owner });
  const context: SliceContext = { ...opened, store, keys: null, identity, modelId, policy: DEFAULT_POLICY, clock, cancelled: null, deadline: null };
  return {
    lease, context, job,
    run: ({ job: other = job, ...more } = {}) => runSlice(other, lease, null, { ...context, ...more }),
    [Symbol.dispose]: () => session[Symbol.dispose](),
  };
}
