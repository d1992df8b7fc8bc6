/** The files of one pull: ranges in parallel over all of them, each file hashed while it grows and given its name when it is right. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Clock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { FileDigest, type FileDigests, digestFile } from '../core/file-digest.ts';
import { Gate, allOrNone } from '../core/gate.ts';
import { LIMITS } from '../core/limits.ts';
import type { ByteRange, ModelSource, SourceFile } from '../ports/model-source.ts';
import type { ModelCache } from './cache.ts';
import { type Part, claimPart } from './part.ts';
import type { FileProgress, PullProgress } from './pull.ts';

const PEER_POLL_MS = 50;

export interface FetcherOptions {
  readonly signal: AbortSignal;
  readonly clock: Clock;
  readonly onProgress?: ((progress: PullProgress) => void) | undefined;
  readonly rangeBytes?: number | undefined;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export class Fetcher {
  /** When the last byte was on this disk. */
  fetchedAtMs: number;
  /** Over the wire, ranges fetched twice counted twice. */
  fetchedBytes = 0;
  readonly #cache: ModelCache;
  readonly #source: ModelSource;
  readonly #files: readonly SourceFile[];
  readonly #options: FetcherOptions;
  readonly #ranges = new Gate(LIMITS.RANGES_IN_FLIGHT);
  /** Of a range each, for the next one: fresh ones would be as much memory as the model, and the collector's work beside. */
  readonly #buffers: Uint8Array[] = [];
  readonly #progress = new Map<SourceFile, Mutable<FileProgress>>();

  constructor(cache: ModelCache, source: ModelSource, files: readonly SourceFile[], options: FetcherOptions) {
    this.#cache = cache;
    this.#source = source;
    this.#files = files;
    this.#options = options;
    this.fetchedAtMs = options.clock.nowMs();
    for (const file of files) this.#progress.set(file, { path: file.path, bytes: file.bytes, doneBytes: 0, state: 'waiting' });
  }

  /** Of files that are not in the cache, each content counted once. */
  async missingBytes(): Promise<number> {
    const missing = new Map<string, number>();
    for (const { digest, bytes } of this.#files) {
      if ((await this.#cache.findBlob(digest, bytes)) === null) missing.set(digest.hex, bytes);
    }
    return [...missing.values()].reduce((sum, bytes) => sum + bytes, 0);
  }

  /** SHA-256 by path. What was fetched stays when it fails, but for files that were found to be wrong. */
  async run(): Promise<Map<string, string>> {
    // Variants share files: one content is fetched once.
    const byDigest = new Map<string, SourceFile[]>();
    for (const file of this.#files) {
      const key = `${file.digest.algorithm}-${file.digest.hex}-${file.bytes}`;
      byDigest.set(key, [...(byDigest.get(key) ?? []), file]);
    }
    const slots = new Gate(LIMITS.FILES_IN_FLIGHT);
    const found = await allOrNone(this.#options.signal, [...byDigest.values()], async (same, signal) => {
      const [first] = same;
      if (first === undefined) return [];
      const sha256 = await slots.pass(() => this.#obtain(first, same, signal));
      return same.map(({ path }) => [path, sha256] as const);
    });
    return new Map(found.flat());
  }

  picture(): FileProgress[] {
    return [...this.#progress.values()].map((file) => ({ ...file }));
  }

  async #obtain(file: SourceFile, same: readonly SourceFile[], signal: AbortSignal): Promise<string> {
    // A part that a killed pull had begun may have been spoilt since: then once more from the start.
    for (let fresh = false; ; ) {
      signal.throwIfAborted();
      const there = await this.#cache.findBlob(file.digest, file.bytes);
      if (there !== null) {
        this.#note(same, { state: 'done', doneBytes: file.bytes });
        return there;
      }
      const part = await claimPart(this.#cache.partsFolder, file.digest, file.bytes);
      if (part === null) {
        this.#note(same, { state: 'peer' });
        await sleep(PEER_POLL_MS);
        continue;
      }
      // Whoever had the part may have made it whole between our look and our claim.
      if ((await this.#cache.findBlob(file.digest, file.bytes)) !== null) {
        await part.discard();
        continue;
      }
      const resumed = part.done.length > 0;
      const digests = await this.#fill(part, file, same, signal);
      const found = file.digest.algorithm === 'git' ? digests.git : digests.sha256;
      if (found === file.digest.hex) {
        await this.#cache.publish(part, digests);
        this.#note(same, { state: 'done', doneBytes: file.bytes });
        return digests.sha256;
      }
      await part.discard();
      if (!resumed || fresh) {
        const digest = `its ${file.digest.algorithm} digest is ${found}, not ${file.digest.hex}`;
        throw new EngineError('ERR_MODEL_FILE', `${this.#source.url}: ${file.path} is not what it should be: ${digest}. Nothing of it was kept.`);
      }
      fresh = true;
    }
  }

  /** Fetches what is missing; on failure the part is left for the next pull. */
  async #fill(part: Part, file: SourceFile, same: readonly SourceFile[], signal: AbortSignal): Promise<FileDigests> {
    const { bytes } = file;
    const git = file.digest.algorithm === 'git';
    const rangeBytes = this.#options.rangeBytes ?? LIMITS.RANGE_BYTES;
    try {
      // A thread takes longer to start than a small file to hash.
      await using digest = bytes > rangeBytes ? new FileDigest(part.dataPath, bytes, { git }) : null;
      const note = () => {
        this.#note(same, { state: 'fetching', doneBytes: part.done.reduce((sum, range) => sum + range.bytes, 0) });
        digest?.advance(part.contiguousBytes);
      };
      note();
      await allOrNone(signal, part.missing(bytes, rangeBytes), (range, either) => this.#ranges.pass(async () => {
        either.throwIfAborted();
        const into = range.bytes === rangeBytes ? (this.#buffers.pop() ?? Buffer.allocUnsafeSlow(rangeBytes)) : undefined;
        await part.write(range, await this.#read(file, range, into, either));
        if (into !== undefined) this.#buffers.push(into);
        this.fetchedBytes += range.bytes;
        note();
      }));
      this.fetchedAtMs = this.#options.clock.nowMs();
      this.#note(same, { state: 'verifying' });
      return await (digest?.finish() ?? digestFile(part.dataPath, bytes, { git }));
    } catch (error) {
      await part.release();
      throw error;
    }
  }

  async #read(file: SourceFile, range: ByteRange, into: Uint8Array | undefined, signal: AbortSignal): Promise<readonly Uint8Array[]> {
    const body = await this.#source.read(file, range, { signal, into });
    const got = body.reduce((sum, chunk) => sum + chunk.length, 0);
    if (got !== range.bytes) {
      throw new EngineError('ERR_MODEL_FILE', `${this.#source.url}: ${file.path} is cut short: ${got} bytes at ${range.offset} instead of ${range.bytes}.`);
    }
    return body;
  }

  #note(same: readonly SourceFile[], change: Partial<FileProgress>): void {
    for (const file of same) Object.assign(this.#progress.get(file) ?? {}, change);
    const files = this.picture();
    const fetching = files.some(({ state }) => state !== 'verifying' && state !== 'done');
    this.#options.onProgress?.({ phase: fetching ? 'fetch' : 'verify', files });
  }
}
