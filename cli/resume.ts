/** `ruminate resume | fork | extend`: jobs that are in a store already. */
import { type Command } from 'commander';

import { keyProviderOf } from '../engine/adapters/key-url.ts';
import { extendJob, forkJob } from '../engine/job/children.ts';
import { resumeStored } from '../engine/job/stored.ts';
import { command, integer, seed } from './options.ts';
import { type WatchFlags, checkpointOptions, openJobStore, storeOptions, watchStored } from './stored.ts';

interface ResumeFlags extends WatchFlags {
  readonly model?: string;
}

interface ChildFlags extends ResumeFlags {
  readonly as?: string;
  readonly length?: number;
}

function watched(name: string): Command {
  return checkpointOptions(storeOptions(command(name)))
    .option('--model <name|path>', 'where the job\'s model is on this machine, if not where it was; its identity is compared')
    .option('--threads <n>', 'threads (default: all of this machine)', integer)
    .option('--show-chains', 'print the text of every chain')
    .option('--json', 'one JSON object on stdout and nothing else');
}

export function resumeCommand(): Command {
  return watched('resume')
    .description('go on with a job where its last checkpoint stands, on any machine; of one that has ended, print the result')
    .argument('<name>', 'the job')
    .addHelpText('after', `
Examples:
  $ ruminate resume sums --store ./jobs
  $ ruminate resume sums --store s3://bucket/prefix --take`)
    .action(async (name: string, flags: ResumeFlags) => {
      await watchStored(`${name}, resumed`, name, 'existing', flags, null, (options) => resumeStored({ ...options, model: flags.model }));
    });
}

export function forkCommand(): Command {
  return watched('fork')
    .description('a new job from a past point of a chain, run at once: the tokens up to there, then others')
    .argument('<name>', 'the job to fork')
    .requiredOption('--at <token>', 'tokens of the chain that the fork begins with', integer)
    .option('--chain <i>', 'which chain', integer, 0)
    .option('--width <chains>', 'chains of the new job', integer, 4)
    .option('--seed <n>', '64-bit seed (default: the job\'s: chain 0 of it then repeats what it forks)', seed)
    .option('--length <tokens>', 'most tokens of a chain, those it begins with included (default: as the job)', integer)
    .option('--as <name>', 'the new job\'s name (default: NAME-fork-…)')
    .addHelpText('after', `
Examples:
  $ ruminate fork sums --at 200 --width 4 --seed 7 --store ./jobs`)
    .action(async (name: string, flags: ChildFlags & { readonly at: number; readonly chain: number; readonly width: number; readonly seed?: bigint }) => {
      const { at, chain, width, length } = flags;
      const as = flags.as ?? `${name}-fork-${chain}-${at}-${width}-${flags.seed ?? 'same'}`;
      const store = await openJobStore(flags, 'existing');
      await forkJob({ at, chain, width, seed: flags.seed, length, as }, { store, where: { tenant: flags.tenant, job: name }, keys: await keyProviderOf() });
      await watchStored(`${as}, from token ${at} of ${name}`, as, 'existing', flags, length ?? null, (options) => resumeStored({ ...options, model: flags.model }));
    });
}

export function extendCommand(): Command {
  return watched('extend')
    .description('a new job that goes on from one that has ended or is parked, with more budget, run at once')
    .argument('<name>', 'the job to extend')
    .option('--length <tokens>', 'most tokens of a chain, those it has included', integer)
    .option('--width <n|+n>', 'chains in all, or +n more')
    .option('--kv-read-budget <reads>', 'KV reads of all chains together, those spent included', integer)
    .option('--as <name>', 'the new job\'s name (default: NAME-extend-…)')
    .addHelpText('after', `
Examples:
  $ ruminate extend sums --length 16384 --store ./jobs
  $ ruminate extend sums --width +8 --store ./jobs`)
    .action(async (name: string, flags: ChildFlags & { readonly width?: string; readonly kvReadBudget?: number }) => {
      const { length, kvReadBudget } = flags;
      const as = flags.as ?? `${name}-extend-${[length, flags.width?.replace('+', 'plus'), kvReadBudget].filter((part) => part !== undefined).join('-')}`;
      const store = await openJobStore(flags, 'existing');
      await extendJob({ length, width: flags.width, kvReadBudget, as }, { store, where: { tenant: flags.tenant, job: name }, keys: await keyProviderOf() });
      await watchStored(`${as}, from ${name}`, as, 'existing', flags, length ?? null, (options) => resumeStored({ ...options, model: flags.model }));
    });
}
