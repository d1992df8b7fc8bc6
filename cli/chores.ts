/**
 * What a process does for its store beside jobs and requests: it sends webhooks that are due, moves batches on that nobody asks for, and
 * lets go of what jobs have left and nobody is to keep any longer. Any number of
 * processes may, and each that is killed is followed by the others.
 */
import type { Logger } from 'pino';

import { createNodeSender } from '../engine/adapters/sender-node.ts';
import type { Batches } from '../engine/control/batches.ts';
import { type Retention, expireDue } from '../engine/control/retention.ts';
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
  /** false: what is due is left to others. Default: true. */
  readonly delivers?: boolean | undefined;
  /** How long what a job leaves is kept. */
  readonly retention: Retention;
  /** Whether it lets go of what is over: for a worker it is nothing that it need have the right to. */
  readonly collects: boolean;
  readonly log: Logger;
  readonly clock: Clock;
  readonly onWebhook?: ((event: DelivererEvent) => void) | undefined;
}

/** How long what nobody asks for waits. */
const WALK_MS = 60_000;

export class Chores {
  /** For whoever ends jobs and batches: what it records is sent without delay. */
  readonly outbox: Outbox;
  readonly #deliverer: Deliverer;
  readonly #o: ChoresOptions;
  #rounds: readonly Rounds[] = [];

  constructor(options: ChoresOptions) {
    const { store, keys, publicUrl, webhooksToLoopback, retention, log, clock, onWebhook } = this.#o = options;
    this.#deliverer = new Deliverer({
      store, keys, clock, publicUrl,
      sender: createNodeSender({ allowLoopback: webhooksToLoopback }),
      onEvent: (event) => {
        onWebhook?.(event);
        webhookLog(log, event);
      },
    });
    this.outbox = new Outbox({ store, clock, retention, onRecorded: this.ring });
  }

  /** Something may be due. */
  readonly ring = (): void => this.#deliverer.ring();

  start(batches: Pick<Batches, 'walk'>): void {
    const { store, collects, log, clock } = this.#o;
    if (this.#o.delivers !== false) this.#deliverer.start();
    if (this.#rounds.length > 0) return;
    const round = (what: string, work: (signal: AbortSignal) => Promise<void>) => new Rounds({ everyMs: WALK_MS, work, onTrouble: (error) => log.warn({ err: error }, `${what} could not be walked`), clock });
    this.#rounds = [
      round('batches', (signal) => batches.walk({ signal })),
      ...(!collects ? [] : [round('what is over', async (signal) => {
        const { trimmed, erased } = await expireDue(store, { signal, clock, onTrouble: (where, error) => log.warn({ ...where, err: error }, 'a job that is over could not be let go of') });
        if (trimmed + erased > 0) log.info({ trimmed, erased }, 'let go of what was kept for long enough');
      })]),
    ];
  }

  /** What has not stopped after `deadlineMs` is left: others do it again. */
  async stop(deadlineMs: number): Promise<void> {
    await unlessLater(this.#o.clock, deadlineMs, Promise.all([this.#deliverer.stop(), ...this.#rounds.map((round) => round.stop())]));
  }
}
