/** What S3 and the way to it can answer, sorted by what follows from it. */
import { EngineError } from '../core/errors.ts';
import { factsOf, isWithoutCredentials, isWithoutRegion } from './aws-errors.ts';

/**
 * `refused`: a condition did not hold, or a conflict (412, 409). `absent`: no such key. `range`: nothing at that offset. `no_upload`: the
 * multipart upload is not known (any more). `again`: no answer, or one that may be another next time. `wrong`: no attempt will help.
 */
export type Verdict = { readonly kind: 'refused' | 'absent' | 'range' | 'no_upload' | 'again' } | { readonly kind: 'wrong'; readonly error: EngineError };

/** An answer that makes no sense, such as half a body: asked for again. */
export class OddAnswer extends Error {}

// XAdminUserNotFound, with 404, is versitygw's InvalidAccessKeyId.
const DENIED = new Set([
  'XAdminUserNotFound', 'ExpiredToken', 'ExpiredTokenException', 'InvalidAccessKeyId', 'InvalidToken', 'SignatureDoesNotMatch', 'TokenRefreshRequired',
]);
const REGION = new Set(['PermanentRedirect', 'AuthorizationHeaderMalformed', 'IllegalLocationConstraintException', 'TemporaryRedirect']);
/** 4xx, but of the connection or the moment: the client was slow, bytes were lost, the clock was off (which the SDK then corrects). */
const PASSING = new Set([
  'RequestTimeout', 'IncompleteBody', 'BadDigest', 'XAmzContentChecksumMismatch', 'RequestTimeTooSkewed', 'Throttling', 'SlowDown', 'TooManyRequests',
]);

export function verdictOn(error: unknown, url: string): Verdict {
  if (error instanceof EngineError) return { kind: 'wrong', error };
  const { name = '', message = '', status } = factsOf(error);
  const wrong = (code: 'ERR_STORE' | 'ERR_STORE_CONFIG', what: string): Verdict => {
    return { kind: 'wrong', error: new EngineError(code, `${url}: ${what}`, { cause: error }) };
  };
  if (isWithoutCredentials(error)) return wrong('ERR_STORE_CONFIG', `no AWS credentials were found (${message}).`);
  if (isWithoutRegion(error)) return wrong('ERR_STORE_CONFIG', 'no AWS region is set: set AWS_REGION.');
  if (name === 'NoSuchBucket') return wrong('ERR_STORE_CONFIG', 'there is no such bucket.');
  if (name === 'NoSuchUpload') return { kind: 'no_upload' };
  if (PASSING.has(name)) return { kind: 'again' };
  if (REGION.has(name) || status === 301 || status === 307) return wrong('ERR_STORE_CONFIG', 'the bucket is in another region: set AWS_REGION to it.');
  if (DENIED.has(name) || status === 401 || status === 403) return wrong('ERR_STORE_CONFIG', `access is denied (${name}); docs/STORES.md lists the rights that are needed.`);
  if (status === 412 || status === 409) return { kind: 'refused' };
  if (status === 404) return { kind: 'absent' };
  if (status === 416) return { kind: 'range' };
  if (status === 501 || status === 405) return wrong('ERR_STORE_CONFIG', `the store cannot do this (${name}).`);
  if (status !== undefined && status >= 400 && status < 500 && status !== 408 && status !== 429) {
    return wrong('ERR_STORE', `the store refused the request (${status} ${name}: ${message}).`);
  }
  return { kind: 'again' };
}

/** For a person: what went wrong last, without headers or credentials. */
export function describe(error: unknown): string {
  const { name, message, status } = factsOf(error);
  return [status === undefined ? null : String(status), name, message].filter((part) => part !== null && part !== '').join(' ');
}
