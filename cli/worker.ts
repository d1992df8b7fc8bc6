/** `ruminate worker`: runs the jobs of a store as a queue brings them, until it is told to stop; then hands back what it has, and exits. */
import type { Command } from 'commander';
import { writeSync } from 'node:fs';

import { EngineError } from '../engine/core/errors.ts';
import { LOG_LEVELS } from '../functions/console-log.ts';
import { GRACE_MS, type WorkerFlags, workerConfig } from '../functions/worker-env.ts';
import { EXIT, onInterrupt } from './exit.ts';
import { EMF_HELP, command, repeated, retentionOptions } from './options.ts';
import { queueOptions } from './queue-options.ts';

const HELP = `
The worker stops for SIGTERM or Ctrl-C (a second one leaves at once), a Spot notice, its time limit and its memory limit, each in the same way:
it takes nothing more, finishes the step, commits, gives the messages back and exits 0 within the grace. Killed, it loses what it had not
committed; another worker goes on. Options go before variables: RUMINATE_STORE, _QUEUE, _BATCH_QUEUE, _SLOTS, _THREADS, _SLICE_TIME, _GRACE,
_TIME_LIMIT, _WORKER_MEMORY, _SPOT, _NOTICES, _WALK_TIME, _CHECKPOINT_TOKENS, _CHECKPOINT_TIME, _JOURNAL_TIME, _LOG_LEVEL, _METRICS_PORT,
_METRICS_HOST, _BEGIN (0: goes on with jobs that have begun, and begins none), _EMF, _RETENTION, _RESULT_RETENTION, _PUBLIC_URL (for links in webhooks, which it sends unless RUMINATE_WEBHOOKS=0); AWS's own for credentials and region.

Examples:
  $ ruminate worker --store ./jobs                 (beside \`ruminate serve --store ./jobs --no-worker\`)
  $ ruminate worker --store s3://bucket/prefix --queue https://sqs.eu-central-1.amazonaws.com/123456789012/jobs --spot --model countdown`;

export function workerCommand(): Command {
  const options = command('worker')
    .description('run the jobs of a store as a queue brings them')
    .option('--store <url>', 'where jobs are kept: a directory, file:/… or s3://bucket/prefix');
  const own = queueOptions(options)
    .option('--model <name>', 'a model to have loaded before the first job comes, as name or name@variant (repeatable)', repeated)
    .option('--slots <n>', 'jobs at a time, as memory allows; those of one model step together (default: 8)')
    .option('--threads <n>', 'threads (default: all of this machine)')
    .option('--slice-time <time>', 'how long a job runs before the next one\'s turn (default: 10m)')
    .option('--walk-time <time>', 'how often it looks for jobs that lost their message or their worker (default: 1m)')
    .optionsGroup('Stopping:')
    .option('--grace <time>', `how long handing back may take (default: ${GRACE_MS / 1_000}s)`)
    .option('--time-limit <time>', 'exits before it has run for so long, grace included')
    .option('--memory-limit <bytes>', 'exits when it has more than that resident, such as 6GiB; an error before any job has begun')
    .option('--spot', 'asks this EC2 machine every 5 s whether it is about to be taken back')
    .option('--notices <queue>', 'an SQS queue of notices of EventBridge, where this machine cannot be asked (docs/QUEUE.md)')
    .optionsGroup('Checkpoints:')
    .option('--checkpoint-tokens <n>', 'tokens of a chain between two checkpoints')
    .option('--checkpoint-time <time>', 'or time between them')
    .option('--journal-time <time>', 'tokens alone are kept this often in between')
    .optionsGroup('Webhooks:')
    .option('--webhooks-to-loopback', 'for development, as of `ruminate serve`: allow webhooks to this machine itself, and http://');
  return retentionOptions(own)
    .optionsGroup('Output:')
    .option('--metrics-port <n>', 'where Prometheus finds /metrics, and load balancers /health; 0: any that is free (default: nowhere)')
    .option('--metrics-host <address>', 'on which address; 0.0.0.0 for all (default: 127.0.0.1)')
    .option('--emf <namespace>', EMF_HELP)
    .option('--log-level <level>', `of the log on stderr: ${LOG_LEVELS.join(', ')} (default: info)`)
    .addHelpText('after', HELP)
    .action(work);
}

async function work(flags: WorkerFlags): Promise<void> {
  const config = workerConfig(flags, process.env);
  const say = (line: string) => void writeSync(2, `ruminate: ${line}\n`);
  using interrupt = onInterrupt(() => say('stopping: handing back what runs; again to leave at once (what is committed stays)'));
  // Not before it is needed: every other command would pay for it.
  const { runWorker } = await import('./worker-process.ts');
  const { isDrained, parked } = await runWorker(config, flags, { signal: interrupt.signal, say }).catch((error: unknown) => {
    // Told to stop before it took anything.
    if (interrupt.signal.aborted && error instanceof EngineError && error.code === 'ERR_CANCELLED') return { isDrained: true, parked: 0 };
    throw error;
  });
  say(`stopped; ${parked === 1 ? '1 job was' : `${parked} jobs were`} handed back`);
  // Native work that did not stop in time keeps no process alive.
  process.exit(isDrained ? EXIT.done : EXIT.failed);
}
