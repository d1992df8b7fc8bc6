/** A job's beginning, and finding jobs: for whoever does not own them. */
import { utf8Bytes, utf8Of } from '../core/bytes.ts';
import { wallClockMs } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { inParallel } from '../core/waiting.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { checkFormat, checkOf, digestOf, parseCanonical, textOf } from './canonical.ts';
import { FORMAT, formatHead, isTerminal, parseHead, type Head } from './head.ts';
import { putIndex, putMarker, readMarker, type Marker, type Plan, type Via } from './hints.ts';
import type { Manifest } from './manifest.ts';
import { checkJobName, HEAD, isNamePart, jobPrefix, shardKey, specName, tenantPrefix, type JobKey } from './names.ts';
import { putIfAbsent } from './once.ts';
import { protocolOf, type Protocol, type ProtocolOptions } from './protocol.ts';
import { checkpointError } from './reason.ts';
import { isMissing, readHead, readManifest, readSpec, requireHead, type ReadOptions } from './read.ts';

export interface CreateOptions extends ProtocolOptions {
  /** Two calls with one key make one job: the first's. The name is then to be one that nobody else has: who comes second takes its spec from under it. */
  readonly idempotencyKey?: string | undefined;
  /** As what it is asked for; of a job that is there already nothing is changed. Default: as itself. */
  readonly via?: Via | undefined;
  /** What it may make, for its marker. Default: not known. */
  readonly plan?: Plan | undefined;
  /** Of the wall clock, for the listing. Default: now. */
  readonly createdMs?: number | undefined;
  /** Asked before anything is stored, and not for a job that is there already; what it throws refuses the job. */
  readonly admit?: (() => Promise<void>) | undefined;
  /** As its spec says. Default: the job is not sharded. */
  readonly shards?: number | undefined;
  /** Whether a stored spec is the one asked for, where that is not its digest alone to say: sealed again it is another text. */
  readonly isSame?: ((stored: string, at: JobKey) => Promise<boolean>) | undefined;
}

export interface CreatedJob {
  /** Another than was asked for, if an earlier call had the same idempotency key. */
  readonly where: JobKey;
  readonly head: Head;
}

/** An ERR_JOB_CONFLICT over a name, `why`: it stands for another request, or for what was erased since. Read by shape: a bundle may hold the class twice. */
export class NameConflict extends EngineError {
  readonly why: 'other' | 'erased';
  constructor(why: 'other' | 'erased', message: string) {
    super('ERR_JOB_CONFLICT', message);
    this.why = why;
  }
}

export function wasErased({ job }: JobKey): NameConflict {
  return new NameConflict('erased', `The job ${job} was erased; its name is not used again.`);
}

/**
 * Spec, idempotency record, listing, marker, head, then its shards, in this order: a crash between is finished by the next call or, from the marker on, by
 * `reconcile`.
 * @throws EngineError ERR_JOB_CONFLICT, a NameConflict: the job or the key exists with another spec, or the job was erased; ERR_OPTION; ERR_STORE.
 */
export async function createJob(store: ObjectStore, where: JobKey, spec: string, options: CreateOptions = {}): Promise<CreatedJob> {
  const { signal, idempotencyKey, digestKey } = options;
  if (utf8Bytes(spec) > LIMITS.SPEC_BYTES_MAX) throw new EngineError('ERR_OPTION', `The spec must have at most ${LIMITS.SPEC_BYTES_MAX} bytes.`);
  checkJobName(where);
  const protocol = protocolOf(store, options);
  const own = digestOf(spec, digestKey);
  const isOwn = async (digest: string, at: JobKey) =>
    digest === own || (options.isSame !== undefined && (await options.isSame(await specOf(store, at, digest, { signal, digestKey }), at)));
  // First, so that neither a repetition nor an erased job leaves a spec behind.
  const earlier = idempotencyKey === undefined ? null : await readIdempotent(protocol, where, idempotencyKey, signal);
  const target = earlier === null ? where : { tenant: where.tenant, job: earlier.job };
  const existing = await readHead(store, target, { signal });
  if (earlier !== null && existing?.head.state !== 'erased' && !(await isOwn(existing?.head.spec ?? earlier.spec, target))) {
    throw new NameConflict('other', `The idempotency key was used with another spec, for the job ${earlier.job}.`);
  }
  if (existing !== null) return { where: target, head: await bearShards(protocol, await sameJob(existing.head, isOwn), signal) };

  await options.admit?.();
  // What the key's record names was there before it, and stays.
  const digest = earlier?.spec ?? own;
  if (digest === own) await store.put(jobPrefix(target) + specName(own), [utf8Of(spec)], { signal });
  if (idempotencyKey !== undefined && earlier === null) {
    const record = formatIdempotent(where, own);
    const kept = parseIdempotent(await putIfAbsent(protocol, idempotentKey(protocol, where, idempotencyKey), record, signal), where);
    if (kept.job !== where.job || kept.spec !== own) {
      // Somebody else was first: under our name a prompt would stay behind that nobody could erase.
      await store.delete([jobPrefix(where) + specName(own)], { signal });
      return await createJob(store, where, spec, options);
    }
  }
  await putIndex(store, target, options.createdMs ?? wallClockMs(), { signal });
  const marker: Marker = { spec: digest, via: options.via ?? null, plan: options.plan ?? null, shards: options.shards ?? null };
  await putMarker(store, target, marker, { signal });
  const head = await putFirstHead(protocol, target, marker, signal);
  // Someone else was first, and may have erased the job since: a prompt must not stay behind a tombstone.
  if (head.spec !== digest) await store.delete([jobPrefix(target) + specName(digest)], { signal });
  return { where: target, head: await bearShards(protocol, await sameJob(head, isOwn), signal) };
}

/** Every shard has a marker and a head afterwards, as its parent has: as often as anyone likes, by anyone, until the parent is over. */
export async function bearShards(protocol: Protocol, head: Head, signal: AbortSignal | undefined): Promise<Head> {
  const { join, spec } = head;
  if (join === undefined || isTerminal(head.state)) return head;
  let plan: Promise<Plan | null> | null = null;
  await inParallel(join.shards, SHARDS_AT_ONCE, signal, async (index, stop) => {
    if (join.joined.includes(index)) return;
    const where = shardKey(head, index);
    if ((await readHead(protocol.store, where, { signal: stop })) !== null) return;
    const marker: Marker = { spec, via: null, plan: await (plan ??= planOfShard(protocol.store, head, join.shards, signal)), shards: null };
    await putMarker(protocol.store, where, marker, { signal: stop });
    await putFirstHead(protocol, where, marker, stop);
  });
  return head;
}

/** As much for each: it is the shards that are work, and not their job. */
async function planOfShard(store: ObjectStore, { tenant, job }: Head, shards: number, signal: AbortSignal | undefined): Promise<Plan | null> {
  const plan = (await readMarker(store, { tenant, job }, { signal }))?.plan ?? null;
  return plan === null ? null : { ...plan, tokens: Math.ceil(plan.tokens / shards) };
}

const SHARDS_AT_ONCE = 8;

/**
 * A job that begins with a state of its own, such as an imported one: the head is written last, when everything that it names is there.
 * Until then there is no head, so nobody collects; afterwards the job is whole. A crash between leaves objects that nobody names.
 * @throws EngineError ERR_JOB_CONFLICT: there is such a job, or was; ERR_STORE; ERR_CANCELLED.
 */
export async function createWith(store: ObjectStore, head: Head, options: ProtocolOptions = {}): Promise<Head> {
  const protocol = protocolOf(store, options);
  const where = { tenant: head.tenant, job: head.job };
  const text = formatHead({ ...head, writeNonce: protocol.nonce() });
  const proposal = parseHead(text, where);
  await putIndex(store, where, wallClockMs(), { signal: options.signal });
  const found = await putIfAbsent(protocol, jobPrefix(where) + HEAD, text, options.signal);
  if (found !== text) throw await thereAlready(store, parseHead(found, where), options);
  // After the head: a walk that found the marker without it would begin the job anew from its spec.
  if (!isTerminal(proposal.state)) await putMarker(store, where, markerOf(proposal), { signal: options.signal });
  return proposal;
}

/** Whoever made the job may have died before its marker was there, and is the one who asks again (docs/PROTOCOL.md, M5). */
export async function thereAlready(store: ObjectStore, head: Head, options: CallOptions): Promise<EngineError> {
  const { tenant, job, state } = head;
  const where = { tenant, job };
  if (!isTerminal(state) && (await readMarker(store, where, options)) === null) await putMarker(store, where, markerOf(head), options);
  return new EngineError('ERR_JOB_CONFLICT', `There is a job ${job} already, or was; give this one another name.`);
}

function markerOf({ spec, join }: Head): Marker {
  return { spec, via: null, plan: null, shards: join?.shards ?? null };
}

/** The head that is there afterwards: a new one, or that of whoever came first. */
export async function putFirstHead(protocol: Protocol, where: JobKey, { spec, shards }: Pick<Marker, 'spec' | 'shards'>, signal: AbortSignal | undefined): Promise<Head> {
  const text = formatHead({
    format: FORMAT, tenant: where.tenant, job: where.job, version: 0, epoch: 0, writeNonce: protocol.nonce(), gc: 0, state: 'queued', slice: 0, spec, strikes: 0, owner: '',
    manifest: null, journal: [],
    ...(shards === null ? {} : { join: { shards, joined: [] } }),
  });
  return parseHead(await putIfAbsent(protocol, jobPrefix(where) + HEAD, text, signal), where);
}

/** For listings: the head and what it names at one moment. @throws EngineError ERR_JOB_NOT_FOUND, ERR_CHECKPOINT, ERR_STORE. */
export async function readJob(store: ObjectStore, where: JobKey, options: ReadOptions = {}): Promise<{ readonly head: Head; readonly manifest: Manifest | null }> {
  for (let seen: string | null = null; ;) {
    const { head, etag } = await requireHead(store, where, options);
    try {
      return { head, manifest: await readManifest(store, where, head, options) };
    } catch (error) {
      // Gone: replaced and collected since, or lost if the head is still the same.
      if (!isMissing(error) || etag === seen) throw error;
      seen = etag;
    }
  }
}

/** Every job of a tenant, erased ones too, in order of name. */
export async function* listJobs(store: ObjectStore, tenant: string, options: CallOptions = {}): AsyncIterable<JobKey> {
  const prefix = tenantPrefix(tenant);
  for await (const { key } of store.list(prefix, options)) {
    const [job, name, ...rest] = key.slice(prefix.length).split('/');
    if (job !== undefined && isNamePart(job) && name === HEAD && rest.length === 0) yield { tenant, job };
  }
}

interface Idempotent {
  readonly job: string;
  readonly spec: string;
}

/** The key itself is not kept: it may be a customer's. */
function idempotentKey({ digestKey }: Protocol, { tenant }: JobKey, key: string): string {
  return `idem/${tenant}/${digestOf(key, digestKey)}`;
}

async function readIdempotent(protocol: Protocol, where: JobKey, key: string, signal: AbortSignal | undefined): Promise<Idempotent | null> {
  jobPrefix(where);
  const found = await protocol.store.get(idempotentKey(protocol, where, key), { range: { offset: 0, bytes: LIMITS.HEAD_BYTES_MAX }, bytesMax: LIMITS.HEAD_BYTES_MAX, signal });
  return found === null ? null : parseIdempotent(textOf(found.chunks, 'the idempotency record'), where);
}

function formatIdempotent({ tenant, job }: JobKey, spec: string): string {
  const fields = { format: FORMAT, tenant, job, spec };
  return JSON.stringify({ ...fields, check: checkOf(fields) });
}

/** @throws EngineError ERR_CHECKPOINT. */
function parseIdempotent(text: string, where: JobKey): Idempotent {
  const value = parseCanonical(text, 'the idempotency record');
  checkFormat(value, FORMAT, 'the idempotency record');
  const { tenant, job, spec } = value as Record<string, unknown>;
  const known = typeof tenant === 'string' && typeof job === 'string' && isNamePart(job) && typeof spec === 'string';
  if (!known || formatIdempotent({ tenant, job }, spec) !== text) throw checkpointError('damaged', 'the idempotency record is not what was written');
  if (tenant !== where.tenant) throw checkpointError('identity', 'the idempotency record is that of another tenant');
  return { job, spec };
}

async function sameJob(head: Head, isOwn: (digest: string, at: JobKey) => Promise<boolean>): Promise<Head> {
  if (head.state === 'erased') throw wasErased(head);
  if (!(await isOwn(head.spec, head))) throw new NameConflict('other', `The job ${head.job} exists with another spec; it is ${head.state}.`);
  return head;
}

/** Of a job whose head named it a moment ago. */
async function specOf(store: ObjectStore, at: JobKey, digest: string, options: ReadOptions): Promise<string> {
  try {
    return await readSpec(store, at, digest, options);
  } catch (error) {
    throw isMissing(error) && (await readHead(store, at, options))?.head.state === 'erased' ? wasErased(at) : error;
  }
}
