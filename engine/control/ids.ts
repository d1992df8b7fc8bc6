/** Ids of jobs that nobody has named: ULIDs, which sort by the time of their making and are never drawn twice. https://github.com/ulid/spec */
import { sha256 } from '@noble/hashes/sha2.js';
import { TIME_MAX, decodeTime, isValid, monotonicFactory } from 'ulid';

import { hexOf, utf8Of } from '../core/bytes.ts';

/** Of one process: later ids sort after earlier ones, also within a millisecond. */
export function jobIds(): (createdMs: number) => string {
  return monotonicFactory();
}

/** When it was made, of the wall clock; null: the id was named by somebody. */
export function timeOf(id: string): number | null {
  if (!isValid(id) || id !== id.toUpperCase()) return null;
  const ms = decodeTime(id);
  return ms <= TIME_MAX ? ms : null;
}

/** A ULID that is always the same one of its subject: a hash is in the place of chance. @param time the first 10 characters. */
export function ulidOf(time: string, subject: string): string {
  const digest = sha256(utf8Of(subject));
  return time + Array.from({ length: 16 }, (_, i) => CROCKFORD[(digest[i] ?? 0) & 31]).join('');
}

/** The name of what a tenant's Idempotency-Key stands for. The key itself is not in it: it may be a customer's. */
export function keyedId(tenant: string, key: string): string {
  return `key-${hexOf(sha256(utf8Of(`${tenant}/${key}`))).slice(0, 40)}`;
}

/** Where a list goes on after the item of that id, which may be gone by now: ids are in the order of their folders, and so is the list. */
export function indexAfter(ids: readonly string[], after: string | undefined, order: 'asc' | 'desc'): number {
  if (after === undefined) return 0;
  const isBeyond = (id: string) => (order === 'asc' ? `${id}/` > `${after}/` : `${id}/` < `${after}/`);
  const found = ids.findIndex(isBeyond);
  return found < 0 ? ids.length : found;
}

const CROCKFORD = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
