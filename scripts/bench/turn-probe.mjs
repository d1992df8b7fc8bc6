/**
 * Loaded into a server (`node --import`), which is asked by message how long its event loop kept others waiting. On a machine with other work a
 * thread also waits for a core: so beside the time that went by stands the time that the JavaScript thread itself was busy in it.
 */
import { readFileSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';

const EVERY_MS = 5;
const delay = monitorEventLoopDelay({ resolution: EVERY_MS });
delay.enable();
let worst = { own_ms: 0, waited_ms: 0 };
let last = sight();

setInterval(() => {
  const now = sight();
  const own_ms = now.ownMs - last.ownMs;
  if (own_ms > worst.own_ms) worst = { own_ms, waited_ms: now.waitedMs - last.waitedMs };
  last = now;
}, EVERY_MS).unref();

process.on('message', () => {
  process.send?.({ max_ms: delay.max / 1e6, p99_ms: delay.percentile(99) / 1e6, longest_turn: worst });
  delay.reset();
  worst = { own_ms: 0, waited_ms: 0 };
  last = sight();
});
process.channel?.unref();
// Whoever measured has gone.
process.on('disconnect', () => process.exit());

/** Of the main thread: on a core, and ready but without one. Linux only; elsewhere 0. */
function sight() {
  try {
    const [own = 0, waited = 0] = readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'utf8').split(' ').map(Number);
    return { ownMs: own / 1e6, waitedMs: waited / 1e6 };
  } catch {
    return { ownMs: 0, waitedMs: 0 };
  }
}
