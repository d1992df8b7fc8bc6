/** Ids of jobs that nobody has named: ULIDs, which sort by the time of their making and are never drawn twice. https://github.com/ulid/spec */
import { randomBytes } from 'node:crypto';

import { assert } from '../core/assert.ts';

const DIGITS = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
const TIME_DIGITS = 10;
const CHANCE_BYTES = 10;

/**
 * 26 characters that are a name of a job (names.ts).
 * @param createdMs of the wall clock, since 1970. It orders listings and decides nothing: a wrong clock makes ids that sort wrongly.
 * @param chance 10 bytes.
 */
export function newJobId(createdMs: number, chance: Uint8Array = randomBytes(CHANCE_BYTES)): string {
  assert(Number.isInteger(createdMs) && createdMs >= 0 && createdMs < 2 ** 48, 'the time of a ULID has 48 bits');
  assert(chance.byteLength === CHANCE_BYTES, 'the chance of a ULID has 80 bits');
  return digits(BigInt(createdMs), TIME_DIGITS) + digits(BigInt(`0x${Buffer.from(chance).toString('hex')}`), (CHANCE_BYTES * 8) / 5);
}

function digits(value: bigint, count: number): string {
  return Array.from({ length: count }, (_, i) => DIGITS[Number((value >> BigInt(5 * (count - 1 - i))) & 31n)]).join('');
}
