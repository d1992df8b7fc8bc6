/**
 * From something that has ended to what hooks are told of it. The marker of a job stays until this is done, so that whoever dies between is followed
 * by the reconciler; and each delivery has a name that follows from hook and job and is written once, so that many who record it record one.
 */
import { timeOf, ulidOf } from '../control/ids.ts';
import { readOnce, writeOnce } from '../control/records.ts';
import { DEFAULT_RETENTION, type Retention, keepFrom } from '../control/retention.ts';
import { type Clock, wallClockMs } from '../core/clock.ts';
import { inParallel } from '../core/waiting.ts';
import { readJob } from '../kv/create.ts';
import { type Head, isTerminal } from '../kv/head.ts';
import { liveHints, readMarker } from '../kv/hints.ts';
import type { JobKey } from '../kv/names.ts';
import { readHead } from '../kv/read.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { type EventType, eventsOf, familyOf, wants } from './events.ts';
import { type DeliveryRecord, type HookRecord, HOOK_ID, deliveryFolder, deliveryRecord, dueKey, hookRecord, hooksFolder } from './records.ts';

export interface OutboxOptions {
  readonly store: ObjectStore;
  /** Something is due: whoever sends in this process need not wait to find it. */
  readonly onRecorded?: (() => void) | undefined;
  /** How long what a job leaves is kept. Default: its KV for 7 days. */
  readonly retention?: Retention | undefined;
  readonly clock?: Clock | undefined;
  /** Of the wall clock. */
  readonly nowMs?: (() => number) | undefined;
}

export interface EndedOptions extends CallOptions {
  /** The job's head, which the caller has just written or read. A terminal state is final, so that it need not be read again. */
  readonly ended?: Head | undefined;
}

/** Of the store at a time. */
const AT_ONCE = 4;

export class Outbox {
  readonly #o: OutboxOptions;

  constructor(options: OutboxOptions) {
    this.#o = options;
  }

  /**
   * Records what is to be told of a job that has ended, and until when it is kept, and then removes its marker. Any number of times, by anyone.
   * @throws EngineError ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED: the marker stays, and the reconciler comes again.
   */
  async jobEnded(where: JobKey, { ended, ...options }: EndedOptions = {}): Promise<void> {
    const { store, clock, nowMs = wallClockMs, retention = DEFAULT_RETENTION } = this.#o;
    const state = (ended ?? (await readHead(store, where, options))?.head)?.state;
    if (state === undefined || !isTerminal(state)) return;
    if (state !== 'erased') await keepFrom(store, where, { retention, nowMs: nowMs(), clock, ...options });
    const hooks = await readHooks(store, where.tenant, options);
    if (hooks.length > 0) {
      const { head, manifest } = await readJob(store, where, options);
      const via = (await readMarker(store, where, options))?.via ?? null;
      const whole = manifest?.chains.some(({ finish }) => finish === 'stop') ?? false;
      await this.#record(hooks, where.tenant, where.job, eventsOf(head.state, via, whole), options);
    }
    await store.delete(liveHints(where), options);
  }

  /** @throws EngineError ERR_STORE, ERR_CANCELLED. */
  async batchEnded(tenant: string, batch: string, type: EventType, options: CallOptions = {}): Promise<void> {
    await this.#record(await readHooks(this.#o.store, tenant, options), tenant, batch, [type], options);
  }

  async #record(hooks: readonly HookRecord[], tenant: string, subject: string, types: readonly EventType[], options: CallOptions): Promise<void> {
    const { store, clock, nowMs = wallClockMs, onRecorded } = this.#o;
    const wanted = hooks.flatMap(({ id: hook, events }) => types.filter((type) => wants(events, type)).map((type) => ({ hook, type })));
    await inParallel(wanted.length, AT_ONCE, options.signal, async (i, signal) => {
      const { hook, type } = wanted[i] as (typeof wanted)[number];
      const key = { tenant, hook, id: deliveryId(hook, type, subject) };
      const asked: DeliveryRecord = { kind: 'delivery', tenant, id: key.id, hook, type, subject, createdMs: nowMs() };
      const kept = await writeOnce(store, `${deliveryFolder(key)}delivery.json`, deliveryRecord, asked, { clock, signal });
      // After the delivery: who finds the hint finds what it is of. Of one that is over the hint is removed by whoever looks.
      await store.put(dueKey(kept.createdMs, key), [], { signal });
    });
    if (wanted.length > 0) onRecorded?.();
  }
}

/** In order of making; one that was just deleted is left out. @throws EngineError ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED. */
export async function readHooks(store: ObjectStore, tenant: string, { signal }: CallOptions = {}): Promise<readonly HookRecord[]> {
  const folder = hooksFolder(tenant);
  const ids: string[] = [];
  for await (const { key } of store.list(folder, { signal })) {
    const [id = '', name] = key.slice(folder.length).split('/');
    if (name === 'hook.json' && HOOK_ID.test(id)) ids.push(id);
  }
  const hooks = await inParallel(ids.length, AT_ONCE, signal, async (i, stop) => await readHook(store, tenant, ids[i] ?? '', { signal: stop }));
  return hooks.filter((hook) => hook !== null);
}

/** null: there is none of that name. */
export async function readHook(store: ObjectStore, tenant: string, id: string, options: CallOptions = {}): Promise<HookRecord | null> {
  return HOOK_ID.test(id) ? await readOnce(store, `${hooksFolder(tenant)}${id}/hook.json`, hookRecord, { tenant, id }, options) : null;
}

/** A ULID of the time at which what it tells of was made, if its name says so: the same for whoever records it. One for each family of events. */
function deliveryId(hook: string, type: EventType, subject: string): string {
  const ulid = /[0-9A-HJKMNP-TV-Z]{26}$/.exec(subject)?.[0] ?? '';
  const time = timeOf(ulid) === null ? '0'.repeat(10) : ulid.slice(0, 10);
  return `msg_${ulidOf(time, `${hook}/${familyOf(type)}/${subject}`)}`;
}
