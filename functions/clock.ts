/** The engine's clock where there is no Node: timers of the web. */
import type { Clock } from '../engine/core/clock.ts';

export const webClock: Clock = {
  nowMs: () => performance.now(),
  timeout(delayMs) {
    const controller = new AbortController();
    const timer: unknown = setTimeout(() => controller.abort(), delayMs);
    // On Node a timer keeps the process alive; elsewhere it is a number.
    if (typeof timer === 'object' && timer !== null && 'unref' in timer && typeof timer.unref === 'function') timer.unref();
    return { signal: controller.signal, [Symbol.dispose]: () => clearTimeout(timer as number) };
  },
};

/** Not of the web, but wherever this runs; a timer would make every frame wait for a millisecond. */
const soon = (globalThis as { readonly setImmediate?: (work: () => void) => unknown }).setImmediate ?? ((work: () => void) => setTimeout(work, 0));

/** null once all that could go on without waiting has gone on: in the next round of the event loop. */
export function nextRound(): Promise<null> {
  return new Promise((resolve) => void soon(() => resolve(null)));
}
