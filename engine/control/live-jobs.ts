/** How many jobs of a tenant have not ended: from the store's markers, which a second's worth of requests shares, and what was made here since. */
import type { Clock } from '../core/clock.ts';
import { countLive } from '../kv/hints.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';

const FRESH_MS = 1_000;
const TENANTS_MAX = 1_000;

interface Count {
  jobs: number;
  /** It was counted no further. */
  readonly most: number;
  readonly atMs: number;
}

export class LiveJobs {
  readonly #store: ObjectStore;
  readonly #clock: Clock;
  /** The one counted last is last. */
  readonly #counts = new Map<string, Count>();

  constructor(store: ObjectStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** A job was made here. */
  made(tenant: string): void {
    const known = this.#counts.get(tenant);
    if (known !== undefined) known.jobs += 1;
  }

  /** Up to `most`. @throws EngineError ERR_STORE, ERR_CANCELLED. */
  async count(tenant: string, most: number, options: CallOptions): Promise<number> {
    const known = this.#counts.get(tenant);
    const isKnown = known !== undefined && this.#clock.nowMs() - known.atMs < FRESH_MS && most <= known.most;
    return Math.min(most, (isKnown ? known : await this.#ask(tenant, most, options)).jobs);
  }

  async #ask(tenant: string, most: number, options: CallOptions): Promise<Count> {
    const atMs = this.#clock.nowMs();
    const counted: Count = { jobs: await countLive(this.#store, tenant, most, options), most, atMs };
    this.#counts.delete(tenant);
    this.#counts.set(tenant, counted);
    for (const oldest of this.#counts.keys()) if (this.#counts.size > TENANTS_MAX) this.#counts.delete(oldest);
    return counted;
  }
}
