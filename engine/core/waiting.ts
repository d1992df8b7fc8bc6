/** Waiting: cancellation, pauses on an injected clock, and a bounded number of things at once. */
import type { Clock } from './clock.ts';
import { EngineError } from './errors.ts';

export function cancelled(): EngineError {
  return new EngineError('ERR_CANCELLED', 'The call was cancelled.');
}

export function throwIfCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw cancelled();
}

/** Aborts when any of them does. AbortSignal.any would hold on to a job's signal for every request ever made under it. */
export function linkSignals(...signals: readonly (AbortSignal | undefined)[]): { readonly signal: AbortSignal } & Disposable {
  const controller = new AbortController();
  const abort = () => controller.abort();
  for (const signal of signals) {
    if (signal?.aborted === true) abort();
    else signal?.addEventListener('abort', abort, { once: true });
  }
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => signals.forEach((signal) => signal?.removeEventListener('abort', abort)),
  };
}

/** @throws EngineError ERR_CANCELLED as soon as `signal` aborts. */
export async function pause(clock: Clock, delayMs: number, signal: AbortSignal | undefined): Promise<void> {
  throwIfCancelled(signal);
  await untilAborted(clock, delayMs, signal);
  throwIfCancelled(signal);
}

/** Resolves after `delayMs`, or as soon as one of them aborts. */
export async function untilAborted(clock: Clock, delayMs: number, ...signals: readonly (AbortSignal | undefined)[]): Promise<void> {
  using timer = clock.timeout(delayMs);
  using either = linkSignals(timer.signal, ...signals);
  // A clock's timers do not keep the process alive; a command that only waits for its next attempt must not end silently.
  const alive = setInterval(() => undefined, 1 << 30);
  try {
    if (!either.signal.aborted) await new Promise<void>((resolve) => either.signal.addEventListener('abort', () => resolve(), { once: true }));
  } finally {
    clearInterval(alive);
  }
}

/** Wakes whoever listens: each of them looks for itself whether what it waits for is there. */
export class Bell {
  readonly #listening = new Set<AbortController>();

  /** Its signal aborts at the next ring. Listen before looking, so that no ring is missed. */
  listen(): { readonly signal: AbortSignal } & Disposable {
    const controller = new AbortController();
    this.#listening.add(controller);
    return { signal: controller.signal, [Symbol.dispose]: () => void this.#listening.delete(controller) };
  }

  ring(): void {
    for (const controller of this.#listening) controller.abort();
    this.#listening.clear();
  }
}

/** What `work` gives, or ERR_CANCELLED as soon as `signal` aborts: for work that others wait for too, and that goes on. */
export async function unlessCancelled<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  throwIfCancelled(signal);
  if (signal === undefined) return await work;
  let stop = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => signal.addEventListener('abort', stop = () => reject(cancelled()), { once: true }));
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** What `work` gives, or null after `waitMs`: for work that goes on. */
export async function unlessLater<T>(clock: Clock, waitMs: number, work: Promise<T>): Promise<T | null> {
  using timer = clock.timeout(waitMs);
  let stop = (): void => undefined;
  const late = new Promise<null>((resolve) => timer.signal.addEventListener('abort', stop = () => resolve(null), { once: true }));
  try {
    return await Promise.race([work, late]);
  } finally {
    timer.signal.removeEventListener('abort', stop);
  }
}

/** Work of one name in the order in which it was asked for, one at a time; what has another name waits for nobody. */
export class InOrder {
  readonly #last = new Map<string, Promise<void>>();

  /** What `work` gives. @throws EngineError ERR_CANCELLED as soon as `signal` aborts: what has not begun then never does, what has goes on, and the next waits for it. */
  async take<T>(name: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    throwIfCancelled(signal);
    const mine = (this.#last.get(name) ?? Promise.resolve()).then(async () => {
      throwIfCancelled(signal);
      return await work();
    });
    const over = mine.then(() => undefined, () => undefined);
    this.#last.set(name, over);
    void over.then(() => {
      if (this.#last.get(name) === over) this.#last.delete(name);
    });
    return await unlessCancelled(mine, signal);
  }
}

/** `work(i)` for every i below `count`, at most `atOnce` of them running; the first failure aborts the others and is the one thrown. */
export async function inParallel<T>(
  count: number, atOnce: number, signal: AbortSignal | undefined, work: (i: number, signal: AbortSignal) => Promise<T>,
): Promise<readonly T[]> {
  const results: T[] = new Array<T>(count);
  const failures: unknown[] = [];
  const stop = new AbortController();
  using either = linkSignals(signal, stop.signal);
  let next = 0;
  const worker = async () => {
    while (next < count && failures.length === 0) {
      const i = next++;
      try {
        results[i] = await work(i, either.signal);
      } catch (error) {
        failures.push(error);
        stop.abort();
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(count, atOnce) }, worker));
  if (failures.length > 0) throw failures[0];
  return results;
}
