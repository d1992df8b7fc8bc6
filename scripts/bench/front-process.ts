/** A server in a process of its own, as `npm start` begins it, that says how long its event loop kept others waiting. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import path from 'node:path';

import { ROOT } from './conditions.ts';

export interface LoopFigures {
  /** Of the wall clock, as monitorEventLoopDelay counts it. */
  readonly max_ms: number;
  readonly p99_ms: number;
  /** The longest that the JavaScript thread was busy without looking for other work, and how long it waited for a core meanwhile. */
  readonly longest_turn: { readonly own_ms: number; readonly waited_ms: number };
}

export class FrontProcess implements AsyncDisposable {
  readonly url: string;
  readonly #child: ChildProcess;

  private constructor(url: string, child: ChildProcess) {
    this.url = url;
    this.#child = child;
  }

  /** @param args of node: a program, and what it is told. */
  static async start(args: readonly string[], env: NodeJS.ProcessEnv = process.env): Promise<FrontProcess> {
    const probe = new URL('./turn-probe.mjs', import.meta.url).href;
    const child = spawn(process.execPath, ['--import', probe, ...args], { cwd: ROOT, env, stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
    const url = await new Promise<string>((resolve, reject) => {
      let out = '';
      child.stdout?.on('data', (chunk: Buffer) => {
        out += chunk.toString();
        const found = /http:\/\/[\d.]+:\d+/.exec(out)?.[0];
        if (found !== undefined) resolve(found);
      });
      child.once('exit', (code) => reject(new Error(`${args.join(' ')} ended with ${code}`)));
    });
    return new FrontProcess(url, child);
  }

  static served(store: string): Promise<FrontProcess> {
    return FrontProcess.start([path.join(ROOT, 'bin', 'ruminate.mjs'), 'serve', '--port', '0', '--store', store, '--log-level', 'warn']);
  }

  static bare(): Promise<FrontProcess> {
    return FrontProcess.start([path.join(ROOT, 'scripts', 'bench', 'bare-front.mjs')]);
  }

  /** Since it was asked last. */
  async loop(): Promise<LoopFigures> {
    const answer = once(this.#child, 'message');
    this.#child.send('loop');
    return (await answer)[0] as LoopFigures;
  }

  get rssMib(): number {
    const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${this.#child.pid}/status`, 'utf8'))?.[1];
    return Math.round(Number(kib) / 1_024);
  }

  async get<T>(at: string): Promise<T> {
    return (await (await fetch(this.url + at)).json()) as T;
  }

  async post<T>(at: string, body: unknown): Promise<T> {
    return (await (await fetch(this.url + at, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })).json()) as T;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exit = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await exit;
  }
}
