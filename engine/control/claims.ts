/** Idempotency-Key for what is no job: the first request with a key draws the id that every repetition gets. A job has the same in kv/create. */
import { sha256 } from '@noble/hashes/sha2.js';

import { hexOf, utf8Of } from '../core/bytes.ts';
import { NameConflict } from '../kv/create.ts';
import { tenantPrefix } from '../kv/names.ts';
import type { ProtocolOptions } from '../kv/protocol.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import { claimRecord, writeOnce } from './records.ts';

export interface Claim {
  readonly tenant: string;
  readonly what: 'file' | 'batch';
  /** The client's; kept as a hash, because it may be a customer's. */
  readonly key: string;
  /** What was asked for. */
  readonly body: readonly (string | Uint8Array)[];
  /** A fresh one, for the first. */
  readonly id: string;
}

/** The id to go on with. @throws EngineError ERR_JOB_CONFLICT, a NameConflict: the key was used with another body; ERR_CHECKPOINT; ERR_STORE; ERR_CANCELLED. */
export async function claimId(store: ObjectStore, { tenant, what, key, body, id }: Claim, options: ProtocolOptions = {}): Promise<string> {
  // Checks the name.
  tenantPrefix(tenant);
  const name = `${what}-${hashOf([key])}`;
  const asked = { kind: 'claim' as const, tenant, id: name, body: hashOf(body), target: id };
  const kept = await writeOnce(store, `idem/${tenant}/${name}`, claimRecord, asked, options);
  if (kept.body !== asked.body) throw new NameConflict('other', `The idempotency key was used for another ${what}.`);
  return kept.target;
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
