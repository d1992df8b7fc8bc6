/** New jobs made from one that is in a store: forked at a past point of a chain, or extended with more budget. Both only write what is asked. */
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { type CreateOptions, createJob, readJob } from '../kv/create.ts';
import type { Head } from '../kv/head.ts';
import { type JobKey, shardKey } from '../kv/names.ts';
import { readHead, readSpec } from '../kv/read.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { type Progress, progressOf } from './journals.ts';
import { hasSettled } from './ancestry.ts';
import { type SpecOutline, holds, openSpec, outlineOf, sealSpec } from './sealed-spec.ts';
import { shardOfChain } from './shards.ts';
import type { JobSpec } from './spec.ts';
import { type Parent, type StoredSpec, jobSpecOf, parseStoredSpec, planOf } from './stored-spec.ts';

export interface ChildOptions extends CallOptions {
  readonly store: ObjectStore;
  /** The parent. */
  readonly where: JobKey;
  /** null: stored in the clear. */
  readonly keys?: KeyProvider | null | undefined;
  /** Of the wall clock, for the listing. Default: now. */
  readonly createdMs?: number | undefined;
  /** As of CreateOptions: not asked for a child that is there already. */
  readonly room?: CreateOptions['admit'];
  /** Asked before anything is stored; what it throws refuses the child. It gives the child's planned tokens (control/work.ts). */
  readonly admit?: ((child: StoredSpec) => Promise<number>) | undefined;
}

export interface ForkRequest {
  /** Tokens of the chain that the fork begins with. */
  readonly at: number;
  readonly chain: number;
  readonly width: number;
  readonly seed: bigint | undefined;
  readonly length: number | undefined;
  /** The new job's name. */
  readonly as: string;
}

/** A new job from a past point of a chain. Creates it and says where; `resumeStored` runs it. */
export async function forkJob({ at, chain, width, seed, length, as }: ForkRequest, options: ChildOptions): Promise<JobKey> {
  const { at: home, chain: local, tokens } = await homeOf(chain, options);
  return await childOf({ ...options, where: home }, as, (stored, { chains }, version) => {
    const from = chains[local];
    if (from === undefined) throw new EngineError('ERR_OPTION', `chain must be from 0 to ${stored.lengths.length - 1}; got ${chain}.`);
    const most = Math.min(from.tokens, tokens);
    if (at > most || at < 0) throw new EngineError('ERR_OPTION', `at must be from 0 to ${most}, the tokens that chain ${chain} has; got ${at}.`);
    checkWidth(width);
    const longest = length ?? stored.lengths[chain] ?? Math.max(...stored.lengths);
    if (longest <= at) throw new EngineError('ERR_OPTION', `length must be above ${at}, the tokens that the fork begins with; got ${longest}.`);
    return {
      lengths: Array.from({ length: width }, () => longest),
      seed: seed ?? BigInt(stored.seed),
      parent: { job: home.job, version, kind: 'fork', chain: local, at },
    };
  });
}

/** Where a chain is: of a sharded job in one of its shards, by its place there. `tokens`: those that count, where the shard has more. */
async function homeOf(chain: number, { store, where, signal }: ChildOptions): Promise<{ readonly at: JobKey; readonly chain: number; readonly tokens: number }> {
  const { head, manifest } = await readJob(store, where, { signal });
  if (head.join === undefined) return { at: where, chain, tokens: Infinity };
  const { lengths } = outlineOf(await readSpec(store, where, head.spec, { signal }));
  return { ...shardOfChain(where, lengths.length, head.join.shards, chain), tokens: (hasSettled(head) ? manifest?.chains[chain]?.tokens : undefined) ?? Infinity };
}

export interface ExtendRequest {
  readonly length: number | undefined;
  /** Chains in all, or `+n` more than there are. */
  readonly width: string | undefined;
  readonly kvReadBudget: number | undefined;
  readonly as: string;
}

/** A new job that goes on from all chains of one that has ended or is parked, with more budget. */
export async function extendJob({ length, width, kvReadBudget, as }: ExtendRequest, options: ChildOptions): Promise<JobKey> {
  if (length === undefined && width === undefined && kvReadBudget === undefined) throw new EngineError('ERR_OPTION', 'Say with what to extend the job: length, width or kv_read_budget.');
  return await childOf(options, as, (stored, _, version) => {
    const chains = widthOf(width, stored.lengths.length);
    checkWidth(chains);
    const before = (stored.spec.budget as { readonly kv_read_budget?: number } | undefined)?.kv_read_budget;
    if (kvReadBudget !== undefined && (before === undefined || kvReadBudget < before)) {
      throw new EngineError('ERR_OPTION', `kv_read_budget must be at least ${before ?? 'the job\'s, which has none'}; got ${kvReadBudget}.`);
    }
    if (chains < stored.lengths.length) throw new EngineError('ERR_OPTION', `width must be at least ${stored.lengths.length}, the chains that there are; got ${chains}.`);
    const lengths = Array.from({ length: chains }, (_unused, i) => length ?? stored.lengths[i] ?? Math.max(...stored.lengths));
    if (stored.lengths.some((before, i) => (lengths[i] ?? 0) < before)) throw new EngineError('ERR_OPTION', `length must be at least ${Math.max(...stored.lengths)}, which the job has already.`);
    checkShares(stored, kvReadBudget ?? before, chains);
    return { lengths, seed: BigInt(stored.seed), kvReadBudget, parent: { job: options.where.job, version, kind: 'extend', chain: null, at: null } };
  });
}

/** Shares of a KV-read budget are spent chain by chain: with smaller ones than before, what chains have read already and what new ones may could be more than all of it. */
function checkShares({ spec, lengths }: StoredSpec, budget: number | undefined, width: number): void {
  const { shards, budget: { kv_read_budget: before } = {} } = spec as Pick<JobSpec, 'shards' | 'budget'>;
  if (shards === undefined || before === undefined || budget === undefined) return;
  const least = before + (width - lengths.length) * Math.floor(before / lengths.length);
  if (budget < least) throw new EngineError('ERR_OPTION', `kv_read_budget must be at least ${least} for ${width} chains: that of a job in shards is divided equally, and no chain may have less than before; got ${budget}.`);
}

function checkWidth(width: number): void {
  if (width < 1 || width > LIMITS.WIDTH_MAX) throw new EngineError('ERR_OPTION', `width must be from 1 to ${LIMITS.WIDTH_MAX}; got ${width}.`);
}

function widthOf(text: string | undefined, before: number): number {
  if (text === undefined) return before;
  if (!/^\+?\d{1,6}$/.test(text)) throw new EngineError('ERR_OPTION', `width must be a number of chains or +n; got ${JSON.stringify(text.slice(0, 40))}.`);
  return text.startsWith('+') ? before + Number(text) : Number(text);
}

interface Child {
  readonly lengths: readonly number[];
  readonly seed: bigint;
  readonly kvReadBudget?: number | undefined;
  readonly parent: Parent;
}

async function childOf({ store, where, keys = null, createdMs, admit, room, signal }: ChildOptions, as: string, plan: (stored: StoredSpec, progress: Progress, version: number) => Child): Promise<JobKey> {
  const { head, manifest } = await readJob(store, where, { signal });
  if (head.state === 'erased') throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} was erased.`);
  if (manifest === null && !(await hasBegunShard(store, head, signal))) throw new EngineError('ERR_JOB_CONFLICT', `The job ${where.job} is ${head.state} and has no checkpoint yet; run it first.`);
  const stored = parseStoredSpec(await openSpec(await readSpec(store, where, head.spec, { signal }), where, keys, { signal }));
  // The parent's version when it is read first; the same child asked for again is the same child.
  const at = { ...where, job: as };
  const existing = await outlineAt(store, at, signal);
  const progress = manifest === null ? { step: 0, chains: [] } : await progressOf(store, where, keys, { head, manifest }, { signal });
  const { lengths, seed, kvReadBudget, parent } = plan(stored, progress, existing?.parent?.version ?? head.version);
  const { length: _, width: _w, lengths: _l, ...budget } = (stored.spec.budget ?? {}) as Record<string, unknown>;
  // How the parent waited for its worker, and what its caller said about it, say nothing of the child.
  const { priority: _p, wait_ms_max: _m, metadata: _d, user: _u, repeated: _r, shards: before, ...spec } = stored.spec as Record<string, unknown> & Pick<JobSpec, 'shards'>;
  // A fork is one chain's.
  const shards = parent.kind === 'extend' ? before : undefined;
  const child: StoredSpec = {
    ...stored,
    spec: { ...spec, ...(shards === undefined ? {} : { shards }), budget: { ...budget, lengths, ...(kvReadBudget === undefined ? {} : { kv_read_budget: kvReadBudget }) } },
    seed: seed.toString(),
    lengths: [...lengths],
    parent,
  };
  const text = JSON.stringify(child);
  // What cannot be run is refused here, and not left in the store.
  const whole = parseStoredSpec(text);
  jobSpecOf(whole, null);
  const tokens = await admit?.(whole);
  const { where: created } = await createJob(store, at, await sealSpec(text, at, keys, { signal }), { isSame: holds(text, keys, { signal }), plan: planOf(whole, tokens), shards, createdMs, admit: room, signal });
  return created;
}

async function hasBegunShard(store: ObjectStore, head: Head, signal: AbortSignal | undefined): Promise<boolean> {
  for (let index = 0; index < (head.join?.shards ?? 0); index++) {
    if ((await readHead(store, shardKey(head, index), { signal }))?.head.manifest != null) return true;
  }
  return false;
}

/** null: there is no such job, or it was erased. */
async function outlineAt(store: ObjectStore, where: JobKey, signal: AbortSignal | undefined): Promise<SpecOutline | null> {
  const found = await readHead(store, where, { signal });
  return found === null || found.head.state === 'erased' ? null : outlineOf(await readSpec(store, where, found.head.spec, { signal }));
}
