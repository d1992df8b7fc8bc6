/**
 * A job as one file: a tar of the head, the spec, the manifest, and the objects that they need, under their names in the store and in this
 * order. There is one order and one size for every entry, so a reader takes nothing else: no path of its own, no entry twice.
 */
import type { Readable } from 'node:stream';
import { extract, type Extract, type Header } from 'tar-stream';

import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { throwIfCancelled } from '../core/waiting.ts';
import { sha256, textOf } from '../kv/canonical.ts';
import { parseHead, type Head } from '../kv/head.ts';
import type { Manifest, ObjectRef } from '../kv/manifest.ts';
import { HEAD, isNamePart, specName, type JobKey } from '../kv/names.ts';
import { manifestOf, objectsOf } from '../kv/read.ts';
import { checkpointError } from '../kv/reason.ts';
import type { Body } from '../ports/object-store.ts';
import { room } from './room.ts';

export interface ArchiveTop {
  readonly where: JobKey;
  readonly head: Head;
  readonly spec: string;
  readonly manifest: Manifest | null;
  readonly objects: readonly ObjectRef[];
}

export interface ArchiveVisitor {
  /** Once, before the first object. */
  readonly onTop: (top: ArchiveTop) => Promise<void>;
  /** In the order of `top.objects`. The body has the bytes that the reference says; what they are worth is not checked yet. */
  readonly onObject: (ref: ObjectRef, body: Body) => Promise<void>;
}

/**
 * Reads the whole file; one object in memory at a time.
 * @throws EngineError ERR_CHECKPOINT: it is no such file, or a damaged one; ERR_CANCELLED; what the visitor throws.
 */
export async function readArchive(source: Readable, visitor: ArchiveVisitor, signal: AbortSignal | undefined): Promise<ArchiveTop> {
  const entries = new Entries(source, signal);
  try {
    const top = await readTop(entries);
    await visitor.onTop(top);
    for (const ref of top.objects) await visitor.onObject(ref, await entries.next(ref.name, ref.bytes));
    await entries.end();
    return top;
  } catch (error) {
    throwIfCancelled(signal);
    throw error instanceof EngineError ? error : unreadable(error);
  } finally {
    entries.close();
  }
}

async function readTop(entries: Entries): Promise<ArchiveTop> {
  const text = textOf(await entries.next(HEAD, { max: LIMITS.HEAD_BYTES_MAX }), 'the head');
  const head = parseHead(text, whoseHead(text));
  const where = { tenant: head.tenant, job: head.job };
  if (head.state === 'erased') throw checkpointError('missing', 'the file holds a job that was erased');
  const spec = textOf(await entries.next(specName(head.spec), { max: LIMITS.SPEC_BYTES_MAX }), 'the spec');
  if (sha256(spec) !== head.spec) throw checkpointError('damaged', 'the spec has another digest than the head says');
  const ref = head.manifest;
  if (ref !== null && ref.bytes > LIMITS.MANIFEST_BYTES_MAX) throw checkpointError('damaged', `the head names a manifest of ${ref.bytes} bytes`);
  const manifest = ref === null ? null : manifestOf(textOf(await entries.next(ref.name, ref.bytes), 'the manifest'), where, head, ref);
  return { where, head, spec, manifest, objects: objectsOf(head, manifest) };
}

/** Only to know what to compare the head with: `parseHead` checks all of it. */
function whoseHead(text: string): JobKey {
  try {
    const { tenant, job } = Object(JSON.parse(text)) as Record<string, unknown>;
    if (typeof tenant === 'string' && typeof job === 'string' && isNamePart(tenant) && isNamePart(job)) return { tenant, job };
  } catch {
    // Said below.
  }
  throw checkpointError('damaged', 'the file begins with no head of a job');
}

type Entry = Extract extends AsyncIterable<infer T> ? T : never;

/** The entries of a tar, each asked for by name. */
class Entries {
  readonly #source: Readable;
  readonly #signal: AbortSignal | undefined;
  readonly #tar = extract();
  readonly #entries: AsyncIterator<Entry>;

  constructor(source: Readable, signal: AbortSignal | undefined) {
    this.#source = source;
    this.#signal = signal;
    this.#entries = this.#tar[Symbol.asyncIterator]();
    void this.#feed();
  }

  /** The bytes of the next entry, which has this name and size. */
  async next(name: string, size: number | { readonly max: number }): Promise<Body> {
    const { value: entry, done } = await this.#entries.next();
    if (done === true) throw checkpointError('truncated', `the file ends before ${name}`);
    const problem = problemOf(entry.header, name, size);
    if (problem !== null) throw checkpointError('damaged', `the file has an entry ${problem} where ${name} should be`);
    const chunks: Uint8Array[] = [];
    for await (const chunk of entry) {
      throwIfCancelled(this.#signal);
      chunks.push(chunk as Uint8Array);
    }
    return chunks;
  }

  async end(): Promise<void> {
    const { value: entry, done } = await this.#entries.next();
    if (done !== true) throw checkpointError('damaged', `the file has an entry ${JSON.stringify(entry.header.name.slice(0, 80))} after its last`);
  }

  close(): void {
    this.#source.destroy();
    this.#tar.destroy(null);
  }

  /** At the pace of whoever asks for entries: the parser holds nothing but one header, which it bounds. */
  async #feed(): Promise<void> {
    try {
      for await (const chunk of this.#source) {
        throwIfCancelled(this.#signal);
        if (!this.#tar.write(chunk)) await room(this.#tar);
      }
      this.#tar.end(null);
    } catch (error) {
      this.#tar.destroy(error as Error);
    }
  }
}

function problemOf({ name, size, type }: Header, wanted: string, wantedSize: number | { readonly max: number }): string | null {
  if (name !== wanted) return `named ${JSON.stringify(name.slice(0, 80))}`;
  if (type !== 'file') return `of the type ${JSON.stringify(type)}`;
  const fits = typeof wantedSize === 'number' ? size === wantedSize : size >= 0 && size <= wantedSize.max;
  return fits ? null : `of ${size} bytes`;
}

/** In the tar reader's words, which tell an end that comes too early from the rest. */
function unreadable(cause: unknown): EngineError {
  const { message, code } = cause as NodeJS.ErrnoException;
  if (typeof code === 'string' && /^E[A-Z]+$/.test(code)) return checkpointError('damaged', `the file cannot be read (${code})`, cause);
  return /end of data/i.test(message) ? checkpointError('truncated', 'the file ends within an entry', cause) : checkpointError('damaged', `the file is no tar (${message})`, cause);
}
