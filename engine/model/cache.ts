/**
 * Models on this machine, shared by every process of it:
 *   blobs/sha256/ab/<sha256>     files, each under the digest of its content; written once, read-only
 *   blobs/git/<sha1>             links to them by git's name, for hubs that say no other
 *   snapshots/<sha256>/          a model as a directory: model.json (whose digest is the name) and links into blobs for its variants
 *   names/<name>                 links to snapshots: a root of the registry
 *   parts/, pins/, evictions/    files on their way (part.ts), who uses what (pins.ts)
 * A file gets its name in blobs only after its content was found to be what the name says.
 */
import { createHash } from 'node:crypto';
import { readFile, readlink, rename, symlink, utimes } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { fresh, hasCode, makeFolder, namesIn, remove, statOf, syncFolder, writeWhole } from '../core/disk.ts';
import { EngineError } from '../core/errors.ts';
import type { FileDigests } from '../core/file-digest.ts';
import { LIMITS } from '../core/limits.ts';
import type { Digest } from '../ports/model-source.ts';
import { type Card, NAME_PATTERN, parseCard } from './card.ts';
import type { Part } from './part.ts';
import { Pins } from './pins.ts';

/** Where a snapshot was pulled from. */
export interface Origin {
  readonly url: string;
  readonly revision: string | null;
}

/** A file as a snapshot shows it. */
export interface Linked {
  /** `config.json` within its folder. */
  readonly path: string;
  readonly sha256: string;
}

export interface CachedModel {
  readonly digest: string;
  readonly directory: string;
  readonly names: readonly string[];
  readonly card: Card;
  readonly origin: Origin | null;
  /** Variants whose files are all there. */
  readonly variants: readonly string[];
  /** By SHA-256, with sizes: what the links of the snapshot point to. */
  readonly blobs: ReadonlyMap<string, number>;
  readonly usedMs: number;
}

/** `ruminate/` in RUMINATE_CACHE, else in the cache folder of the XDG base directories. @throws EngineError ERR_OPTION: nobody has said where, and there is no home. */
export function cacheRoot(environment: NodeJS.ProcessEnv = process.env): string {
  return resolve(environment.RUMINATE_CACHE || environment.XDG_CACHE_HOME || join(environment.HOME || ownHome(), '.cache'), 'ruminate');
}

/** Services run as users who have none. */
function ownHome(): string {
  try {
    return homedir();
  } catch (cause) {
    throw new EngineError('ERR_OPTION', 'This user has no home directory to keep models in: say where with RUMINATE_CACHE or HOME.', { cause });
  }
}

/** RUMINATE_CACHE_BYTES. @throws EngineError ERR_OPTION */
export function cacheBytesMax(environment: NodeJS.ProcessEnv = process.env): number {
  const text = environment.RUMINATE_CACHE_BYTES;
  if (text === undefined || text === '') return LIMITS.CACHE_BYTES_DEFAULT;
  if (!/^\d{1,15}$/.test(text)) throw new EngineError('ERR_OPTION', `RUMINATE_CACHE_BYTES must be a number of bytes; got ${JSON.stringify(text)}.`);
  return Number(text);
}

export const digestOfCard = (text: string): string => createHash('sha256').update(text).digest('hex');

export class ModelCache {
  readonly root: string;
  readonly bytesMax: number;
  readonly pins: Pins;

  constructor(root: string = cacheRoot(), bytesMax: number = cacheBytesMax()) {
    this.root = root;
    this.bytesMax = bytesMax;
    this.pins = new Pins(root);
  }

  get partsFolder(): string {
    return join(this.root, 'parts');
  }

  /** What the registry searches by name. */
  get namesFolder(): string {
    return join(this.root, 'names');
  }

  blobPath(sha256: string): string {
    return join(this.root, 'blobs', 'sha256', sha256.slice(0, 2), sha256);
  }

  snapshotPath(digest: string): string {
    return join(this.root, 'snapshots', digest);
  }

  /** SHA-256 of the blob, if it is there in full length; null: it must be fetched. */
  async findBlob(digest: Digest, bytes: number): Promise<string | null> {
    const sha256 = digest.algorithm === 'sha256' ? digest.hex : await this.#gitAlias(digest.hex);
    if (sha256 === null) return null;
    const found = await statOf(this.blobPath(sha256));
    return found?.isFile === true && found.bytes === bytes ? sha256 : null;
  }

  async #gitAlias(hex: string): Promise<string | null> {
    try {
      return basename(await readlink(join(this.root, 'blobs', 'git', hex)));
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return null;
      throw error;
    }
  }

  /** The part's content has been found to have these digests. */
  async publish(part: Part, digests: FileDigests): Promise<void> {
    const to = this.blobPath(digests.sha256);
    try {
      await makeFolder(dirname(to));
      await part.publish(to);
      await syncFolder(dirname(to));
      if (digests.git !== '') await replaceLink(join('..', 'sha256', digests.sha256.slice(0, 2), digests.sha256), join(this.root, 'blobs', 'git', digests.git));
    } catch (error) {
      await part.release();
      throw error;
    }
    // Last: who waits for the part looks for the file by either name.
    await part.discard();
  }

  /**
   * Makes a directory of a model whose blobs are here (and pinned); what it had before stays.
   * @param folders `cr8` -> its files; the empty name is the directory itself.
   */
  async addSnapshot(card: string, folders: ReadonlyMap<string, readonly Linked[]>, origin: Origin): Promise<string> {
    const digest = digestOfCard(card);
    const path = this.snapshotPath(digest);
    for (const [folder, files] of folders) {
      const up = folder === '' ? join('..', '..') : join('..', '..', '..');
      const target = ({ sha256 }: Linked) => join(up, 'blobs', 'sha256', sha256.slice(0, 2), sha256);
      if (folder === '') {
        for (const file of files) await replaceLink(target(file), join(path, file.path));
        continue;
      }
      // A variant is there whole or not at all.
      const staged = join(this.root, 'staging', fresh());
      for (const file of files) await replaceLink(target(file), join(staged, file.path));
      await makeFolder(path);
      try {
        await rename(staged, join(path, folder));
      } catch (error) {
        if (!hasCode(error, 'EEXIST', 'ENOTEMPTY')) throw error;
        await remove(staged);
      }
    }
    await writeWhole(join(path, '.origin.json'), JSON.stringify(origin));
    // Last: a directory without it is no model.
    await writeWhole(join(path, 'model.json'), card);
    return path;
  }

  async name(name: string, digest: string): Promise<void> {
    await replaceLink(join('..', 'snapshots', digest), join(this.namesFolder, name));
  }

  /** Keeps the snapshot from being the next to go. */
  async touch(digest: string): Promise<void> {
    const now = new Date();
    await utimes(join(this.snapshotPath(digest), 'model.json'), now, now).catch(() => {});
  }

  /** Least recently used first. */
  async list(): Promise<CachedModel[]> {
    const names = new Map<string, string[]>();
    for (const name of await namesIn(this.namesFolder)) {
      const digest = NAME_PATTERN.test(name) ? basename(await readlink(join(this.namesFolder, name)).catch(() => '')) : '';
      if (digest !== '') names.set(digest, [...(names.get(digest) ?? []), name]);
    }
    const models: CachedModel[] = [];
    for (const digest of await namesIn(join(this.root, 'snapshots'))) {
      const model = await this.snapshot(digest, names.get(digest) ?? []);
      if (model !== null) models.push(model);
    }
    return models.sort((a, b) => a.usedMs - b.usedMs);
  }

  /** null: not there, or no model: its model.json, which is written last, is missing or is not the one it was. */
  async snapshot(digest: string, names: readonly string[] = []): Promise<CachedModel | null> {
    const directory = this.snapshotPath(digest);
    const file = await statOf(join(directory, 'model.json'));
    if (file === null) return null;
    const text = await readFile(join(directory, 'model.json'), 'utf8');
    if (digestOfCard(text) !== digest) return null;
    const card = parseCard(text, directory);
    const blobs = new Map<string, number>();
    const variants: string[] = [];
    const present = async (files: Card['files'], folder: string): Promise<boolean> => {
      let whole = true;
      for (const { path, bytes, sha256 } of files ?? []) {
        const link = basename(await readlink(join(directory, folder, path)).catch(() => ''));
        if (link === sha256) blobs.set(sha256, bytes);
        whole &&= link === sha256 && (await statOf(this.blobPath(sha256)))?.bytes === bytes;
      }
      return whole;
    };
    await present(card.files, '');
    for (const [name, variant] of Object.entries(card.variants)) if (await present(variant.files, variant.directory)) variants.push(name);
    return { digest, directory, names, card, origin: await originOf(directory), variants, blobs, usedMs: file.modifiedMs };
  }
}

/** What the system says of the cache's files, as an error of ours. @throws EngineError ERR_MODEL_CACHE */
export async function onDisk<T>(cache: ModelCache, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (typeof (error as NodeJS.ErrnoException | null)?.errno !== 'number') throw error;
    throw new EngineError('ERR_MODEL_CACHE', `The cache ${cache.root} cannot be used: ${(error as Error).message}.`, { cause: error });
  }
}

/** null: the variant is not here, or not whole. */
export async function cached(cache: ModelCache, digest: string, variant: string): Promise<CachedModel | null> {
  const model = await cache.snapshot(digest);
  return model?.variants.includes(variant) === true ? model : null;
}

async function originOf(directory: string): Promise<Origin | null> {
  try {
    return JSON.parse(await readFile(join(directory, '.origin.json'), 'utf8')) as Origin;
  } catch {
    return null;
  }
}

async function replaceLink(target: string, path: string): Promise<void> {
  await makeFolder(dirname(path));
  const temporary = join(dirname(path), `.${fresh()}`);
  await symlink(target, temporary);
  await rename(temporary, path);
}
