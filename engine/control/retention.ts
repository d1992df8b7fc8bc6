/**
 * How long what a job leaves is kept: its KV for going on from it (forks, extensions, the next turn without a prefill), and its result. Whoever tells that a job has
 * ended writes down until when, once; from then on that is what counts, whatever others are configured to. What is over goes by a
 * sweep, which finds it by hints in order of time (`expire/`), and never by a rule of the bucket: that would know nothing of what a head names.
 */
import { type Clock, wallClockMs } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { inParallel } from '../core/waiting.ts';
import { eraseJob } from '../kv/erase.ts';
import { keepKey } from '../kv/hints.ts';
import { isNamePart, jobPrefix, type JobKey } from '../kv/names.ts';
import { readHead } from '../kv/read.ts';
import { trimJob } from '../kv/trim.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { type Keep, keepRecord, readOnce, writeOnce } from './records.ts';

/** From the end of a job on; null: for ever, that is until it is erased. */
export interface Retention {
  readonly kvMs: number | null;
  readonly resultMs: number | null;
}

export const DEFAULT_RETENTION: Retention = { kvMs: 7 * 86_400_000, resultMs: null };

const EXPIRE = 'expire/';
const DIGITS = 15;
/** Hints of so long lie in one folder. Who finds one a little early leaves it. */
const FOLDER_MS = 10_000;
const DUE_MAX = 1_000;
const AT_ONCE = 4;
/** What cannot be read now must not be in front of all others. */
const POSTPONE_MS = 3_600_000;

export interface KeepOptions extends CallOptions {
  readonly retention: Retention;
  readonly clock?: Clock | undefined;
  /** Of the wall clock. */
  readonly nowMs: number;
}

/** Of a job that has just ended. Any number of times, by anyone: the first decides. @throws EngineError ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED. */
export async function keepFrom(store: ObjectStore, where: JobKey, { retention: { kvMs, resultMs }, nowMs, clock, signal }: KeepOptions): Promise<void> {
  if (kvMs === null && resultMs === null) return;
  const after = (ms: number | null) => (ms === null ? null : Math.round(nowMs + ms));
  // Without its result nobody could go on from its KV.
  const kvUntilMs = after(kvMs === null || resultMs === null ? kvMs ?? resultMs : Math.min(kvMs, resultMs));
  const asked: Keep = { kind: 'keep', tenant: where.tenant, id: where.job, endedMs: Math.round(nowMs), kvUntilMs, untilMs: after(resultMs) };
  const kept = await writeOnce(store, keepKey(where), keepRecord, asked, { clock, signal });
  const firstMs = kept.kvUntilMs ?? kept.untilMs;
  // After the record: who finds the hint finds what it is of.
  if (firstMs !== null) await store.put(expireKey(firstMs, where), [], { signal });
}

/** null: it has not ended, is kept for ever, or ended before there was such a thing. */
export async function readKeep(store: ObjectStore, where: JobKey, options: CallOptions = {}): Promise<Keep | null> {
  return await readOnce(store, keepKey(where), keepRecord, { tenant: where.tenant, id: where.job }, options);
}

export interface ExpireOptions extends CallOptions {
  /** Default: of all. */
  readonly tenant?: string | undefined;
  readonly clock?: Clock | undefined;
  /** Of the wall clock. */
  readonly nowMs?: (() => number) | undefined;
  /** What kept one job's share from going; it is tried again later. */
  readonly onTrouble?: ((where: JobKey, error: unknown) => void) | undefined;
}

export interface ExpiredNow {
  /** Jobs whose KV went, or whose result did. */
  readonly trimmed: number;
  readonly erased: number;
}

/** Lets go of what is over by now. Any number of sweeps may run at once. @throws EngineError ERR_STORE, ERR_CANCELLED. */
export async function expireDue(store: ObjectStore, options: ExpireOptions = {}): Promise<ExpiredNow> {
  const { signal, clock, onTrouble } = options;
  const nowMs = (options.nowMs ?? wallClockMs)();
  const due: { readonly key: string; readonly where: JobKey }[] = [];
  for await (const { key } of store.list(EXPIRE, { signal })) {
    const parsed = parseExpireKey(key);
    if (parsed === null) continue;
    if (parsed.atMs > nowMs || due.length >= DUE_MAX) break;
    if (options.tenant === undefined || parsed.where.tenant === options.tenant) due.push({ key, where: parsed.where });
  }
  const done = { trimmed: 0, erased: 0 };
  await inParallel(due.length, AT_ONCE, signal, async (i, stop) => {
    const { key, where } = due[i] as (typeof due)[number];
    let nextMs: number | null;
    try {
      nextMs = await letGo(store, where, nowMs, done, { clock, signal: stop });
    } catch (error) {
      if (stop.aborted || (error instanceof EngineError && error.code === 'ERR_STORE')) throw error;
      onTrouble?.(where, error);
      nextMs = nowMs + POSTPONE_MS;
    }
    const next = nextMs === null ? null : expireKey(nextMs, where);
    if (next === key) return;
    if (next !== null) await store.put(next, [], { signal: stop });
    await store.delete([key], { signal: stop });
  });
  return done;
}

/** @returns when to look again; null: never. */
async function letGo(store: ObjectStore, where: JobKey, nowMs: number, done: { trimmed: number; erased: number }, options: CallOptions & { readonly clock: Clock | undefined }): Promise<number | null> {
  const keep = await readKeep(store, where, options);
  if (keep === null) return null;
  const head = (await readHead(store, where, options))?.head ?? null;
  if (head === null || head.state === 'erased') {
    await store.delete([keepKey(where)], options);
    return null;
  }
  const { kvUntilMs, untilMs } = keep;
  if (untilMs !== null && untilMs <= nowMs) {
    await eraseJob(store, where, { ...options, isOverdue: true });
    done.erased++;
    return null;
  }
  if (kvUntilMs !== null && kvUntilMs > nowMs) return kvUntilMs;
  if (kvUntilMs !== null) {
    await trimJob(store, where, options);
    done.trimmed++;
  }
  return untilMs;
}

/** A hint that something of the job is over, in order of when it is, or a little before. Several of one job are as good as one. */
function expireKey(atMs: number, where: JobKey): string {
  jobPrefix(where);
  return `${EXPIRE}${Math.max(0, Math.floor(atMs / FOLDER_MS) * FOLDER_MS).toString().padStart(DIGITS, '0')}/${where.tenant}/${where.job}`;
}

/** null: no key of ours. */
function parseExpireKey(key: string): { readonly atMs: number; readonly where: JobKey } | null {
  const [digits = '', tenant = '', job = '', ...rest] = key.slice(EXPIRE.length).split('/');
  return rest.length === 0 && /^\d{15}$/.test(digits) && isNamePart(tenant) && isNamePart(job) ? { atMs: Number(digits), where: { tenant, job } } : null;
}
