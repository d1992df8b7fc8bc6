/** Long work on the one JavaScript thread, cut into turns. */

const waiting: (() => void)[] = [];

/**
 * Resolves when it is the caller's turn: one caller a round of the event loop, in the order in which they asked, so that with a thousand at work
 * timers and requests still wait for one of them only. (setImmediate alone runs all of them in the same round.)
 */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    if (waiting.push(resolve) === 1) setImmediate(letOneGo);
  });
}

function letOneGo(): void {
  waiting.shift()?.();
  if (waiting.length > 0) setImmediate(letOneGo);
}
