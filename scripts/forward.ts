/**
 * A teacher-forced pass for checks from outside, with a stable interface:
 *   npx tsx scripts/forward.ts --model DIR --ids 5,17,... [--policy dense|dms|auto|kvzap|BASELINE] [--set key=value]... [--prompt-len N] [--chunk N]
 *     [--backend reference|cpu] [--kv f32|bf16] --out F.safetensors
 * Writes logits F32 [T, vocab], live_count I32 [layers, kv heads, T] and, under DMS, evict_decision U8 [layers, kv heads, T]
 * (entry t is the decision token t takes about token t - 1). Under KVzap (--policy kvzap --set surrogate=DIR --set threshold=X
 * [--set window=128] [--set decode=false]) scores F32 [layers, kv heads, T] and evict_decision (entry t is about token t itself: its
 * score is below the threshold). Under KVzap and a baseline (tova, tova_kvhead, h2o, quest, streaming_llm, kvpress_*;
 * docs/baselines.md) kept U8 [layers, kv heads, T], what is held at the end, and for kvpress scores F32 [layers, kv heads, prompt].
 * Prints one line of JSON.
 */
import { Command, CommanderError, Option } from 'commander';

import { setting, usageExit } from '../cli/options.ts';
import { EngineError } from '../engine/core/errors.ts';
import { resolve } from '../engine/model/registry.ts';
import { openEngine, type BackendName, type ForwardResult, type KvType } from '../engine/runtime/native.ts';
import { writeSafetensors, type Tensor } from './lib/safetensors.ts';

interface Options {
  readonly model: string;
  readonly ids: Int32Array;
  readonly policy?: string;
  readonly set: Readonly<Record<string, string>>;
  readonly promptLen?: number;
  readonly chunk: number;
  readonly backend: BackendName;
  readonly kv?: KvType;
  readonly out: string;
}

const command = new Command('forward')
  .exitOverride()
  .configureOutput({ outputError: () => undefined })
  .description('Runs a model over given token ids and writes its logits and cache decisions.')
  .requiredOption('--model <dir>', 'a Hugging Face directory or the name of a bundled model')
  .requiredOption('--ids <ids>', 'token ids, separated by commas', parseIds)
  .option('--policy <name>', 'dense, dms, auto, kvzap or a baseline of docs/baselines.md (default: what the directory says)')
  .option('--set <key=value>', 'a policy parameter, may be repeated: window, alpha_scale, alpha_offset, alpha_per, disable_eviction, also as dms_*; of kvzap: surrogate, threshold, window, decode; of a baseline: docs/baselines.md', setting, {})
  .option('--prompt-len <n>', 'ids fed in chunks, the rest one by one (default: all)', (text: string) => parseCount('--prompt-len', text, 0))
  .option('--chunk <n>', 'ids per chunk', (text: string) => parseCount('--chunk', text, 1), 128)
  .addOption(new Option('--backend <name>', 'what computes').choices(['reference', 'cpu']).default('cpu'))
  .addOption(new Option('--kv <type>', 'type of the cache (default: f32 for F32 weights, else bf16)').choices(['f32', 'bf16']))
  .requiredOption('--out <file>', 'the safetensors file to write')
  .action(run);

async function run(options: Options): Promise<void> {
  using engine = await openEngine({
    directory: resolve(options.model).directory,
    overrides: [...(options.policy === undefined ? [] : [['policy', options.policy] as const]), ...Object.entries(options.set)],
    backend: options.backend,
    kv: options.kv ?? null,
    pageSlots: 64,
    threads: 1,
    isa: null,
  });
  const count = options.ids.length;
  const result = await engine.forward({ ids: options.ids, promptLen: options.promptLen ?? count, chunk: options.chunk });
  const { layers, kvHeads, vocabSize, policy } = engine.info;
  const tensors: Record<string, Tensor> = {
    logits: { shape: [count, vocabSize], data: result.logits },
    live_count: { shape: [layers, kvHeads, count], data: result.liveCount },
  };
  if (result.evictDecision !== null) tensors['evict_decision'] = { shape: [layers, kvHeads, count], data: result.evictDecision };
  if (policy.name !== 'dense' && !policy.name.startsWith('dms_')) {
    tensors['kept'] = { shape: [layers, kvHeads, count], data: keptMask(result, count) };
  }
  if (result.scores !== null) {
    tensors['scores'] = { shape: [layers, kvHeads, result.scores.length / (layers * kvHeads)], data: result.scores };
  }
  writeSafetensors(options.out, tensors);
  const line = {
    kv_reads_decode: result.kvReadsDecode,
    kv_reads_all: result.kvReadsAll,
    peak_tokens: result.peakTokens,
    policy: policy.name,
    backend: options.backend,
    isa: engine.isa,
  };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** [layers, kv heads, T] */
function keptMask({ heads }: ForwardResult, count: number): Uint8Array {
  const mask = new Uint8Array(heads.flat().length * count);
  heads.flat().forEach(({ positions }, head) => positions.forEach((position) => (mask[head * count + position] = 1)));
  return mask;
}

function parseIds(text: string): Int32Array {
  const ids = text.split(',').map((id) => Number(id.trim() === '' ? NaN : id));
  const wrong = ids.findIndex((id) => !Number.isInteger(id) || id < 0 || id >= 2 ** 31);
  if (wrong >= 0) throw new EngineError('ERR_OPTION', `--ids must be token ids separated by commas; number ${wrong + 1} is not one.`);
  return Int32Array.from(ids);
}

function parseCount(name: string, text: string, min: number): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
  if (!(value >= min)) throw new EngineError('ERR_OPTION', `${name} must be an integer of at least ${min}; got "${text}".`);
  return value;
}

try {
  await command.parseAsync();
} catch (error) {
  if (error instanceof CommanderError && usageExit(error.code) === 0) process.exit(0);
  const usage = error instanceof CommanderError;
  const code = error instanceof EngineError ? error.code : usage ? 'ERR_OPTION' : 'ERR_INTERNAL';
  process.stderr.write(`forward: ${code}: ${(error as Error).message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ')}\n`);
  process.exitCode = usage ? usageExit(error.code) : 1;
}
