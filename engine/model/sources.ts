/** Sources that need no protocol of their own: a directory on this machine, and a store that models were pushed to. */
import { open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { namesIn, statOf } from '../core/disk.ts';
import { EngineError } from '../core/errors.ts';
import { digestFile } from '../core/file-digest.ts';
import { LIMITS } from '../core/limits.ts';
import type { Body, CallOptions, ObjectStore } from '../ports/object-store.ts';
import type { ByteRange, ModelListing, ModelSource, SourceFile } from '../ports/model-source.ts';
import { NAME_PATTERN, parseCard } from './card.ts';
import { modelFiles } from './files.ts';
import { readBounded } from './registry.ts';
import { LATEST, cardKey, pieceOf } from './store-layout.ts';

/** A model directory with or without model.json, or a GGUF file. */
export class DirectorySource implements ModelSource {
  readonly url: string;
  readonly #directory: string;
  readonly #only: string | null;

  constructor(path: string) {
    this.url = path;
    this.#only = path.endsWith('.gguf') ? basename(path) : null;
    this.#directory = this.#only === null ? path : dirname(path);
  }

  async list(options: CallOptions = {}): Promise<ModelListing> {
    const base = this.#only === null ? basename(this.#directory) : basename(this.#only, '.gguf');
    const name = NAME_PATTERN.test(base) ? base : 'model';
    const listing = { name, revision: null, licence: null };
    const card = join(this.#directory, 'model.json');
    if (this.#only === null && (await statOf(card)) !== null) {
      const text = readBounded(card, LIMITS.JSON_BYTES_MAX);
      const parsed = parseCard(text, this.url);
      return { ...listing, name: parsed.name, revision: parsed.revision ?? null, card: text, files: [] };
    }
    const found: { path: string; bytes: number }[] = [];
    for (const path of await namesIn(this.#directory)) {
      const stat = await statOf(join(this.#directory, path));
      if (stat?.isFile === true) found.push({ path, bytes: stat.bytes });
    }
    const files: SourceFile[] = [];
    for (const { path, bytes } of modelFiles(found, this.#only, this.url)) {
      options.signal?.throwIfAborted();
      files.push({ path, bytes, digest: { algorithm: 'sha256', hex: (await digestFile(join(this.#directory, path), bytes)).sha256 } });
    }
    return { ...listing, card: null, files };
  }

  async read(file: SourceFile, range: ByteRange): Promise<Body> {
    const handle = await open(join(this.#directory, file.path), 'r').catch((cause: unknown) => {
      throw new EngineError('ERR_MODEL_FILE', `${join(this.#directory, file.path)} cannot be read.`, { cause });
    });
    try {
      const buffer = Buffer.allocUnsafe(range.bytes);
      let got = 0;
      while (got < range.bytes) {
        const { bytesRead } = await handle.read(buffer, got, range.bytes - got, range.offset + got);
        if (bytesRead === 0) break;
        got += bytesRead;
      }
      return [buffer.subarray(0, got)];
    } catch (cause) {
      throw new EngineError('ERR_MODEL_FILE', `${join(this.#directory, file.path)} cannot be read.`, { cause });
    } finally {
      await handle.close();
    }
  }
}

/** `<name>/` of a store, as `push` lays it out. */
export class StoreSource implements ModelSource {
  readonly url: string;
  readonly #store: ObjectStore;
  readonly #name: string;
  readonly #revision: string;

  /** @param revision default: the one pushed last. */
  constructor(store: ObjectStore, name: string, revision: string = LATEST) {
    if (!NAME_PATTERN.test(name)) throw new EngineError('ERR_MODEL_NOT_FOUND', `No model of a store is called ${JSON.stringify(name.slice(0, 80))}.`);
    this.#store = store;
    this.#name = name;
    this.#revision = revision;
    this.url = `${store.url.replace(/\/$/, '')}/${name}${revision === LATEST ? '' : `#${revision}`}`;
  }

  async list(options: CallOptions = {}): Promise<ModelListing> {
    const body = await this.#store.get(cardKey(this.#name, this.#revision), { ...options, bytesMax: LIMITS.JSON_BYTES_MAX });
    if (body === null) {
      throw new EngineError('ERR_MODEL_NOT_FOUND', `No model at ${this.url}: there is no model.json; \`ruminate models push\` writes one.`);
    }
    const text = Buffer.concat(body.chunks).toString('utf8');
    const card = parseCard(text, this.url);
    return { name: card.name, revision: card.revision ?? null, licence: card.licence, card: text, files: [] };
  }

  async read(file: SourceFile, range: ByteRange, options: Parameters<ModelSource['read']>[2] = {}): Promise<Body> {
    const { key, offset } = pieceOf(this.#name, file.digest.hex, file.bytes, range.offset);
    const body = await this.#store.get(key, { ...options, range: { offset, bytes: range.bytes }, bytesMax: range.bytes });
    if (body === null) throw new EngineError('ERR_MODEL_FILE', `${this.url}: ${file.path} is not in the store (${key}).`);
    return body.chunks;
  }
}

