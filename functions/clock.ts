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
