/** KV.md 7, bytes: whatever happens to a stored object, a job gives the answer of an undisturbed run, or says why not; never another. */
import { beforeAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { readJob } from '../../engine/kv/create.ts';
import { formatHead } from '../../engine/kv/head.ts';
import { copyOf, expectUndisturbed, HEAD_KEY, namedObjects, parked, refused, resume, WHERE } from './support.ts';

let store: MemoryStore;
let objects: readonly { readonly key: string; readonly kind: string }[];
beforeAll(async () => {
  store = await parked();
  objects = await namedObjects(store);
});

/** How the resumed job says that it went on, or the reason why it did not; anything else fails the test. */
async function verdictOn(changed: MemoryStore): Promise<string> {
  try {
    const { resumed } = await expectUndisturbed(await resume({ store: changed }));
    const { outcome, reason } = resumed.at(-1) ?? { outcome: 'started', reason: null };
    return reason === null ? outcome : `${outcome}, ${reason.split(':')[0]}`;
  } catch (error) {
    if (!(error instanceof EngineError) || error.code !== 'ERR_CHECKPOINT') throw error;
    return `refused, ${error.message.split(':')[0]}`;
  }
}

const flipped = (at: number) => (bytes: Uint8Array) => {
  const copy = Buffer.from(bytes);
  const index = at < 0 ? copy.length + at : Math.floor(at * (copy.length - 1));
  copy[index] = (copy[index] ?? 0) ^ 0x10;
  return copy;
};

/** What can happen to an object; `null`: it is gone, as when a lifecycle rule deleted it. */
const DAMAGES: readonly (readonly [string, (bytes: Uint8Array) => Uint8Array | null])[] = [
  ['its first byte flipped', flipped(0)],
  ['a byte of its frames flipped', flipped(0.5)],
  ['a byte of its index flipped', flipped(-80)],
  ['its last byte flipped', flipped(-1)],
  ['its last byte gone', (bytes) => bytes.slice(0, -1)],
  ['its trailer gone', (bytes) => bytes.slice(0, -64)],
  ['nothing but its first byte', (bytes) => bytes.slice(0, 1)],
  ['a byte more', (bytes) => Buffer.concat([bytes, Buffer.alloc(1)])],
  ['itself twice', (bytes) => Buffer.concat([bytes, bytes])],
  ['no bytes', () => new Uint8Array(0)],
  ['gone', () => null],
];

describe.each(DAMAGES)('with %s', (_, damage) => {
  test('every kind of object is read around, and the reason is said', async () => {
    for (const kind of ['segment', 'tail', 'journal']) {
      // The last of its kind: what the newest cut needs.
      const key = objects.filter((object) => object.kind === kind).at(-1)?.key;
      const verdict = await verdictOn(await copyOf(store, (name, bytes) => (name === key ? damage(bytes) : bytes)));
      expect(verdict, kind).toMatch(/^(restored|recomputed), (damaged|truncated|missing)$/);
    }
  });

  test('head, manifest and spec are refused, and nothing is written', async () => {
    const named = (await readJob(store, WHERE)).head;
    for (const name of ['HEAD', named.manifest?.name ?? '', `spec-${named.spec}.json`]) {
      const key = `kv/acme/sums/${name}`;
      const changed = await copyOf(store, (other, bytes) => (other === key ? damage(bytes) : bytes));
      if (name === 'HEAD' && !changed.snapshot().has(HEAD_KEY)) {
        await expect(resume({ store: changed })).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
        continue;
      }
      const before = changed.log.length;
      expect(await verdictOn(changed), name).toMatch(/^refused, (damaged|truncated|missing|format)$/);
      expect(changed.log.slice(before).filter(({ kind }) => kind !== 'get')).toEqual([]);
    }
  });
});

test('two objects of one kind in each other\'s place are found, though each is whole', async () => {
  for (const kind of ['segment', 'tail', 'journal']) {
    const [a, b] = objects.filter((object) => object.kind === kind).map(({ key }) => key).slice(-2);
    expect(b, kind).toBeDefined();
    const swapped = await copyOf(store, (key, bytes) => (key === a ? store.snapshot().get(b ?? '') : key === b ? store.snapshot().get(a ?? '') : bytes) ?? bytes);
    expect(await verdictOn(swapped), kind).toMatch(/^(restored|recomputed), (damaged|truncated|identity)$/);
  }
});

test('with every tail and every segment gone, tokens come from the journal', async () => {
  const verdict = await verdictOn(await copyOf(store, (key, bytes) => (/\/[st]\//.test(key) ? null : bytes)));
  expect(verdict).toBe('recomputed, missing');
});

test('with every object gone, tokens come from the spec', async () => {
  expect(await verdictOn(await copyOf(store, (key, bytes) => (/\/[stj]\//.test(key) ? null : bytes)))).toBe('recomputed, missing');
});

test('a job\'s objects under another tenant or name are refused', async () => {
  for (const where of [{ tenant: 'other', job: 'sums' }, { tenant: 'acme', job: 'other' }]) {
    const moved = new MemoryStore();
    for (const [key, bytes] of store.snapshot()) await moved.put(key.replace('kv/acme/sums/', `kv/${where.tenant}/${where.job}/`), [bytes]);
    await expect(resume({ store: moved, where })).rejects.toMatchObject(refused('identity'));
    // Nor with a head that says they are: the manifest says whose it is.
    const { head } = await readJob(store, WHERE);
    await moved.put(`kv/${where.tenant}/${where.job}/HEAD`, [Buffer.from(formatHead({ ...head, ...where }))]);
    await expect(resume({ store: moved, where })).rejects.toMatchObject(refused('identity'));
  }
});

test('a store that answers with fewer bytes, or other ones, once, costs time and no answer', async () => {
  for (const fault of [{ kind: 'truncate', bytes: 100 }, { kind: 'damage', at: 70_001 }] as const) {
    for (const kind of ['s', 't', 'j']) {
      let done = false;
      const faulty = new MemoryStore({
        faults: (operation) => {
          if (done || operation.kind !== 'get' || !operation.key.includes(`/${kind}/`)) return null;
          done = true;
          return fault;
        },
      });
      for (const [key, bytes] of store.snapshot()) await faulty.put(key, [bytes]);
      expect(await verdictOn(faulty), kind).toMatch(/^(restored|recomputed), (damaged|truncated)$/);
    }
  }
});
