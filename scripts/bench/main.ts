/** `npm run bench -- …`: which bench, under what conditions, and one JSON object at the end. */
import { endWithReader, exitCodeOf, failureLine, onInterrupt } from '../../cli/exit.ts';
import { FULL, measureCheckpoints, QUICK } from './checkpoint.ts';
import { conditionLine, conditions } from './conditions.ts';
import { type Figures, nativeBench } from './native-bench.ts';

const NATIVE = { decode: 'decode_bench', sampler: 'sampler_bench', objects: 'object_bench', restore: 'restore_bench' } as const;

const USAGE = `\
Usage: npm run bench -- decode|sampler|objects|restore [options of the program]
       npm run bench -- checkpoint [--quick] [--write]

  decode      speed of generation on synthetic models        native/bench/decode_bench.cc says the options
  sampler     speed of sampling                               native/bench/sampler_bench.cc
  objects     writing and verifying stored objects            native/bench/object_bench.cc
  restore     saving and restoring caches of a large model    native/bench/restore_bench.cc
  checkpoint  what checkpoints of the bundled model cost, how soon a job goes on, against computing it again
    --quick   a few small cases, to see that it works
    --write   also docs/checkpoint-figures.md and .svg
  --json      only the JSON object, one line
  --help
`;

/** @returns the exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const json = args.includes('--json');
  const [name = '', ...options] = args.filter((arg) => arg !== '--json');
  if (name === '--help' || name === '-h' || options.includes('--help')) {
    process.stdout.write(USAGE);
    return 0;
  }
  const unknown = name === 'checkpoint' ? options.find((option) => option !== '--quick' && option !== '--write') : undefined;
  if (unknown !== undefined || (name !== 'checkpoint' && !Object.hasOwn(NATIVE, name))) {
    process.stderr.write(`bench: ${unknown === undefined ? `there is no bench ${JSON.stringify(name)}` : `unknown option ${unknown}`}\n${USAGE}`);
    return 2;
  }
  endWithReader(process.stdout);
  using interrupt = onInterrupt(() => process.stderr.write('bench: stopping; again to leave at once\n'));
  const under = conditions();
  if (!json) process.stdout.write(`${conditionLine(under)}\n\n`);
  try {
    const figures = name === 'checkpoint' ? await checkpoint(options, json, interrupt.signal) : await nativeBench(NATIVE[name as keyof typeof NATIVE], options, { show: !json });
    process.stdout.write(`${JSON.stringify({ ...figures, conditions: under, load_after: conditions().load })}\n`);
    return 0;
  } catch (error) {
    process.stderr.write(`${failureLine(error)}\n`);
    return exitCodeOf(error);
  }
}

async function checkpoint(options: readonly string[], json: boolean, signal: AbortSignal): Promise<Figures> {
  const say = (line: string) => void process.stderr.write(`bench: ${line}\n`);
  const figures = await measureCheckpoints(options.includes('--quick') ? QUICK : FULL, say, signal);
  void json;
  return { bench: 'checkpoint', ...figures };
}
