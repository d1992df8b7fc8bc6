#!/usr/bin/env node
/** `npm run deploy -- --stage NAME`: an account becomes the platform, step by step; each may be run alone, again, or dry. */
import { parseArgs } from 'node:util';

import { STAGE_NAMES, stageOf } from '../config.ts';
import { ROOT } from '../lib/bundles.ts';
import { Context, type Options } from './context.ts';
import { type Step, STEPS } from './steps.ts';

const HELP = `npm run deploy -- --stage ${STAGE_NAMES.join('|')} [options]

${STEPS.map(({ name, does }) => `  ${name.padEnd(10)} ${does}`).join('\n')}

  --only STEP[,STEP]   these alone
  --from STEP          this one and those after it
  --dry-run            says what would be done, asks what can be asked, and writes nothing
  --image sha256:…     which image workers run; default: that of the last deploy
  --canary             one more worker tries the image beside the others; the same command without it gives it to all
  --drain TIME         how long the workers that are there may take to finish what only they can go on with, such as 90m; default: 6h; 0s: do not wait
  --rollback           the image of the deploy before, by the same steps and under the same rule
  --destroy            takes the stage away; its models, jobs, keys and images stay
  --destroy --data     the stack of these too; AWS keeps buckets that are not empty until you delete them

A step that is done is looked at again and changes nothing: after an interruption run the same command. Credentials and region come as for every tool of AWS.`;

/** @returns exit code. */
export async function main(args: readonly string[], say: (line: string) => void = (line) => void process.stdout.write(`${line}\n`), signal = new AbortController().signal): Promise<number> {
  try {
    const asked = read(args);
    if (asked === null) {
      say(HELP);
      return 0;
    }
    const { options, steps, isRollback, isDestroy } = asked;
    const context = new Context(options, say, signal);
    if (isRollback) {
      const { previous } = context.kept;
      if (previous === undefined) throw new Error('No earlier deploy of this stage is known here: say which image with --image sha256:….');
      return await runAll(steps, new Context({ ...options, image: previous }, say, signal));
    }
    if (isDestroy) return await destroy(context);
    return await runAll(steps, context);
  } catch (error) {
    process.stderr.write(`ruminate: ${(error as Error).message}\n`);
    return signal.aborted ? 130 : 1;
  }
}

interface Asked {
  readonly options: Options;
  readonly steps: readonly Step[];
  readonly isRollback: boolean;
  readonly isDestroy: boolean;
}

/** null: help. @throws Error that says what is wrong. */
function read(args: readonly string[]): Asked | null {
  const { values } = parseArgs({
    args: [...args],
    options: {
      stage: { type: 'string' }, only: { type: 'string' }, from: { type: 'string' }, image: { type: 'string' },
      'dry-run': { type: 'boolean', default: false }, rollback: { type: 'boolean', default: false }, canary: { type: 'boolean', default: false }, drain: { type: 'string', default: '6h' }, destroy: { type: 'boolean', default: false }, data: { type: 'boolean', default: false }, help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return null;
  if (values.stage === undefined) throw new Error(`Say which stage with --stage: ${STAGE_NAMES.join(', ')}.`);
  const named = (name: string): number => {
    const at = STEPS.findIndex((step) => step.name === name);
    if (at < 0) throw new Error(`There is no step ${JSON.stringify(name)}: ${STEPS.map((step) => step.name).join(', ')}.`);
    return at;
  };
  if (values.data && !values.destroy) throw new Error('--data is of --destroy.');
  if (values.canary && stageOf(values.stage).workers.pool === null) throw new Error('A canary is of a pool of machines, and this stage has none: its functions move by themselves, a tenth first.');
  if (values.rollback && values.image !== undefined) throw new Error('--rollback has an image of its own.');
  const only = values.only?.split(',').map(named);
  const from = values.from === undefined ? 0 : named(values.from);
  return {
    options: { stage: values.stage, config: stageOf(values.stage), dryRun: values['dry-run'], image: values.image ?? null, data: values.data, canary: values.canary, drainMs: timeOf(values.drain) },
    steps: STEPS.filter((_, i) => (only === undefined ? i >= from : only.includes(i))),
    isRollback: values.rollback,
    isDestroy: values.destroy,
  };
}

/** @throws Error: it is no time. */
function timeOf(text: string): number {
  const [, digits = '', unit = ''] = /^(\d{1,4})([smh])$/.exec(text) ?? [];
  if (unit === '') throw new Error(`--drain must be a time such as 90m or 6h; got ${JSON.stringify(text)}.`);
  return Number(digits) * ({ s: 1, m: 60, h: 3_600 }[unit] ?? 0) * 1_000;
}

async function runAll(steps: readonly Step[], context: Context): Promise<number> {
  for (const { name, does, run } of steps) {
    if (context.signal.aborted) return 130;
    context.say(`${name}: ${does}`);
    await run(context);
  }
  return 0;
}

/** Everything but data; what remains of the stage costs as much as its bytes. */
async function destroy(context: Context): Promise<number> {
  const { options: { data }, say } = context;
  const parts = ['Watch', 'Schedule', 'Workers', 'Control', 'Network', 'Queues', ...(data ? ['Data'] : [])];
  say(data ? 'the stack of the data goes too; what is in its buckets stays until you empty them' : 'models, jobs, keys and images stay (--data for those)');
  await context.run(context.cdk('destroy', ...parts, '--force'));
  return 0;
}

if (process.argv[1]?.startsWith(ROOT) === true && process.argv[1].endsWith('main.ts')) {
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  process.once('SIGTERM', () => stop.abort());
  process.exitCode = await main(process.argv.slice(2), undefined, stop.signal);
}
