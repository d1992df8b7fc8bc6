/** Signals that many listen to by design. Of Node alone: it calls more than ten listeners of one signal a leak, and says so on stderr. */
import { setMaxListeners } from 'node:events';

/** Node's own bound: still the one for each of those that share a signal. */
const LISTENERS_MAX = 10;

/** The signal, which so many jobs or loops are given at a time. @example sharedBy(slots, stop.signal) */
export function sharedBy(count: number, signal: AbortSignal): AbortSignal {
  setMaxListeners(LISTENERS_MAX * count, signal);
  return signal;
}
