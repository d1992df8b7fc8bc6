/**
 * A job in shards: each shard is a job of its own, and the parent is over once every shard is joined (scripts/protocol/join.py). The parent has no
 * owner: whoever has something to say of a shard swaps its head, any number of times, and what is there already changes nothing.
 */
import { assert } from '../core/assert.ts';
import { EngineError } from '../core/errors.ts';
import { inParallel } from '../core/waiting.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import { readJob } from './create.ts';
import { endJob } from './end.ts';
import { isTerminal, type Head, type JobState } from './head.ts';
import { liveHints } from './hints.ts';
import { formatOf, type Manifest, type ManifestContent, type Vote } from './manifest.ts';
import { type JobKey, shardKey, shardOf } from './names.ts';
import { attempts, protocolOf, type Protocol, type ProtocolOptions } from './protocol.ts';
import { publishManifest } from './publish.ts';
import { checkpointError } from './reason.ts';
import { isMissing, readManifest, requireHead, type StoredHead } from './read.ts';
import { decided, swapHead } from './swap.ts';

/** A sharded job at one moment: what all shards have said of their chains is its manifest. */
export interface Sharded {
  readonly head: Head;
  readonly manifest: Manifest | null;
}

export interface JoinOptions extends ProtocolOptions {
  /** What becomes of the job now that all shards are over. A function of the manifest. */
  readonly settle: (all: Manifest) => Pick<ManifestContent, 'chains' | 'ended'> & { readonly state: 'done' | 'incomplete' };
}

export interface Joined extends Sharded {
  /** It was this that ended the job, and nobody before. */
  readonly hasEnded: boolean;
}

/**
 * What a shard has committed, told to its parent: of one that has ended also that it has. The last one ends the parent. So does one that cannot come
 * to a result: the parent ends as it did.
 * @throws EngineError ERR_JOB_NOT_FOUND, ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED.
 */
export async function joinShard(store: ObjectStore, where: JobKey, options: JoinOptions): Promise<Joined> {
  const shard = shardOf(where);
  assert(shard !== null, 'only shards are joined');
  const protocol = protocolOf(store, options);
  // One that is over does not change any more.
  const child = await readJob(store, where, { signal: options.signal, digestKey: options.digestKey });
  let wasOver = false;
  const now = await tell(protocol, shard.parent, options.signal, (parent) => {
    wasOver = isTerminal(parent.head.state);
    return nextOf(parent, shard.index, child, options.settle);
  });
  return { ...now, hasEnded: !wasOver && isTerminal(now.head.state) };
}

/** It has a worker: from now on it is not too late for it. */
export async function beginSharded(store: ObjectStore, where: JobKey, options: ProtocolOptions = {}): Promise<Sharded> {
  return await tell(protocolOf(store, options), where, options.signal, ({ head }) => (head.state === 'queued' ? { state: 'running', content: null, joined: head.join?.joined ?? [] } : null));
}

/** Whatever still lives of a job that is over, however it ended: nobody will count it any more. */
export async function endShards(store: ObjectStore, { tenant, job, join }: Pick<Head, 'tenant' | 'job' | 'join'>, options: ProtocolOptions = {}): Promise<void> {
  await inParallel(join?.shards ?? 0, AT_ONCE, options.signal, async (index, signal) => {
    const where = shardKey({ tenant, job }, index);
    try {
      await endJob(store, where, 'cancelled', { ...options, signal });
      await store.delete(liveHints(where), { signal });
    } catch (error) {
      // Not born yet: whoever bears it finds that its parent is over.
      if (!(error instanceof EngineError && error.code === 'ERR_JOB_NOT_FOUND')) throw error;
    }
  });
}

const AT_ONCE = 8;

interface Next {
  readonly state: JobState;
  /** null: the manifest stays as it is. */
  readonly content: ManifestContent | null;
  readonly joined: readonly number[];
}

/** One write of the parent, put on top of whatever others wrote before. `next` null: there is nothing to write. */
async function tell(protocol: Protocol, where: JobKey, signal: AbortSignal | undefined, next: (parent: Sharded) => Next | null): Promise<Sharded> {
  const nextAttempt = attempts(protocol, `${protocol.store.url}: joining ${where.job}`, signal);
  for (;;) {
    const { stored, manifest } = await readParent(protocol, where, signal);
    if (stored.head.join === undefined) throw checkpointError('damaged', `${where.job} is not sharded`);
    const seen = { head: stored.head, manifest };
    const wanted = next(seen);
    if (wanted === null) return seen;
    const told = await swapParent(protocol, where, stored, manifest, wanted, signal);
    if (told !== null) return told;
    // As many as there are shards may come at once: all but one of them wait, each as chance will have it.
    await nextAttempt();
  }
}

/** The head with the manifest that it names: another may replace and collect it between the two reads. */
async function readParent({ store, digestKey }: Protocol, where: JobKey, signal: AbortSignal | undefined): Promise<{ readonly stored: StoredHead; readonly manifest: Manifest | null }> {
  for (let seen: string | null = null; ;) {
    const stored = await requireHead(store, where, { signal });
    try {
      return { stored, manifest: await readManifest(store, where, stored.head, { signal, digestKey }) };
    } catch (error) {
      if (!isMissing(error) || stored.etag === seen) throw error;
      seen = stored.etag;
    }
  }
}

/** null: somebody else was first. */
async function swapParent(
  protocol: Protocol, where: JobKey, from: StoredHead, before: Manifest | null, { state, content, joined }: Next, signal: AbortSignal | undefined,
): Promise<Sharded | null> {
  const writeNonce = protocol.nonce();
  let hasMoved = false;
  let manifest = before;
  try {
    const { head } = await swapHead(protocol, where, from, {
      propose: async (base) => {
        hasMoved = base.etag !== from.etag;
        if (hasMoved) throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} was written meanwhile.`);
        const { version, epoch, spec, join } = base.head;
        assert(join !== undefined, 'a sharded job stays one');
        const next = { ...base.head, version: version + 1, writeNonce, state, join: { shards: join.shards, joined } };
        if (content === null) return next;
        manifest = { ...content, format: formatOf(content), tenant: where.tenant, job: where.job, version, epoch, spec };
        return { ...next, manifest: await publishManifest(protocol, where, manifest, signal) };
      },
      isMine: (current) => current.writeNonce === writeNonce,
    }, signal);
    return { head, manifest };
  } catch (error) {
    if (hasMoved) return null;
    throw decided(error);
  }
}

function nextOf({ head, manifest }: Sharded, index: number, child: Sharded, settle: JoinOptions['settle']): Next | null {
  if (isTerminal(head.state)) return null;
  const before = head.join?.joined ?? [];
  const isOver = isTerminal(child.head.state);
  if (isOver && before.includes(index)) return null;
  const joined = isOver ? [...before, index].sort((a, b) => a - b) : before;
  const content = child.manifest === null ? null : withShard(manifest, child.manifest);
  if (isOver && !hasEnded(child.head.state)) return { state: endWith(child.head.state), content, joined };
  if (joined.length < (head.join?.shards ?? 0)) return content === null && !isOver ? null : { state: 'running', content, joined };
  const all = content === null ? manifest : { ...(manifest ?? (child.manifest as Manifest)), ...content };
  // No shard has come as far as the end of its prompt.
  if (all === null) return { state: 'incomplete', content: null, joined };
  const { state, ...last } = settle(all);
  return { state, content: { ...contentOf(all), ...last, step: stepOf(last.chains) }, joined };
}

/** By itself or its budget. */
function hasEnded(state: JobState): boolean {
  return state === 'done' || state === 'incomplete';
}

function endWith(state: JobState): JobState {
  return state === 'poisoned' || state === 'failed' || state === 'expired' ? state : 'cancelled';
}

function contentOf({ format: _f, tenant: _t, job: _j, version: _v, epoch: _e, spec: _s, ...content }: Manifest): ManifestContent {
  return content;
}

/** What the parent knows after what the shard says; null: nothing new. A chain that has finished is as it is, and no chain loses tokens. */
function withShard(before: Manifest | null, shard: Manifest): ManifestContent | null {
  const { vote } = shard;
  if (vote === undefined) throw checkpointError('damaged', 'a shard says nothing of its ballots');
  const chains = before === null ? Array.from({ length: vote.width }, () => ({ tokens: 0, finish: null as string | null })) : before.chains.map(({ tokens, finish }) => ({ tokens, finish }));
  const ballots: (Vote['ballots'][number])[] = before?.vote === undefined ? chains.map(() => null) : [...before.vote.ballots];
  const begun = before?.vote?.begun === undefined ? chains.map(() => 0) : [...before.vote.begun];
  vote.begun?.forEach((tokens, i) => (begun[vote.first + i] = tokens));
  let isNew = before === null;
  for (const [i, { tokens, finish }] of shard.chains.entries()) {
    const at = vote.first + i;
    const known = chains[at];
    if (known === undefined) throw checkpointError('damaged', 'a shard has chains that its job has not');
    if (known.finish !== null || (finish === null && tokens <= known.tokens)) continue;
    chains[at] = { tokens, finish: finish === 'ended' ? (shard.ended ?? 'cancelled') : finish };
    ballots[at] = vote.ballots[i] ?? null;
    isNew = true;
  }
  if (!isNew) return null;
  const { layoutId, modelId, numericsId, promptTokens } = shard;
  const whole = chains.map((chain) => ({ ...chain, segments: [], tails: [] }));
  return {
    layoutId, modelId, numericsId, step: stepOf(whole), elapsedMs: Math.max(before?.elapsedMs ?? 0, shard.elapsedMs), ended: null, slices: vote.first === 0 ? shard.slices : (before?.slices ?? []), promptTokens, promptTail: null,
    chains: whole, objects: [], journal: [], keys: null, vote: { rule: vote.rule, width: vote.width, first: 0, ballots, ...(begun.some((tokens) => tokens > 0) ? { begun } : {}) },
  };
}

/** That every unfinished chain has come to, or of a job that is over the last. */
function stepOf(chains: Manifest['chains']): number {
  const unfinished = chains.filter(({ finish }) => finish === null).map(({ tokens }) => tokens);
  return unfinished.length > 0 ? Math.min(...unfinished) : Math.max(0, ...chains.map(({ tokens }) => tokens));
}
