/**
 * Files of a tenant: what batches read and what they write. `files/<tenant>/<id>/meta.json` is written last and says what the file is;
 * without it there is none. Another tenant's file lies under another prefix, so that no id of it means anything here.
 */
import { wallClockMs } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { inParallel } from '../core/waiting.ts';
import { tenantPrefix } from '../kv/names.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { type BlobPlace, BlobWriter, readBlob } from './blob.ts';
import { claimId } from './claims.ts';
import { indexAfter, jobIds, timeOf } from './ids.ts';
import type { CallerOptions, ListOptions } from './platform.ts';
import { type FileRecord, fileRecord, readOnce, writeOnce } from './records.ts';

export interface FilesOptions {
  readonly store: ObjectStore;
  /** null: files are stored in the clear, as jobs are. */
  readonly keys: KeyProvider | null;
  /** Of the wall clock, for ids and listings. */
  readonly nowMs?: (() => number) | undefined;
}

export interface FileView {
  readonly id: string;
  readonly bytes: number;
  /** Of the wall clock. */
  readonly createdMs: number;
  readonly filename: string;
  readonly purpose: FileRecord['purpose'];
}

export interface CreateFileOptions extends CallerOptions {
  readonly filename: string;
  /** Two calls with one key, name and content make one file. */
  readonly idempotencyKey?: string | undefined;
}

export interface FileListOptions extends ListOptions {
  readonly order: 'asc' | 'desc';
  readonly purpose?: string | undefined;
}

const META = 'meta.json';
/** A file of a client, or one that a batch wrote. */
const ID = /^file-[0-9A-HJKMNP-TV-Z]{26}(-output|-errors)?$/;
/** Of the store at a time. */
const AT_ONCE = 8;

/** @example new Files({ store, keys: null }) */
export class Files {
  readonly #options: FilesOptions;
  readonly #newId = jobIds();

  constructor(options: FilesOptions) {
    this.#options = options;
  }

  /** @throws EngineError ERR_OPTION: empty, too long, or a name that is none; ERR_JOB_CONFLICT: the key was for another file; ERR_KEY, ERR_STORE, ERR_CANCELLED. */
  async create(content: Uint8Array, { filename, idempotencyKey, tenant, signal }: CreateFileOptions): Promise<FileView> {
    if (content.byteLength < 1 || content.byteLength > LIMITS.FILE_BYTES_MAX) {
      throw new EngineError('ERR_OPTION', `file must have 1 to ${LIMITS.FILE_BYTES_MAX} bytes; got ${content.byteLength}.`);
    }
    if (filename.length < 1 || filename.length > LIMITS.FILE_NAME_CHARS_MAX || /[\p{Cc}/\\]/u.test(filename)) {
      throw new EngineError('ERR_OPTION', `filename must have 1 to ${LIMITS.FILE_NAME_CHARS_MAX} characters and no "/".`);
    }
    const fresh = `file-${this.#newId((this.#options.nowMs ?? wallClockMs)())}`;
    const id = idempotencyKey === undefined ? fresh
      : await claimId(this.#options.store, { tenant, what: 'file', key: idempotencyKey, body: [filename, content], id: fresh }, { signal });
    const createdMs = timeOf(id.slice('file-'.length)) ?? 0;
    const writer = await this.writer(id, { tenant, signal });
    await writer.add(content);
    return await this.publish(writer, { kind: 'file', tenant, id, createdMs, filename, purpose: 'batch' }, { signal });
  }

  async get(id: string, options: CallerOptions): Promise<FileView> {
    return viewOf(await this.#record(id, options));
  }

  /** In order of making. @throws EngineError ERR_OPTION. */
  async list({ tenant, limit, after, order, purpose, signal }: FileListOptions): Promise<{ readonly files: readonly FileView[]; readonly more: boolean }> {
    const ids = await idsUnder(this.#options.store, `${folderOf(tenant)}`, META, { signal });
    const sorted = order === 'asc' ? ids : ids.toReversed();
    if (after !== undefined && !ID.test(after)) throw notFound();
    const start = indexAfter(sorted, after, order);
    const found: FileView[] = [];
    for (let first = start; first < sorted.length && found.length <= limit; first += AT_ONCE) {
      const some = sorted.slice(first, first + AT_ONCE);
      const views = await inParallel(some.length, AT_ONCE, signal, async (i, stop) => await this.#look(some[i] ?? '', tenant, stop));
      found.push(...views.filter((view) => view !== null && (purpose === undefined || view.purpose === purpose)) as FileView[]);
    }
    return { files: found.slice(0, limit), more: found.length > limit };
  }

  /** @throws EngineError ERR_FILE_NOT_FOUND; the content: ERR_CHECKPOINT, ERR_KEY, ERR_STORE, ERR_CANCELLED. */
  async read(id: string, options: CallerOptions): Promise<{ readonly file: FileView; readonly content: AsyncIterable<Uint8Array> }> {
    const record = await this.#record(id, options);
    return { file: viewOf(record), content: readBlob(this.#place(record), record.blob, { signal: options.signal }) };
  }

  /** @throws EngineError ERR_FILE_NOT_FOUND. */
  async delete(id: string, options: CallerOptions): Promise<void> {
    const record = await this.#record(id, options);
    const { store } = this.#options;
    await store.delete([metaKey(record)], { signal: options.signal });
    // Whatever lies there: also what somebody wrote who was not the first to publish it.
    const left: string[] = [];
    for await (const { key } of store.list(this.#place(record).prefix, { signal: options.signal })) left.push(key);
    await store.delete(left, { signal: options.signal });
  }

  /** For a file that is there once it is published. */
  async writer(id: string, { tenant, signal }: CallerOptions): Promise<BlobWriter> {
    return await BlobWriter.open(this.#place({ id, tenant }), { signal });
  }

  /** Of several who publish one id the first wins, and what the others wrote is removed. */
  async publish(writer: BlobWriter, file: Omit<FileRecord, 'blob'>, { signal }: CallOptions = {}): Promise<FileView> {
    const blob = await writer.close();
    const kept = await writeOnce(this.#options.store, metaKey(file), fileRecord, { ...file, blob }, { signal });
    if (kept.blob.nonce !== blob.nonce) await writer.discard();
    return viewOf(kept);
  }

  async #look(id: string, tenant: string, signal: AbortSignal): Promise<FileView | null> {
    try {
      return await this.get(id, { tenant, signal });
    } catch (error) {
      // Deleted meanwhile, or not to be read: one file takes no other from the list.
      if (error instanceof EngineError && (error.code === 'ERR_FILE_NOT_FOUND' || error.code === 'ERR_CHECKPOINT')) return null;
      throw error;
    }
  }

  async #record(id: string, { tenant, signal }: CallerOptions): Promise<FileRecord> {
    if (!ID.test(id)) throw notFound();
    const record = await readOnce(this.#options.store, metaKey({ tenant, id }), fileRecord, { tenant, id }, { signal });
    if (record === null) throw notFound();
    return record;
  }

  #place({ tenant, id }: Pick<FileRecord, 'tenant' | 'id'>): BlobPlace {
    return { ...this.#options, tenant, id, prefix: `${folderOf(tenant)}${id}/` };
  }
}

/** Names of the folders under `prefix` that hold an object of that name, in order. */
export async function idsUnder(store: ObjectStore, prefix: string, name: string, { signal }: CallOptions = {}): Promise<readonly string[]> {
  const ids: string[] = [];
  for await (const { key } of store.list(prefix, { signal })) {
    const [id = '', object, ...rest] = key.slice(prefix.length).split('/');
    if (object === name && rest.length === 0) ids.push(id);
  }
  return ids;
}

function folderOf(tenant: string): string {
  // Checks the name.
  tenantPrefix(tenant);
  return `files/${tenant}/`;
}

function metaKey({ tenant, id }: Pick<FileRecord, 'tenant' | 'id'>): string {
  return `${folderOf(tenant)}${id}/${META}`;
}

function viewOf({ id, createdMs, filename, purpose, blob }: FileRecord): FileView {
  return { id, createdMs, filename, purpose, bytes: blob.bytes };
}

function notFound(): EngineError {
  return new EngineError('ERR_FILE_NOT_FOUND', 'There is no such file.');
}
