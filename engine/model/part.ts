/**
 * One file on its way into the cache: `parts/<algorithm>-<hex>~<when>~<owner>~<random>/` with `data` at its full length and `ranges`, a
 * line for every range that is on disk. A dead owner's part is taken over by renaming it, which only one process can, so a killed pull
 * goes on where it was; a living owner's is waited for, so that two processes do not fetch the same bytes.
 */
import { constants } from 'node:fs';
import { type FileHandle, appendFile, copyFile, mkdir, open, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { fresh, hasCode, makeFolder, namesIn, remove, statOf } from '../core/disk.ts';
import { LIMITS } from '../core/limits.ts';
import { NOBODY, stateOf, thisOwner } from '../core/owner.ts';
import type { Body } from '../ports/object-store.ts';
import type { ByteRange, Digest } from '../ports/model-source.ts';

interface PartName {
  readonly name: string;
  readonly key: string;
  readonly when: string;
  readonly owner: string;
}

/** Begins or takes over the part of a file; null: another process is at it. */
export async function claimPart(folder: string, digest: Digest, bytes: number): Promise<Part | null> {
  await makeFolder(folder);
  const key = keyOf(digest);
  const name = `${key}~${String(Date.now()).padStart(15, '0')}~${thisOwner()}~${fresh()}`;
  const path = join(folder, name);
  for (const other of await partsOf(folder, key)) {
    const state = await stateOfPart(folder, other);
    if (state === 'busy') return null;
    // Its owner may wake up and write: it keeps its file, and we begin our own.
    if (state === 'stuck') continue;
    return (await takeOver(join(folder, other.name), path, state)) ? await Part.open(folder, path, bytes) : null;
  }
  await mkdir(path);
  // Two that began at once both look now: the later one steps back.
  for (const other of await partsOf(folder, key)) {
    if (other.name >= name || (await stateOfPart(folder, other)) !== 'busy') continue;
    await remove(path);
    return null;
  }
  return await Part.open(folder, path, bytes);
}

/** false: another process was faster. */
async function takeOver(from: string, to: string, state: 'left' | 'foreign'): Promise<boolean> {
  try {
    await rename(from, to);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return false;
    throw error;
  }
  // If its owner lives on after all, it writes into a file that nobody reads.
  if (state === 'foreign' && (await statOf(join(to, 'data'))) !== null) {
    await copyFile(join(to, 'data'), join(to, 'copy'));
    await rename(join(to, 'copy'), join(to, 'data'));
  }
  return true;
}

/** Parts that no living process works on, the oldest first, with what they hold on disk. */
export async function idleParts(folder: string): Promise<{ readonly path: string; readonly bytes: number }[]> {
  const idle = [];
  for (const part of await partsIn(folder)) {
    const state = await stateOfPart(folder, part);
    if (state === 'busy' || state === 'stuck') continue;
    const path = join(folder, part.name);
    idle.push({ path, bytes: (await statOf(join(path, 'data')))?.bytes ?? 0 });
  }
  return idle;
}

/** What all parts will be when they are whole: their room is taken from the start. */
export async function bytesOfParts(folder: string): Promise<number> {
  let sum = 0;
  for (const part of await partsIn(folder)) sum += (await statOf(join(folder, part.name, 'data')))?.bytes ?? 0;
  return sum;
}

export class Part {
  /** In order and without overlap. */
  readonly done: ByteRange[];
  readonly #folder: string;
  readonly #path: string;
  readonly #file: FileHandle;

  private constructor(folder: string, path: string, file: FileHandle, done: ByteRange[]) {
    this.#folder = folder;
    this.#path = path;
    this.#file = file;
    this.done = done;
  }

  static async open(folder: string, path: string, bytes: number): Promise<Part> {
    const data = join(path, 'data');
    const file = await open(data, constants.O_RDWR | constants.O_CREAT, 0o644);
    try {
      // A file of another length holds nothing that the record speaks of.
      const known = (await file.stat()).size === bytes ? await readRanges(join(path, 'ranges'), bytes) : [];
      if (known.length === 0) await remove(join(path, 'ranges'));
      await file.truncate(bytes);
      return new Part(folder, path, file, known);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  get dataPath(): string {
    return join(this.#path, 'data');
  }

  /** What is missing, in ranges that cross no multiple of `rangeBytes`. */
  missing(bytes: number, rangeBytes: number): ByteRange[] {
    const gaps: ByteRange[] = [];
    let at = 0;
    for (const { offset, bytes: length } of [...this.done, { offset: bytes, bytes: 0 }]) {
      while (at < offset) {
        const range = { offset: at, bytes: Math.min(rangeBytes - (at % rangeBytes), offset - at) };
        gaps.push(range);
        at += range.bytes;
      }
      at = offset + length;
    }
    return gaps;
  }

  /** On disk before it is on record: a record is believed after a power cut. */
  async write(range: ByteRange, body: Body): Promise<void> {
    let at = range.offset;
    for (const chunk of body) {
      for (let from = 0; from < chunk.length; ) {
        const { bytesWritten } = await this.#file.write(chunk, from, chunk.length - from, at);
        from += bytesWritten;
        at += bytesWritten;
      }
    }
    await this.#file.datasync();
    await appendFile(join(this.#path, 'ranges'), `\n${range.offset} ${range.bytes}.\n`);
    this.done.push(range);
    this.done.splice(0, this.done.length, ...merged(this.done));
  }

  /** From the start without a gap. */
  get contiguousBytes(): number {
    const first = this.done[0];
    return first === undefined || first.offset > 0 ? 0 : first.bytes;
  }

  /** Moves the whole file, which has been verified, to its name; nobody writes to it any more. The part is ours until `discard`. */
  async publish(to: string): Promise<void> {
    await this.#file.chmod(0o444);
    await this.#file.sync();
    await rename(this.dataPath, to);
  }

  /** Leaves what is there for the next pull, of any process. */
  async release(): Promise<void> {
    await this.#file.close();
    const name = nameOf(this.#path.slice(this.#folder.length + 1));
    if (name !== null) await rename(this.#path, join(this.#folder, `${name.key}~${name.when}~${NOBODY}~${fresh()}`));
  }

  async discard(): Promise<void> {
    await this.#file.close();
    await remove(this.#path);
  }
}

const keyOf = (digest: Digest): string => `${digest.algorithm}-${digest.hex}`;

function nameOf(name: string): PartName | null {
  const [key, when, owner, random, ...rest] = name.split('~');
  return key === undefined || when === undefined || owner === undefined || random === undefined || rest.length > 0 ? null : { name, key, when, owner };
}

async function partsIn(folder: string): Promise<PartName[]> {
  return (await namesIn(folder)).map(nameOf).filter((part) => part !== null);
}

async function partsOf(folder: string, key: string): Promise<PartName[]> {
  return (await partsIn(folder)).filter((part) => part.key === key);
}

/** `stuck`: its owner lives and does nothing, and must not keep all others waiting. */
async function stateOfPart(folder: string, part: PartName): Promise<'busy' | 'stuck' | 'left' | 'foreign'> {
  const owner = stateOf(part.owner);
  if (owner === 'dead') return 'left';
  const recorded = await statOf(join(folder, part.name, 'ranges'));
  const silentMs = Date.now() - Math.max(Number(part.when), recorded?.modifiedMs ?? 0);
  if (silentMs < LIMITS.PEER_SILENCE_MS_MAX) return 'busy';
  return owner === 'alive' ? 'stuck' : 'foreign';
}

/** A line that was cut short has no full stop and is no record. */
async function readRanges(path: string, bytes: number): Promise<ByteRange[]> {
  const text = await readFile(path, 'utf8').catch((error: unknown) => {
    if (hasCode(error, 'ENOENT')) return '';
    throw error;
  });
  const lines = [...text.matchAll(/^(\d{1,15}) (\d{1,15})\.$/gm)].map(([, offset, length]) => ({ offset: Number(offset), bytes: Number(length) }));
  return merged(lines.filter((range) => range.offset + range.bytes <= bytes));
}

function merged(ranges: readonly ByteRange[]): ByteRange[] {
  const out: { offset: number; bytes: number }[] = [];
  for (const range of [...ranges].sort((a, b) => a.offset - b.offset)) {
    const last = out.at(-1);
    if (last !== undefined && range.offset <= last.offset + last.bytes) last.bytes = Math.max(last.bytes, range.offset + range.bytes - last.offset);
    else out.push({ ...range });
  }
  return out;
}
