/** `ruminate model …`: what a model is, whether it is whole, which ones there are. */
import { availableParallelism } from 'node:os';
import { type Command, Option } from 'commander';

import { policyOverrides } from '../engine/job/spec.ts';
import { listModels, resolve } from '../engine/model/registry.ts';
import type { KvType } from '../engine/runtime/native.ts';
import { checkModel, type Check } from './check.ts';
import { EXIT, onInterrupt } from './exit.ts';
import { inspect, inspectionText } from './inspect.ts';
import { command, integer, setting } from './options.ts';
import { canRedraw, paintFor, ratio, table } from './text.ts';

export function modelCommand(): Command {
  return command('model')
    .description('inspect, check and list models')
    .addCommand(inspectCommand())
    .addCommand(checkCommand())
    .addCommand(lsCommand());
}

function inspectCommand(): Command {
  return command('inspect')
    .description('what a model is: flavour and why, shapes, what its KV costs, what fits this machine (reads no weights)')
    .argument('<model>', 'name, name@variant, a Hugging Face directory or a GGUF file')
    .option('--length <tokens...>', 'lengths to price (default: an eighth to all of the context)', (text: string, before: number[] | undefined) => [...(before ?? []), integer(text)])
    .addOption(new Option('--kv <type>', 'type of the cache (default: f32 for f32 weights, else bf16)').choices(['f32', 'bf16']))
    .option('--policy <name>', 'in place of what the directory says: dense, dms, kvzap or a baseline of docs/baselines.md')
    .option('--set <key=value>', 'a parameter of the policy (repeatable); of kvzap: surrogate, threshold, window, decode', setting, {})
    .option('--json', 'one JSON object')
    .addHelpText('after', '\nExamples:\n  $ ruminate model inspect countdown@cr8\n  $ ruminate model inspect ./Qwen3-8B-DMS --length 8192 32768 --json')
    .action(async (model: string, options: { length?: number[]; kv?: KvType; policy?: string; set: Readonly<Record<string, string>>; json?: boolean }) => {
      const overrides = policyOverrides({ policy: options.policy, policy_options: options.set });
      const found = await inspect(model, { lengths: options.length ?? [], kv: options.kv ?? null, overrides });
      process.stdout.write(options.json ? `${JSON.stringify(found)}\n` : inspectionText(found, paintFor(process.stdout)));
    });
}

function checkCommand(): Command {
  return command('check')
    .description('load everything, then compare the fast backend with the reference, byte for byte')
    .argument('<model>', 'name, name@variant, a Hugging Face directory or a GGUF file')
    .option('--tokens <n>', 'length of the compared pass (default: enough to see evictions; 24 for large models)', integer)
    .option('--threads <n>', 'threads (default: all of this machine)', integer)
    .option('--json', 'one JSON object')
    .addHelpText('after', '\nExit status: 0 if all checks pass, else 1.\n\nExamples:\n  $ ruminate model check countdown@cr8\n  $ ruminate model check ./Qwen3-8B-DMS --tokens 8')
    .action(async (model: string, options: { tokens?: number; threads?: number; json?: boolean }) => {
      using interrupt = onInterrupt(() => {});
      const report = await checkModel(model, {
        threads: options.threads ?? availableParallelism(),
        tokens: options.tokens ?? null,
        signal: interrupt.signal,
        ...(options.json ? { onStart: () => {}, onEnd: () => {} } : narrate()),
      });
      if (options.json) process.stdout.write(`${JSON.stringify(report)}\n`);
      if (!report.passed) process.exitCode = EXIT.failed;
    });
}

/** A line for each check: while it runs on a terminal, and when it is over. */
function narrate(): { onStart: (name: string) => void; onEnd: (check: Check) => void } {
  const paint = paintFor(process.stdout);
  const redraw = canRedraw(process.stdout, process.env.TERM);
  return {
    onStart: (name) => {
      if (redraw) process.stdout.write(`${paint.dim('....')}  ${name}`);
    },
    onEnd: ({ name, passed, detail }) => {
      const verdict = passed ? paint.green('PASS') : paint.red('FAIL');
      process.stdout.write(`${redraw ? '\r\u001b[K' : ''}${verdict}  ${name}: ${detail}\n`);
    },
  };
}

function lsCommand(): Command {
  return command('ls')
    .description('models that run by name: those bundled and those in RUMINATE_MODELS')
    .option('--json', 'one JSON array')
    .addHelpText('after', '\nExample:\n  $ ruminate model ls')
    .action((options: { json?: boolean }) => {
      const models = listModels().map((name) => {
        const { directory, variant, card, variantCard } = resolve(name);
        const { compression_ratio, policy } = variantCard ?? { compression_ratio: null, policy: null };
        return { name, variant, compression_ratio, policy: policy?.name ?? null, description: card?.description ?? null, directory };
      });
      if (options.json) {
        process.stdout.write(`${JSON.stringify(models)}\n`);
        return;
      }
      const rows = models.map((m) => [m.name, m.compression_ratio === null ? '-' : ratio(m.compression_ratio), m.policy ?? '-', m.directory]);
      process.stdout.write(rows.length === 0 ? 'none; set RUMINATE_MODELS to folders of models\n' : `${table([['model', 'CR', 'policy', 'directory'], ...rows], paintFor(process.stdout))}\n`);
    });
}
