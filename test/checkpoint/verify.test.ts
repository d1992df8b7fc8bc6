/** `checkpoint verify` finds whatever is wrong with a stored job, and says where and why. */
import { beforeAll, describe, expect, test } from 'vitest';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { isRight, verifyJob, type Verified } from '../../engine/checkpoint/verify.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import { createJob } from '../../engine/kv/create.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { formatHead, parseHead } from '../../engine/kv/head.ts';
import type { Manifest } from '../../engine/kv/manifest.ts';
import { HEAD, jobPrefix, manifestName, specName } from '../../engine/kv/names.ts';
import { openChecker } from '../../engine/checkpoint/check.ts';
import { changed, flipped, keyFile, manifestIn, resumed, storedJob, storeWith, WHERE, type Content } from '../helpers/stored-job.ts';

let whole: Content;
let later: Content;
let sealed: Content;
let manifest: Manifest;
let key: Awaited<ReturnType<typeof keyFile>>;

beforeAll(async () => {
  const store = new MemoryStore();
  await storedJob(store);
  whole = store.snapshot();
  manifest = await manifestIn(store);
  await resumed(store);
  later = store.snapshot();
  key = await keyFile();
  const other = new MemoryStore();
  await storedJob(other, { keys: key.provider });
  sealed = other.snapshot();
  return () => key.remove();
}, 300_000);

async function verify(content: Content, keys: typeof key.provider | null = null): Promise<Verified> {
  return await verifyJob(await storeWith(content), WHERE, { keys });
}

function headOf(content: Content): ReturnType<typeof parseHead> {
  return parseHead(Buffer.from(content.get(jobPrefix(WHERE) + HEAD) ?? []).toString(), WHERE);
}

function nameOf(kind: 'segment' | 'tail' | 'journal', which = 0): string {
  const suffix = { segment: '.seg', tail: '.tail', journal: '.jrn' }[kind];
  const found = manifest.objects.filter(({ name }) => name.endsWith(suffix))[which];
  if (found === undefined) throw new Error(`no ${kind} ${which}`);
  return found.name;
}

test('a job that is right is right in every object', async () => {
  const verified = await verify(whole);
  expect(verified).toMatchObject({ state: 'parked', complete: true, faults: [] });
  expect(isRight(verified)).toBe(true);
  expect(verified.objects).toBe(manifest.objects.length + 3);
  expect(verified.frames).toBeGreaterThan(verified.objects);
});

test('progress ends with all bytes', async () => {
  let last = { doneBytes: -1, bytes: 0 };
  await verifyJob(await storeWith(whole), WHERE, { keys: null, onProgress: (progress) => { last = progress; } });
  expect(last.doneBytes).toBe(last.bytes);
});

describe.each(['segment', 'tail', 'journal'] as const)('a %s', (kind) => {
  test.each([
    ['with a flipped bit in its middle', (bytes: Uint8Array) => flipped(bytes.length >> 1)(bytes), 'damaged'],
    ['with a flipped bit in its header', flipped(20), 'damaged'],
    ['of a newer version', flipped(9), 'format'],
    ['with a flipped bit in its trailer', (bytes: Uint8Array) => flipped(bytes.length - 20)(bytes), 'damaged'],
    ['without its last byte', (bytes: Uint8Array) => bytes.subarray(0, bytes.length - 1), 'truncated'],
    ['that is empty', () => new Uint8Array(0), 'truncated'],
    ['with a byte more', (bytes: Uint8Array) => Buffer.concat([bytes, Buffer.of(0)]), 'damaged'],
    ['that is gone', () => null, 'missing'],
  ])('%s is named with its reason, and nothing else is', async (_, change, reason) => {
    const verified = await verify(changed(whole, nameOf(kind), change));
    expect(verified.faults).toMatchObject([{ name: nameOf(kind), reason, message: expect.stringMatching(new RegExp(`^${reason}: `)) as string }]);
    expect(isRight(verified)).toBe(false);
  });
});

test('an object in place of another is damaged', async () => {
  const other = whole.get(jobPrefix(WHERE) + nameOf('tail', 1));
  const verified = await verify(changed(whole, nameOf('tail'), () => other ?? null));
  expect(verified.faults).toHaveLength(1);
});

test('a flipped bit in any byte of a journal is found', async () => {
  const ref = manifest.objects.find(({ name }) => name === nameOf('journal'));
  const bytes = whole.get(jobPrefix(WHERE) + nameOf('journal'));
  if (ref === undefined || bytes === undefined) throw new Error('no journal');
  using checker = await openChecker(WHERE, manifest, { keys: null });
  expect((await checker.check(ref, [bytes])).frames).toBeGreaterThan(0);
  for (let at = 0; at < bytes.length; at++) {
    await expect(checker.check(ref, [flipped(at)(Uint8Array.from(bytes))]), `byte ${at}`).rejects.toMatchObject({ code: 'ERR_CHECKPOINT' });
  }
});

test('every fault is listed, in the order of the manifest', async () => {
  const names = manifest.objects.map(({ name }) => name);
  let content = whole;
  for (const name of names) content = changed(content, name, flipped(100));
  expect((await verify(content)).faults.map(({ name }) => name)).toEqual(names);
});

describe('a head, spec or manifest', () => {
  const cases: readonly (readonly [string, () => string, (bytes: Uint8Array) => Uint8Array | null, string])[] = [
    ['head with a flipped bit', () => HEAD, flipped(60), 'damaged'],
    ['head that is empty', () => HEAD, () => new Uint8Array(0), 'truncated'],
    ['head of a newer format', () => HEAD, (bytes) => Buffer.from(Buffer.from(bytes).toString().replace('dmskv/1', 'dmskv/2')), 'format'],
    ['spec with a flipped bit', () => specName(manifest.spec), flipped(30), 'damaged'],
    ['spec that is gone', () => specName(manifest.spec), () => null, 'missing'],
    ['manifest with a flipped bit', () => headOf(whole).manifest?.name ?? '', flipped(60), 'damaged'],
    ['manifest that is gone', () => headOf(whole).manifest?.name ?? '', () => null, 'missing'],
    ['manifest without its last byte', () => headOf(whole).manifest?.name ?? '', (bytes) => bytes.subarray(1), 'truncated'],
  ];
  test.each(cases)('%s is one fault', async (_, name, change, reason) => {
    expect((await verify(changed(whole, name(), change))).faults).toMatchObject([{ name: name(), reason }]);
  });

  test('another job\'s head is a fault of identity', async () => {
    const other = { tenant: 'local', job: 'other' };
    const head = Buffer.from(formatHead({ ...headOf(whole), ...other }));
    expect((await verify(changed(whole, HEAD, () => head))).faults).toMatchObject([{ name: HEAD, reason: 'identity' }]);
  });

  test('a manifest that claims another layout makes every object a fault of layout', async () => {
    const head = headOf(whole);
    const text = JSON.stringify({ ...(JSON.parse(Buffer.from(whole.get(jobPrefix(WHERE) + (head.manifest?.name ?? '')) ?? []).toString()) as object), layoutId: '0'.repeat(32) });
    const ref = { name: manifestName(manifest.version, sha256(text)), bytes: text.length, digest: sha256(text) };
    const content = new Map([...whole, [jobPrefix(WHERE) + ref.name, Buffer.from(text)], [jobPrefix(WHERE) + HEAD, Buffer.from(formatHead({ ...head, manifest: ref }))]]);
    const { faults } = await verify(content);
    expect(new Set(faults.map(({ reason }) => reason))).toEqual(new Set(['layout']));
    expect(faults).toHaveLength(manifest.objects.length);
  });
});

test('a job that goes on while it is verified is verified as it is then', async () => {
  let swapped = false;
  const store: MemoryStore = await storeWith(whole, {
    before: async ({ kind, key: at }) => {
      if (swapped || kind !== 'get' || !at.endsWith('.tail')) return;
      swapped = true;
      await store.delete([...whole.keys()]);
      for (const [name, bytes] of later) await store.put(name, [bytes]);
      const { collectGarbage } = await import('../../engine/kv/gc.ts');
      await collectGarbage(store, WHERE);
    },
  });
  expect(await verifyJob(store, WHERE, { keys: null })).toMatchObject({ state: 'done', faults: [] });
  expect(swapped).toBe(true);
});

describe('a job that is sealed', () => {
  test('is right with its key', async () => {
    expect(await verify(sealed, key.provider)).toMatchObject({ complete: true, faults: [] });
  });

  test('is not called right without it, and a flipped bit is found all the same', async () => {
    const verified = await verify(sealed);
    expect(verified).toMatchObject({ complete: false, faults: [] });
    expect(isRight(verified)).toBe(false);
    const { objects } = await manifestIn(await storeWith(sealed));
    const name = objects[0]?.name ?? '';
    expect((await verify(changed(sealed, name, (bytes) => flipped(bytes.length >> 1)(bytes)))).faults).toMatchObject([{ name, reason: 'damaged' }]);
  });

  test('says so of another key', async () => {
    const other = await keyFile();
    try {
      const verified = await verify(sealed, other.provider);
      expect(verified).toMatchObject({ complete: false, faults: [{ reason: 'key' }] });
    } finally {
      other.remove();
    }
  });

  test('is not one whose objects somebody replaced by plain ones', async () => {
    const store = await storeWith(sealed);
    const { objects } = await manifestIn(store);
    const name = objects.find((ref) => ref.name.endsWith('.jrn'))?.name ?? '';
    const plain = whole.get(jobPrefix(WHERE) + nameOf('journal')) ?? null;
    expect((await verify(changed(sealed, name, () => plain))).faults).toMatchObject([{ name }]);
  });
});

test('jobs with nothing committed, and erased ones, are right', async () => {
  const store = new MemoryStore();
  await createJob(store, WHERE, '{}');
  expect(await verifyJob(store, WHERE, { keys: null })).toMatchObject({ state: 'queued', objects: 2, faults: [] });
  await eraseJob(store, WHERE);
  expect(await verifyJob(store, WHERE, { keys: null })).toMatchObject({ state: 'erased', objects: 1, faults: [] });
  await expect(verifyJob(store, { ...WHERE, job: 'none' }, { keys: null })).rejects.toMatchObject({ code: 'ERR_JOB_NOT_FOUND' });
});

test('a cancelled verification stops', async () => {
  const stop = new AbortController();
  await expect(verifyJob(await storeWith(whole), WHERE, { keys: null, signal: stop.signal, onProgress: () => stop.abort() })).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
});
