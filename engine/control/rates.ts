/**
 * How fast workers are, by model, as they say it of themselves in the store: `rate/<hash of the model's name>`, the last one who measured. Hints: whoever has no
 * worker at hand (a scheduled function, an API before the first worker has come) estimates with them, and nothing else is decided by them.
 */
import { textOfBytes, utf8Of } from '../core/bytes.ts';
import type { Clock } from '../core/clock.ts';
import { Kept } from '../core/kept.ts';
import { throwIfCancelled } from '../core/waiting.ts';
import { sha256 } from '../kv/canonical.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';

/** Planned tokens that a worker retires in a second in which it has work of the model (work.ts). */
export interface ModelRates {
  /** null: nobody has measured it, or another variant of it. */
  of(model: string): number | null;
}

const PREFIX = 'rate/';
const BYTES_MAX = 1_000;
const MODELS_MAX = 1_000;
const FORMAT = 'ruminate-rate/1';

/** Names of models have what keys cannot have, and may be long. */
function rateKey(model: string): string {
  return PREFIX + sha256(model).slice(0, 32);
}

/** @throws EngineError ERR_STORE, ERR_CANCELLED. */
export async function putRate(store: ObjectStore, model: string, tokensPerSecond: number, { signal }: CallOptions = {}): Promise<void> {
  await store.put(rateKey(model), [utf8Of(JSON.stringify({ format: FORMAT, model, tokensPerSecond }))], { signal });
}

/** What cannot be read is left out. @throws EngineError ERR_STORE, ERR_CANCELLED. */
export async function readRates(store: ObjectStore, { signal }: CallOptions = {}): Promise<ReadonlyMap<string, number>> {
  const rates = new Map<string, number>();
  for await (const { key, bytes } of store.list(PREFIX, { signal })) {
    if (bytes > BYTES_MAX || rates.size >= MODELS_MAX) continue;
    const found = await store.get(key, { bytesMax: BYTES_MAX, signal });
    const { format, model, tokensPerSecond } = parse(found === null ? '' : textOfBytes(found.chunks));
    if (format === FORMAT && typeof model === 'string' && rateKey(model) === key && typeof tokensPerSecond === 'number' && tokensPerSecond > 0 && tokensPerSecond < Infinity) rates.set(model, tokensPerSecond);
  }
  return rates;
}

/** A job may name a model without its variant, whose worker knows which one it is. */
export function modelRates(rates: ReadonlyMap<string, number>): ModelRates {
  const ofBase = new Map<string, number[]>();
  for (const [name, rate] of rates) ofBase.set(baseOf(name), [...(ofBase.get(baseOf(name)) ?? []), rate]);
  const means = new Map([...ofBase].map(([base, some]) => [base, some.reduce((sum, rate) => sum + rate, 0) / some.length]));
  return { of: (model) => rates.get(model) ?? means.get(baseOf(model)) ?? null };
}

/** How fast workers are on a model changes with their machines. */
const FRESH_MS = 60_000;
const NO_RATES: ModelRates = { of: () => null };

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
