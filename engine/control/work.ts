/**
 * How much work a store holds, in seconds of one worker: what a fleet is scaled by, because jobs differ a thousandfold and their number says little.
 *
 *   backlog = sum over the jobs that have not ended of (planned - made tokens) / rate of their model
 *
 * - planned: the lengths of all chains of the job as far as its KV-read budget pays for them, which is what a quote expects. It stands in the job's marker.
 * - made: tokens that its last commit has. What is journaled since is not looked at: seconds at most.
 * - rate: planned tokens that a worker retires in a second in which it has work of that model, all of its slots together and loading apart, as workers
 *   have measured it last (rates.ts). A job that ends before its length retires the rest of its plan at its end. So the sum is right for a
 *   mix that stays what it was, though hardly a job is as long as it may be, and the prompts, restores and commits of a slice are in it.
 *
 * A worker that is alone needs so long for all of it; n workers need an n-th. What runs counts: a fleet that is scaled by what waits alone would send
 * the last worker away from the last job. Nothing is decided by it but how many machines there are.
 */
import { EngineError } from '../core/errors.ts';
import { inParallel } from '../core/waiting.ts';
import { type Plan, liveKey, readMarker } from '../kv/hints.ts';
import { isMissing, readManifest } from '../kv/read.ts';
import type { Alive } from '../kv/reconcile.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { modelRates, type ModelRates } from './rates.ts';

/** At one moment. Seconds are those of one worker. */
export interface Work {
  /** Queued or parked, and running. */
  readonly waiting: number;
  readonly running: number;
  readonly waitingSeconds: number;
  /** Of all that has not ended. */
  readonly backlogSeconds: number;
  /** How long the oldest job has waited that no worker has taken yet; 0: there is none, or the store has no clock. */
  readonly oldestSeconds: number;
  /** Jobs that counted as `UNKNOWN_SECONDS` each, because no worker has said how fast their model is. */
  readonly unmeasured: number;
  /** false: not all that lives was met, as the store failed or the time was over: all of this is at least so much. */
  readonly isWhole: boolean;
}

/** Of a job of which too little is known: enough that one worker comes and measures it. */
export const UNKNOWN_SECONDS = 60;
/** Markers and manifests that one count reads; what is beyond counts as the others do on average. */
const LOOKS_MAX = 2_000;
const LOOKS_AT_ONCE = 8;

interface Known {
  readonly plan: Plan | null;
  /** Of the head that `made` is of. */
  readonly writeNonce: string;
  readonly made: number;
}

/** Between two counts it keeps what does not change, so that a job costs a read when it is new and one for each commit. */
export class WorkCount {
  readonly #store: ObjectStore;
  #known = new Map<string, Known>();
  /** As of the last count. */
  #rates: ModelRates = modelRates(new Map());

  constructor(store: ObjectStore) {
    this.#store = store;
  }

  /** @param met by a walk, all that lives. @param nowMs of the wall clock. @throws EngineError ERR_STORE, ERR_CANCELLED. */
  async count(met: readonly Alive[], rates: ModelRates, nowMs: number, { signal }: CallOptions = {}): Promise<Work> {
    const known = new Map<string, Known>();
    let looks = 0;
    await inParallel(met.length, LOOKS_AT_ONCE, signal, async (i, stop) => {
      const alive = met[i] as Alive;
      const key = liveKey(alive.where);
      const before = this.#known.get(key);
      if (before?.writeNonce === alive.head.writeNonce) known.set(key, before);
      else if (looks++ < LOOKS_MAX) known.set(key, await this.#look(alive, before, { signal: stop }));
      else if (before !== undefined) known.set(key, before);
    });
    this.#known = known;
    this.#rates = rates;
    return this.#workOf(met, nowMs);
  }

  /** Of a walk that could not be through: asks the store nothing more. What is not known of a job that was met counts as of one that nobody has measured. */
  atLeast(met: readonly Alive[], nowMs: number): Work {
    return { ...this.#workOf(met, nowMs), isWhole: false };
  }

  #workOf(met: readonly Alive[], nowMs: number): Work {
    return workOf(met.map((alive) => ({ ...alive, ...(this.#known.get(liveKey(alive.where)) ?? { plan: null, made: 0 }) })), this.#rates, nowMs);
  }

  async #look({ where, head }: Alive, before: Known | undefined, options: CallOptions): Promise<Known> {
    const plan = before?.plan ?? (await readable(() => readMarker(this.#store, where, options)))?.plan ?? null;
    const manifest = head.manifest === null ? null : await readable(() => readManifest(this.#store, where, head, options));
    return { plan, writeNonce: head.writeNonce, made: manifest?.chains.reduce((sum, { tokens }) => sum + tokens, 0) ?? before?.made ?? 0 };
  }
}

/** The definition above. */
export function workOf(jobs: readonly (Pick<Alive, 'head' | 'markedAtMs'> & Pick<Known, 'plan' | 'made'>)[], rates: ModelRates, nowMs: number): Work {
  let [waiting, running, oldestSeconds] = [0, 0, 0];
  const seconds = { waiting: [] as (number | null)[], running: [] as (number | null)[] };
  for (const { head: { state }, markedAtMs, plan, made } of jobs) {
    const rate = plan === null ? null : rates.of(plan.model);
    const left = plan === null || rate === null ? null : Math.max(0, plan.tokens - made) / rate;
    if (state === 'running') running++;
    else waiting++;
    seconds[state === 'running' ? 'running' : 'waiting'].push(left);
    if (state === 'queued' && markedAtMs !== undefined) oldestSeconds = Math.max(oldestSeconds, (nowMs - markedAtMs) / 1_000);
  }
  const all = [...seconds.waiting, ...seconds.running];
  const measured = all.filter((each) => each !== null);
  const otherwise = measured.length === 0 ? UNKNOWN_SECONDS : sum(measured) / measured.length;
  const total = (of: readonly (number | null)[]) => sum(of.map((each) => each ?? otherwise));
  return { waiting, running, waitingSeconds: total(seconds.waiting), backlogSeconds: total(all), oldestSeconds, unmeasured: all.length - measured.length, isWhole: true };
}

/** How many workers a fleet wants. Never more than jobs: one that is long takes its time on however many machines. */
export function workersFor({ backlogSeconds, waiting, running }: Pick<Work, 'backlogSeconds' | 'waiting' | 'running'>, { targetSeconds, workersMax }: { readonly targetSeconds: number; readonly workersMax: number }): number {
  return Math.min(workersMax, waiting + running, Math.ceil(backlogSeconds / targetSeconds));
}

/** null: it cannot be read, or is gone since. A count leaves nothing out because of it. */
async function readable<T>(read: () => Promise<T>): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    if (isMissing(error) || (error instanceof EngineError && error.code === 'ERR_CHECKPOINT')) return null;
    throw error;
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
