/** `ruminate serve` in a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import path from 'node:path';
import OpenAI from 'openai';

import { ROOT } from './setup.ts';

export interface Exit {
  readonly code: number | null;
  readonly signal: string | null;
}

export class Served implements AsyncDisposable {
  readonly url: string;
  readonly banner: string;
  readonly openai: OpenAI;
  readonly #child: ChildProcess;
  readonly #exit: Promise<Exit>;
  readonly #log: { text: string };

  constructor(child: ChildProcess, exit: Promise<Exit>, banner: string, log: { text: string }) {
    this.#child = child;
    this.#exit = exit;
    this.#log = log;
    this.banner = banner;
    this.url = /http:\/\/[\d.]+:\d+/.exec(banner)?.[0] ?? '';
    this.openai = new OpenAI({ baseURL: `${this.url}/v1`, apiKey: 'none', maxRetries: 0 });
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** What it said on stderr so far. */
  get log(): string {
    return this.#log.text;
  }

  get exited(): Promise<Exit> {
    return this.#exit;
  }

  async kill(signal: 'SIGKILL' | 'SIGINT' | 'SIGTERM'): Promise<Exit> {
    this.#child.kill(signal);
    return await this.#exit;
  }

  signal(signal: 'SIGINT'): void {
    this.#child.kill(signal);
  }

  async get<T>(path: string): Promise<T> {
    return (await (await fetch(this.url + path)).json()) as T;
  }

  async post<T>(path: string, body: unknown, headers: Readonly<Record<string, string>> = {}): Promise<T> {
    return (await (await fetch(this.url + path, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) })).json()) as T;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill('SIGKILL');
  }
}

/** Resolves when it listens, with what it printed. @throws if it ends before, with what it said. */
export async function serve(store: string, ...args: readonly string[]): Promise<Served> {
  const child = spawn(process.execPath, [path.join(ROOT, 'bin', 'ruminate.mjs'), 'serve', '--store', store, '--port', '0', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const log = { text: '' };
  let out = '';
  const exit = new Promise<Exit>((resolve) => child.once('close', (code, signal) => resolve({ code, signal })));
  child.stderr.on('data', (chunk: Buffer) => { log.text += chunk.toString(); });
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk.toString();
      if (out.endsWith('\n\n')) resolve();
    });
    child.once('error', reject);
    void exit.then(({ code }) => reject(new Error(`ended with ${code}: ${log.text}`)));
  });
  return new Served(child, exit, out, log);
}
