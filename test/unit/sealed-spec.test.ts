/** Specs that say nothing of what was asked to who has no key. */
import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';

import { KeyFile } from '../../engine/adapters/key-file.ts';
import { holds, isSealed, openSpec, outlineOf, sealSpec } from '../../engine/job/sealed-spec.ts';
import { type StoredSpec, parseStoredSpec } from '../../engine/job/stored-spec.ts';

const WHERE = { tenant: 'acme', job: 'sums' };
const SPEC: StoredSpec = {
  format: 'ruminate-job/1', spec: { model: 'countdown', variant: 'cr8', prompt: 'the secret prompt', stop: ['secret'] }, seed: '7', prompt: [41, 42, 43],
  lengths: [64, 32], kv: 'f32', page_slots: 4, model_id: 'ab'.repeat(32), parent: null,
};
const TEXT = JSON.stringify(SPEC);
const keys = new KeyFile(randomBytes(32));

test('what was sealed comes back byte for byte, and twice is not the same text', async () => {
  const [one, two] = [await sealSpec(TEXT, WHERE, keys), await sealSpec(TEXT, WHERE, keys)];
  expect(one).not.toBe(two);
  expect(await openSpec(one, WHERE, keys)).toBe(TEXT);
  expect(await holds(TEXT, keys)(one, WHERE)).toBe(true);
  expect(await holds(TEXT.replace('secret', 'public'), keys)(two, WHERE)).toBe(false);
});

test('shows model, lengths, identity and parent, and nothing else', async () => {
  const sealed = await sealSpec(TEXT, WHERE, keys);
  expect(sealed).not.toMatch(/secret|41,42/);
  expect(outlineOf(sealed)).toEqual({ spec: { model: 'countdown', variant: 'cr8' }, lengths: [64, 32], model_id: SPEC.model_id, parent: null, prompt: null });
  expect(outlineOf(TEXT)).toEqual(SPEC);
  expect(() => parseStoredSpec(sealed)).toThrow(/^format: /);
});

test('without a key nothing is sealed, and what is in the clear is read with a key too', async () => {
  expect(await sealSpec(TEXT, WHERE, null)).toBe(TEXT);
  expect(await openSpec(TEXT, WHERE, keys)).toBe(TEXT);
  expect([isSealed(TEXT), isSealed(await sealSpec(TEXT, WHERE, keys))]).toEqual([false, true]);
});

test('is opened by its own key, for its own job, as it was sealed', async () => {
  const sealed = await sealSpec(TEXT, WHERE, keys);
  await expect(openSpec(sealed, WHERE, null)).rejects.toMatchObject({ code: 'ERR_KEY' });
  await expect(openSpec(sealed, WHERE, new KeyFile(randomBytes(32)))).rejects.toMatchObject({ code: 'ERR_KEY' });
  await expect(openSpec(sealed, { ...WHERE, job: 'other' }, keys)).rejects.toMatchObject({ code: 'ERR_KEY' });
  await expect(openSpec(sealed, { ...WHERE, tenant: 'other' }, keys)).rejects.toMatchObject({ code: 'ERR_KEY' });
  const { box, ...rest } = JSON.parse(sealed) as { readonly box: string; readonly shown: { readonly lengths: number[] } };
  const changed = [
    { ...rest, shown: { ...rest.shown, lengths: [65, 32] }, box },
    { ...rest, box: Buffer.from(box, 'base64').subarray(0, -1).toString('base64') },
    { ...rest, box: Buffer.from(Buffer.from(box, 'base64').map((byte, i) => (i === 5 ? byte ^ 1 : byte))).toString('base64') },
    { ...rest, box: Buffer.alloc(15).toString('base64') },
  ];
  for (const one of changed) await expect(openSpec(JSON.stringify(one), WHERE, keys)).rejects.toMatchObject({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^identity: /) as string });
});

test.each([['{"format":"ruminate-job/1 sealed",'], ['{"format":"ruminate-job/1 sealed","shown":{},"key":"AA==","box":"AA=="}'], ['{"format":"ruminate-job/1 sealed","key":"%","box":""}']])('%s is refused with a reason', (text) => {
  expect(() => outlineOf(text)).toThrow(/^(damaged|format): /);
});
