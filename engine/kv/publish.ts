/** A manifest on its way into a head: written under its digest before the head that names it. */
import { assert } from '../core/assert.ts';
import { utf8Bytes, utf8Of } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { digestOf } from './canonical.ts';
import type { Ref } from './head.ts';
import { parseManifest, type Manifest } from './manifest.ts';
import { jobPrefix, manifestName, type JobKey } from './names.ts';
import type { Protocol } from './protocol.ts';

/** Read again before it is written: what nobody could read is never published. */
export async function publishManifest({ store, digestKey }: Protocol, where: JobKey, manifest: Manifest, signal: AbortSignal | undefined): Promise<Ref> {
  const text = JSON.stringify(manifest);
  assert(utf8Bytes(text) <= LIMITS.MANIFEST_BYTES_MAX, 'a manifest is bounded');
  try {
    parseManifest(text, where);
  } catch (cause) {
    throw new EngineError('ERR_INTERNAL', `Broken rule: a manifest that is committed can be read (${(cause as Error).message}).`, { cause });
  }
  const digest = digestOf(text, digestKey);
  const name = manifestName(manifest.version, digest);
  const outcome = await store.put(jobPrefix(where) + name, [utf8Of(text)], { signal });
  if (outcome.kind !== 'written') throw new EngineError('ERR_STORE', `${store.url}: ${name} was not written (${outcome.kind}).`);
  return { name, bytes: utf8Bytes(text), digest };
}
