/**
 * Letting go of a job's KV when it has ended and nobody is to go on from it for nothing: a manifest without segments and tails, published by a swap of the
 * head, and then the garbage of what it named. Spec, journals and counters stay, and with them the result; who forks or extends the job
 * later computes from the prompt. As a collection does, it keeps epoch and `writeNonce`: the owner of the last commit must still find his own.
 */
import { EngineError } from '../core/errors.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import { type Collected, collectGarbage } from './gc.ts';
import { type Head, isTerminal } from './head.ts';
import { formatOf, type Manifest } from './manifest.ts';
import { shardKey, type JobKey } from './names.ts';
import { protocolOf, type Protocol, type ProtocolOptions } from './protocol.ts';
import { publishManifest } from './publish.ts';
import { readHead, readManifest, requireHead } from './read.ts';
import { decided, swapHead } from './swap.ts';

/**
 * Safe beside readers, forks, collections and erasing, and after dying half way; again, it does nothing more.
 * @returns what went.
 * @throws EngineError ERR_JOB_NOT_FOUND; ERR_JOB_CONFLICT: it has not ended; ERR_CHECKPOINT: nothing was deleted; ERR_STORE; ERR_CANCELLED.
 */
export async function trimJob(store: ObjectStore, where: JobKey, options: ProtocolOptions = {}): Promise<Collected> {
  const protocol = protocolOf(store, options);
  const { signal } = options;
  const { head } = await requireHead(store, where, { signal });
  await trimOwn(protocol, where, signal);
  for (let i = 0; i < (head.join?.shards ?? 0); i++) {
    // One that was never born has nothing.
    if ((await readHead(store, shardKey(where, i), { signal })) !== null) await trimOwn(protocol, shardKey(where, i), signal);
  }
  return await collectGarbage(store, where, options);
}

async function trimOwn(protocol: Protocol, where: JobKey, signal: AbortSignal | undefined): Promise<void> {
  try {
    const stored = await requireHead(protocol.store, where, { signal });
    if (await trimmedManifest(protocol, where, stored.head, signal) !== null) {
      await swapHead(protocol, where, stored, {
        propose: async ({ head }) => {
          const manifest = await trimmedManifest(protocol, where, head, signal);
          return { ...head, version: head.version + 1, manifest: manifest === null ? head.manifest : await publishManifest(protocol, where, manifest, signal) };
        },
        isMine: (current, proposal) => current.manifest?.name === proposal.manifest?.name,
      }, signal);
    }
  } catch (error) {
    throw decided(error);
  }
}

/** null: there is nothing in it that could go. */
async function trimmedManifest({ store, digestKey }: Protocol, where: JobKey, head: Head, signal: AbortSignal | undefined): Promise<Manifest | null> {
  if (head.state === 'erased') return null;
  if (!isTerminal(head.state)) throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} is ${head.state}; only of one that has ended its KV may go.`);
  const manifest = await readManifest(store, where, head, { signal, digestKey });
  if (manifest === null || manifest.objects.length === manifest.journal.length) return null;
  const kept = manifest.journal.map((i) => manifest.objects[i]).filter((object) => object !== undefined);
  return {
    ...manifest,
    format: formatOf({ objects: kept }),
    version: head.version,
    promptTail: null,
    chains: manifest.chains.map((chain) => ({ ...chain, segments: [], tails: [] })),
    objects: kept,
    journal: kept.map((_, i) => i),
  };
}
