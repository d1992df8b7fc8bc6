/**
 * The data keys of a job: what its objects are encrypted and their digests are keyed with. Each job makes one key of its own; a fork also
 * holds those of the ancestors whose objects it adopted, wrapped anew for itself, so that shredding an ancestor does not shred it.
 * Native code does the encrypting; this is where keys come from and where they end.
 */
import { hkdf } from '@noble/hashes/hkdf.js';
import { sha256 } from '@noble/hashes/sha2.js';

import { assert } from '../core/assert.ts';
import { base64Of, bytesOfBase64, randomBytes, utf8Of } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { inParallel } from '../core/waiting.ts';
import { DATA_KEY_BYTES, WRAPPED_KEY_BYTES_MAX, type KeyProvider } from '../ports/keys.ts';
import type { CallOptions } from '../ports/object-store.ts';
import type { Seal } from '../runtime/native.ts';
import type { Manifest, ObjectRef } from './manifest.ts';
import { jobPrefix, type JobKey } from './names.ts';
import { checkpointError } from './reason.ts';

/** Calls to a key service at a time. */
const AT_ONCE = 4;
/** BLAKE3's. */
const DIGEST_KEY_BYTES = 32;
const DIGEST_INFO = 'dmskv/1 digest\0';

interface DataKey {
  readonly seal: Seal;
  /** Base64, as the manifest has it. */
  readonly wrapped: string;
}

/** Unwrapped keys in memory, until disposed of. Native code copies what it is given within the call. */
export class JobKeys implements Disposable {
  readonly #where: JobKey;
  /** By origin; null: nothing is sealed. */
  readonly #keys: ReadonlyMap<string, DataKey> | null;
  #disposed = false;

  /** For openKeys and forkKeys. */
  constructor(where: JobKey, keys: ReadonlyMap<string, DataKey> | null) {
    this.#where = where;
    this.#keys = keys;
  }

  /** Of several jobs, as one's: takes them over. */
  static joined(where: JobKey, all: readonly JobKeys[]): JobKeys {
    const keys = new Map<string, DataKey>();
    for (const [origin, key] of all.flatMap((one) => [...(one.#keys ?? [])])) {
      if (keys.has(origin)) wipe(key);
      else keys.set(origin, key);
    }
    return new JobKeys(where, keys.size === 0 ? null : keys);
  }

  /** For objects that this job seals. */
  get own(): Seal {
    return this.of(this.#where.job);
  }

  /** For objects that `origin` sealed. @throws EngineError ERR_CHECKPOINT identity: the manifest has no key of that job. */
  of(origin: string): Seal {
    if (this.#disposed) throw new EngineError('ERR_DISPOSED', 'The keys of the job were used after they were disposed of.');
    if (this.#keys === null) return { dataKey: null, digestKey: null, context: contextOf(this.#where.tenant, origin) };
    const found = this.#keys.get(origin);
    if (found === undefined) throw checkpointError('identity', `the manifest has no key for what ${origin} sealed`);
    return found.seal;
  }

  /** For the manifest that lists `objects`: this job's key and those that the objects need. */
  wrappedFor(objects: readonly ObjectRef[]): Manifest['keys'] {
    if (this.#keys === null) return null;
    const origins = new Set([this.#where.job, ...objects.map(({ origin }) => origin)]);
    return Object.fromEntries([...this.#keys].filter(([origin]) => origins.has(origin)).map(([origin, { wrapped }]) => [origin, wrapped]));
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    for (const key of this.#keys?.values() ?? []) wipe(key);
  }
}

function wipe({ seal }: DataKey): void {
  seal.dataKey?.fill(0);
  seal.digestKey?.fill(0);
}

/**
 * The keys that a manifest carries; a new one for a job that has committed none. Without a provider, those of a job in the clear.
 * A new key is nowhere but here until a manifest with it is committed: nothing that it sealed may be published before.
 * @example using keys = await openKeys(provider, lease.where, lease.manifest, { signal });
 * @throws EngineError ERR_KEY: wrong, denied, or a provider for a job in the clear and the reverse; ERR_CHECKPOINT; ERR_STORE; ERR_CANCELLED.
 */
export async function openKeys(provider: KeyProvider | null, where: JobKey, manifest: Manifest | null, options: CallOptions = {}): Promise<JobKeys> {
  if (manifest === null) return await newKeys(provider, where, null, options);
  const { keys } = manifest;
  if (provider === null) {
    if (keys === null) return new JobKeys(where, null);
    throw new EngineError('ERR_KEY', `The job ${where.job} is encrypted: set RUMINATE_KEY to the key that it was sealed under.`);
  }
  // Whoever can write to the store could else put plain objects of his own in place of sealed ones.
  if (keys === null) throw new EngineError('ERR_KEY', `The job ${where.job} is not encrypted, but a key is set: unset RUMINATE_KEY to use what is stored in the clear.`);
  return new JobKeys(where, await unwrapAll(provider, where, keys, options));
}

/**
 * For a child that adopts `refs` of `parent`: a new key of its own, and those that the refs need, wrapped for the child.
 * @throws EngineError ERR_OPTION: too many ancestors; ERR_KEY; ERR_CHECKPOINT identity; ERR_STORE; ERR_CANCELLED.
 */
export async function forkKeys(
  provider: KeyProvider | null, child: JobKey, parent: JobKeys, refs: readonly ObjectRef[], options: CallOptions = {},
): Promise<JobKeys> {
  return await newKeys(provider, child, { parent, refs }, options);
}

async function newKeys(
  provider: KeyProvider | null, where: JobKey, from: { readonly parent: JobKeys; readonly refs: readonly ObjectRef[] } | null, { signal }: CallOptions,
): Promise<JobKeys> {
  // The names are part of what keys are bound to.
  jobPrefix(where);
  const origins = [...new Set(from?.refs.map(({ origin }) => origin) ?? [])];
  const inherited = origins.map((origin) => ({ origin, seal: from?.parent.of(origin) }));
  if (provider === null) {
    if (inherited.some(({ seal }) => seal?.dataKey !== null)) throw new EngineError('ERR_KEY', `What ${where.job} is forked from is encrypted: set RUMINATE_KEY.`);
    return new JobKeys(where, null);
  }
  if (origins.includes(where.job)) throw new EngineError('ERR_OPTION', `A job cannot be forked into its own name, ${where.job}.`);
  if (origins.length >= LIMITS.KEYS_MAX) throw new EngineError('ERR_OPTION', `A job may hold objects of at most ${LIMITS.KEYS_MAX - 1} ancestors; start a new one.`);
  const sources = [{ origin: where.job, key: randomBytes(DATA_KEY_BYTES) }, ...inherited.map(({ origin, seal }) => {
    if (seal === undefined || seal.dataKey === null) throw new EngineError('ERR_KEY', `What ${where.job} is forked from is not encrypted: unset RUMINATE_KEY.`);
    return { origin, key: Uint8Array.from(seal.dataKey) };
  })];
  try {
    return new JobKeys(where, sealsOf(where, await inParallel(sources.length, AT_ONCE, signal, async (i, stop) => {
      const source = sources[i];
      assert(source !== undefined, 'a key for every index');
      const wrapped = await provider.wrap(source.key, { ...where, origin: source.origin }, { signal: stop });
      if (wrapped.byteLength > WRAPPED_KEY_BYTES_MAX) throw new EngineError('ERR_KEY', `${provider.id} wraps a key in more than ${WRAPPED_KEY_BYTES_MAX} bytes.`);
      return { ...source, wrapped: base64Of(wrapped) };
    })));
  } catch (error) {
    for (const { key } of sources) key.fill(0);
    throw error;
  }
}

async function unwrapAll(provider: KeyProvider, where: JobKey, keys: Readonly<Record<string, string>>, { signal }: CallOptions): Promise<ReadonlyMap<string, DataKey>> {
  const entries = Object.entries(keys);
  const unwrapped: Uint8Array[] = [];
  try {
    return sealsOf(where, await inParallel(entries.length, AT_ONCE, signal, async (i, stop) => {
      const entry = entries[i];
      assert(entry !== undefined, 'an entry for every index');
      const [origin, wrapped] = entry;
      const bytes = bytesOfBase64(wrapped);
      if (bytes === null) throw checkpointError('damaged', `the manifest's key of ${origin} is not base64`);
      const key = await provider.unwrap(bytes, { ...where, origin }, { signal: stop });
      unwrapped.push(key);
      if (key.byteLength !== DATA_KEY_BYTES) throw new EngineError('ERR_KEY', `What ${provider.id} unwrapped for ${where.job} is no data key.`);
      return { origin, key, wrapped };
    }));
  } catch (error) {
    for (const key of unwrapped) key.fill(0);
    throw error;
  }
}

/** Takes the keys over. A digest key is another one, so that neither is used in two ways. */
function sealsOf({ tenant }: JobKey, keys: readonly { readonly origin: string; readonly key: Uint8Array; readonly wrapped: string }[]): ReadonlyMap<string, DataKey> {
  return new Map(keys.map(({ origin, key, wrapped }) => {
    const digestKey = hkdf(sha256, key, undefined, utf8Of(DIGEST_INFO + tenant), DIGEST_KEY_BYTES);
    return [origin, { seal: { dataKey: key, digestKey, context: contextOf(tenant, origin) }, wrapped }];
  }));
}

/** What every encrypted frame is authenticated with. Names hold no NUL. */
function contextOf(tenant: string, origin: string): string {
  return `${tenant}\0${origin}`;
}
