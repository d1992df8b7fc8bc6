/**
 * What finds jobs without knowing their names: a marker while a job may need a worker, and an index by day for people. Hints, both: the
 * head alone decides, and losing or repeating any of them changes nothing (DESIGN.md 2).
 */
import { utf8Of } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { inParallel } from '../core/waiting.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { checkFormat, parseCanonical, sha256, textOf } from './canonical.ts';
import { FORMAT } from './head.ts';
import { isJobName, isNamePart, jobPrefix, type JobKey } from './names.ts';
import { checkpointError } from './reason.ts';

/** Walks can be split by them; the shard of a job is a function of its name. */
export const LIVE_SHARDS = 16;
const SHARDS_AT_ONCE = 8;

/** `live/<shard>/<tenant>/<job>`, of a shard `<job>~<i>`: users name jobs, so that only with its tenant a name is one job. */
export function liveKey(where: JobKey): string {
  jobPrefix(where);
  return `${livePrefix(Number.parseInt(sha256(`${where.tenant}/${where.job}`).slice(0, 1), 16))}${where.tenant}/${leafOf(where)}`;
}

/** Not below its job's key: where keys are files, one that is a file cannot be a folder too. */
function leafOf({ job }: JobKey): string {
  return job.replace('/', SHARD_MARK);
}

/** In no name of a job. */
const SHARD_MARK = '~';

/** Of one shard, or of all of them. */
export function livePrefix(shard?: number): string {
  return shard === undefined ? 'live/' : `live/${shard.toString(16)}/`;
}

/** null: no key of ours. */
export function parseLiveKey(key: string): JobKey | null {
  const [, , tenant = '', leaf = ''] = key.split('/');
  const job = leaf.replace(SHARD_MARK, '/');
  return isNamePart(tenant) && isJobName(job) && liveKey({ tenant, job }) === key ? { tenant, job } : null;
}

/** Jobs of a tenant that have a marker, counted up to `most`. */
export async function countLive(store: ObjectStore, tenant: string, most: number, { signal }: CallOptions = {}): Promise<number> {
  jobPrefix({ tenant, job: 'any' });
  let count = 0;
  await inParallel(LIVE_SHARDS, SHARDS_AT_ONCE, signal, async (shard, stop) => {
    if (count >= most) return;
    const prefix = `${livePrefix(shard)}${tenant}/`;
    // A sharded job is one job.
    for await (const { key } of store.list(prefix, { signal: stop })) if (!key.slice(prefix.length).includes(SHARD_MARK) && ++count >= most) return;
  });
  return Math.min(count, most);
}

export interface Marker {
  /** The digest of the spec, so that the birth can be finished without the client. */
  readonly spec: string;
  /** As what the job was asked for, for whoever tells of its end; null: as itself. */
  readonly via: Via | null;
  /** null: the job is not sharded. */
  readonly shards: number | null;
  /** For whoever counts how much work there is; null: not known. */
  readonly plan: Plan | null;
}

/** What a job may make at most: `tokens` of all its chains together, of a model as requests name it. */
export interface Plan {
  readonly model: string;
  readonly tokens: number;
}

const VIAS = ['response', 'batch'] as const;
export type Via = (typeof VIAS)[number];

/** Before the head, so that a job that was born is found, whatever died. */
export async function putMarker(store: ObjectStore, where: JobKey, { spec, via, plan, shards }: Marker, { signal }: CallOptions): Promise<void> {
  const { tenant, job } = where;
  await put(store, liveKey(where), JSON.stringify({ format: FORMAT, tenant, job, spec, ...(via === null ? {} : { via }), ...(plan === null ? {} : { plan: { model: plan.model, tokens: plan.tokens } }), ...(shards === null ? {} : { shards }) }), signal);
}

/** null: there is no marker. @throws EngineError ERR_CHECKPOINT. */
export async function readMarker(store: ObjectStore, where: JobKey, { signal }: CallOptions): Promise<Marker | null> {
  const found = await store.get(liveKey(where), { range: { offset: 0, bytes: LIMITS.HEAD_BYTES_MAX }, bytesMax: LIMITS.HEAD_BYTES_MAX, signal });
  if (found === null) return null;
  const value = parseCanonical(textOf(found.chunks, 'the marker'), 'the marker');
  checkFormat(value, FORMAT, 'the marker');
  const { tenant, job, spec, via = null, plan = null, shards = null } = value as Record<string, unknown>;
  if (tenant !== where.tenant || job !== where.job) throw checkpointError('identity', 'the marker is that of another job');
  if (typeof spec !== 'string' || !/^[0-9a-f]{64}$/.test(spec)) throw checkpointError('damaged', 'the marker names no spec');
  if (shards !== null && !(Number.isSafeInteger(shards) && (shards as number) >= 1 && (shards as number) <= LIMITS.SHARDS_MAX)) throw checkpointError('damaged', 'the marker names no number of shards');
  return { spec, shards: shards as number | null, via: VIAS.find((known) => known === via) ?? null, plan: planIn(plan) };
}

function planIn(value: unknown): Plan | null {
  const { model, tokens } = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  return typeof model === 'string' && typeof tokens === 'number' && Number.isSafeInteger(tokens) && tokens > 0 ? { model, tokens } : null;
}

/** @param createdMs of the wall clock. */
export async function putIndex(store: ObjectStore, where: JobKey, createdMs: number, { signal }: CallOptions): Promise<void> {
  await put(store, `${indexPrefix(where.tenant, dayOf(createdMs))}${where.job}`, '', signal);
}

/**
 * Jobs that were created on a day, in order of name: some may never have been born, some have been erased.
 * @param day UTC, as `2026-11-25`.
 */
export async function* listDay(store: ObjectStore, tenant: string, day: string, options: CallOptions = {}): AsyncIterable<JobKey> {
  if (!DAY.test(day)) throw new EngineError('ERR_OPTION', `day must look like 2026-11-25; got ${JSON.stringify(day.slice(0, 40))}.`);
  const prefix = indexPrefix(tenant, day);
  for await (const { key } of store.list(prefix, options)) {
    const job = key.slice(prefix.length);
    if (isNamePart(job)) yield { tenant, job };
  }
}

/** The first day on which a tenant made a job; null: he never did. */
export async function firstDay(store: ObjectStore, tenant: string, options: CallOptions = {}): Promise<string | null> {
  const prefix = tenantIndex(tenant);
  for await (const { key } of store.list(prefix, options)) {
    const day = key.slice(prefix.length).split('/')[0] ?? '';
    if (DAY.test(day)) return day;
  }
  return null;
}

/** Whether a job is in the listing of a day. */
export async function isListed(store: ObjectStore, { tenant, job }: JobKey, day: string, options: CallOptions = {}): Promise<boolean> {
  return (await store.head(indexPrefix(tenant, day) + job, options)) !== null;
}

export function dayOf(createdMs: number): string {
  return new Date(createdMs).toISOString().slice(0, 10);
}

const DAY = /^\d{4}-\d\d-\d\d$/;

function indexPrefix(tenant: string, day: string): string {
  return `${tenantIndex(tenant)}${day}/`;
}

function tenantIndex(tenant: string): string {
  jobPrefix({ tenant, job: 'any' });
  return `idx/${tenant}/`;
}

/** How often a reader writes his sign anew. */
export const READING_MS = 20_000;

/** `read/<tenant>/<job>`: somebody reads along where the job does not run. */
export function readingKey(where: JobKey): string {
  jobPrefix(where);
  return `read/${where.tenant}/${leafOf(where)}`;
}

/** Another content each time, and so another etag. */
export async function putReading(store: ObjectStore, where: JobKey, { signal }: CallOptions): Promise<void> {
  await put(store, readingKey(where), crypto.randomUUID(), signal);
}

/** Until when what the job leaves is kept (control/retention.ts). */
export function keepKey(where: JobKey): string {
  jobPrefix(where);
  return `keep/${where.tenant}/${where.job}.json`;
}

/** All that finds the job, or says something about it, and is of no use when it has ended. */
export function liveHints(where: JobKey): readonly string[] {
  return [liveKey(where), readingKey(where)];
}

async function put(store: ObjectStore, key: string, text: string, signal: AbortSignal | undefined): Promise<void> {
  const outcome = await store.put(key, text === '' ? [] : [utf8Of(text)], { signal });
  if (outcome.kind !== 'written') throw new EngineError('ERR_STORE', `${store.url}: ${key} was not written (${outcome.kind}).`);
}
