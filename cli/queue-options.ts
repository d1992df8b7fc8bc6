/** Which queue a command works with: what was said, the environment, or the one of a store that is a directory. */
import type { Command } from 'commander';

import { type OpenedQueue } from '../engine/adapters/queue-directory.ts';
import { openQueue, openQueueOf } from '../engine/adapters/queue-url.ts';
import { EngineError } from '../engine/core/errors.ts';

export interface QueueFlags {
  readonly queue?: string;
  readonly batchQueue?: string;
}

export function queueOptions(command: Command): Command {
  return command
    .option('--queue <url>', 'what carries jobs to workers: the address of an SQS queue, a directory, or local: (default: RUMINATE_QUEUE, else in the store if that is a directory)')
    .option('--batch-queue <url>', 'another SQS queue, for jobs of batches alone (default: RUMINATE_BATCH_QUEUE, else they go with the others)');
}

/** Every request for work, and every probe, asks how many others wait: of a queue over the network, no more often than this. */
export function depthFreshMs(queue: { readonly url: string }): number {
  return queue.url.startsWith('http') ? 1_000 : 0;
}

/** null: nothing was said, and the store has none of its own. @param store its url; null: there is none. @throws EngineError ERR_QUEUE_CONFIG, ERR_QUEUE, ERR_OPTION. */
export async function openQueueFor(store: string | null, { queue, batchQueue }: QueueFlags, { mustExist = false } = {}): Promise<OpenedQueue | null> {
  const environment = process.env;
  const url = queue ?? given(environment.RUMINATE_QUEUE);
  const batchUrl = batchQueue ?? given(environment.RUMINATE_BATCH_QUEUE) ?? null;
  if (url !== undefined) return await openQueue(url, { batchUrl, environment, mustExist });
  if (batchUrl !== null) throw new EngineError('ERR_OPTION', 'A queue for batches needs another for the rest: say which with --queue or RUMINATE_QUEUE.');
  return store === null ? null : await openQueueOf(store, { mustExist });
}

/** @throws EngineError ERR_OPTION if there is none. */
export async function requireQueueFor(store: string | null, flags: QueueFlags, options: { readonly mustExist?: boolean } = {}): Promise<OpenedQueue> {
  const opened = await openQueueFor(store, flags, options);
  if (opened === null) throw new EngineError('ERR_OPTION', `${store === null ? 'There is no store with a queue of its own' : `The store ${store} has no queue of its own`}: say which with --queue or RUMINATE_QUEUE.`);
  return opened;
}

function given(text: string | undefined): string | undefined {
  return text === '' ? undefined : text;
}
