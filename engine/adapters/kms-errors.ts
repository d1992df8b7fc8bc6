/** What KMS and the way to it can answer, and what to do about it. */
import { EngineError } from '../core/errors.ts';
import { factsOf, isWithoutCredentials, isWithoutRegion } from './aws-errors.ts';

const DENIED = new Set([
  'AccessDeniedException', 'AccessDenied', 'ExpiredTokenException', 'ExpiredToken', 'IncompleteSignature', 'InvalidClientTokenId', 'InvalidSignatureException',
  'MissingAuthenticationTokenException', 'NotAuthorized', 'OptInRequired', 'UnrecognizedClientException', 'InvalidGrantTokenException',
]);
/** Disabled, or waiting for its deletion or its material. */
const UNUSABLE = new Set(['DisabledException', 'KMSInvalidStateException', 'InvalidKeyUsageException']);
const PASSING = new Set([
  'ThrottlingException', 'Throttling', 'TooManyRequestsException', 'LimitExceededException', 'RequestLimitExceeded', 'RequestTimeTooSkewed', 'RequestExpired',
  'DependencyTimeoutException', 'KMSInternalException', 'KeyUnavailableException',
]);

/** The error to end with; null: another attempt may succeed. */
export function kmsRefusal(error: unknown, key: string, job: string): EngineError | null {
  if (error instanceof EngineError) return error;
  const { name, status } = factsOf(error);
  const wrong = (what: string) => new EngineError('ERR_KEY', `${key}: ${what}.`);
  if (isWithoutCredentials(error)) return wrong('no AWS credentials were found');
  if (isWithoutRegion(error)) return wrong('no AWS region is set: set AWS_REGION, or name the key by its ARN');
  if (PASSING.has(name)) return null;
  if (name === 'InvalidCiphertextException') return wrong(`the wrapped key in the manifest of ${job} was changed, or is that of another job or tenant`);
  if (name === 'IncorrectKeyException') return wrong(`the job ${job} was sealed under another key: name that one`);
  if (name === 'NotFoundException') return wrong('there is no such key in this account and region');
  if (UNUSABLE.has(name)) return wrong(`the key cannot be used now (${name}): enable it, or cancel its deletion`);
  if (DENIED.has(name) || status === 401 || status === 403) return wrong(`access is denied (${name}): kms:Encrypt is needed to begin a job and kms:Decrypt to go on with one`);
  if (status !== undefined && status >= 400 && status < 500 && status !== 408 && status !== 429) return wrong(`KMS refused the request (${status} ${name})`);
  return null;
}

/** Without the message: that of a parser quotes what it could not read, and it may have been a data key. */
export function describeKmsError(error: unknown): string {
  const { name, status } = factsOf(error);
  const { code } = (error ?? {}) as { code?: unknown };
  return [status === undefined ? null : String(status), name, typeof code === 'string' && /^[A-Z_0-9]{1,40}$/.test(code) ? code : null].filter((part) => part !== null && part !== '').join(' ');
}
