/** Is an object the one that a manifest names, in every byte? */
import { assert } from '../core/assert.ts';
import type { Manifest, ObjectRef } from '../kv/manifest.ts';
import { parseName, type JobKey } from '../kv/names.ts';
import { checkpointError } from '../kv/reason.ts';
import { openKeys, type JobKeys } from '../kv/seal.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { Body, CallOptions } from '../ports/object-store.ts';
import { verifyObject } from '../runtime/native.ts';

export interface KeyOptions extends CallOptions {
  /** null: there is none; of sealed objects only what takes no key is checked. */
  readonly keys: KeyProvider | null;
}

/** Disposed of with the keys that it holds. */
export interface Checker extends Disposable {
  /** false: the objects are sealed and there is no key, so that only sizes, structure, CRCs and named digests are checked. */
  readonly complete: boolean;
  readonly jobKeys: JobKeys | null;
  /** @throws EngineError ERR_CHECKPOINT with the reason. */
  check(ref: ObjectRef, body: Body): Promise<{ readonly frames: number }>;
}

/** For objects of this version of the job. @throws EngineError ERR_KEY: a key that is not the one; ERR_CHECKPOINT, ERR_STORE. */
export async function openChecker(where: JobKey, manifest: Manifest | null, { keys: provider, signal }: KeyOptions): Promise<Checker> {
  const sealed = manifest !== null && manifest.keys !== null;
  // Without a manifest nobody has published a sealed object.
  const jobKeys = sealed && provider === null ? null : await openKeys(sealed ? provider : null, where, manifest, { signal });
  const layoutId = manifest?.layoutId ?? null;
  return {
    complete: jobKeys !== null,
    jobKeys,
    async check(ref, body) {
      const name = parseName(ref.name);
      assert(name !== null && 'nonce' in name, 'a manifest lists segments, tails and journals');
      if (layoutId !== null && !/^[0-9a-f]{32}$/.test(layoutId)) throw checkpointError('layout', 'the layout of the manifest is none that this engine makes');
      const { frames } = await verifyObject({ kind: name.kind, layoutId, chunks: body, bytes: ref.bytes, digest: ref.digest, seal: jobKeys?.of(ref.origin) ?? null });
      return { frames };
    },
    [Symbol.dispose]: () => jobKeys?.[Symbol.dispose](),
  };
}
