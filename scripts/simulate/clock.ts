/** Virtual time: nothing waits, and what is to happen happens in order. */
import type { Clock } from '../../engine/core/clock.ts';

export class VirtualClock implements Clock {
  #nowMs = 0;

  nowMs(): number {
    return this.#nowMs;
  }

  /** Nothing that is simulated sleeps. */
  timeout(): { readonly signal: AbortSignal } & Disposable {
    return { signal: new AbortController().signal, [Symbol.dispose]: () => undefined };
  }

  moveTo(atMs: number): void {
    this.#nowMs = Math.max(this.#nowMs, atMs);
  }
}

interface Planned<T> {
  readonly atMs: number;
  readonly order: number;
  readonly what: T;
}

/** A heap: by time, then by order of planning. */
export class Agenda<T> {
  readonly #heap: Planned<T>[] = [];
  #order = 0;

  plan(atMs: number, what: T): void {
    this.#heap.push({ atMs, order: this.#order++, what });
    for (let i = this.#heap.length - 1; i > 0;) {
      const parent = (i - 1) >> 1;
      if (!this.#isBefore(i, parent)) return;
      this.#swap(i, parent);
      i = parent;
    }
  }

  next(): Planned<T> | null {
    const first = this.#heap[0];
    const last = this.#heap.pop();
    if (first === undefined || last === undefined) return null;
    if (this.#heap.length === 0) return first;
    this.#heap[0] = last;
    for (let i = 0; ;) {
      const least = [2 * i + 1, 2 * i + 2].reduce((best, child) => (child < this.#heap.length && this.#isBefore(child, best) ? child : best), i);
      if (least === i) return first;
      this.#swap(i, least);
      i = least;
    }
  }

  #isBefore(a: number, b: number): boolean {
    const [one, other] = [this.#heap[a] as Planned<T>, this.#heap[b] as Planned<T>];
    return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
  }

  #swap(a: number, b: number): void {
    [this.#heap[a], this.#heap[b]] = [this.#heap[b] as Planned<T>, this.#heap[a] as Planned<T>];
  }
}
