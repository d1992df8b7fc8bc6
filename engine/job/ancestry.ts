/**
 * What a fork or an extension begins with: chains of another job. Those of a sharded job lie in its shards, and an extension of one is sharded as it
 * was, among more chains or as many: each of its shards goes on from those of its parent's that have its chains.
 */
import { adopt } from '../kv/adopt.ts';
import { readJob } from '../kv/create.ts';
import type { Head } from '../kv/head.ts';
import type { Manifest, ObjectRef } from '../kv/manifest.ts';
import { type JobKey, shardKey, shardOf } from '../kv/names.ts';
import { readSpec } from '../kv/read.ts';
import { JobKeys, openKeys } from '../kv/seal.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { NewObject } from '../kv/uploads.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { type Checkpoint, type CheckpointChain, checkpointOf, isOfPrompt, promptSegments } from './checkpoint.ts';
import type { PreparedJob } from './prepare.ts';
import { type ChainSource, firstOf } from './restore.ts';
import { outlineOf } from './sealed-spec.ts';
import { shardOfChain } from './shards.ts';
import type { Parent } from './stored-spec.ts';

/** A job, or one of its shards, that has something to go on from. */
export interface Ancestor {
  readonly where: JobKey;
  readonly manifest: Manifest;
  readonly checkpoint: Checkpoint;
}

export interface Ancestors {
  /** false: the parent has nothing to go on from, or was erased. */
  readonly isThere: boolean;
  /** Nothing will ever be there again. */
  readonly isErased: boolean;
  /** In order of their chains; none: of a sharded job, those that have these chains have not begun. */
  readonly parts: readonly Ancestor[];
  /** Tokens of a chain that count, where its shard has more; null: all that there are. */
  readonly official: (chain: number) => number | null;
}

/**
 * @param job of the child: the part of it that is run.
 * @throws EngineError ERR_JOB_NOT_FOUND; ERR_CHECKPOINT; ERR_STORE; ERR_CANCELLED.
 */
export async function readAncestors(store: ObjectStore, tenant: string, parent: Parent, job: PreparedJob, options: CallOptions = {}): Promise<Ancestors> {
  const where = { tenant, job: parent.job };
  const { head, manifest } = await readJob(store, where, options);
  if (head.join === undefined || head.state === 'erased') {
    return { isThere: manifest !== null, isErased: head.state === 'erased', parts: manifest === null ? [] : [ancestorOf(where, head, manifest)], official: () => null };
  }
  const { shards } = head.join;
  const width = outlineOf(await readSpec(store, where, head.spec, options)).lengths.length;
  const first = job.shard?.first ?? 0;
  const indexOf = (chain: number) => shardOf(shardOfChain(where, width, shards, chain).at)?.index ?? 0;
  const parts: Ancestor[] = [];
  for (let index = indexOf(first); index <= indexOf(first + job.lengths.length - 1); index++) {
    const found = await readJob(store, shardKey(where, index), options);
    if (found.manifest !== null) parts.push(ancestorOf(shardKey(where, index), found.head, found.manifest));
  }
  return { isThere: true, isErased: false, parts, official: (chain) => (hasSettled(head) ? (manifest?.chains[chain]?.tokens ?? null) : null) };
}

/** Its chains end where its vote was decided, also where a shard went further before it heard of it. */
export function hasSettled({ state }: Head): boolean {
  return state === 'done' || state === 'incomplete';
}

function ancestorOf(where: JobKey, head: Head, manifest: Manifest): Ancestor {
  return { where, manifest, checkpoint: checkpointOf(manifest, head.journal.map((ref) => ({ ...ref, origin: where.job }))) };
}

/** Those of all of them. @throws EngineError ERR_KEY, ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED. */
export async function ancestorKeys(provider: KeyProvider | null, child: JobKey, { parts }: Ancestors, options: CallOptions = {}): Promise<JobKeys> {
  const opened: JobKeys[] = [];
  try {
    for (const { where, manifest } of parts) opened.push(await openKeys(provider, where, manifest, options));
    return JobKeys.joined(child, opened);
  } catch (error) {
    for (const keys of opened) keys[Symbol.dispose]();
    throw error;
  }
}

/** Ancestors as one checkpoint, from which the chains of one run go on. */
export interface Ancestry {
  /** Chains of them all, from the first one's first on, each once. */
  readonly checkpoint: Checkpoint;
  /** Of each of them, in the order in which the checkpoint has them all. */
  readonly journals: readonly (readonly ObjectRef[])[];
  readonly chains: readonly ChainSource[];
  /** Where an object of theirs lies. */
  readonly whereOf: (ref: ObjectRef) => JobKey;
}

const NOT_BEGUN: CheckpointChain = { tokens: 0, finish: null, segments: [], tails: [] };

/** null: there is nothing of these chains. @param numericsId of the engine here. */
export function ancestryOf({ parts, official }: Ancestors, parent: Parent, job: PreparedJob, numericsId: string): Ancestry | null {
  const [head] = parts;
  if (head === undefined) return null;
  const first = firstOf(head.checkpoint);
  const known: CheckpointChain[] = [];
  const places = new Map<string, JobKey>();
  const prompt = parts.map(({ checkpoint }) => promptSegments(checkpoint)).find((segments) => segments.length > 0) ?? [];
  for (const { where, manifest, checkpoint } of parts) {
    for (const { name } of [...manifest.objects, ...checkpoint.journal]) places.set(name, where);
    // One copy of the prompt's pages, and the chains of all shards share them.
    for (const [i, chain] of checkpoint.chains.entries()) {
      known[firstOf(checkpoint) - first + i] = { ...chain, segments: chain.segments.some(isOfPrompt) ? [...prompt, ...chain.segments.filter((ref) => !isOfPrompt(ref))] : chain.segments };
    }
  }
  const journals = parts.map(({ checkpoint }) => checkpoint.journal);
  const base = (parts.find(({ checkpoint }) => checkpoint.numericsId !== numericsId) ?? head).checkpoint;
  return {
    checkpoint: { ...head.checkpoint, numericsId: base.numericsId, chains: Array.from(known, (chain) => chain ?? NOT_BEGUN), journal: journals.flat() },
    journals,
    chains: job.lengths.map((_, i): ChainSource => {
      if (parent.kind === 'fork') return { source: parent.chain ?? 0, tokens: parent.at ?? 0, reopen: true };
      const chain = (job.shard?.first ?? 0) + i;
      const from = known[chain - first];
      if (from === undefined) return { source: null, tokens: null, reopen: false };
      const tokens = official(chain);
      return { source: chain - first, tokens: tokens === null || tokens >= from.tokens ? null : tokens, reopen: true };
    }),
    whereOf: (ref) => places.get(ref.name) ?? head.where,
  };
}

/** Copies of these objects of theirs, for the child's first commit. */
export function adoptedBy(refs: readonly ObjectRef[], { whereOf }: Ancestry): readonly NewObject[] {
  return refs.flatMap((ref) => adopt(whereOf(ref), [ref]));
}
