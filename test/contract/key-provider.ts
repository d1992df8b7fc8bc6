/** What engine/ports/keys.ts promises, for every provider alike. */
import { randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { DATA_KEY_BYTES, WRAPPED_KEY_BYTES_MAX, type KeyContext, type KeyProvider } from '../../engine/ports/keys.ts';

export interface Providers extends AsyncDisposable {
  readonly provider: KeyProvider;
  /** The same key, opened again. */
  readonly again: KeyProvider;
  readonly otherKey: KeyProvider;
}

export const CONTEXT: KeyContext = { tenant: 'acme', job: 'sums', origin: 'first' };

/** Everything that a person or a log may be shown of an error. */
export async function shownBy(call: Promise<unknown>): Promise<string> {
  const error: unknown = await call.then(() => null, (cause: unknown) => cause);
  expect(error, 'the call failed').not.toBeNull();
  return inspect(error, { depth: 10, showHidden: true });
}

/** No spelling of a secret that anyone would print. */
export function expectNothingOf(secret: Uint8Array, text: string): void {
  const bytes = Buffer.from(secret);
  const spelled = [bytes.toString('hex'), bytes.toString('base64').slice(0, 16), bytes.toString('base64url').slice(0, 16), [...bytes.subarray(0, 4)].join(','), [...bytes.subarray(0, 4)].join(', ')];
  for (const spelling of [...spelled, inspect(bytes).slice(8, 30)]) expect(text.includes(spelling)).toBe(false);
}

export function describeKeyProvider(name: string, start: () => Promise<Providers>): void {
  describe(`keys of ${name}`, () => {
    let its: Providers;
    beforeAll(async () => {
      its = await start();
    });
    afterAll(() => its[Symbol.asyncDispose]());

    const dataKey = randomBytes(DATA_KEY_BYTES);
    const refused = { name: 'EngineError', code: 'ERR_KEY' };

    test('what was wrapped is unwrapped, by another process too', async () => {
      const wrapped = await its.provider.wrap(dataKey, CONTEXT);
      expect(wrapped.byteLength).toBeLessThanOrEqual(WRAPPED_KEY_BYTES_MAX);
      for (const one of [its.provider, its.again]) expect(Buffer.from(await one.unwrap(wrapped, CONTEXT)).equals(dataKey)).toBe(true);
      expect(its.again.id).toBe(its.provider.id);
    });

    test('an unwrapped key is the caller\'s own: zeros in it change no other', async () => {
      const wrapped = await its.provider.wrap(dataKey, CONTEXT);
      (await its.provider.unwrap(wrapped, CONTEXT)).fill(0);
      expect(Buffer.from(await its.provider.unwrap(wrapped, CONTEXT)).equals(dataKey)).toBe(true);
    });

    test('wrapping twice gives different bytes, and none of the data key in them', async () => {
      const [first, second] = [Buffer.from(await its.provider.wrap(dataKey, CONTEXT)), Buffer.from(await its.provider.wrap(dataKey, CONTEXT))];
      expect(first.equals(second)).toBe(false);
      for (let at = 0; at + 8 <= dataKey.length; at++) expect(first.includes(dataKey.subarray(at, at + 8))).toBe(false);
    });

    test('another key does not unwrap it', async () => {
      await expect(its.otherKey.unwrap(await its.provider.wrap(dataKey, CONTEXT), CONTEXT)).rejects.toMatchObject(refused);
    });

    test.each([
      ['tenant', { ...CONTEXT, tenant: 'other' }],
      ['job', { ...CONTEXT, job: 'other' }],
      ['origin', { ...CONTEXT, origin: 'other' }],
      ['job that is spelled across the border', { tenant: 'acmes', job: 'ums', origin: 'first' }],
      ['job and origin exchanged', { tenant: 'acme', job: 'first', origin: 'sums' }],
    ])('another %s does not unwrap it', async (_, context) => {
      await expect(its.provider.unwrap(await its.provider.wrap(dataKey, CONTEXT), context)).rejects.toMatchObject(refused);
    });

    test('a flipped bit in any of its bytes does not unwrap, nor do fewer bytes or more', async () => {
      const wrapped = await its.provider.wrap(dataKey, CONTEXT);
      for (let at = 0; at < wrapped.byteLength; at++) {
        const flipped = Uint8Array.from(wrapped);
        flipped[at] = (flipped[at] ?? 0) ^ (1 << at % 8);
        await expect(its.provider.unwrap(flipped, CONTEXT), `byte ${at}`).rejects.toMatchObject(refused);
      }
      for (const spoiled of [new Uint8Array(1), wrapped.slice(0, -1), wrapped.slice(1), wrapped.slice(0, 20), Buffer.concat([wrapped, Uint8Array.of(0)])]) {
        await expect(its.provider.unwrap(spoiled, CONTEXT), `${spoiled.byteLength} bytes`).rejects.toMatchObject(refused);
      }
    });

    test('no error holds a key, wrapped or not', async () => {
      const wrapped = await its.provider.wrap(dataKey, CONTEXT);
      for (const call of [its.otherKey.unwrap(wrapped, CONTEXT), its.provider.unwrap(wrapped, { ...CONTEXT, job: 'other' })]) {
        const shown = await shownBy(call);
        expectNothingOf(dataKey, shown);
        expectNothingOf(wrapped.subarray(-DATA_KEY_BYTES), shown);
      }
      expectNothingOf(dataKey, inspect(its.provider, { depth: 10, showHidden: true }));
    });

    test('a call that was cancelled before says so', async () => {
      const wrapped = await its.provider.wrap(dataKey, CONTEXT);
      const signal = AbortSignal.abort();
      await expect(its.provider.wrap(dataKey, CONTEXT, { signal })).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
      await expect(its.provider.unwrap(wrapped, CONTEXT, { signal })).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
    });
  });
}
