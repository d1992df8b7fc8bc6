/** Hooks and their deliveries, as a tenant manages them. Another tenant's lie under another prefix, so that no id of them means anything here. */
import { inParallel } from '../core/waiting.ts';
import { type Clock, wallClockMs } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { indexAfter, jobIds } from '../control/ids.ts';
import type { CallerOptions, ListOptions } from '../control/platform.ts';
import { writeOnce } from '../control/records.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import { type AddressRules, parseTarget } from './address.ts';
import { type Delivery, namesIn, readDelivery } from './delivery.ts';
import { EVENT_PATTERNS } from './events.ts';
import { readHook, readHooks } from './outbox.ts';
import { DELIVERY_ID, type HookRecord, deliveriesFolder, deliveryFolder, dueKey, hookRecord, hooksFolder, roundRecord } from './records.ts';
import { addSecret, dropOldSecrets } from './secrets.ts';

export interface WebhooksOptions extends AddressRules {
  readonly store: ObjectStore;
  /** null: secrets are stored in the clear, as jobs are. */
  readonly keys: KeyProvider | null;
  /** Something is due: whoever sends in this process need not wait to find it. */
  readonly onRecorded?: (() => void) | undefined;
  readonly clock?: Clock | undefined;
  /** Of the wall clock. */
  readonly nowMs?: (() => number) | undefined;
}

export interface HookView {
  readonly id: string;
  readonly url: string;
  readonly events: readonly string[];
  readonly createdMs: number;
}

export interface DeliveryView extends Omit<Delivery, 'record' | 'last'> {
  readonly id: string;
  readonly type: string;
  readonly subject: string;
  readonly createdMs: number;
  /** Of the last attempt; null: nobody has answered. */
  readonly status: number | null;
  /** Why nobody has; null: somebody has, or there was no attempt. */
  readonly fault: string | null;
}

/** Of the store at a time. */
const AT_ONCE = 8;

/** @example new Webhooks({ store, keys: null, allowLoopback: false }) */
export class Webhooks {
  readonly #o: WebhooksOptions;
  readonly #nowMs: () => number;
  readonly #newId = jobIds();

  constructor(options: WebhooksOptions) {
    this.#o = options;
    this.#nowMs = options.nowMs ?? wallClockMs;
  }

  /** The secret is told here and never again. @throws EngineError ERR_OPTION, ERR_KEY, ERR_STORE, ERR_CANCELLED. */
  async create({ url, events, tenant, signal }: CallerOptions & { readonly url: string; readonly events: readonly string[] }): Promise<HookView & { readonly secret: string }> {
    const { store, keys, clock } = this.#o;
    const target = parseTarget(url, this.#o);
    const unknown = events.find((event) => !(EVENT_PATTERNS as readonly string[]).includes(event));
    if (unknown !== undefined || events.length === 0) throw new EngineError('ERR_OPTION', `events must be some of ${EVENT_PATTERNS.join(', ')}.`);
    if ((await readHooks(store, tenant, { signal })).length >= LIMITS.WEBHOOKS_MAX) throw new EngineError('ERR_OPTION', `A tenant may have at most ${LIMITS.WEBHOOKS_MAX} webhooks; delete one first.`);
    const createdMs = this.#nowMs();
    const id = `we_${this.#newId(createdMs)}`;
    // The secret first: a hook that is there can sign.
    const secret = await addSecret({ store, keys, tenant, hook: id }, createdMs, { clock, signal });
    const record: HookRecord = { kind: 'hook', tenant, id, createdMs, url: target.href, events: [...new Set(events)] };
    return { ...viewOf(await writeOnce(store, `${hooksFolder(tenant)}${id}/hook.json`, hookRecord, record, { clock, signal })), secret };
  }

  async list({ tenant, signal }: CallerOptions): Promise<readonly HookView[]> {
    return (await readHooks(this.#o.store, tenant, { signal })).map(viewOf);
  }

  /** @throws EngineError ERR_WEBHOOK_NOT_FOUND. */
  async get(id: string, options: CallerOptions): Promise<HookView> {
    return viewOf(await this.#hook(id, options));
  }

  /** What is due to it is not sent any more. @throws EngineError ERR_WEBHOOK_NOT_FOUND. */
  async delete(id: string, options: CallerOptions): Promise<void> {
    await this.#hook(id, options);
    const { store } = this.#o;
    const folder = `${hooksFolder(options.tenant)}${id}/`;
    await store.delete([`${folder}hook.json`], options);
    for (const left of [folder, deliveriesFolder(options.tenant, id)]) await store.delete((await namesIn(store, left, options)).map((name) => left + name), options);
  }

  /** A new secret, which is told here and never again; the one before it signs for another day. @throws EngineError ERR_WEBHOOK_NOT_FOUND, ERR_KEY. */
  async rotate(id: string, options: CallerOptions): Promise<HookView & { readonly secret: string }> {
    const hook = await this.#hook(id, options);
    const { store, keys, clock } = this.#o;
    const place = { store, keys, tenant: options.tenant, hook: id };
    const secret = await addSecret(place, this.#nowMs(), { clock, signal: options.signal });
    await dropOldSecrets(place, { signal: options.signal });
    return { ...viewOf(hook), secret };
  }

  /** Newest first, by the making of what they tell of. @throws EngineError ERR_WEBHOOK_NOT_FOUND, ERR_OPTION: `after` is no id of a delivery. */
  async deliveries(id: string, { limit, after, ...options }: ListOptions): Promise<{ readonly deliveries: readonly DeliveryView[]; readonly more: boolean }> {
    const { tenant, signal } = options;
    await this.#hook(id, options);
    const folder = deliveriesFolder(tenant, id);
    const names = new Map<string, string[]>();
    for (const path of await namesIn(this.#o.store, folder, { signal })) {
      const [delivery = '', name = ''] = path.split('/');
      if (DELIVERY_ID.test(delivery)) names.set(delivery, [...(names.get(delivery) ?? []), name]);
    }
    const ids = [...names.keys()].sort().toReversed();
    if (after !== undefined && !DELIVERY_ID.test(after)) throw new EngineError('ERR_OPTION', 'after must be the id of a delivery.');
    const start = indexAfter(ids, after, 'desc');
    const page = ids.slice(start, start + limit);
    const found = await inParallel(page.length, AT_ONCE, signal, async (i, stop) =>
      await readDelivery(this.#o.store, { tenant, hook: id, id: page[i] ?? '' }, { signal: stop, names: names.get(page[i] ?? '') ?? [] }));
    return { deliveries: found.flatMap((delivery) => (delivery === null ? [] : [deliveryViewOf(delivery)])), more: ids.length > start + limit };
  }

  /**
   * Sends it once more, with the same webhook-id, and again if that fails. One that waits for its next attempt is tried now.
   * @throws EngineError ERR_WEBHOOK_NOT_FOUND: the hook or the delivery; ERR_OPTION: too often.
   */
  async replay(id: string, delivery: string, options: CallerOptions): Promise<DeliveryView> {
    await this.#hook(id, options);
    const { store, clock, onRecorded } = this.#o;
    const { tenant, signal } = options;
    const key = { tenant, hook: id, id: delivery };
    const found = DELIVERY_ID.test(delivery) ? await readDelivery(store, key, { signal }) : null;
    if (found === null) throw notFound();
    const round = found.round + 1;
    if (round > LIMITS.WEBHOOK_REPLAYS_MAX) throw new EngineError('ERR_OPTION', `A delivery may be replayed at most ${LIMITS.WEBHOOK_REPLAYS_MAX} times.`);
    const atMs = this.#nowMs();
    await writeOnce(store, `${deliveryFolder(key)}round-${round}.json`, roundRecord, { kind: 'round', tenant, id: delivery, round, atMs }, { clock, signal });
    await store.put(dueKey(atMs, key), [], { signal });
    onRecorded?.();
    const after = await readDelivery(store, key, { signal });
    if (after === null) throw notFound();
    return deliveryViewOf(after);
  }

  async #hook(id: string, { tenant, signal }: CallerOptions): Promise<HookRecord> {
    const hook = await readHook(this.#o.store, tenant, id, { signal });
    if (hook === null) throw notFound();
    return hook;
  }
}

function viewOf({ id, url, events, createdMs }: HookRecord): HookView {
  return { id, url, events, createdMs };
}

function deliveryViewOf({ record: { id, type, subject, createdMs }, last, ...rest }: Delivery): DeliveryView {
  return { ...rest, id, type, subject, createdMs, status: last?.status ?? null, fault: last?.fault ?? null };
}

function notFound(): EngineError {
  return new EngineError('ERR_WEBHOOK_NOT_FOUND', 'There is no such webhook or delivery.');
}
