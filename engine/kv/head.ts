/** The head: the only mutable object of a job, and the only thing that decides who owns it and how far it is (KV.md 3, DESIGN.md 2). */
import { z } from 'zod';

import { LIMITS } from '../core/limits.ts';
import { checkFormat, checkOf, parseCanonical } from './canonical.ts';
import { parseName, type JobKey } from './names.ts';
import { checkpointError } from './reason.ts';

export const FORMAT = 'dmskv/1';

const STATES = ['queued', 'running', 'parked', 'done', 'incomplete', 'failed', 'cancelled', 'expired', 'poisoned', 'erased'] as const;
export type JobState = (typeof STATES)[number];

const ENDS: readonly JobState[] = ['cancelled', 'expired', 'poisoned', 'erased'];

/** What may follow what. A terminal state is final, but for erasing. */
const TRANSITIONS: Readonly<Record<JobState, readonly JobState[]>> = {
  queued: ['running', ...ENDS],
  running: ['running', 'parked', 'done', 'incomplete', 'failed', ...ENDS],
  parked: ['running', ...ENDS],
  done: ['erased'],
  incomplete: ['erased'],
  failed: ['erased'],
  cancelled: ['erased'],
  expired: ['erased'],
  poisoned: ['erased'],
  erased: [],
};

export function mayFollow(from: JobState, to: JobState): boolean {
  return TRANSITIONS[from].includes(to);
}

export function isTerminal(state: JobState): boolean {
  return !mayFollow(state, 'running');
}

/** It ended by itself or its budget; whatever else ended it, there is no result that it would have come to. */
export function hasResult(state: JobState): boolean {
  return state === 'done' || state === 'incomplete';
}

/** The digest in a tombstone: that of the prompt would still tell something about it. */
export const NO_SPEC = '0'.repeat(64);

/** Printable ASCII without quotes and backslashes, so that its size in a head is its length. */
export function isOwnerText(text: string): boolean {
  return /^[ !#-[\]-~]{0,128}$/.test(text);
}

const count = z.int().min(0);
const digest = z.string().regex(/^[0-9a-f]{64}$/);

export const refSchema = z.strictObject({
  /** Relative to the job's prefix. */
  name: z.string().max(128),
  bytes: count,
  digest,
});

const headSchema = z.strictObject({
  format: z.literal(FORMAT),
  tenant: z.string(),
  job: z.string(),
  /** Counts the writes of this object. */
  version: count,
  /** Counts the takes: who holds an older one owns nothing. */
  epoch: count,
  /** Of the last logical commit or take, kept by a collection of garbage: a writer whose answer was lost finds its own here. */
  writeNonce: z.string().regex(/^[0-9a-f]{32}$/),
  /** The fence: the version that the last collection of garbage wrote. Names of an older generation may be gone unless they are named here. */
  gc: count,
  state: z.enum(STATES),
  slice: count,
  /** Of `spec-<digest>.json`. */
  spec: digest,
  /** Takes since the last commit that advanced tokens. */
  strikes: count,
  /** Who took it last, as a hint for people, and how often that one writes, as a hint for takers (take.ts). Of a tombstone: why it is one (erase.ts). */
  owner: z.string().refine(isOwnerText),
  manifest: refSchema.nullable(),
  /** Flushed since the manifest, oldest first. */
  journal: z.array(refSchema).max(LIMITS.HEAD_JOURNAL_MAX),
  /** Only of a sharded job: how many shards it has, and which of them have ended and are counted, in order (join.ts). Nobody takes such a job. */
  join: z.strictObject({ shards: z.int().min(1).max(LIMITS.SHARDS_MAX), joined: z.array(count).max(LIMITS.SHARDS_MAX) }).optional(),
  /** Of all the rest: a flipped bit in a number would make another head that looks as good. Against accidents, not against who may write heads. */
  check: z.string(),
});

export type Ref = Readonly<z.infer<typeof refSchema>>;
export interface Join {
  readonly shards: number;
  readonly joined: readonly number[];
}
export type Head = Readonly<Omit<z.infer<typeof headSchema>, 'manifest' | 'journal' | 'join' | 'check'>> & {
  readonly manifest: Ref | null;
  readonly journal: readonly Ref[];
  readonly join?: Join | undefined;
};

/**
 * The head of the job `where`. The caller has bounded the text.
 * @throws EngineError ERR_CHECKPOINT: damaged, truncated, format or identity.
 */
export function parseHead(text: string, where: JobKey): Head {
  const value = parseCanonical(text, 'the head');
  checkFormat(value, FORMAT, 'the head');
  const parsed = headSchema.safeParse(value);
  if (!parsed.success) throw checkpointError('damaged', `the head's ${parsed.error.issues[0]?.path.join('.') ?? ''} is out of bounds`);
  const { check, ...head }: Head & { readonly check: string } = parsed.data;
  if (check !== checkOf(inOrder(head))) throw checkpointError('damaged', 'the head does not fit its check');
  if (head.tenant !== where.tenant || head.job !== where.job) throw checkpointError('identity', 'the head is that of another job');
  const problem = problemOf(head);
  if (problem !== null) throw checkpointError('damaged', `the head ${problem}`);
  return head;
}

/** Canonical, so that the same head is the same bytes. */
export function formatHead(head: Head): string {
  const fields = inOrder(head);
  return JSON.stringify({ ...fields, check: checkOf(fields) });
}

/** The fields in the order of the schema, whoever made the object. */
function inOrder({ format, tenant, job, version, epoch, writeNonce, gc, state, slice, spec, strikes, owner, manifest, journal, join }: Head): Head {
  const fields = { format, tenant, job, version, epoch, writeNonce, gc, state, slice, spec, strikes, owner, manifest: manifest && refInOrder(manifest), journal: journal.map(refInOrder) };
  return join === undefined ? fields : { ...fields, join: { shards: join.shards, joined: [...join.joined] } };
}

function refInOrder({ name, bytes, digest: of }: Ref): Ref {
  return { name, bytes, digest: of };
}

function problemOf(head: Head): string | null {
  if (head.gc > head.version) return 'has a fence that is newer than itself';
  if (head.epoch > head.version || head.slice > head.epoch) return 'was taken more often than written';
  if (head.manifest !== null && !isOlder(head.manifest, 'manifest', head.version)) return 'names a manifest that is none or newer than itself';
  if (!head.journal.every((ref) => isOlder(ref, 'journal', head.version))) return 'names a journal that is none or newer than itself';
  if (new Set(head.journal.map(({ name }) => name)).size !== head.journal.length) return 'names a journal twice';
  if (head.join !== undefined && !head.join.joined.every((index, i, all) => index < (head.join?.shards ?? 0) && index > (all[i - 1] ?? -1))) return 'counts shards that it does not have, or twice';
  if (head.join !== undefined && (head.slice > 0 || head.journal.length > 0)) return 'is of a sharded job that was taken';
  if (head.state === 'erased' && (head.manifest !== null || head.journal.length > 0)) return 'is a tombstone that names objects';
  return null;
}

/** Tagged with a version that the head had before it named the object. */
function isOlder(ref: Ref, kind: string, version: number): boolean {
  const name = parseName(ref.name);
  return name?.kind === kind && 'version' in name && name.version < version;
}
