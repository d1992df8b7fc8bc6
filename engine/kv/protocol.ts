/** What every part of the protocol is given: a store, time, chance and a deadline. */
import { hexOf, randomBytes } from '../core/bytes.ts';
import { systemClock, type Clock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { pause } from '../core/waiting.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';

export interface ProtocolOptions extends CallOptions {
  /** Monotonic. */
  readonly clock?: Clock | undefined;
  /** From 0 to below 1, for the jitter of pauses. */
  readonly random?: (() => number) | undefined;
  /** 16 bytes as hex, never the same twice. */
  readonly nonce?: (() => string) | undefined;
  /** The tenant's, 32 bytes: digests of what is written and read are keyed with it. */
  readonly digestKey?: Uint8Array | undefined;
  /** For one logical write of a head, resends and pauses included. */
  readonly deadlineMs?: number | undefined;
}

export interface Protocol {
  readonly store: ObjectStore;
  readonly clock: Clock;
  readonly random: () => number;
  readonly nonce: () => string;
  readonly digestKey: Uint8Array | undefined;
  readonly deadlineMs: number;
}

const DEADLINE_MS = 60_000;
const BACKOFF_MS = 50;
const BACKOFF_MS_MAX = 5_000;

export function protocolOf(store: ObjectStore, options: ProtocolOptions): Protocol {
  return {
    store,
    clock: options.clock ?? systemClock,
    random: options.random ?? Math.random,
    nonce: options.nonce ?? (() => hexOf(randomBytes(16))),
    digestKey: options.digestKey,
    deadlineMs: options.deadlineMs ?? DEADLINE_MS,
  };
}

/** Pauses between attempts, longer each time, with full jitter. The returned function throws ERR_STORE when the deadline would pass. */
export function attempts({ clock, random, deadlineMs }: Protocol, what: string, signal: AbortSignal | undefined): () => Promise<void> {
  const endsMs = clock.nowMs() + deadlineMs;
  let made = 0;
  return async () => {
    const delayMs = random() * Math.min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** made++);
    if (clock.nowMs() + delayMs >= endsMs) throw new EngineError('ERR_STORE', `${what}: undecided after ${made} attempts in ${deadlineMs} ms.`);
    await pause(clock, delayMs, signal);
  };
}
