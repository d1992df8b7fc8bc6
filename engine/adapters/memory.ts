/**
 * `memory:`: a store for tests, ours and those of whoever builds on the engine. Deterministic: no timer but the injected clock's, no
 * randomness but the plan's. It fails as planned (memory-faults.ts), stops where a hook wants it to, and logs every operation.
 */
import { systemClock, type Clock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import type {
  Body, CallOptions, Condition, GetOptions, ListedObject, ObjectInfo, ObjectStore, PutOptions, PutOutcome, StoredBody,
} from '../ports/object-store.ts';
import { bytesOf, sliceOf, wantedOf } from './body.ts';
import { checkKey, checkPrefix } from './keys.ts';
import type { Fault, FaultPlan, Operation } from './memory-faults.ts';
import { probeConditions } from './probe.ts';
import { pause, throwIfCancelled } from '../core/waiting.ts';

export interface MemoryStoreOptions {
  readonly faults?: FaultPlan;
  readonly clock?: Clock;
  /** Of the wall clock, for when an object was written; default: lists do not say. */
  readonly nowMs?: () => number;
  /** Awaited before an operation looks at the store: whoever holds the promise decides the interleaving. */
  readonly before?: (operation: Operation) => Promise<void> | void;
  /** Awaited after the effect and before the answer. */
  readonly after?: (operation: Operation) => Promise<void> | void;
  /** Reads see the version before the newest. No conforming store does this: it is here for the contract suite to fail. */
  readonly staleReads?: boolean;
}

/** A put that was sent and is still on its way. */
export interface LatePut {
  readonly operation: Operation;
  /** Decides the condition now, as the store would on arrival; a second arrival is none. */
  apply(): PutOutcome;
}

interface Stored {
  readonly bytes: Uint8Array;
  readonly etag: string;
  readonly writtenAtMs: number | undefined;
  readonly before: Stored | null;
}

interface State {
  readonly objects: Map<string, Stored>;
  readonly log: Operation[];
  readonly late: LatePut[];
  writes: number;
}

/**
 * @example
 * const store = new MemoryStore({ faults: plannedFaults({ 0: { kind: 'lost_ack' } }) });
 * await store.put('head', body, { condition: { kind: 'if_absent' } }); // unknown, though it is there
 */
export class MemoryStore implements ObjectStore {
  readonly url = 'memory:';
  readonly #options: MemoryStoreOptions;
  readonly #actor: string;
  readonly #state: State;

  constructor(options: MemoryStoreOptions = {}, actor = '', state: State = { objects: new Map(), log: [], late: [], writes: 0 }) {
    this.#options = options;
    this.#actor = actor;
    this.#state = state;
  }

  /** The same objects, log and faults under another name, so that hooks and plans can tell two workers apart. */
  as(actor: string): MemoryStore {
    return new MemoryStore(this.#options, actor, this.#state);
  }

  get log(): readonly Operation[] {
    return this.#state.log;
  }

  /** Puts on their way, in the order in which they were sent. */
  get late(): readonly LatePut[] {
    return this.#state.late;
  }

  /** What is stored now, by key: no operation, no fault. */
  snapshot(): ReadonlyMap<string, Uint8Array> {
    return new Map([...this.#state.objects].map(([key, { bytes }]) => [key, bytes]));
  }

  get(key: string, options: GetOptions): Promise<StoredBody | null> {
    return this.#run('get', key, options, (fault) => {
      const stored = this.#visible(key);
      if (stored === null) return null;
      const { offset, bytes } = wantedOf(stored.bytes.byteLength, options, key);
      const body = withFault(stored.bytes.slice(offset, offset + bytes), fault);
      return { chunks: body.byteLength === 0 ? [] : [body], bytes: body.byteLength, etag: stored.etag };
    });
  }

  head(key: string, options: CallOptions = {}): Promise<ObjectInfo | null> {
    return this.#run('head', key, options, () => {
      const stored = this.#visible(key);
      return stored === null ? null : { bytes: stored.bytes.byteLength, etag: stored.etag };
    });
  }

  put(key: string, body: Body, options: PutOptions = {}): Promise<PutOutcome> {
    // Taken when the call is made, as a socket would: the caller may use its buffers again afterwards.
    const bytes = Uint8Array.from(sliceOf(body, 0, bytesOf(body)));
    return this.#run('put', key, options, (fault, operation) => {
      const { condition } = options;
      if (fault?.kind === 'refuse' && condition !== undefined) return { kind: 'refused' };
      if (fault?.kind === 'late') {
        let answer: PutOutcome | null = null;
        this.#state.late.push({ operation, apply: () => (answer ??= this.#write(key, bytes, condition)) });
        return noAnswer(condition);
      }
      const outcome = this.#write(key, bytes, condition);
      return fault?.kind === 'lost_ack' ? noAnswer(condition) : outcome;
    });
  }

  async copy(from: string, to: string, options: CallOptions = {}): Promise<boolean> {
    checkKey(from);
    return await this.#run('copy', to, options, () => {
      const source = this.#visible(from);
      if (source !== null) this.#write(to, source.bytes, undefined);
      return source !== null;
    });
  }

  async *list(prefix: string, options: CallOptions = {}): AsyncIterable<ListedObject> {
    const keys = await this.#run('list', prefix, options, () => [...this.#state.objects.keys()].filter((key) => key.startsWith(prefix)).sort());
    for (const key of keys) {
      throwIfCancelled(options.signal);
      const stored = this.#visible(key);
      if (stored !== null) yield { key, bytes: stored.bytes.byteLength, ...(stored.writtenAtMs === undefined ? {} : { writtenAtMs: stored.writtenAtMs }) };
    }
  }

  async delete(keys: readonly string[], options: CallOptions = {}): Promise<void> {
    keys.forEach(checkKey);
    if (keys[0] === undefined) return;
    await this.#run('delete', keys[0], options, () => {
      for (const key of keys) this.#state.objects.delete(key);
    });
  }

  probe(options: CallOptions = {}): Promise<void> {
    return probeConditions(this, options);
  }

  /** Logs, lets the plan and the hooks have their say, then does the work in one step that nothing interleaves with. */
  async #run<T>(kind: Operation['kind'], key: string, options: PutOptions, work: (fault: Fault | null, operation: Operation) => T): Promise<T> {
    if (kind === 'list') checkPrefix(key);
    else checkKey(key);
    throwIfCancelled(options.signal);
    const operation = { index: this.#state.log.length, kind, key, condition: options.condition?.kind ?? null, actor: this.#actor };
    this.#state.log.push(operation);
    const fault = this.#options.faults?.(operation) ?? null;
    await this.#options.before?.(operation);
    if (fault?.kind === 'slow') await pause(this.#options.clock ?? systemClock, fault.delayMs, options.signal);
    throwIfCancelled(options.signal);
    if (fault?.kind === 'fail') throw new EngineError('ERR_STORE', `memory: failed as planned at operation ${operation.index}.`);
    if (fault?.kind === 'vanish') this.#state.objects.delete(key);
    const result = work(fault, operation);
    await this.#options.after?.(operation);
    return result;
  }

  #visible(key: string): Stored | null {
    const stored = this.#state.objects.get(key) ?? null;
    return this.#options.staleReads === true && stored !== null ? stored.before : stored;
  }

  #write(key: string, bytes: Uint8Array, condition: Condition | undefined): PutOutcome {
    const current = this.#state.objects.get(key) ?? null;
    if (condition?.kind === 'if_absent' && current !== null) return { kind: 'refused' };
    if (condition?.kind === 'if_match' && current?.etag !== condition.etag) return { kind: 'refused' };
    const etag = `e${++this.#state.writes}`;
    const before = this.#options.staleReads === true && current !== null ? { ...current, before: null } : null;
    this.#state.objects.set(key, { bytes, etag, writtenAtMs: this.#options.nowMs?.(), before });
    return { kind: 'written', etag };
  }
}

function withFault(bytes: Uint8Array, fault: Fault | null): Uint8Array {
  if (fault?.kind === 'truncate') return bytes.subarray(0, fault.bytes);
  if (fault?.kind === 'damage' && bytes.byteLength > 0) {
    const at = fault.at % bytes.byteLength;
    bytes[at] = (bytes[at] ?? 0) ^ 1;
  }
  return bytes;
}

function noAnswer(condition: Condition | undefined): PutOutcome {
  const cause = new EngineError('ERR_STORE', 'memory: no answer came, as planned.');
  if (condition === undefined) throw cause;
  return { kind: 'unknown', cause };
}
