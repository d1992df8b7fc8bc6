/** `ruminate queue`: what waits for workers, and the messages that no worker could be done with. */
import type { Command } from 'commander';

import { openStore } from '../engine/adapters/store-url.ts';
import { EngineError } from '../engine/core/errors.ts';
import type { DeadMessage, Queue } from '../engine/ports/queue.ts';
import { onInterrupt } from './exit.ts';
import { command, integer } from './options.ts';
import { type QueueFlags, queueOptions, requireQueueFor } from './queue-options.ts';

interface Flags extends QueueFlags {
  readonly store?: string;
  readonly json?: boolean;
}

const LISTED = 20;
const LISTED_MAX = 1_000;

const HELP = `
A message that was received 100 times without being done with is dead. It is a hint like any other: its job is what its head says, is found by
the walk of the workers, and is poisoned after five takes without progress, so a dead letter points at a worker or a store that is wrong.

Examples:
  $ ruminate queue ls --store ./jobs
  $ ruminate queue redrive --queue https://sqs.eu-central-1.amazonaws.com/123456789012/jobs`;

export function queueCommand(): Command {
  const ls = queueCommandOf('ls', 'how many messages wait, and which are dead').option('--max <n>', `dead ones to list (default: ${LISTED})`, integer);
  return command('queue')
    .description('look at the queue, and at messages that no worker could be done with')
    .addCommand(ls.action(list))
    .addCommand(queueCommandOf('redrive', 'send dead messages again, as if they were new').action(redrive))
    .addCommand(queueCommandOf('purge', 'forget dead messages; their jobs stay what they are').action(purge))
    .addHelpText('after', HELP);
}

function queueCommandOf(name: string, description: string): Command {
  const options = command(name).description(description).option('--store <url>', 'the store whose own queue it is (default: RUMINATE_STORE)');
  return queueOptions(options).option('--json', 'one JSON object');
}

async function list({ max = LISTED, ...flags }: Flags & { readonly max?: number }): Promise<void> {
  if (max < 1 || max > LISTED_MAX) throw new EngineError('ERR_OPTION', `max must be from 1 to ${LISTED_MAX}; got ${max}.`);
  await withQueue(flags, async (queue, signal) => {
    const depth = await queue.depth({ signal });
    // A queue without dead letters has the rest all the same.
    const dead = await queue.dead.list({ max, signal }).catch((error: unknown) => {
      if (error instanceof EngineError && error.code === 'ERR_QUEUE_CONFIG') return null;
      throw error;
    });
    if (flags.json === true) return print(JSON.stringify({ queue: queue.url, ...depth, dead }));
    const { batch, ...interactive } = depth;
    print(queue.url);
    for (const [name, { visible, inFlight, oldestAgeMs }] of Object.entries({ interactive, batch })) {
      print(`${name.padEnd(12)} ${visible} waiting${visible === 0 || oldestAgeMs === null ? '' : ` (the oldest for ${Math.round(oldestAgeMs / 1_000)} s)`}, ${inFlight} being worked on`);
    }
    print(dead === null ? 'dead         the queue has no dead-letter queue' : `dead         ${dead.length === max ? `${max} or more` : dead.length}`);
    for (const each of dead ?? []) print(`  ${lineOf(each)}`);
  });
}

async function redrive(flags: Flags): Promise<void> {
  await withQueue(flags, async (queue, signal) => {
    const sent = await queue.dead.redrive({ signal });
    print(flags.json === true ? JSON.stringify({ sent }) : `${sent === 1 ? '1 message was' : `${sent} messages were`} sent again`);
  });
}

async function purge(flags: Flags): Promise<void> {
  await withQueue(flags, async (queue, signal) => {
    const purged = await queue.dead.purge({ signal });
    print(flags.json === true ? JSON.stringify({ purged }) : `${purged === 1 ? '1 dead message was' : `${purged} dead messages were`} forgotten`);
  });
}

async function withQueue(flags: Flags, act: (queue: Queue, signal: AbortSignal) => Promise<void>): Promise<void> {
  using interrupt = onInterrupt(() => undefined);
  const store = flags.store ?? process.env.RUMINATE_STORE;
  const url = store === undefined || store === '' ? null : (await openStore(store, { mustExist: true })).url;
  await act((await requireQueueFor(url, flags, { mustExist: true })).queue, interrupt.signal);
}

function lineOf({ message, received, sentMs }: DeadMessage): string {
  const when = sentMs === null || sentMs === 0 ? '' : ` sent ${new Date(sentMs).toISOString()}`;
  if (message === null) return `none of ours${when}`;
  return `${message.tenant}/${message.job} slice ${message.slice}${when}${received === null ? '' : `, received ${received} times`}`;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
