/** What was made once and may be asked for often. */
import type { Clock } from './clock.ts';
import { areRequestsIsolated } from './host.ts';
import { throwIfCancelled, unlessCancelled } from './waiting.ts';

export interface KeptOptions<T> {
  /** The one asked for longest ago is forgotten first. */
  readonly most: number;
  /** What one takes, and all of them may. Default: they are alike. */
  readonly weigh?: ((value: T) => number) | undefined;
  readonly weightMax?: number | undefined;
  /** Made again after that. Default: never. */
  readonly forMs?: number | undefined;
  readonly clock: Clock;
}

/** Whoever asks while it is being made waits for the same one, where one request may wait for another's. What failed is made again. */
export class Kept<T> {
  readonly #options: KeptOptions<T>;
  readonly #made = new Map<string, { readonly value: T; readonly atMs: number; readonly weight: number }>();
  #weight = 0;
  readonly #making = new Map<string, Promise<T>>();

  constructor(options: KeptOptions<T>) {
    this.#options = options;
  }

  /** @param make outlives `signal`: others may be waiting for it. @throws whatever `make` throws; EngineError ERR_CANCELLED. */
  async get(key: string, make: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    throwIfCancelled(signal);
    const { clock, forMs = Infinity } = this.#options;
    const found = this.#made.get(key);
    if (found !== undefined && clock.nowMs() - found.atMs < forMs) {
      this.#made.delete(key);
      this.#made.set(key, found);
      return found.value;
    }
    const making = this.#making.get(key) ?? this.#make(key, make);
    return await unlessCancelled(making, signal);
  }

  clear(): void {
    this.#made.clear();
    this.#making.clear();
    this.#weight = 0;
  }

  async #make(key: string, make: () => Promise<T>): Promise<T> {
    const work = make();
    if (!areRequestsIsolated) this.#making.set(key, work);
    try {
      const value = await work;
      const { most, weigh, weightMax = Infinity, clock } = this.#options;
      const weight = weigh?.(value) ?? 0;
      this.#forget(key);
      this.#made.set(key, { value, atMs: clock.nowMs(), weight });
      this.#weight += weight;
      for (const first of this.#made.keys()) if (this.#made.size > most || this.#weight > weightMax) this.#forget(first);
      return value;
    } finally {
      if (this.#making.get(key) === work) this.#making.delete(key);
    }
  }

  #forget(key: string): void {
    this.#weight -= this.#made.get(key)?.weight ?? 0;
    this.#made.delete(key);
  }
}
