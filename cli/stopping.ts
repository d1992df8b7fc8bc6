/** What makes a worker stop, beside being told to. */
import type { Noticed, NoticesOptions } from '../engine/adapters/notices.ts';
import { type Interruption, untilInterrupted } from '../engine/adapters/spot.ts';
import type { Clock } from '../engine/core/clock.ts';
import { EngineError } from '../engine/core/errors.ts';
import { untilAborted } from '../engine/core/waiting.ts';
import type { WorkerConfig } from '../functions/worker-env.ts';

export type Notices = (options: Pick<NoticesOptions, 'signal' | 'onTrouble'>) => Promise<Noticed | null>;

export interface Stopped {
  readonly why: string;
  /** It had more than its limit; null: it was something else. */
  readonly residentBytes: number | null;
  /** What its notice leaves to do, of seconds, for whoever exits; never rejects. Absent: nothing. */
  readonly settled?: Promise<void>;
}

type MemoryLimit = Pick<WorkerConfig, 'memoryLimitBytes'>;

const LOOK_MS = 1_000;

/** Before it takes anything: a worker that would only stop, and be started again, is no worker. @throws EngineError ERR_OPTION. */
export function checkMemory({ memoryLimitBytes }: MemoryLimit): void {
  const bytes = process.memoryUsage.rss();
  if (memoryLimitBytes !== null && bytes > memoryLimitBytes) throw tooLittleMemory({ memoryLimitBytes }, bytes);
}

export function tooLittleMemory({ memoryLimitBytes }: MemoryLimit, bytes: number): EngineError {
  return new EngineError('ERR_OPTION', `--memory-limit (RUMINATE_WORKER_MEMORY) leaves no room for a job: it is ${memoryLimitBytes} bytes, and the worker had ${bytes} resident before any had begun; give it more.`);
}

/** null: it was told to. */
export async function untilStopped(
  { timeLimitMs, graceMs, memoryLimitBytes, spot }: Pick<WorkerConfig, 'timeLimitMs' | 'graceMs' | 'memoryLimitBytes' | 'spot'>,
  { clock, startMs, signal, notices, onTrouble }: { readonly clock: Clock; readonly startMs: number; readonly signal: AbortSignal; readonly notices: Notices | null; readonly onTrouble: (error: unknown, of: string) => void },
): Promise<Stopped | null> {
  const found = new AbortController();
  const over = AbortSignal.any([signal, found.signal]);
  let stopped: Stopped | null = null;
  const stop = (why: string, { residentBytes = null, ...more }: Partial<Stopped> = {}) => {
    stopped ??= { why, residentBytes, ...more };
    found.abort();
  };
  const noticed = (notice: (Interruption & Pick<Stopped, 'settled'>) | null) => {
    if (notice === null) return;
    const { action, at, settled } = notice;
    stop(`EC2 takes this machine back (${action}${at === null ? '' : ` at ${at}`})`, settled === undefined ? {} : { settled });
  };
  const watches: Promise<void>[] = [];
  if (timeLimitMs !== null) {
    watches.push(untilAborted(clock, timeLimitMs - graceMs - (clock.nowMs() - startMs), over).then(() => {
      if (!over.aborted) stop(`its time limit of ${timeLimitMs} ms is near`);
    }));
  }
  if (memoryLimitBytes !== null) {
    watches.push((async () => {
      while (!over.aborted) {
        const bytes = process.memoryUsage.rss();
        if (bytes > memoryLimitBytes) stop(`it has ${bytes} bytes resident, above its limit of ${memoryLimitBytes}`, { residentBytes: bytes });
        else await untilAborted(clock, LOOK_MS, over);
      }
    })());
  }
  if (spot) {
    watches.push(untilInterrupted({ clock, signal: over, onTrouble: (error) => onTrouble(error, 'metadata service') }).then(noticed));
  }
  if (notices !== null) watches.push(notices({ signal: over, onTrouble: (error) => onTrouble(error, 'queue of notices') }).then(noticed));
  // No timer is longer than 24.8 days; a worker without a limit is.
  while (!over.aborted) await untilAborted(clock, 2 ** 31 - 1, over);
  found.abort();
  await Promise.all(watches);
  return stopped;
}
