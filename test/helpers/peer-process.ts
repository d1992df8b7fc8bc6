/** A server that tests run against, as a process of theirs: killed with them, and started again on the same port and folder if they want. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

export interface PeerOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Asked until it is. */
  readonly isReady: () => Promise<boolean>;
  readonly readyMsMax: number;
}

const LOOK_MS = 50;

export class PeerProcess implements AsyncDisposable {
  readonly #o: PeerOptions;
  #child: ChildProcess | null = null;
  #output = '';
  // A test process that ends without disposing takes its server along.
  readonly #kill = () => void this.#child?.kill('SIGKILL');

  private constructor(options: PeerOptions) {
    this.#o = options;
    process.once('exit', this.#kill);
  }

  /** Resolves when it is ready. @throws if it ends before or takes too long, with what it said. */
  static async start(options: PeerOptions): Promise<PeerProcess> {
    const peer = new PeerProcess(options);
    await peer.#start();
    return peer;
  }

  /** SIGKILL, a while without it, and the same again. */
  async restart(downMs = 0): Promise<void> {
    await this.#end();
    await sleep(downMs);
    await this.#start();
  }

  async #start(): Promise<void> {
    const { command, args, env, isReady, readyMsMax } = this.#o;
    const child = this.#child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => { this.#output = (this.#output + chunk.toString()).slice(-4_000); });
    for (const startedMs = performance.now(); ; await sleep(LOOK_MS)) {
      if (await isReady()) return;
      const isLate = performance.now() - startedMs > readyMsMax;
      if (child.exitCode === null && child.signalCode === null && !isLate) continue;
      await this[Symbol.asyncDispose]();
      throw new Error(`${command} ${isLate ? 'is not ready' : 'ended'}: ${this.#output}`);
    }
  }

  async #end(): Promise<void> {
    const child = this.#child;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const closed = once(child, 'close');
    child.kill('SIGKILL');
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    process.off('exit', this.#kill);
    await this.#end();
  }
}
