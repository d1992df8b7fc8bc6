/** A stream of a job: read from the run or from the store, in one go or in many, it is the same. */
import { afterAll, describe, expect, test } from 'vitest';

import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { NativeShelf } from '../../engine/control/native-shelf.ts';
import type { JobEvent, Platform } from '../../engine/control/platform.ts';
import { systemClock } from '../../engine/core/clock.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { endJob } from '../../engine/kv/end.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import { putReading, readingKey } from '../../engine/kv/hints.ts';
import { RemoteReaders } from '../../engine/worker/remote-readers.ts';
import { ManualClock } from '../helpers/clock.ts';
import { type Numbered, TENANT, TestFeed, eventsOf, numbered, platformOn, runLive, runToEnd } from './support.ts';

const shelf = new NativeShelf();
afterAll(() => shelf[Symbol.dispose]());

const me = { tenant: TENANT };
const SPEC: JobSpec = { model: 'countdown@cr2', prompt: '4 20 8 13 target 59', seed: 2, vote: 'none', budget: { length: 300, width: 3 } };
const EARLY: JobSpec = { ...SPEC, vote: 'verifier' };

const kinds = (events: readonly JobEvent[]) => events.flatMap((event) => (event.kind === 'state' ? [event.state] : [])).join(' ');

/** Up to `count` numbered events from one instance, then he leaves. */
async function some(platform: Platform, id: string, after: number, count: number): Promise<readonly Numbered[]> {
  const got: Numbered[] = [];
  if (count === 0) return got;
  for await (const event of platform.events(id, { ...me, after })) {
    if ('seq' in event) got.push(event);
    if (got.length >= count) break;
  }
  return got;
}

describe('a job that has ended', () => {
  test.each([SPEC, EARLY])('is told from its beginning to its result', async (spec) => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    const { id } = await platform.submit(spec, me);
    await runToEnd(store, id);
    const events = await eventsOf(platform.events(id, me));
    const result = await platform.result(id, me);
    expect(events.at(-1)).toEqual({ kind: 'result', seq: events.length - 1, state: 'done', result });
    expect(numbered(events).map(({ seq }) => seq)).toEqual(events.map((_, i) => i));
    result?.chains.forEach(({ tokens, answer, finish_reason: reason }, i) => {
      expect(events.flatMap((event) => (event.kind === 'token' && event.chain === i ? [event.token] : []))).toEqual(tokens);
      expect(events.filter((event) => event.kind === 'finish' && event.chain === i)).toMatchObject([{ answer, reason }]);
    });
  });

  test('is told on from any event, and of nothing after its last', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    const { id } = await platform.submit({ ...SPEC, budget: { length: 20, width: 2 } }, me);
    await runToEnd(store, id);
    const all = await eventsOf(platform.events(id, me));
    for (const after of [-1, 0, 1, 7, all.length - 3, all.length - 2]) expect(await eventsOf(platform.events(id, { ...me, after }))).toEqual(all.slice(after + 1));
    for (const after of [all.length - 1, 1e9]) expect(await eventsOf(platform.events(id, { ...me, after }))).toEqual([]);
  });
});

describe('a job that runs', () => {
  test.each([SPEC, EARLY])('is told the same from the live feed and from the store, while it runs and after', async (spec) => {
    const store = new MemoryStore();
    const feed = new TestFeed();
    const { platform: here } = platformOn(store, shelf, { feed, clock: systemClock });
    const { platform: there } = platformOn(store.as('there'), shelf);
    const { id } = await here.submit(spec, me);
    const reading = [eventsOf(here.events(id, me)), eventsOf(there.events(id, me))];
    await runLive(store, { ...me, job: id }, feed);
    const [live = [], remote = []] = await Promise.all(reading);
    const after = await eventsOf(there.events(id, me));
    expect(numbered(live)).toEqual(after);
    expect(numbered(remote)).toEqual(after);
    expect(kinds(live)).toMatch(/^(queued )?running/);
    expect(after.at(-1)).toMatchObject({ kind: 'result', result: await there.result(id, me) });
  });

  test('is told ahead of its commits in the process in which it runs', async () => {
    const store = new MemoryStore();
    const feed = new TestFeed();
    const { platform } = platformOn(store, shelf, { feed });
    const { id } = await platform.submit(SPEC, me);
    let ahead: readonly Numbered[] | null = null;
    await runLive(store, { ...me, job: id }, feed, {
      onReport: async ({ step }) => {
        // A delta comes every 40 tokens.
        if (step === 30) ahead = await some(platform, id, -1, 3 * 30);
      },
    });
    expect(ahead).toEqual((await eventsOf(platform.events(id, me))).slice(0, 90));
  });

  test('is told to its reader from wherever he asks, each event once, however often he leaves, and whoever runs it', async () => {
    const expected = await (async () => {
      const store = new MemoryStore();
      const { platform } = platformOn(store, shelf);
      const { id } = await platform.submit(SPEC, { ...me, id: 'sums' });
      await runToEnd(store, id);
      return await eventsOf(platform.events(id, me));
    })();
    for (let seed = 0; seed < 6; seed++) {
      const chance = seededRandom(seed);
      const random = (below: number): number => Math.floor(chance() * below);
      const store = new MemoryStore();
      const feed = new TestFeed();
      const instances = [platformOn(store, shelf, { feed }).platform, platformOn(store, shelf).platform, platformOn(store, shelf).platform];
      const { id } = await (instances[0] as Platform).submit(SPEC, { ...me, id: 'sums' });
      const got: Numbered[] = [];
      const read = async (): Promise<void> => {
        while (got.at(-1)?.kind !== 'result') got.push(...(await some(instances[random(3)] as Platform, id, got.at(-1)?.seq ?? -1, 1 + random(200))));
      };
      const work = async (): Promise<void> => {
        for (let parks = random(3); parks > 0; parks--) await runToEnd(store, id, { parkAt: 1 + random(250) });
        await runLive(store, { ...me, job: id }, feed, { stepsMax: 1 + random(40) });
      };
      await Promise.all([read(), work()]);
      expect(got, `seed ${seed}`).toEqual(expected);
    }
  });

  test('is read from the store object by object, each once', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store.as('reader'), shelf);
    const { id } = await platform.submit(SPEC, me);
    const reading = eventsOf(platform.events(id, me));
    await runLive(store, { ...me, job: id }, new TestFeed());
    await reading;
    const journals = store.log.filter(({ kind, key, actor }) => kind === 'get' && actor === 'reader' && key.includes('/j/')).map(({ key }) => key);
    expect(journals.length).toBeGreaterThan(3);
    expect(new Set(journals).size).toBe(journals.length);
  });

  test('is written every second while somebody reads along, else every ten', async () => {
    const journals = async (isFollowed: boolean): Promise<number> => {
      const store = new MemoryStore();
      const clock = new ManualClock();
      const { platform } = platformOn(store, shelf);
      const { id } = await platform.submit(SPEC, { ...me, id: 'sums' });
      let untilMs = 0;
      await runLive(store, { ...me, job: id }, new TestFeed(), {
        clock, isFollowed: () => isFollowed, policy: { deltaTokens: 1_000, deltaMs: 1e6 },
        onReport: async () => {
          // Half a second a report, once what was written before is there.
          await clock.settle();
          clock.advance(500);
          untilMs = clock.nowMs();
        },
      });
      expect(untilMs).toBeGreaterThan(20_000);
      return new Set(store.log.flatMap(({ kind, key }) => (kind === 'put' && key.includes('/j/') ? [key] : []))).size;
    };
    expect(await journals(true)).toBeGreaterThan(3 * (await journals(false)));
  });

  test('and is read elsewhere is told so by a sign in the store, which goes when it ends', async () => {
    const store = new MemoryStore();
    const clock = new ManualClock();
    const { platform } = platformOn(store.as('reader'), shelf, { clock: systemClock });
    const { id } = await platform.submit(SPEC, me);
    const where = { ...me, job: id };
    using nobody = new RemoteReaders(store, { ...me, job: 'another' }, clock);
    using readers = new RemoteReaders(store, where, clock);
    await clock.settle();
    expect(readers.areThere).toBe(false);
    const reading = eventsOf(platform.events(id, me));
    await runLive(store, where, new TestFeed(), {
      onReport: async ({ step }) => {
        if (step !== 100) return;
        while (store.snapshot().get(readingKey(where)) === undefined) await new Promise((resolve) => setImmediate(resolve));
        clock.advance(10_000);
        await clock.settle();
        expect([readers.areThere, nobody.areThere]).toEqual([true, false]);
        // The sign is not written anew: whoever left it has gone.
        for (let looks = 0; looks < 4; looks++) {
          clock.advance(10_000);
          await clock.settle();
        }
        expect(readers.areThere).toBe(false);
        await putReading(store, where, {});
        clock.advance(10_000);
        await clock.settle();
        expect(readers.areThere).toBe(true);
      },
    });
    await reading;
    await platform.erase(id, me);
    expect([...store.snapshot().keys()].filter((key) => key.startsWith('read/'))).toEqual([]);
  });

  test('is looked at once for all who read it, whenever they come and go', async () => {
    const readsOf = async (readers: number): Promise<{ readonly gets: readonly string[]; readonly told: readonly (readonly Numbered[])[] }> => {
      const store = new MemoryStore();
      const { platform } = platformOn(store.as('reader'), shelf);
      const { id } = await platform.submit(SPEC, { ...me, id: 'sums' });
      const chance = seededRandom(readers);
      const reading = Array.from({ length: readers }, async (_, i) => {
        if (i === 0) return numbered(await eventsOf(platform.events(id, me)));
        const left = await some(platform, id, -1, 1 + Math.floor(chance() * 300));
        return [...left, ...numbered(await eventsOf(platform.events(id, { ...me, after: left.at(-1)?.seq })))];
      });
      await runLive(store, { ...me, job: id }, new TestFeed());
      const told = await Promise.all(reading);
      return { told, gets: store.log.flatMap(({ kind, key, actor }) => (kind === 'get' && actor === 'reader' && /\/[jm]\//.test(key) ? [key] : [])) };
    };
    const { gets, told } = await readsOf(50);
    expect(new Set(gets.filter((key) => key.includes('/j/'))).size).toBeGreaterThan(3);
    expect(gets.length).toBe(new Set(gets).size);
    for (const events of told) expect(events).toEqual(told[0]);
    expect(told[0]?.at(-1)?.kind).toBe('result');
  });

  test('is told whole to who is so far behind that what he missed is not kept', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf, { eventsMax: 0 });
    const { id } = await platform.submit({ ...SPEC, budget: { length: 800, width: 3 }, sampling: { logit_bias: [[2, -100]] } }, me);
    // One who keeps up, one who reads an event and then nothing until the end, one who comes late.
    const quick = eventsOf(platform.events(id, me));
    const slow = platform.events(id, me)[Symbol.asyncIterator]();
    const first = await slow.next();
    await runLive(store, { ...me, job: id }, new TestFeed());
    const all = numbered(await quick);
    expect(all.length).toBeGreaterThan(2_400);
    const rest: JobEvent[] = first.done === true ? [] : [first.value];
    const late = eventsOf(platform.events(id, { ...me, after: 100 }));
    for (let next = await slow.next(); next.done !== true; next = await slow.next()) rest.push(next.value);
    expect(numbered(rest)).toEqual(all);
    expect(numbered(await late)).toEqual(all.slice(101));
  });

  test('is not read again when its head is written without news', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store.as('reader'), shelf);
    const { id } = await platform.submit(SPEC, me);
    await runToEnd(store, id, { parkAt: 100 });
    const reads = (part: string): number => store.log.filter(({ kind, key, actor }) => kind === 'get' && actor === 'reader' && key.includes(part)).length;
    const counts: number[][] = [];
    for await (const event of platform.events(id, me)) {
      if (event.kind !== 'idle') continue;
      // Each collection writes a fence into the head.
      await collectGarbage(store, { ...me, job: id });
      if (counts.push([reads('/HEAD'), reads('/m/') + reads('/j/')]) === 4) break;
    }
    expect(new Set(counts.map(([heads]) => heads)).size).toBe(4);
    expect(new Set(counts.map(([, objects]) => objects)).size).toBe(1);
  });

  test('and is cancelled is fenced, and its readers hear of it, in this process and in others', async () => {
    const store = new MemoryStore();
    const feed = new TestFeed();
    const { platform: here } = platformOn(store, shelf, { feed });
    const { platform: there } = platformOn(store, shelf);
    const { id } = await here.submit(SPEC, me);
    const reading = [eventsOf(here.events(id, me)), eventsOf(there.events(id, me))];
    let cancelled = false;
    const running = runLive(store, { ...me, job: id }, feed, {
      onReport: async ({ step }) => {
        if (step < 100 || cancelled) return;
        cancelled = true;
        await there.cancel(id, me);
      },
    });
    await expect(running).rejects.toMatchObject({ code: 'ERR_FENCED' });
    for (const events of await Promise.all(reading)) {
      expect(events.at(-1)).toEqual({ kind: 'state', state: 'cancelled' });
      expect(events.some(({ kind }) => kind === 'result')).toBe(false);
      expect(numbered(events).length).toBeGreaterThan(100);
    }
    expect(await there.result(id, me)).toMatchObject({ chains: [{ finish_reason: 'cancelled' }, { finish_reason: 'cancelled' }, {}] });
  });
});

describe('a reader', () => {
  test('of a job that waits is told from time to time that nothing came, and can leave', async () => {
    const { platform } = platformOn(new MemoryStore(), shelf);
    const { id } = await platform.submit(SPEC, me);
    const leave = new AbortController();
    const heard: JobEvent[] = [];
    const reading = (async () => {
      for await (const event of platform.events(id, { ...me, signal: leave.signal })) {
        heard.push(event);
        if (heard.length === 4) leave.abort();
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
    expect(heard).toEqual([{ kind: 'state', state: 'queued' }, { kind: 'idle' }, { kind: 'idle' }, { kind: 'idle' }]);
  });

  test('who leaves while he waits for a live job holds nothing any more', async () => {
    const store = new MemoryStore();
    const feed = new TestFeed();
    const { platform } = platformOn(store, shelf, { feed });
    const { id } = await platform.submit(SPEC, me);
    const leave = new AbortController();
    const reading = eventsOf(platform.events(id, { ...me, signal: leave.signal }));
    while (feed.waiting === 0) await new Promise((resolve) => setImmediate(resolve));
    leave.abort();
    await expect(reading).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
    expect(feed.waiting).toBe(0);
  });

  test.each(['expired', 'poisoned'] as const)('of a job that is %s hears so last', async (state) => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    const { id } = await platform.submit(SPEC, me);
    await runToEnd(store, id, { parkAt: 100 });
    await endJob(store, { ...me, job: id }, state);
    const events = await eventsOf(platform.events(id, me));
    expect(events.at(-1)).toEqual({ kind: 'state', state });
    expect(numbered(events).length).toBeGreaterThan(100);
  });

  test('of a job that is erased meanwhile hears that there is none', async () => {
    const store = new MemoryStore();
    const { platform } = platformOn(store, shelf);
    const { id } = await platform.submit(SPEC, me);
    const reading = (async () => {
      for await (const event of platform.events(id, me)) if (event.kind === 'idle') await platform.erase(id, me);
    })();
    await expect(reading).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
  });
});
