/** The slots of a worker: slices that run here, of which those of one model step together, and what makes one end before its time. */
import { codeOf } from '../core/errors.ts';
import { untilAborted } from '../core/waiting.ts';
import { Session } from '../job/session.ts';
import { resumeStored, type StoredOutcome } from '../job/stored.ts';
import { marginOf } from '../job/vote.ts';
import { type JobKey, jobPrefix } from '../kv/names.ts';
import type { StoredHead } from '../kv/read.ts';
import type { CallOptions } from '../ports/object-store.ts';
import { HELD_MS_MAX, type SliceMessage } from '../ports/queue.ts';
import { Company, type Stay } from './company.ts';
import { note } from './faults.ts';
import type { HandlerOptions } from './handler.ts';
import { AT_ONCE, later, type Next, type OurMessage, REMOVE } from './next.ts';
import { RemoteReaders } from './remote-readers.ts';
import { Running } from './running.ts';
import type { Speeds } from './speeds.ts';
import type { Verdict } from './verdict.ts';

/** Of the memory that KV may take; from there on the youngest job makes room (DESIGN.md 4). */
const PRESSURE_MAX = 0.9;
const PRESSURE_LOOK_MS = 100;
/** Between two looks, while a job of a batch runs, at whether something more urgent waits. */
const TURN_MS = 5_000;

export class Slots implements Disposable {
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

  /** Whether a job has begun here. */
  get areBusy(): boolean {
    return this.#begun.size > 0;
  }

  get running(): number {
    return this.#running.size;
  }

  get memoryPressure(): number {
    return this.#session.memoryPressure;
  }

  /** Waits until a job that comes could begin: while one is alone others are of more use elsewhere. @throws EngineError ERR_CANCELLED. */
  async opened(signal: AbortSignal): Promise<void> {
    await this.#company.opened(signal);
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

  /** One slice. @throws what it failed with, but for what says by itself what is next. */
  async run({ message, receipt }: OurMessage, where: JobKey, seen: StoredHead | null, verdict: Extract<Verdict, { kind: 'run' }>, drain: AbortSignal): Promise<Next> {
    const { say, live, clock, sliceMs, throughput } = this.#o;
    const key = jobPrefix(where);
    const { slice, force, alone } = verdict;
    // It came to a slot that was already asking when another job was to be alone.
    if (!this.#company.isOpen) return { ...later(0), head: seen?.head ?? null };
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
      using stay = await this.#company.enter(alone, running.signal);
      this.#begun.add(running);
      say({ kind: 'started', where, slice, alone, traceparent: message.traceparent });
      if (force) await note(where, seen?.head ?? null, null, this.#o);
      const outcome = await this.#slice(running, elsewhere, stay, force, seen ?? undefined);
      const { ranMs, tokensPerSecond, tokenMs } = running;
      if (tokensPerSecond !== null) this.#o.speeds.ran(running.model, tokensPerSecond, running.width);
      if (outcome.kind === 'parked') {
        const { kind, step, tokens, head } = outcome;
        say({ kind, where, why: running.why ?? 'interrupt', step, tokens, ranMs });
        return running.why === 'cancel' ? REMOVE : { ...(running.why === 'memory' ? later(this.#o.fullMs) : AT_ONCE), head };
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

  async #slice(running: Running, elsewhere: RemoteReaders, stay: Stay, force: boolean, seen: StoredHead | undefined): Promise<StoredOutcome> {
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
      // It gets further, and that forgives its strikes: nothing is at stake any more.
      onCommit: (step) => {
        if (running.hasMoreAt(step)) stay.letIn();
      },
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
        if (this.#running.size < slots && this.#company.isOpen) return;
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

  /** Frees the models. */
  [Symbol.dispose](): void {
    this.#session[Symbol.dispose]();
  }
}
