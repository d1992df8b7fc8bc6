/**
 * Actors on one memory store of which every call is a scheduling point, twice: before it takes effect and before its answer. Nothing runs
 * but what is let run, by a script (`until`, `finish`) or by chance (`play`), so the same script or seed is the same run.
 */
import type { FaultPlan, Operation } from '../../engine/adapters/memory-faults.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { SimClock } from './clock.ts';
import { Watch, type View } from './watch.ts';

interface Point {
  readonly operation: Operation;
  readonly phase: 'call' | 'answer';
  readonly go: () => void;
}

export interface Chances {
  readonly random: () => number;
  /** Of one step, from 0 to 1. */
  readonly stall: number;
  readonly crash: number;
  /** Actors that may crash. */
  readonly mortal: (actor: string) => boolean;
}

const STEPS_MAX = 20_000;
const STALL_STEPS_MAX = 120;
const MUTATIONS: ReadonlySet<Operation['kind']> = new Set(['put', 'copy', 'delete']);

export class World {
  readonly clock = new SimClock();
  readonly watch: Watch;
  readonly #others: Watch[] = [];
  readonly trace: string[] = [];
  readonly #store: MemoryStore;
  readonly #actors = new Map<string, Promise<void>>();
  readonly #pending: Point[] = [];
  readonly #running = new Set<string>();
  readonly #dead = new Set<string>();
  readonly #awakeAt = new Map<string, number>();
  #free = true;
  #faults: FaultPlan | null;

  constructor(view: View, faults: FaultPlan | null = null) {
    this.watch = new Watch(view);
    this.#faults = faults;
    const stop = (phase: Point['phase']) => (operation: Operation): Promise<void> | undefined => {
      if (this.#free) return undefined;
      return new Promise((go) => this.#pending.push({ operation, phase, go }));
    };
    this.#store = new MemoryStore({ before: stop('call'), after: stop('answer'), clock: this.clock, faults: (operation) => this.#faults?.(operation) ?? null });
  }

  /** Another job on the same store, watched beside the first. */
  also(view: View): Watch {
    const watch = new Watch(view);
    this.#others.push(watch);
    return watch;
  }

  get violations(): Watch['violations'] {
    return [this.watch, ...this.#others].flatMap(({ violations }) => violations);
  }

  store(actor: string): ObjectStore {
    return this.#store.as(actor);
  }

  keys(): readonly string[] {
    return [...this.#store.snapshot().keys()].sort();
  }

  /** Without scheduling and without faults: to prepare, and to look at the end. */
  async calmly<T>(work: (store: ObjectStore) => Promise<T>): Promise<T> {
    const faults = this.#faults;
    [this.#free, this.#faults] = [true, null];
    try {
      const result = await this.#withTime(work(this.#store.as('calm')));
      this.#observe({ kind: 'put', actor: 'calm' });
      return result;
    } finally {
      [this.#free, this.#faults] = [false, faults];
    }
  }

  /** Time passes whenever nothing else happens. */
  async #withTime<T>(work: Promise<T>): Promise<T> {
    const settled = work.then(() => true, () => true);
    while (!(await Promise.race([settled, turn().then(() => false)]))) this.clock.next();
    return await work;
  }

  /** A failure of an actor is one of the simulation: actors catch what they expect. */
  start(actor: string, work: (store: ObjectStore) => Promise<void>): void {
    this.#free = false;
    this.#running.add(actor);
    this.#actors.set(actor, work(this.store(actor)).catch((error: unknown) => this.watch.report('stuck', `${actor}: ${String(error)}`)).finally(() => this.#running.delete(actor)));
  }

  /** Lets `actor` run until it is about to make a call that `stops` names; true: it is there. */
  async until(actor: string, stops: (operation: Operation, phase: Point['phase']) => boolean): Promise<boolean> {
    for (let steps = 0; steps < STEPS_MAX; steps++) {
      if (steps === 0) await turn();
      const points = this.#pending.filter(({ operation }) => operation.actor === actor);
      const point = points.find(({ operation, phase }) => !stops(operation, phase));
      if (point !== undefined) await this.#release(point);
      else if (points.length > 0) return true;
      else if (!this.#running.has(actor)) return false;
      else if (this.clock.next()) await turn();
      else break;
    }
    throw new Error(`${actor} neither ends nor goes on:\n${this.trace.join('\n')}`);
  }

  async finish(actor: string): Promise<void> {
    await this.until(actor, () => false);
  }

  /** Until every actor has ended or died. Ends at the first violation. */
  async play(chances: Chances): Promise<void> {
    const { random } = chances;
    for (let step = 0; step < STEPS_MAX; step++) {
      if (step === 0) await turn();
      if (this.violations.length > 0 || [...this.#running].every((actor) => this.#dead.has(actor))) return;
      const live = this.#pending.filter(({ operation: { actor } }) => !this.#dead.has(actor));
      const awake = live.filter(({ operation: { actor } }) => (this.#awakeAt.get(actor) ?? 0) <= step);
      if (this.#late().length > 0 && random() < 0.05) this.#arrive(Math.floor(random() * this.#late().length));
      if (awake.length === 0 || random() < 0.02) {
        const passed = this.clock.next();
        await turn();
        if (passed) continue;
        if (awake.length === 0 && live.length === 0) break;
        if (awake.length === 0) this.#awakeAt.clear();
        continue;
      }
      const actors = [...new Set(awake.map(({ operation: { actor } }) => actor))];
      const actor = actors[Math.floor(random() * actors.length)];
      const own = awake.filter(({ operation }) => operation.actor === actor);
      const point = own[Math.floor(random() * own.length)];
      if (actor === undefined || point === undefined) continue;
      if (random() < chances.stall) this.#awakeAt.set(actor, step + Math.ceil(random() * STALL_STEPS_MAX));
      else if (chances.mortal(actor) && random() < chances.crash) {
        this.#dead.add(actor);
        this.trace.push(`${actor} dies before ${describe(point)}`);
      } else await this.#release(point);
    }
    this.watch.report('stuck', 'the simulation does not end');
  }

  /** A put on its way arrives. */
  arrive(i = 0): void {
    this.#arrive(i);
  }

  #late() {
    return this.#store.late;
  }

  #arrive(i: number): void {
    const put = this.#late()[i];
    if (put === undefined) throw new Error('no put is on its way');
    const { kind } = put.apply();
    this.trace.push(`a late put of ${put.operation.actor} to ${put.operation.key} arrives: ${kind}`);
    this.#observe(put.operation);
  }

  async #release(point: Point): Promise<void> {
    this.#pending.splice(this.#pending.indexOf(point), 1);
    this.trace.push(describe(point));
    point.go();
    await turn();
    if (point.phase === 'call' && MUTATIONS.has(point.operation.kind)) this.#observe(point.operation);
  }

  #observe(operation: Pick<Operation, 'kind' | 'actor'>): void {
    for (const watch of [this.watch, ...this.#others]) watch.observe(this.#store.snapshot(), operation);
  }
}

const describe = ({ operation: { actor, kind, key, condition }, phase }: Point) => `${actor} ${phase === 'call' ? kind : `has ${kind}`} ${key}${condition === null ? '' : ` ${condition}`}`;

/** Until all that can go on without the store and the clock has gone on. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
