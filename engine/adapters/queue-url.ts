/** From what a person writes to a queue: `local:`, `file:/var/queue` or a plain path, the address of an SQS queue (also after `sqs:`). */
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { type Clock, systemClock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { REGION_ELSEWHERE, sqsAddress } from './aws-address.ts';
import { type OpenedQueue, openDirectoryQueue } from './queue-directory.ts';
import { createLocalQueue } from './queue-local.ts';

export interface OpenQueueOptions {
  /** For batches alone; null: they go with the others. Only SQS has use for it: other queues keep classes apart by themselves. */
  readonly batchUrl?: string | null | undefined;
  readonly environment?: NodeJS.ProcessEnv | undefined;
  readonly clock?: Clock | undefined;
  /** Who only looks: a directory that is not there is a mistake, not an empty queue. */
  readonly mustExist?: boolean | undefined;
}

/** Within a store that is a directory: no key of an object begins so. */
const OF_STORE = '#queue';
const SCHEME = /^([A-Za-z][A-Za-z0-9+.-]+):/;

/**
 * Asks nothing over the network yet: the first call does.
 * @example const { queue } = await openQueue('https://sqs.eu-central-1.amazonaws.com/123456789012/jobs');
 * @throws EngineError ERR_QUEUE_CONFIG, ERR_QUEUE.
 */
export async function openQueue(url: string, { batchUrl = null, environment = process.env, clock = systemClock, mustExist }: OpenQueueOptions = {}): Promise<OpenedQueue> {
  if (url.trim() === '' || url.includes('\0')) throw refused(url, 'is empty, or holds a NUL character');
  const scheme = SCHEME.exec(url)?.[1]?.toLowerCase();
  if (scheme === 'http' || scheme === 'https' || scheme === 'sqs') return { queue: await openSqs(url, batchUrl, environment, clock), isNew: false };
  if (batchUrl !== null) throw refused(url, 'keeps batches apart by itself; a queue for batches is for SQS');
  if (scheme === undefined) return await openDirectoryQueue(path.resolve(url), { clock, mustExist });
  if (scheme === 'file') return await openDirectoryQueue(pathOf(url), { clock, mustExist });
  if (scheme === 'local') {
    if (url.slice('local:'.length) !== '') throw refused(url, 'has a name, but a local: queue has none');
    return { queue: createLocalQueue({ clock }), isNew: true };
  }
  throw refused(url, `has the unknown scheme "${scheme}:"`);
}

/** The queue of a store that is a directory, for whoever does not name another; null: the store is elsewhere. @param store its url. */
export async function openQueueOf(store: string, { clock = systemClock, mustExist }: Pick<OpenQueueOptions, 'clock' | 'mustExist'> = {}): Promise<OpenedQueue | null> {
  return store.startsWith('file:') ? await openDirectoryQueue(path.join(store.slice('file:'.length), OF_STORE), { clock, mustExist }) : null;
}

/** The SDK is loaded only here, so that a local run does without its start-up time. */
async function openSqs(url: string, batchUrl: string | null, environment: NodeJS.ProcessEnv, clock: Clock) {
  const [address, batch] = [addressOf(url), batchUrl === null ? null : addressOf(batchUrl)];
  if (batch === address) throw refused(url, 'is both the queue and the queue for batches');
  const where = whereOf(address, environment);
  const { createSqsQueue } = await import('./sqs.ts');
  return createSqsQueue({ url: address, batchUrl: batch, clock, ...where });
}

/** A queue for notices (notices.ts): its address, and a client for it. @throws EngineError ERR_QUEUE_CONFIG. */
export async function openNotices(url: string, environment: NodeJS.ProcessEnv = process.env) {
  const address = addressOf(url);
  const where = whereOf(address, environment);
  const { sqsClient } = await import('./sqs.ts');
  return { url: address, client: sqsClient(address, where) };
}

function whereOf(address: string, environment: NodeJS.ProcessEnv): { readonly endpoint?: string; readonly region?: string } {
  const hasRegion = ['AWS_REGION', 'AWS_PROFILE', 'AWS_CONFIG_FILE'].some((name) => environment[name] !== undefined);
  const endpoint = environment.RUMINATE_SQS_ENDPOINT ?? environment.AWS_ENDPOINT_URL_SQS;
  if (endpoint !== undefined && !(URL.canParse(endpoint) && /^https?:$/.test(new URL(endpoint).protocol))) throw refused(address, `has an endpoint that is no http(s) URL: ${JSON.stringify(endpoint)}`);
  const isAws = new URL(address).hostname.includes('.amazonaws.com');
  return { ...(endpoint === undefined ? {} : { endpoint }), ...(isAws || hasRegion ? {} : { region: REGION_ELSEWHERE }) };
}

function addressOf(url: string): string {
  const found = sqsAddress(url);
  if ('why' in found) throw refused(url, found.why);
  return found.address;
}

function pathOf(url: string): string {
  if (!url.slice('file:'.length).startsWith('/')) throw refused(url, 'needs an absolute path after file: (or write a plain path)');
  if (/[?#]/.test(url)) throw refused(url, 'has a query or fragment');
  try {
    return fileURLToPath(url);
  } catch (cause) {
    throw refused(url, 'names another host or is badly encoded', cause);
  }
}

function refused(url: string, why: string, cause?: unknown): EngineError {
  // Someone may have written credentials into it.
  return new EngineError('ERR_QUEUE_CONFIG', `The queue ${JSON.stringify(url.replace(/\/\/[^/]*@/, '//…@').slice(0, 200))} ${why}.`, { cause });
}
