/**
 * What becomes of one message: the head of its job decides (verdict.ts), a slice runs, and the message is removed, given back, or replaced by
 * its continuation. Every order of these and of crashes between them is safe, because the head alone counts (DESIGN.md 2 and 6).
 */
import { wallClockMs } from '../core/clock.ts';
import { type ErrorCode, codeOf } from '../core/errors.ts';
import { untilAborted } from '../core/waiting.ts';
import type { CheckpointPolicy } from '../job/checkpointer.ts';
import { Session, type SessionOptions } from '../job/session.ts';
import { isOfJob } from '../job/slice.ts';
import { resumeStored, type StoredOutcome } from '../job/stored.ts';
import { marginOf } from '../job/vote.ts';
import { isTerminal, type Head } from '../kv/head.ts';
import { isJobName, isNamePart, jobPrefix, shardOf, type JobKey } from '../kv/names.ts';
import { readHead, type StoredHead } from '../kv/read.ts';
import { isUnreadable } from '../kv/reason.ts';
import { COMMIT_INTERVAL_MS } from '../kv/take.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { ModelFinder } from '../ports/models.ts';
import type { CallOptions } from '../ports/object-store.ts';
import { HELD_MS_MAX, type Queue, type ReceivedMessage, type SliceMessage } from '../ports/queue.ts';
import { Company } from './company.ts';
import type { WorkerEvent } from './events.ts';
import { giveUp, note, poison, refuse } from './faults.ts';
import type { Live } from './live.ts';
import { RemoteReaders } from './remote-readers.ts';
import { expire, isOverdue } from './overdue.ts';
import { Running } from './running.ts';
import { shardVerdict, type ShardsOptions } from './shards.ts';
import type { Speeds } from './speeds.ts';
import type { Throughput } from './throughput.ts';
import { type Verdict, verdictOf } from './verdict.ts';

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

type OurMessage = ReceivedMessage & { readonly message: SliceMessage };

/**
 * What becomes of a message. `head`: as this worker has left it; absent: it is to be read. `failures`: see SliceMessage. `anew`: it comes back as one that
 * was never received, because nothing is wrong with whoever had it: how often a message was received says when it is a dead letter.
 */
type Next = { readonly kind: 'remove' } | { readonly kind: 'again'; readonly delayMs: number; readonly head?: Head | null; readonly failures?: number; readonly anew?: boolean };

const REMOVE: Next = { kind: 'remove' };
const AT_ONCE = { kind: 'again', delayMs: 0 } as const;
/** Of the memory that KV may take; from there on the youngest job makes room (DESIGN.md 4). */
const PRESSURE_MAX = 0.9;
const PRESSURE_LOOK_MS = 100;
/** Between two looks, while a job of a batch runs, at whether something more urgent waits. */
const TURN_MS = 5_000;
/** A message that is none of ours comes back so often until it is with the dead letters. */
const FOREIGN_MS = 15 * 60_000;
/** Wrong on every machine and at every time. */
const FINAL: readonly ErrorCode[] = ['ERR_OPTION', 'ERR_TOOLS', 'ERR_FORMAT', 'ERR_BUDGET', 'ERR_PROMPT_TOO_LONG', 'ERR_TEMPLATE', 'ERR_TOKENIZER', 'ERR_PARENT_ERASED'];

export class Handler implements Disposable {
  readonly #o: HandlerOptions;
  readonly #company: Company;
  /** Of this worker, and those of them that have begun. */
  readonly #running = new Map<string, Running>();
  readonly #begun = new Set<Running>();
  /** Of batches, in the order in which they came. */
  readonly #batch = new Set<Running>();
  /** Loads each model once: jobs of one model step together. */
  #session: Session;
  #lookedMs = -Infinity;

  constructor(options: HandlerOptions) {
    this.#o = options;
    this.#company = new Company(options.clock);
    this.#session = new Session(options.models, options);
  }

  get running(): number {
    return this.#running.size;
  }

  get memoryPressure(): number {
    return this.#session.memoryPressure;
  }

  has(where: JobKey): boolean {
    return this.#running.has(jobPrefix(where));
  }

  /** The job was ended or taken from outside: it stops within a step. */
  interrupt(where: JobKey): void {
    this.#running.get(jobPrefix(where))?.stop('interrupt');
  }

  /** See Worker. */
  async letGo(where: JobKey, { signal }: CallOptions): Promise<void> {
    const running = this.#running.get(jobPrefix(where));
    running?.stop('cancel');
    await running?.ended(signal);
  }

  async warm(names: readonly string[], { signal }: CallOptions): Promise<void> {
    for (const model of names) {
      using _ = await this.#session.open({ model, prompt: '0', budget: { length: 1, width: 1 } }, { ...this.#threads(), ...(signal === undefined ? {} : { signal }) });
    }
  }

  /** See Speeds: with the engines of this worker. */
  async probe(model: string, signal: AbortSignal): ReturnType<Speeds['probe']> {
    return await this.#o.speeds.probe(this.#session, model, { ...this.#threads(), signal });
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
        case 'wait': return { kind: 'again', delayMs: verdict.delayMs ?? COMMIT_INTERVAL_MS, anew: verdict.delayMs !== undefined };
        case 'expire': {
          await expire(where, this.#o);
          return REMOVE;
        }
        case 'poison': {
          await poison(where, head, verdict.strikes, this.#o);
          return REMOVE;
        }
        // A second message for what runs here.
        case 'run': return this.has(where) ? { kind: 'again', delayMs: COMMIT_INTERVAL_MS } : await this.#run(received, where, stored, verdict, drain);
      }
    } catch (error) {
      return await this.#failed(received, where, stored?.head ?? null, error);
    }
  }

  async #headOf(where: JobKey): Promise<StoredHead | null> {
    return isNamePart(where.tenant) && isJobName(where.job) ? await readHead(this.#o.store, where) : null;
  }

  async #run({ message, receipt }: OurMessage, where: JobKey, seen: StoredHead | null, verdict: Extract<Verdict, { kind: 'run' }>, drain: AbortSignal): Promise<Next> {
    const { say, live, clock, sliceMs, throughput } = this.#o;
    const key = jobPrefix(where);
    const { slice, force, alone } = verdict;
    using running = new Running(where, sliceMs, clock, throughput);
    using _slot = throughput.occupy();
    this.#running.set(key, running);
    using _busy = this.#o.speeds.begin();
    using _ = this.#watch(running, receipt, message);
    using elsewhere = new RemoteReaders(this.#o.store, where, clock);
    const park = () => running.stop('drain');
    drain.addEventListener('abort', park);
    if (drain.aborted) park();
    try {
      if (alone) for (const other of this.#begun) other.end('turn');
      using _in = await this.#company.enter(alone, running.signal);
      this.#begun.add(running);
      say({ kind: 'started', where, slice, alone, traceparent: message.traceparent });
      if (force) await note(where, seen?.head ?? null, null, this.#o);
      const outcome = await this.#slice(running, elsewhere, force, seen ?? undefined);
      const { ranMs, tokensPerSecond, tokenMs } = running;
      if (tokensPerSecond !== null) this.#o.speeds.ran(running.model, tokensPerSecond, running.width);
      if (outcome.kind === 'parked') {
        const { kind, step, tokens, head } = outcome;
        say({ kind, where, why: running.why ?? 'interrupt', step, tokens, ranMs });
        return running.why === 'cancel' ? REMOVE : { ...(running.why === 'memory' ? this.#later : AT_ONCE), head };
      }
      running.finished();
      const { usage, chains, ballots } = outcome.result;
      say({ kind: 'ended', where, state: outcome.state, usage, finishes: chains.map(({ finish_reason }) => finish_reason), margin: marginOf(ballots), ranMs, tokenMs });
      return REMOVE;
    } catch (error) {
      if (codeOf(error) === 'ERR_CANCELLED' && running.signal.aborted) return AT_ONCE;
      if (codeOf(error) !== 'ERR_FENCED') throw error;
      say({ kind: 'fenced', where, step: running.step, ranMs: running.ranMs });
      return REMOVE;
    } finally {
      drain.removeEventListener('abort', park);
      this.#begun.delete(running);
      this.#running.delete(key);
      live.stop(where);
    }
  }

  async #slice(running: Running, elsewhere: RemoteReaders, force: boolean, seen: StoredHead | undefined): Promise<StoredOutcome> {
    const { store, keys, policy, models, live, clock, endings, say } = this.#o;
    const { where, signal } = running;
    const slice = (head?: StoredHead) => resumeStored({
      store, where, seen: head, keys, policy, signal, clock, outbox: endings,
      session: this.#session, ...this.#threads(), take: force, waitMs: 0,
      onOpened: (job, load) => {
        running.opened(job);
        say({ kind: 'reached', where, phase: 'loaded', model: running.model, ranMs: running.ranMs, load });
      },
      onBegun: ({ outcome: mode, recomputed }) => say({ kind: 'begun', where, mode, recomputed }),
      onReport: (report) => {
        for (const phase of running.look(report)) say({ kind: 'reached', where, phase, model: running.model, ranMs: running.ranMs });
        live.publish(where, report);
        this.#makeRoom();
      },
      isFollowed: () => live.isFollowed(where) || elsewhere.areThere,
      isEnding: () => running.why === 'cancel',
      isNearEnd: () => running.isNearEnd,
    });
    try {
      return await slice(seen);
    } catch (error) {
      if (codeOf(error) !== 'ERR_MEMORY' || signal.aborted || this.#begun.size > 1) throw error;
      // Models of jobs before may be what is in the way.
      this.#session[Symbol.dispose]();
      this.#session = new Session(models, this.#o);
      return await slice();
    }
  }

  /** Jobs are admitted by what they are expected to take; when they take more, the one that began last goes on later or elsewhere. */
  #makeRoom(): void {
    const nowMs = this.#o.clock.nowMs();
    if (this.#begun.size < 2 || nowMs - this.#lookedMs < PRESSURE_LOOK_MS) return;
    this.#lookedMs = nowMs;
    if (this.memoryPressure > PRESSURE_MAX) [...this.#begun].at(-1)?.stop('memory');
  }

  get #later() {
    return { kind: 'again', delayMs: this.#o.fullMs, anew: true } as const;
  }

  #threads(): { readonly threads?: number } {
    const { threads } = this.#o;
    return threads === undefined ? {} : { threads };
  }

  /** While its job runs, the message stays hidden, for as long as a queue can hide it; and a job of a batch ends its slice when something more urgent waits. */
  #watch(running: Running, receipt: string, { priority }: SliceMessage): Disposable {
    const { queue, clock, visibilityMs, say, slots } = this.#o;
    const done = new AbortController();
    const startMs = clock.nowMs();
    const every = async (intervalMs: number, doing: 'extend' | 'depth', act: () => Promise<void>) => {
      for (;;) {
        await untilAborted(clock, intervalMs, done.signal);
        if (done.signal.aborted) return;
        await act().catch((error: unknown) => {
          if (!done.signal.aborted) say({ kind: 'trouble', doing, error });
        });
      }
    };
    void every(visibilityMs / 3, 'extend', async () => {
      if (clock.nowMs() - startMs > HELD_MS_MAX - 2 * visibilityMs) running.end('slice');
      await queue.extend(receipt, visibilityMs, { signal: done.signal });
    });
    if (priority === 'batch') {
      this.#batch.add(running);
      void every(TURN_MS, 'depth', async () => {
        if (this.#running.size < slots) return;
        const { visible, isMixed = false } = await queue.depth({ signal: done.signal });
        // As many as there are to make room for, the last to come first. Where it may be for one of its own batch, jobs would only park for each other, again and again.
        if (!isMixed && visible > 0 && [...this.#batch].slice(-visible).includes(running)) running.end('turn');
      });
    }
    return {
      [Symbol.dispose]: () => {
        done.abort();
        this.#batch.delete(running);
      },
    };
  }

  /** @param seen the head that led to what has failed. */
  async #failed({ message, received }: OurMessage, where: JobKey, seen: Head | null, error: unknown): Promise<Next> {
    const { strikesMax, say } = this.#o;
    const code = codeOf(error);
    if (code === 'ERR_JOB_NOT_FOUND') return REMOVE;
    // Someone took it between our look and ours: the next look says what that means for the message.
    if (code === 'ERR_JOB_CONFLICT') return { kind: 'again', delayMs: COMMIT_INTERVAL_MS };
    // It may fit when those that run have ended, or on another machine.
    if (code === 'ERR_MEMORY' && this.#begun.size > 0) {
      say({ kind: 'full', where });
      return this.#later;
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
    this.#session[Symbol.dispose]();
  }
}
