/**
 * Sends what is due. It keeps no state that matters: what is due is in the store, so that it may be killed at any moment, and any number of them,
 * on any machines, may look after the same deliveries. Each attempt is claimed by a record before it is made; the receiver gets every delivery at
 * least once, always with the same webhook-id. Nobody waits for it: what receivers do is of no concern to jobs and requests.
 */
import { Webhook } from 'standardwebhooks';

import { writeOnce } from '../control/records.ts';
import { hexOf, randomBytes } from '../core/bytes.ts';
import { type Clock, systemClock, wallClockMs } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { Bell, linkSignals, untilAborted } from '../core/waiting.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import type { Reply, Sender } from '../ports/sender.ts';
import { type Delivery, isDelivered, namesIn, readDelivery } from './delivery.ts';
import { readHook } from './outbox.ts';
import { payloadOf } from './payload.ts';
import {
  DUE_PREFIX, type DeliveryKey, type HookRecord, type OutcomeRecord, attemptRecord, deliveryFolder, dueKey, outcomeRecord, parseDueKey,
} from './records.ts';
import { activeSecrets } from './secrets.ts';

/** For logs and metrics: ids, codes and times, never what was sent or where to. */
export type DelivererEvent =
  | { readonly kind: 'sent'; readonly delivery: DeliveryKey; readonly state: Delivery['state']; readonly status: number | null; readonly fault: string | null; readonly ranMs: number }
  | { readonly kind: 'trouble'; readonly delivery: DeliveryKey | null; readonly error: unknown };

export interface DelivererOptions {
  readonly store: ObjectStore;
  /** null: secrets are stored in the clear. */
  readonly keys: KeyProvider | null;
  readonly sender: Sender;
  /** Where this platform is reached from outside, for the links; null: links are paths. */
  readonly publicUrl?: string | null | undefined;
  /** How often the store is asked for what is due, unless something is recorded in this process. Default: 10 s. */
  readonly lookMs?: number | undefined;
  readonly onEvent?: ((event: DelivererEvent) => void) | undefined;
  readonly clock?: Clock | undefined;
  /** Of the wall clock. */
  readonly nowMs?: (() => number) | undefined;
}

const LOOK_MS = 10_000;
const AGENT = 'ruminate-webhooks/1';

export class Deliverer {
  readonly #o: DelivererOptions;
  readonly #clock: Clock;
  readonly #nowMs: () => number;
  readonly #bell = new Bell();
  readonly #stop = new AbortController();
  /** By the folder of the delivery. */
  readonly #running = new Map<string, { readonly hook: string; readonly done: Promise<void> }>();
  #loop: Promise<void> | null = null;

  constructor(options: DelivererOptions) {
    this.#o = options;
    this.#clock = options.clock ?? systemClock;
    this.#nowMs = options.nowMs ?? wallClockMs;
  }

  /** Idempotent. */
  start(): void {
    this.#loop ??= this.#work();
  }

  /** Something may be due. */
  ring(): void {
    this.#bell.ring();
  }

  /**
   * For whoever has only a while: resolves when nothing is due any more, or with the signal; what is on its way then is given up.
   * @throws EngineError ERR_STORE: what is due is not known.
   */
  async deliverDue({ signal }: CallOptions = {}): Promise<void> {
    using stop = linkSignals(signal, this.#stop.signal);
    try {
      while (!stop.signal.aborted) {
        await this.#look(stop.signal);
        if (this.#running.size === 0) return;
        await Promise.race([...this.#running.values()].map(({ done }) => done));
      }
    } catch (error) {
      if (!stop.signal.aborted) throw error;
    } finally {
      await Promise.all([...this.#running.values()].map(({ done }) => done));
    }
  }

  /** What is on its way is given up: another instance, or the next start, sends it again. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#loop;
    await Promise.all([...this.#running.values()].map(({ done }) => done));
  }

  async #work(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      using rung = this.#bell.listen();
      let waitMs = this.#o.lookMs ?? LOOK_MS;
      try {
        waitMs = Math.min(waitMs, await this.#look(signal));
      } catch (error) {
        if (!signal.aborted) this.#say({ kind: 'trouble', delivery: null, error });
      }
      await untilAborted(this.#clock, waitMs, rung.signal, signal);
    }
  }

  /** Begins what is due and may begin. @returns how long until there is more, ms. */
  async #look(signal: AbortSignal): Promise<number> {
    const nowMs = this.#nowMs();
    for await (const { key } of this.#o.store.list(DUE_PREFIX, { signal })) {
      const due = parseDueKey(key);
      if (due === null) continue;
      if (due.atMs > nowMs) return due.atMs - nowMs;
      if (this.#running.size >= LIMITS.WEBHOOKS_IN_FLIGHT) break;
      const folder = deliveryFolder(due.delivery);
      const ofHook = [...this.#running.values()].filter(({ hook }) => hook === due.delivery.hook).length;
      if (this.#running.has(folder) || ofHook >= LIMITS.WEBHOOKS_IN_FLIGHT_A_HOOK) continue;
      const done = this.#handle(key, due.delivery, signal).then((isDone) => {
        this.#running.delete(folder);
        // There is room for one more. After a failure of the store the next look is soon enough.
        if (isDone) this.ring();
      });
      this.#running.set(folder, { hook: due.delivery.hook, done });
    }
    return Infinity;
  }

  /** Never throws. false: it could not be looked after. */
  async #handle(due: string, key: DeliveryKey, signal: AbortSignal): Promise<boolean> {
    const { store } = this.#o;
    try {
      const hook = await readHook(store, key.tenant, key.hook, { signal });
      const delivery = hook === null ? null : await readDelivery(store, key, { signal });
      const nextMs = hook === null || delivery === null ? null : await this.#next(hook, delivery, key, signal);
      if (nextMs === null) await this.#forget(due, key, signal);
      else {
        await store.put(dueKey(nextMs, key), [], { signal });
        await store.delete([due], { signal });
      }
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      this.#say({ kind: 'trouble', delivery: key, error });
      await this.#postpone(due, key, signal);
      return false;
    }
  }

  /** When to look at it again; null: never. */
  async #next(hook: HookRecord, delivery: Delivery, key: DeliveryKey, signal: AbortSignal): Promise<number | null> {
    const nowMs = this.#nowMs();
    const over = (endedMs: number) => (nowMs >= endedMs + LIMITS.WEBHOOK_RETENTION_MS ? null : endedMs + LIMITS.WEBHOOK_RETENTION_MS);
    if (delivery.nextMs === null) return over(delivery.endedMs ?? nowMs);
    if (delivery.nextMs > nowMs) return delivery.nextMs;
    const after = await this.#attempt(hook, delivery, key, signal);
    return after.nextMs ?? over(after.endedMs ?? nowMs);
  }

  /** As it is afterwards: by our attempt, or by that of whoever was sooner. */
  async #attempt(hook: HookRecord, { record, round, attempts: n }: Delivery, key: DeliveryKey, signal: AbortSignal): Promise<Delivery> {
    const { store, keys, sender, publicUrl } = this.#o;
    const { tenant, id } = key;
    const nonce = hexOf(randomBytes(16));
    const name = `${deliveryFolder(key)}${round}-${n}`;
    const options = { clock: this.#clock, signal };
    // Before the claim: what fails here is no attempt.
    const secrets = await activeSecrets({ store, keys, tenant, hook: hook.id }, this.#nowMs(), { signal });
    // Its hook was deleted since: nothing is sent that nobody could verify.
    if (secrets.length === 0) throw new EngineError('ERR_WEBHOOK_NOT_FOUND', 'The webhook was deleted meanwhile.');
    const atMs = this.#nowMs();
    const claim = await writeOnce(store, `${name}.json`, attemptRecord, { kind: 'attempt', tenant, id, round, n, atMs, nonce }, options);
    if (claim.nonce === nonce) {
      const body = payloadOf(record, publicUrl ?? null);
      const startMs = this.#clock.nowMs();
      const reply = await sender.send({ url: hook.url, body, headers: headersOf(id, atMs, body, secrets) }, { signal });
      const outcome: OutcomeRecord = { kind: 'outcome', tenant, id, round, n, atMs: this.#nowMs(), ...resultOf(reply) };
      await writeOnce(store, `${name}-outcome.json`, outcomeRecord, outcome, options);
      const after = await this.#reread(key, signal);
      const state = isDelivered(outcome) ? 'delivered' : after.state;
      this.#say({ kind: 'sent', delivery: key, state, status: outcome.status, fault: outcome.fault, ranMs: this.#clock.nowMs() - startMs });
      return after;
    }
    return await this.#reread(key, signal);
  }

  async #reread(key: DeliveryKey, signal: AbortSignal): Promise<Delivery> {
    const found = await readDelivery(this.#o.store, key, { signal });
    if (found === null) throw new EngineError('ERR_FENCED', 'The delivery was deleted meanwhile.');
    return found;
  }

  /** Its hook is gone, or it was kept for long enough. */
  async #forget(due: string, key: DeliveryKey, signal: AbortSignal): Promise<void> {
    const { store } = this.#o;
    const folder = deliveryFolder(key);
    await store.delete((await namesIn(store, folder, { signal })).map((name) => folder + name), { signal });
    await store.delete([due], { signal });
  }

  /** What cannot be read now, or a store that fails, must not be asked for again at once and in front of all others. */
  async #postpone(due: string, key: DeliveryKey, signal: AbortSignal): Promise<void> {
    const { store } = this.#o;
    try {
      await store.put(dueKey(this.#nowMs() + POSTPONE_MS, key), [], { signal });
      await store.delete([due], { signal });
    } catch {
      // Then it is, with the next look.
    }
  }

  #say(event: DelivererEvent): void {
    this.#o.onEvent?.(event);
  }
}

const POSTPONE_MS = 60_000;

/** https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md */
function headersOf(id: string, atMs: number, body: string, secrets: readonly string[]): Readonly<Record<string, string>> {
  const at = new Date(atMs);
  return {
    'content-type': 'application/json',
    'user-agent': AGENT,
    'webhook-id': id,
    'webhook-timestamp': `${Math.floor(atMs / 1_000)}`,
    'webhook-signature': secrets.map((secret) => new Webhook(secret).sign(id, at, body)).join(' '),
  };
}

function resultOf(reply: Reply): Pick<OutcomeRecord, 'status' | 'fault'> {
  return reply.kind === 'answered' ? { status: reply.status, fault: null } : { status: null, fault: reply.why };
}
