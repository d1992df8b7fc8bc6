/** Long work on the one JavaScript thread, cut into turns. */
import { areRequestsIsolated } from './host.ts';

const waiting: (() => void)[] = [];

/**
 * Resolves when it is the caller's turn: one caller a round of the event loop, in the order in which they asked, so that with a thousand at work
 * timers and requests still wait for one of them only. (setImmediate alone runs all of them in the same round.)
 */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    // Each by itself: the timer of one request wakes no other.
    if (areRequestsIsolated) setTimeout(resolve, 0);
    else if (waiting.push(resolve) === 1) setImmediate(letOneGo);
  });
}

function letOneGo(): void {
  waiting.shift()?.();
  if (waiting.length > 0) setImmediate(letOneGo);
}

/** null once all that could go on without waiting has gone on: in the next round of the event loop. */
export function nextRound(): Promise<null> {
  return new Promise((resolve) => {
    if (areRequestsIsolated) setTimeout(resolve, 0, null);
    else setImmediate(resolve, null);
  });
}
