/**
 * A fleet under a trace, event by event in virtual time. What is real code here: the queue with its turns and classes, its delays and its visibility; the count
 * of work and the measuring of rates by which it is scaled; budgets and votes. What stands for machines is their times, as measured, and chance by a seed.
 */
import { createLocalQueue } from '../../engine/adapters/queue-local.ts';
import { modelRates } from '../../engine/control/rates.ts';
import { workOf, workersFor } from '../../engine/control/work.ts';
import { PRICES } from '../../engine/core/prices.ts';
import type { Head } from '../../engine/kv/head.ts';
import { HELD_MS_MAX, type Queue } from '../../engine/ports/queue.ts';
import { Throughput } from '../../engine/worker/throughput.ts';
import { Agenda, VirtualClock } from './clock.ts';
import { type Times, tokensAt } from './machine.ts';
import { randomOf } from './random.ts';
import type { Arrival } from './trace.ts';

export interface Policy {
  readonly name: string;
  readonly variant: 'dense' | 'cr8';
  readonly checkpoints: boolean;
  readonly market: 'spot' | 'onDemand';
  /** A fixed number of machines; null: by seconds of work, down to none. */
  readonly machines: number | null;
}

export interface Setting {
  readonly seed: number;
  readonly times: Times;
  readonly usdPerHour: Readonly<Record<Policy['market'], number>>;
  readonly slots: number;
  readonly memoryBytes: number;
  /** Of capacity, image and machine, beside the worker's own start; billed. */
  readonly coldStartMs: number;
  readonly reclaimsPerHour: number;
  /** Of reclaims, the part that comes without notice. */
  readonly unannounced: number;
  readonly targetSeconds: number;
  readonly machinesMax: number;
  readonly idleMs: number;
  readonly commitMs: number;
  readonly sliceMs: number;
}

export interface Outcome {
  readonly policy: string;
  readonly jobs: number;
  readonly unfinished: number;
  readonly cost_usd: number;
  readonly machine_hours: number;
  readonly storage_usd: number;
  /** Of interactive jobs, from arrival to end, seconds. */
  readonly latency_s: { readonly p50: number; readonly p95: number; readonly p99: number };
  readonly batch_latency_s: { readonly p50: number; readonly p95: number };
  readonly reclaims: number;
  readonly slices: number;
  /** Tokens that were made and had to be made again, and the part of all. */
  readonly lost_tokens: number;
  readonly lost_share: number;
  readonly machines_most: number;
  readonly kv_reads: number;
}

const NOTICE_MS = 120_000;
/** Of SQS: until the message of a dead worker is seen again. */
const VISIBILITY_MS = 120_000;
const FULL_MS = 15_000;
const SCALE_MS = 60_000;
/** Between two looks at how long a step takes. */
const QUANTUM_STEPS = 32;
/** Segments and tails, in packs, a journal, the manifest and the head. */
const PUTS_A_COMMIT = 5;
const PUTS_A_TAKE = 1;
const RETENTION_MONTHS = 7 / 30;
const MODEL = 'simulated';
/** A trace that is not through after so many times its length never will be. */
const PATIENCE = 20;

interface Job {
  readonly index: number;
  readonly arrival: Arrival;
  state: 'queued' | 'parked' | 'running' | 'done';
  step: number;
  committed: number;
  slice: number;
  doneMs: number;
}

interface Run {
  readonly job: Job;
  readonly receipt: string;
  /** Steps from then on: it is restored, or its prompt is fed. */
  readonly fromMs: number;
  readonly sinceMs: number;
  committedMs: number;
  readonly bytes: number;
}

interface Machine {
  readonly id: number;
  readonly bornMs: number;
  readonly throughput: Throughput;
  state: 'starting' | 'up' | 'leaving' | 'gone';
  runs: Run[];
  seenMs: number;
  idleSinceMs: number;
  /** Until then its one JavaScript thread has what jobs cost beside their steps to do: one job after another. */
  keptMs: number;
  /** Of what is planned for it: an older plan is void. */
  version: number;
}

type Event =
  | { readonly kind: 'arrive'; readonly job: Job }
  | { readonly kind: 'ready' | 'notice' | 'gone'; readonly machine: Machine }
  | { readonly kind: 'tick'; readonly machine: Machine; readonly version: number }
  | { readonly kind: 'scale' | 'wake' };

export async function simulate(arrivals: readonly Arrival[], policy: Policy, setting: Setting): Promise<Outcome> {
  return await new Fleet(arrivals, policy, setting).run();
}

class Fleet {
  readonly #clock = new VirtualClock();
  readonly #agenda = new Agenda<Event>();
  readonly #queue: Queue = createLocalQueue({ clock: this.#clock, receivesMax: Infinity });
  readonly #jobs: readonly Job[];
  readonly #policy: Policy;
  readonly #o: Setting;
  readonly #endsMs: number;
  #machines: Machine[] = [];
  #rate: number | null = null;
  #left: number;
  #next = 0;
  readonly #sum = { machineMs: 0, reclaims: 0, slices: 0, lostTokens: 0, madeTokens: 0, puts: 0, gets: 0, keptBytes: 0, requests: 0, most: 0 };

  constructor(arrivals: readonly Arrival[], policy: Policy, setting: Setting) {
    this.#policy = policy;
    this.#o = setting;
    this.#jobs = arrivals.map((arrival, index) => ({ index, arrival, state: 'queued', step: 0, committed: 0, slice: 0, doneMs: -1 }));
    this.#left = this.#jobs.length;
    this.#endsMs = arrivals.at(-1)?.atMs ?? 0;
    for (const job of this.#jobs) this.#agenda.plan(job.arrival.atMs, { kind: 'arrive', job });
    for (let i = 0; i < (policy.machines ?? 0); i++) this.#launch();
    this.#agenda.plan(0, { kind: 'scale' });
  }

  get #nowMs(): number {
    return this.#clock.nowMs();
  }

  async run(): Promise<Outcome> {
    for (let planned = this.#agenda.next(); planned !== null && this.#left > 0 && planned.atMs < PATIENCE * Math.max(this.#endsMs, 3_600_000); planned = this.#agenda.next()) {
      this.#clock.moveTo(planned.atMs);
      await this.#take(planned.what);
      await this.#hand();
    }
    // Whoever keeps machines keeps them for as long as the trace is.
    if (this.#policy.machines !== null) this.#clock.moveTo(this.#endsMs);
    for (const machine of this.#machines) this.#end(machine);
    return this.#outcome();
  }

  async #take(event: Event): Promise<void> {
    switch (event.kind) {
      case 'arrive': return await this.#send(event.job, 0);
      case 'ready': {
        if (event.machine.state === 'starting') event.machine.state = 'up';
        event.machine.idleSinceMs = this.#nowMs;
        return;
      }
      case 'tick': return event.version === event.machine.version ? await this.#advance(event.machine) : undefined;
      case 'notice': return await this.#noticed(event.machine);
      case 'gone': return await this.#lost(event.machine);
      case 'scale': return this.#scale();
      case 'wake': return;
    }
  }

  /** Its message, for its next slice. */
  async #send({ index, arrival: { tenant, priority }, slice }: Job, delayMs: number): Promise<void> {
    await this.#queue.send({ v: 1, tenant, job: `job-${index}`, slice, ...(priority === 'batch' ? { priority } : {}) }, { delayMs });
    this.#sum.requests++;
    if (delayMs > 0) this.#agenda.plan(this.#nowMs + delayMs, { kind: 'wake' });
  }

  /** Whoever has a free slot asks the queue, the idlest first. */
  async #hand(): Promise<void> {
    for (;;) {
      const [machine] = this.#machines.filter(({ state, runs }) => state === 'up' && runs.length < this.#o.slots).sort((a, b) => a.runs.length - b.runs.length || a.id - b.id);
      if (machine === undefined) return;
      const [received] = await this.#queue.receive({ max: 1, waitMs: 0, visibilityMs: HELD_MS_MAX });
      if (received === undefined) return;
      this.#sum.requests += 2;
      const job = this.#jobs[Number(received.message?.job.slice('job-'.length))] as Job;
      const taken = machine.runs.reduce((sum, run) => sum + run.bytes, 0);
      const bytes = this.#o.times.memoryBytes(job.arrival);
      if (job.state === 'done') await this.#queue.remove(received.receipt);
      else if (machine.runs.length > 0 && taken + bytes > this.#o.memoryBytes) {
        // As a worker does that has no room beside what runs.
        await this.#queue.release(received.receipt, FULL_MS);
        this.#agenda.plan(this.#nowMs + FULL_MS, { kind: 'wake' });
      } else await this.#begin(machine, job, received.receipt, bytes);
    }
  }

  async #begin(machine: Machine, job: Job, receipt: string, bytes: number): Promise<void> {
    await this.#advance(machine);
    const { times } = this.#o;
    const resumes = job.committed > 0;
    const delayMs = resumes ? times.resumeMs(times.checkpointBytes(job.arrival, job.committed)) : times.prefillMs(job.arrival);
    this.#sum.gets += resumes ? PUTS_A_COMMIT : 0;
    this.#sum.puts += resumes ? PUTS_A_TAKE : 0;
    machine.keptMs = Math.max(machine.keptMs, this.#nowMs) + times.fixedMs(resumes);
    job.state = 'running';
    job.step = job.committed;
    job.slice++;
    this.#sum.slices++;
    machine.throughput.begin(MODEL);
    machine.runs.push({ job, receipt, bytes, fromMs: machine.keptMs + delayMs, sinceMs: this.#nowMs, committedMs: this.#nowMs });
    this.#plan(machine);
  }

  /** Up to now; then what has come to its end is settled, and the next look planned. */
  async #advance(machine: Machine): Promise<void> {
    const nowMs = this.#nowMs;
    const { checkpoints } = this.#policy;
    const stepping = machine.runs.filter(({ fromMs }) => fromMs < nowMs);
    if (stepping.length > 0) {
      const stepMs = this.#o.times.stepMs(stepping.map(({ job }) => job));
      for (const run of stepping) {
        const { job } = run;
        const before = tokensAt(job.arrival, job.step);
        job.step = Math.min(job.arrival.steps, job.step + (nowMs - Math.max(machine.seenMs, run.fromMs)) / stepMs);
        const tokens = tokensAt(job.arrival, job.step) - before;
        this.#sum.madeTokens += tokens;
        machine.throughput.retire(MODEL, tokens);
        if (checkpoints && nowMs - run.committedMs >= this.#o.commitMs) this.#commit(run);
      }
    }
    machine.seenMs = nowMs;
    for (const run of [...machine.runs]) {
      if (run.job.step >= run.job.arrival.steps - 1e-6) await this.#done(machine, run);
      else if (checkpoints && nowMs - run.fromMs >= this.#o.sliceMs) await this.#park(machine, run);
    }
    this.#plan(machine);
  }

  #commit(run: Run): void {
    run.job.committed = run.job.step;
    run.committedMs = this.#nowMs;
    this.#sum.puts += PUTS_A_COMMIT;
  }

  async #done(machine: Machine, run: Run): Promise<void> {
    const { job } = run;
    const { arrival } = job;
    job.state = 'done';
    job.doneMs = this.#nowMs;
    this.#left--;
    machine.throughput.retire(MODEL, arrival.length * arrival.width - tokensAt(arrival, arrival.steps));
    const { puts, gets } = this.#o.times.callsAJob;
    this.#sum.puts += puts;
    this.#sum.gets += gets;
    if (this.#policy.checkpoints) this.#sum.keptBytes += this.#o.times.checkpointBytes(arrival, arrival.steps);
    this.#leave(machine, run);
    await this.#queue.remove(run.receipt);
  }

  /** Its continuation comes when it is saved. */
  async #park(machine: Machine, run: Run): Promise<void> {
    this.#commit(run);
    run.job.state = 'parked';
    this.#leave(machine, run);
    await this.#send(run.job, this.#o.times.saveMs(this.#o.times.checkpointBytes(run.job.arrival, run.job.step)));
    await this.#queue.remove(run.receipt);
  }

  #leave(machine: Machine, run: Run): void {
    machine.throughput.end(MODEL);
    machine.runs = machine.runs.filter((other) => other !== run);
    this.#rate = machine.throughput.rates().get(MODEL) ?? this.#rate;
    if (machine.runs.length === 0) machine.idleSinceMs = this.#nowMs;
  }

  #plan(machine: Machine): void {
    machine.version++;
    if (machine.runs.length === 0) return;
    const nowMs = this.#nowMs;
    const stepping = machine.runs.filter(({ fromMs }) => fromMs <= nowMs);
    const stepMs = stepping.length === 0 ? Infinity : this.#o.times.stepMs(stepping.map(({ job }) => job));
    const steps = stepping.map(({ job: { arrival, step } }) => Math.min(arrival.steps, ...arrival.ends.filter((end) => end > step)) - step);
    const soonest = Math.min(...machine.runs.filter(({ fromMs }) => fromMs > nowMs).map(({ fromMs }) => fromMs), nowMs + stepMs * Math.min(QUANTUM_STEPS, ...steps));
    this.#agenda.plan(Math.max(soonest, nowMs + 0.001), { kind: 'tick', machine, version: machine.version });
  }

  #launch(): void {
    const id = this.#next++;
    const random = randomOf(this.#o.seed, 'machine', id);
    const machine: Machine = { id, bornMs: this.#nowMs, throughput: new Throughput(this.#clock), state: 'starting', runs: [], seenMs: this.#nowMs, idleSinceMs: this.#nowMs, keptMs: this.#nowMs, version: 0 };
    this.#machines.push(machine);
    this.#sum.most = Math.max(this.#sum.most, this.#machines.length);
    this.#agenda.plan(this.#nowMs + random.around(this.#o.coldStartMs, 0.4) + this.#o.times.startMs, { kind: 'ready', machine });
    if (this.#policy.market !== 'spot' || this.#o.reclaimsPerHour <= 0) return;
    const endsMs = this.#nowMs + random.exponential(3_600_000 / this.#o.reclaimsPerHour);
    if (random.next() >= this.#o.unannounced) this.#agenda.plan(Math.max(this.#nowMs, endsMs - NOTICE_MS), { kind: 'notice', machine });
    this.#agenda.plan(endsMs, { kind: 'gone', machine });
  }

  /** With checkpoints everything is parked, one after another, as far as the notice lasts; without, what runs may yet come to its end. */
  async #noticed(machine: Machine): Promise<void> {
    if (machine.state === 'gone') return;
    await this.#advance(machine);
    machine.state = 'leaving';
    let leftMs = NOTICE_MS;
    if (!this.#policy.checkpoints) return;
    for (const run of [...machine.runs]) {
      leftMs -= this.#o.times.fixedMs(true) + this.#o.times.saveMs(this.#o.times.checkpointBytes(run.job.arrival, run.job.step));
      if (leftMs < 0) break;
      await this.#park(machine, run);
    }
  }

  async #lost(machine: Machine): Promise<void> {
    if (machine.state === 'gone') return;
    await this.#advance(machine);
    this.#sum.reclaims++;
    for (const run of [...machine.runs]) {
      const { job } = run;
      this.#sum.lostTokens += tokensAt(job.arrival, job.step) - tokensAt(job.arrival, job.committed);
      job.step = job.committed;
      job.state = 'parked';
      this.#leave(machine, run);
      await this.#queue.release(run.receipt, VISIBILITY_MS);
      this.#agenda.plan(this.#nowMs + VISIBILITY_MS, { kind: 'wake' });
    }
    this.#end(machine);
    if (this.#policy.machines !== null) this.#launch();
  }

  #end(machine: Machine): void {
    if (machine.state === 'gone') return;
    machine.state = 'gone';
    machine.version++;
    this.#sum.machineMs += this.#nowMs - machine.bornMs;
    this.#machines = this.#machines.filter((other) => other !== machine);
  }

  #scale(): void {
    if (this.#left === 0 || this.#policy.machines !== null) return;
    const { targetSeconds, machinesMax, idleMs } = this.#o;
    const living = this.#jobs.filter(({ arrival, state }) => arrival.atMs <= this.#nowMs && state !== 'done');
    const work = workOf(living.map(({ arrival, state, committed }) => ({
      head: { state } as Head, markedAtMs: arrival.atMs, plan: { model: MODEL, tokens: arrival.length * arrival.width }, made: tokensAt(arrival, committed),
    })), modelRates(this.#rate === null ? new Map() : new Map([[MODEL, { tokensPerSecond: this.#rate, basis: 'jobs' as const }]])), this.#nowMs);
    const desired = workersFor(work, { targetSeconds, workersMax: machinesMax });
    const staying = this.#machines.filter(({ state }) => state !== 'leaving');
    for (let i = staying.length; i < desired; i++) this.#launch();
    const idle = staying.filter(({ state, runs, idleSinceMs }) => state === 'up' && runs.length === 0 && this.#nowMs - idleSinceMs >= idleMs);
    for (const machine of idle.slice(0, Math.max(0, staying.length - desired))) this.#end(machine);
    this.#agenda.plan(this.#nowMs + SCALE_MS, { kind: 'scale' });
  }

  #outcome(): Outcome {
    const { machineMs, lostTokens, madeTokens, puts, gets, keptBytes, requests, reclaims, slices, most } = this.#sum;
    const done = this.#jobs.filter(({ state }) => state === 'done');
    const latencies = (priority: Arrival['priority']) => done.filter(({ arrival }) => arrival.priority === priority).map(({ doneMs, arrival }) => (doneMs - arrival.atMs) / 1_000).sort((a, b) => a - b);
    const [interactive, batch] = [latencies('interactive'), latencies('batch')];
    const hours = machineMs / 3_600_000;
    const storage = puts * PRICES.s3.put + gets * PRICES.s3.get + (keptBytes / 2 ** 30) * PRICES.s3.gibMonth * RETENTION_MONTHS + requests * PRICES.sqs.request;
    return {
      policy: this.#policy.name,
      jobs: this.#jobs.length,
      unfinished: this.#jobs.length - done.length,
      cost_usd: round(hours * this.#o.usdPerHour[this.#policy.market] + storage, 4),
      machine_hours: round(hours, 2),
      storage_usd: round(storage, 4),
      latency_s: { p50: percentile(interactive, 0.5), p95: percentile(interactive, 0.95), p99: percentile(interactive, 0.99) },
      batch_latency_s: { p50: percentile(batch, 0.5), p95: percentile(batch, 0.95) },
      reclaims,
      slices,
      lost_tokens: Math.round(lostTokens),
      lost_share: round(madeTokens === 0 ? 0 : lostTokens / madeTokens, 4),
      machines_most: most,
      kv_reads: Math.round(done.reduce((sum, { arrival }) => sum + this.#o.times.reads(arrival), 0)),
    };
  }
}

/** The least value that so large a part does not exceed. */
function percentile(sorted: readonly number[], part: number): number {
  return round(sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)] ?? 0, 1);
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
