/** `npm run chaos -- …`: what it is asked for, what it prints, and what it leaves behind. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { endWithReader, EXIT, onInterrupt } from '../../cli/exit.ts';
import { conditionLine, conditions } from '../bench/conditions.ts';
import { ensurePeer } from '../peers/build.mjs';
import { type ChaosSize, type FaultKind, FAULTS, planOf } from './plan.ts';
import { type ChaosFigures, described, runChaos } from './run.ts';
import { type Outside, OUTSIDE_FAULTS, type Own, workerEnvironment } from './site.ts';

const DEFAULTS = { jobs: 60, kills: 30, minutes: 3, workers: 3 } as const;

const USAGE = `\
Usage: npm run chaos -- [options]

Runs jobs on worker processes over a real S3 server (versitygw) and a real SQS server (ElasticMQ), while workers are killed and stopped, the
API, the store and the queue are killed and started again, messages are deleted and connections delayed, broken and parted. In the end each
job must have one result, token for token, event for event and to the unit of usage that of a run that nothing disturbed, and one webhook.

  --seed S       of the jobs and of what is done to them, and when (default: of the clock)
  --jobs N       (default: ${DEFAULTS.jobs})
  --kills N      SIGKILLs of workers; of everything else there is some for so many kills (default: ${DEFAULTS.kills})
  --minutes M    over which they are spread (default: ${DEFAULTS.minutes})
  --workers N    (default: ${DEFAULTS.workers})
  --faults LIST  only these of ${FAULTS.join(', ')}
  --worker-env FILE, --url URL
                 over a store, queues and an API that are there already: workers are started with the variables of FILE (lines of NAME=value)
                 and PATH alone, which name the store and the queues; URL is the API's, whose key RUMINATE_API_KEY has. Only ${OUTSIDE_FAULTS.join(', ')}
                 are done then, and no webhook is looked for. The run itself reads the store and counts messages by its own environment.
  --keep         keeps the folder also of a run that passes
  --help

The last line is one JSON object. A run that fails keeps its folder: logs of every process, the store, and verdict.json. The same seed gives the
same jobs and the same faults at the same times; what they meet depends on the machine.
`;

const COUNT_MAX = 100_000;

interface Asked extends ChaosSize {
  readonly keep: boolean;
  /** null: on servers of its own. */
  readonly outside: Outside | null;
}

/** @returns the exit code: 0 only if everything held. */
export async function main(args: readonly string[]): Promise<number> {
  const asked = parse(args);
  if (typeof asked === 'string') {
    const isHelp = asked === '';
    (isHelp ? process.stdout : process.stderr).write(isHelp ? USAGE : `chaos: ${asked}\n${USAGE}`);
    return isHelp ? EXIT.done : EXIT.usage;
  }
  endWithReader(process.stdout);
  const { outside, keep, ...size } = asked;
  const on = outside ?? ownServers();
  if (typeof on === 'string') {
    process.stderr.write(`chaos: ${on}\n`);
    return EXIT.failed;
  }
  const say = (line: string) => void process.stdout.write(`chaos: ${line}\n`);
  const again = `npm run chaos -- ${args.filter((_, i) => args[i] !== '--seed' && args[i - 1] !== '--seed').concat('--seed', `${size.seed}`).join(' ')}`;
  say(`seed ${size.seed}; again with: ${again}`);
  say(conditionLine(conditions()));
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-chaos-'));
  using interrupt = onInterrupt(() => say('stopping; again to leave at once'));
  const plan = planOf(size);
  writeFileSync(path.join(folder, 'plan.json'), JSON.stringify(plan, null, 1));
  let figures: ChaosFigures | null = null;
  let broken: readonly string[];
  try {
    figures = await runChaos(plan, { folder, on, say, signal: interrupt.signal });
    broken = figures.broken;
  } catch (error) {
    if (interrupt.signal.aborted) {
      rmSync(folder, { recursive: true, force: true });
      return EXIT.interrupted;
    }
    broken = [error instanceof Error ? (error.stack ?? error.message) : String(error)];
  }
  const passed = broken.length === 0;
  if (figures !== null) {
    say(`${plan.jobs} jobs (${plan.specs.length} specs) in ${figures.takes} takes, ${figures.slices} slices; ${described(figures.done)}`);
    say(`in the logs: ${Object.entries(figures.said).filter(([msg]) => /^(slice|webhook|ended) /.test(msg)).map(([msg, count]) => `${msg} ${count}`).join(', ')}`);
  }
  for (const each of broken) say(`BROKEN ${each}`);
  if (passed && !keep) rmSync(folder, { recursive: true, force: true });
  else {
    writeFileSync(path.join(folder, 'verdict.json'), JSON.stringify({ broken, ...figures }, null, 1));
    say(`kept ${folder}${passed ? '' : `; again with: ${again}`}`);
  }
  const { broken: _, ...counted } = figures ?? { broken };
  process.stdout.write(`${JSON.stringify({ chaos: passed ? 'passed' : 'failed', ...size, ...counted, broken: broken.length, conditions: conditions() })}\n`);
  return passed ? EXIT.done : EXIT.failed;
}

/** A text: what is missing. */
function ownServers(): Own | string {
  const [gateway, jars] = [ensurePeer('versitygw'), ensurePeer('elasticmq')];
  if ('missing' in gateway) return gateway.missing;
  return 'missing' in jars ? jars.missing : { gateway: gateway.binary, jars: jars.binary };
}

/** A text: what is wrong; an empty one: help was asked for. */
function parse(args: readonly string[]): Asked | string {
  try {
    const text = { type: 'string' } as const;
    const { values } = parseArgs({ args: [...args], options: { seed: text, jobs: text, kills: text, minutes: text, workers: text, faults: text, 'worker-env': text, url: text, keep: { type: 'boolean', default: false }, help: { type: 'boolean', short: 'h', default: false } } });
    if (values.help) return '';
    const count = (name: 'seed' | 'jobs' | 'kills' | 'workers', otherwise: number, least: number): number => {
      const given = values[name];
      if (given === undefined) return otherwise;
      if (!/^\d{1,10}$/.test(given) || Number(given) < least || Number(given) > (name === 'seed' ? 2 ** 32 - 1 : COUNT_MAX)) throw new Error(`--${name} must be an integer of at least ${least}; got ${JSON.stringify(given)}`);
      return Number(given);
    };
    const minutes = Number(values.minutes ?? DEFAULTS.minutes);
    if (!(minutes > 0 && minutes <= 1_440)) throw new Error(`--minutes must be above 0 and at most 1440; got ${JSON.stringify(values.minutes)}`);
    const { 'worker-env': file, url } = values;
    if ((file === undefined) !== (url === undefined)) throw new Error('--worker-env and --url go together');
    if (url !== undefined && !(URL.canParse(url) && /^https?:$/.test(new URL(url).protocol))) throw new Error(`--url must be the http or https address of an API; got ${JSON.stringify(url)}`);
    const outside = file === undefined || url === undefined ? null : { worker: workerEnvironment(file), url, apiKey: process.env.RUMINATE_API_KEY ?? '' };
    return {
      outside, faults: faultsOf(values.faults, outside === null ? FAULTS : OUTSIDE_FAULTS),
      seed: count('seed', Date.now() % 1_000_000, 0), jobs: count('jobs', DEFAULTS.jobs, 1), kills: count('kills', DEFAULTS.kills, 1), minutes,
      // One of them has always to be left.
      workers: count('workers', DEFAULTS.workers, 2), keep: values.keep,
    };
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function faultsOf(given: string | undefined, possible: readonly FaultKind[]): readonly FaultKind[] {
  if (given === undefined) return possible;
  const asked = given.split(',');
  const found = possible.filter((kind) => asked.includes(kind));
  if (found.length !== asked.length) throw new Error(`--faults must be some of ${possible.join(',')}; got ${JSON.stringify(given)}`);
  return found;
}
