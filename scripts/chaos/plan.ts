/** What a chaos run does and when, as a function of its seed: the jobs, and everything that is done to those who run them. */
import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { heldOutProblems } from '../demo/settings.ts';

export interface ChaosSize {
  readonly seed: number;
  readonly jobs: number;
  readonly kills: number;
  /** Over which the kills are spread. */
  readonly minutes: number;
  readonly workers: number;
  /** Which there are. */
  readonly faults: readonly FaultKind[];
}

/**
 * `kill`: SIGKILL to a worker. `drain`: SIGTERM. `stop`: SIGSTOP, and SIGCONT when others may long have taken its jobs. `front`: SIGKILL to the API.
 * `store`, `queue`: killed and started again; the queue has lost every message then. `purge`: every message there is is deleted, in flight or not.
 * `cut`: every connection of one process breaks. `part`: nothing comes through to or from one process for a while.
 */
export const FAULTS = ['kill', 'drain', 'stop', 'front', 'store', 'queue', 'purge', 'cut', 'part'] as const;
export type FaultKind = (typeof FAULTS)[number];

export interface Fault {
  readonly kind: FaultKind;
  readonly atMs: number;
  /** How long it lasts, of those that last. */
  readonly forMs: number;
  /** Whom it meets: from 0 to below 1. */
  readonly whom: number;
  /** A worker that has something to lose is found first, and then given so long to get on with it. */
  readonly leadMs: number;
}

export interface Submission {
  readonly id: string;
  readonly atMs: number;
  /** Of `specs`. */
  readonly spec: number;
  /** A reader follows it from the beginning, and comes back after every interruption with the last event that it has. */
  readonly isFollowed: boolean;
}

export interface Plan extends Omit<ChaosSize, 'faults'> {
  /** Bodies of POST /v1/jobs, all different; several jobs have each. */
  readonly specs: readonly Readonly<Record<string, unknown>>[];
  readonly submissions: readonly Submission[];
  /** In order of time. */
  readonly faults: readonly Fault[];
}

/** For each kill, of the others; at least one of each. */
const SHARES: Readonly<Record<Exclude<FaultKind, 'kill'>, number>> = { drain: 0.1, stop: 0.1, front: 0.06, store: 0.06, queue: 0.03, purge: 0.03, cut: 0.2, part: 0.06 };
/** A worker that writes every 3 s (run.ts) counts as gone after 9: a stop is past that. */
const LASTS_MS: Readonly<Partial<Record<FaultKind, readonly [number, number]>>> = { stop: [12_000, 25_000], store: [500, 4_000], queue: [500, 2_000], part: [2_000, 12_000] };
/** About what a job takes. */
const LEAD_MS_MAX = 2_500;
/** However fast the machine is, one kill meets a slice that has just begun: the first there is. */
const SURE = { atMs: 0, leadMs: 0 };
const JOBS_OF_A_SPEC = 6;
/** Of jobs: `specOf`. */
const KINDS = 7;
/** Without a message nothing runs until the walk: first something is to be killed. */
const FROM: Readonly<Partial<Record<FaultKind, number>>> = { queue: 0.5, purge: 0.5 };

export function planOf(size: ChaosSize): Plan {
  const random = seededRandom(size.seed);
  const spanMs = size.minutes * 60_000;
  const between = (low: number, high: number) => low + Math.floor(random() * (high - low + 1));
  const specs = Array.from({ length: Math.min(size.jobs, Math.max(KINDS, Math.ceil(size.jobs / JOBS_OF_A_SPEC))) }, (_, i) => specOf(i, between));
  const kills = evenly(size.kills, spanMs, random).map((atMs, i) => ({ ...faultOf('kill', atMs, random), ...(i === 0 ? SURE : {}) }));
  const others = (Object.keys(SHARES) as (keyof typeof SHARES)[]).flatMap((kind) =>
    evenly(Math.max(1, Math.round(SHARES[kind] * size.kills)), spanMs, random).map((atMs) => faultOf(kind, later(kind, atMs, spanMs), random)));
  // The last ones come while the last kills do, so that nothing is killed with nothing to do.
  const submissions = evenly(size.jobs, spanMs * 0.9, random).map((atMs, i) => ({
    id: `chaos-${size.seed}-${i}`, atMs: i < size.workers * 2 ? 0 : atMs, spec: i < specs.length ? i : Math.floor(random() * specs.length), isFollowed: random() < 0.25,
  }));
  // Drawn first and left out then: what is asked for changes nothing else of a seed.
  const faults = [...kills, ...others].filter(({ kind }) => size.faults.includes(kind)).sort((a, b) => a.atMs - b.atMs);
  return { ...size, specs, submissions, faults };
}

function later(kind: FaultKind, atMs: number, spanMs: number): number {
  const from = FROM[kind] ?? 0;
  return Math.round(from * spanMs + (1 - from) * atMs);
}

/** So many moments, one in each equal part of the span. */
function evenly(count: number, spanMs: number, random: () => number): readonly number[] {
  return Array.from({ length: count }, (_, i) => Math.round(((i + random()) / count) * spanMs));
}

function faultOf(kind: FaultKind, atMs: number, random: () => number): Fault {
  const [low, high] = LASTS_MS[kind] ?? [0, 0];
  return { kind, atMs, forMs: Math.round(low + random() * (high - low)), whom: random(), leadMs: Math.round(random() * LEAD_MS_MAX) };
}

/** The end token, which most of them never sample: they end at their length, which is long enough to be killed in. */
const NEVER_ENDS = [[2, -100]];

function specOf(i: number, between: (low: number, high: number) => number): Readonly<Record<string, unknown>> {
  const problems = heldOutProblems();
  const base = { prompt: problems[between(0, problems.length - 1)]?.content ?? '', seed: between(0, 2 ** 31) };
  const endless = { ...base, vote: 'none', sampling: { temperature: 1, logit_bias: NEVER_ENDS } };
  switch (i % KINDS) {
    case 0: return { ...endless, model: 'countdown@dense', budget: { width: 3, length: between(400, 700) } };
    case 1: return { ...base, model: 'countdown@cr8', vote: 'majority', early_stop: true, sampling: { temperature: 1 }, budget: { width: 8, length: between(300, 500) } };
    case 2: return { ...endless, model: 'countdown@cr4', budget: { width: between(1, 3), length: between(600, 900) } };
    // Ends `incomplete`, at its budget.
    case 3: return { ...endless, model: 'countdown@cr8', budget: { width: 6, length: 800, kv_read_budget: between(60_000, 150_000) } };
    case 4: return { ...endless, model: 'countdown@cr2', priority: 'batch', logprobs: 2, budget: { width: 3, length: between(400, 600) } };
    case 5: return { ...endless, model: 'countdown@dense', shards: 3, budget: { width: 6, length: between(250, 400) } };
    default: return { ...endless, model: 'countdown@cr8', vote: 'majority', early_stop: false, budget: { width: 6, length: between(250, 400) }, metadata: { of: 'chaos' } };
  }
}
