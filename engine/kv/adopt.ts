/** What a fork or an extension takes over from its ancestor: copies within the store, so that neither job's garbage or end touches the other. */
import { assert } from '../core/assert.ts';
import { placeOf, type ObjectRef } from './manifest.ts';
import { jobPrefix, parseName, type JobKey } from './names.ts';
import type { NewObject } from './uploads.ts';

/**
 * The ancestor's objects as new objects of a child of the same tenant, for `Lease.commit`: it copies them under the child's prefix and hands
 * out their references. They stay sealed with the key they were sealed with, so the child's manifest needs the ancestor's wrapped key.
 * A commit says ERR_CHECKPOINT `missing` if the ancestor has moved on or was erased meanwhile: read it again.
 * @example lease.commit({ state: 'running', objects: adopt(parent, manifest.objects), manifest: (refs) => … })
 */
export function adopt(ancestor: JobKey, refs: readonly ObjectRef[]): readonly NewObject[] {
  return refs.map((ref) => {
    const name = parseName(ref.name);
    assert(name !== null && 'nonce' in name, 'a manifest lists segments, tails and journals');
    const { kind, chain, n, nonce } = name;
    return { kind, chain, n, nonce, body: { copyOf: jobPrefix(ancestor) + placeOf(ref), at: ref.pack?.at }, bytes: ref.bytes, digest: ref.digest, origin: ref.origin };
  });
}
