/** `ruminate worker` in a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import path from 'node:path';

import type { Exit } from './served.ts';
import { ROOT } from './setup.ts';

export class Working implements AsyncDisposable {
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  #log = '';
  readonly #watchers = new Set<() => void>();

  constructor(child: ChildProcess) {
    this.#child = child;
    child.stderr?.on('data', (chunk: Buffer) => {
      this.#log += chunk.toString();
      for (const watcher of [...this.#watchers]) watcher();
    });
    this.exited = new Promise((resolve) => child.once('close', (code, signal) => {
      resolve({ code, signal });
      for (const watcher of [...this.#watchers]) watcher();
    }));
  }

  /** What it said on stderr so far. */
  get log(): string {
    return this.#log;
  }

  /** Resolves when it has said that. @throws if it ends before. */
  async says(what: RegExp): Promise<void> {
    while (!what.test(this.#log)) {
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) throw new Error(`ended: ${this.#log}`);
      await new Promise<void>((resolve) => {
        const watcher = () => {
          this.#watchers.delete(watcher);
          resolve();
        };
        this.#watchers.add(watcher);
      });
    }
  }

  kill(signal: 'SIGKILL' | 'SIGINT' | 'SIGTERM'): Promise<Exit> {
    this.#child.kill(signal);
    return this.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill('SIGKILL');
  }
}

export interface WorkOptions {
  readonly store: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** Resolves when it takes messages. @throws if it ends before, with what it said. */
export async function work({ store, args = [], env = {} }: WorkOptions): Promise<Working> {
  const child = spawn(process.execPath, [path.join(ROOT, 'bin', 'ruminate.mjs'), 'worker', '--store', store, ...args], { env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'pipe'] });
  const working = new Working(child);
  await working.says(/working for/);
  return working;
}
