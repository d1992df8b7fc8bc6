/**
 * Time as a port: the only file that asks the machine. Monotonic, in milliseconds from an arbitrary start, so that a corrected wall
 * clock never shortens a deadline. Tests pass their own.
 */
export interface Clock {
  nowMs(): number;
  /** A signal that aborts after `delayMs`; dispose it to forget the timer. */
  timeout(delayMs: number): { readonly signal: AbortSignal } & Disposable;
}

/** What people call the time, since 1970: for ids and listings. It may jump and be wrong, so nothing is decided by it. */
export function wallClockMs(): number {
  return Date.now();
}

export const systemClock: Clock = {
  nowMs: () => performance.now(),
  timeout(delayMs) {
    const controller = new AbortController();
    const timer: unknown = setTimeout(() => controller.abort(), delayMs);
    // Node's keeps the process alive; elsewhere a timer is a number.
    if (typeof timer === 'object' && timer !== null && 'unref' in timer && typeof timer.unref === 'function') timer.unref();
    return { signal: controller.signal, [Symbol.dispose]: () => clearTimeout(timer as number) };
  },
};
