/** What a job is asked to be, in options: of `ruminate run`, which runs it, and of `ruminate quote`, which says what it would cost. */
import { closeSync, openSync, readSync } from 'node:fs';
import { type Command, Option } from 'commander';

import { EngineError } from '../engine/core/errors.ts';
import { LIMITS } from '../engine/core/limits.ts';
import { type JobSpec, parseSpec } from '../engine/job/spec.ts';
import { decimal, durationMs, integer, repeated, seed, setting } from './options.ts';

/** As they were written. */
export interface SpecFlags {
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
}

export function specOptions(command: Command): Command {
  return command
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
    .option('--threads <n>', 'threads (default: all of this machine)', integer);
}

/** @throws EngineError ERR_OPTION. */
export function promptOf(prompt: string | undefined, { promptFile }: Pick<SpecFlags, 'promptFile'>): string {
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

/** @throws EngineError ERR_OPTION: which field, and its rule. */
export function specOf(prompt: string, options: SpecFlags): JobSpec {
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
