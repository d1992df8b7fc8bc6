/** `npm run bench -- …`: which bench, under what conditions, and one JSON object at the end. */
import { endWithReader, exitCodeOf, failureLine, onInterrupt } from '../../cli/exit.ts';
import { FULL_BATCHING, measureBatching, QUICK_BATCHING } from './batching.ts';
import { FULL, measureCheckpoints, QUICK } from './checkpoint.ts';
import { FULL_COLD_START, measureColdStarts, QUICK_COLD_START } from './cold-start.ts';
import { conditionLine, conditions } from './conditions.ts';
import { FULL_DRAIN, measureDrain, QUICK_DRAIN } from './drain.ts';
import { writeFigures } from './figures.ts';
import { FULL_FRONT, measureFront, QUICK_FRONT } from './front.ts';
import { measureLargeModel } from './large-model.ts';
import { FULL_QUOTES, measureQuotes, QUICK_QUOTES } from './quotes.ts';
import { FULL_SLICING, measureSlicing, QUICK_SLICING } from './slicing.ts';
import { type Figures, nativeBench } from './native-bench.ts';
import { FULL_SLICES, QUICK_SLICES, measureSlices } from './slices.ts';

const NATIVE = { decode: 'decode_bench', sampler: 'sampler_bench', objects: 'object_bench', restore: 'restore_bench' } as const;

const USAGE = `\
Usage: npm run bench -- decode|sampler|objects|restore [options of the program]
       npm run bench -- checkpoint|front|batching|drain|slicing|slices|cold-start|quotes [--quick]
       npm run bench -- large [--threads N]
       npm run bench -- figures CHECKPOINT LARGE

  decode      speed of generation on synthetic models        native/bench/decode_bench.cc says the options
  sampler     speed of sampling                               native/bench/sampler_bench.cc
  objects     writing and verifying stored objects            native/bench/object_bench.cc
  restore     saving and restoring caches of a large model    native/bench/restore_bench.cc
  checkpoint  what checkpoints of the bundled model cost, how soon a job goes on, against computing it again
    --quick   a few small cases, to see that it works
  front       requests a second of the HTTP front against a bare one, its answers while the engine is saturated, 1,000 streams
  slices      what the fleet simulator goes by: time of a step, checkpoints, the start of a worker (scripts/simulate/measured.json)
  batching    jobs one at a time against the same jobs in slots, which step together
  drain       5,000 tiny jobs that wait: how fast one worker runs them, and in what memory
  slicing     the same job in slices of 10 s and in one
  cold-start  from a worker's start to the first token, with the model in S3 and nothing on the machine, by phase, against reading the bytes
  quotes      seconds that a quote says, before anything has run and after a job, against those that the job takes
  large       the same of a shape like Qwen3-8B: deltas measured, larger sizes and re-prefill computed
  figures     docs/checkpoint-figures.md and .svg from the output of checkpoint and large, in two files
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
  const problem = problemWith(name, options);
  if (problem !== null) {
    process.stderr.write(`bench: ${problem}\n${USAGE}`);
    return 2;
  }
  endWithReader(process.stdout);
  if (name === 'figures') {
    writeFigures(options);
    return 0;
  }
  using interrupt = onInterrupt(() => process.stderr.write('bench: stopping; again to leave at once\n'));
  const under = conditions();
  if (!json) process.stdout.write(`${conditionLine(under)}\n\n`);
  try {
    const figures = await measure(name, options, json, interrupt.signal);
    process.stdout.write(`${JSON.stringify({ ...figures, conditions: under, load_after: conditions().load })}\n`);
    return 0;
  } catch (error) {
    process.stderr.write(`${failureLine(error)}\n`);
    return exitCodeOf(error);
  }
}

function problemWith(name: string, options: readonly string[]): string | null {
  if (Object.hasOwn(NATIVE, name)) return null;
  if (['checkpoint', 'front', 'batching', 'drain', 'slicing', 'slices', 'cold-start', 'quotes'].includes(name)) return options.every((option) => option === '--quick') ? null : `${name} takes --quick and nothing else`;
  if (name === 'large') return options.length === 0 || (options.length === 2 && options[0] === '--threads' && /^[1-9]\d?$/.test(options[1] ?? '')) ? null : 'large takes --threads N';
  if (name === 'figures') return options.length === 2 ? null : 'figures takes two files';
  return `there is no bench ${JSON.stringify(name)}`;
}

async function measure(name: string, options: readonly string[], json: boolean, signal: AbortSignal): Promise<Figures> {
  const say = (line: string) => void process.stderr.write(`bench: ${line}\n`);
  if (name === 'checkpoint') return { bench: name, ...(await measureCheckpoints(options.includes('--quick') ? QUICK : FULL, say, signal)) };
  if (name === 'front') return { bench: name, ...(await measureFront(options.includes('--quick') ? QUICK_FRONT : FULL_FRONT, say, signal)) };
  if (name === 'batching') return { bench: name, ...(await measureBatching(options.includes('--quick') ? QUICK_BATCHING : FULL_BATCHING, say, signal)) };
  if (name === 'slices') return { ...(await measureSlices(options.includes('--quick') ? QUICK_SLICES : FULL_SLICES, say, signal)) };
  if (name === 'drain') return { bench: name, ...(await measureDrain(options.includes('--quick') ? QUICK_DRAIN : FULL_DRAIN, say, signal)) };
  if (name === 'slicing') return { bench: name, ...(await measureSlicing(options.includes('--quick') ? QUICK_SLICING : FULL_SLICING, say, signal)) };
  if (name === 'cold-start') return { bench: name, ...(await measureColdStarts(options.includes('--quick') ? QUICK_COLD_START : FULL_COLD_START, say, signal)) };
  if (name === 'quotes') return { bench: name, ...(await measureQuotes(options.includes('--quick') ? QUICK_QUOTES : FULL_QUOTES, say, signal)) };
  if (name === 'large') return { bench: name, ...(await measureLargeModel(Number(options[1] ?? 1))) };
  return await nativeBench(NATIVE[name as keyof typeof NATIVE], options, { show: !json });
}
