/** The demo: one job at CR 8, the same budget of KV reads at CR 1, and what many problems say. */
import { parseArgs } from 'node:util';

import { endWithReader, exitCodeOf, failureLine, onInterrupt } from '../../cli/exit.ts';
import { openView } from '../../cli/live.ts';
import { ballotTable } from '../../cli/report.ts';
import { bytes, count, paintFor, plural, safe, table } from '../../cli/text.ts';
import { generate, type JobResult } from '../../engine/job/generate.ts';
import { solveRates } from './rates.ts';
import { cardRate, DEFAULT_PROBLEM, DEFAULT_SEED, DENSE, heldOutProblems, HYPERSCALED, jobOf, KV_READ_BUDGET, MEASURED, type Setting } from './settings.ts';

const USAGE = `\
Usage: npm run demo -- [options]

  --problem N    held-out problem, 0 to ${heldOutProblems().length - 1} (default: ${DEFAULT_PROBLEM})
  --prompt TEXT  your own, such as "3 8 2 7 target 24"
  --seed S       (default: ${DEFAULT_SEED})
  --problems N   also run N held-out problems at both settings and print this machine's own solve rates
  --json         the last line is one JSON object
  --help
`;

/** @returns the exit code: 0 only if the job answered. */
export async function main(args: readonly string[]): Promise<number> {
  let options: DemoOptions;
  try {
    options = parse(args);
  } catch (error) {
    process.stderr.write(`demo: ${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    return 2;
  }
  if (options.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  endWithReader(process.stdout);
  using interrupt = onInterrupt(() => process.stderr.write('demo: stopping at the next step; again to leave at once\n'));
  try {
    return await demo(options, interrupt.signal);
  } catch (error) {
    process.stderr.write(`${failureLine(error)}\n`);
    return exitCodeOf(error);
  }
}

interface DemoOptions {
  readonly help: boolean;
  readonly json: boolean;
  readonly seed: number;
  readonly prompt: string;
  /** What the prompt is, in words. */
  readonly title: string;
  readonly problems: number;
}

function parse(args: readonly string[]): DemoOptions {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      json: { type: 'boolean', default: false },
      seed: { type: 'string', default: String(DEFAULT_SEED) },
      problem: { type: 'string', default: String(DEFAULT_PROBLEM) },
      problems: { type: 'string', default: '0' },
      prompt: { type: 'string' },
    },
  });
  const held = heldOutProblems();
  const problem = held[natural('problem', values.problem, held.length - 1)];
  const numbers = problem?.numbers ?? [];
  const words = `${numbers.slice(0, -1).join(', ')} and ${numbers.at(-1)}`;
  return {
    help: values.help,
    json: values.json,
    seed: natural('seed', values.seed, Number.MAX_SAFE_INTEGER),
    problems: natural('problems', values.problems, held.length),
    prompt: values.prompt ?? problem?.content ?? '',
    title: values.prompt ?? `Make ${problem?.target} of ${words}: ${problem?.id}, which the model was not trained on`,
  };
}

function natural(name: string, text: string, most: number): number {
  if (!/^\d{1,16}$/.test(text) || Number(text) > most) throw new Error(`--${name} must be an integer from 0 to ${most}; got ${text}`);
  return Number(text);
}

async function demo(options: DemoOptions, signal: AbortSignal): Promise<number> {
  const paint = paintFor(process.stdout);
  say(paint.bold(safe(options.title, { line: true })), '');

  const hyperscaled = await watch(HYPERSCALED, options, signal);
  const verdict = solved(hyperscaled) ? paint.green('checked: correct') : paint.yellow('no chain found one that checks');
  say('', `${paint.dim('Answer')}  ${paint.bold(safe(hyperscaled.answer ?? 'none'))}  (${verdict})`, '', ballotTable(hyperscaled.ballots, paint), '');
  if (signal.aborted) return 130;

  const dense = await watch(DENSE, options, signal);
  say('', paint.bold(`What ${count(KV_READ_BUDGET)} KV reads bought in this run`), comparison(dense, hyperscaled, paint), '', claim(paint));
  if (signal.aborted) return 130;

  const rates = options.problems > 0 ? await solveRates([DENSE, HYPERSCALED], options.problems, options.seed, signal) : null;
  if (options.json) {
    const card = { dense: cardRate(DENSE), hyperscaled: cardRate(HYPERSCALED), ...MEASURED };
    const run = { prompt: options.prompt, seed: options.seed, kv_read_budget: KV_READ_BUDGET };
    say(JSON.stringify({ ...run, answer: hyperscaled.answer, solved: solved(hyperscaled), hyperscaled, dense, dense_solved: solved(dense), card, rates }));
  }
  return hyperscaled.answer === null ? 1 : 0;
}

async function watch(setting: Setting, options: DemoOptions, signal: AbortSignal): Promise<JobResult> {
  const chains = `${plural(setting.width, 'chain')} of at most ${plural(setting.length, 'token')}`;
  const view = openView({
    stream: process.stdout,
    title: `countdown at ${setting.name}: ${chains}, ${count(KV_READ_BUDGET)} KV reads`,
    length: setting.length,
    now: () => performance.now(),
    term: process.env.TERM,
  });
  try {
    return await generate(jobOf(setting, options.prompt, options.seed), { onProgress: (progress) => view.update(progress), signal });
  } finally {
    view.close();
  }
}

function solved(result: JobResult): boolean {
  return result.ballots.some((ballot) => ballot.verified === true);
}

function comparison(dense: JobResult, hyperscaled: JobResult, paint: ReturnType<typeof paintFor>): string {
  const row = ({ name, length }: Setting, result: JobResult) => [
    `${name}, ${length} tokens each`,
    String(result.chains.length),
    count(result.usage.completion_tokens),
    count(result.usage.kv_reads),
    count(result.usage.peak_kv_tokens),
    bytes(result.usage.peak_kv_bytes),
    solved(result) ? 'yes' : 'no',
  ];
  const head = ['setting', 'chains', 'tokens thought', 'KV reads', 'peak KV tokens', 'peak KV', 'solved'];
  return table([head, row(DENSE, dense), row(HYPERSCALED, hyperscaled)], paint);
}

/** One run is an anecdote, and this one was chosen: these are the figures over 96 problems. */
function claim(paint: ReturnType<typeof paintFor>): string {
  const [dense, hyperscaled] = [cardRate(DENSE), cardRate(HYPERSCALED)];
  const row = ({ name, length, width }: Setting, scores: string, reads: number, hardLimit: number) => [
    `${name}, ${width} chains of ${length}`, scores, `${(reads / 1000).toFixed(1)}k`, hardLimit.toFixed(3),
  ];
  return [
    paint.bold('One run proves nothing, and the default one was chosen because CR 8 solves it. Of 96 held-out problems were solved:'),
    table(
      [
        ['setting', 'every chain to its end', 'at mean KV reads', 'budget as a hard limit'],
        row(DENSE, `${dense.score.toFixed(3)} and ${MEASURED.second_sample.dense.toFixed(3)} (two samples)`, dense.kv_reads, MEASURED.hard_limit.dense),
        row(HYPERSCALED, hyperscaled.score.toFixed(3), hyperscaled.kv_reads, MEASURED.hard_limit.hyperscaled),
      ],
      paint,
    ),
    paint.dim('From models/countdown/RESULTS.md; the last column is four seeds of this demo: npm run demo -- --problems 96 measures one.'),
  ].join('\n');
}

function say(...lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n`);
}
