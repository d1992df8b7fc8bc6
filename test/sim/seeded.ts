/** One run by chance: two or three workers, collections, clients and whoever ends the job, on a store that fails. */
import { seededFaults, seededRandom, type FaultRates } from '../../engine/adapters/memory-faults.ts';
import { pause } from '../../engine/core/waiting.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { adopt } from '../../engine/kv/adopt.ts';
import { createJob, readJob } from '../../engine/kv/create.ts';
import type { Ref } from '../../engine/kv/head.ts';
import { endJob } from '../../engine/kv/end.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import { jobPrefix, type JobKey } from '../../engine/kv/names.ts';
import { readHead } from '../../engine/kv/read.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { options, SPEC, stepsOf, WHERE } from '../kv/support.ts';
import { enginePlay, protocolIn, withTails } from './engine-play.ts';
import { collectOften, isExpected, work, type Play, type Setting } from './play.ts';
import { headView, type Watch } from './watch.ts';
import { World } from './world.ts';

const CHILD: JobKey = { tenant: WHERE.tenant, job: 'child' };
export const PREFIX = `kv/${WHERE.tenant}/${WHERE.job}/`;

const CALM: FaultRates = { fail: 0, lostAck: 0, late: 0, refuse: 0 };
const ROUGH: FaultRates = { fail: 0.01, lostAck: 0.06, late: 0.06, refuse: 0.04 };

interface Run {
  readonly world: World;
  readonly setting: (actor: string, store: ObjectStore) => Setting;
  readonly random: () => number;
}

/** Names are drawn from one stream of chance each, so that one actor's draws do not shift another's. */
function runOf(seed: number): Run {
  const random = seededRandom(seed);
  const world = new World(headView(PREFIX), seededFaults(seed ^ 0x5eed, random() < 0.3 ? CALM : ROUGH));
  return {
    world, random,
    setting: (actor, store) => ({ store, actor, clock: world.clock, random: seededRandom(Math.floor(random() * 2 ** 32)) }),
  };
}

/** The engine's protocol with everything that may happen to it. The returned world has the violations and the trace. */
export async function playEngine(seed: number): Promise<World> {
  const { world, setting, random } = runOf(seed);
  const { watch } = world;
  const start = (actor: string, act: (its: Setting) => Promise<void>) => world.start(actor, (store) => act(setting(actor, store)));
  for (const client of ['client', 'client again']) {
    start(client, async (its) => {
      await createJob(its.store, WHERE, SPEC, { ...protocolIn(its), idempotencyKey: 'k' }).catch(unlessExpected);
    });
  }
  await world.play({ random, stall: 0.05, crash: 0.02, mortal: () => true });
  if (world.violations.length > 0) return world;
  await world.calmly((store) => createJob(store, WHERE, SPEC, { ...options(), clock: world.clock }));

  const workers = random() < 0.3 ? 3 : 2;
  for (let i = 0; i < workers; i++) {
    start(`worker ${i}`, (its) => work(enginePlay, its, { steps: 4 + Math.floor(random() * 20), takes: 4, watch, whole: true }));
  }
  for (let i = 0; i < 2; i++) start(`collector ${i}`, (its) => collectOften(enginePlay, its, 4));
  start('reader', async (its) => {
    for (let i = 0; i < 3; i++) {
      await pause(its.clock, its.random() * 1_500, undefined);
      await readJob(its.store, WHERE).catch(unlessExpected);
    }
  });
  if (random() < 0.5) {
    const watchOfChild = world.also(headView(`kv/${CHILD.tenant}/${CHILD.job}/`));
    start('forker', (its) => fork(its, watchOfChild));
    start('child collector', (its) => collectOften({ ...enginePlay, collect: collectChild }, its, 4));
  }
  const end = random();
  if (end < 0.3) {
    start('ender', async (its) => {
      await pause(its.clock, its.random() * 8_000, undefined);
      await (end < 0.15 ? eraseJob(its.store, WHERE, protocolIn(its)) : endJob(its.store, WHERE, 'cancelled', protocolIn(its))).catch(unlessExpected);
    });
  }
  await world.play({ random, stall: 0.02, crash: 0.003, mortal: (actor) => /worker|collector|ender/.test(actor) });
  if (world.violations.length === 0) await finishEngine(world);
  return world;
}

/** Takes over what the parent has at one moment, while the parent goes on and both are collected. */
async function fork(its: Setting, watch: Watch): Promise<void> {
  for (let tries = 0; tries < 4; tries++) {
    await pause(its.clock, its.random() * 2_000, undefined);
    let seen: Ref | null = null;
    try {
      const parent = await readJob(its.store, WHERE);
      if (parent.manifest === null) continue;
      seen = parent.head.manifest;
      await createJob(its.store, CHILD, SPEC, protocolIn(its));
      const lease = await takeJob(its.store, CHILD, { ...protocolIn(its), owner: its.actor, force: true });
      watch.took(lease.head.epoch);
      if (lease.head.manifest !== null) return;
      await lease.commit({ state: 'running', manifest: (refs) => withTails(refs, refs, null), objects: adopt(WHERE, parent.manifest.objects) });
      watch.acked((lease.manifest?.journal ?? []).map((i) => jobPrefix(CHILD) + (lease.manifest?.objects[i]?.name ?? '')));
      if ((await stepsOf(lease)).length !== parent.manifest.journal.length) watch.report('restore', 'the child has not what its parent had');
      return;
    } catch (error) {
      // Erased meanwhile, or gone on: the tails that this manifest named are garbage once another is committed.
      const current = (await readHead(its.store, WHERE).catch(() => null))?.head;
      const isGone = error instanceof EngineError && error.code === 'ERR_CHECKPOINT' && (current?.state !== 'running' || current.manifest?.name !== seen?.name);
      if (!isGone) unlessExpected(error);
    }
  }
}

async function collectChild(its: Setting): Promise<void> {
  if ((await readHead(its.store, CHILD)) !== null) await collectGarbage(its.store, CHILD, protocolIn(its));
}

/** Whatever happened: the job can be carried to its end, and then nothing but what it names is left. */
async function finishEngine(world: World): Promise<void> {
  const { watch, clock } = world;
  await world.calmly(async (store) => {
    const its = { ...options(), clock };
    const state = watch.last?.state;
    if (state === 'running' || state === 'parked' || state === 'queued') {
      const lease = await takeJob(store, WHERE, { ...its, force: true });
      watch.took(lease.head.epoch);
      await stepsOf(lease);
      await lease.commit({ state: 'done', manifest: null, objects: [] });
    }
    await collectGarbage(store, WHERE, its);
    await collectGarbage(store, WHERE, its);
  }).catch((error: unknown) => watch.report('stuck', `the end: ${String(error)}`));
  const [named, there] = [new Set([...(watch.last?.names ?? []), `${PREFIX}HEAD`]), world.keys().filter((key) => key.startsWith(PREFIX))];
  const left = there.filter((key) => !named.has(key));
  if (left.length > 0) watch.report('stuck', `garbage stays: ${left.join(', ')}`);
}

/** A protocol of which one rule may be broken, with what that rule is for: takes, commits, uploads ahead, collections. */
export async function playRule(play: Play, seed: number): Promise<World> {
  const { world, setting, random } = runOf(seed);
  await world.calmly((store) => createJob(store, WHERE, SPEC, { ...options(), clock: world.clock }));
  for (const actor of ['worker 0', 'worker 1']) {
    world.start(actor, (store) => work(play, setting(actor, store), { steps: 6, takes: 3, watch: world.watch, whole: false }));
  }
  world.start('collector', (store) => collectOften(play, setting('collector', store), 3));
  await world.play({ random, stall: 0.03, crash: 0, mortal: () => false });
  return world;
}

function unlessExpected(error: unknown): void {
  if (!isExpected(error)) throw error;
}

/** For people: what went wrong, how to see it again, and what happened before it. */
export function story(seed: number, { violations, trace }: Pick<World, 'violations' | 'trace'>, file = 'test/sim/seeded.test.ts'): string {
  const what = violations.map(({ invariant, what: how }) => `${invariant}: ${how}`).join('\n');
  return `seed ${seed}: ${what}\nreplay: SIM_SEED=${seed} npx vitest run ${file}\n${trace.slice(-80).join('\n')}`;
}
