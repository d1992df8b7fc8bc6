/** The job as it runs: a picture redrawn in place on a terminal, a few plain lines elsewhere. */
import { createLogUpdate } from 'log-update';

import type { FinishReason, Progress } from '../engine/job/generate.ts';
import { bar, canRedraw, cells, count, paintFor, plural, ratio, safe, seconds, tailOf, type Paint, type Terminal } from './text.ts';
import { openTransfer, type TransferView } from './transfer.ts';

export interface View {
  update(progress: Progress): void;
  /** Leaves the last picture standing (or nothing, if none was drawn). */
  close(): void;
}

export interface ViewOptions {
  readonly stream: NodeJS.WriteStream;
  /** What is being run, for the first line. */
  readonly title: string;
  /** Most tokens of a chain, if it is known before the model is. */
  readonly length: number | null;
  readonly now: () => number;
  readonly term: string | undefined;
}

/** @example const view = openView({ stream: process.stderr, title: 'countdown@cr8', length: 512, now: Date.now, term: process.env.TERM }); */
export function openView(options: ViewOptions): View {
  let fetching: TransferView | null = null;
  let running: View | null = null;
  return {
    update(progress) {
      if (progress.fetch !== undefined) {
        // What is in the cache already takes no time worth a picture.
        if (progress.fetch.files.every(({ state }) => state === 'done')) fetching?.update(progress.fetch);
        else (fetching ??= openTransfer({ ...options, title: `fetching ${options.title}` })).update(progress.fetch);
        return;
      }
      fetching?.close();
      fetching = null;
      running ??= canRedraw(options.stream, options.term) ? openLiveView(options) : openPlainView(options);
      running.update(progress);
    },
    close() {
      fetching?.close();
      running?.close();
    },
  };
}

/** Nothing at all: for `--json` into a pipe. */
export const silentView: View = { update: () => {}, close: () => {} };

const FRAME_MS = 66;

function openLiveView({ stream, title, length, now }: ViewOptions): View {
  const log = createLogUpdate(stream);
  const paint = paintFor(stream);
  const rate = tokenRate(now);
  let latest: Progress | undefined;
  let drawnAt = Number.NEGATIVE_INFINITY;
  const draw = (progress: Progress) => {
    drawnAt = now();
    log(renderFrame(progress, { terminal: stream, title, length, rate: rate.read(progress) }, paint));
  };
  return {
    update(progress) {
      const phaseChanged = latest?.phase !== progress.phase;
      latest = progress;
      rate.note(progress);
      if (phaseChanged || now() - drawnAt >= FRAME_MS) draw(progress);
    },
    close() {
      if (latest !== undefined) draw(latest);
      log.done();
    },
  };
}

/** One line for the load, one for the start of decoding, one for each chain that ends. */
function openPlainView({ stream, title, length, now }: ViewOptions): View {
  const started = now();
  const ended = new Set<number>();
  let phase: Progress['phase'] | undefined;
  const say = (line: string) => stream.write(`${line}\n`);
  return {
    update(progress) {
      if (phase !== progress.phase) {
        phase = progress.phase;
        const chains = plural(progress.chains.length, 'chain');
        if (phase === 'load') say(`loading ${title}`);
        if (phase === 'decode') say(`decoding ${chains}${length === null ? '' : ` of at most ${plural(length, 'token')}`}`);
      }
      progress.chains.forEach((chain, i) => {
        if (chain.finish_reason === null || ended.has(i)) return;
        ended.add(i);
        const tokens = plural(chain.tokens, 'token');
        const live = `${count(chain.live_kv_tokens)} live (${ratio(chain.compression_ratio)})`;
        say(`chain ${i}: ${STATE[chain.finish_reason]} after ${tokens}, ${live}`);
      });
      if (phase === 'done') say(`done in ${seconds(now() - started)}, KV reads ${readsOf(progress)}`);
    },
    close: () => {},
  };
}

/** What a finish reason is called on a screen. */
export const STATE: Readonly<Record<FinishReason, string>> = {
  stop: 'ended',
  length: 'full length',
  kv_read_budget: 'budget spent',
  memory: 'memory full',
  early_stop: 'vote decided',
  cancelled: 'cancelled',
  deadline: 'deadline',
};

export interface FrameOptions {
  readonly terminal: Terminal;
  readonly title: string;
  readonly length: number | null;
  /** Tokens a second, all chains together. */
  readonly rate: number;
}

/** One picture of the job: a title, a line for each chain, the budget. Never wider than the terminal, nor taller. */
export function renderFrame(progress: Progress, { terminal, title, length, rate }: FrameOptions, paint: Paint): string {
  const columns = Math.max(40, (terminal.columns ?? 80) - 1);
  const room = Math.max(1, (terminal.rows ?? 24) - 5);
  const lines = [paint.bold(tailOf(title, columns))];
  const shown = pick(progress.chains, room);
  for (const i of shown) {
    const chain = progress.chains[i];
    if (chain !== undefined) lines.push(chainLine(i, chain, length, columns, paint));
  }
  const hidden = progress.chains.length - shown.length;
  if (hidden > 0) lines.push(paint.dim(`    and ${plural(hidden, 'more chain')}`));
  lines.push(footer(progress, rate, columns, paint));
  return lines.join('\n');
}

/** With more chains than lines, those that still run come first: they are what moves. */
function pick(chains: Progress['chains'], room: number): number[] {
  const all = chains.map((_, i) => i);
  if (all.length <= room) return all;
  const running = all.filter((i) => chains[i]?.finish_reason === null);
  const ended = all.filter((i) => chains[i]?.finish_reason !== null);
  return [...running, ...ended].slice(0, Math.max(1, room - 1)).sort((a, b) => a - b);
}

function chainLine(i: number, chain: Progress['chains'][number], length: number | null, columns: number, paint: Paint): string {
  const digits = length === null ? 6 : String(length).length;
  const tokens = `${String(chain.tokens).padStart(digits)}${length === null ? ' tokens' : `/${length}`}`;
  const live = `${count(chain.live_kv_tokens).padStart(digits)} live`;
  const saved = ratio(chain.compression_ratio).padStart(5);
  const state = chain.finish_reason === null ? 'thinking' : STATE[chain.finish_reason];
  const meter = length === null ? '' : `${bar(chain.tokens / length, columns >= 100 ? 20 : 10)} `;
  const fixed = `${String(i).padStart(3)} ${meter}${tokens}  ${live} ${saved}  ${state.padEnd(12)} `;
  const tail = tailOf(safe(chain.tail, { line: true }).trim(), Math.max(0, columns - cells(fixed)));
  const tint = chain.finish_reason === null ? paint.cyan : chain.finish_reason === 'stop' ? paint.green : paint.yellow;
  return `${String(i).padStart(3)} ${tint(meter)}${tokens}  ${live} ${paint.bold(saved)}  ${tint(state.padEnd(12))} ${paint.dim(tail)}`;
}

function footer(progress: Progress, rate: number, columns: number, paint: Paint): string {
  const budget = progress.kv_read_budget;
  if (progress.phase === 'load' || progress.phase === 'prefill') return paint.dim(progress.phase === 'load' ? 'loading' : 'reading the prompt');
  const meter = budget === null ? '' : `${bar(progress.kv_reads / budget, columns >= 100 ? 20 : 10)} `;
  return `${paint.dim('KV reads')} ${meter}${readsOf(progress)}  ${paint.dim(`${count(rate)} tokens/s`)}`;
}

function readsOf({ kv_reads, kv_read_budget }: Progress): string {
  if (kv_read_budget === null) return count(kv_reads);
  return `${count(kv_reads)} of ${count(kv_read_budget)} (${Math.floor((100 * kv_reads) / kv_read_budget)}%)`;
}

/** Mean rate since decoding began: a rate over a window jumps too much to read. */
function tokenRate(now: () => number): { note(progress: Progress): void; read(progress: Progress): number } {
  let startedAt: number | undefined;
  let endedAt: number | undefined;
  const total = (progress: Progress) => progress.chains.reduce((sum, chain) => sum + chain.tokens, 0);
  return {
    note(progress) {
      if (progress.phase === 'decode') startedAt ??= now();
      if (progress.phase === 'done') endedAt ??= now();
    },
    read(progress) {
      const ms = (endedAt ?? now()) - (startedAt ?? now());
      return ms > 0 ? (1000 * total(progress)) / ms : 0;
    },
  };
}
