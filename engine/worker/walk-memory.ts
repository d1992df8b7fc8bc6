/**
 * What walks remember, for walkers that do not last from one to the next: without it none would ever see that a job has not moved. One object in the
 * store, of which the last writer wins; times are of the wall clock. A hint, as all that a walk goes by: a lost one only makes the next begin to watch again.
 */
import { textOfBytes, utf8Of } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';
import { parseLiveKey } from '../kv/hints.ts';
import { jobPrefix } from '../kv/names.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import type { WalkMemory } from './reconciler.ts';

const KEY = 'walk/memory.json';
const FORMAT = 'ruminate-walk/1';
/** Of more than a hundred thousand jobs. */
const BYTES_MAX = 32 * 2 ** 20;

/**
 * Empty, if there is none that can be read. @param nowMs what lies beyond it was written by a clock that was wrong, and counts as of now: else nothing
 * would be sent again until then. @throws EngineError ERR_STORE, ERR_CANCELLED.
 */
export async function readWalkMemory(store: ObjectStore, nowMs: number, { signal }: CallOptions = {}): Promise<WalkMemory> {
  const found = await store.get(KEY, { range: { offset: 0, bytes: BYTES_MAX }, bytesMax: BYTES_MAX, signal });
  return (found === null ? null : parse(textOfBytes(found.chunks), nowMs)) ?? { seen: new Map(), sent: new Map(), due: new Map() };
}

/**
 * Of more than can be read again, the jobs that have not moved for longest: those are sent again, then move, and make room.
 * @param bytesMax tests pass less. @throws EngineError ERR_STORE, ERR_CANCELLED.
 */
export async function writeWalkMemory(store: ObjectStore, memory: WalkMemory, { signal, bytesMax = BYTES_MAX }: CallOptions & { readonly bytesMax?: number } = {}): Promise<void> {
  const stillest = [...memory.seen].sort(([, a], [, b]) => a.sinceMs - b.sinceMs);
  let body = bytesOf(memory, stillest);
  while (body.byteLength > bytesMax && stillest.length > 0) {
    stillest.length >>= 1;
    // Of the other two the keys are those of the jobs.
    const kept = new Set(stillest.map(([key]) => parseLiveKey(key)).map((where) => (where === null ? '' : jobPrefix(where))));
    const among = <T>(map: ReadonlyMap<string, T>) => new Map([...map].filter(([key]) => kept.has(key)));
    body = bytesOf({ sent: among(memory.sent), due: among(memory.due) }, stillest);
  }
  const outcome = await store.put(KEY, [body], { signal });
  if (outcome.kind !== 'written') throw new EngineError('ERR_STORE', `${store.url}: ${KEY} was not written (${outcome.kind}).`);
}

function bytesOf({ sent, due }: Pick<WalkMemory, 'sent' | 'due'>, seen: readonly (readonly [string, { readonly writeNonce: string; readonly sinceMs: number }])[]): Uint8Array {
  return utf8Of(JSON.stringify({
    format: FORMAT,
    seen: seen.map(([key, { writeNonce, sinceMs }]) => [key, writeNonce, Math.round(sinceMs)]),
    sent: [...sent].map(([key, { writeNonce, atMs, times }]) => [key, writeNonce, Math.round(atMs), times]),
    due: [...due],
  }));
}

/** null: it is none of ours. */
function parse(text: string, nowMs: number): WalkMemory | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  const { format, seen, sent, due = [] } = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  if (format !== FORMAT || !Array.isArray(seen) || !Array.isArray(sent) || !Array.isArray(due)) return null;
  const memory: WalkMemory = { seen: new Map(), sent: new Map(), due: new Map() };
  for (const entry of seen as unknown[]) {
    const [key, writeNonce, sinceMs] = rowOf(entry);
    if (typeof key === 'string' && typeof writeNonce === 'string' && typeof sinceMs === 'number') memory.seen.set(key, { writeNonce, sinceMs: Math.min(sinceMs, nowMs) });
  }
  for (const entry of sent as unknown[]) {
    const [key, writeNonce, atMs, times] = rowOf(entry);
    if (typeof key === 'string' && typeof writeNonce === 'string' && typeof atMs === 'number' && typeof times === 'number') memory.sent.set(key, { writeNonce, atMs: Math.min(atMs, nowMs), times });
  }
  for (const entry of due as unknown[]) {
    const [key, atMs] = rowOf(entry);
    if (typeof key === 'string' && (typeof atMs === 'number' || atMs === null)) memory.due.set(key, atMs);
  }
  return memory;
}

function rowOf(entry: unknown): readonly unknown[] {
  return Array.isArray(entry) ? (entry as unknown[]) : [];
}
