/**
 * How fast workers are, by model, as they say it of themselves in the store: `rate/<hash of the model's name>`, the last one who measured. Hints: whoever has no
 * worker at hand (a scheduled function, an API before the first worker has come) estimates with them, and nothing else is decided by them.
 */
import { textOfBytes, utf8Of } from '../core/bytes.ts';
import type { Clock } from '../core/clock.ts';
import { Kept } from '../core/kept.ts';
import { throwIfCancelled } from '../core/waiting.ts';
import { paceAt } from '../job/pace.ts';
import { sha256 } from '../kv/canonical.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';

/** By what a rate is known: `jobs` of the model that a worker has run, or its `probe` (job/pace.ts), a few steps of which no job has anything. */
export type Basis = 'jobs' | 'probe';

export interface Speed {
  readonly tokensPerSecond: number;
  readonly basis: Basis;
}

/** As it is in the store. Of a probe it is of 8 chains. */
export interface StoredRate extends Speed {
  /** Of a probe: of a chain that is alone. */
  readonly one?: number | undefined;
}

export interface ModelRates {
  /** Planned tokens that a worker retires in a second in which it has work of the model (work.ts). null: nobody has measured it, or another variant of it. */
  of(model: string): number | null;
  /** For a job with so many chains, all of them together. */
  speed(model: string, width: number): Speed | null;
}

const PREFIX = 'rate/';
const BYTES_MAX = 1_000;
const MODELS_MAX = 1_000;
const FORMAT = 'ruminate-rate/1';

/** Names of models have what keys cannot have, and may be long. */
function rateKey(model: string): string {
  return PREFIX + sha256(model).slice(0, 32);
}

/** A probe is not told where jobs have measured it. @throws EngineError ERR_STORE, ERR_CANCELLED. */
export async function putRate(store: ObjectStore, model: string, rate: StoredRate, { signal }: CallOptions = {}): Promise<void> {
  const key = rateKey(model);
  const body = [utf8Of(JSON.stringify({ format: FORMAT, model, ...rate }))];
  const before = rate.basis === 'jobs' ? undefined : await readRate(store, key, { signal });
  if (before === undefined) await store.put(key, body, { signal });
  else if (before?.rate.basis !== 'jobs') await store.put(key, body, { condition: before === null ? { kind: 'if_absent' } : { kind: 'if_match', etag: before.etag }, signal });
}

/** What cannot be read is left out. @throws EngineError ERR_STORE, ERR_CANCELLED. */
export async function readRates(store: ObjectStore, { signal }: CallOptions = {}): Promise<ReadonlyMap<string, StoredRate>> {
  const rates = new Map<string, StoredRate>();
  for await (const { key, bytes } of store.list(PREFIX, { signal })) {
    if (bytes > BYTES_MAX || rates.size >= MODELS_MAX) continue;
    const found = await readRate(store, key, { signal });
    if (found !== null) rates.set(found.model, found.rate);
  }
  return rates;
}

/** null: there is none, or it is none. */
async function readRate(store: ObjectStore, key: string, { signal }: CallOptions): Promise<{ readonly model: string; readonly rate: StoredRate; readonly etag: string } | null> {
  const found = await store.get(key, { bytesMax: BYTES_MAX, signal });
  if (found === null) return null;
  const { format, model, tokensPerSecond, basis, one } = parse(textOfBytes(found.chunks));
  if (format !== FORMAT || typeof model !== 'string' || rateKey(model) !== key || !isRate(tokensPerSecond)) return null;
  // Those of before there were probes say no basis.
  return { model, etag: found.etag, rate: basis === 'probe' && isRate(one) ? { tokensPerSecond, basis, one } : { tokensPerSecond, basis: 'jobs' } };
}

/** A job may name a model without its variant, whose worker knows which one it is. */
export function modelRates(rates: ReadonlyMap<string, StoredRate>): ModelRates {
  const ofBase = new Map<string, StoredRate[]>();
  for (const [name, rate] of rates) ofBase.set(baseOf(name), [...(ofBase.get(baseOf(name)) ?? []), rate]);
  const alike = (model: string): readonly StoredRate[] => {
    const its = rates.get(model);
    return its === undefined ? (ofBase.get(baseOf(model)) ?? []) : [its];
  };
  return {
    of: (model) => meanOf(alike(model).map(({ tokensPerSecond }) => tokensPerSecond)),
    speed(model, width) {
      const all = alike(model);
      const tokensPerSecond = meanOf(all.map(({ tokensPerSecond: wide, one }) => (one === undefined ? wide : paceAt({ one, wide }, width))));
      return tokensPerSecond === null ? null : { tokensPerSecond, basis: all.some(({ basis }) => basis === 'probe') ? 'probe' : 'jobs' };
    },
  };
}

/** How fast workers are on a model changes with their machines. */
const FRESH_MS = 60_000;
const NO_RATES = modelRates(new Map());

/** For whoever asks often. */
export class KeptRates {
  readonly #store: ObjectStore;
  readonly #kept: Kept<ModelRates>;

  constructor(store: ObjectStore, clock: Clock) {
    this.#store = store;
    this.#kept = new Kept({ most: 1, forMs: FRESH_MS, clock });
  }

  /** None, if the store does not answer. @throws EngineError ERR_CANCELLED. */
  async now(signal: AbortSignal | undefined): Promise<ModelRates> {
    const rates = await this.#kept.get('', async () => modelRates(await readRates(this.#store)), signal).catch(() => NO_RATES);
    throwIfCancelled(signal);
    return rates;
  }
}

function isRate(value: unknown): value is number {
  return typeof value === 'number' && value > 0 && value < Infinity;
}

function meanOf(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

function baseOf(model: string): string {
  return model.split('@', 1)[0] ?? model;
}

function parse(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
