/** How a delivery stands: a function of the records that are there, so that every instance says the same. */
import { sha256 } from '@noble/hashes/sha2.js';

import { checkpointError } from '../kv/reason.ts';
import { utf8Of } from '../core/bytes.ts';
import { LIMITS } from '../core/limits.ts';
import { readOnce } from '../control/records.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import {
  type AttemptRecord, type DeliveryKey, type DeliveryRecord, type OutcomeRecord, attemptRecord, deliveryFolder, deliveryRecord, outcomeRecord, roundRecord,
} from './records.ts';

/**
 * When attempts are made, each so long after the one before: for about 28 hours, denser while a receiver only restarts. A quarter more at most, at
 * random by delivery and attempt, so that what failed together does not come again together.
 */
export const SCHEDULE_MS: readonly number[] = [0, 5_000, 5 * 60_000, 30 * 60_000, 2 * 3_600_000, 5 * 3_600_000, 10 * 3_600_000, 10 * 3_600_000];
const JITTER = 0.25;
/** An attempt without an outcome by then has died with its instance. Wall clocks of two machines may differ by some of it. */
const SILENT_MS = LIMITS.WEBHOOK_ATTEMPT_MS + 60_000;

export type DeliveryState = 'pending' | 'delivered' | 'failed';

export interface Delivery {
  readonly record: DeliveryRecord;
  readonly state: DeliveryState;
  /** How often somebody asked for it to be sent anew. */
  readonly round: number;
  /** Of this round. */
  readonly attempts: number;
  /** Of all rounds; null: none has come out. */
  readonly last: OutcomeRecord | null;
  /** When it is to be tried again; null: it is not. */
  readonly nextMs: number | null;
  /** When it was delivered or given up; null: it was not. */
  readonly endedMs: number | null;
}

interface Found {
  readonly record: DeliveryRecord;
  readonly round: number;
  /** When the round began. */
  readonly roundMs: number;
  /** In order. */
  readonly attempts: readonly { readonly attempt: AttemptRecord; readonly outcome: OutcomeRecord | null }[];
  /** Of earlier rounds. */
  readonly before: OutcomeRecord | null;
}

export function deliveryOf({ record, round, roundMs, attempts, before }: Found): Delivery {
  const last = attempts.findLast(({ outcome }) => outcome !== null)?.outcome ?? before;
  const newest = attempts.at(-1);
  const base = { record, round, attempts: attempts.length, last };
  const delivered = attempts.find(({ outcome }) => outcome !== null && isDelivered(outcome))?.outcome;
  if (delivered != null) return { ...base, state: 'delivered', nextMs: null, endedMs: delivered.atMs };
  const ofNewest = newest?.outcome ?? null;
  if (ofNewest !== null && (isGone(ofNewest) || attempts.length >= SCHEDULE_MS.length)) return { ...base, state: 'failed', nextMs: null, endedMs: ofNewest.atMs };
  if (newest === undefined) return { ...base, state: 'pending', nextMs: roundMs, endedMs: null };
  const silentUntilMs = newest.attempt.atMs + SILENT_MS;
  if (ofNewest === null && attempts.length >= SCHEDULE_MS.length) return { ...base, state: 'failed', nextMs: null, endedMs: silentUntilMs };
  const dueMs = (ofNewest ?? newest.attempt).atMs + delayMs(record.id, round, attempts.length);
  return { ...base, state: 'pending', nextMs: ofNewest === null ? Math.max(dueMs, silentUntilMs) : dueMs, endedMs: null };
}

/** Before attempt `n` of a round, counted from the one before. */
export function delayMs(id: string, round: number, n: number): number {
  const chance = new DataView(sha256(utf8Of(`${id}/${round}/${n}`)).buffer).getUint32(0) / 2 ** 32;
  return Math.round((SCHEDULE_MS[n] ?? 0) * (1 + JITTER * chance));
}

export function isDelivered({ status }: OutcomeRecord): boolean {
  return status !== null && status >= 200 && status < 300;
}

/** As the Standard Webhooks have it: the receiver wants no more of it. */
export function isGone({ status }: OutcomeRecord): boolean {
  return status === 410;
}

/**
 * @param names of what lies in its folder, if they are known.
 * @returns null: there is no such delivery. @throws EngineError ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED.
 */
export async function readDelivery(store: ObjectStore, key: DeliveryKey, { names, ...options }: CallOptions & { readonly names?: readonly string[] } = {}): Promise<Delivery | null> {
  const folder = deliveryFolder(key);
  const { tenant, id } = key;
  const of = { tenant, id };
  const record = await readOnce(store, `${folder}delivery.json`, deliveryRecord, of, options);
  if (record === null) return null;
  if (record.hook !== key.hook) throw checkpointError('identity', `${folder}delivery.json is that of another`);
  const there = names ?? (await namesIn(store, folder, options));
  const rounds = there.flatMap((name) => /^round-(\d{1,4})\.json$/.exec(name)?.[1] ?? []).map(Number);
  const round = Math.max(0, ...rounds);
  const begun = round === 0 ? null : await readOnce(store, `${folder}round-${round}.json`, roundRecord, of, options);
  const attempts: { attempt: AttemptRecord; outcome: OutcomeRecord | null }[] = [];
  for (let n = 0; n < SCHEDULE_MS.length && there.includes(`${round}-${n}.json`); n++) {
    const attempt = await readOnce(store, `${folder}${round}-${n}.json`, attemptRecord, of, options);
    if (attempt === null) break;
    attempts.push({ attempt, outcome: await readOnce(store, `${folder}${round}-${n}-outcome.json`, outcomeRecord, of, options) });
  }
  const earlier = lastBefore(there, round);
  const before = earlier === null ? null : await readOnce(store, folder + earlier, outcomeRecord, of, options);
  return deliveryOf({ record, round, roundMs: begun?.atMs ?? record.createdMs, attempts, before });
}

/** The name of the last outcome of the rounds before; null: there is none. */
function lastBefore(names: readonly string[], round: number): string | null {
  const found = names.map((name) => /^(\d{1,4})-(\d)-outcome\.json$/.exec(name)).filter((match) => match !== null && Number(match[1]) < round) as RegExpExecArray[];
  return found.sort((a, b) => Number(a[1]) - Number(b[1]) || Number(a[2]) - Number(b[2])).at(-1)?.[0] ?? null;
}

export async function namesIn(store: ObjectStore, folder: string, { signal }: CallOptions = {}): Promise<readonly string[]> {
  const names: string[] = [];
  for await (const { key } of store.list(folder, { signal })) names.push(key.slice(folder.length));
  return names;
}
