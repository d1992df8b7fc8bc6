/** JSON of which every value has one spelling: what is read must be what writing it again would give. */
import { hmac } from '@noble/hashes/hmac.js';
import { sha256 as digest } from '@noble/hashes/sha2.js';

import { hexOf, joined, utf8Of } from '../core/bytes.ts';
import type { Body } from '../ports/object-store.ts';
import { checkpointError } from './reason.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export function sha256(text: string | Uint8Array): string {
  return hexOf(digest(typeof text === 'string' ? utf8Of(text) : text));
}

/**
 * What names and verifies JSON objects, as hex. With the tenant's key it tells nobody else anything, not even whether two prompts are the same.
 * @param key 32 bytes; undefined: SHA-256 without a key.
 */
export function digestOf(text: string, key: Uint8Array | undefined): string {
  return key === undefined ? sha256(text) : hexOf(hmac(digest, key, utf8Of(text)));
}

/** For what nothing else has a digest of: against accidents, not against who may write. Takes the fields in the order in which they are stored. */
export function checkOf(fields: object): string {
  return sha256(JSON.stringify(fields)).slice(0, 16);
}

/** @throws EngineError ERR_CHECKPOINT damaged: the bytes are no UTF-8. */
export function textOf(body: Body, what: string): string {
  try {
    return utf8.decode(joined(body));
  } catch (cause) {
    throw checkpointError('damaged', `${what} is not UTF-8`, cause);
  }
}

/**
 * The value of a text that JSON.stringify would write the same way: no spaces, no duplicate keys, no odd numbers, so that a digest
 * or a comparison of texts is one of values. The caller has bounded the text's length.
 * @throws EngineError ERR_CHECKPOINT damaged or truncated.
 */
export function parseCanonical(text: string, what: string): unknown {
  if (text === '') throw checkpointError('truncated', `${what} is empty`);
  let value: unknown;
  let same: boolean;
  try {
    value = JSON.parse(text);
    same = JSON.stringify(value) === text;
  } catch (cause) {
    // Not JSON, or nested so deeply that the stack ends.
    throw checkpointError('damaged', `${what} is not JSON`, cause);
  }
  if (!same) throw checkpointError('damaged', `${what} is not in canonical form`);
  return value;
}

/** The format that a value claims, checked before its fields are: those of a newer format are not known here. */
export function checkFormat(value: unknown, formats: string | readonly string[], what: string): void {
  const claimed = typeof value === 'object' && value !== null && Object.hasOwn(value, 'format') ? (value as { readonly format: unknown }).format : null;
  const known = [formats].flat();
  if (known.some((format) => claimed === format)) return;
  if (typeof claimed === 'string' && claimed.startsWith('dmskv/')) {
    throw checkpointError('format', `${what} has format ${JSON.stringify(claimed.slice(0, 32))}; this engine reads ${known.join(' and ')}`);
  }
  throw checkpointError('damaged', `${what} does not say its format`);
}
