/**
 * Takes messages and runs slices: one job at a time, because the engine uses every core. It keeps no state that matters: whatever it knows
 * is in the store, so it may be killed at any moment, and any number of workers may have the same messages.
 */
import type { LiveFeed } from '../control/feed.ts';
import { type Clock, systemClock } from '../core/clock.ts';
import { EngineError, type ErrorCode } from '../core/errors.ts';
import { untilAborted } from '../core/waiting.ts';
import type { CheckpointPolicy } from '../job/checkpointer.ts';
import { Session } from '../job/session.ts';
import { ownerHint } from '../job/slice.ts';
import { resumeStored, type StoredOutcome } from '../job/stored.ts';
import { endJob } from '../kv/end.ts';
import { isTerminal, type Head } from '../kv/head.ts';
import { liveKey } from '../kv/hints.ts';
import { isNamePart, jobPrefix, type JobKey } from '../kv/names.ts';
import { readHead } from '../kv/read.ts';
import { isUnmoved, reconcile, type Sightings } from '../kv/reconcile.ts';
import { COMMIT_INTERVAL_MS, STILL_INTERVALS, takeJob } from '../kv/take.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { ModelFinder } from '../ports/models.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import type { Queue, ReceivedMessage } from '../ports/queue.ts';
import type { WorkerEvent } from './events.ts';
import { Live } from './live.ts';
import { Running } from './running.ts';
import { type Verdict, verdictOf } from './verdict.ts';

export interface WorkerOptions {
  readonly store: ObjectStore;
  readonly queue: Queue;
  /** null: jobs are stored in the clear. */
  readonly keys?: KeyProvider | null | undefined;
  readonly models?: ModelFinder | undefined;
  readonly policy?: Partial<CheckpointPolicy> | undefined;
  /** Default: all of this machine. */
  readonly threads?: number | undefined;
  /** How long a job runs before the next one's turn. Default: 10 minutes. */
  readonly sliceMs?: number | undefined;
  /** How long a message is hidden after a worker that had it died. Default: 2 minutes. */
  readonly visibilityMs?: number | undefined;
  /** Takes in a row without progress after which a job is poisoned. Default: 5. */
  readonly strikesMax?: number | undefined;
  readonly reconcileMs?: number | undefined;
  /** The queue began with this process, and so knows nothing of the jobs in the store: all that live are sent again at the start. */
  readonly isQueueNew?: boolean | undefined;
  readonly onEvent?: ((event: WorkerEvent) => void) | undefined;
  readonly clock?: Clock | undefined;
  /** From 0 to below 1, for the jitter of pauses. */
  readonly random?: (() => number) | undefined;
}

/** What becomes of a message. */
type Next = { readonly kind: 'remove' } | { readonly kind: 'again'; readonly delayMs: number };

const REMOVE: Next = { kind: 'remove' };
/** No living owner is silent for so long. */
const SILENT_MS = STILL_INTERVALS * COMMIT_INTERVAL_MS;
const SLICE_MS = 10 * 60_000;
const VISIBILITY_MS = 120_000;
const STRIKES_MAX = 5;
const RECONCILE_MS = 60_000;
/** The longest wait that SQS knows. */
const RECEIVE_MS = 20_000;
const BACKOFF_MS = 1_000;
const BACKOFF_MS_MAX = 5 * 60_000;
/** Wrong on every machine and at every time. */
const FINAL: readonly ErrorCode[] = ['ERR_OPTION', 'ERR_FORMAT', 'ERR_BUDGET', 'ERR_PROMPT_TOO_LONG', 'ERR_TEMPLATE', 'ERR_TOKENIZER'];

/**
 * @example
 * const worker = new Worker({ store, queue });
 * worker.start();
 * await worker.drain({ deadlineMs: 20_000 });
 */
export class Worker implements LiveFeed {
  readonly #o: WorkerOptions;
  readonly #clock: Clock;
  readonly #live: Live;
  readonly #stop = new AbortController();
  readonly #running = new Map<string, Running>();
  readonly #seen: Sightings = new Map();
  /** What a job met last, for the day that it is poisoned. */
  readonly #faults = new Map<string, unknown>();
  readonly #rates = new Map<string, number>();
  #session: Session;
  #loops: Promise<unknown> | null = null;

  constructor(options: WorkerOptions) {
    this.#o = options;
    this.#clock = options.clock ?? systemClock;
    this.#live = new Live(this.#clock);
    this.#session = new Session(options.models);
  }

  /** Idempotent. */
  start(): void {
    this.#loops ??= Promise.all([this.#work(), this.#watch()]);
  }

  /** Takes nothing more, parks what runs, and frees its models. false: that took longer than `deadlineMs`; what is committed stays. */
  async drain({ deadlineMs, signal }: { readonly deadlineMs: number; readonly signal?: AbortSignal | undefined }): Promise<boolean> {
    this.#stop.abort();
    for (const running of this.#running.values()) running.stop('drain');
    const over = new AbortController();
    let isDrained = false;
    void this.#loops?.then(() => {
      isDrained = true;
      over.abort();
    });
    if (this.#loops !== null) await untilAborted(this.#clock, deadlineMs, over.signal, signal);
    else isDrained = true;
    if (isDrained) this.#session[Symbol.dispose]();
    return isDrained;
  }

  /** The job was ended or taken from outside: if it runs here it stops within a step, and the worker goes on with the next. */
  interrupt(where: JobKey): void {
    this.#running.get(jobPrefix(where))?.stop('interrupt');
  }

  get state(): 'starting' | 'ready' | 'draining' {
    if (this.#stop.signal.aborted) return 'draining';
    return this.#loops === null ? 'starting' : 'ready';
  }

  /** Slices that run now. */
  get running(): number {
    return this.#running.size;
  }

  /** Of all chains of a job together, as measured last on this model (`countdown@cr8`); null: it has not run yet. */
  tokensPerSecond(model: string): number | null {
    return this.#rates.get(model) ?? null;
  }

  report(where: JobKey): ReturnType<LiveFeed['report']> {
    return this.#live.report(where);
  }

  changed(where: JobKey, waitMs: number, signal?: AbortSignal): Promise<void> {
    return this.#live.changed(where, waitMs, signal);
  }

  async #work(): Promise<void> {
    const { queue } = this.#o;
    const { signal } = this.#stop;
    for (let failures = 0; !signal.aborted;) {
      try {
        const [received] = await queue.receive({ max: 1, waitMs: RECEIVE_MS, visibilityMs: this.#visibilityMs, signal });
        failures = 0;
        if (received !== undefined) await this.#handle(received);
      } catch (error) {
        if (signal.aborted) return;
        this.#say({ kind: 'trouble', doing: 'receive', error });
        await untilAborted(this.#clock, this.#backoffMs(failures++), signal);
      }
    }
  }

  async #handle(received: ReceivedMessage): Promise<void> {
    const { tenant, job } = received.message;
    const where = { tenant, job };
    const next = this.#stop.signal.aborted ? { kind: 'again', delayMs: 0 } as const : await this.#nextOf(received, where);
    try {
      await this.#settle(received, where, next);
    } catch (error) {
      // It comes back by itself.
      this.#say({ kind: 'trouble', doing: 'settle', error });
    }
  }

  async #nextOf(received: ReceivedMessage, where: JobKey): Promise<Next> {
    try {
      const head = await this.#headOf(where);
      const verdict = verdictOf(received.message, head, this.#o.strikesMax ?? STRIKES_MAX, (running) => this.#isUnmoved(where, running));
      switch (verdict.kind) {
        case 'drop': {
          this.#say({ ...verdict, kind: 'dropped', where });
          return REMOVE;
        }
        case 'wait': return { kind: 'again', delayMs: COMMIT_INTERVAL_MS };
        case 'poison': return await this.#poison(where, verdict.strikes);
        case 'run': return await this.#run(received, where, verdict);
      }
    } catch (error) {
      return this.#failed(received, where, error);
    }
  }

  async #headOf(where: JobKey): Promise<Head | null> {
    if (!isNamePart(where.tenant) || !isNamePart(where.job)) return null;
    return (await readHead(this.#o.store, where))?.head ?? null;
  }

  async #run(received: ReceivedMessage, where: JobKey, { slice, force }: Extract<Verdict, { kind: 'run' }>): Promise<Next> {
    const key = jobPrefix(where);
    using running = new Running(where, this.#o.sliceMs ?? SLICE_MS, this.#clock);
    using _ = this.#keep(received.receipt);
    this.#running.set(key, running);
    this.#say({ kind: 'started', where, slice });
    try {
      const outcome = await this.#slice(running, force);
      const { ranMs, tokensPerSecond } = running;
      if (tokensPerSecond !== null) this.#rates.set(running.model, tokensPerSecond);
      this.#faults.delete(key);
      if (outcome.kind === 'parked') {
        this.#say({ ...outcome, where, why: running.why ?? 'interrupt', ranMs });
        return { kind: 'again', delayMs: 0 };
      }
      this.#say({ kind: 'ended', where, state: outcome.state, usage: outcome.result.usage, ranMs });
      return REMOVE;
    } catch (error) {
      if (codeOf(error) === 'ERR_CANCELLED' && running.signal.aborted) return { kind: 'again', delayMs: 0 };
      if (codeOf(error) !== 'ERR_FENCED') throw error;
      this.#say({ kind: 'fenced', where, step: running.step, ranMs: running.ranMs });
      return REMOVE;
    } finally {
      this.#running.delete(key);
      this.#live.stop(where);
    }
  }

  async #slice(running: Running, force: boolean): Promise<StoredOutcome> {
    const { store, keys, policy, threads, models } = this.#o;
    const { where, signal } = running;
    const slice = () => resumeStored({
      store, where, keys, policy, signal,
      session: this.#session,
      ...(threads === undefined ? {} : { threads }),
      clock: this.#clock,
      take: force,
      waitMs: 0,
      onOpened: ({ model: { resolved: { name, variant } } }) => {
        running.model = variant === null ? name : `${name}@${variant}`;
      },
      onReport: (report) => {
        running.look(report);
        this.#live.publish(where, report);
      },
      isFollowed: () => this.#live.isFollowed(where),
    });
    try {
      return await slice();
    } catch (error) {
      if (codeOf(error) !== 'ERR_MEMORY' || signal.aborted) throw error;
      // Models of jobs before may be what is in the way.
      this.#session[Symbol.dispose]();
      this.#session = new Session(models);
      return await slice();
    }
  }

  /** Hides the message while its job runs. */
  #keep(receipt: string): Disposable {
    const { queue } = this.#o;
    const done = new AbortController();
    const beat = async () => {
      for (;;) {
        await untilAborted(this.#clock, this.#visibilityMs / 3, done.signal);
        if (done.signal.aborted) return;
        await queue.extend(receipt, this.#visibilityMs, { signal: done.signal }).catch((error: unknown) => {
          if (!done.signal.aborted) this.#say({ kind: 'trouble', doing: 'extend', error });
        });
      }
    };
    void beat();
    return { [Symbol.dispose]: () => done.abort() };
  }

  async #failed(received: ReceivedMessage, where: JobKey, error: unknown): Promise<Next> {
    const code = codeOf(error);
    if (code === 'ERR_JOB_NOT_FOUND') return REMOVE;
    // Someone took it between our look and ours: the next look says what that means for the message.
    if (code === 'ERR_JOB_CONFLICT') return { kind: 'again', delayMs: COMMIT_INTERVAL_MS };
    if (code !== undefined && FINAL.includes(code) && (await this.#refuse(where, error))) return REMOVE;
    const key = jobPrefix(where);
    // The newest last, and not without end.
    this.#faults.delete(key);
    this.#faults.set(key, error);
    if (this.#faults.size > FAULTS_MAX) this.#faults.delete(this.#faults.keys().next().value ?? '');
    const delayMs = this.#backoffMs(received.received);
    this.#say({ kind: 'failed', where, error, delayMs });
    return { kind: 'again', delayMs };
  }

  /** The job ends as `failed`. false: it could not be ended now. */
  async #refuse(where: JobKey, error: unknown): Promise<boolean> {
    try {
      const lease = await takeJob(this.#o.store, where, { owner: ownerHint(), clock: this.#clock, waitMs: 0 });
      await lease.commit({ state: 'failed', manifest: null, objects: [] });
      this.#say({ kind: 'refused', where, error });
      return true;
    } catch {
      return false;
    }
  }

  async #poison(where: JobKey, strikes: number): Promise<Next> {
    const { changed } = await endJob(this.#o.store, where, 'poisoned', { clock: this.#clock });
    const key = jobPrefix(where);
    if (changed) this.#say({ kind: 'poisoned', where, strikes, error: this.#faults.get(key) ?? null });
    this.#faults.delete(key);
    return REMOVE;
  }

  /** A continuation is sent before the old message is removed: a crash between leaves two, which are as good as one. */
  async #settle({ message, receipt }: ReceivedMessage, where: JobKey, next: Next): Promise<void> {
    const { queue } = this.#o;
    if (next.kind === 'remove') return await queue.remove(receipt);
    const head = await this.#headOf(where).catch(() => null);
    if (head === null || head.slice === message.slice) return await queue.release(receipt, next.delayMs);
    if (!isTerminal(head.state)) await queue.send({ ...message, slice: head.slice }, { delayMs: next.delayMs });
    await queue.remove(receipt);
  }

  /** At the start and every minute: what lost its message or its worker is sent again. */
  async #watch(): Promise<void> {
    const { signal } = this.#stop;
    for (let isFirst = true; !signal.aborted; isFirst = false) {
      try {
        await this.#reconcile(isFirst && this.#o.isQueueNew === true);
      } catch (error) {
        if (!signal.aborted) this.#say({ kind: 'trouble', doing: 'reconcile', error });
      }
      await untilAborted(this.#clock, this.#o.reconcileMs ?? RECONCILE_MS, signal);
    }
  }

  async #reconcile(all: boolean): Promise<void> {
    const { store, queue } = this.#o;
    const { signal } = this.#stop;
    let sent = 0;
    for await (const found of reconcile(store, this.#seen, { clock: this.#clock, signal, unmovedMs: all ? 0 : SILENT_MS })) {
      if (found.kind === 'unreadable') this.#say(found);
      else if (!this.#running.has(jobPrefix(found.where))) {
        await queue.send({ v: 1, ...found.where, slice: found.head.slice }, { signal });
        sent++;
      }
    }
    if (sent > 0) this.#say({ kind: 'reconciled', sent });
  }

  #isUnmoved(where: JobKey, { writeNonce }: Head): boolean {
    return isUnmoved(this.#seen, liveKey(where), writeNonce, this.#clock.nowMs(), SILENT_MS);
  }

  get #visibilityMs(): number {
    return this.#o.visibilityMs ?? VISIBILITY_MS;
  }

  #backoffMs(failures: number): number {
    return Math.min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** failures) * (0.5 + (this.#o.random ?? Math.random)() / 2);
  }

  #say(event: WorkerEvent): void {
    this.#o.onEvent?.(event);
  }
}

const FAULTS_MAX = 1_000;

function codeOf(error: unknown): ErrorCode | undefined {
  return error instanceof EngineError ? error.code : undefined;
}
