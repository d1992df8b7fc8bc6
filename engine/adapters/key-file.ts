/**
 * `file:PATH`: a key of 32 bytes in a file that only its owner may read. For one machine, or for machines that are given the file as a
 * secret. Whoever loses it loses every job that was sealed under it.
 *
 * A wrapped key: version 1 B | key id 8 B | nonce 12 B | AES-256-GCM of the data key 32 B | tag 16 B, authenticated with all before the
 * nonce and the context.
 */
import { createCipheriv, createDecipheriv, createHmac, createSecretKey, randomBytes, type KeyObject } from 'node:crypto';
import { constants } from 'node:fs';
import { open, rm, type FileHandle } from 'node:fs/promises';
import path from 'node:path';

import { assert } from '../core/assert.ts';
import { EngineError } from '../core/errors.ts';
import { throwIfCancelled } from '../core/waiting.ts';
import { DATA_KEY_BYTES, type KeyContext, type KeyProvider } from '../ports/keys.ts';
import type { CallOptions } from '../ports/object-store.ts';

const CIPHER = 'aes-256-gcm';
const KEY_BYTES = 32;
const VERSION = 1;
const ID_BYTES = 8;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const NONCE_AT = 1 + ID_BYTES;
const SEALED_AT = NONCE_AT + NONCE_BYTES;
const TAG_AT = SEALED_AT + DATA_KEY_BYTES;
const WRAPPED_BYTES = TAG_AT + TAG_BYTES;
const MODE = 0o600;
const OTHERS = 0o077;

export class KeyFile implements KeyProvider {
  readonly id: string;
  /** Outside JavaScript's heap, and not shown by whatever prints an object. */
  readonly #key: KeyObject;
  readonly #idBytes: Buffer;

  /** `key` is copied; the caller overwrites its own. */
  constructor(key: Uint8Array) {
    assert(key.byteLength === KEY_BYTES, 'a key file has a key');
    this.#key = createSecretKey(key);
    // Says which of several files a wrapped key needs; tells nothing about the key.
    this.#idBytes = createHmac('sha256', this.#key).update('ruminate key id').digest().subarray(0, ID_BYTES);
    this.id = `file:${this.#idBytes.toString('hex')}`;
  }

  async wrap(dataKey: Uint8Array, context: KeyContext, { signal }: CallOptions = {}): Promise<Uint8Array> {
    throwIfCancelled(signal);
    assert(dataKey.byteLength === DATA_KEY_BYTES, 'a data key has its length');
    const head = Buffer.concat([Uint8Array.of(VERSION), this.#idBytes]);
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(CIPHER, this.#key, nonce).setAAD(boundTo(head, context));
    return Buffer.concat([head, nonce, cipher.update(dataKey), cipher.final(), cipher.getAuthTag()]);
  }

  async unwrap(wrapped: Uint8Array, context: KeyContext, { signal }: CallOptions = {}): Promise<Uint8Array> {
    throwIfCancelled(signal);
    if (wrapped.byteLength !== WRAPPED_BYTES || wrapped[0] !== VERSION) throw new EngineError('ERR_KEY', 'The wrapped key was not made with a key file, or by a newer version.');
    const head = wrapped.subarray(0, NONCE_AT);
    const id = Buffer.from(head.subarray(1)).toString('hex');
    if (!this.#idBytes.equals(head.subarray(1))) {
      throw new EngineError('ERR_KEY', `The job ${context.job} was sealed under the key file:${id}, and this key file is ${this.id}: name the other file.`);
    }
    const decipher = createDecipheriv(CIPHER, this.#key, wrapped.subarray(NONCE_AT, SEALED_AT), { authTagLength: TAG_BYTES });
    decipher.setAAD(boundTo(head, context)).setAuthTag(wrapped.subarray(TAG_AT));
    const dataKey = decipher.update(wrapped.subarray(SEALED_AT, TAG_AT));
    try {
      decipher.final();
    } catch {
      dataKey.fill(0);
      throw new EngineError('ERR_KEY', `The wrapped key in the manifest of ${context.job} was changed, or is that of another job or tenant.`);
    }
    return new Uint8Array(dataKey.buffer, dataKey.byteOffset, dataKey.byteLength);
  }
}

/** @throws EngineError ERR_KEY: not there, not 32 bytes, or open to others. */
export async function readKeyFile(file: string): Promise<KeyFile> {
  const key = Buffer.alloc(KEY_BYTES + 1);
  try {
    // Not to wait for a pipe's other end; it is refused below.
    await using handle = await openKey(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const found = await handle.stat();
    if (!found.isFile()) throw wrongFile(file, 'is no regular file');
    if ((found.mode & OTHERS) !== 0) throw wrongFile(file, `can be used by others (mode ${(found.mode & 0o777).toString(8)}): run chmod 600 on it`);
    const { bytesRead } = await handle.read(key, 0, key.byteLength, 0);
    if (bytesRead !== KEY_BYTES || found.size !== KEY_BYTES) throw wrongFile(file, `has not ${KEY_BYTES} bytes: it was not made by \`ruminate key new\`, or was cut`);
    return new KeyFile(key.subarray(0, KEY_BYTES));
  } finally {
    key.fill(0);
  }
}

/**
 * A new key from the system's randomness, on the disk when this returns.
 * @throws EngineError ERR_KEY: there is a file already, which is never overwritten, or no such folder; ERR_OUTPUT: it cannot be written.
 */
export async function makeKeyFile(file: string): Promise<KeyFile> {
  const key = randomBytes(KEY_BYTES);
  try {
    await using handle = await openKey(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL);
    try {
      // Whatever the umask took away.
      await handle.chmod(MODE);
      await handle.writeFile(key);
      await handle.sync();
      await using folder = await open(path.dirname(path.resolve(file)), constants.O_RDONLY);
      await folder.sync();
    } catch (cause) {
      await rm(file, { force: true });
      throw new EngineError('ERR_OUTPUT', `The key file ${file} cannot be written (${(cause as NodeJS.ErrnoException).code ?? 'unknown'}).`, { cause });
    }
    return new KeyFile(key);
  } finally {
    key.fill(0);
  }
}

async function openKey(file: string, flags: number): Promise<FileHandle> {
  try {
    return await open(file, flags, MODE);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'unknown';
    const why: Readonly<Record<string, string>> = {
      ENOENT: (flags & constants.O_CREAT) === 0 ? 'is not there: make one with `ruminate key new FILE`, or name the right one' : 'has no folder to be in',
      EEXIST: 'is there already, and a key that is overwritten is lost with all that it sealed: name another',
      EACCES: 'may not be read by this user',
    };
    throw wrongFile(file, why[code] ?? `cannot be opened (${code})`, cause);
  }
}

function wrongFile(file: string, why: string, cause?: unknown): EngineError {
  return new EngineError('ERR_KEY', `The key file ${file.slice(0, 200)} ${why}.`, { cause });
}

/** Names hold no NUL, so that no two contexts are written alike. */
function boundTo(head: Uint8Array, { tenant, job, origin }: KeyContext): Buffer {
  return Buffer.concat([head, Buffer.from([tenant, job, origin].join('\0'))]);
}
