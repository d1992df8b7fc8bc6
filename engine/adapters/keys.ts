/** What a key may be, on every store alike, so that a job can move from one store to another. */
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';

// No `#` or `%`: the filesystem adapter's own names. No backslash, colon or control character: no other system's separators either.
const COMPONENT = /^[A-Za-z0-9._=@+~,-]+$/;

/**
 * @example checkKey('kv/acme/01J…/HEAD')
 * @throws EngineError ERR_STORE_CONFIG for an absolute, empty, climbing (`..`), over-long or oddly spelled key.
 */
export function checkKey(key: string): void {
  if (key.length === 0 || key.length > LIMITS.STORE_KEY_CHARS_MAX) refuse(key, `must have 1 to ${LIMITS.STORE_KEY_CHARS_MAX} characters`);
  for (const component of key.split('/')) {
    if (component === '' || component === '.' || component === '..') refuse(key, 'has an empty part, "." or ".."');
    if (component.length > LIMITS.STORE_KEY_PART_CHARS_MAX) refuse(key, `has a part of more than ${LIMITS.STORE_KEY_PART_CHARS_MAX} characters`);
    if (!COMPONENT.test(component)) refuse(key, 'may hold letters, digits, "/" and . _ = @ + ~ , - only');
  }
}

/** A prefix is the beginning of a key: it may be empty or end with `/`. */
export function checkPrefix(prefix: string): void {
  if (prefix !== '') checkKey(prefix.endsWith('/') ? prefix.slice(0, -1) : prefix);
}

function refuse(key: string, why: string): never {
  throw new EngineError('ERR_STORE_CONFIG', `The key ${JSON.stringify(key.slice(0, 80))} ${why}.`);
}
