/** Creation by chance: clients with one idempotency key, walks that finish what they began, a worker and an eraser, on a store that fails. */
import { seededFaults, seededRandom } from '../../engine/adapters/memory-faults.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { pause } from '../../engine/core/waiting.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import { createJob } from '../../engine/kv/create.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { liveKey } from '../../engine/kv/hints.ts';
import { jobPrefix, type JobKey } from '../../engine/kv/names.ts';
import { reconcile, type Sightings } from '../../engine/kv/reconcile.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { options, SPEC } from '../kv/support.ts';
import { protocolIn } from './engine-play.ts';
import { isExpected, type Setting } from './play.ts';
import { headView, type View, type Watch } from './watch.ts';
import { World } from './world.ts';

const JOBS: readonly JobKey[] = ['first', 'second'].map((job) => ({ tenant: 'acme', job }));
const OTHER_SPEC = '{"prompt":"2+2"}';
const ENDED: ReadonlySet<string> = new Set(['done', 'erased']);

/** Of a job that is not over its marker too must be there at any moment, or nobody would find it. */
function bornView(where: JobKey): View {
  const view = headView(jobPrefix(where));
  return (objects) => {
    const committed = view(objects);
    return committed === null || ENDED.has(committed.state) ? committed : { ...committed, names: [...committed.names, liveKey(where)] };
  };
}

interface Birth {
  readonly world: World;
  readonly watches: ReadonlyMap<string, Watch>;
  /** Every caller asks for the same, and nothing is erased: then nobody may be refused. */
  readonly isPlain: boolean;
}

export async function playBirth(seed: number): Promise<World> {
  const random = seededRandom(seed);
  const [first, second] = JOBS as readonly [JobKey, JobKey];
  const world = new World(bornView(first), seededFaults(seed ^ 0xb127, random() < 0.3 ? {} : { fail: 0.03, lostAck: 0.08, late: 0.08, refuse: 0.05 }));
  const [erases, twoBodies] = [random() < 0.3, random() < 0.3];
  const birth: Birth = { world, watches: new Map([[first.job, world.watch], [second.job, world.also(bornView(second))]]), isPlain: !erases && !twoBodies };
  const start = (actor: string, act: (its: Setting) => Promise<void>) =>
    world.start(actor, (store) => act({ store, actor, clock: world.clock, random: seededRandom(Math.floor(random() * 2 ** 32)) }));

  start('client 0', (its) => submit(its, birth, first, SPEC));
  start('client 1', (its) => submit(its, birth, second, twoBodies ? OTHER_SPEC : SPEC));
  start('client 2', (its) => submit(its, birth, first, SPEC));
  for (const walk of ['walk 0', 'walk 1']) start(walk, (its) => walkOften(its, birth));
  start('worker', finishOften);
  if (erases) start('eraser', eraseSomeTime);
  await world.play({ random, stall: 0.05, crash: 0.02, mortal: () => true });
  if (world.violations.length === 0) await theEnd(birth);
  return world;
}

/** As a user would: again with the same key and body until there is an answer. */
async function submit(its: Setting, { watches, isPlain, world }: Birth, where: JobKey, spec: string): Promise<void> {
  for (let tries = 0; tries < 3; tries++) {
    await pause(its.clock, its.random() * 500, undefined);
    try {
      const created = await createJob(its.store, where, spec, { ...protocolIn(its), idempotencyKey: 'k' });
      const watch = watches.get(created.where.job);
      if (watch?.last == null) world.watch.report('acked', `${its.actor} was told of ${created.where.job}, which has no head`);
      if (created.head.spec !== sha256(spec)) world.watch.report('acked', `${its.actor} was given another request's job`);
      return;
    } catch (error) {
      if (!isExpected(error)) throw error;
      if (error.code === 'ERR_JOB_CONFLICT' && isPlain) world.watch.report('born', `${its.actor} was refused: ${error.message}`);
    }
  }
}

async function walkOften(its: Setting, { world }: Birth): Promise<void> {
  const seen: Sightings = new Map();
  for (let i = 0; i < 4; i++) {
    await pause(its.clock, its.random() * 600, undefined);
    await walk(its.store, seen, world, protocolIn(its)).catch(unlessExpected);
  }
}

async function walk(store: ObjectStore, seen: Sightings, world: World, its: ReturnType<typeof protocolIn>): Promise<void> {
  for await (const found of reconcile(store, seen, its)) {
    if (found.kind === 'unreadable') world.watch.report('stuck', `the walk finds ${found.key} unreadable: ${found.error.message}`);
  }
}

async function finishOften(its: Setting): Promise<void> {
  for (let i = 0; i < 4; i++) {
    await pause(its.clock, its.random() * 800, undefined);
    for (const where of JOBS) {
      await takeJob(its.store, where, { ...protocolIn(its), owner: its.actor, force: true })
        .then((lease) => lease.commit({ state: 'done', manifest: null, objects: [] }))
        .catch(unlessExpected);
    }
  }
}

async function eraseSomeTime(its: Setting): Promise<void> {
  for (const where of JOBS) {
    await pause(its.clock, its.random() * 800, undefined);
    await eraseJob(its.store, where, protocolIn(its)).catch(unlessExpected);
  }
}

/** Whoever died, one walk later: every marker is that of a job that was born and is not over, and the key made one job. */
async function theEnd({ world, watches }: Birth): Promise<void> {
  await world.calmly(async (store) => {
    const its = { ...options(), clock: world.clock };
    await walk(store, new Map(), world, { ...its, createdMs: 0 });
    await walk(store, new Map(), world, { ...its, createdMs: 0 });
  }).catch((error: unknown) => world.watch.report('stuck', `the end: ${String(error)}`));
  const keys = new Set(world.keys());
  const born = JOBS.filter((where) => keys.has(`${jobPrefix(where)}HEAD`));
  if (born.length > 1) world.watch.report('born', 'one key made two jobs');
  for (const where of JOBS) {
    const state = watches.get(where.job)?.last?.state;
    const isLive = state !== undefined && !ENDED.has(state);
    if (keys.has(liveKey(where)) !== isLive) world.watch.report('born', `${where.job} is ${state ?? 'not born'} and ${isLive ? 'has no' : 'still has a'} marker`);
  }
}

function unlessExpected(error: unknown): void {
  if (!isExpected(error) && !(error instanceof EngineError && error.code === 'ERR_JOB_NOT_FOUND')) throw error;
}
