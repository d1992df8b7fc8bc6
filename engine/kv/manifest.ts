/** The manifest: everything that one version of a job is made of. Immutable, named by its digest, never found but through the head. */
import { z } from 'zod';

import { LIMITS } from '../core/limits.ts';
import { checkFormat, parseCanonical } from './canonical.ts';
import { FORMAT, refSchema } from './head.ts';
import { isJobName, PACK, parseName, type JobKey, type Name, type ObjectKind } from './names.ts';
import { checkpointError } from './reason.ts';

/** What an engine reads. Only the second has packs: who knows no packs then says so, and leaves the job to others. */
export const MANIFEST_FORMATS = [FORMAT, 'dmskv/2'] as const;

const count = z.int().min(0);
const index = z.int().min(0).max(LIMITS.MANIFEST_OBJECTS_MAX - 1);
const id = z.string().regex(/^[A-Za-z0-9._:+-]{1,128}$/);
const name = z.string().refine(isJobName);
const reason = z.string().max(1_024);

const sliceSchema = z.strictObject({
  slice: count,
  epoch: count,
  outcome: z.enum(['started', 'restored', 'recomputed', 'replayed']),
  reason: reason.nullable(),
  /** The step it went on from. */
  from: count,
  /** Tokens computed again. */
  recomputed: count,
  /** Tokens a second that this slice fed in chunks, prompt or fed again; null: none. What the next one plans with. */
  prefillRate: z.number().min(0).nullable(),
});

const chainSchema = z.strictObject({
  /** Generated, that is without the prompt. */
  tokens: count,
  finish: z.string().max(64).nullable(),
  /** Indices into `objects`, in the order of the chain's survivors. Chains share those of the prompt and of an ancestor. */
  segments: z.array(index).max(LIMITS.MANIFEST_OBJECTS_MAX),
  /** `at`: tokens generated at the cut; the newest is last. */
  tails: z.array(z.strictObject({ at: count, object: index })).max(LIMITS.TAILS_MAX),
});

/** What a chain that ended by itself said, as far as votes must know it. */
const ballotSchema = z.strictObject({
  /** Digest of the answer's key, under the job's own key if it is sealed; null: no answer. */
  key: z.string().regex(/^[0-9a-f]{32}$/).nullable(),
  verified: z.boolean().nullable(),
});

const voteSchema = z.strictObject({
  /** `none`: nothing ends the job early. */
  rule: z.enum(['majority', 'first', 'verifier', 'none']),
  /** Of the job, not of the shard. */
  width: z.int().min(1).max(LIMITS.WIDTH_MAX),
  /** Index within the job of the first chain here. */
  first: count,
  /** By chain here; null: it has not ended, or was ended. */
  ballots: z.array(ballotSchema.nullable()).max(LIMITS.WIDTH_MAX),
  /** Only of an extension: tokens that each chain here had from the beginning, which no vote takes away. */
  begun: z.array(count).max(LIMITS.WIDTH_MAX).optional(),
});

/** The object lies with others in one that is called so, from this byte on; its own name is then nobody's in the store. */
const packSchema = z.strictObject({ name: z.string().max(128), at: count });

const manifestSchema = z.strictObject({
  format: z.enum(MANIFEST_FORMATS),
  tenant: z.string(),
  job: z.string(),
  /** The generation tag: the version of the head that the writer had seen. */
  version: count,
  epoch: count,
  spec: z.string().regex(/^[0-9a-f]{64}$/),
  layoutId: id,
  modelId: id,
  numericsId: id,
  /** Logical step: tokens that every unfinished chain has generated. */
  step: count,
  /** Of all slices together. */
  elapsedMs: z.number().min(0),
  /** Why the job ended; null while it has not. */
  ended: reason.nullable(),
  slices: z.array(sliceSchema).max(LIMITS.SLICES_MAX),
  promptTokens: count,
  promptTail: index.nullable(),
  chains: z.array(chainSchema).max(LIMITS.WIDTH_MAX),
  /** Every object that this version needs, each once. */
  objects: z.array(refSchema.extend({ origin: name, pack: packSchema.optional() })).max(LIMITS.MANIFEST_OBJECTS_MAX),
  /** Indices into `objects`, oldest first. */
  journal: z.array(index).max(LIMITS.MANIFEST_OBJECTS_MAX),
  /** Wrapped data keys, base64, by the job that sealed with them; null: nothing is sealed. */
  keys: z.record(name, z.string().max(LIMITS.WRAPPED_KEY_CHARS_MAX).regex(/^[A-Za-z0-9+/]+={0,2}$/)).nullable(),
  /** Only of shards and sharded jobs: what the others need to know of their ballots. */
  vote: voteSchema.optional(),
});

export type Vote = Frozen<z.infer<typeof voteSchema>>;

type Frozen<T> = T extends readonly (infer U)[] ? readonly Frozen<U>[] : T extends object ? { readonly [K in keyof T]: Frozen<T[K]> } : T;

export type Manifest = Frozen<z.infer<typeof manifestSchema>>;
/** `origin`: the job whose data key sealed the object, for the key and for what it is authenticated with. */
export type ObjectRef = Manifest['objects'][number];
/** What a committer says; the lease adds whose manifest it is. */
export type ManifestContent = Omit<Manifest, 'format' | 'tenant' | 'job' | 'version' | 'epoch' | 'spec'>;

/** The oldest that can say this. */
export function formatOf({ objects }: Pick<ManifestContent, 'objects'>): Manifest['format'] {
  return MANIFEST_FORMATS[objects.some(({ pack }) => pack !== undefined) ? 1 : 0];
}

/** What the object's bytes are called in the store. */
export function placeOf({ name: own, pack }: Pick<ObjectRef, 'name' | 'pack'>): string {
  return pack?.name ?? own;
}

/**
 * The manifest of the job `where`. The caller has bounded the text and compared its digest.
 * @throws EngineError ERR_CHECKPOINT: damaged, truncated, format or identity.
 */
export function parseManifest(text: string, where: JobKey): Manifest {
  const value = parseCanonical(text, 'the manifest');
  checkFormat(value, MANIFEST_FORMATS, 'the manifest');
  const parsed = manifestSchema.safeParse(value);
  if (!parsed.success) throw checkpointError('damaged', `the manifest's ${parsed.error.issues[0]?.path.join('.') ?? ''} is out of bounds`);
  if (parsed.data.tenant !== where.tenant || parsed.data.job !== where.job) throw checkpointError('identity', 'the manifest is that of another job');
  const problem = manifestProblem(parsed.data);
  if (problem !== null) throw checkpointError('damaged', `the manifest ${problem}`);
  return parsed.data;
}

/** What is wrong with it beyond the shape of its fields, or null. A writer asks too, before it publishes. */
export function manifestProblem(manifest: Manifest): string | null {
  const { objects, chains, keys, vote } = manifest;
  const isOfChains = vote === undefined || [vote.ballots, vote.begun ?? chains].every(({ length }) => length === chains.length);
  if (!isOfChains || (vote !== undefined && vote.first + chains.length > vote.width)) return 'has ballots of other chains than its own';
  const names = objects.map((object) => parseName(object.name));
  if (new Set(objects.map((object) => object.name)).size !== objects.length) return 'lists an object twice';
  if (names.some((parsed) => parsed === null || !('version' in parsed) || parsed.version > manifest.version)) return 'lists an object of a newer generation than its own';
  const uses: readonly (readonly [ObjectKind, readonly number[]])[] = [
    ['segment', chains.flatMap(({ segments }) => segments)],
    ['tail', [...chains.flatMap(({ tails }) => tails.map(({ object }) => object)), ...(manifest.promptTail === null ? [] : [manifest.promptTail])]],
    ['journal', manifest.journal],
  ];
  if (names.some((parsed) => parsed !== null && 'chain' in parsed && parsed.chain === PACK)) return 'lists a pack as an object';
  if (objects.some(({ pack }, i) => pack !== undefined && !isPackOf(pack.name, names[i], manifest.version))) return 'has an object in what is no pack of its kind';
  if (manifest.format !== formatOf(manifest)) return 'is not of the format that it says';
  const used = new Set<number>();
  for (const [kind, indices] of uses) {
    for (const i of indices) {
      if (names[i]?.kind !== kind) return `uses object ${i} as a ${kind}, which it is not`;
      used.add(i);
    }
  }
  if (used.size !== objects.length) return 'lists an object that it does not use';
  if (new Set(manifest.journal).size !== manifest.journal.length) return 'replays a journal twice';
  for (const { segments, tails, tokens } of chains) {
    if (new Set(segments).size !== segments.length) return 'lists a segment twice for one chain';
    if (tails.some(({ at }, i) => at > tokens || at <= (tails[i - 1]?.at ?? -1))) return 'has tails whose cuts do not ascend';
  }
  if (keys !== null && Object.keys(keys).length > LIMITS.KEYS_MAX) return `has more than ${LIMITS.KEYS_MAX} keys`;
  if (keys !== null && objects.some(({ origin }) => !Object.hasOwn(keys, origin))) return 'lists an object without its key';
  return null;
}

function isPackOf(packName: string, object: Name | null | undefined, version: number): boolean {
  const parsed = parseName(packName);
  return parsed !== null && 'chain' in parsed && parsed.chain === PACK && parsed.kind === object?.kind && parsed.version <= version;
}
