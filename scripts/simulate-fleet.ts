#!/usr/bin/env -S npx tsx
/**
 * `npm run simulate`: a fleet of workers under a trace of arrivals, by policy: what it costs, how long jobs take, what is lost and made again. Times of steps,
 * checkpoints, jobs, hand-overs and starts are measured (`npm run bench -- slices`); queue, count of work, budgets and votes are the platform's own code. The same seed
 * gives the same output.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { endWithReader } from '../cli/exit.ts';
import { AS_OF, PRICES } from '../engine/core/prices.ts';
import { conditionLine } from './bench/conditions.ts';
import { type Outcome, type Policy, simulate } from './simulate/fleet.ts';
import { Times } from './simulate/machine.ts';
import { readMeasured } from './simulate/measured.ts';
import { picture } from './simulate/picture.ts';
import { type Arrival, parseTrace, synthetic } from './simulate/trace.ts';

const HERE = path.dirname(fileURLToPath(import.meta.url));

const OPTIONS = {
  trace: { type: 'string', value: 'FILE', help: 'arrivals as CSV (with a header) or JSON lines: at (seconds), length; tenant, priority, prompt, width, generated' },
  seed: { type: 'string', value: 'N', default: '1', help: 'of everything that is drawn' },
  hours: { type: 'string', value: 'N', default: '12', help: 'without a trace: so long' },
  rate: { type: 'string', value: 'N', default: '12', help: 'jobs an hour in quiet times' },
  bursts: { type: 'string', value: 'N', default: '3', help: 'of five minutes each, at ten times the rate' },
  tenants: { type: 'string', value: 'N', default: '5', help: 'who ask' },
  length: { type: 'string', value: 'N', default: '900', help: 'tokens that a chain may have' },
  width: { type: 'string', value: 'N', default: '8', help: 'chains of a job, which vote' },
  'batch-share': { type: 'string', value: 'N', default: '0.2', help: 'of all jobs, the part that nobody waits for' },
  measured: { type: 'string', value: 'FILE', default: path.join(HERE, 'simulate', 'measured.json'), help: 'output of `npm run bench -- slices`' },
  slower: { type: 'string', value: 'N', default: '4000', help: 'how much slower a step is than measured: of a larger model' },
  larger: { type: 'string', value: 'N', default: '72', help: 'how much larger KV is than measured (147,456 B/token of Qwen3-8B to 2,048)' },
  slots: { type: 'string', value: 'N', default: '8', help: 'jobs of one worker, as memory allows' },
  'memory-jobs': { type: 'string', value: 'N', default: '3', help: 'dense jobs of the largest kind for which a worker has memory' },
  machines: { type: 'string', value: 'N', default: '4', help: 'of the policies with a fixed number' },
  'machines-max': { type: 'string', value: 'N', default: '20', help: 'of the others' },
  target: { type: 'string', value: 'SECONDS', default: '600', help: 'of work for each machine: backlog / target machines' },
  idle: { type: 'string', value: 'SECONDS', default: '300', help: 'without work before a machine goes' },
  'cold-start': { type: 'string', value: 'SECONDS', default: '120', help: 'of capacity, image and machine, beside the measured start of the worker' },
  'reclaims-per-hour': { type: 'string', value: 'N', default: '0.2', help: 'of a Spot machine' },
  unannounced: { type: 'string', value: 'N', default: '0.05', help: 'of reclaims, the part without a notice' },
  commit: { type: 'string', value: 'SECONDS', default: '60', help: 'between two checkpoints' },
  slice: { type: 'string', value: 'SECONDS', default: '600', help: 'of a job, before it is parked' },
  'usd-per-hour': { type: 'string', value: 'N', default: `${PRICES.machines.gpu.onDemand}`, help: 'of a machine on demand (g6.xlarge)' },
  'usd-per-hour-spot': { type: 'string', value: 'N', default: `${PRICES.machines.gpu.spot}`, help: 'of one of Spot' },
  svg: { type: 'string', value: 'FILE', help: 'a picture of cost and latency' },
  json: { type: 'boolean', help: 'only the last line' },
  help: { type: 'boolean', help: 'this' },
} as const satisfies Record<string, { readonly type: 'string' | 'boolean'; readonly value?: string; readonly default?: string; readonly help: string }>;

const POLICIES: readonly Omit<Policy, 'machines'>[] = [
  { name: 'on demand, dense', variant: 'dense', checkpoints: false, market: 'onDemand' },
  { name: 'Spot, dense', variant: 'dense', checkpoints: false, market: 'spot' },
  { name: 'Spot, dense, checkpoints', variant: 'dense', checkpoints: true, market: 'spot' },
  { name: 'Spot, CR 8', variant: 'cr8', checkpoints: false, market: 'spot' },
  { name: 'Spot, CR 8, checkpoints', variant: 'cr8', checkpoints: true, market: 'spot' },
];

function usage(): string {
  const rows = Object.entries(OPTIONS).map(([name, option]) => [`  --${name}${'value' in option ? ` ${option.value}` : ''}`, `${option.help}${'default' in option && name !== 'measured' ? ` (default: ${option.default})` : ''}`] as const);
  const width = Math.max(...rows.map(([left]) => left.length)) + 2;
  return `Usage: npm run simulate -- [options]\n\nEach policy twice: with a fixed number of machines, and scaled by seconds of work down to none. The last line is one JSON object.\n\n${rows.map(([left, right]) => left.padEnd(width) + right).join('\n')}\n`;
}

async function main(): Promise<number> {
  let values: Record<string, string | boolean | undefined>;
  try {
    ({ values } = parseArgs({ options: OPTIONS }));
  } catch (error) {
    process.stderr.write(`simulate: ${(error as Error).message}\n${usage()}`);
    return 2;
  }
  if (values.help === true) {
    process.stdout.write(usage());
    return 0;
  }
  const wrong: string[] = [];
  const number = (name: keyof typeof OPTIONS, most: number, least = 0): number => {
    const value = Number(values[name]);
    if (!(value >= least && value <= most)) wrong.push(`--${name} must be a number from ${least} to ${most}; got ${JSON.stringify(values[name])}`);
    return value;
  };
  const seed = number('seed', 2 ** 31);
  const asked = { seed, hours: number('hours', 1e4, 0.01), jobsAnHour: number('rate', 1e5, 0.01), bursts: number('bursts', 1e4), tenants: number('tenants', 1e4, 1), length: number('length', 1e6, 1), width: number('width', 1_024, 1), batchShare: number('batch-share', 1) };
  const scale = { slower: number('slower', 1e6, 1e-3), larger: number('larger', 1e6, 1e-3) };
  const memoryJobs = number('memory-jobs', 1e4, 1);
  const machines = number('machines', 1e3, 1);
  const common = {
    seed, slots: number('slots', 64, 1), coldStartMs: number('cold-start', 1e5) * 1_000, reclaimsPerHour: number('reclaims-per-hour', 60), unannounced: number('unannounced', 1),
    targetSeconds: number('target', 1e6, 1), machinesMax: number('machines-max', 1e3, 1), idleMs: number('idle', 1e6) * 1_000, commitMs: number('commit', 1e5, 1) * 1_000, sliceMs: number('slice', 39_600, 1) * 1_000,
    usdPerHour: { onDemand: number('usd-per-hour', 1e4), spot: number('usd-per-hour-spot', 1e4) },
  };
  let [measured, arrivals]: [ReturnType<typeof readMeasured> | null, readonly Arrival[]] = [null, []];
  try {
    measured = readMeasured(String(values.measured));
    arrivals = typeof values.trace === 'string' ? parseTrace(readFileSync(values.trace, 'utf8'), seed) : wrong.length > 0 ? [] : synthetic(asked);
  } catch (error) {
    wrong.push((error as Error).message);
  }
  if (wrong.length > 0 || measured === null) {
    process.stderr.write(`simulate: ${wrong.join('\nsimulate: ')}\n`);
    return 2;
  }
  const times = { dense: new Times(measured, 'dense', scale), cr8: new Times(measured, 'cr8', scale) };
  const memoryBytes = memoryJobs * Math.max(1, ...arrivals.map((arrival) => times.dense.memoryBytes(arrival)));
  const policies = [null, machines].flatMap((fixed) => POLICIES.map((policy): Policy => ({ ...policy, machines: fixed, name: `${fixed === null ? 'scaled' : `${fixed} machines`}, ${policy.name}` })));
  const outcomes: Outcome[] = [];
  for (const policy of policies) outcomes.push(await simulate(arrivals, policy, { ...common, times: times[policy.variant], memoryBytes }));

  const workload = `${arrivals.length} jobs in ${Math.round(((arrivals.at(-1)?.atMs ?? 0) / 3_600_000) * 10) / 10} h, ${typeof values.trace === 'string' ? path.basename(values.trace) : `made of seed ${seed}`}; steps ${scale.slower} times as long and KV ${scale.larger} times as large as measured`;
  if (values.json !== true) {
    process.stdout.write(`${workload}\nmeasured: ${conditionLine(measured.conditions)}\nprices: us-east-1, ${AS_OF}\n\n${table(outcomes)}\n\n`);
  }
  if (typeof values.svg === 'string') writeFileSync(values.svg, picture(outcomes, { workload, measured: measured.conditions, command: `npm run simulate -- ${process.argv.slice(2).join(' ')}` }));
  process.stdout.write(`${JSON.stringify({ simulated: outcomes, workload, scale, seed, prices_of: AS_OF, measured: measured.conditions })}\n`);
  return 0;
}

function table(outcomes: readonly Outcome[]): string {
  const header = ['policy', 'USD', 'machine h', 'p50 s', 'p95 s', 'p99 s', 'batch p50', 'reclaims', 'made again', 'most', 'left'];
  const rows = outcomes.map((o) => [
    o.policy, o.cost_usd.toFixed(2), o.machine_hours.toFixed(1), o.latency_s.p50.toFixed(0), o.latency_s.p95.toFixed(0), o.latency_s.p99.toFixed(0), o.batch_latency_s.p50.toFixed(0), `${o.reclaims}`,
    `${(100 * o.lost_share).toFixed(1)} %`, `${o.machines_most}`, `${o.unfinished}`,
  ]);
  const widths = header.map((_, column) => Math.max(...[header, ...rows].map((row) => row[column]?.length ?? 0)));
  return [header, ...rows].map((row) => row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join('  ')).join('\n');
}

endWithReader(process.stdout);
process.exitCode = await main();
