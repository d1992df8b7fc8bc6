/**
 * Evidence of takes that ended without progress: `strikes/<tenant>/<job>/<epoch>.json`, written once by whoever knows best. The head counts
 * strikes; these only say what happened, to whoever has to look at a job that is poisoned. They hold codes and our own sentences, no prompts.
 */
import { EngineError } from '../core/errors.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { textOf } from './canonical.ts';
import { jobPrefix, type JobKey } from './names.ts';

export interface Strike {
  /** Of the take. */
  readonly epoch: number;
  /** Who had it, as the head says. */
  readonly owner: string;
  /** null: it ended without a word, as a process does that is killed. */
  readonly code: string | null;
  readonly message: string;
  /** Of the wall clock, when it was found. */
  readonly atMs: number;
}

const BYTES_MAX = 4_096;
const MESSAGE_CHARS_MAX = 1_000;
/** Of one job: more than it may strike, for an operator may let it try again. */
const LISTED_MAX = 64;

function strikesPrefix(where: JobKey): string {
  // Checks the names.
  jobPrefix(where);
  return `strikes/${where.tenant}/${where.job}/`;
}

/** The first to say what became of a take is believed: the worker itself, if it could. @throws EngineError ERR_STORE, ERR_CANCELLED. */
export async function putStrike(store: ObjectStore, where: JobKey, strike: Strike, { signal }: CallOptions = {}): Promise<void> {
  const text = JSON.stringify({ ...strike, message: strike.message.slice(0, MESSAGE_CHARS_MAX) });
  await store.put(`${strikesPrefix(where)}${strike.epoch}.json`, [new TextEncoder().encode(text)], { condition: { kind: 'if_absent' }, signal });
}

/** Oldest first; what cannot be read is left out. @throws EngineError ERR_STORE, ERR_CANCELLED. */
export async function readStrikes(store: ObjectStore, where: JobKey, { signal }: CallOptions = {}): Promise<readonly Strike[]> {
  const found: Strike[] = [];
  for await (const { key } of store.list(strikesPrefix(where), { signal })) {
    const strike = await readStrike(store, key, signal);
    if (strike !== null) found.push(strike);
    if (found.length === LISTED_MAX) break;
  }
  return found.sort((a, b) => a.epoch - b.epoch);
}

async function readStrike(store: ObjectStore, key: string, signal: AbortSignal | undefined): Promise<Strike | null> {
  try {
    const stored = await store.get(key, { range: { offset: 0, bytes: BYTES_MAX }, bytesMax: BYTES_MAX, signal });
    if (stored === null) return null;
    const { epoch, owner, code, message, atMs } = JSON.parse(textOf(stored.chunks, 'a strike')) as Record<string, unknown>;
    const known = Number.isSafeInteger(epoch) && typeof owner === 'string' && (code === null || typeof code === 'string') && typeof message === 'string' && Number.isFinite(atMs);
    return known ? ({ epoch, owner, code, message, atMs } as Strike) : null;
  } catch (error) {
    if (error instanceof SyntaxError || (error instanceof EngineError && error.code === 'ERR_CHECKPOINT')) return null;
    throw error;
  }
}

/** @throws EngineError ERR_STORE, ERR_CANCELLED. */
export async function deleteStrikes(store: ObjectStore, where: JobKey, { signal }: CallOptions): Promise<void> {
  const keys: string[] = [];
  for await (const { key } of store.list(strikesPrefix(where), { signal })) keys.push(key);
  await store.delete(keys, { signal });
}
