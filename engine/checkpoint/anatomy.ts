/** What one job is made of, and what of its objects nothing needs: for people who look. */
import { type SpecOutline, outlineOf } from '../job/sealed-spec.ts';
import { readJob } from '../kv/create.ts';
import type { Head } from '../kv/head.ts';
import { placeOf, type Manifest } from '../kv/manifest.ts';
import { HEAD, jobPrefix, parseName, specName, type JobKey } from '../kv/names.ts';
import { objectsOf, readSpec } from '../kv/read.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { shardsOf } from './survey.ts';

export interface NamedBytes {
  readonly name: string;
  readonly bytes: number;
}

export interface Anatomy {
  readonly head: Head;
  readonly manifest: Manifest | null;
  /** null of an erased job. */
  readonly spec: SpecOutline | null;
  /** Of a sharded job those that are there; objects and bytes are those of all of them, names begin with a shard's number. */
  readonly shards: readonly { readonly index: number; readonly head: Head; readonly manifest: Manifest | null }[];
  readonly objects: number;
  readonly bytes: number;
  readonly bytesByKind: Readonly<Record<'segment' | 'tail' | 'journal' | 'manifest' | 'spec' | 'head', number>>;
  readonly writtenAtMs: number | null;
  /** Named by nothing. A running job may be about to name it. */
  readonly garbage: readonly NamedBytes[];
  /** Keys under the job that are none of the format's. */
  readonly unknown: readonly NamedBytes[];
  /** Needed, and not there. */
  readonly missing: readonly string[];
}

/** @throws EngineError ERR_JOB_NOT_FOUND; ERR_CHECKPOINT: head, manifest or spec cannot be read; ERR_STORE; ERR_CANCELLED. */
export async function anatomyOf(store: ObjectStore, where: JobKey, { signal }: CallOptions = {}): Promise<Anatomy> {
  const { head, manifest } = await readJob(store, where, { signal });
  const spec = head.state === 'erased' ? null : outlineOf(await readSpec(store, where, head.spec, { signal }));
  const shards = await shardsOf(store, head, { signal });
  const needed = new Set([
    ...(spec === null ? [] : [specName(head.spec)]), ...namesOf(head, manifest), ...shards.flatMap((shard) => namesOf(shard.head, shard.manifest).map((name) => `${shard.index}/${name}`)),
  ]);
  const bytesByKind = { segment: 0, tail: 0, journal: 0, manifest: 0, spec: 0, head: 0 };
  const garbage: NamedBytes[] = [];
  const unknown: NamedBytes[] = [];
  const missing = new Set(needed);
  let [objects, bytes] = [0, 0];
  let writtenAtMs: number | null = null;
  const prefix = jobPrefix(where);
  for await (const object of store.list(prefix, { signal })) {
    const named = { name: object.key.slice(prefix.length), bytes: object.bytes };
    const kind = parseName(named.name.replace(SHARD, ''))?.kind;
    objects += 1;
    bytes += named.bytes;
    if (object.writtenAtMs !== undefined) writtenAtMs = Math.max(writtenAtMs ?? 0, object.writtenAtMs);
    missing.delete(named.name);
    if (kind === undefined) unknown.push(named);
    else if (!needed.has(named.name)) garbage.push(named);
    if (kind !== undefined && needed.has(named.name)) bytesByKind[kind] += named.bytes;
  }
  return { head, manifest, spec, shards, objects, bytes, bytesByKind, writtenAtMs, garbage, unknown, missing: [...missing] };
}

/** Of a key below a sharded job's prefix. */
const SHARD = /^\d+\//;

function namesOf(head: Head, manifest: Manifest | null): readonly string[] {
  return [HEAD, ...(head.manifest === null ? [] : [head.manifest.name]), ...objectsOf(head, manifest).map(placeOf)];
}
