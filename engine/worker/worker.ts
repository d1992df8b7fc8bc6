/**
 * Takes messages and runs slices, as many at a time as it has slots. It keeps no state that matters: whatever it knows is in the store, so
 * it may be killed at any moment, and any number of workers may have the same messages.
 */
import type { LiveFeed } from '../control/feed.ts';
import { type Speed, type StoredRate, putRate } from '../control/rates.ts';
import { type Clock, systemClock } from '../core/clock.ts';
import { sharedBy } from '../core/listeners.ts';
import { untilAborted } from '../core/waiting.ts';
import type { CheckpointPolicy } from '../job/checkpointer.ts';
import { Endings } from '../job/endings.ts';
import type { SessionOptions } from '../job/session.ts';
import type { JobKey } from '../kv/names.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { ModelFinder } from '../ports/models.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import type { Queue, ReceivedMessage } from '../ports/queue.ts';
import { Outbox } from '../webhook/outbox.ts';
import type { WorkerEvent } from './events.ts';
import { type Handled, Handler } from './handler.ts';
import { Live } from './live.ts';
import { Reconciler } from './reconciler.ts';
import { Speeds } from './speeds.ts';
import { Throughput } from './throughput.ts';

export interface WorkerOptions extends SessionOptions {
  readonly store: ObjectStore;
  readonly queue: Queue;
  /** null: jobs are stored in the clear. */
  readonly keys?: KeyProvider | null | undefined;
  readonly models?: ModelFinder | undefined;
  readonly policy?: Partial<CheckpointPolicy> | undefined;
  /** Default: all of this machine. */
  readonly threads?: number | undefined;
  /** Jobs at a time: those of one model step together, as memory allows. Default: 8. */
  readonly slots?: number | undefined;
  /** How long a job runs before the next one's turn. Default: 10 minutes. */
  readonly sliceMs?: number | undefined;
  /** How long a message is hidden after a worker that had it died. Default: 2 minutes. */
  readonly visibilityMs?: number | undefined;
  /** Takes in a row without progress after which a job is poisoned. Default: 5. */
  readonly strikesMax?: number | undefined;
  /** false: it goes on with jobs that have begun and begins none, as before another engine takes over. Default: true. */
  readonly begins?: boolean | undefined;
  /** When a job for which there was no room beside others comes again. Default: 15 seconds. */
  readonly fullMs?: number | undefined;
  readonly reconcileMs?: number | undefined;
  /** Who is told that a job has ended. Default: one over `store`. */
  readonly outbox?: Outbox | undefined;
  /** The queue knows nothing of the jobs in the store: all that live are sent again at the start. */
  readonly isQueueNew?: boolean | undefined;
  readonly onEvent?: ((event: WorkerEvent) => void) | undefined;
  readonly clock?: Clock | undefined;
  /** From 0 to below 1, for the jitter of pauses. */
  readonly random?: (() => number) | undefined;
}

const SLICE_MS = 10 * 60_000;
const VISIBILITY_MS = 120_000;
/** Beyond it a step of a small model gains little, and every job waits longer for its turn in one. */
const SLOTS = 8;
const STRIKES_MAX = 5;
const FULL_MS = 15_000;
const RECONCILE_MS = 60_000;
/** The longest wait that SQS knows. */
const RECEIVE_MS = 20_000;
/** What others know of a rate may be wrong by so much. */
const RATE_CHANGE = 0.05;
const RATES_MS_MAX = 2_000;
/** Between two looks at whether there is time for a probe. */
const BUSY_MS = 1_000;
const BACKOFF_MS = 1_000;
const BACKOFF_MS_MAX = 5 * 60_000;

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
  readonly #handler: Handler;
  readonly #reconciler: Reconciler;
  readonly #throughput: Throughput;
  readonly #speeds: Speeds;
  /** Rates as others know them. */
  readonly #told = new Map<string, number>();
  #loops: Promise<unknown> | null = null;

  constructor(options: WorkerOptions) {
    this.#o = options;
    // Every slot waits for a message or for the end of its job; beside them are the walk and the probe.
    sharedBy(this.#slots + 2, this.#stop.signal);
    const { store, queue, models, policy, threads } = options;
    const clock = this.#clock = options.clock ?? systemClock;
    const live = this.#live = new Live(clock);
    const say = (event: WorkerEvent) => this.#say(event);
    const endings = Endings.over(store, options.outbox ?? new Outbox({ store, clock }), {
      clock, random: options.random,
      onJoined: (where, { head: { state }, manifest }) => say({ kind: 'joined', where, state, finishes: (manifest?.chains ?? []).map(({ finish }) => finish ?? 'none') }),
    });
    const throughput = this.#throughput = new Throughput(clock);
    const speeds = this.#speeds = new Speeds(clock);
    this.#reconciler = new Reconciler({ store, queue, clock, say, outbox: endings, runs: (where) => this.#handler.slots.has(where) });
    this.#handler = new Handler({
      store, queue, models, policy, threads, clock, live, throughput, speeds, say, endings,
      prompts: options.prompts,
      loaded: options.loaded,
      keys: options.keys ?? null,
      slots: this.#slots,
      sliceMs: options.sliceMs ?? SLICE_MS,
      visibilityMs: options.visibilityMs ?? VISIBILITY_MS,
      strikesMax: options.strikesMax ?? STRIKES_MAX,
      begins: options.begins,
      fullMs: options.fullMs ?? FULL_MS,
      backoffMs: (failures) => this.#backoffMs(failures),
      isUnmoved: (where, head) => this.#reconciler.isUnmoved(where, head),
    });
  }

  /** Idempotent. @param probed models that it loads, if they are not, and whose pace it tells, as soon as it has no job. */
  start(probed: readonly string[] = []): void {
    this.#loops ??= Promise.all([...Array.from({ length: this.#slots }, () => this.#work()), this.#watch(), this.#probe(probed)]);
  }

  /** Has models loaded before they are asked for. @throws EngineError ERR_MODEL_NOT_FOUND and others of models; ERR_MEMORY; ERR_CANCELLED. */
  async warm(names: readonly string[], options: CallOptions = {}): Promise<void> {
    await this.#handler.slots.warm(names, options);
  }

  /** One message that came in another way than by asking the queue, and until when: as an invocation does. It is settled with the queue as any other. */
  async handle(received: ReceivedMessage, drain: AbortSignal): Promise<Handled> {
    const { settled } = await this.#handler.handle(received, drain);
    const handled = await settled;
    // The invocation's answer is not worth less for it.
    using late = this.#clock.timeout(RATES_MS_MAX);
    await this.#tellRates(late.signal);
    return handled;
  }

  /** Takes nothing more, parks what runs, and frees its models. false: that took longer than `deadlineMs`; what is committed stays. */
  async drain({ deadlineMs, signal }: { readonly deadlineMs: number; readonly signal?: AbortSignal | undefined }): Promise<boolean> {
    this.#stop.abort();
    const over = new AbortController();
    let isDrained = false;
    void this.#loops?.then(() => {
      isDrained = true;
      over.abort();
    });
    if (this.#loops !== null) await untilAborted(this.#clock, deadlineMs, over.signal, signal);
    else isDrained = true;
    if (isDrained) this.#handler[Symbol.dispose]();
    return isDrained;
  }

  /** The job was ended or taken from outside: if it runs here it stops within a step, and the worker goes on with the next. */
  interrupt(where: JobKey): void {
    this.#handler.slots.interrupt(where);
  }

  /** If the job runs here: as `interrupt`, and it resolves when what the job has is committed; nobody goes on with it. @throws EngineError ERR_CANCELLED. */
  async letGo(where: JobKey, options: CallOptions = {}): Promise<void> {
    await this.#handler.slots.letGo(where, options);
  }

  get state(): 'starting' | 'ready' | 'draining' {
    if (this.#stop.signal.aborted) return 'draining';
    return this.#loops === null ? 'starting' : 'ready';
  }

  /** Slices that run now. */
  get running(): number {
    return this.#handler.slots.running;
  }

  /** Of a job with so many chains, all of them together, on this model (`countdown@cr8`); null: it has neither run nor been probed yet. */
  speed(model: string, width: number): Speed | null {
    return this.#speeds.speed(model, width);
  }

  /** How many slots there are, and for how long, all together, they have had jobs. */
  get occupancy(): { readonly slots: number; readonly slotMs: number } {
    return { slots: this.#slots, slotMs: this.#throughput.slotMs };
  }

  /** Of the memory that KV may take, the part that jobs here have, 0 to 1: what admission counts with; above 1 is more than there is. */
  get memoryPressure(): number {
    return this.#handler.slots.memoryPressure;
  }

  report(where: JobKey): ReturnType<LiveFeed['report']> {
    return this.#live.report(where);
  }

  changed(where: JobKey, waitMs: number, signal?: AbortSignal): Promise<void> {
    return this.#live.changed(where, waitMs, signal);
  }

  /** One slot. */
  async #work(): Promise<void> {
    const { queue } = this.#o;
    const { signal } = this.#stop;
    let settled: Promise<unknown> = Promise.resolve();
    for (let failures = 0; !signal.aborted;) {
      try {
        await this.#handler.slots.opened(signal);
        // While the one before is removed, which is one call of the queue.
        const [received] = await queue.receive({ max: 1, waitMs: RECEIVE_MS, visibilityMs: this.#o.visibilityMs ?? VISIBILITY_MS, signal });
        failures = 0;
        await settled;
        if (received !== undefined) ({ settled } = await this.#handler.handle(received, signal));
      } catch (error) {
        if (signal.aborted) break;
        this.#say({ kind: 'trouble', doing: 'receive', error });
        await untilAborted(this.#clock, this.#backoffMs(failures++), signal);
      }
    }
    await settled;
  }

  /** At the start and every minute: what lost its message or its worker is sent again. */
  async #watch(): Promise<void> {
    const { signal } = this.#stop;
    for (let isFirst = true; !signal.aborted; isFirst = false) {
      await this.#tellRates(signal);
      try {
        await this.#reconciler.walk(isFirst && this.#o.isQueueNew === true, signal);
      } catch (error) {
        if (!signal.aborted) this.#say({ kind: 'trouble', doing: 'reconcile', error });
      }
      await this.#reconciler.untilNext(this.#o.reconcileMs ?? RECONCILE_MS, signal);
    }
  }

  /** So that a quote has seconds before any job has run. */
  async #probe(models: readonly string[]): Promise<void> {
    const { signal } = this.#stop;
    for (const name of models) {
      try {
        while (!signal.aborted) {
          const probed = await this.#handler.slots.probe(name, signal);
          if (probed !== null) {
            await this.#tell(probed.model, { tokensPerSecond: probed.pace.wide, one: probed.pace.one, basis: 'probe' }, signal);
            break;
          }
          await untilAborted(this.#clock, BUSY_MS, signal);
        }
      } catch (error) {
        if (!signal.aborted) this.#say({ kind: 'trouble', doing: 'rates', error });
      }
    }
  }

  /** For those who have no worker at hand. Not again while it is what they know. */
  async #tellRates(signal: AbortSignal | undefined): Promise<void> {
    for (const [model, tokensPerSecond] of this.#throughput.rates()) {
      const told = this.#told.get(model) ?? 0;
      if (Math.abs(tokensPerSecond - told) <= RATE_CHANGE * told) continue;
      if (await this.#tell(model, { tokensPerSecond, basis: 'jobs' }, signal)) this.#told.set(model, tokensPerSecond);
    }
  }

  async #tell(model: string, rate: StoredRate, signal: AbortSignal | undefined): Promise<boolean> {
    try {
      await putRate(this.#o.store, model, rate, { signal });
      return true;
    } catch (error) {
      if (signal?.aborted !== true) this.#say({ kind: 'trouble', doing: 'rates', error });
      return false;
    }
  }

  get #slots(): number {
    return this.#o.slots ?? SLOTS;
  }

  #backoffMs(failures: number): number {
    return Math.min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** failures) * (0.5 + (this.#o.random ?? Math.random)() / 2);
  }

  #say(event: WorkerEvent): void {
    this.#o.onEvent?.(event);
  }
}
