/** How a command ends: the exit codes, and the one line that says why. */
import { writeSync } from 'node:fs';

import { EngineError } from '../engine/core/errors.ts';

/** A promise to scripts, like the error codes. */
export const EXIT = {
  done: 0,
  failed: 1,
  /** What was asked for is wrong: unknown, malformed or out-of-range options, or a store that cannot be what they or the environment say. */
  usage: 2,
  /** 128 + SIGINT, as shells have it. */
  interrupted: 130,
} as const;

/** @example exitCodeOf(new EngineError('ERR_OPTION', 'width must be ...')) // 2 */
export function exitCodeOf(error: unknown): number {
  if (!(error instanceof EngineError)) return EXIT.failed;
  if (error.code === 'ERR_CANCELLED') return EXIT.interrupted;
  return error.code === 'ERR_OPTION' || error.code === 'ERR_STORE_CONFIG' || error.code === 'ERR_QUEUE_CONFIG' ? EXIT.usage : EXIT.failed;
}

/** @example failureLine(error) // 'ruminate: ERR_MODEL_NOT_FOUND: No model ...' */
export function failureLine(error: unknown): string {
  const code = error instanceof EngineError ? error.code : 'ERR_INTERNAL';
  const message = error instanceof Error ? error.message : String(error);
  return `ruminate: ${code}: ${message.replace(/\s*\n\s*/g, ' ').trim()}`;
}

/** A reader that has seen enough (`| head`) is not a failure; a disk that is full is one, in one line. */
export function endWithReader(stream: NodeJS.WriteStream): void {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit();
    const why = error.code === 'ENOSPC' ? 'no space' : (error.code ?? error.message);
    writeSync(2, `${failureLine(new EngineError('ERR_OUTPUT', `cannot write the output: ${why}`))}\n`);
    process.exit(EXIT.failed);
  });
}

export interface Interrupt extends Disposable {
  /** Aborted by the first Ctrl-C. */
  readonly signal: AbortSignal;
}

/**
 * First Ctrl-C (or SIGTERM): asks the job to stop at a step boundary. Second: leaves at once.
 * @example using interrupt = onInterrupt(() => process.stderr.write('stopping\n'));
 */
export function onInterrupt(notice: () => void): Interrupt {
  const controller = new AbortController();
  const handler = () => {
    if (controller.signal.aborted) process.exit(EXIT.interrupted);
    notice();
    controller.abort();
  };
  process.on('SIGINT', handler);
  process.on('SIGTERM', handler);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      process.off('SIGINT', handler);
      process.off('SIGTERM', handler);
    },
  };
}
