/** What a tenant has in a store, job by job: for listings and for what it costs. Nothing that is wrong with one job hides another. */
import { utf8Bytes } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';
import { inParallel } from '../core/waiting.ts';
import { outlineOf } from '../job/sealed-spec.ts';
import { readJob } from '../kv/create.ts';
import { formatHead, isTerminal, type Head } from '../kv/head.ts';
import { placeOf, type Manifest } from '../kv/manifest.ts';
import { HEAD, PACK, parseName, shardKey, tenantPrefix } from '../kv/names.ts';
import { objectsOf, readHead, readSpec } from '../kv/read.ts';
import { checkpointError } from '../kv/reason.ts';
import type { CallOptions, ListedObject, ObjectStore } from '../ports/object-store.ts';

const AT_ONCE = 8;

export interface SurveyOptions extends CallOptions {
  /** Goes on after this job: the last one of the page before. */
  readonly after?: string | undefined;
}

/** Bytes are those of the listing: what a store charges for, garbage included. */
export interface StoredJob {
  readonly job: string;
  readonly objects: number;
  readonly bytes: number;
  /** Of the newest object, if the store says. */
  readonly writtenAtMs: number | null;
  /** null: it cannot be read, and `fault` says why. */
  readonly content: StoredContent | null;
  readonly fault: EngineError | null;
}

export interface StoredContent {
  readonly head: Head;
  /** As the job's spec names it; null of an erased job. */
  readonly model: string | null;
  /** Chains; 0 before the first checkpoint. */
  readonly width: number;
  /** Of the longest chain. */
  readonly tokens: number;
  /** What the head needs: the rest of `bytes` is garbage. */
  readonly neededBytes: number;
}

/**
 * In the order of the store's keys; holds the sizes of a few jobs at a time, however many there are.
 * @throws EngineError ERR_STORE, ERR_STORE_CONFIG, ERR_OPTION, ERR_CANCELLED: what stops the listing itself.
 */
export async function* surveyJobs(store: ObjectStore, tenant: string, { after, signal }: SurveyOptions = {}): AsyncIterable<StoredJob> {
  let batch: Sizes[] = [];
  for await (const sizes of jobSizes(store, tenant, signal)) {
    if (after !== undefined && !isAfter(sizes.job, after)) continue;
    batch.push(sizes);
    if (batch.length < AT_ONCE) continue;
    yield* await readAll(store, tenant, batch, signal);
    batch = [];
  }
  yield* await readAll(store, tenant, batch, signal);
}

/** Keys sort by `job/`, not by `job`: `a-b/HEAD` comes before `a/HEAD`. */
function isAfter(job: string, other: string): boolean {
  return `${job}/` > `${other}/`;
}

interface Sizes {
  readonly job: string;
  objects: number;
  bytes: number;
  headBytes: number;
  /** By their names below the job: all of one is kept while something in it is needed. */
  readonly packs: Map<string, number>;
  writtenAtMs: number | null;
}

async function* jobSizes(store: ObjectStore, tenant: string, signal: AbortSignal | undefined): AsyncIterable<Sizes> {
  const prefix = tenantPrefix(tenant);
  let sizes = null as Sizes | null;
  for await (const object of store.list(prefix, { signal })) {
    const [job = '', ...rest] = object.key.slice(prefix.length).split('/');
    if (rest.length === 0) continue;
    if (sizes !== null && sizes.job !== job) yield sizes;
    if (sizes?.job !== job) sizes = { job, objects: 0, bytes: 0, headBytes: 0, packs: new Map(), writtenAtMs: null };
    add(sizes, object, rest.join('/'));
  }
  if (sizes !== null) yield sizes;
}

function add(sizes: Sizes, { bytes, writtenAtMs }: ListedObject, name: string): void {
  sizes.objects += 1;
  sizes.bytes += bytes;
  if (name === HEAD) sizes.headBytes = bytes;
  if (isPack(name)) sizes.packs.set(name, bytes);
  if (writtenAtMs !== undefined) sizes.writtenAtMs = Math.max(sizes.writtenAtMs ?? 0, writtenAtMs);
}

async function readAll(store: ObjectStore, tenant: string, batch: readonly Sizes[], signal: AbortSignal | undefined): Promise<readonly StoredJob[]> {
  return await inParallel(batch.length, AT_ONCE, signal, async (i, stop) => {
    const { headBytes, packs, ...sizes } = batch[i] as Sizes;
    try {
      return { ...sizes, content: await contentOf(store, { tenant, job: sizes.job }, headBytes, packs, stop), fault: null };
    } catch (error) {
      if (!(error instanceof EngineError) || !['ERR_CHECKPOINT', 'ERR_JOB_NOT_FOUND', 'ERR_OPTION'].includes(error.code)) throw error;
      return { ...sizes, content: null, fault: error.code === 'ERR_CHECKPOINT' ? error : checkpointError('missing', 'there is no head', error) };
    }
  });
}

async function contentOf(store: ObjectStore, where: { readonly tenant: string; readonly job: string }, headBytes: number, packs: ReadonlyMap<string, number>, signal: AbortSignal): Promise<StoredContent> {
  const { head, manifest } = await readJob(store, where, { signal });
  if (head.state === 'erased') return { head, model: null, width: 0, tokens: 0, neededBytes: headBytes };
  const text = await readSpec(store, where, head.spec, { signal });
  const own = { head, model: modelNameOf(text), ...sizeOf(manifest), neededBytes: headBytes + utf8Bytes(text) + neededBytes(head, manifest, (name) => packs.get(name)) };
  if (head.join === undefined) return own;
  const parts = await shardsOf(store, head, { signal });
  const tokens = isTerminal(head.state) ? own.tokens : Math.max(0, ...parts.map((part) => sizeOf(part.manifest).tokens));
  return { ...own, tokens, neededBytes: parts.reduce((sum, part) => sum + utf8Bytes(formatHead(part.head)) + neededBytes(part.head, part.manifest, (name) => packs.get(`${part.index}/${name}`)), own.neededBytes) };
}

/** Those that are there. */
export async function shardsOf(store: ObjectStore, head: Head, { signal }: CallOptions): Promise<readonly { readonly index: number; readonly head: Head; readonly manifest: Manifest | null }[]> {
  const found = await inParallel(head.join?.shards ?? 0, AT_ONCE, signal, async (index, stop) => {
    const shard = await readHead(store, shardKey(head, index), { signal: stop });
    return shard === null ? null : { index, ...(await readJob(store, shardKey(head, index), { signal: stop })) };
  });
  return found.filter((shard) => shard !== null);
}

/** As the spec says it, such as `countdown@cr8`. */
export function modelNameOf(specText: string): string | null {
  const { spec: { model, variant } } = outlineOf(specText);
  return typeof model === 'string' ? `${model}${typeof variant === 'string' ? `@${variant}` : ''}` : null;
}

function sizeOf(manifest: Manifest | null): Pick<StoredContent, 'width' | 'tokens'> {
  return { width: manifest?.chains.length ?? 0, tokens: Math.max(0, ...(manifest?.chains ?? []).map(({ tokens }) => tokens)) };
}

function neededBytes(head: Head, manifest: Manifest | null, packBytes: (name: string) => number | undefined): number {
  const places = new Map(objectsOf(head, manifest).map((ref) => [placeOf(ref), ref.pack === undefined ? ref.bytes : (packBytes(placeOf(ref)) ?? 0)]));
  return [...places.values()].reduce((sum, bytes) => sum + bytes, head.manifest?.bytes ?? 0);
}

/** Also of a shard, whose number comes first. */
function isPack(name: string): boolean {
  const parsed = parseName(name.replace(/^\d+\//, ''));
  return parsed !== null && 'chain' in parsed && parsed.chain === PACK;
}

/** Of storage alone, a month: S3 charges for 2^30 bytes. */
export function monthlyCost(bytes: number, pricePerGbMonth: number): number {
  return (bytes / 2 ** 30) * pricePerGbMonth;
}
