/**
 * The spec of a sealed job: who can read the store but has no key sees of it what listings show, and no prompt. What is stored is named by its
 * digest as ever, and says other bytes each time the same is sealed: whether two specs are the same is asked of what they hold.
 *
 * AES-256-GCM with a key of the spec's own, used once, wrapped as the job's keys are and bound to tenant and job; authenticated are also what is
 * left in the clear. A spec in the clear is read as it is, also where there is a key: jobs that were made before specs were sealed are.
 */
import type { webcrypto } from 'node:crypto';
import { z } from 'zod';

import { assert } from '../core/assert.ts';
import { base64Of, bytesOfBase64, randomBytes, textOfBytes, utf8Of } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { digestOf } from '../kv/canonical.ts';
import { type JobKey, rootOf } from '../kv/names.ts';
import { checkpointError } from '../kv/reason.ts';
import { DATA_KEY_BYTES, type KeyProvider } from '../ports/keys.ts';
import type { CallOptions } from '../ports/object-store.ts';
import { type StoredSpec, parseStoredSpec, shownParts } from './stored-spec.ts';

const base64 = z.string().refine((text) => bytesOfBase64(text) !== null);
/** What its worker is told before it has the key. */
const shownOfSpec = { model: z.string(), variant: z.string().optional(), priority: z.string().optional(), wait_ms_max: z.number().optional() };
const sealed = z.strictObject({
  format: z.literal('ruminate-job/1 sealed'),
  shown: z.strictObject({ ...shownParts, spec: z.strictObject(shownOfSpec) }),
  key: base64.max(LIMITS.WRAPPED_KEY_CHARS_MAX),
  box: base64,
});
type Sealed = z.infer<typeof sealed>;

/** What anybody may see who may list jobs. */
export type SpecOutline = Pick<StoredSpec, keyof typeof shownParts> & {
  readonly spec: Readonly<Record<string, unknown>>;
  /** null: sealed. */
  readonly prompt: StoredSpec['prompt'] | null;
};

/** The key seals nothing else. */
const IV = new Uint8Array(12);

/** @param text as `storedSpecOf` has it. @param keys null: stored in the clear. @throws EngineError ERR_KEY, ERR_STORE, ERR_CANCELLED. */
export async function sealSpec(text: string, where: JobKey, keys: KeyProvider | null, options: CallOptions = {}): Promise<string> {
  if (keys === null) return text;
  const at = rootOf(where);
  const { spec: { model, variant, priority, wait_ms_max }, lengths, model_id, parent } = parseStoredSpec(text);
  const shown = sealed.shape.shown.parse({ spec: { model, variant, priority, wait_ms_max }, lengths, model_id, parent });
  const dataKey = randomBytes(DATA_KEY_BYTES);
  try {
    const wrapped = await keys.wrap(dataKey, { ...at, origin: at.job }, options);
    const box = await crypto.subtle.encrypt(boundTo(at, shown), await importKey(dataKey), utf8Of(text));
    return JSON.stringify({ format: 'ruminate-job/1 sealed', shown, key: base64Of(wrapped), box: base64Of(new Uint8Array(box)) } satisfies Sealed);
  } finally {
    dataKey.fill(0);
  }
}

/** The text that was sealed, or that never was; of a shard its parent's. @throws EngineError ERR_KEY, ERR_CHECKPOINT (it is another job's, or not what was sealed), ERR_STORE, ERR_CANCELLED. */
export async function openSpec(text: string, where: JobKey, keys: KeyProvider | null, options: CallOptions = {}): Promise<string> {
  const stored = parseSealed(text);
  if (stored === null) return text;
  const at = rootOf(where);
  const box = bytesOfBase64(stored.box);
  assert(box !== null, 'a sealed spec was checked when it was parsed');
  const dataKey = await dataKeyOf(stored, at, keys, options);
  try {
    return textOfBytes([new Uint8Array(await crypto.subtle.decrypt(boundTo(at, stored.shown), await importKey(dataKey), box))]);
  } catch (cause) {
    throw checkpointError('identity', `the spec was not sealed with this key for the job ${at.job}`, cause);
  } finally {
    dataKey.fill(0);
  }
}

/** With what digests of a sealed job's answers are keyed, so that they tell nobody else what they are of; undefined: the job is in the clear. @throws EngineError as `openSpec`. */
export async function ballotKeyOf(text: string, where: JobKey, keys: KeyProvider | null, options: CallOptions = {}): Promise<Uint8Array | undefined> {
  const stored = parseSealed(text);
  if (stored === null) return undefined;
  const dataKey = await dataKeyOf(stored, rootOf(where), keys, options);
  try {
    return utf8Of(digestOf('ballots', dataKey));
  } finally {
    dataKey.fill(0);
  }
}

async function dataKeyOf(stored: Sealed, at: JobKey, keys: KeyProvider | null, options: CallOptions): Promise<Uint8Array> {
  if (keys === null) throw new EngineError('ERR_KEY', `The job ${at.job} is encrypted: set RUMINATE_KEY to the key that it was sealed under.`);
  const key = bytesOfBase64(stored.key);
  assert(key !== null, 'a sealed spec was checked when it was parsed');
  return await keys.unwrap(key, { ...at, origin: at.job }, options);
}

/** @throws EngineError ERR_CHECKPOINT. */
export function outlineOf(text: string): SpecOutline {
  const stored = parseSealed(text);
  return stored === null ? parseStoredSpec(text) : { ...stored.shown, prompt: null };
}

export function isSealed(text: string): boolean {
  return parseSealed(text) !== null;
}

/** For `createJob`: whether what is stored holds this text. */
export function holds(text: string, keys: KeyProvider | null, options: CallOptions = {}): (stored: string, at: JobKey) => Promise<boolean> {
  return async (stored, at) => stored === text || (isSealed(stored) && (await openSpec(stored, at, keys, options)) === text);
}

/** null: in the clear, or nothing of ours. */
function parseSealed(text: string): Sealed | null {
  if (!text.startsWith('{"format":"ruminate-job/1 sealed",')) return null;
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw checkpointError('damaged', 'the sealed spec of the job is not JSON', cause);
  }
  const parsed = sealed.safeParse(json);
  if (!parsed.success) throw checkpointError('format', `the sealed spec of the job: ${parsed.error.issues[0]?.path.join('.') ?? ''} ${parsed.error.issues[0]?.message ?? 'is invalid'}`);
  return parsed.data;
}

/** Names hold no NUL. */
function boundTo({ tenant, job }: JobKey, shown: Sealed['shown']): webcrypto.AesGcmParams {
  return { name: 'AES-GCM', iv: IV, additionalData: utf8Of(`${tenant}\0${job}\0spec\0${JSON.stringify(shown)}`) };
}

async function importKey(dataKey: Uint8Array): Promise<webcrypto.CryptoKey> {
  return await crypto.subtle.importKey('raw', Uint8Array.from(dataKey), 'AES-GCM', false, ['encrypt', 'decrypt']);
}
