/** `ruminate run`: one job in this process, watched on stderr, its result on stdout. */
import { createHash } from 'node:crypto';
import type { Command } from 'commander';

import { generate } from '../engine/job/generate.ts';
import type { JobSpec } from '../engine/job/spec.ts';
import { runStored } from '../engine/job/stored.ts';
import { EXIT, onInterrupt } from './exit.ts';
import { modelFinder } from './finder.ts';
import { openView, silentView, type View } from './live.ts';
import { command } from './options.ts';
import { report } from './report.ts';
import { type SpecFlags, promptOf, specOf, specOptions } from './spec-options.ts';
import { type WatchFlags, checkpointOptions, storeOptions, watchStored } from './stored.ts';
import { canRedraw, paintFor } from './text.ts';

interface RunOptions extends SpecFlags, WatchFlags {
  readonly showChains?: boolean;
  readonly json?: boolean;
  readonly job?: string;
}

const EXAMPLES = `
The same spec gives the same tokens on every machine: only the timing differs.

Examples:
  $ ruminate run "4 20 8 13 target 59"
  $ ruminate run "4 20 8 13 target 59" --cr 8 --length 512 --width 4 --kv-read-budget 58000 --show-chains
  $ ruminate run --prompt-file question.txt --model ./Qwen3-8B-DMS --width 8 --vote majority --deadline 10m
  $ ruminate run --prompt-file long.txt --model ./Qwen3-8B --policy kvzap --set surrogate=./KVzap-mlp-Qwen3-8B --set threshold=-4
  $ ruminate run "4 20 8 13 target 59" --model s3://models/countdown@cr8
  $ ruminate run "4 20 8 13 target 59" --store ./jobs --job sums    (Ctrl-C parks it; the same command goes on)
  $ echo "7 18 17 7 target 35" | ruminate run --prompt-file - --json | jq .answer`;

export function runCommand(): Command {
  const options = command('run')
    .description('run one job: W chains on one prompt within one budget of KV reads, then a vote');
  const asked = specOptions(options)
    .optionsGroup('Store (a job that is kept can be stopped, killed and resumed anywhere):');
  return checkpointOptions(storeOptions(asked))
    .option('--job <name>', 'the name under which the job is kept in --store (default: made from what is asked)')
    .optionsGroup('Output:')
    .option('--show-chains', 'print the text of every chain')
    .option('--json', 'one JSON object on stdout and nothing else')
    .addHelpText('after', EXAMPLES)
    .action(async (prompt: string | undefined, options: RunOptions) => {
      await run(specOf(promptOf(prompt, options), options), options);
    });
}

async function run(spec: JobSpec, options: RunOptions): Promise<void> {
  if (options.store !== undefined || options.job !== undefined) {
    const job = options.job ?? jobName(spec);
    await watchStored(titleOf(spec, options), job, 'new', options, options.length ?? null, (stored) => runStored(spec, stored));
    return;
  }
  const stream = process.stderr;
  using interrupt = onInterrupt(() => stream.write('ruminate: stopping at the next step; again to leave at once\n'));
  const view = viewOf(spec, options);
  let result;
  try {
    result = await generate(spec, { onProgress: (progress) => view.update(progress), signal: interrupt.signal, models: modelFinder() });
  } finally {
    view.close();
  }
  process.stdout.write(options.json ? `${JSON.stringify(result)}\n` : report(result, { paint: paintFor(process.stdout), showChains: options.showChains === true }));
  if (interrupt.signal.aborted) process.exitCode = EXIT.interrupted;
}

/** Progress is for people: with --json only where a person is looking. */
function viewOf(spec: JobSpec, options: RunOptions): View {
  const term = process.env.TERM;
  if (options.json && !canRedraw(process.stderr, term)) return silentView;
  return openView({ stream: process.stderr, title: titleOf(spec, options), length: options.length ?? null, now: () => performance.now(), term });
}

function titleOf(spec: JobSpec, options: RunOptions): string {
  return options.cr === undefined ? spec.model : `${spec.model} at CR ${options.cr}`;
}

/** The same command finds its job again. */
function jobName(spec: JobSpec): string {
  const text = JSON.stringify(spec, (_, value: unknown) => (typeof value === 'bigint' ? value.toString() : value));
  return `run-${createHash('sha256').update(text).digest('hex').slice(0, 16)}`;
}
