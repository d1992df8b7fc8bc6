/** Jobs that waited longer for their first worker than they were to wait (`wait_ms_max`): by whom they are ended, and how. */
import { dueMsOf } from '../control/record.ts';
import { type Clock, wallClockMs } from '../core/clock.ts';
import { codeOf } from '../core/errors.ts';
import { inParallel, throwIfCancelled } from '../core/waiting.ts';
import type { Told } from '../job/endings.ts';
import { outlineOf } from '../job/sealed-spec.ts';
import { endJob } from '../kv/end.ts';
import { isTerminal, type Head } from '../kv/head.ts';
import { type JobKey, jobPrefix, shardOf } from '../kv/names.ts';
import { readSpec } from '../kv/read.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import type { WorkerEvent } from './events.ts';

export interface OverdueOptions {
  readonly store: ObjectStore;
  readonly clock: Clock;
  /** Who is told that a job has ended. */
  readonly endings: Told;
  readonly say: (event: WorkerEvent) => void;
}

/** Of the wall clock, by job; null: it may wait for ever. It never changes. */
export type DueTimes = Map<string, number | null>;

/** Specs that one walk reads; what is beyond is read by the next. */
const LOOKS_MAX = 2_000;
const AT_ONCE = 8;
/** In one walk: then it is the store that fails, and not one object of it. */
const FAILURES_MAX = AT_ONCE;

/** Whether it waits for its first worker and is past its time. Its spec alone says so: a message may say what it likes. @throws EngineError ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED. */
export async function isOverdue(where: JobKey, head: Head, { store }: Pick<OverdueOptions, 'store'>, options: CallOptions = {}): Promise<boolean> {
  return ((await dueMsIn(store, where, head, options)) ?? Infinity) <= wallClockMs();
}

async function dueMsIn(store: ObjectStore, where: JobKey, head: Head, options: CallOptions): Promise<number | null> {
  return await dueMsOf(store, where, head, outlineOf(await readSpec(store, where, head.spec, options)), options);
}

/**
 * The job ends as `expired`, unless a worker has begun it since it was looked at. A marker that stays is found by the walk.
 * @returns whether it has ended, in whatever way. @throws EngineError as `endJob`.
 */
export async function expire(where: JobKey, { store, clock, endings, say }: OverdueOptions, { signal }: CallOptions = {}): Promise<boolean> {
  const { head, changed } = await endJob(store, where, 'expired', { clock, signal, onlyFrom: 'queued' });
  if (changed) say({ kind: 'expired', where });
  if (!isTerminal(head.state)) return false;
  await endings.jobEnded(where, { signal }).catch(() => undefined);
  return true;
}

/**
 * Ends those that are past their time, so that who waits for one is told though no worker comes. One that fails keeps none of the others from it: what it failed with is thrown when all have had their turn.
 * @param met by a walk: all that lives. @param due of walks before; afterwards, of what was met and could be read. @param ended those that have ended are added to it, by prefix.
 * @throws EngineError ERR_STORE, ERR_CANCELLED.
 */
export async function expireOverdue(met: readonly Pick<Waiting, 'where' | 'head'>[], due: DueTimes, ended: Set<string>, options: OverdueOptions, { signal }: CallOptions = {}): Promise<void> {
  // A shard waits as long as its job does.
  const waiting = met.filter(({ where, head }) => head.state === 'queued' && shardOf(where) === null).map((each): Waiting => ({ ...each, key: jobPrefix(each.where) }));
  const living = new Set(waiting.map(({ key }) => key));
  for (const key of due.keys()) if (!living.has(key)) due.delete(key);
  const failures: unknown[] = [];
  const each = async (some: readonly Waiting[], act: (one: Waiting, stop: AbortSignal) => Promise<void>) => {
    await inParallel(some.length, AT_ONCE, signal, async (i, stop) => {
      if (failures.length >= FAILURES_MAX) return;
      try {
        await act(some[i] as Waiting, stop);
      } catch (error) {
        throwIfCancelled(stop);
        // One that is damaged, or gone since: whoever runs it, or the walk, says what is wrong with it.
        if (!['ERR_CHECKPOINT', 'ERR_JOB_NOT_FOUND'].includes(codeOf(error) ?? '')) failures.push(error);
      }
    });
  };
  await each(waiting.filter(({ key }) => !due.has(key)).slice(0, LOOKS_MAX), async ({ where, head, key }, stop) => {
    // Only of what was read: the next walk looks again at what could not be.
    due.set(key, await dueMsIn(options.store, where, head, { signal: stop }));
  });
  const nowMs = wallClockMs();
  await each(waiting.filter(({ key }) => (due.get(key) ?? Infinity) <= nowMs), async ({ where, key }, stop) => {
    if (await expire(where, options, { signal: stop })) ended.add(key);
  });
  if (failures.length > 0) throw failures[0];
}

interface Waiting {
  readonly where: JobKey;
  readonly head: Head;
  readonly key: string;
}
