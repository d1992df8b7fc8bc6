/**
 * The secrets of a hook, as Standard Webhooks have them: 32 random bytes, sealed in the store where jobs are. A new one never ends the one before at
 * once: for a day both sign, so that a receiver may change over whenever it likes.
 */
import { BlobWriter, type BlobPlace, readBlob } from '../control/blob.ts';
import { jobIds } from '../control/ids.ts';
import { readOnce, writeOnce } from '../control/records.ts';
import { base64Of, randomBytes, textOfBytes, utf8Of } from '../core/bytes.ts';
import { LIMITS } from '../core/limits.ts';
import type { ProtocolOptions } from '../kv/protocol.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { namesIn } from './delivery.ts';
import { type SecretRecord, hooksFolder, secretRecord } from './records.ts';

export interface HookPlace {
  readonly store: ObjectStore;
  /** null: stored in the clear, as jobs are. */
  readonly keys: KeyProvider | null;
  readonly tenant: string;
  readonly hook: string;
}

const SECRET = /^secret-([0-9A-HJKMNP-TV-Z]{26})\.json$/;
const PREFIX = 'whsec_';
const newId = jobIds();

/** A fresh one, which signs from now on. Nobody is told it again. @throws EngineError ERR_KEY, ERR_STORE, ERR_CANCELLED. */
export async function addSecret(place: HookPlace, createdMs: number, options: ProtocolOptions = {}): Promise<string> {
  const secret = PREFIX + base64Of(randomBytes(32));
  const writer = await BlobWriter.open(blobPlace(place), options);
  await writer.add(utf8Of(secret));
  const { tenant, hook: id } = place;
  const record: SecretRecord = { kind: 'secret', tenant, id, createdMs, blob: await writer.close() };
  await writeOnce(place.store, `${folderOf(place)}secret-${newId(createdMs)}.json`, secretRecord, record, options);
  return secret;
}

/** The one or two that sign, newest first. @throws EngineError ERR_CHECKPOINT, ERR_KEY, ERR_STORE, ERR_CANCELLED. */
export async function activeSecrets(place: HookPlace, nowMs: number, options: CallOptions = {}): Promise<readonly string[]> {
  const [newest, before] = await newestFirst(place, options);
  if (newest === undefined) return [];
  const overlaps = before !== undefined && nowMs - newest.record.createdMs < LIMITS.WEBHOOK_SECRET_OVERLAP_MS;
  return await Promise.all((overlaps ? [newest, before] : [newest]).map(async ({ record }) => await textOf(place, record, options)));
}

/** Those before the newest two. @throws as `activeSecrets`. */
export async function dropOldSecrets(place: HookPlace, options: CallOptions = {}): Promise<void> {
  for (const { name, record } of (await newestFirst(place, options)).slice(2)) {
    await place.store.delete([folderOf(place) + name], options);
    await place.store.delete([`${folderOf(place)}${record.blob.nonce}-0`], options);
  }
}

async function newestFirst(place: HookPlace, options: CallOptions): Promise<readonly { readonly name: string; readonly record: SecretRecord }[]> {
  const names = (await namesIn(place.store, folderOf(place), options)).filter((name) => SECRET.test(name)).toReversed();
  const found = await Promise.all(names.map(async (name) => ({
    name, record: await readOnce(place.store, folderOf(place) + name, secretRecord, { tenant: place.tenant, id: place.hook }, options),
  })));
  return found.filter((one): one is { name: string; record: SecretRecord } => one.record !== null);
}

async function textOf(place: HookPlace, { blob }: SecretRecord, options: CallOptions): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of readBlob(blobPlace(place), blob, options)) chunks.push(chunk);
  return textOfBytes(chunks);
}

function folderOf({ tenant, hook }: HookPlace): string {
  return `${hooksFolder(tenant)}${hook}/`;
}

function blobPlace(place: HookPlace): BlobPlace {
  const { store, keys, tenant, hook } = place;
  return { store, keys, tenant, id: hook, prefix: folderOf(place) };
}
