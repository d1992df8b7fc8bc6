/** A process of the system under test: the API or a worker, as an operator starts it, killed and started again under the same name. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { appendFileSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { ROOT } from '../bench/conditions.ts';

export interface MemberOptions {
  readonly name: string;
  /** Of `ruminate`. */
  readonly args: readonly string[];
  /** All of it. */
  readonly env: Readonly<Record<string, string>>;
  /** Where its logs go. */
  readonly folder: string;
  /** In a process namespace of its own, as on another machine: nobody sees whether it lives. */
  readonly isApart: boolean;
  /** Of what all members have said, by the message of the line. */
  readonly said: Map<string, number>;
}

/** What ends a slice in the log; one of them follows each `slice started`. */
const OVER = new Set(['slice ended', 'slice parked', 'slice fenced', 'slice failed', 'slice full', 'slice refused']);
/** Counted with what they say. */
const ENDED = 'ended by itself';
const AGAIN_MS = 500;
const LOOK_MS = 50;
const BEGIN_MS_MAX = 60_000;
const NAMESPACE = ['unshare', '--pid', '--fork', '--kill-child', '--mount-proc'] as const;

/** Whether this machine lets a process have a namespace of its own. */
export function canBeApart(): boolean {
  const [command, ...args] = NAMESPACE;
  return spawnSync(command, [...args, 'true'], { stdio: 'ignore' }).status === 0;
}

export class Member implements AsyncDisposable {
  readonly name: string;
  readonly #o: MemberOptions;
  /** Jobs whose slices run in it, as far as it has said. */
  readonly running = new Set<string>();
  isStopped = false;
  #child: ChildProcess | null = null;
  /** Who was asked to end. */
  #asked: ChildProcess | null = null;
  #closed: Promise<void> = Promise.resolve();
  #rest = '';
  /** The line that it said last. */
  #last = 'it said nothing';
  #hasBegun = false;
  #starts = 0;
  readonly #end = () => void this.#child?.kill('SIGKILL');

  constructor(options: MemberOptions) {
    this.#o = options;
    this.name = options.name;
    process.on('exit', this.#end);
  }

  get isUp(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** It takes messages, is not stopped and was not told to end. */
  get isWorking(): boolean {
    return this.isUp && this.#hasBegun && !this.isStopped && this.#asked !== this.#child;
  }

  start(): void {
    if (this.isUp) return;
    const { args, env, folder, isApart } = this.#o;
    const [command, ...before] = [...(isApart ? NAMESPACE : []), process.execPath, path.join(ROOT, 'bin', 'ruminate.mjs')];
    const child = this.#child = spawn(command as string, [...before, ...args], { cwd: folder, env, stdio: ['ignore', 'ignore', 'pipe'] });
    this.running.clear();
    this.#rest = '';
    this.isStopped = false;
    this.#hasBegun = false;
    const file = path.join(folder, `${this.name}-${this.#starts++}.log`);
    child.stderr.on('data', (chunk: Buffer) => {
      appendFileSync(file, chunk);
      this.#hear(chunk.toString());
    });
    this.#closed = new Promise((resolve) => child.once('close', () => resolve()));
    child.once('close', () => void this.#supervise(child));
  }

  /** Resolves when it takes messages. @throws Error: it does not, with the end of what it said last. */
  async begun(): Promise<void> {
    for (const startedMs = performance.now(); !this.#hasBegun; await sleep(LOOK_MS)) {
      if (performance.now() - startedMs > BEGIN_MS_MAX) throw new Error(`${this.name} takes no messages after ${BEGIN_MS_MAX / 1_000} s: ${this.#last}`);
    }
  }

  /** Resolves when it is gone. */
  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    this.#asked = this.#child;
    this.#signal(signal);
    await this.#closed;
  }

  /** Whoever ends by itself is started again, as an orchestrator does. */
  async #supervise(child: ChildProcess): Promise<void> {
    if (this.#asked === child) return;
    this.#o.said.set(ENDED, (this.#o.said.get(ENDED) ?? 0) + 1);
    await sleep(AGAIN_MS);
    if (this.#child === child && this.#asked !== child) this.start();
  }

  stop(): void {
    this.isStopped = true;
    this.#signal('SIGSTOP');
  }

  wake(): void {
    if (this.isStopped && this.isUp) this.#signal('SIGCONT');
    this.isStopped = false;
  }

  #signal(signal: 'SIGKILL' | 'SIGTERM' | 'SIGSTOP' | 'SIGCONT'): void {
    const pid = this.#child?.pid;
    if (!this.isUp || pid === undefined) return;
    try {
      process.kill(this.#o.isApart ? (childOf(pid) ?? pid) : pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  #hear(text: string): void {
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop() ?? '';
    for (const line of lines) {
      this.#last = line;
      if (line.includes('working for')) this.#hasBegun = true;
      const said = lineOf(line);
      if (said === null) continue;
      this.#o.said.set(said.msg, (this.#o.said.get(said.msg) ?? 0) + 1);
      if (said.msg === 'slice started') this.running.add(said.job);
      else if (OVER.has(said.msg)) this.running.delete(said.job);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    process.off('exit', this.#end);
    this.wake();
    await this.end('SIGKILL');
  }
}

/** null: no line of the log. */
function lineOf(line: string): { readonly msg: string; readonly job: string } | null {
  if (!line.startsWith('{')) return null;
  try {
    const { msg = '', job = '' } = JSON.parse(line) as { readonly msg?: string; readonly job?: string };
    return { msg, job };
  } catch {
    return null;
  }
}

/** The process that `unshare` waits for; null: it has not begun, or is gone. */
function childOf(pid: number): number | null {
  try {
    return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0]) || null;
  } catch {
    return null;
  }
}
