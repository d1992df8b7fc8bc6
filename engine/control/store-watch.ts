/** Whether the store answers, for those who ask often whether to send work here: a look every few seconds, and nobody waits long for it. */
import type { Clock } from '../core/clock.ts';
import { areRequestsIsolated } from '../core/host.ts';
import { unlessLater } from '../core/waiting.ts';
import type { ObjectStore } from '../ports/object-store.ts';

/** Longer than this no probe waits, and a store that takes longer serves nobody. */
const WAIT_MS = 2_000;
const FRESH_MS = 5_000;
/** Nobody writes it: that it is not there is an answer. */
const KEY = 'probe/there';

export class StoreWatch {
  readonly #store: Pick<ObjectStore, 'head'>;
  readonly #clock: Clock;
  #last: { readonly isThere: boolean; readonly atMs: number } | null = null;
  #looking: Promise<boolean> | null = null;

  constructor(store: Pick<ObjectStore, 'head'>, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /** As of at most `FRESH_MS` ago. Never rejects. */
  async isThere(): Promise<boolean> {
    const last = this.#last;
    if (last !== null && this.#clock.nowMs() - last.atMs < FRESH_MS) return last.isThere;
    const looking = this.#looking ?? this.#look().finally(() => {
      this.#looking = null;
    });
    if (!areRequestsIsolated) this.#looking = looking;
    return await looking;
  }

  async #look(): Promise<boolean> {
    using late = this.#clock.timeout(WAIT_MS);
    const looking = this.#store.head(KEY, { signal: late.signal }).then(() => true, () => false);
    // Also of an adapter that takes its time to give up.
    const isThere = (await unlessLater(this.#clock, WAIT_MS, looking)) ?? false;
    this.#last = { isThere, atMs: this.#clock.nowMs() };
    return isThere;
  }
}
