/** `ruminate worker` in a process of its own, by what it says in its log and what it takes of the machine. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { ROOT } from './conditions.ts';

/** Of the log; the fields that benches look at. */
export interface LogLine {
  /** Of the wall clock. */
  readonly time: number;
  readonly msg: string;
  readonly phase?: string;
  readonly why?: string;
  readonly tokens?: number;
  readonly load?: Readonly<Record<'resolve_ms' | 'fetch_ms' | 'verify_ms' | 'map_ms' | 'warm_ms' | 'bytes', number>>;
  readonly process_ms?: number;
  readonly store_ms?: number;
  readonly queue_ms?: number;
}

const TICKS_PER_S = 100;

export class WorkerProcess implements AsyncDisposable {
  readonly spawnedMs = Date.now();
  readonly #child: ChildProcess;
  readonly #watchers = new Set<() => void>();
  readonly #counts = new Map<string, number>();
  readonly #lines: LogLine[] = [];
  #said = '';

  /** @param keep lines that are asked for later; the others are only counted. Options of node, such as --cpu-prof, are taken from RUMINATE_BENCH_NODE. */
  constructor(args: readonly string[], { env = process.env, keep = () => true }: { readonly env?: NodeJS.ProcessEnv; readonly keep?: (line: LogLine) => boolean } = {}) {
    const node = (process.env.RUMINATE_BENCH_NODE ?? '').split(' ').filter((option) => option !== '');
    const child = this.#child = spawn(process.execPath, [...node, path.join(ROOT, 'bin', 'ruminate.mjs'), 'worker', ...args], { env, stdio: ['ignore', 'ignore', 'pipe'] });
    let rest = '';
    child.stderr.on('data', (chunk: Buffer) => {
      const whole = (rest + chunk.toString()).split('\n');
      rest = whole.pop() ?? '';
      for (const text of whole) {
        if (!text.startsWith('{')) {
          this.#said = `${this.#said}${text}\n`.slice(-4_000);
          continue;
        }
        const line = JSON.parse(text) as LogLine;
        this.#counts.set(line.msg, this.count(line.msg) + 1);
        if (keep(line)) this.#lines.push(line);
      }
      this.#ring();
    });
    child.once('exit', () => this.#ring());
  }

  /** How often it has said that. */
  count(msg: string): number {
    return this.#counts.get(msg) ?? 0;
  }

  all(msg: string, phase?: string): readonly LogLine[] {
    return this.#lines.filter((line) => line.msg === msg && (phase === undefined || line.phase === phase));
  }

  /** The first such line, when it is there. @throws Error if the process ends before. */
  async says(msg: string, phase?: string): Promise<LogLine> {
    for (;;) {
      const [found] = this.all(msg, phase);
      if (found !== undefined) return found;
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) throw new Error(`the worker ended: ${this.#said}`);
      await new Promise<void>((resolve) => this.#watchers.add(resolve));
    }
  }

  /** When it has said that so often. @throws Error if the process ends before. */
  async counts(msg: string, times: number, signal: AbortSignal): Promise<void> {
    while (this.count(msg) < times) {
      signal.throwIfAborted();
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) throw new Error(`the worker ended: ${this.#said}`);
      await new Promise<void>((resolve) => this.#watchers.add(resolve));
    }
  }

  get rssMib(): number {
    return Math.round(Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.#child.pid}/status`, 'utf8'))?.[1]) / 1_024);
  }

  /** Of all its threads, user and system. */
  get cpuMs(): number {
    const stat = readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return ((Number(fields[11]) + Number(fields[12])) * 1_000) / TICKS_PER_S;
  }

  #ring(): void {
    for (const watcher of this.#watchers) watcher();
    this.#watchers.clear();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exit = once(this.#child, 'exit');
    // A profile is written by a process that ends by itself.
    this.#child.kill(process.env.RUMINATE_BENCH_NODE === undefined ? 'SIGKILL' : 'SIGTERM');
    await exit;
  }
}
