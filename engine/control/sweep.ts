/**
 * Collecting the garbage of files and batches, which have no head: a piece is needed while the record that names it is there. What has no
 * record belongs to somebody who is writing it, or who died; the time in its id tells them apart, and no writer takes a day.
 */
import { wallClockMs } from '../core/clock.ts';
import { isNamePart, tenantPrefix } from '../kv/names.ts';
import type { CallOptions, ListedObject, ObjectStore } from '../ports/object-store.ts';
import { timeOf } from './ids.ts';
import { batchRecord, endRecord, fileRecord, readOnce, verdictRecord } from './records.ts';

export interface SweepOptions extends CallOptions {
  /** Deletes nothing: says what would go. */
  readonly dryRun?: boolean | undefined;
  /** Each object that goes, or would, by its whole key. */
  readonly onGarbage?: ((key: string, bytes: number) => void) | undefined;
  /** Of the wall clock. */
  readonly nowMs?: (() => number) | undefined;
}

/** Longer than a batch may last, and than any upload. */
const WRITING_MS_MAX = 2 * 86_400_000;

/**
 * Safe beside whoever writes, reads and deletes.
 * @throws EngineError ERR_CHECKPOINT: a record cannot be read, and nothing beside it was deleted; ERR_STORE; ERR_CANCELLED.
 */
export async function sweepTenant(store: ObjectStore, tenant: string, options: SweepOptions = {}): Promise<{ readonly objects: number; readonly bytes: number }> {
  const { signal, dryRun = false, onGarbage } = options;
  // Checks the name.
  tenantPrefix(tenant);
  const garbage: ListedObject[] = [];
  for (const kind of ['files', 'batches'] as const) {
    for await (const { id, objects } of foldersUnder(store, `${kind}/${tenant}/`, { signal })) {
      const needed = await (kind === 'files' ? neededOfFile : neededOfBatch)(store, { tenant, id }, objects, options);
      const prefix = `${kind}/${tenant}/${id}/`;
      garbage.push(...objects.filter(({ key }) => !needed(key.slice(prefix.length))));
    }
  }
  for (const { key, bytes } of garbage) onGarbage?.(key, bytes);
  if (!dryRun) await store.delete(garbage.map(({ key }) => key), { signal });
  return { objects: garbage.length, bytes: garbage.reduce((sum, { bytes }) => sum + bytes, 0) };
}

type Needed = (name: string) => boolean;
interface Key {
  readonly tenant: string;
  readonly id: string;
}

const ALL: Needed = () => true;
const NONE: Needed = () => false;

async function neededOfFile(store: ObjectStore, key: Key, objects: readonly ListedObject[], options: SweepOptions): Promise<Needed> {
  const record = await readOnce(store, `files/${key.tenant}/${key.id}/meta.json`, fileRecord, key, options);
  if (record !== null) return named(objects, 'meta.json', record.blob.nonce);
  const batch = /^file-([0-9A-Z]{26})-(?:output|errors)$/.exec(key.id)?.[1];
  if (batch === undefined) return isAbandoned(key.id, options) ? NONE : ALL;
  // A batch writes when it ends, which is whenever there is a server for it.
  const of = { tenant: key.tenant, id: `batch_${batch}` };
  return (await readOnce(store, `batches/${of.tenant}/${of.id}/end.json`, endRecord, of, options)) === null ? ALL : NONE;
}

async function neededOfBatch(store: ObjectStore, key: Key, objects: readonly ListedObject[], options: SweepOptions): Promise<Needed> {
  const at = (name: string) => `batches/${key.tenant}/${key.id}/${name}`;
  const record = await readOnce(store, at('batch.json'), batchRecord, key, options);
  if (record === null) return isAbandoned(key.id, options) ? NONE : ALL;
  const end = await readOnce(store, at('end.json'), endRecord, key, options);
  const verdict = await readOnce(store, at('verdict.json'), verdictRecord, key, options);
  // The copy of the prompts serves until then.
  return end !== null || (verdict?.faults.length ?? 0) > 0 ? (name) => name.endsWith('.json') : named(objects, 'batch.json', record.input.nonce);
}

/** Pieces of the blob that the record names, which was written once; but nothing if the record has come since the folder was listed. */
function named(objects: readonly ListedObject[], record: string, nonce: string): Needed {
  if (!objects.some(({ key }) => key.endsWith(`/${record}`))) return ALL;
  return (name) => name.endsWith('.json') || name.startsWith(`${nonce}-`);
}

function isAbandoned(id: string, { nowMs = wallClockMs }: SweepOptions): boolean {
  const madeMs = timeOf(/^(?:file-|batch_)([0-9A-Z]{26})/.exec(id)?.[1] ?? '');
  return madeMs !== null && nowMs() - madeMs > WRITING_MS_MAX;
}

async function* foldersUnder(store: ObjectStore, prefix: string, options: CallOptions): AsyncGenerator<{ readonly id: string; readonly objects: readonly ListedObject[] }> {
  let id = '';
  let objects: ListedObject[] = [];
  for await (const object of store.list(prefix, options)) {
    const [folder = '', name] = object.key.slice(prefix.length).split('/');
    if (name === undefined || !isNamePart(folder)) continue;
    if (folder !== id && objects.length > 0) {
      yield { id, objects };
      objects = [];
    }
    id = folder;
    objects.push(object);
  }
  if (objects.length > 0) yield { id, objects };
}
