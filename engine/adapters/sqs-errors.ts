/** What SQS and the way to it can answer, sorted by what follows from it. */
import { EngineError } from '../core/errors.ts';
import { factsOf, isWithoutCredentials, isWithoutRegion } from './aws-errors.ts';

/** `stale`: the receipt is worth nothing any more. `again`: no answer, or one that may be another next time. `wrong`: no attempt will help. */
export type SqsVerdict = { readonly kind: 'stale' | 'again' } | { readonly kind: 'wrong'; readonly error: EngineError };

const ABSENT = new Set(['QueueDoesNotExist', 'AWS.SimpleQueueService.NonExistentQueue', 'QueueDeletedRecently']);
const STALE = new Set(['ReceiptHandleIsInvalid', 'MessageNotInflight']);
const DENIED = new Set([
  'AccessDenied', 'AccessDeniedException', 'ExpiredToken', 'ExpiredTokenException', 'InvalidClientTokenId', 'InvalidSecurity', 'KmsAccessDenied', 'KmsDisabled', 'KmsNotFound',
  'MissingAuthenticationToken', 'SignatureDoesNotMatch', 'UnrecognizedClientException',
]);
/** 4xx, but of the moment; OverLimit: too many messages are in flight. */
const PASSING = new Set(['KmsThrottled', 'OverLimit', 'RequestThrottled', 'RequestTimeTooSkewed', 'RequestTimeout', 'SignatureExpired', 'Throttling', 'ThrottlingException']);

export function verdictOnSqs(error: unknown, url: string): SqsVerdict {
  if (error instanceof EngineError) return { kind: 'wrong', error };
  const { name, message, status } = factsOf(error);
  const wrong = (code: 'ERR_QUEUE' | 'ERR_QUEUE_CONFIG', what: string): SqsVerdict => ({ kind: 'wrong', error: new EngineError(code, `${url}: ${what}`, { cause: error }) });
  if (isWithoutCredentials(error)) return wrong('ERR_QUEUE_CONFIG', `no AWS credentials were found (${message}).`);
  if (isWithoutRegion(error)) return wrong('ERR_QUEUE_CONFIG', 'no AWS region is set: set AWS_REGION.');
  if (ABSENT.has(name)) return wrong('ERR_QUEUE_CONFIG', 'there is no such queue.');
  // Some answer InvalidParameterValue with a sentence.
  if (STALE.has(name) || /receipt handle/i.test(message)) return { kind: 'stale' };
  if (PASSING.has(name)) return { kind: 'again' };
  if (DENIED.has(name) || status === 401 || status === 403) return wrong('ERR_QUEUE_CONFIG', `access is denied (${name}); docs/QUEUE.md lists the rights that are needed.`);
  if (status !== undefined && status >= 400 && status < 500 && status !== 408 && status !== 429) return wrong('ERR_QUEUE', `the queue refused the request (${status} ${name}: ${message}).`);
  return { kind: 'again' };
}
