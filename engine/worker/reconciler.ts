/**
 * The walk that sends again what lost its message or its worker. A job that waits long is not lost: while the queue has a backlog its message
 * may well be in there, and a hundred workers that sent everything again each minute would only make the queue longer. So what does not run
 * is sent again when the queue is empty, or after a long time; and each time later than the time before.
 */
import { modelRates, readRates } from '../control/rates.ts';
import { messageOf } from '../control/record.ts';
import { type Work, WorkCount } from '../control/work.ts';
import { type Clock, wallClockMs } from '../core/clock.ts';
import { codeOf } from '../core/errors.ts';
import { isOwnerGone, isOwnerHere } from '../core/owner.ts';
import { inParallel, throwIfCancelled, untilAborted } from '../core/waiting.ts';
import { Endings, type Told } from '../job/endings.ts';
import { outlineOf } from '../job/sealed-spec.ts';
import type { Head } from '../kv/head.ts';
import { liveKey } from '../kv/hints.ts';
import { jobPrefix, type JobKey, rootOf, shardOf } from '../kv/names.ts';
import { readSpec } from '../kv/read.ts';
import { type Alive, isUnmoved, reconcile, type Sightings } from '../kv/reconcile.ts';
import { COMMIT_INTERVAL_MS, silentMs, STILL_INTERVALS } from '../kv/take.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import type { Queue, SliceMessage } from '../ports/queue.ts';
import type { WorkerEvent } from './events.ts';
import { type DueTimes, expireOverdue } from './overdue.ts';

export interface ReconcilerOptions {
  readonly store: ObjectStore;
  readonly queue: Pick<Queue, 'sendAll' | 'depth'>;
  readonly clock: Clock;
  /** Who is told that a job has ended. */
  readonly outbox: Told;
  /** Whether it runs here. */
  readonly runs: (where: JobKey) => boolean;
  /** Of walks before, for a process that does not last from walk to walk. Default: empty. */
  readonly memory?: WalkMemory | undefined;
  readonly say: (event: WorkerEvent) => void;
}

/** No living owner is silent for so long. */
const SILENT_MS = STILL_INTERVALS * COMMIT_INTERVAL_MS;
/** Of what only waits, though the queue has a backlog. */
const PATIENT_MS = 30 * 60_000;
const AGAIN_MS = 60_000;
const AGAIN_MS_MAX = 60 * 60_000;
/** Looking whether a process lives asks no store. */
const NEIGHBOURS_MS = 1_000;
/** Messages that are sent at once: those of a walk that is cut off between two sendings are left to the next. */
const SEND_MAX = 20;
/** Specs that are read at once for them. */
const LOOKS_AT_ONCE = 16;

/** Times are of the walker's clock. */
export interface WalkMemory {
  readonly seen: Sightings;
  /** By job. */
  readonly sent: Map<string, Sent>;
  readonly due: DueTimes;
}

export interface Sent {
  readonly writeNonce: string;
  readonly atMs: number;
  readonly times: number;
}

/** To be sent again, for the `times` + 1st time. */
interface Lost extends Pick<Alive, 'where' | 'head'> {
  readonly key: string;
  readonly times: number;
}

export class Reconciler {
  readonly #o: ReconcilerOptions;
  readonly #memory: WalkMemory;
  readonly #work: WorkCount;
  readonly #endings: Endings;
  /** Living processes of this machine that own jobs, as of the last walk. */
  #neighbours = new Set<string>();

  constructor(options: ReconcilerOptions) {
    this.#o = options;
    this.#memory = options.memory ?? { seen: new Map(), sent: new Map(), due: new Map() };
    this.#work = new WorkCount(options.store);
    this.#endings = Endings.over(options.store, options.outbox, options);
  }

  isUnmoved(where: JobKey, { writeNonce, owner }: Head): boolean {
    return isUnmoved(this.#memory.seen, liveKey(where), writeNonce, this.#o.clock.nowMs(), Math.min(SILENT_MS, silentMs(owner)));
  }

  /**
   * Sends again what is lost, ends what waited for longer than it was to, and says how much work there is; of a walk that fails, how much it has met.
   * @param all every job that lives, at once: the queue knows nothing of them. @throws EngineError ERR_STORE, ERR_QUEUE, ERR_CANCELLED.
   */
  async walk(all: boolean, signal: AbortSignal): Promise<void> {
    const { store, queue, clock, runs, say } = this.#o;
    const isEmpty = all || (await this.#isEmpty(signal));
    const { seen, sent, due } = this.#memory;
    const living = new Set<string>();
    let lost: Lost[] = [];
    let count = 0;
    // What is sent is remembered at once: a walk that is cut off, and then begins anew, does not send it again.
    const send = async () => {
      const messages = await inParallel(lost.length, LOOKS_AT_ONCE, signal, async (i, stop) => {
        const { where, head } = lost[i] as Lost;
        const message = await this.#messageOf(where, head, { signal: stop });
        // It is ended below; a shard may be wanted yet.
        return shardOf(where) === null && message.expiresMs !== undefined && message.expiresMs <= wallClockMs() ? null : message;
      });
      const some = messages.filter((message) => message !== null);
      if (some.length > 0) await queue.sendAll(some, { signal });
      for (const [i, { head, key, times }] of lost.entries()) {
        if (messages[i] === null) continue;
        sent.set(key, { writeNonce: head.writeNonce, atMs: clock.nowMs(), times: times + 1 });
        count++;
      }
      lost = [];
    };
    const alives: Alive[] = [];
    const ended = new Set<string>();
    // Of a sharded job its shards are the work.
    const working = () => alives.filter(({ where, head }) => head.join === undefined && !ended.has(jobPrefix(rootOf(where))));
    const neighbours = new Set<string>();
    this.#neighbours = neighbours;
    const walking = reconcile(store, seen, {
      clock, signal, unmovedMs: all ? 0 : SILENT_MS, isOwnerGone,
      onAlive: (alive) => {
        const { state, owner } = alive.head;
        if (state === 'running' && isOwnerHere(owner) && !isOwnerGone(owner)) neighbours.add(owner);
        alives.push(alive);
      },
      onEnded: (where, options) => this.#endings.jobEnded(where, options),
    });
    try {
      for await (const found of walking) {
        if (found.kind === 'unreadable') {
          say(found);
          continue;
        }
        const { where, head } = found;
        const key = jobPrefix(where);
        living.add(key);
        const before = sent.get(key);
        const known = before?.writeNonce === head.writeNonce ? before : undefined;
        if (runs(where) || !(isEmpty || head.state === 'running' || this.#stillMs(where) >= PATIENT_MS)) continue;
        if (known !== undefined && clock.nowMs() - known.atMs < Math.min(AGAIN_MS_MAX, AGAIN_MS * 2 ** (known.times - 1))) continue;
        lost.push({ where, head, key, times: known?.times ?? 0 });
        if (lost.length === SEND_MAX) await send();
      }
      await send();
      for (const key of sent.keys()) if (!living.has(key)) sent.delete(key);
      await expireOverdue(alives, due, ended, { store, clock, say, endings: this.#endings }, { signal });
    } catch (error) {
      // Whoever scales by it must not take silence for nothing to do.
      say({ kind: 'counted', work: this.#work.atLeast(working(), wallClockMs()) });
      throw error;
    } finally {
      if (count > 0) say({ kind: 'reconciled', sent: count });
    }
    say({ kind: 'counted', work: await this.#counted(working(), signal) });
  }

  async #counted(working: readonly Alive[], signal: AbortSignal): Promise<Work> {
    try {
      return await this.#work.count(working, modelRates(await readRates(this.#o.store, { signal })), wallClockMs(), { signal });
    } catch (error) {
      if (!signal.aborted && codeOf(error) !== 'ERR_STORE') throw error;
      return this.#work.atLeast(working, wallClockMs());
    }
  }

  /** Waits until the next walk; less, if a process of this machine that owned a job has ended: it will not say so itself. */
  async untilNext(everyMs: number, signal: AbortSignal): Promise<void> {
    const { clock } = this.#o;
    const endsMs = clock.nowMs() + everyMs;
    for (let leftMs = everyMs; leftMs > 0 && !signal.aborted; leftMs = endsMs - clock.nowMs()) {
      if ([...this.#neighbours].some(isOwnerGone)) return;
      await untilAborted(clock, this.#neighbours.size > 0 ? Math.min(leftMs, NEIGHBOURS_MS) : leftMs, signal);
    }
  }

  async #isEmpty(signal: AbortSignal): Promise<boolean> {
    const { visible, batch } = await this.#o.queue.depth({ signal });
    return visible + batch.visible === 0;
  }

  #stillMs(where: JobKey): number {
    const seen = this.#memory.seen.get(liveKey(where));
    return seen === undefined ? 0 : this.#o.clock.nowMs() - seen.sinceMs;
  }

  /** Urgent and for ever, if its spec cannot be read: whoever runs it will say why. */
  async #messageOf(where: JobKey, head: Head, options: CallOptions): Promise<SliceMessage> {
    const { store } = this.#o;
    try {
      return await messageOf(store, where, head, outlineOf(await readSpec(store, where, head.spec, options)), options);
    } catch {
      throwIfCancelled(options.signal);
      return { v: 1, ...where, slice: head.slice };
    }
  }
}
