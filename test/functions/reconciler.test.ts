/** The reconciler as a scheduled function: every invocation may be another instance, which knows what the store says. */
import { describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { createLocalQueue } from '../../engine/adapters/queue-local.ts';
import { jobIds } from '../../engine/control/ids.ts';
import { UNKNOWN_SECONDS } from '../../engine/control/work.ts';
import type { Clock } from '../../engine/core/clock.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { throwIfCancelled } from '../../engine/core/waiting.ts';
import { IDLE_ROUND } from '../../engine/job/cost.ts';
import { createJob } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import type { JobState } from '../../engine/kv/head.ts';
import { liveKey } from '../../engine/kv/hints.ts';
import { type JobKey, jobPrefix } from '../../engine/kv/names.ts';
import { readHead } from '../../engine/kv/read.ts';
import { takeJob } from '../../engine/kv/take.ts';
import type { Outgoing } from '../../engine/ports/sender.ts';
import { Deliverer } from '../../engine/webhook/deliverer.ts';
import { Outbox } from '../../engine/webhook/outbox.ts';
import { Webhooks } from '../../engine/webhook/webhooks.ts';
import { expire } from '../../engine/worker/overdue.ts';
import { readWalkMemory, writeWalkMemory } from '../../engine/worker/walk-memory.ts';
import { collectorFunction } from '../../functions/collector.ts';
import { Emf } from '../../functions/emf.ts';
import { openBatches } from '../../functions/open-batches.ts';
import { type ReconcilerFunctionOptions, type Round, handler, reconcilerFunction } from '../../functions/reconciler.ts';
import { ManualClock } from '../helpers/clock.ts';
import { through } from '../helpers/through.ts';
import { options, SPEC } from '../kv/support.ts';

const AMPLE = { getRemainingTimeInMillis: () => 60_000 };
const EVENT = { version: '0', source: 'aws.scheduler', 'detail-type': 'Scheduled Event', detail: {} };
const [newId, hourAgo] = [jobIds(), jobIds()];
const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
const SILENT_MS = 46_000;
/** Asked for nothing where there are no batches. */
const nobody = {} as Parameters<typeof openBatches>[0]['platform'];

class Schedule {
  readonly store = new MemoryStore();
  readonly clock = new ManualClock();
  readonly queue = createLocalQueue({ clock: this.clock });
  readonly sent: Outgoing[] = [];
  readonly lines: string[] = [];

  /** Another instance each time. */
  async invoke(more: Partial<ReconcilerFunctionOptions> = {}, context = AMPLE): Promise<Round> {
    const { store, queue, clock } = this;
    return await reconcilerFunction({
      store, queue, clock, log,
      outbox: new Outbox({ store }),
      deliverer: new Deliverer({ store, keys: null, sender: { send: async (message) => {
        this.sent.push(message);
        return { kind: 'answered', status: 200 };
      } } }),
      batches: { walk: async () => undefined },
      emf: new Emf({ namespace: 'Ruminate', service: 'reconciler', write: (line) => void this.lines.push(line) }),
      ...more,
    })(EVENT, context);
  }

  async created(tokens = 100): Promise<{ readonly tenant: string; readonly job: string }> {
    const where = { tenant: 'acme', job: newId(Date.now()) };
    await createJob(this.store, where, SPEC, { plan: { model: 'm', tokens } });
    return where;
  }

  async createdHourAgo(waitMsMax: number | undefined, shards?: number): Promise<JobKey> {
    const where = { tenant: 'acme', job: hourAgo(Date.now() - 3_600_000) };
    const spec = JSON.stringify({
      // Sealed: who walks needs no key.
      format: 'ruminate-job/1 sealed', key: '', box: '',
      shown: { spec: { model: 'm', ...(waitMsMax === undefined ? {} : { wait_ms_max: waitMsMax }) }, lengths: [100], model_id: '0'.repeat(64), parent: null },
    });
    await createJob(this.store, where, spec, { plan: { model: 'm', tokens: 100 }, shards });
    return where;
  }

  async state(where: JobKey): Promise<JobState | undefined> {
    return (await readHead(this.store, where))?.head.state;
  }

  async messages(): Promise<readonly string[]> {
    const found = await this.queue.receive({ max: 100, waitMs: 0, visibilityMs: 1e6 });
    return found.map(({ message }) => message?.job ?? '');
  }
}

describe('a scheduled invocation', () => {
  test('sees by what another has seen that a job has not moved, sends it again once, and waits longer each time', async () => {
    const schedule = new Schedule();
    const { job } = await schedule.created();
    expect(await schedule.invoke()).toMatchObject({ sent: 0, work: { waiting: 1, running: 0 } });
    schedule.clock.advance(SILENT_MS);
    expect(await schedule.invoke()).toMatchObject({ sent: 1 });
    expect(await schedule.messages()).toEqual([job]);
    // The message is lost with whoever had it; the queue is empty again.
    schedule.clock.advance(30_000);
    expect(await schedule.invoke()).toMatchObject({ sent: 0 });
    schedule.clock.advance(30_000);
    expect(await schedule.invoke()).toMatchObject({ sent: 1 });
    schedule.clock.advance(90_000);
    expect(await schedule.invoke()).toMatchObject({ sent: 0 });
  });

  test('sends again what a silent worker has, though the queue has a backlog, and nothing that moves', async () => {
    const schedule = new Schedule();
    const [waits, silent, moves] = [await schedule.created(), await schedule.created(), await schedule.created()];
    await schedule.queue.send({ v: 1, tenant: 'acme', job: waits.job, slice: 0 });
    await takeJob(schedule.store, silent, options());
    const lease = await takeJob(schedule.store, moves, options());
    await schedule.invoke();
    schedule.clock.advance(SILENT_MS);
    await lease.touch();
    expect(await schedule.invoke()).toMatchObject({ sent: 1, work: { waiting: 1, running: 2 } });
    expect((await schedule.messages()).toSorted()).toEqual([waits.job, silent.job].toSorted());
  });

  test('delivers the webhook of a job whose notifier died, in the same round', async () => {
    const schedule = new Schedule();
    const webhooks = new Webhooks({ store: schedule.store, keys: null, allowLoopback: false });
    await webhooks.create({ tenant: 'acme', url: 'https://example.com/hook', events: ['job.*'] });
    const where = await schedule.created();
    await endJob(schedule.store, where, 'cancelled');
    await schedule.invoke();
    expect(schedule.sent.map(({ body }) => (JSON.parse(body) as { data: { id: string } }).data.id)).toEqual([where.job]);
    await schedule.invoke();
    expect(schedule.sent).toHaveLength(1);
  });

  test('ends a job that waited longer than it was to, once, tells of it, and sends no message for it; one that has begun stays', async () => {
    const schedule = new Schedule();
    const webhooks = new Webhooks({ store: schedule.store, keys: null, allowLoopback: false });
    await webhooks.create({ tenant: 'acme', url: 'https://example.com/hook', events: ['job.*'] });
    const late = [await schedule.createdHourAgo(1_000), await schedule.createdHourAgo(1_000, 2)];
    const stays = [await schedule.createdHourAgo(7_200_000), await schedule.createdHourAgo(undefined), await schedule.createdHourAgo(1_000)] as const;
    const lease = await takeJob(schedule.store, stays[2], options());
    const state = (where: JobKey) => schedule.state(where);
    expect(await schedule.invoke()).toMatchObject({ work: { waiting: 2, running: 1 } });
    expect(await Promise.all(late.map(state))).toEqual(['expired', 'expired']);
    expect(await Promise.all(stays.map(state))).toEqual(['queued', 'queued', 'running']);
    const told = () => schedule.sent.map(({ body }) => JSON.parse(body) as { type: string; data: { id: string } }).map(({ type, data }) => `${type} ${data.id}`).toSorted();
    expect(told()).toEqual(late.map(({ job }) => `job.expired ${job}`).toSorted());
    // What a walk has read of a spec the next one knows.
    const specsRead = () => schedule.store.log.filter(({ kind, key }) => kind === 'get' && key.includes('/spec-')).length;
    const before = specsRead();
    expect(before).toBeGreaterThanOrEqual(4);
    await schedule.invoke();
    expect(specsRead()).toBe(before);
    await lease.commit({ state: 'parked', manifest: null, objects: [] });
    schedule.clock.advance(SILENT_MS);
    await schedule.invoke();
    schedule.clock.advance(SILENT_MS);
    await schedule.invoke();
    // Those that wait; for what began there is a message already, for all that the walk knows.
    expect((await schedule.messages()).toSorted()).toEqual([stays[0].job, stays[1].job].toSorted());
    expect(told()).toHaveLength(2);
    expect(await state(stays[2])).toBe('parked');
  });

  test.each(['fails to read', 'is cut off while it reads', 'finds damage in'] as const)('a walk that %s what says how long a job was to wait ends the others that are late, if there is time, and the next one ends it too', async (how) => {
    const schedule = new Schedule();
    const { clock } = schedule;
    const late = [await schedule.createdHourAgo(1_000), await schedule.createdHourAgo(1_000)] as const;
    let isFirst = true;
    const get: MemoryStore['get'] = async (key, call) => {
      if (!isFirst || !key.includes(`/${late[0].job}/spec-`)) return await schedule.store.get(key, call);
      isFirst = false;
      if (how === 'finds damage in') return null;
      if (how === 'fails to read') throw new EngineError('ERR_STORE', 'gone');
      clock.advance(60_000);
      throwIfCancelled(call?.signal);
      return null;
    };
    const first = schedule.invoke({ store: through(schedule.store, { get }) }, { getRemainingTimeInMillis: () => 60_000 - clock.nowMs() });
    if (how === 'fails to read') {
      await expect(first).rejects.toMatchObject({ code: 'ERR_STORE' });
      expect(JSON.parse(schedule.lines[0] ?? ''), 'whoever scales by it is not told that there is nothing').toMatchObject({ BacklogSecondsAtLeast: UNKNOWN_SECONDS, JobsAtLeast: 1 });
    } else if (how === 'is cut off while it reads') {
      expect(await first).toMatchObject({ work: { isWhole: false, waiting: 2 } });
    } else {
      expect(await first).toMatchObject({ work: { isWhole: true, waiting: 1 } });
    }
    expect(await Promise.all(late.map((where) => schedule.state(where)))).toEqual(['queued', how === 'is cut off while it reads' ? 'queued' : 'expired']);
    await schedule.invoke();
    expect(await Promise.all(late.map((where) => schedule.state(where)))).toEqual(['expired', 'expired']);
  });

  test('a job that a worker has begun since it was found overdue is left to it', async () => {
    const schedule = new Schedule();
    const where = await schedule.created();
    const lease = await takeJob(schedule.store, where, options());
    const said: unknown[] = [];
    const endings = { jobEnded: async () => void said.push('told') };
    expect(await expire(where, { store: schedule.store, clock: schedule.clock, endings, say: (event) => said.push(event) })).toBe(false);
    expect(said).toEqual([]);
    await lease.touch();
  });

  test('tells CloudWatch how much work there is, also when there is none', async () => {
    const schedule = new Schedule();
    await schedule.invoke();
    await schedule.created();
    await schedule.invoke();
    const told = schedule.lines.map((line) => JSON.parse(line) as object);
    expect(told).toMatchObject([{ Service: 'reconciler', BacklogSeconds: 0, JobsWaiting: 0 }, { Service: 'reconciler', BacklogSeconds: 60, JobsWaiting: 1 }]);
    expect(told[1]).not.toHaveProperty('WorkerOccupancy');
  });

  test('that cannot read all heads says how much work it has met, at least, and under no name by which a fleet is made smaller', async () => {
    const schedule = new Schedule();
    for (let i = 0; i < 20; i++) await schedule.created();
    let reads = 0;
    const store = through(schedule.store, { get: async (key, more) => {
      if (key.endsWith('/HEAD') && ++reads > 16) throw new EngineError('ERR_STORE', 'gone');
      return await schedule.store.get(key, more);
    } });
    const errors: string[] = [];
    await expect(schedule.invoke({ store, log: { ...log, error: (_, message) => void errors.push(message) } })).rejects.toMatchObject({ code: 'ERR_STORE' });
    const [line] = schedule.lines.map((text) => JSON.parse(text) as Record<string, unknown>);
    expect([schedule.lines.length, line?.BacklogSecondsAtLeast, line?.JobsAtLeast, line?.BacklogSeconds, line?.JobsWaiting]).toEqual([1, 16 * UNKNOWN_SECONDS, 16, undefined, undefined]);
    await schedule.invoke();
    expect(JSON.parse(schedule.lines[1] ?? '')).toMatchObject({ BacklogSeconds: 20 * UNKNOWN_SECONDS, JobsWaiting: 20 });
    expect(schedule.lines[1]).not.toContain('AtLeast');
  });

  test('of which one part fails does the others, and then fails', async () => {
    const schedule = new Schedule();
    const webhooks = new Webhooks({ store: schedule.store, keys: null, allowLoopback: false });
    await webhooks.create({ tenant: 'acme', url: 'https://example.com/hook', events: ['job.*'] });
    await endJob(schedule.store, await schedule.created(), 'cancelled');
    const walk = async () => {
      throw new EngineError('ERR_STORE', 'gone');
    };
    await expect(schedule.invoke({ batches: { walk } })).rejects.toMatchObject({ code: 'ERR_STORE' });
    expect(schedule.sent).toHaveLength(1);
  });

  test('that cannot be through with its walk tells the next what it has seen, and leaves time for batches and webhooks', async () => {
    const schedule = new Schedule();
    const { clock } = schedule;
    await Promise.all(Array.from({ length: 100 }, () => schedule.created()));
    const until = (endsMs: number) => ({ getRemainingTimeInMillis: () => endsMs - clock.nowMs() });
    let delayMs = 1_000;
    const get: MemoryStore['get'] = async (key, call) => {
      if (key.endsWith('/HEAD')) clock.advance(delayMs);
      call?.signal?.throwIfAborted();
      return await schedule.store.get(key, call);
    };
    const parts: string[] = [];
    const invoke = async () => await schedule.invoke({
      store: through(schedule.store, { get }),
      batches: { walk: async () => void parts.push('batches') },
      deliverer: { deliverDue: async () => void parts.push('webhooks') },
    }, until(clock.nowMs() + 60_000));
    expect(await invoke()).toMatchObject({ sent: 0, work: { isWhole: false } });
    expect(parts).toEqual(['batches', 'webhooks']);
    clock.advance(SILENT_MS);
    // Those that the first has seen, though this one is not through either; and none of them again by the third.
    const { sent } = await invoke();
    const first = await schedule.messages();
    expect(first.length).toBeGreaterThan(0);
    expect(first).toHaveLength(sent);
    delayMs = 0;
    clock.advance(30_000);
    expect(await invoke()).toMatchObject({ work: { waiting: 100 } });
    const second = await schedule.messages();
    expect(second.length).toBeGreaterThan(0);
    expect(second.filter((job) => first.includes(job))).toEqual([]);
  });

  test('reads the heads of many jobs at once', async () => {
    const schedule = new Schedule();
    await Promise.all(Array.from({ length: 40 }, () => schedule.created()));
    let [reading, most] = [0, 0];
    const get: MemoryStore['get'] = async (key, call) => {
      if (key.endsWith('/HEAD')) most = Math.max(most, ++reading);
      await new Promise((resolve) => setImmediate(resolve));
      if (key.endsWith('/HEAD')) reading--;
      return await schedule.store.get(key, call);
    };
    expect(await schedule.invoke({ store: through(schedule.store, { get }) })).toMatchObject({ work: { waiting: 40 } });
    expect(most).toBe(16);
  });

  test('sends a lost job again within minutes, though an invocation before it had a clock that was a day ahead', async () => {
    const schedule = new Schedule();
    const { job } = await schedule.created();
    const ahead: Clock = { nowMs: () => schedule.clock.nowMs() + 86_400_000, timeout: (delayMs) => schedule.clock.timeout(delayMs) };
    await schedule.invoke({ clock: ahead });
    await schedule.invoke();
    schedule.clock.advance(SILENT_MS);
    expect(await schedule.invoke()).toMatchObject({ sent: 1 });
    expect(await schedule.messages()).toEqual([job]);
  });

  test('that comes to its end gives up what it does, and is no failure', async () => {
    const schedule = new Schedule();
    const walk = async ({ signal }: { signal?: AbortSignal | undefined } = {}) => {
      schedule.clock.advance(10_000);
      signal?.throwIfAborted();
    };
    expect(await schedule.invoke({ batches: { walk } }, { getRemainingTimeInMillis: () => 5_000 })).toMatchObject({ work: { waiting: 0 } });
  });

  test('of more jobs than can be remembered remembers those that have not moved for longest, with what was sent of them', async () => {
    const store = new MemoryStore();
    const jobs = Array.from({ length: 64 }, (_, i) => ({ tenant: 'acme', job: `job-${i}` }));
    const entry = { writeNonce: 'n'.repeat(32), atMs: 0, times: 1 };
    const memory = {
      seen: new Map(jobs.map((where, i) => [liveKey(where), { writeNonce: entry.writeNonce, sinceMs: 1_000 - i }] as const)),
      sent: new Map(jobs.map((where) => [jobPrefix(where), entry] as const)),
      due: new Map(jobs.map((where) => [jobPrefix(where), null] as const)),
    };
    await writeWalkMemory(store, memory, { bytesMax: 4_000 });
    const { seen, sent, due } = await readWalkMemory(store, 2_000);
    const kept = jobs.slice(-seen.size);
    expect(seen.size).toBeGreaterThan(4);
    expect(seen.size).toBeLessThan(32);
    expect(new Set(seen.keys())).toEqual(new Set(kept.map(liveKey)));
    for (const map of [sent, due]) expect(new Set(map.keys())).toEqual(new Set(kept.map((where) => jobPrefix(where))));
  });

  test('reads a memory that is none of ours as none', async () => {
    const schedule = new Schedule();
    for (const text of ['', 'null', '[]', '{"format":"ruminate-walk/1"}', '{"format":"ruminate-walk/1","seen":[1,["a"],null],"sent":[["k","n",1]]}', '{"format":"other","seen":[],"sent":[]}']) {
      await schedule.store.put('walk/memory.json', [Buffer.from(text)]);
      expect(await schedule.invoke(), text).toMatchObject({ sent: 0 });
    }
  });

  test('over a store in which nothing lives asks for what an idle month is priced by', async () => {
    const schedule = new Schedule();
    const { store, queue } = schedule;
    let asked = 0;
    const counted: ReconcilerFunctionOptions['queue'] = { sendAll: (...message) => queue.sendAll(...message), depth: (call) => (asked++, queue.depth(call)) };
    const { batches } = openBatches({ store, keys: null, platform: nobody, outbox: new Outbox({ store }), log });
    await schedule.invoke({ queue: counted, batches });
    const before = store.log.length;
    asked = 0;
    await schedule.invoke({ queue: counted, batches });
    const of = (kind: string) => store.log.slice(before).filter((operation) => operation.kind === kind).length;
    expect({ lists: of('list'), puts: of('put'), gets: of('get'), queue: asked }).toEqual(IDLE_ROUND);
    expect(store.log.length - before).toBe(IDLE_ROUND.lists + IDLE_ROUND.puts + IDLE_ROUND.gets);
  });
});

test('the collector lets go of every job that is over, however many there are, and of what nobody needs of files', async () => {
  const schedule = new Schedule();
  const outbox = new Outbox({ store: schedule.store, retention: { kvMs: 1_000, resultMs: 60_000 } });
  const jobs = await Promise.all(Array.from({ length: 5 }, () => schedule.created()));
  for (const where of jobs) {
    await endJob(schedule.store, where, 'cancelled');
    await outbox.jobEnded(where);
  }
  const abandoned = `files/acme/file-${jobIds()(Date.now() - 30 * 86_400_000)}/0123456789abcdef-0`;
  await schedule.store.put(abandoned, [Buffer.from('half')]);
  const collect = (nowMs: number) => collectorFunction({ store: schedule.store, log, nowMs: () => nowMs })(EVENT, AMPLE);
  // Hints of ten seconds lie together.
  expect(await collect(Date.now() + 12_000)).toMatchObject({ trimmed: 5, erased: 0, objects: 1, complete: true });
  expect(await collect(Date.now() + 80_000)).toMatchObject({ trimmed: 0, erased: 5, objects: 0, complete: true });
  expect([...schedule.store.snapshot().keys()].filter((key) => !/^(idx|gc)\//.test(key)).toSorted()).toEqual(jobs.map(({ job }) => `kv/acme/${job}/HEAD`).toSorted());
});

test('while its configuration is wrong every invocation says all that is', async () => {
  await expect(handler(EVENT, AMPLE)).rejects.toThrow(/RUMINATE_STORE must be set.*RUMINATE_MODELS_STORE must be set.*RUMINATE_QUEUE must be set/s);
  await expect(handler(EVENT, AMPLE)).rejects.not.toThrow(/RUMINATE_API_KEYS/);
});
