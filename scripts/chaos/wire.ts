/** What lies between one process and a server: a TCP proxy of this machine that delays what passes, breaks every connection, or lets nothing through. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export interface WireOptions {
  /** On 127.0.0.1. */
  readonly port: number;
  /** How long the next piece waits, ms. */
  readonly delayMs: () => number;
}

const LOOK_MS = 50;

export class Wire implements AsyncDisposable {
  readonly #o: WireOptions;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isOpen = true;

  private constructor(options: WireOptions) {
    this.#o = options;
    this.#server = createServer((socket) => this.#join(socket));
  }

  static async to(options: WireOptions): Promise<Wire> {
    const wire = new Wire(options);
    wire.#server.listen(0, '127.0.0.1');
    await once(wire.#server, 'listening');
    return wire;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Resets all connections, whatever is on its way. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  /** What is sent meanwhile arrives afterwards, if somebody still waits for it. */
  async part(forMs: number): Promise<void> {
    this.#isOpen = false;
    await sleep(forMs);
    this.#isOpen = true;
  }

  #join(near: Socket): void {
    const far = connect(this.#o.port, '127.0.0.1');
    for (const [from, to] of [[near, far], [far, near]] as const) {
      this.#sockets.add(from);
      from.on('error', () => to.destroy());
      // One that ends in order may have said something that is still held up here: whoever passes that on ends the other side after it.
      from.once('close', (isBroken) => {
        this.#sockets.delete(from);
        if (isBroken) to.destroy();
      });
      void this.#pass(from, to).catch(() => to.destroy());
    }
  }

  async #pass(from: Socket, to: Socket): Promise<void> {
    for await (const piece of from) {
      const delayMs = this.#o.delayMs();
      if (delayMs > 0) await sleep(delayMs);
      while (!this.#isOpen) await sleep(LOOK_MS);
      if (!to.write(piece as Buffer)) await once(to, 'drain');
    }
    to.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOpen = true;
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, 'close');
  }
}
