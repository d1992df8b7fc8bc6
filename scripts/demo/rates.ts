/** Solve rates over many held-out problems, measured here and now. */
import { bar, canRedraw, count, paintFor, table } from '../../cli/text.ts';
import { openSession } from '../../engine/job/session.ts';
import { heldOutProblems, jobOf, type Setting } from './settings.ts';

export interface Rate {
  readonly setting: Setting;
  readonly problems: number;
  readonly solved: number;
  readonly rate: number;
  readonly standard_error: number;
  /** Means over the problems. Less than the budget: a job stops when it is solved. */
  readonly kv_reads: number;
  readonly completion_tokens: number;
  readonly peak_kv_tokens: number;
}

/** Runs the first `problems` held-out problems at each setting, showing how far it is, and prints a table. */
export async function solveRates(settings: readonly Setting[], problems: number, seed: number, signal: AbortSignal): Promise<readonly Rate[]> {
  const paint = paintFor(process.stdout);
  const rates: Rate[] = [];
  process.stdout.write(`\n${paint.bold(`This run's own rates, ${problems} problems, seed ${seed}`)}\n`);
  for (const setting of settings) rates.push(await solveRate(setting, problems, seed, signal));
  const rows = rates.map((r) => [
    `${r.setting.name}, ${r.setting.width} x ${r.setting.length} tokens`,
    `${r.solved}/${r.problems}`,
    `${r.rate.toFixed(3)} (${r.standard_error.toFixed(3)})`,
    count(r.kv_reads),
    count(r.completion_tokens),
    count(r.peak_kv_tokens),
  ]);
  const head = ['setting', 'solved', 'rate (std error)', 'mean KV reads', 'mean tokens', 'mean peak KV'];
  process.stdout.write(`${table([head, ...rows], paint)}\n`);
  return rates;
}

async function solveRate(setting: Setting, problems: number, seed: number, signal: AbortSignal): Promise<Rate> {
  const meter = progressMeter(setting.name, problems);
  let solved = 0;
  const sums = { kv_reads: 0, completion_tokens: 0, peak_kv_tokens: 0 };
  let done = 0;
  using session = openSession();
  for (const problem of heldOutProblems().slice(0, problems)) {
    if (signal.aborted) break;
    const result = await session.generate(jobOf(setting, problem.content, seed), { signal });
    if (result.ballots.some((ballot) => ballot.verified === true)) solved += 1;
    sums.kv_reads += result.usage.kv_reads;
    sums.completion_tokens += result.usage.completion_tokens;
    sums.peak_kv_tokens += result.usage.peak_kv_tokens;
    done += 1;
    meter(done, solved);
  }
  const n = Math.max(1, done);
  const rate = solved / n;
  return {
    setting,
    problems: done,
    solved,
    rate,
    standard_error: Math.sqrt((rate * (1 - rate)) / n),
    kv_reads: sums.kv_reads / n,
    completion_tokens: sums.completion_tokens / n,
    peak_kv_tokens: sums.peak_kv_tokens / n,
  };
}

/** A bar on a terminal, a line for every quarter elsewhere. */
function progressMeter(name: string, problems: number): (done: number, solved: number) => void {
  const redraw = canRedraw(process.stdout, process.env.TERM);
  return (done, solved) => {
    const line = `${name} ${bar(done / problems, 20)} ${done}/${problems}, ${solved} solved`;
    if (redraw) process.stdout.write(`\r\u001b[K${line}${done === problems ? '\n' : ''}`);
    else if (Math.floor((4 * done) / problems) > Math.floor((4 * (done - 1)) / problems)) process.stdout.write(`${name}: ${done}/${problems} problems, ${solved} solved\n`);
  };
}
