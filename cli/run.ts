/** `ruminate run`: one job in this process, watched on stderr, its result on stdout. */
import { closeSync, openSync, readSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { type Command, Option } from 'commander';

import { EngineError } from '../engine/core/errors.ts';
import { LIMITS } from '../engine/core/limits.ts';
import { generate } from '../engine/job/generate.ts';
import { type JobSpec, parseSpec } from '../engine/job/spec.ts';
import { runStored } from '../engine/job/stored.ts';
import { EXIT, onInterrupt } from './exit.ts';
import { modelFinder } from './finder.ts';
import { openView, silentView, type View } from './live.ts';
import { command, decimal, durationMs, integer, repeated, seed, setting } from './options.ts';
import { report } from './report.ts';
import { type WatchFlags, checkpointOptions, storeOptions, watchStored } from './stored.ts';
import { canRedraw, paintFor } from './text.ts';

interface RunOptions extends WatchFlags {
  readonly model: string;
  readonly promptFile?: string;
  readonly length?: number;
  readonly width?: number;
  readonly shards?: number;
  readonly cr?: number;
  readonly policy?: string;
  readonly set: Readonly<Record<string, string>>;
  readonly keptFraction?: number;
  readonly kvReadBudget?: number;
  readonly deadline?: number;
  readonly seed?: bigint;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  readonly stop?: readonly string[];
  readonly schema?: string;
  readonly vote?: string;
  readonly earlyStop: boolean;
  readonly backend?: string;
  readonly kv?: string;
  readonly threads?: number;
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
    .description('run one job: W chains on one prompt within one budget of KV reads, then a vote')
    .argument('[prompt]', 'the question (or --prompt-file)')
    .option('--prompt-file <file>', 'read the question from a file, or from standard input with -')
    .option('--model <name|path>', 'name, name@variant, a Hugging Face directory or GGUF file, s3://bucket/name, file:/… or hf:owner/name', 'countdown')
    .option('--cr <ratio>', 'compression ratio: chooses the variant of the model (default: the best on its card)', decimal)
    .optionsGroup('Cache (default: as the model was trained):')
    .option('--policy <name>', 'dense, dms, kvzap or a baseline of docs/baselines.md')
    .option('--set <key=value>', 'a parameter of the policy (repeatable); of kvzap: surrogate, threshold, window, decode', setting, {})
    .option('--kept-fraction <k>', 'of the tokens past the window, the part the quote expects to stay', decimal)
    .optionsGroup('Budget:')
    .option('--length <tokens>', 'most tokens of a chain (default: what the context leaves, at most 32768)', integer)
    .option('--width <chains>', 'chains (default: 4)', integer)
    .option('--kv-read-budget <reads>', 'KV reads of all chains together; a step that would exceed it is not run (default: no limit)', integer)
    .option('--shards <n>', 'divide the chains among n workers, with an equal part of the KV reads for each chain (default: one has them all)', integer)
    .option('--deadline <time>', 'stop after this time, such as 30s or 2m, with what there is (default: none)', durationMs)
    .optionsGroup('Sampling (defaults: those of the model):')
    .option('--seed <n>', '64-bit seed (default: 0)', seed)
    .option('--temperature <t>', '0 is greedy', decimal)
    .option('--top-k <k>', 'the k most likely tokens; 0 is off', integer)
    .option('--top-p <p>', 'the most likely tokens up to this probability', decimal)
    .option('--min-p <p>', 'tokens at least this likely, relative to the likeliest', decimal)
    .option('--repetition-penalty <x>', 'divides the logits of tokens seen; 1 is off', decimal)
    .option('--presence-penalty <x>', 'subtracted once from the logits of generated tokens; 0 is off', decimal)
    .option('--frequency-penalty <x>', 'subtracted as often as they were generated; 0 is off', decimal)
    .option('--stop <text>', 'end a chain before this text (repeatable)', repeated)
    .option('--schema <file>', 'every chain answers with JSON that this JSON Schema allows (docs/HTTP.md, Formats)')
    .optionsGroup('Answer:')
    .addOption(new Option('--vote <rule>', 'how the chains elect the answer (default: that of the model)').choices(['majority', 'first', 'verifier', 'none']))
    .option('--no-early-stop', 'run every chain to its end even when the vote is decided')
    .optionsGroup('Machine:')
    .addOption(new Option('--backend <name>', 'reference is slow and gives the same bits (default: cpu)').choices(['cpu', 'reference']))
    .addOption(new Option('--kv <type>', 'type of the cache (default: f32 for f32 weights, else bf16)').choices(['f32', 'bf16']))
    .option('--threads <n>', 'threads (default: all of this machine)', integer)
    .optionsGroup('Store (a job that is kept can be stopped, killed and resumed anywhere):');
  return checkpointOptions(storeOptions(options))
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

function promptOf(prompt: string | undefined, { promptFile }: RunOptions): string {
  if ((prompt === undefined) === (promptFile === undefined)) {
    throw new EngineError('ERR_OPTION', 'Give the prompt either as an argument or with --prompt-file.');
  }
  if (promptFile === undefined) return prompt ?? '';
  try {
    // Editors and echo end a file with a newline that nobody means as part of the question.
    return readStart(promptFile).replace(/\r?\n$/, '');
  } catch (cause) {
    throw new EngineError('ERR_OPTION', `--prompt-file ${promptFile} cannot be read.`, { cause });
  }
}

/** So much of a file, which may have no end, that a prompt which is too long is still too long without its last newline. */
function readStart(promptFile: string): string {
  const bytes = Buffer.alloc(LIMITS.PROMPT_BYTES_MAX + 1 + '\r\n'.length);
  const file = promptFile === '-' ? 0 : openSync(promptFile, 'r');
  try {
    let size = 0;
    for (let got = -1; got !== 0 && size < bytes.length; size += got) got = readSync(file, bytes, size, bytes.length - size, null);
    return bytes.toString('utf8', 0, size);
  } finally {
    if (file !== 0) closeSync(file);
  }
}

function schemaOf(file: string): unknown {
  try {
    return JSON.parse(readStart(file));
  } catch (cause) {
    throw new EngineError('ERR_OPTION', `--schema ${file} cannot be read as JSON.`, { cause });
  }
}

function specOf(prompt: string, options: RunOptions): JobSpec {
  return parseSpec(
    given({
      model: options.model,
      prompt,
      seed: options.seed,
      sampling: given({
        temperature: options.temperature,
        top_k: options.topK,
        top_p: options.topP,
        min_p: options.minP,
        repetition_penalty: options.repetitionPenalty,
        presence_penalty: options.presencePenalty,
        frequency_penalty: options.frequencyPenalty,
      }),
      budget: given({
        length: options.length,
        width: options.width,
        compression_ratio: options.cr,
        kv_read_budget: options.kvReadBudget,
        deadline_ms: options.deadline,
      }),
      shards: options.shards,
      stop: options.stop,
      format: options.schema === undefined ? undefined : { kind: 'json_schema', schema: schemaOf(options.schema) },
      vote: options.vote,
      early_stop: options.earlyStop ? undefined : false,
      backend: options.backend,
      kv: options.kv,
      threads: options.threads,
      policy: options.policy,
      policy_options: options.set,
      kept_fraction: options.keptFraction,
    }),
  );
}

/** Leaves out what the user did not say, so that the model's defaults stand. */
function given(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}
