/** Erasing a job: a tombstone that keeps its name from being born again, then every byte that it had. */
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { NO_SPEC, type Head } from './head.ts';
import { liveKey } from './hints.ts';
import { HEAD, jobPrefix, parseName, type JobKey } from './names.ts';
import { protocolOf, type ProtocolOptions } from './protocol.ts';
import { requireHead } from './read.ts';
import { decided, swapHead } from './swap.ts';

export interface Erased {
  readonly head: Head;
  /** Objects that were there beside the tombstone. */
  readonly objects: number;
  readonly bytes: number;
}

/**
 * Allowed in any state; a running owner is fenced. May be called again, and is to be: an owner that had not noticed may have finished an
 * upload meanwhile. Manifests go first, and with them the wrapped data keys: what a crash leaves behind cannot be read.
 * @throws EngineError ERR_JOB_NOT_FOUND, ERR_STORE, ERR_CANCELLED.
 */
export async function eraseJob(store: ObjectStore, where: JobKey, options: ProtocolOptions = {}): Promise<Erased> {
  const protocol = protocolOf(store, options);
  const { signal } = options;
  let stored = await requireHead(store, where, { signal });
  if (stored.head.state !== 'erased') {
    const writeNonce = protocol.nonce();
    try {
      stored = await swapHead(protocol, where, stored, {
        propose: ({ head: { version, epoch, ...rest } }) => ({
          ...rest, version: version + 1, epoch: epoch + 1, writeNonce, state: 'erased', slice: 0, spec: NO_SPEC, strikes: 0, owner: '', manifest: null, journal: [],
        }),
        // Another's tombstone is as good.
        isMine: (current) => current.state === 'erased',
      }, signal);
    } catch (error) {
      throw decided(error);
    }
  }
  return { head: stored.head, ...(await sweepErased(store, where, { signal })) };
}

/** Removes whatever lies beside a tombstone, of any generation: no commit can ever name it. */
export async function sweepErased(store: ObjectStore, where: JobKey, { signal }: CallOptions): Promise<{ readonly objects: number; readonly bytes: number }> {
  const prefix = jobPrefix(where);
  const found: { readonly key: string; readonly rank: number }[] = [];
  let bytes = 0;
  for await (const object of store.list(prefix, { signal })) {
    if (object.key === prefix + HEAD) continue;
    found.push({ key: object.key, rank: rankOf(object.key.slice(prefix.length)) });
    bytes += object.bytes;
  }
  for (const rank of [0, 1, 2]) await store.delete(found.filter((object) => object.rank === rank).map(({ key }) => key), { signal });
  // It names the spec by its digest.
  await store.delete([liveKey(where)], { signal });
  return { objects: found.length, bytes };
}

/** Keys, then the prompt, then the rest. */
function rankOf(name: string): number {
  const kind = parseName(name)?.kind;
  return kind === 'manifest' ? 0 : kind === 'spec' ? 1 : 2;
}
