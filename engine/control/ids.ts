/** Ids of jobs that nobody has named: ULIDs, which sort by the time of their making and are never drawn twice. https://github.com/ulid/spec */
import { sha256 } from '@noble/hashes/sha2.js';
import { TIME_MAX, decodeTime, incrementBase32, isValid, ulid } from 'ulid';

import { hexOf, utf8Of } from '../core/bytes.ts';

/** Characters of a ULID: its time, and that with its chance; what is left of one that was drawn here follows from these (`drawnMs`). */
const TIME = 10;
const DRAWN = 22;

/** Of one process: later ids sort after earlier ones, also within a millisecond. */
export function jobIds(): (createdMs: number) => string {
  let last = '';
  return (createdMs) => {
    const fresh = ulid(createdMs).slice(0, DRAWN);
    last = fresh.slice(0, TIME) > last.slice(0, TIME) ? fresh : last.slice(0, TIME) + incrementBase32(last.slice(TIME));
    return last + crockford(`drawn/${last}`, 26 - DRAWN);
  };
}

/** When it says that it was made, of the wall clock; null: it is no ULID. Whoever names something himself may name it so. */
export function timeOf(id: string): number | null {
  if (!isValid(id) || id !== id.toUpperCase()) return null;
  const ms = decodeTime(id);
  return ms <= TIME_MAX ? ms : null;
}

/** When it was drawn by `jobIds`, of the wall clock; null: it was named, be it by a ULID, whose time is then a claim. */
export function drawnMs(id: string): number | null {
  return id.slice(DRAWN) === crockford(`drawn/${id.slice(0, DRAWN)}`, 26 - DRAWN) ? timeOf(id) : null;
}

/** A ULID that is always the same one of its subject: a hash is in the place of chance. @param time the first 10 characters. */
export function ulidOf(time: string, subject: string): string {
  return time + crockford(subject, 16);
}

function crockford(subject: string, chars: number): string {
  const digest = sha256(utf8Of(subject));
  return Array.from({ length: chars }, (_, i) => CROCKFORD[(digest[i] ?? 0) & 31]).join('');
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
