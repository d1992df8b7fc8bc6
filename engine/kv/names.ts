/**
 * Names of a job's objects, relative to `kv/<tenant>/<job>/` (KV.md 3). A name is never used twice, and nothing on the way to a restore
 * is found by listing. `<version>` is the generation tag: the version of the head that the writer had seen. Collecting garbage relies on
 * it and on nothing else.
 */
import { EngineError } from '../core/errors.ts';

export const HEAD = 'HEAD';

/** Whose head: both are path components and say who may read it. */
export interface JobKey {
  readonly tenant: string;
  readonly job: string;
}

/** What native/checkpoint writes. */
export type ObjectKind = 'segment' | 'tail' | 'journal';

/** As a chain: several objects of one kind, one behind another. Its nonce is its first object's. */
export const PACK = -3;

/** `chain` is -1 for what all chains of the prompt share, -2 for the whole job, PACK for a pack; `n` counts the objects of a kind; `nonce` has 8 bytes as hex. */
export interface ObjectName {
  readonly kind: ObjectKind;
  readonly version: number;
  readonly epoch: number;
  readonly chain: number;
  readonly n: number;
  readonly nonce: string;
}

export type Name =
  | { readonly kind: 'head' }
  | { readonly kind: 'spec'; readonly digest: string }
  | { readonly kind: 'manifest'; readonly version: number; readonly digest: string }
  | ObjectName;

const PART = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
const SHARD = /^([A-Za-z0-9][A-Za-z0-9._-]{0,63})\/(0|[1-9][0-9]?)$/;
const COUNT = '(0|[1-9][0-9]{0,15})';
const CHAIN = `(p|j|w|${COUNT})`;
const SPEC = /^spec-([0-9a-f]{64})\.json$/;
const MANIFEST = new RegExp(`^m/${COUNT}-([0-9a-f]{64})\\.json$`);
const SEGMENT = new RegExp(`^s/${COUNT}/${COUNT}-${CHAIN}-${COUNT}-([0-9a-f]{16})\\.seg$`);
const TAIL = new RegExp(`^t/${COUNT}/${COUNT}-${CHAIN}-([0-9a-f]{16})\\.tail$`);
const JOURNAL = new RegExp(`^j/${COUNT}/${COUNT}-${COUNT}-([0-9a-f]{16})\\.jrn$`);

/** @throws EngineError ERR_OPTION for a tenant or job that is no name of 1 to 64 letters, digits and . _ - ; a shard's has its number behind its job's. */
export function jobPrefix({ tenant, job }: JobKey): string {
  checkPart('tenant', tenant);
  if (!SHARD.test(job)) checkPart('job', job);
  return `kv/${tenant}/${job}/`;
}

/** Shard `index` of a sharded job: a job of its own but for its spec, which is its parent's. Nobody can ask for one by name. */
export function shardKey({ tenant, job }: JobKey, index: number): JobKey {
  return { tenant, job: `${job}/${index}` };
}

/** null: it is no shard's. */
export function shardOf({ tenant, job }: JobKey): { readonly parent: JobKey; readonly index: number } | null {
  const found = SHARD.exec(job);
  return found === null ? null : { parent: { tenant, job: found[1] ?? '' }, index: Number(found[2]) };
}

/** The job whose spec it runs: of a shard its parent, of any other itself. */
export function rootOf(where: JobKey): JobKey {
  return shardOf(where)?.parent ?? where;
}

/** A job's name, or a shard's. */
export function isJobName(text: string): boolean {
  return PART.test(text) || SHARD.test(text);
}

/** The shard that a key below a job's prefix belongs to; null: it is the job's own. */
export function shardIn(name: string): number | null {
  const found = /^(0|[1-9][0-9]?)\//.exec(name);
  return found === null ? null : Number(found[1]);
}

/** @throws EngineError ERR_OPTION: no name that a job can be given. */
export function checkJobName({ tenant, job }: JobKey): void {
  checkPart('tenant', tenant);
  checkPart('job', job);
}

export function tenantPrefix(tenant: string): string {
  checkPart('tenant', tenant);
  return `kv/${tenant}/`;
}

export function isNamePart(text: string): boolean {
  return PART.test(text);
}

export const specName = (digest: string): string => `spec-${digest}.json`;
export const manifestName = (version: number, digest: string): string => `m/${version}-${digest}.json`;

/** @example objectName({ kind: 'segment', version: 7, epoch: 2, chain: -1, n: 0, nonce }) // s/7/2-p-0-….seg */
export function objectName({ kind, version, epoch, chain, n, nonce }: ObjectName): string {
  const of = chain === -1 ? 'p' : chain === -2 ? 'j' : chain === PACK ? 'w' : `${chain}`;
  switch (kind) {
    case 'segment': return `s/${version}/${epoch}-${of}-${n}-${nonce}.seg`;
    case 'tail': return `t/${version}/${epoch}-${of}-${nonce}.tail`;
    case 'journal': return `j/${version}/${epoch}-${n}-${nonce}.jrn`;
  }
}

/** null: no name of ours. What a name does not say (a tail's `n`, a journal's `chain`) comes back as 0 and -2. */
export function parseName(name: string): Name | null {
  const parsed = match(name);
  // 16 digits can say more than a double can: such a number would come back as another.
  return parsed !== null && Object.values(parsed).every((part) => typeof part === 'string' || Number.isSafeInteger(part)) ? parsed : null;
}

function match(name: string): Name | null {
  if (name === HEAD) return { kind: 'head' };
  let found = SPEC.exec(name);
  if (found !== null) return { kind: 'spec', digest: found[1] ?? '' };
  found = MANIFEST.exec(name);
  if (found !== null) return { kind: 'manifest', version: Number(found[1]), digest: found[2] ?? '' };
  found = SEGMENT.exec(name);
  if (found !== null) return { kind: 'segment', version: Number(found[1]), epoch: Number(found[2]), chain: chainOf(found[3]), n: Number(found[5]), nonce: found[6] ?? '' };
  found = TAIL.exec(name);
  if (found !== null) return { kind: 'tail', version: Number(found[1]), epoch: Number(found[2]), chain: chainOf(found[3]), n: 0, nonce: found[5] ?? '' };
  found = JOURNAL.exec(name);
  if (found !== null) return { kind: 'journal', version: Number(found[1]), epoch: Number(found[2]), chain: -2, n: Number(found[3]), nonce: found[4] ?? '' };
  return null;
}

function chainOf(text: string | undefined): number {
  return text === 'p' ? -1 : text === 'j' ? -2 : text === 'w' ? PACK : Number(text);
}

function checkPart(what: string, text: string): void {
  if (!PART.test(text)) {
    throw new EngineError('ERR_OPTION', `${what} must have 1 to 64 letters, digits, ".", "_" or "-" and begin with a letter or digit; got ${JSON.stringify(text.slice(0, 80))}.`);
  }
}
