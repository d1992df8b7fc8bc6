/** Erasing a job: a tombstone that keeps its name from being born again, then every byte that it had. */
import { utf8Of } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { FORMAT, formatHead, NO_SPEC, type Head } from './head.ts';
import { keepKey, liveHints } from './hints.ts';
import { HEAD, jobPrefix, parseName, shardIn, shardKey, type JobKey } from './names.ts';
import { putIfAbsent } from './once.ts';
import { attempts, protocolOf, type Protocol, type ProtocolOptions } from './protocol.ts';
import { requireHead } from './read.ts';
import { deleteStrikes } from './strikes.ts';
import { decided, swapHead } from './swap.ts';

export interface EraseOptions extends ProtocolOptions {
  /** Nobody asked for it: its result was kept for as long as it was to be. The tombstone says so. */
  readonly isOverdue?: boolean | undefined;
}

export interface Erased {
  readonly head: Head;
  /** Objects that were there beside the tombstone. */
  readonly objects: number;
  readonly bytes: number;
}

/**
 * Allowed in any state, and when the head cannot be read; a running owner is fenced. May be called again, and is to be: an owner that had not
 * noticed may have finished an upload meanwhile. Manifests go first, and with them the wrapped data keys: what a crash leaves behind cannot
 * be read.
 * @throws EngineError ERR_JOB_NOT_FOUND, ERR_STORE, ERR_CANCELLED.
 */
export async function eraseJob(store: ObjectStore, where: JobKey, options: EraseOptions = {}): Promise<Erased> {
  const protocol = protocolOf(store, options);
  const why = options.isOverdue === true ? OVERDUE : '';
  const head = await bury(protocol, where, why, options.signal);
  let { objects, bytes } = await sweepErased(store, where, options);
  // After their parent, which bears no more of them; one that was never born is kept from it.
  for (const shard of await shardsOf(store, head, options)) {
    const at = shardKey(where, shard);
    await putIfAbsent(protocol, jobPrefix(at) + HEAD, formatHead(tombstone(at, { version: 0, epoch: 0, gc: 0, writeNonce: protocol.nonce() }, why)), options.signal);
    await bury(protocol, at, why, options.signal);
    const swept = await sweepErased(store, at, options);
    objects += swept.objects;
    bytes += swept.bytes;
  }
  return { head, objects, bytes };
}

/** As its head says, and those that are there though it could not be read. */
async function shardsOf(store: ObjectStore, head: Head, { signal }: CallOptions): Promise<readonly number[]> {
  const shards = new Set(Array.from({ length: head.join?.shards ?? 0 }, (_, i) => i));
  if (head.join !== undefined || isUnreadable(head)) {
    const prefix = jobPrefix(head);
    for await (const { key } of store.list(prefix, { signal })) {
      const shard = shardIn(key.slice(prefix.length));
      if (shard !== null) shards.add(shard);
    }
  }
  return [...shards].sort((a, b) => a - b);
}

/** Buried without being read. */
function isUnreadable({ version }: Head): boolean {
  return version === Number.MAX_SAFE_INTEGER;
}

/** As the owner of a tombstone, who is nobody: why it is one. */
const OVERDUE = 'retention';

/** Whether a job was erased because its result was kept for long enough. */
export function isOverdue({ state, owner }: Head): boolean {
  return state === 'erased' && owner === OVERDUE;
}

async function bury(protocol: Protocol, where: JobKey, why: string, signal: AbortSignal | undefined): Promise<Head> {
  const nextAttempt = attempts(protocol, `${protocol.store.url}: erasing ${where.job}`, signal);
  const writeNonce = protocol.nonce();
  for (;;) {
    try {
      const stored = await requireHead(protocol.store, where, { signal });
      if (stored.head.state === 'erased') return stored.head;
      const { head } = await swapHead(protocol, where, stored, {
        propose: ({ head: { version, epoch, gc, join } }) => tombstone(where, { version: version + 1, epoch: epoch + 1, gc, writeNonce, join }, why),
        // Another's tombstone is as good.
        isMine: (current) => current.state === 'erased',
      }, signal);
      return head;
    } catch (error) {
      const cause = decided(error);
      if (!(cause instanceof EngineError) || cause.code !== 'ERR_CHECKPOINT') throw cause;
    }
    await buryUnreadable(protocol, where, writeNonce, why, signal);
    await nextAttempt();
  }
}

/** Which epoch its owner has is not known: the last there can be is another, and nothing follows a tombstone that would need the next. */
async function buryUnreadable({ store }: Protocol, where: JobKey, writeNonce: string, why: string, signal: AbortSignal | undefined): Promise<void> {
  const info = await store.head(jobPrefix(where) + HEAD, { signal });
  if (info === null) return;
  const last = Number.MAX_SAFE_INTEGER;
  const text = formatHead(tombstone(where, { version: last, epoch: last, gc: 0, writeNonce }, why));
  await store.put(jobPrefix(where) + HEAD, [utf8Of(text)], { condition: { kind: 'if_match', etag: info.etag }, signal });
}

function tombstone({ tenant, job }: JobKey, counts: Pick<Head, 'version' | 'epoch' | 'gc' | 'writeNonce' | 'join'>, owner: string): Head {
  return { format: FORMAT, tenant, job, ...counts, state: 'erased', slice: 0, spec: NO_SPEC, strikes: 0, owner, manifest: null, journal: [] };
}

/** Removes whatever lies beside a tombstone, of any generation: no commit can ever name it. */
export async function sweepErased(store: ObjectStore, where: JobKey, { signal }: CallOptions): Promise<{ readonly objects: number; readonly bytes: number }> {
  const prefix = jobPrefix(where);
  const found: { readonly key: string; readonly rank: number }[] = [];
  let bytes = 0;
  for await (const object of store.list(prefix, { signal })) {
    // A shard has a tombstone of its own.
    if (object.key === prefix + HEAD || shardIn(object.key.slice(prefix.length)) !== null) continue;
    found.push({ key: object.key, rank: rankOf(object.key.slice(prefix.length)) });
    bytes += object.bytes;
  }
  for (const rank of [0, 1, 2]) await store.delete(found.filter((object) => object.rank === rank).map(({ key }) => key), { signal });
  await deleteStrikes(store, where, { signal });
  // It names the spec by its digest.
  await store.delete([...liveHints(where), keepKey(where)], { signal });
  return { objects: found.length, bytes };
}

/** Keys, then the prompt, then the rest. */
function rankOf(name: string): number {
  const kind = parseName(name)?.kind;
  return kind === 'manifest' ? 0 : kind === 'spec' ? 1 : 2;
}
