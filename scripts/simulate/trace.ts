/** Arrivals: a file of them, or made of a seed. What a job comes to is part of the trace, so that every policy meets the same jobs. */
import { type CastBallot, isDecided } from '../../engine/job/vote.ts';
import type { Priority } from '../../engine/ports/queue.ts';
import { type Random, randomOf } from './random.ts';

export interface Arrival {
  readonly atMs: number;
  readonly tenant: string;
  readonly priority: Priority;
  readonly prompt: number;
  /** Tokens that a chain may have: what is planned. */
  readonly length: number;
  readonly width: number;
  /** [width] Tokens that each chain makes until it ends by itself or its length, before the vote cuts it. */
  readonly ends: readonly number[];
  /** The step at which the vote is decided, and the job over. */
  readonly steps: number;
}

export interface Synthetic {
  readonly seed: number;
  readonly hours: number;
  /** Of interactive jobs, in quiet times. */
  readonly jobsAnHour: number;
  /** Bursts: this many in the whole, each of five minutes at ten times the rate. */
  readonly bursts: number;
  readonly tenants: number;
  readonly length: number;
  readonly width: number;
  /** Of all, the part that nobody waits for. */
  readonly batchShare: number;
}

const BURST_MS = 5 * 60_000;
const BURST_FACTOR = 10;
/** Of a chain: how likely its answer is the one that most give. */
const AGREEMENT = 0.6;

/** A Poisson process with bursts; lengths are log-normal below what is planned. */
export function synthetic({ seed, hours, jobsAnHour, bursts, tenants, length, width, batchShare }: Synthetic): readonly Arrival[] {
  const random = randomOf(seed, 'arrivals');
  const endsMs = hours * 3_600_000;
  const burstsAtMs = Array.from({ length: bursts }, () => random.next() * endsMs).sort((a, b) => a - b);
  const arrivals: Arrival[] = [];
  const most = jobsAnHour * BURST_FACTOR;
  // Thinned from the highest rate.
  for (let atMs = random.exponential(3_600_000 / most); atMs < endsMs; atMs += random.exponential(3_600_000 / most)) {
    const inBurst = burstsAtMs.some((fromMs) => atMs >= fromMs && atMs < fromMs + BURST_MS);
    if (!inBurst && random.next() > 1 / BURST_FACTOR) continue;
    const of = randomOf(seed, 'job', arrivals.length);
    arrivals.push(arrival({ atMs, tenant: `tenant-${Math.floor(of.next() ** 2 * tenants)}`, priority: of.next() < batchShare ? 'batch' : 'interactive', prompt: Math.ceil(of.around(60, 0.6)), length, width }, of));
  }
  return arrivals;
}

/**
 * CSV with a header, or a JSON object a line: `at` (seconds from the beginning), `length`; and if wanted `tenant`, `priority`, `prompt`, `width`, `generated` (tokens of
 * its longest chain; drawn if it is not there).
 * @throws Error with the line that is wrong.
 */
export function parseTrace(text: string, seed: number): readonly Arrival[] {
  const lines = text.split(/\r?\n/).map((line, i) => ({ line: line.trim(), number: i + 1 })).filter(({ line }) => line !== '');
  const isJson = lines[0]?.line.startsWith('{') === true;
  const header = isJson ? [] : (lines.shift()?.line.split(',').map((name) => name.trim()) ?? []);
  const rows = lines.map(({ line, number }, i) => {
    const row = isJson ? objectOf(line, number) : Object.fromEntries(line.split(',').map((value, column) => [header[column] ?? '', value.trim()]));
    const count = (name: string, otherwise: number | null, most = 1e7): number => {
      const given = row[name];
      const value = given === undefined || given === '' ? otherwise : Number(given);
      if (value === null || !Number.isFinite(value) || value < 0 || value > most) throw new Error(`line ${number}: ${name} must be a number from 0 to ${most}`);
      return value;
    };
    const said = (name: string, otherwise: string) => (row[name] === undefined || row[name] === '' ? otherwise : String(row[name]));
    const priority = said('priority', 'interactive');
    if (priority !== 'interactive' && priority !== 'batch') throw new Error(`line ${number}: priority must be interactive or batch`);
    const asked = { atMs: count('at', null, 1e9) * 1_000, tenant: said('tenant', 'tenant-0'), priority, prompt: Math.max(1, Math.round(count('prompt', 60))), length: Math.max(1, Math.round(count('length', null))), width: Math.max(1, Math.round(count('width', 1, 1_024))) } as const;
    const generated = row.generated === undefined || row.generated === '' ? null : Math.max(1, Math.min(asked.length, Math.round(count('generated', null))));
    return arrival(asked, randomOf(seed, 'job', i), generated);
  });
  return rows.toSorted((a, b) => a.atMs - b.atMs);
}

function objectOf(line: string, number: number): Record<string, unknown> {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    throw new Error(`line ${number}: it is no JSON object`);
  }
}

/** Each chain ends somewhere and says something; the real vote says when that is enough. */
function arrival(asked: Omit<Arrival, 'ends' | 'steps'>, random: Random, longest: number | null = null): Arrival {
  const { length, width } = asked;
  const ends = Array.from({ length: width }, () => Math.max(1, Math.min(length, Math.round(random.around(length * 0.45, 0.5)))));
  if (longest !== null) {
    const most = Math.max(...ends);
    for (const [i, end] of ends.entries()) ends[i] = Math.max(1, Math.round((end * longest) / most));
  }
  const ballots = ends.map((step, chain): CastBallot => {
    const key = step >= length ? null : random.next() < AGREEMENT ? 'agreed' : `other-${Math.floor(random.next() * 8)}`;
    return { chain, step, answer: key, key, verified: null };
  }).toSorted((a, b) => a.step - b.step || a.chain - b.chain);
  const decided = ballots.findIndex((_, i) => (ballots[i + 1]?.step ?? Infinity) > (ballots[i]?.step ?? 0) && isDecided('majority', ballots.slice(0, i + 1), width - i - 1));
  return { ...asked, ends, steps: ballots[decided]?.step ?? Math.max(...ends) };
}
