/**
 * What engine/ports/object-store.ts promises, once, for every adapter. Each promise gets a store of its own that is empty.
 * A promise is a plain function, so that a store which breaks it can be shown to fail.
 */
import { expect } from 'vitest';

import { inParallel } from '../../engine/core/waiting.ts';
import type { Body, ObjectStore, PutOutcome } from '../../engine/ports/object-store.ts';

export interface StorePromise {
  readonly name: string;
  readonly check: (store: ObjectStore) => Promise<void>;
}

const KIB = 1 << 10;
const MIB = 1 << 20;
const ABSENT = { condition: { kind: 'if_absent' } } as const;
const matching = (etag: string) => ({ condition: { kind: 'if_match', etag } }) as const;
const LIMIT = { bytesMax: 256 * MIB };

export const text = (value: string): Body => [Buffer.from(value)];

export async function read(store: ObjectStore, key: string): Promise<string | null> {
  const body = await store.get(key, LIMIT);
  return body === null ? null : Buffer.concat(body.chunks).toString();
}

async function written(outcome: Promise<PutOutcome>): Promise<string> {
  const done = await outcome;
  if (done.kind !== 'written') throw new Error(`expected a write, got ${done.kind}`);
  return done.etag;
}

/** Bytes that are no other place's: a shifted, repeated or missing part shows. */
function pattern(bytes: number, seed = 1): Buffer {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + seed, 0x9e3779b1) ^ (i >>> 7);
  return Buffer.from(words.buffer, 0, bytes);
}

const same = (found: Body | undefined, wanted: Uint8Array) => found !== undefined && Buffer.compare(Buffer.concat(found), wanted) === 0;

async function keysOf(store: ObjectStore, prefix: string): Promise<readonly string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix)) keys.push(key);
  return keys;
}

/** `racers` writers at once; the outcomes in their order. */
function race(racers: number, put: (i: number) => Promise<PutOutcome>): Promise<readonly PutOutcome['kind'][]> {
  return Promise.all(Array.from({ length: racers }, async (_, i) => (await put(i)).kind));
}

export const PROMISES: readonly StorePromise[] = [
  {
    name: 'an object comes back as it was put, whatever its chunks',
    async check(store) {
      const bodies: readonly Body[] = [[], [Buffer.alloc(0)], text('x'), [pattern(3), pattern(70 * KIB), Buffer.alloc(0), pattern(1)], [pattern(5 * MIB)]];
      for (const [i, body] of bodies.entries()) {
        const wanted = Buffer.concat(body);
        const etag = await written(store.put(`bodies/${i}`, body));
        const found = await store.get(`bodies/${i}`, LIMIT);
        expect({ bytes: found?.bytes, etag: found?.etag }).toEqual({ bytes: wanted.byteLength, etag });
        expect(same(found?.chunks, wanted)).toBe(true);
        expect(await store.head(`bodies/${i}`)).toEqual({ bytes: wanted.byteLength, etag });
      }
    },
  },
  {
    name: 'a large object, in parts where the store has them, comes back whole, and any range of it',
    async check(store) {
      const wanted = pattern(70 * MIB + 5);
      await written(store.put('large', [wanted.subarray(0, 3), wanted.subarray(3, 30 * MIB), wanted.subarray(30 * MIB)]));
      const whole = await store.get('large', LIMIT);
      expect(whole?.bytes).toBe(wanted.byteLength);
      expect(same(whole?.chunks, wanted)).toBe(true);
      for (const [offset, bytes] of [[0, 1], [8 * MIB - 1, 2], [16 * MIB - 1, 33 * MIB], [wanted.byteLength - 1, 1], [wanted.byteLength - 5, 500]] as const) {
        const part = await store.get('large', { ...LIMIT, range: { offset, bytes } });
        expect(same(part?.chunks, wanted.subarray(offset, offset + bytes)), `${bytes} from ${offset}`).toBe(true);
        expect(part?.etag).toBe(whole?.etag);
      }
    },
  },
  {
    name: 'into memory that is given for it a body comes right, or elsewhere, and never beyond its end',
    async check(store) {
      await store.put('object', text('0123456789'));
      const into = Buffer.alloc(8, 'x');
      for (const [bytes, wanted] of [[8, '23456789'], [3, '234'], [20, '23456789']] as const) {
        into.fill('x');
        const found = await store.get('object', { ...LIMIT, range: { offset: 2, bytes }, into });
        expect(Buffer.concat(found?.chunks ?? []).toString()).toBe(wanted);
        expect(into.subarray(wanted.length).every((byte) => byte === 0x78)).toBe(true);
      }
      const small = await store.get('object', { ...LIMIT, into: Buffer.alloc(4) });
      expect(Buffer.concat(small?.chunks ?? []).toString()).toBe('0123456789');
    },
  },
  {
    name: 'a range ends where the object ends, and is empty at or past its end',
    async check(store) {
      const etag = await written(store.put('object', text('0123456789')));
      await store.put('empty', []);
      const part = async (key: string, offset: number, bytes: number) => {
        const found = await store.get(key, { ...LIMIT, range: { offset, bytes } });
        return [found === null ? null : Buffer.concat(found.chunks).toString(), found?.bytes];
      };
      expect(await part('object', 2, 3)).toEqual(['234', 3]);
      expect(await part('object', 8, 100)).toEqual(['89', 2]);
      expect(await part('object', 4, 0)).toEqual(['', 0]);
      expect(await part('object', 10, 1)).toEqual(['', 0]);
      expect(await part('object', 1e12, 1)).toEqual(['', 0]);
      expect(await part('empty', 0, 5)).toEqual(['', 0]);
      expect(await store.get('object', { ...LIMIT, range: { offset: 10, bytes: 1 } })).toEqual({ chunks: [], bytes: 0, etag });
    },
  },
  {
    name: 'what is not there is null, false or nothing, never an error',
    async check(store) {
      expect(await store.get('no/such', LIMIT)).toBeNull();
      expect(await store.get('no/such', { ...LIMIT, range: { offset: 5, bytes: 1 } })).toBeNull();
      expect(await store.head('no/such')).toBeNull();
      expect(await store.copy('no/such', 'target')).toBe(false);
      expect(await store.head('target')).toBeNull();
      await store.delete(['no/such', 'no/other']);
      await store.delete([]);
      expect(await keysOf(store, 'no/')).toEqual([]);
    },
  },
  {
    name: 'a body of more than bytesMax is refused; a range of it that is not is given',
    async check(store) {
      await store.put('object', text('0123456789'));
      await expect(store.get('object', { bytesMax: 9 })).rejects.toMatchObject({ code: 'ERR_STORE' });
      await expect(store.get('object', { bytesMax: 0 })).rejects.toMatchObject({ code: 'ERR_STORE' });
      await expect(store.get('object', { bytesMax: 2, range: { offset: 0, bytes: 3 } })).rejects.toMatchObject({ code: 'ERR_STORE' });
      expect((await store.get('object', { bytesMax: 2, range: { offset: 8, bytes: 2 } }))?.bytes).toBe(2);
      expect((await store.get('object', { bytesMax: 10 }))?.bytes).toBe(10);
    },
  },
  {
    name: 'what a put has answered is what every later read, head and list sees',
    async check(store) {
      for (let i = 0; i < 40; i++) {
        const value = 'v'.repeat(i + 1);
        const etag = await written(store.put('kv/HEAD', text(value)));
        expect(await read(store, 'kv/HEAD')).toBe(value);
        expect(await store.head('kv/HEAD')).toEqual({ bytes: i + 1, etag });
        for await (const listed of store.list('kv/')) expect(listed).toMatchObject({ key: 'kv/HEAD', bytes: i + 1 });
        if (i % 8 === 7) {
          await store.delete(['kv/HEAD']);
          expect(await read(store, 'kv/HEAD')).toBeNull();
          expect(await keysOf(store, 'kv/')).toEqual([]);
        }
      }
    },
  },
  {
    name: 'if_absent creates once, and again only after a delete',
    async check(store) {
      await written(store.put('once', text('first'), ABSENT));
      expect(await store.put('once', text('second'), ABSENT)).toEqual({ kind: 'refused' });
      expect(await read(store, 'once')).toBe('first');
      await store.delete(['once']);
      await written(store.put('once', text('third'), ABSENT));
      expect(await read(store, 'once')).toBe('third');
    },
  },
  {
    name: 'if_match writes over the version it names and no other',
    async check(store) {
      const one = await written(store.put('head', text('one')));
      const two = await written(store.put('head', text('two'), matching(one)));
      expect(two).not.toBe(one);
      expect(await store.put('head', text('stale'), matching(one))).toEqual({ kind: 'refused' });
      expect(await store.put('head', text('never'), matching('"0123456789abcdef0123456789abcdef"'))).toEqual({ kind: 'refused' });
      expect(await read(store, 'head')).toBe('two');
      await store.delete(['head']);
      expect(await store.put('head', text('ghost'), matching(two))).toEqual({ kind: 'refused' });
      expect(await store.head('head')).toBeNull();
      await store.put('head', text('other'));
      expect(await store.put('head', text('ghost'), matching(two))).toEqual({ kind: 'refused' });
      expect(await read(store, 'head')).toBe('other');
    },
  },
  {
    name: 'of 20 racing writers with if_match exactly one wins, and its object is there',
    async check(store) {
      let etag = await written(store.put('head', text('start')));
      for (let round = 0; round < 5; round++) {
        const kinds = await race(20, (i) => store.put('head', text(`round ${round} writer ${i}`), matching(etag)));
        expect(kinds.filter((kind) => kind === 'written')).toHaveLength(1);
        expect(await read(store, 'head')).toBe(`round ${round} writer ${kinds.indexOf('written')}`);
        etag = (await store.head('head'))?.etag ?? '';
      }
    },
  },
  {
    name: 'of 20 racing writers with if_absent exactly one wins, and its object is there',
    async check(store) {
      for (let round = 0; round < 5; round++) {
        const kinds = await race(20, (i) => store.put(`new/${round}`, text(`writer ${i}`), ABSENT));
        expect(kinds.filter((kind) => kind === 'written')).toHaveLength(1);
        expect(await read(store, `new/${round}`)).toBe(`writer ${kinds.indexOf('written')}`);
      }
    },
  },
  {
    name: 'of 20 racing writers without a condition all write, and one of their objects is there',
    async check(store) {
      for (let round = 0; round < 3; round++) {
        expect(await race(20, (i) => store.put(`any/${round}`, text(`writer ${i}`)))).toEqual(Array.from({ length: 20 }, () => 'written'));
        expect(await read(store, `any/${round}`)).toMatch(/^writer \d+$/);
      }
    },
  },
  {
    name: 'no increment of five racing counters is lost or counted twice',
    async check(store) {
      await store.put('count', text(''));
      const counted = async () => ((await read(store, 'count')) ?? '').split(' ').filter((name) => name !== '');
      const increment = async (name: string) => {
        for (let tries = 0; tries < 1_000; tries++) {
          const found = await store.get('count', LIMIT);
          const before = Buffer.concat(found?.chunks ?? []).toString();
          const { kind } = await store.put('count', text(`${before} ${name}`), matching(found?.etag ?? ''));
          if (kind === 'written') return;
          // Others may have written on top of it before anyone could look: then it is there.
          if (kind === 'unknown' && (await counted()).includes(name)) return;
        }
        throw new Error('starved');
      };
      const names = Array.from({ length: 5 }, (_, counter) => Array.from({ length: 6 }, (_, i) => `${counter}.${i}`));
      await Promise.all(names.map(async (own) => {
        for (const name of own) await increment(name);
      }));
      expect((await counted()).toSorted()).toEqual(names.flat());
    },
  },
  {
    name: 'a reader among racing writers sees whole bodies only',
    async check(store) {
      await store.put('object', [Buffer.alloc(MIB, 0)]);
      const writers = inParallel(12, 3, undefined, (i) => store.put('object', [Buffer.alloc(MIB, i + 1)]));
      for (let i = 0; i < 12; i++) {
        const found = await store.get('object', LIMIT);
        const bytes = Buffer.concat(found?.chunks ?? []);
        expect(bytes.byteLength).toBe(MIB);
        expect(bytes.equals(Buffer.alloc(MIB, bytes[0]))).toBe(true);
      }
      await writers;
    },
  },
  {
    name: 'a list is in ascending order of keys, of the prefix only, with the sizes',
    async check(store) {
      const keys = ['b', 'a/c', 'a.b', 'a-b', 'a/b/c', 'a/b.c', 'A/z', 'a0', 'a/b-c', 'a=/x', 'ab/c', 'a/bc'];
      for (const [i, key] of keys.entries()) await store.put(key, [Buffer.alloc(i)]);
      const sorted = [...keys].sort();
      expect(await keysOf(store, '')).toEqual(sorted);
      for (const prefix of ['a', 'a/', 'a/b', 'a/b/', 'a.', 'c', 'b']) expect(await keysOf(store, prefix), prefix).toEqual(sorted.filter((key) => key.startsWith(prefix)));
      for await (const { key, bytes } of store.list('a')) expect(bytes, key).toBe(keys.indexOf(key));
    },
  },
  {
    name: 'a list goes on past a thousand objects, and one call deletes as many',
    async check(store) {
      const keys = Array.from({ length: 1_105 }, (_, i) => `many/${String(i).padStart(5, '0')}`);
      await inParallel(keys.length, 16, undefined, (i) => store.put(keys[i] ?? '', text('x')));
      await store.put('more/left', text('here'));
      expect(await keysOf(store, 'many/')).toEqual(keys);
      await store.delete(keys);
      expect(await keysOf(store, '')).toEqual(['more/left']);
    },
  },
  {
    name: 'a copy is an object of its own',
    async check(store) {
      await store.put('from/one', text('original'));
      expect(await store.copy('from/one', 'to/one')).toBe(true);
      await store.put('from/one', text('changed'));
      expect(await read(store, 'to/one')).toBe('original');
      await store.delete(['from/one']);
      expect(await read(store, 'to/one')).toBe('original');
      await store.put('from/two', text('second'));
      expect(await store.copy('from/two', 'to/one')).toBe(true);
      expect(await read(store, 'to/one')).toBe('second');
    },
  },
  {
    name: 'a key that climbs, is absolute or oddly spelled is refused by every call',
    async check(store) {
      for (const key of ['', '/etc/passwd', '../up', 'a/../../b', 'a//b', 'a/', '.', 'a/./b', 'a\0b', 'a\\b', 'a b', 'x#', 'é', 'k'.repeat(300), 'k/'.repeat(500) + 'k']) {
        const refused = { code: 'ERR_STORE_CONFIG' };
        await expect(store.get(key, LIMIT), key).rejects.toMatchObject(refused);
        await expect(store.head(key), key).rejects.toMatchObject(refused);
        await expect(store.put(key, text('x')), key).rejects.toMatchObject(refused);
        await expect(store.copy(key, 'a'), key).rejects.toMatchObject(refused);
        await expect(store.delete([key]), key).rejects.toMatchObject(refused);
      }
      await store.put('good', text('x'));
      await expect(store.copy('good', '../bad')).rejects.toMatchObject({ code: 'ERR_STORE_CONFIG' });
      await expect(keysOf(store, '../')).rejects.toMatchObject({ code: 'ERR_STORE_CONFIG' });
      expect(await keysOf(store, '')).toEqual(['good']);
    },
  },
  {
    name: 'a cancelled call ends with ERR_CANCELLED and changes nothing',
    async check(store) {
      await store.put('object', text('before'));
      const signal = AbortSignal.abort();
      const cancelled = { code: 'ERR_CANCELLED' };
      await expect(store.get('object', { ...LIMIT, signal })).rejects.toMatchObject(cancelled);
      await expect(store.head('object', { signal })).rejects.toMatchObject(cancelled);
      await expect(store.put('object', text('after'), { signal })).rejects.toMatchObject(cancelled);
      await expect(store.put('object', text('after'), { signal, ...ABSENT })).rejects.toMatchObject(cancelled);
      await expect(store.copy('object', 'other', { signal })).rejects.toMatchObject(cancelled);
      await expect(store.delete(['object'], { signal })).rejects.toMatchObject(cancelled);
      await expect(store.probe({ signal })).rejects.toMatchObject(cancelled);
      await expect((async () => { for await (const _ of store.list('', { signal })); })()).rejects.toMatchObject(cancelled);
      expect(await read(store, 'object')).toBe('before');
      expect(await keysOf(store, '')).toEqual(['object']);
    },
  },
  {
    name: 'the probe finds conditional writes and leaves nothing behind',
    async check(store) {
      await store.probe();
      expect(await keysOf(store, '')).toEqual([]);
    },
  },
];
