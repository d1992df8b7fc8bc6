/** What is known of AWS's addresses without its SDK, and without Node. */

/** What servers that have no regions expect in a signature. */
export const REGION_ELSEWHERE = 'us-east-1';

/** `/<account>/<name>`, perhaps under a path of a server that is not AWS's. */
const SQS_PATH = /^(?:\/[\w.-]+)*\/[\w-]{1,80}$/;

/** The address of a standard SQS queue, also after `sqs:`; or why it is none, to come after it in a sentence. */
export function sqsAddress(url: string): { readonly address: string } | { readonly why: string } {
  const address = url.replace(/^sqs:/i, '');
  if (!URL.canParse(address)) return { why: 'is no address of an SQS queue' };
  const { protocol, username, password, search, hash, pathname } = new URL(address);
  if (!/^https?:$/.test(protocol)) return { why: 'is no http(s) address' };
  if (username !== '' || password !== '' || search !== '' || hash !== '') return { why: 'has credentials, a query or a fragment' };
  if (!SQS_PATH.test(pathname)) return { why: 'does not end in /<account>/<name>; a queue whose name ends in .fifo is not taken' };
  return { address };
}
