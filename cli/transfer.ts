/** A pull or push as it goes: bars on a terminal, a line for each file that is whole elsewhere. */
import { createLogUpdate } from 'log-update';

import type { FileProgress } from '../engine/model/pull.ts';
import { bar, bytes, canRedraw, cells, paintFor, plural, tailOf, type Paint, type Terminal } from './text.ts';

/** What pulls and pushes have in common. */
export interface TransferProgress {
  readonly phase: string;
  readonly files: readonly (Pick<FileProgress, 'path' | 'bytes' | 'doneBytes'> & { readonly state?: FileProgress['state'] })[];
}

export interface TransferView {
  update(progress: TransferProgress): void;
  close(): void;
}

export interface TransferOptions {
  readonly stream: NodeJS.WriteStream;
  /** `pulling countdown`. */
  readonly title: string;
  readonly now: () => number;
  readonly term: string | undefined;
}

export const silentTransfer: TransferView = { update: () => {}, close: () => {} };

const FRAME_MS = 66;

/** @example const view = openTransfer({ stream: process.stderr, title: 'pulling countdown', now: Date.now, term: process.env.TERM }); */
export function openTransfer(options: TransferOptions): TransferView {
  return canRedraw(options.stream, options.term) ? openBars(options) : openLines(options);
}

function openBars({ stream, title, now }: TransferOptions): TransferView {
  const log = createLogUpdate(stream);
  const paint = paintFor(stream);
  let latest: TransferProgress | undefined;
  let drawnAt = Number.NEGATIVE_INFINITY;
  const draw = (progress: TransferProgress) => {
    drawnAt = now();
    log(renderTransfer(progress, { terminal: stream, title }, paint));
  };
  return {
    update(progress) {
      const changed = latest?.phase !== progress.phase;
      latest = progress;
      if (changed || now() - drawnAt >= FRAME_MS) draw(progress);
    },
    close() {
      if (latest !== undefined) draw(latest);
      log.done();
    },
  };
}

function openLines({ stream, title }: TransferOptions): TransferView {
  const whole = new Set<string>();
  let phase: string | undefined;
  return {
    update(progress) {
      if (phase === undefined) stream.write(`${title}\n`);
      phase = progress.phase;
      for (const file of progress.files) {
        if (whole.has(file.path) || !isWhole(file)) continue;
        whole.add(file.path);
        stream.write(`${file.path}: ${bytes(file.bytes)}\n`);
      }
    },
    close: () => {},
  };
}

/** Pushes say no state: a file is whole there when its bytes are. */
const isWhole = ({ state, doneBytes, bytes: size }: TransferProgress['files'][number]): boolean => (state === undefined ? doneBytes === size : state === 'done');

const STATES: Readonly<Record<string, string>> = { waiting: 'waiting', fetching: '', peer: 'another process fetches it', verifying: 'verifying', done: 'done' };

/** One picture: a title with the whole, a line for each file that moves, how many wait and are done. Never taller than the terminal. */
export function renderTransfer(progress: TransferProgress, { terminal, title }: { readonly terminal: Terminal; readonly title: string }, paint: Paint): string {
  const columns = Math.max(40, (terminal.columns ?? 80) - 1);
  const room = Math.max(1, (terminal.rows ?? 24) - 4);
  const all = progress.files.reduce((sum, file) => sum + file.bytes, 0);
  const done = progress.files.reduce((sum, file) => sum + file.doneBytes, 0);
  const total = all === 0 ? progress.phase : `${bar(done / all, 20)} ${bytes(done)} of ${bytes(all)}  ${progress.phase}`;
  const lines = [paint.bold(tailOf(title, columns)), total];
  const moving = progress.files.filter((file) => !isWhole(file) && (file.doneBytes > 0 || (file.state ?? 'waiting') !== 'waiting'));
  for (const file of moving.slice(0, room)) {
    const meter = `${bar(file.bytes === 0 ? 1 : file.doneBytes / file.bytes, 10)} ${bytes(file.doneBytes).padStart(10)} `;
    const state = STATES[file.state ?? ''] ?? '';
    lines.push(`${paint.cyan(meter)}${tailOf(file.path, Math.max(8, columns - cells(meter) - cells(state) - 2))} ${paint.dim(state)}`.trimEnd());
  }
  const whole = progress.files.filter(isWhole).length;
  lines.push(paint.dim(`${whole} of ${plural(progress.files.length, 'file')} whole`));
  return lines.join('\n');
}

