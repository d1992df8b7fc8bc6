/** A job's data keys: who can open which, what a fork holds, and when they end. */
import { createHmac, randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';

import { KeyFile } from '../../engine/adapters/key-file.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import type { Manifest, ObjectRef } from '../../engine/kv/manifest.ts';
import type { JobKey } from '../../engine/kv/names.ts';
import { forkKeys, openKeys } from '../../engine/kv/seal.ts';
import type { KeyProvider } from '../../engine/ports/keys.ts';
import { code, content, WHERE } from './support.ts';

const provider = new KeyFile(randomBytes(32));
const CHILD: JobKey = { tenant: 'acme', job: 'child' };
const NONE = { dataKey: null, digestKey: null };

function refOf(origin: string, n = 0): ObjectRef {
  return { name: `j/0/1-${n}-${'0'.repeat(16)}.jrn`, bytes: 1, digest: '0'.repeat(64), origin };
}

/** Only what openKeys looks at matters here. */
function manifestWith(keys: Manifest['keys'], where = WHERE): Manifest {
  return { ...content([]), format: 'dmskv/1', ...where, version: 1, epoch: 1, spec: '0'.repeat(64), keys } as Manifest;
}

/** As hex, so that zeroing changes nothing of it. */
function hex(key: Uint8Array | null): string {
  return Buffer.from(key ?? []).toString('hex');
}

describe('the keys of a job', () => {
  test('are new for a new job, and the same again from its manifest', async () => {
    using fresh = await openKeys(provider, WHERE, null);
    using other = await openKeys(provider, WHERE, null);
    using again = await openKeys(provider, WHERE, manifestWith(fresh.wrappedFor([])));
    expect(again.own).toEqual(fresh.own);
    expect(again.wrappedFor([])).toEqual(fresh.wrappedFor([]));
    expect(hex(fresh.own.dataKey)).toMatch(/^[0-9a-f]{64}$/);
    for (const name of ['dataKey', 'digestKey'] as const) expect(hex(other.own[name])).not.toBe(hex(fresh.own[name]));
    expect(fresh.own.context).toBe('acme\0sums');
  });

  test('have a digest key that is HKDF-SHA256 of the data key for the tenant', async () => {
    using keys = await openKeys(provider, WHERE, null);
    // RFC 5869 with an empty salt and one block, written out.
    const extracted = createHmac('sha256', Buffer.alloc(32)).update(keys.own.dataKey ?? '').digest();
    const expanded = createHmac('sha256', extracted).update('dmskv/1 digest\0acme\u0001').digest();
    expect(hex(keys.own.digestKey)).toBe(expanded.toString('hex'));
  });

  test('are none without a provider: nothing is sealed, and no digest is keyed', async () => {
    using keys = await openKeys(null, WHERE, null);
    expect(keys.own).toMatchObject(NONE);
    expect(keys.of('any')).toMatchObject(NONE);
    expect(keys.wrappedFor([refOf('any')])).toBeNull();
    using again = await openKeys(null, WHERE, manifestWith(null));
    expect(again.own).toMatchObject(NONE);
  });

  test('a sealed job without a key, and a job in the clear with one, are refused with what to do', async () => {
    using keys = await openKeys(provider, WHERE, null);
    await expect(openKeys(null, WHERE, manifestWith(keys.wrappedFor([])))).rejects.toMatchObject({ code: 'ERR_KEY', message: expect.stringContaining('set RUMINATE_KEY') as string });
    await expect(openKeys(provider, WHERE, manifestWith(null))).rejects.toMatchObject({ code: 'ERR_KEY', message: expect.stringContaining('unset RUMINATE_KEY') as string });
  });

  test('are those of one job, one tenant and one provider', async () => {
    using keys = await openKeys(provider, WHERE, null);
    const manifest = manifestWith(keys.wrappedFor([]));
    const refused = code('ERR_KEY');
    await expect(openKeys(new KeyFile(randomBytes(32)), WHERE, manifest)).rejects.toMatchObject(refused);
    await expect(openKeys(provider, { ...WHERE, tenant: 'other' }, manifest)).rejects.toMatchObject(refused);
    await expect(openKeys(provider, CHILD, manifest)).rejects.toMatchObject(refused);
    // Put into another job's manifest, under either name.
    for (const name of [CHILD.job, WHERE.job]) await expect(openKeys(provider, CHILD, manifestWith({ [name]: keys.wrappedFor([])?.sums ?? '' }, CHILD))).rejects.toMatchObject(refused);
  });

  test('a flipped bit of a wrapped key, or base64 that is not what it says, is refused', async () => {
    using keys = await openKeys(provider, WHERE, null);
    const wrapped = Buffer.from(keys.wrappedFor([])?.sums ?? '', 'base64');
    for (let at = 0; at < wrapped.length; at++) {
      const flipped = Buffer.from(wrapped);
      flipped[at] = (flipped[at] ?? 0) ^ 1;
      await expect(openKeys(provider, WHERE, manifestWith({ sums: flipped.toString('base64') })), `byte ${at}`).rejects.toMatchObject(code('ERR_KEY'));
    }
    // Two bits of the last character that mean nothing: another text with the same bytes.
    await expect(openKeys(provider, WHERE, manifestWith({ sums: 'AAF=' }))).rejects.toMatchObject({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^damaged: /) as string });
  });

  test('a provider that gives something else than a data key is not believed', async () => {
    const odd: KeyProvider = { id: 'odd', wrap: async () => new Uint8Array(4_000), unwrap: async () => new Uint8Array(16) };
    await expect(openKeys(odd, WHERE, null)).rejects.toMatchObject(code('ERR_KEY'));
    await expect(openKeys(odd, WHERE, manifestWith({ sums: 'AAAA' }))).rejects.toMatchObject(code('ERR_KEY'));
  });

  test('what another job sealed and the manifest has no key for cannot be opened', async () => {
    using keys = await openKeys(provider, WHERE, null);
    expect(() => keys.of('stranger')).toThrow(expect.objectContaining({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^identity: /) as string }));
  });

  test('a cancelled call asks no provider', async () => {
    await expect(openKeys(provider, WHERE, null, { signal: AbortSignal.abort() })).rejects.toMatchObject(code('ERR_CANCELLED'));
  });
});

describe('a fork', () => {
  test('has a key of its own and the ancestor\'s, wrapped for itself', async () => {
    using parent = await openKeys(provider, WHERE, null);
    using child = await forkKeys(provider, CHILD, parent, [refOf('sums', 0), refOf('sums', 1)]);
    expect(child.of('sums')).toEqual(parent.own);
    expect(hex(child.own.dataKey)).not.toBe(hex(parent.own.dataKey));
    const wrapped = child.wrappedFor([refOf('sums')]);
    expect(Object.keys(wrapped ?? {}).sort()).toEqual(['child', 'sums']);
    expect(wrapped?.sums).not.toBe(parent.wrappedFor([])?.sums);
    using again = await openKeys(provider, CHILD, manifestWith(wrapped, CHILD));
    expect([again.own, again.of('sums')]).toEqual([child.own, parent.own]);
    // Exchanged within the one manifest.
    await expect(openKeys(provider, CHILD, manifestWith({ child: wrapped?.sums ?? '', sums: wrapped?.child ?? '' }, CHILD))).rejects.toMatchObject(code('ERR_KEY'));
  });

  test('holds what its objects need and no more, however deep it is', async () => {
    using parent = await openKeys(provider, WHERE, null);
    using child = await forkKeys(provider, CHILD, parent, [refOf('sums')]);
    using deep = await forkKeys(provider, { ...CHILD, job: 'deep' }, child, [refOf('sums'), refOf('child')]);
    expect([deep.of('sums'), deep.of('child')]).toEqual([parent.own, child.own]);
    using shallow = await forkKeys(provider, { ...CHILD, job: 'shallow' }, child, [refOf('child')]);
    expect(() => shallow.of('sums')).toThrow(expect.objectContaining({ code: 'ERR_CHECKPOINT' }));
    // Once nothing of the ancestor is listed any more, its key goes.
    expect(Object.keys(deep.wrappedFor([refOf('child')]) ?? {}).sort()).toEqual(['child', 'deep']);
  });

  test('outlives its parent\'s keys', async () => {
    const parent = await openKeys(provider, WHERE, null);
    const before = hex(parent.own.dataKey);
    using child = await forkKeys(provider, CHILD, parent, [refOf('sums')]);
    parent[Symbol.dispose]();
    expect(hex(child.of('sums').dataKey)).toBe(before);
  });

  test('is sealed if its parent is, in the clear if its parent is', async () => {
    using sealed = await openKeys(provider, WHERE, null);
    using clear = await openKeys(null, WHERE, null);
    await expect(forkKeys(null, CHILD, sealed, [refOf('sums')])).rejects.toMatchObject(code('ERR_KEY'));
    await expect(forkKeys(provider, CHILD, clear, [refOf('sums')])).rejects.toMatchObject(code('ERR_KEY'));
    using child = await forkKeys(null, CHILD, clear, [refOf('sums')]);
    expect(child.wrappedFor([refOf('sums')])).toBeNull();
    await expect(forkKeys(provider, WHERE, sealed, [refOf('sums')])).rejects.toMatchObject(code('ERR_OPTION'));
  });

  test('of more ancestors than a manifest may name is refused before a key is wrapped', async () => {
    const origins = Array.from({ length: LIMITS.KEYS_MAX }, (_, i) => `a${i}`);
    let key = await openKeys(provider, { ...WHERE, job: 'a0' }, null);
    for (let i = 1; i < LIMITS.KEYS_MAX; i++) key = await forkKeys(provider, { ...WHERE, job: `a${i}` }, key, origins.slice(0, i).map((origin) => refOf(origin)));
    const wraps: string[] = [];
    const counting: KeyProvider = { id: provider.id, wrap: (...args) => (wraps.push(args[1].origin), provider.wrap(...args)), unwrap: (...args) => provider.unwrap(...args) };
    await expect(forkKeys(counting, CHILD, key, origins.map((origin) => refOf(origin)))).rejects.toMatchObject(code('ERR_OPTION'));
    expect(wraps).toEqual([]);
  });
});

describe('keys in memory', () => {
  test('are zeros once disposed of, and no seal is given out any more', async () => {
    const keys = await openKeys(provider, WHERE, null);
    const { dataKey, digestKey } = keys.own;
    keys[Symbol.dispose]();
    expect([hex(dataKey), hex(digestKey)]).toEqual(['0'.repeat(64), '0'.repeat(64)]);
    expect(() => keys.own).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
  });

  test('are zeros when another one of the job cannot be had', async () => {
    using parent = await openKeys(provider, WHERE, null);
    using child = await forkKeys(provider, CHILD, parent, [refOf('sums')]);
    const given: Uint8Array[] = [];
    const failing: KeyProvider = {
      id: 'failing',
      wrap: async (dataKey, context) => {
        given.push(dataKey);
        if (context.origin === 'sums') throw new Error('no');
        return new Uint8Array(8);
      },
      unwrap: async (...args) => {
        if (args[1].origin === 'sums') throw new Error('no');
        const key = await provider.unwrap(...args);
        given.push(key);
        return key;
      },
    };
    await expect(openKeys(failing, CHILD, manifestWith(child.wrappedFor([refOf('sums')]), CHILD))).rejects.toThrow('no');
    await expect(forkKeys(failing, { ...CHILD, job: 'second' }, parent, [refOf('sums')])).rejects.toThrow('no');
    expect(given.map(hex)).toEqual(given.map(() => '0'.repeat(64)));
    expect(given.length).toBeGreaterThanOrEqual(2);
    expect(hex(parent.own.dataKey)).not.toBe('0'.repeat(64));
  });
});
