/** A tiny run whose checkpoints go through the protocol into a store: the least that a checkpointer does, for tests of what is stored. */
import { createJob } from '../../engine/kv/create.ts';
import type { Lease } from '../../engine/kv/lease.ts';
import type { Manifest, ManifestContent, ObjectRef } from '../../engine/kv/manifest.ts';
import type { JobKey } from '../../engine/kv/names.ts';
import type { JobKeys } from '../../engine/kv/seal.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { NewObject } from '../../engine/kv/uploads.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import type { LoadedObject, NativeEngine, NativeRun, RestoreOptions, RunOptions, SavedObject, Seal } from '../../engine/runtime/native.ts';
import { open, runOptions, tinyModel } from '../helpers/engine.ts';
import { content, options } from './support.ts';

export const WIDTH = 2;
export const LENGTH = 48;
/** Every cut of the tests is before the end and after the ring is full. */
export const JOB: RunOptions = runOptions({ width: WIDTH, length: LENGTH, checkpointed: true, prompt: Int32Array.from({ length: 24 }, (_, i) => (7 * i + 3) % 100) });
/** No prompt: what is searched for is what checkpoints hold. */
export const SPEC = '{}';

export function openTiny(): Promise<NativeEngine> {
  return open(tinyModel('tiny_qwen3_dms'), { pageSlots: 4 });
}

export async function leaseOf(store: ObjectStore, where: JobKey): Promise<Lease> {
  await createJob(store, where, SPEC, options());
  return await takeJob(store, where, options());
}

export function tokensOf(run: NativeRun): readonly (readonly number[])[] {
  return run.report().chains.map(({ tokens }) => [...tokens]);
}

/** Commits a delta of `run` on top of what the lease has. */
export async function commitDelta(lease: Lease, run: NativeRun, keys: JobKeys, n: number): Promise<void> {
  const { objects: saved } = await run.save({ delta: true, epoch: lease.head.epoch, n, codec: 'raw', ...keys.own });
  const before = lease.manifest;
  await lease.commit({
    state: 'running',
    objects: saved.map((object, i) => newObject(object, n * 100 + i)),
    manifest: (refs) => {
      const old = before?.objects ?? [];
      const at = (match: (object: SavedObject) => boolean) => saved.flatMap((object, i) => (match(object) ? [old.length + i] : []));
      const shared = at(({ kind, chain }) => kind === 'segment' && chain === -1);
      const promptTail = at(({ kind, chain }) => kind === 'tail' && chain === -1);
      return content([...old, ...refs], {
        step: run.report().step,
        promptTail: promptTail[0] ?? before?.promptTail ?? null,
        journal: [...(before?.journal ?? []), ...at(({ kind }) => kind === 'journal')],
        chains: run.report().chains.map(({ tokens, finish }, chain) => ({
          tokens: tokens.length, finish,
          segments: [...(before?.chains[chain]?.segments ?? []), ...shared, ...at((object) => object.kind === 'segment' && object.chain === chain)],
          tails: [...(before?.chains[chain]?.tails ?? []), ...saved.flatMap((object, i) => (object.kind === 'tail' && object.chain === chain ? [{ at: object.generated, object: old.length + i }] : []))],
        })),
        keys: keys.wrappedFor([...old, ...refs]),
      });
    },
  });
}

/** The parent's manifest with the adopted names in place of its own. */
export function adopted(parent: Manifest, refs: readonly ObjectRef[], keys: JobKeys): ManifestContent {
  const { format: _format, tenant: _tenant, job: _job, version: _version, epoch: _epoch, spec: _spec, ...rest } = parent;
  return { ...rest, objects: refs, keys: keys.wrappedFor(refs) };
}

/** What `restoreRun` takes to go on where the manifest stopped; `seals` by origin. */
export async function restoreOptions(manifest: Manifest, sealFor: (origin: string) => Seal, read: (ref: ObjectRef) => Promise<readonly Uint8Array[]>): Promise<RestoreOptions> {
  const origins = [...new Set(manifest.objects.map(({ origin }) => origin))];
  const objects = await Promise.all(manifest.objects.map(async (ref): Promise<LoadedObject> => ({
    chunks: await read(ref), bytes: ref.bytes, digest: ref.digest, seal: origins.indexOf(ref.origin),
  })));
  return {
    objects,
    seals: origins.map(sealFor),
    checkDigests: true,
    run: JOB,
    replay: false,
    ownJournal: origins.length === 1 && origins[0] === manifest.job,
    chains: manifest.chains.map(({ segments, tails }, source) => ({ source, tokens: -1, reopen: false, segments, tail: tails.at(-1)?.object ?? null })),
    promptSegments: manifest.objects.flatMap(({ name }, i) => (/^s\/\d+\/\d+-p-/.test(name) ? [i] : [])),
    promptTail: manifest.promptTail,
    prefix: null,
    journals: manifest.journal,
  };
}

/** Tokens of a run to its end. */
export async function finished(run: NativeRun): Promise<readonly (readonly number[])[]> {
  while (run.report().running > 0) await run.step(1_000);
  return tokensOf(run);
}

function newObject({ kind, chain, nonce, digest, bytes }: SavedObject, n: number): NewObject {
  return { kind, chain, n, nonce, body: [bytes], bytes: bytes.byteLength, digest };
}
