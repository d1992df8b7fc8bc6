/** A sharded job by chance: clients that make it, workers that run and join its shards, walks, and perhaps who cancels or erases it, on a store that fails. */
import { seededFaults, seededRandom } from '../../engine/adapters/memory-faults.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { pause } from '../../engine/core/waiting.ts';
import { Endings } from '../../engine/job/endings.ts';
import { settle } from '../../engine/job/shard-vote.ts';
import { type KnownChain, type VoteRule, decidedStep } from '../../engine/job/vote.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import { createJob, readJob } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { isTerminal } from '../../engine/kv/head.ts';
import { liveHints, liveKey } from '../../engine/kv/hints.ts';
import { joinShard } from '../../engine/kv/join.ts';
import type { Lease } from '../../engine/kv/lease.ts';
import type { Manifest, ManifestContent } from '../../engine/kv/manifest.ts';
import { type JobKey, jobPrefix, shardKey, shardOf } from '../../engine/kv/names.ts';
import { readHead } from '../../engine/kv/read.ts';
import { reconcile, type Sightings } from '../../engine/kv/reconcile.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { shardVerdict } from '../../engine/worker/shards.ts';
import { content, options, SPEC, WHERE } from '../kv/support.ts';
import { protocolIn } from './engine-play.ts';
import { isExpected, type Setting } from './play.ts';
import { headView, type View } from './watch.ts';
import { World } from './world.ts';

const SHARDS = 3;
const PARTS: readonly JobKey[] = Array.from({ length: SHARDS }, (_, i) => shardKey(WHERE, i));

/** One chain a shard, of which nothing is left to chance: whoever runs it, it finishes at this step with this answer. */
interface Chain {
  readonly step: number;
  readonly key: string | null;
}

interface Divided {
  readonly world: World;
  readonly rule: VoteRule;
  readonly chains: readonly Chain[];
  /** Some shard is a poison pill. */
  readonly pill: number | null;
}

/** What a head names: a shard's spec is its parent's, and its steps are none of the simulation's. */
function partView(where: JobKey): View {
  const view = headView(jobPrefix(where));
  return (objects) => {
    const committed = view(objects);
    if (committed === null) return null;
    const names = committed.names.map((name) => (shardOf(where) !== null && name.includes('/spec-') ? name.replace(jobPrefix(where), jobPrefix(WHERE)) : name));
    // Its prompt may be gone already.
    const left = shardOf(where) === null ? names : names.filter((name) => !name.includes('/spec-'));
    return { ...committed, names: left, steps: [], billed: 0, manifested: 0 };
  };
}

export async function playShards(seed: number): Promise<World> {
  const random = seededRandom(seed);
  const world = new World(partView(WHERE), seededFaults(seed ^ 0x5a4d, random() < 0.3 ? {} : { fail: 0.02, lostAck: 0.06, late: 0.05, refuse: 0.05 }));
  for (const part of PARTS) world.also(partView(part));
  const chains = PARTS.map((): Chain => ({ step: 1 + Math.floor(random() * 8), key: random() < 0.2 ? null : sha256(random() < 0.5 ? 'a' : 'b').slice(0, 32) }));
  const rule: VoteRule = (['majority', 'first', 'none'] as const)[Math.floor(random() * 3)] ?? 'none';
  const [cancels, erases, poisons] = [random() < 0.2, random() < 0.15, random() < 0.15];
  const job: Divided = { world, rule, chains, pill: poisons ? Math.floor(random() * SHARDS) : null };
  const start = (actor: string, act: (its: Setting) => Promise<void>) =>
    world.start(actor, (store) => act({ store, actor, clock: world.clock, random: seededRandom(Math.floor(random() * 2 ** 32)) }));

  for (let i = 0; i < 2; i++) start(`client ${i}`, submit);
  for (let i = 0; i < 3; i++) start(`worker ${i}`, (its) => work(its, job));
  for (let i = 0; i < 2; i++) start(`walk ${i}`, (its) => walkOften(its, world));
  if (cancels) start('canceller', (its) => once(its, async () => {
    await endJob(its.store, WHERE, 'cancelled', protocolIn(its));
    await endingsOf(its).jobEnded(WHERE);
  }));
  if (erases) start('eraser', (its) => once(its, async () => void (await eraseJob(its.store, WHERE, protocolIn(its)))));
  await world.play({ random, stall: 0.05, crash: 0.02, mortal: () => true });
  if (world.violations.length === 0) await theEnd(job, { isPlain: !cancels && !erases && !poisons, erases });
  return world;
}

function endingsOf(its: Setting): Endings {
  const { clock, random } = protocolIn(its);
  return new Endings(its.store, { jobEnded: async (where, call) => await its.store.delete(liveHints(where), call ?? {}) }, { clock, random });
}

async function submit(its: Setting): Promise<void> {
  for (let tries = 0; tries < 3; tries++) {
    await pause(its.clock, its.random() * 300, undefined);
    try {
      await createJob(its.store, WHERE, SPEC, { ...protocolIn(its), idempotencyKey: 'k', shards: SHARDS });
      return;
    } catch (error) {
      if (!isExpected(error)) throw error;
    }
  }
}

async function once(its: Setting, act: () => Promise<void>): Promise<void> {
  await pause(its.clock, its.random() * 2_000, undefined);
  await act().catch(unlessExpected);
}

/** As messages come: of any shard, in any order, again and again. */
async function work(its: Setting, job: Divided): Promise<void> {
  for (let i = 0; i < 8; i++) {
    await pause(its.clock, its.random() * 400, undefined);
    await runShard(its, job, Math.floor(its.random() * SHARDS)).catch(unlessExpected);
  }
}

async function runShard(its: Setting, job: Divided, index: number): Promise<void> {
  const where = PARTS[index] as JobKey;
  const head = (await readHead(its.store, where))?.head ?? null;
  if (head === null) return;
  if (isTerminal(head.state)) return await endingsOf(its).jobEnded(where);
  if ((await verdictOn(its, where)) === null) return;
  if (job.pill === index) {
    await endJob(its.store, where, 'poisoned', protocolIn(its));
    return await endingsOf(its).jobEnded(where);
  }
  const lease = await takeJob(its.store, where, { ...protocolIn(its), owner: its.actor, force: true });
  for (let tokens = lease.manifest?.chains[0]?.tokens ?? 0; ;) {
    const stop = await stopAt(its, job, index, tokens);
    const { step } = job.chains[index] as Chain;
    const ends = tokens >= step ? 'stop' : stop !== null && tokens >= stop ? 'ended' : null;
    await commit(lease, job, index, tokens, ends);
    if (ends !== null) break;
    if (its.random() < 0.5) await joinShard(its.store, where, { ...protocolIn(its), settle });
    tokens = Math.min(step, tokens + 1 + Math.floor(its.random() * 3));
  }
  await endingsOf(its).jobEnded(where);
}

/** What the others have said, and where this one is. */
async function stopAt({ store }: Setting, { rule }: Divided, index: number, tokens: number): Promise<number | null> {
  const { manifest } = await readJob(store, WHERE);
  if (rule === 'none') return null;
  return decidedStep(rule, PARTS.map((_, i): KnownChain => (i === index ? { unfinishedAt: tokens } : known(i, manifest))))?.step ?? null;
}

function known(chain: number, manifest: Manifest | null): KnownChain {
  const { tokens, finish } = manifest?.chains[chain] ?? { tokens: 0, finish: null };
  const key = manifest?.vote?.ballots[chain]?.key ?? null;
  return finish === 'stop' ? { chain, step: tokens, answer: key, key, verified: null } : { unfinishedAt: tokens };
}

async function commit(lease: Lease, { rule, chains }: Divided, index: number, tokens: number, ends: 'stop' | 'ended' | null): Promise<void> {
  const said: ManifestContent = content([], {
    step: tokens, ended: ends === 'ended' ? 'early_stop' : null,
    chains: [{ tokens, finish: ends, segments: [], tails: [] }],
    vote: { rule, width: SHARDS, first: index, ballots: [ends === 'stop' ? { key: (chains[index] as Chain).key, verified: null } : null] },
  });
  await lease.commit({ state: ends === null ? 'running' : 'done', manifest: () => said, objects: [] });
}

async function verdictOn(its: Setting, where: JobKey): Promise<unknown> {
  const head = (await readHead(its.store, where))?.head ?? null;
  const verdict = head !== null && isTerminal(head.state) ? { kind: 'drop', why: 'ended' } as const : { kind: 'run', slice: 0, force: true, alone: false } as const;
  return await shardVerdict({ v: 1, ...where, slice: 0 }, where, head, verdict, { store: its.store, queue: { sendAll: async () => undefined }, clock: its.clock, endings: endingsOf(its), say: () => undefined });
}

async function walkOften(its: Setting, world: World): Promise<void> {
  const seen: Sightings = new Map();
  for (let i = 0; i < 4; i++) {
    await pause(its.clock, its.random() * 900, undefined);
    await walk(its, seen, world, 0).catch(unlessExpected);
  }
}

/** The walk, and what a worker does with the messages that it sends. */
async function walk(its: Setting, seen: Sightings, world: World, unmovedMs: number): Promise<void> {
  for await (const found of reconcile(its.store, seen, { ...protocolIn(its), unmovedMs, onEnded: async (where) => await endingsOf(its).jobEnded(where) })) {
    if (found.kind === 'unreadable') {
      // An erased job's shards are walked until they have their tombstones.
      if ((await readHead(its.store, WHERE))?.head.state !== 'erased') world.watch.report('stuck', `the walk finds ${found.key} unreadable: ${found.error.message}`);
    } else await verdictOn(its, found.where);
  }
}

/** Whoever died, a few messages later: the job and all its shards are over, and it came to what one run comes to. */
async function theEnd(job: Divided, { isPlain, erases }: { readonly isPlain: boolean; readonly erases: boolean }): Promise<void> {
  const { world } = job;
  await world.calmly(async (store) => {
    const its: Setting = { store, actor: 'calm', clock: world.clock, random: seededRandom(1) };
    await createJob(store, WHERE, SPEC, { ...options(), idempotencyKey: 'k', shards: SHARDS }).catch(unlessExpected);
    for (let i = 0; i < 3; i++) {
      await walk(its, new Map(), world, 0);
      for (let shard = 0; shard < SHARDS; shard++) await runShard(its, job, shard).catch(unlessExpected);
    }
    if (erases && world.watch.last?.state === 'erased') await eraseJob(store, WHERE, options());
    await walk(its, new Map(), world, 0);
    await check(job, store, isPlain);
  }).catch((error: unknown) => world.watch.report('stuck', `the end: ${String(error)}`));
}

async function check({ world, rule, chains }: Divided, store: ObjectStore, isPlain: boolean): Promise<void> {
  const { head, manifest } = await readJob(store, WHERE);
  if (!isTerminal(head.state)) world.watch.report('stuck', `the job is ${head.state}, joined ${head.join?.joined.join(' ') ?? 'none'}`);
  if (isPlain && head.state !== 'done') world.watch.report('stuck', `the job is ${head.state}`);
  for (const part of PARTS) {
    const state = (await readHead(store, part))?.head.state ?? 'not born';
    if (state !== 'not born' && !isTerminal(state as 'done')) world.watch.report('stuck', `${part.job} is ${state}`);
  }
  const keys = new Set(world.keys());
  for (const where of [WHERE, ...PARTS]) if (keys.has(liveKey(where))) world.watch.report('born', `${where.job} still has a marker`);
  if (head.state === 'erased' && [...keys].some((key) => key.startsWith(jobPrefix(WHERE)) && !key.endsWith('/HEAD'))) world.watch.report('gc', `an erased job still has ${[...keys].join(' ')}`);
  if (head.state !== 'done') return;
  const all = chains.map(({ step, key }, chain): KnownChain => ({ chain, step, answer: key, key, verified: null }));
  const end = rule === 'none' ? null : decidedStep(rule, all);
  const wanted = chains.map(({ step }) => (end === null || step <= end.step ? `stop ${step}` : `ended ${end.step}`));
  const found = manifest?.chains.map(({ tokens, finish }) => `${finish ?? 'null'} ${tokens}`) ?? [];
  if (wanted.join() !== found.join()) world.watch.report('once', `the chains are ${found.join(', ')} and not ${wanted.join(', ')}`);
}

function unlessExpected(error: unknown): void {
  if (!isExpected(error) && !(error instanceof EngineError && ['ERR_JOB_NOT_FOUND', 'ERR_CHECKPOINT'].includes(error.code))) throw error;
}
