/**
 * Idempotency-Key for what is no job: the first request with a key draws the id that every repetition gets. A job has the same in kv/create. Of a fork or an
 * extension, whose name follows from its key, it is what was asked for: without its parent nothing else says whether somebody asks for the same.
 */
import { sha256 } from '@noble/hashes/sha2.js';

import { hexOf, utf8Of } from '../core/bytes.ts';
import { NameConflict, wasErased } from '../kv/create.ts';
import { type JobKey, tenantPrefix } from '../kv/names.ts';
import type { ProtocolOptions } from '../kv/protocol.ts';
import { readHead } from '../kv/read.ts';
import { isUnreadable } from '../kv/reason.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { claimRecord, readOnce, writeOnce } from './records.ts';

export interface Claim {
  readonly tenant: string;
  readonly what: 'file' | 'batch' | 'child';
  /** The client's; kept as a hash, because it may be a customer's. */
  readonly key: string;
  /** What was asked for. */
  readonly body: readonly (string | Uint8Array)[];
  /** A fresh one, for the first. */
  readonly id: string;
}

/** Whether the very same job was asked for before, under this name, and made. @throws EngineError ERR_JOB_CONFLICT, a NameConflict: for another request, or erased since; ERR_STORE; ERR_CANCELLED. */
export async function isMade(store: ObjectStore, where: JobKey, { tenant, what, key, body }: Claim, options: CallOptions = {}): Promise<boolean> {
  const id = nameOf(what, key);
  // One that cannot be read tells as little as none: the parent may yet be there.
  const kept = await readOnce(store, keyOf(tenant, id), claimRecord, { tenant, id }, options).catch((error: unknown) => {
    if (isUnreadable(error)) return null;
    throw error;
  });
  const state = kept === null ? undefined : (await readHead(store, where, options))?.head.state;
  if (kept === null || state === undefined) return false;
  if (state === 'erased') throw wasErased(where);
  if (kept.body !== hashOf(body)) throw new NameConflict('other', `The job ${where.job} was made by another request.`);
  return true;
}

/** The id to go on with. @throws EngineError ERR_JOB_CONFLICT, a NameConflict: the key was used with another body; ERR_CHECKPOINT; ERR_STORE; ERR_CANCELLED. */
export async function claimId(store: ObjectStore, { tenant, what, key, body, id }: Claim, options: ProtocolOptions = {}): Promise<string> {
  const name = nameOf(what, key);
  const asked = { kind: 'claim' as const, tenant, id: name, body: hashOf(body), target: id };
  const kept = await writeOnce(store, keyOf(tenant, name), claimRecord, asked, options);
  if (kept.body !== asked.body) throw new NameConflict('other', `${what === 'child' ? 'The name was used for another job' : `The idempotency key was used for another ${what}`}.`);
  return kept.target;
}

function nameOf(what: Claim['what'], key: string): string {
  return `${what}-${hashOf([key])}`;
}

function keyOf(tenant: string, name: string): string {
  // Checks the name.
  tenantPrefix(tenant);
  return `idem/${tenant}/${name}`;
}

function hashOf(parts: readonly (string | Uint8Array)[]): string {
  const hash = sha256.create();
  // With lengths, so that no two lists of parts are the same bytes.
  for (const part of parts) {
    const bytes = typeof part === 'string' ? utf8Of(part) : part;
    hash.update(utf8Of(`${bytes.byteLength}:`)).update(bytes);
  }
  return hexOf(hash.digest());
}
