/** One bar for work whose bytes are known, on terminals only. */
import { createLogUpdate } from 'log-update';

import { bar, bytes, canRedraw, cells, paintFor, tailOf } from './text.ts';

export interface Meter extends Disposable {
  /** `name`: what is being worked on. */
  update(name: string, doneBytes: number, allBytes: number): void;
}

const FRAME_MS = 66;

/** @example using meter = openMeter(process.stderr, 'verifying sums'); */
export function openMeter(stream: NodeJS.WriteStream, title: string): Meter {
  const { TERM: term } = process.env;
  if (!canRedraw(stream, term)) return { update: () => {}, [Symbol.dispose]: () => {} };
  const log = createLogUpdate(stream);
  const paint = paintFor(stream);
  let drawnAt = Number.NEGATIVE_INFINITY;
  return {
    update(name, doneBytes, allBytes) {
      if (performance.now() - drawnAt < FRAME_MS && doneBytes !== allBytes) return;
      drawnAt = performance.now();
      const meter = `${title} ${bar(allBytes === 0 ? 1 : doneBytes / allBytes, 20)} ${bytes(doneBytes)} of ${bytes(allBytes)} `;
      log(`${paint.cyan(meter)}${paint.dim(tailOf(name, Math.max(8, (stream.columns ?? 80) - cells(meter) - 1)))}`);
    },
    [Symbol.dispose]() {
      log.clear();
      log.done();
    },
  };
}
