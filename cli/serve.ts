/** `ruminate serve`: API, worker, queue and store in one process. Whatever it was doing when it ended, the next start goes on with. */
import { type Command, Option } from 'commander';
import { availableParallelism } from 'node:os';
import path from 'node:path';

import { EngineError } from '../engine/core/errors.ts';
import { apiKeysOf } from './api-keys.ts';
import { EXIT, onInterrupt } from './exit.ts';
import { EMF_HELP, type RetentionFlags, command, decimal, durationMs, emfNamespaceOf, integer, publicUrlOf, repeated, requireRetention, retentionOptions, usdPerHourOf } from './options.ts';
import { type QueueFlags, queueOptions } from './queue-options.ts';
import type { OpenServer } from './server.ts';
import { type PolicyFlags, policyOf, policyOptions } from './stored.ts';
import { paintFor } from './text.ts';

export interface ServeFlags extends PolicyFlags, QueueFlags, RetentionFlags {
  readonly port: number;
  readonly host: string;
  readonly store?: string;
  readonly model?: readonly string[];
  /** false: --no-worker. */
  readonly worker: boolean;
  readonly threads?: number;
  readonly sliceTime?: number;
  readonly apiKeys?: string;
  readonly proxies?: number;
  readonly publicUrl?: string;
  readonly usdPerHour?: number;
  readonly emf?: string;
  readonly webhooksToLoopback?: boolean;
  readonly logLevel?: string;
}

const STORE = '.ruminate';
const LOOPBACK = ['127.0.0.1', '::1', 'localhost'];
/** Saving the longest job at memory speed, and writing it. */
const DRAIN_MS_MAX = 60_000;

const EXAMPLES = `
Examples:
  $ ruminate serve
  $ ruminate serve --store s3://bucket/prefix --host 0.0.0.0 --api-keys keys.json
  $ ruminate serve --slice-time 30s    (long jobs take turns)
  $ ruminate serve --no-worker         (and \`ruminate worker --store ./.ruminate\`, as often as you like)

An API key stands in the file of --api-keys by its hash: [{ "sha256": "…", "tenant": "acme", "rpm": 600, "concurrent": 32, "jobs": 100 }]`;

export function serveCommand(): Command {
  const options = command('serve')
    .description('answer OpenAI\'s clients and run their jobs in this process; Ctrl-C parks what runs, and the next start goes on with it')
    .option('--port <n>', 'where to listen; 0: any that is free', integer, 8787)
    .option('--host <address>', 'on which address; others than this machine\'s own need --api-keys', '127.0.0.1')
    .option('--store <url>', `where jobs are kept: a directory, file:/… or s3://bucket/prefix (default: RUMINATE_STORE, else ./${STORE})`)
    .option('--model <name>', 'a model that may be asked for, as name or name@variant (repeatable; default: all that are here)', repeated)
    .option('--api-keys <file>', 'who may ask, as JSON (default: the JSON in RUMINATE_API_KEYS, else whoever reaches this machine\'s own address is tenant local)')
    .option('--proxies <n>', 'reverse proxies of yours before it, whose X-Forwarded-For is believed (default: none)', integer)
    .option('--usd-per-hour <price>', 'of a worker, for cost_usd in quotes (default: RUMINATE_USD_PER_HOUR, else null)', decimal)
    .optionsGroup('Webhooks:')
    .option('--public-url <url>', 'as what clients know this server, for links in webhooks (default: RUMINATE_PUBLIC_URL, else links are paths)')
    .option('--webhooks-to-loopback', 'for development: allow webhooks to this machine itself, and http://')
    .optionsGroup('Worker:')
    .option('--no-worker', 'only answers: `ruminate worker` runs the jobs')
    .option('--threads <n>', 'threads (default: all of this machine)', integer)
    .option('--slice-time <time>', 'how long a job runs before the next one\'s turn (default: 10m)', durationMs);
  return retentionOptions(policyOptions(queueOptions(options)))
    .optionsGroup('Output:')
    .option('--emf <namespace>', EMF_HELP)
    .addOption(new Option('--log-level <level>', 'of the log on stderr (default: warn on a terminal, else info)').choices(['debug', 'info', 'warn', 'error', 'silent']))
    .addHelpText('after', EXAMPLES)
    .action(serve);
}

async function serve(flags: ServeFlags): Promise<void> {
  const auth = await apiKeysOf(flags.apiKeys);
  check(flags, { hasKeys: auth !== null });
  using interrupt = onInterrupt(() => process.stderr.write('ruminate: parking what runs; again to leave at once (what is committed stays)\n'));
  // Not before it is needed: every other command would pay for the server and its schemas.
  const { openServer } = await import('./server.ts');
  const server = await openServer({
    host: flags.host,
    port: flags.port,
    store: flags.store ?? process.env.RUMINATE_STORE ?? path.resolve(STORE),
    queue: flags,
    worker: flags.worker,
    names: flags.model ?? null,
    threads: flags.threads ?? null,
    sliceMs: flags.sliceTime ?? null,
    policy: policyOf(flags),
    auth,
    proxies: flags.proxies ?? 0,
    publicUrl: publicUrlOf(flags.publicUrl),
    usdPerHour: usdPerHourOf(flags.usdPerHour),
    emfNamespace: emfNamespaceOf(flags.emf),
    webhooksToLoopback: flags.webhooksToLoopback ?? false,
    retention: requireRetention(flags),
    logLevel: flags.logLevel ?? (process.stderr.isTTY ? 'warn' : 'info'),
    signal: interrupt.signal,
  });
  process.stdout.write(banner(server, flags, { hasKeys: auth !== null }));
  await new Promise<void>((resolve) => {
    if (interrupt.signal.aborted) resolve();
    else interrupt.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  const { isDrained, parked } = await server.close(DRAIN_MS_MAX);
  process.stderr.write(parked === 0 ? 'ruminate: stopped\n' : `ruminate: stopped; ${parked === 1 ? 'a job is' : `${parked} jobs are`} parked, and the next start goes on with ${parked === 1 ? 'it' : 'them'}\n`);
  // Native work that did not stop in time keeps no process alive.
  process.exit(isDrained ? EXIT.done : EXIT.failed);
}

function check({ port, host, proxies, publicUrl, sliceTime, threads, usdPerHour, emf }: ServeFlags, { hasKeys }: { readonly hasKeys: boolean }): void {
  if (port < 0 || port > 65_535) throw new EngineError('ERR_OPTION', `port must be from 0 to 65535; got ${port}.`);
  if (sliceTime !== undefined && sliceTime < 1) throw new EngineError('ERR_OPTION', `slice-time must be at least 1ms; got ${sliceTime}.`);
  publicUrlOf(publicUrl);
  usdPerHourOf(usdPerHour);
  emfNamespaceOf(emf);
  if (proxies !== undefined && (proxies < 0 || proxies > 10)) throw new EngineError('ERR_OPTION', `proxies must be from 0 to 10; got ${proxies}.`);
  if (threads !== undefined && threads < 1) throw new EngineError('ERR_OPTION', `threads must be at least 1; got ${threads}.`);
  if (!hasKeys && !LOOPBACK.includes(host)) {
    throw new EngineError('ERR_OPTION', `--host ${host} lets other machines in: say who may ask with --api-keys FILE, or RUMINATE_API_KEYS.`);
  }
}

function banner({ url, store, models, queue }: Pick<OpenServer, 'url' | 'store' | 'models' | 'queue'>, { threads, worker }: ServeFlags, { hasKeys }: { readonly hasKeys: boolean }): string {
  const { bold, dim } = paintFor(process.stdout);
  const model = models[0] ?? 'MODEL';
  const key = !hasKeys ? '' : ' -H "authorization: Bearer $KEY"';
  const body = JSON.stringify({ model, messages: [{ role: 'user', content: '4 20 8 13 target 59' }], hyperscale: { width: 8 }, stream: true });
  return `${bold(`Ruminate listens on ${url}`)}, docs at ${url}/docs
${dim(`jobs in ${store}, models ${models.join(', ') || '(none)'}, ${worker ? `${threads ?? availableParallelism()} threads` : 'no worker here'}, queue ${queue}`)}

  curl -N ${url}/v1/chat/completions -H 'content-type: application/json'${key} \\
    -d '${body}'

`;
}
