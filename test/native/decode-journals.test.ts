/** Journals read without native code: the same report as the native engine's, and a refusal for the same reason wherever it refuses. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, test } from 'vitest';

import { readFrames } from '../../engine/checkpoint/object-reader.ts';
import { crc32c } from '../../engine/core/crc32c.ts';
import { decodeJournals } from '../../engine/job/decode-journals.ts';
import { type JournalSources, decodeJournals as native, type SaveOptions, type Seal } from '../../engine/runtime/native.ts';
import { bundledModel, open, ROOT, runOptions } from '../helpers/engine.ts';

const key = (first: number) => Uint8Array.from({ length: 32 }, (_, i) => first + i);
const OPEN: Seal = { digestKey: null, dataKey: null, context: 'acme\0sums' };
const SEALED: Seal = { digestKey: key(1), dataKey: key(101), context: 'acme\0sums' };

/** Three journals: after the prompt, in the middle, at the end. */
async function journalsOf(seal: Seal, codec: SaveOptions['codec'], length = 60): Promise<JournalSources> {
  using engine = await open(bundledModel('cr4'));
  using run = engine.createRun(runOptions({ checkpointed: true, length, width: 3 }));
  const objects: JournalSources['objects'][number][] = [];
  const save = async () => {
    const saved = await run.save({ ...seal, delta: false, epoch: 1, n: objects.length, codec });
    for (const { bytes, digest } of saved.objects) objects.push({ chunks: [Uint8Array.from(bytes.subarray(0, 99)), Uint8Array.from(bytes.subarray(99))], bytes: bytes.byteLength, digest, seal: 0 });
  };
  await run.prefill();
  await save();
  await run.step(20);
  await save();
  while (run.report().running > 0) await run.step(1_000);
  await save();
  const { layoutId } = await engine.identity();
  return { objects, seals: [seal], checkDigests: true, layoutId, vocabSize: engine.info.vocabSize };
}

/** The word that an ERR_CHECKPOINT begins with, or the code of another refusal. */
async function reasonOf(decode: typeof native, sources: JournalSources): Promise<string> {
  try {
    await decode(sources);
    return 'read';
  } catch (error) {
    const { code, message } = error as { code: string; message: string };
    return code === 'ERR_CHECKPOINT' ? message.slice(0, message.indexOf(':')) : code;
  }
}

test.each([['raw', OPEN], ['lossless', OPEN], ['raw', SEALED], ['lossless', SEALED]] as const)('%s journals are what the native engine reads', async (codec, seal) => {
  const sources = await journalsOf(seal, codec, 300);
  expect(sources.objects).toHaveLength(3);
  expect(await decodeJournals(sources)).toEqual(await native(sources));
  // Without the first they do not begin at the beginning.
  const cut = { ...sources, objects: sources.objects.slice(1) };
  expect(await reasonOf(decodeJournals, cut)).toBe(await reasonOf(native, cut));
  expect(await reasonOf(decodeJournals, { ...sources, objects: [] })).toBe('read');
});

test('every byte that is changed, and every end that is missing, is refused for the reason that the native engine gives', async () => {
  const sources = await journalsOf(SEALED, 'lossless', 24);
  const [first, ...rest] = sources.objects;
  const whole = Buffer.concat([...(first?.chunks ?? [])]);
  const with_ = (bytes: Uint8Array): JournalSources => ({ ...sources, objects: [{ digest: first?.digest ?? '', seal: 0, bytes: first?.bytes ?? 0, chunks: [bytes] }, ...rest] });
  const differ: string[] = [];
  for (let at = 0; at < whole.byteLength; at++) {
    const flipped = Uint8Array.from(whole);
    flipped[at] = (flipped[at] as number) ^ (1 << (at % 8));
    for (const bytes of [flipped, Uint8Array.from(whole.subarray(0, at))]) {
      const [mine, theirs] = [await reasonOf(decodeJournals, with_(bytes)), await reasonOf(native, with_(bytes))];
      if (mine !== theirs || mine === 'read') differ.push(`${at}: ${mine}, native ${theirs}`);
    }
  }
  expect(differ).toEqual([]);
});

test.each([
  ['another tenant\'s digest key', { ...SEALED, digestKey: key(2) }],
  ['another data key', { ...SEALED, dataKey: key(7) }],
  ['no data key', { ...SEALED, dataKey: null }],
  ['another job', { ...SEALED, context: 'acme\0other' }],
])('%s reads nothing', async (_, seal) => {
  const sources = { ...(await journalsOf(SEALED, 'raw', 12)), seals: [seal] };
  expect(await reasonOf(decodeJournals, sources)).toBe(await reasonOf(native, sources));
  expect(await reasonOf(decodeJournals, sources)).not.toBe('read');
});

test('a plain journal where the job is sealed, another layout, another vocabulary, another order: as the native engine', async () => {
  const plain = await journalsOf(OPEN, 'raw', 12);
  const { objects } = plain;
  const sealed = { ...SEALED, digestKey: null };
  for (const sources of [{ ...plain, seals: [sealed] }, { ...plain, layoutId: '0'.repeat(32) }, { ...plain, vocabSize: 3 }, { ...plain, objects: objects.toReversed() }, { ...plain, objects: [...objects, ...objects] }]) {
    const theirs = await reasonOf(native, sources);
    expect(theirs).not.toBe('read');
    expect(await reasonOf(decodeJournals, sources)).toBe(theirs);
  }
});

test.each([
  ['journal-raw.jrn', 'journal', OPEN],
  ['journal-raw-encrypted.jrn', 'journal', { digestKey: null, dataKey: key(101), context: 'acme\0job-1' }],
  ['segment-raw.seg', 'segment', OPEN],
  ['segment-raw-keyed.seg', 'segment', { digestKey: key(1), dataKey: null, context: 'acme\0job-1' }],
  ['tail-planes-zstd-keyed.tail', 'tail', { digestKey: key(1), dataKey: null, context: 'acme\0job-1' }],
  ['tail-planes-zstd-keyed-encrypted.tail', 'tail', { digestKey: key(1), dataKey: key(101), context: 'acme\0job-1' }],
] as const)('the golden %s of version 1 is read', async (file, kind, seal) => {
  const object = new Uint8Array(readFileSync(path.join(ROOT, 'test', 'golden', 'dmskv1', file)));
  const digest = Buffer.from(object.subarray(-40, -8)).toString('hex');
  const layoutId = Buffer.from(object.subarray(40, 56)).toString('hex');
  const frames = await readFrames(object, { kind, layoutId, digest, bytes: object.byteLength }, seal);
  expect(frames.length).toBe(new DataView(object.buffer, object.byteOffset).getUint32(12, true));
});

test('CRC-32C of the published vector', () => {
  expect(crc32c(new TextEncoder().encode('123456789'))).toBe(0xe3069283);
});
