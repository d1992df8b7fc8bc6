/**
 * What becomes of one message: the head of its job decides (verdict.ts), a slice runs, and the message is removed, given back, or replaced by
 * its continuation. Every order of these and of crashes between them is safe, because the head alone counts (DESIGN.md 2 and 6).
 */
import { wallClockMs } from '../core/clock.ts';
import { type ErrorCode, codeOf } from '../core/errors.ts';
import type { CheckpointPolicy } from '../job/checkpointer.ts';
import type { SessionOptions } from '../job/session.ts';
import { isOfJob } from '../job/slice.ts';
import { isTerminal, type Head } from '../kv/head.ts';
import { isJobName, isNamePart, shardOf, type JobKey } from '../kv/names.ts';
import { readHead, type StoredHead } from '../kv/read.ts';
import { isUnreadable } from '../kv/reason.ts';
import { COMMIT_INTERVAL_MS } from '../kv/take.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { ModelFinder } from '../ports/models.ts';
import type { Queue, ReceivedMessage, SliceMessage } from '../ports/queue.ts';
import type { WorkerEvent } from './events.ts';
import { giveUp, note, poison, refuse } from './faults.ts';
import type { Live } from './live.ts';
import { AT_ONCE, later, type Next, type OurMessage, REMOVE } from './next.ts';
import { expire, isOverdue } from './overdue.ts';
import { shardVerdict, type ShardsOptions } from './shards.ts';
import { Slots } from './slots.ts';
import type { Speeds } from './speeds.ts';
import type { Throughput } from './throughput.ts';
import { verdictOf } from './verdict.ts';

export interface HandlerOptions extends SessionOptions, Omit<ShardsOptions, 'queue'> {
  readonly queue: Pick<Queue, 'send' | 'sendAll' | 'extend' | 'release' | 'remove' | 'depth'>;
  /** null: jobs are stored in the clear. */
  readonly keys: KeyProvider | null;
  readonly models: ModelFinder | undefined;
  readonly policy: Partial<CheckpointPolicy> | undefined;
  /** undefined: all of this machine. */
  readonly threads: number | undefined;
  /** Jobs at a time. */
  readonly slots: number;
  readonly sliceMs: number;
  readonly visibilityMs: number;
  readonly strikesMax: number;
  /** When a job for which there was no room comes again. */
  readonly fullMs: number;
  readonly live: Live;
  readonly throughput: Throughput;
  readonly speeds: Speeds;
  /** How long to wait after so many failures. */
  readonly backoffMs: (failures: number) => number;
  /** Whether nobody has written a running job's head for as long as an owner may be silent. */
  readonly isUnmoved: (where: JobKey, head: Head) => boolean;
  readonly say: (event: WorkerEvent) => void;
}

/** `again`: this very message comes back; else it is done with, and the job has ended or another message. */
export type Handled = 'done' | 'again';

/** Nothing is left to do for a message but to tell the queue that it is done with: what comes next need not wait for that. Never rejects. */
export interface Settling {
  readonly settled: Promise<Handled>;
}

/** A message that is none of ours comes back so often until it is with the dead letters. */
const FOREIGN_MS = 15 * 60_000;
/** Wrong on every machine and at every time. */
const FINAL: readonly ErrorCode[] = ['ERR_OPTION', 'ERR_TOOLS', 'ERR_FORMAT', 'ERR_BUDGET', 'ERR_PROMPT_TOO_LONG', 'ERR_TEMPLATE', 'ERR_TOKENIZER', 'ERR_PARENT_ERASED'];

export class Handler implements Disposable {
  readonly #o: HandlerOptions;
  readonly slots: Slots;

  constructor(options: HandlerOptions) {
    this.#o = options;
    this.slots = new Slots(options);
  }

  /** Throws nothing: what cannot be settled comes back by itself. @param drain parks it within a step, also before its job has begun. */
  async handle({ message, receipt, received }: ReceivedMessage, drain: AbortSignal): Promise<Settling> {
    const { queue, say } = this.#o;
    if (message === null) {
      say({ kind: 'foreign', received });
      return { settled: this.#settled('again', queue.release(receipt, FOREIGN_MS)) };
    }
    const where = { tenant: message.tenant, job: message.job };
    const next = drain.aborted ? AT_ONCE : await this.#nextOf({ message, receipt, received }, where, drain);
    const continued = await this.#settled('done', this.#goOn(message, receipt, where, next));
    return { settled: continued === 'done' ? this.#settled('done', queue.remove(receipt)) : Promise.resolve(continued) };
  }

  /** What it gives, else `otherwise`; `again` if it fails. */
  async #settled(otherwise: Handled, settling: Promise<Handled | void>): Promise<Handled> {
    try {
      return (await settling) ?? otherwise;
    } catch (error) {
      this.#o.say({ kind: 'trouble', doing: 'settle', error });
      return 'again';
    }
  }

  async #nextOf(received: OurMessage, where: JobKey, drain: AbortSignal): Promise<Next> {
    const { strikesMax, isUnmoved, say } = this.#o;
    let stored: StoredHead | null = null;
    try {
      stored = await this.#headOf(where);
      const head = stored?.head ?? null;
      const { message: { expiresMs = Infinity } } = received;
      // A message only says when to look.
      const isLate = head?.state === 'queued' && expiresMs <= wallClockMs() && (await isOverdue(where, head, this.#o));
      const first = verdictOf(received.message, head, { received: received.received, strikesMax, isUnmoved: (running) => isUnmoved(where, running), isLate });
      const verdict = await shardVerdict(received.message, where, head, first, this.#o);
      if (verdict === null) return REMOVE;
      switch (verdict.kind) {
        case 'drop': {
          say({ ...verdict, kind: 'dropped', where });
          return REMOVE;
        }
        case 'wait': return later(verdict.delayMs ?? COMMIT_INTERVAL_MS);
        case 'expire': {
          await expire(where, this.#o);
          return REMOVE;
        }
        case 'poison': {
          await poison(where, head, verdict.strikes, this.#o);
          return REMOVE;
        }
        // A second message for what runs here.
        case 'run': return this.slots.has(where) ? later(COMMIT_INTERVAL_MS) : await this.slots.run(received, where, stored, verdict, drain);
      }
    } catch (error) {
      return await this.#failed(received, where, stored?.head ?? null, error);
    }
  }

  async #headOf(where: JobKey): Promise<StoredHead | null> {
    return isNamePart(where.tenant) && isJobName(where.job) ? await readHead(this.#o.store, where) : null;
  }

  /** @param seen the head that led to what has failed. */
  async #failed({ message, received }: OurMessage, where: JobKey, seen: Head | null, error: unknown): Promise<Next> {
    const { strikesMax, say } = this.#o;
    const code = codeOf(error);
    if (code === 'ERR_JOB_NOT_FOUND') return REMOVE;
    // Someone took it between our look and ours: the next look says what that means for the message.
    if (code === 'ERR_JOB_CONFLICT') return later(COMMIT_INTERVAL_MS);
    // It may fit when those that run have ended, or on another machine.
    if (code === 'ERR_MEMORY' && this.slots.areBusy) {
      say({ kind: 'full', where });
      return later(this.#o.fullMs);
    }
    if (code !== undefined && FINAL.includes(code) && (await refuse(where, code, error, this.#o))) return REMOVE;
    // Also where a slice had written something, and another message goes on from there.
    const failures = received + (message.failures ?? 0);
    if (isOfJob(error)) {
      const head = (await this.#headOf(where).catch(() => null))?.head ?? null;
      // Not taken: the head has counted nothing. The message has, and what it waited for without a fault is no part of that.
      const looks = (message.failures ?? 0) + 1;
      const isUntaken = head !== null && head.epoch === seen?.epoch && isUnreadable(error);
      if (isUntaken && looks >= strikesMax && (await giveUp(where, head, error, this.#o))) return REMOVE;
      await note(where, head, error, this.#o);
      if (isUntaken) {
        const waitMs = this.#o.backoffMs(looks);
        say({ kind: 'failed', where, error, delayMs: waitMs });
        return { kind: 'again', delayMs: waitMs, failures: looks, anew: true };
      }
    }
    const delayMs = this.#o.backoffMs(failures);
    say({ kind: 'failed', where, error, delayMs });
    return { kind: 'again', delayMs, failures };
  }

  /** A continuation is sent before the old message is removed: a crash between leaves two, which are as good as one. `done`: it is to be removed. */
  async #goOn(message: SliceMessage, receipt: string, where: JobKey, next: Next): Promise<Handled> {
    const { queue } = this.#o;
    if (next.kind === 'remove') return 'done';
    const { delayMs, failures, anew = false } = next;
    const head = next.head ?? (await this.#headOf(where).catch(() => null))?.head ?? null;
    // A shard that has ended and is not joined yet is joined by this very message.
    if (head === null || head.slice === message.slice || (isTerminal(head.state) && shardOf(where) !== null)) {
      if (anew && head?.slice === message.slice) {
        await queue.send({ ...message, ...(failures === undefined ? {} : { failures }) }, { delayMs });
        return 'done';
      }
      await queue.release(receipt, delayMs);
      return 'again';
    }
    const { expiresMs: _, failures: _before, ...rest } = message;
    if (!isTerminal(head.state)) await queue.send({ ...rest, slice: head.slice, ...(failures === undefined ? {} : { failures }) }, { delayMs });
    return 'done';
  }

  /** Frees the models. */
  [Symbol.dispose](): void {
    this.slots[Symbol.dispose]();
  }
}
