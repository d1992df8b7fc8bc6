/** The walk that makes up for lost messages and dead workers: every job that has not ended, and has not moved for a while (DESIGN.md 2). */
import { EngineError } from '../core/errors.ts';
import { inParallel } from '../core/waiting.ts';
import type { CallOptions, ListedObject, ObjectStore } from '../ports/object-store.ts';
import { putFirstHead } from './create.ts';
import { isTerminal, type Head } from './head.ts';
import { liveHints, livePrefix, parseLiveKey, readMarker } from './hints.ts';
import type { JobKey } from './names.ts';
import { protocolOf, type Protocol, type ProtocolOptions } from './protocol.ts';
import { checkpointError } from './reason.ts';
import { isMissing, readHead, readSpec } from './read.ts';
import { COMMIT_INTERVAL_MS, silentMs, STILL_INTERVALS } from './take.ts';

/** What earlier walks saw, by marker: the caller keeps it between walks. Without it a walk only begins to watch. */
export type Sightings = Map<string, { readonly writeNonce: string; readonly sinceMs: number }>;

export interface ReconcileOptions extends ProtocolOptions {
  /** From 0 to `LIVE_SHARDS` - 1; default: all of them, in one listing. */
  readonly shard?: number | undefined;
  /** On the walker's own clock, of those that run at most as long as their owner may be silent; 0: all that live. Default: as long as a taker waits. */
  readonly unmovedMs?: number | undefined;
  /** Whether the owner of a running head is known not to live any more: then nobody waits for a sign of life. */
  readonly isOwnerGone?: ((owner: string) => boolean) | undefined;
  /** Each job that was met and has not ended; `markedAtMs`: by the store's clock, if it has one. */
  readonly onAlive?: ((alive: Alive) => void) | undefined;
  /** For a job that has ended and still has its marker: does what is left to do, and removes it. Default: only that. */
  readonly onEnded?: ((where: JobKey, options: CallOptions) => Promise<void>) | undefined;
}

export interface Alive {
  readonly where: JobKey;
  readonly head: Head;
  readonly markedAtMs: number | undefined;
}

export type Finding =
  /** Nobody has written it for so long, or its owner is gone: whoever can should send its slice again. Nothing is lost if its owner lives after all. */
  | { readonly kind: 'unmoved'; readonly where: JobKey; readonly head: Head }
  /** A head or marker that cannot be read, with the reason: somebody must look at it. The walk goes on. */
  | { readonly kind: 'unreadable'; readonly key: string; readonly error: EngineError };

/**
 * Finishes births that died before the head, and removes the markers of jobs that have ended. Any number of walks may run at once.
 * @throws EngineError ERR_STORE, ERR_CANCELLED.
 */
export async function* reconcile(store: ObjectStore, seen: Sightings, options: ReconcileOptions = {}): AsyncIterable<Finding> {
  const protocol = protocolOf(store, options);
  const { shard, signal, unmovedMs = STILL_INTERVALS * COMMIT_INTERVAL_MS, isOwnerGone, onAlive } = options;
  const onEnded = options.onEnded ?? (async (where: JobKey, call: CallOptions) => await store.delete(liveHints(where), call));
  const prefix = livePrefix(shard);
  const met = new Set<string>();
  for await (const { key, markedAtMs, looked } of lookedAt(protocol, store.list(prefix, { signal }), onEnded, signal)) {
    if (looked === null) continue;
    met.add(key);
    if (looked.kind === 'unreadable') {
      yield looked;
      continue;
    }
    const { where, head } = looked;
    const { state, owner } = head;
    onAlive?.({ where, head, markedAtMs });
    const isGone = state === 'running' && isOwnerGone?.(owner) === true;
    // One that runs is as soon due as its owner has said that it writes.
    const dueMs = state === 'running' ? Math.min(unmovedMs, silentMs(owner)) : unmovedMs;
    if (isGone || isUnmoved(seen, key, head.writeNonce, protocol.clock.nowMs(), dueMs)) yield looked;
  }
  for (const key of seen.keys()) if (key.startsWith(prefix) && !met.has(key)) seen.delete(key);
}

/** Heads that are read at once: one after another, those of some thousand jobs would take minutes. */
const LOOKS_AT_ONCE = 16;

interface Looked {
  readonly key: string;
  readonly markedAtMs: number | undefined;
  readonly looked: Finding | null;
}

/** In the order of the listing. */
async function* lookedAt(protocol: Protocol, markers: AsyncIterable<ListedObject>, onEnded: NonNullable<ReconcileOptions['onEnded']>, signal: AbortSignal | undefined): AsyncGenerator<Looked> {
  const looksAt = async (some: readonly ListedObject[]) => await inParallel(some.length, LOOKS_AT_ONCE, signal, async (i, stop): Promise<Looked> => {
    const { key, writtenAtMs: markedAtMs } = some[i] as ListedObject;
    return { key, markedAtMs, looked: await look(protocol, key, onEnded, stop) };
  });
  let some: ListedObject[] = [];
  for await (const marker of markers) {
    if (some.push(marker) < LOOKS_AT_ONCE) continue;
    yield* await looksAt(some);
    some = [];
  }
  yield* await looksAt(some);
}

/** null: the job has ended, and its marker is gone. */
async function look(protocol: Protocol, key: string, onEnded: NonNullable<ReconcileOptions['onEnded']>, signal: AbortSignal | undefined): Promise<Finding | null> {
  const { store } = protocol;
  try {
    const where = parseLiveKey(key);
    if (where === null) throw checkpointError('damaged', `${key} is no marker`);
    const head = (await readHead(store, where, { signal }))?.head ?? (await finishBirth(protocol, where, signal));
    if (head !== null && !isTerminal(head.state)) return { kind: 'unmoved', where, head };
    if (head !== null) await onEnded(where, { signal });
    return null;
  } catch (error) {
    if (error instanceof EngineError && error.code === 'ERR_CHECKPOINT') return { kind: 'unreadable', key, error };
    throw error;
  }
}

/** The client died between the marker and the head; its spec was there before either. null: the marker is gone again. */
async function finishBirth(protocol: Protocol, where: JobKey, signal: AbortSignal | undefined): Promise<Head | null> {
  const { store, digestKey } = protocol;
  const marker = await readMarker(store, where, { signal });
  if (marker === null) return null;
  const { spec } = marker;
  try {
    await readSpec(store, where, spec, { signal, digestKey });
  } catch (error) {
    // Born and erased, or born of another spec, since the head was looked for?
    const stored = isMissing(error) ? await readHead(store, where, { signal }) : null;
    if (stored === null) throw error;
    return stored.head;
  }
  return await putFirstHead(protocol, where, marker, signal);
}

/** A garbage collection keeps the nonce, and so is no sign of life. */
export function isUnmoved(seen: Sightings, key: string, writeNonce: string, nowMs: number, unmovedMs: number): boolean {
  const before = seen.get(key);
  const sinceMs = before?.writeNonce === writeNonce ? before.sinceMs : nowMs;
  seen.set(key, { writeNonce, sinceMs });
  return nowMs - sinceMs >= unmovedMs;
}
