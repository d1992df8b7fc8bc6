/**
 * What a process does for its store beside jobs and requests: it sends webhooks that are due, and moves batches on that nobody asks for. Any number of
 * processes may, and each that is killed is followed by the others.
 */
import type { Logger } from 'pino';

import { createNodeSender } from '../engine/adapters/sender-node.ts';
import type { Batches } from '../engine/control/batches.ts';
import type { Clock } from '../engine/core/clock.ts';
import { Rounds } from '../engine/core/rounds.ts';
import { unlessLater } from '../engine/core/waiting.ts';
import type { KeyProvider } from '../engine/ports/keys.ts';
import type { ObjectStore } from '../engine/ports/object-store.ts';
import { Deliverer, type DelivererEvent } from '../engine/webhook/deliverer.ts';
import { Outbox } from '../engine/webhook/outbox.ts';
import { webhookLog } from '../functions/worker-log.ts';

export interface ChoresOptions {
  readonly store: ObjectStore;
  readonly keys: KeyProvider | null;
  /** As what clients know the API; null: not known, and webhooks link by path. */
  readonly publicUrl: string | null;
  /** For development: webhooks may go to this machine, and without TLS. */
  readonly webhooksToLoopback: boolean;
  readonly log: Logger;
  readonly clock: Clock;
  readonly onWebhook?: ((event: DelivererEvent) => void) | undefined;
}

/** How long a batch waits that nobody asks for. */
const WALK_MS = 60_000;

export class Chores {
  /** For whoever ends jobs and batches: what it records is sent without delay. */
  readonly outbox: Outbox;
  readonly #deliverer: Deliverer;
  readonly #o: ChoresOptions;
  #walk: Rounds | null = null;

  constructor(options: ChoresOptions) {
    const { store, keys, publicUrl, webhooksToLoopback, log, clock, onWebhook } = this.#o = options;
    this.#deliverer = new Deliverer({
      store, keys, clock, publicUrl,
      sender: createNodeSender({ allowLoopback: webhooksToLoopback }),
      onEvent: (event) => {
        onWebhook?.(event);
        webhookLog(log, event);
      },
    });
    this.outbox = new Outbox({ store, clock, onRecorded: this.ring });
  }

  /** Something may be due. */
  readonly ring = (): void => this.#deliverer.ring();

  start(batches: Pick<Batches, 'walk'>): void {
    const { log, clock } = this.#o;
    this.#deliverer.start();
    this.#walk ??= new Rounds({ everyMs: WALK_MS, work: (signal) => batches.walk({ signal }), onTrouble: (error) => log.warn({ err: error }, 'batches could not be walked'), clock });
  }

  /** What has not stopped after `deadlineMs` is left: others do it again. */
  async stop(deadlineMs: number): Promise<void> {
    await unlessLater(this.#o.clock, deadlineMs, Promise.all([this.#deliverer.stop(), this.#walk?.stop()]));
  }
}
