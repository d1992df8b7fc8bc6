/** Objects of a job that are damaged, cut short or gone: the same answer with a reason, or a refusal with one; never another answer. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { systemClock } from '../../engine/core/clock.ts';
import { runJob } from '../../engine/job/run.ts';
import { openSession } from '../../engine/job/session.ts';
import { ManualClock } from '../helpers/clock.ts';
import { sha256 } from '../helpers/models.ts';
import { parseHead } from '../../engine/kv/head.ts';
import { HEAD, jobPrefix, parseName } from '../../engine/kv/names.ts';
import { type Bench, Crash, benchOf, comparable, create, jobOf, slice } from './jobs.ts';

const WHERE = { tenant: 'acme', job: 'sums' };
const PREFIX = jobPrefix(WHERE);
/** A look every 64 steps and where a chain ends: deltas at 0 and 154, journals at 64, 90 and 218. */
const POLICY = { deltaTokens: 100, deltaMs: 1e9, journalMs: 0, firstMs: 0 };
/** What is read or computed must not hang on how fast the machine is. */
const HOW = { policy: POLICY, clock: new ManualClock() };
const STOP = 230;

const DAMAGES: Readonly<Record<string, (bytes: Uint8Array) => Uint8Array | null>> = {
  'with a byte flipped': (bytes) => bytes.map((byte, i) => (i === bytes.byteLength >> 1 ? byte ^ 0x10 : byte)),
  'one byte short': (bytes) => bytes.slice(0, -1),
  'one byte long': (bytes) => Uint8Array.from([...bytes, 0]),
  empty: () => new Uint8Array(0),
  gone: () => null,
};

let bench: Bench;
let whole: string;
/** After a park, and as a crash leaves them: with journals that no manifest lists. */
const stores: Record<'parked' | 'crashed', ReadonlyMap<string, Uint8Array>> = { parked: new Map(), crashed: new Map() };

/** Of the file that describes damage: once, before it. */
export function prepareDamage(): void {
  const session = openSession();
  afterAll(() => session[Symbol.dispose]());
  beforeAll(async () => {
    bench = await benchOf(session, jobOf('countdown cr8'));
    whole = comparable(await runJob(bench.job, { ...bench, clock: systemClock, cancelled: null, deadline: null }));
    for (const how of ['parked', 'crashed'] as const) {
      const store = new MemoryStore();
      await create(store, WHERE, bench);
      if (how === 'parked') expect(await slice(store, WHERE, bench, { stopAt: STOP, ...HOW })).toMatchObject({ kind: 'parked' });
      else await expect(slice(store, WHERE, bench, { crashAt: STOP, ...HOW })).rejects.toThrow(Crash);
      stores[how] = store.snapshot();
    }
  });
}

async function storeWith(objects: ReadonlyMap<string, Uint8Array>, key: string, bytes: Uint8Array | null): Promise<MemoryStore> {
  const store = new MemoryStore();
  for (const [name, body] of objects) if (name !== key) await store.put(name, [body]);
  if (bytes !== null) await store.put(key, [bytes]);
  return store;
}

function keysOf(how: 'parked' | 'crashed', kind: string): string[] {
  return [...stores[how].keys()].filter((key) => parseName(key.slice(PREFIX.length))?.kind === kind);
}

/** @param most objects of each kind, from the newest. */
export function describeDamage(most: number, damages = Object.keys(DAMAGES)): void {
  describe.each(['parked', 'crashed'] as const)('a %s job', (how) => {
    test('has objects of every kind', () => {
      for (const kind of ['head', 'spec', 'manifest', 'segment', 'tail', 'journal']) expect(keysOf(how, kind), kind).not.toEqual([]);
      const head = parseHead(Buffer.from(stores[how].get(PREFIX + HEAD) ?? []).toString(), WHERE);
      expect([head.state, head.journal.length]).toEqual(how === 'parked' ? ['parked', 0] : ['running', 1]);
    });

    describe.each(damages)('with one object %s', (damage) => {
      test.each(['segment', 'tail', 'journal'])('goes on to the same answer, whichever %s it is, and once more after a crash', async (kind) => {
        const seen = new Set<string>();
        for (const key of keysOf(how, kind).slice(-most)) {
          const store = await storeWith(stores[how], key, DAMAGES[damage]?.(stores[how].get(key) ?? new Uint8Array(0)) ?? null);
          await expect(slice(store, WHERE, bench, { crashAt: STOP + 60, ...HOW })).rejects.toThrow(Crash);
          const outcome = await slice(store, WHERE, bench, HOW);
          if (outcome.kind !== 'ended') throw new Error('the job did not end');
          expect(comparable(outcome.result), key).toBe(whole);
          // A take that finds all and is killed before it has more leaves nothing; one that finds less has told.
          const { resumed } = outcome.result;
          const [first] = resumed;
          expect(resumed.at(-1)?.reason, `${key}: what was lost is lost once`).toBeNull();
          // An object that the newest cut does not need is not read.
          if (first !== undefined && first.reason !== null) seen.add(`${first.outcome}: ${/^\w+/.exec(first.reason)?.[0] ?? ''}`);
        }
        const word = { gone: 'missing', 'one byte short': 'truncated', empty: 'truncated' }[damage] ?? 'damaged';
        expect([...seen].every((said) => said.endsWith(word)), [...seen].join(', ')).toBe(true);
        expect(seen.size).toBeGreaterThan(0);
      }, 240_000);

      test.each(['head', 'spec', 'manifest'])('is refused with a reason if it is the %s that is read, and nothing is written', async (kind) => {
        const keys = keysOf(how, kind);
        const key = keys.at(-1) ?? '';
        const store = await storeWith(stores[how], key, DAMAGES[damage]?.(stores[how].get(key) ?? new Uint8Array(0)) ?? null);
        const contents = () => [...store.snapshot()].map(([name, bytes]) => [name, sha256(bytes)]);
        const before = contents();
        const error = await slice(store, WHERE, bench, HOW).then(() => null, (thrown: unknown) => thrown);
        if (kind === 'head' && damage === 'gone') expect(error).toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
        else expect(error).toMatchObject({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^(damaged|truncated|missing|format|identity): /) as string });
        expect(contents()).toEqual(before);
      });
    });
  });
}
