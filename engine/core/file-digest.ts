/** Digests of files, computed on a thread of their own while the files grow. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';
import { EngineError } from './errors.ts';

export interface FileDigests {
  readonly sha256: string;
  /** As git names blobs. */
  readonly git: string;
}

/**
 * Text, because a bundle is one file: a worker has none of its own to start from. Reads in pieces that stay in the processor's cache,
 * and git's second digest only if it is asked for.
 */
const WORKER = `
const { parentPort, workerData } = require('node:worker_threads');
const { createHash } = require('node:crypto');
const { openSync, readSync, closeSync } = require('node:fs');
const file = openSync(workerData.path, 'r');
const sha256 = createHash('sha256');
const git = workerData.git ? createHash('sha1').update('blob ' + workerData.bytes + '\\0') : null;
const buffer = Buffer.allocUnsafe(1 << 19);
let at = 0;
parentPort.on('message', (to) => {
  while (at < to) {
    const got = readSync(file, buffer, 0, Math.min(buffer.length, to - at), at);
    if (got === 0) throw new Error('the file is shorter than it was');
    const part = buffer.subarray(0, got);
    sha256.update(part);
    if (git !== null) git.update(part);
    at += got;
  }
  if (at === workerData.bytes) {
    closeSync(file);
    parentPort.postMessage({ sha256: sha256.digest('hex'), git: git === null ? '' : git.digest('hex') });
    parentPort.close();
  }
});
`;

/** A few milliseconds of hashing: less than a thread takes to start. */
const INLINE_BYTES_MAX = 4 << 20;

/** Follows a file from its start: what `advance` has named is read and never again. */
export class FileDigest implements AsyncDisposable {
  readonly #worker: Worker;
  readonly #done: Promise<FileDigests>;
  readonly #bytes: number;
  #at = -1;

  constructor(path: string, bytes: number, { git = false } = {}) {
    this.#bytes = bytes;
    this.#worker = new Worker(WORKER, { eval: true, workerData: { path, bytes, git } });
    this.#done = new Promise((resolve, reject) => {
      this.#worker.once('message', resolve);
      this.#worker.once('error', (cause) => reject(new EngineError('ERR_MODEL_FILE', `${path} cannot be read: ${cause.message}.`, { cause })));
      this.#worker.once('exit', () => reject(new EngineError('ERR_INTERNAL', `The digest of ${path} was given up.`)));
    });
    // Whoever gives up does not wait.
    this.#done.catch(() => {});
  }

  /** The first `to` bytes are in the file. */
  advance(to: number): void {
    if (to <= this.#at) return;
    this.#at = to;
    this.#worker.postMessage(to);
  }

  async finish(): Promise<FileDigests> {
    this.advance(this.#bytes);
    return await this.#done;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }
}

/** @example const { sha256 } = await digestFile('model.safetensors', 3_221_736); */
export async function digestFile(path: string, bytes: number, { git = false } = {}): Promise<FileDigests> {
  if (bytes > INLINE_BYTES_MAX) {
    await using digest = new FileDigest(path, bytes, { git });
    return await digest.finish();
  }
  const content = await readFile(path);
  if (content.length !== bytes) throw new EngineError('ERR_MODEL_FILE', `${path} has ${content.length} bytes; it had ${bytes}.`);
  const gitDigest = () => createHash('sha1').update(`blob ${bytes}\0`).update(content).digest('hex');
  return { sha256: createHash('sha256').update(content).digest('hex'), git: git ? gitDigest() : '' };
}
