/** Everything read from a store is hostile until verified: whatever bytes are there, the error says why, and it is never another error. */
import { beforeEach, describe, expect, test } from 'vitest';

import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import { createJob, readJob } from '../../engine/kv/create.ts';
import { endJob } from '../../engine/kv/end.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import { formatHead, parseHead, type Head } from '../../engine/kv/head.ts';
import { parseManifest, type Manifest } from '../../engine/kv/manifest.ts';
import { manifestName, specName } from '../../engine/kv/names.ts';
import type { Reason } from '../../engine/kv/reason.ts';
import { commitSteps, content, createdJob, HEAD_KEY, headOf, options, SPEC, step, takenJob, WHERE } from './support.ts';

const PREFIX = 'kv/acme/sums/';
const REASON = /^(damaged|truncated|layout|model|numerics|numerics_drift|format|missing|identity): ./;

const PACK = { name: `s/0/1-w-0-${'0'.repeat(16)}.seg`, at: 0 };

let store: MemoryStore;
let head: Head;
let manifest: Manifest;

/** A job with everything: a prompt's tail, shared and own segments, journals folded and flushed. */
beforeEach(async () => {
  store = new MemoryStore();
  await createdJob(store);
  const lease = await takenJob(store);
  const objects = [step(0, 'segment'), step(1, 'tail'), step(2, 'tail'), step(3, 'journal'), step(4, 'tail')];
  await lease.commit({
    state: 'running', objects,
    manifest: (refs) => content(refs, {
      step: 9, promptTail: 4, journal: [3], keys: { sums: 'AAAA' },
      slices: [{ slice: 1, epoch: 1, outcome: 'started', reason: null, from: 0, recomputed: 0, prefillRate: null }],
      chains: [{ tokens: 9, finish: null, segments: [0], tails: [{ at: 4, object: 1 }, { at: 9, object: 2 }] }],
    }),
  });
  await lease.flushJournal(step(5));
  [head, manifest] = [headOf(store), lease.manifest as Manifest];
});

const put = (key: string, bytes: string | Uint8Array) => store.put(key, [Buffer.from(bytes)]);

async function refusal(work: Promise<unknown>): Promise<string> {
  const error: unknown = await work.then(() => null, (reason: unknown) => reason);
  expect(error).toBeInstanceOf(EngineError);
  const { code, message } = error as EngineError;
  expect(code).toBe('ERR_CHECKPOINT');
  expect(message).toMatch(REASON);
  return message.split(':')[0] ?? '';
}

/** Whoever meets the head refuses it, and nobody writes. */
async function headRefusals(bytes: string | Uint8Array): Promise<string> {
  await put(HEAD_KEY, bytes);
  const before = [...store.snapshot().keys()];
  const reasons = new Set<string>();
  for (const work of [
    () => readJob(store, WHERE), () => takenJob(store, { force: true }), () => endJob(store, WHERE, 'cancelled', options()),
    () => collectGarbage(store, WHERE, options()), () => createJob(store, WHERE, SPEC, options()),
  ]) reasons.add(await refusal(work()));
  expect([...store.snapshot().keys()]).toEqual(before);
  expect(Buffer.from(store.snapshot().get(HEAD_KEY) ?? [])).toEqual(Buffer.from(bytes));
  expect(reasons.size).toBe(1);
  return [...reasons][0] ?? '';
}

/** The text as the manifest that the head names, digest and all. */
async function manifestRefusal(text: string): Promise<string> {
  const digest = sha256(text);
  const name = manifestName(manifest.version, digest);
  await put(PREFIX + name, text);
  await put(HEAD_KEY, formatHead({ ...head, manifest: { name, bytes: Buffer.byteLength(text), digest } }));
  expect(await refusal(takenJob(store, { force: true }))).toBe(await refusal(readJob(store, WHERE)));
  return await refusal(readJob(store, WHERE));
}

const text = (value: unknown) => JSON.stringify(value);

describe('a head', () => {
  test('with any bit flipped, or cut anywhere, is refused', () => {
    const bytes = Buffer.from(formatHead(head));
    const parse = (changed: Uint8Array) => {
      const message = (() => {
        try {
          return text(parseHead(Buffer.from(changed).toString('latin1'), WHERE));
        } catch (error) {
          return error instanceof EngineError && error.code === 'ERR_CHECKPOINT' ? error.message : String(error);
        }
      })();
      return REASON.test(message) ? null : message;
    };
    for (let at = 0; at < bytes.byteLength; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const changed = Buffer.from(bytes);
        changed[at] = (changed[at] ?? 0) ^ (1 << bit);
        expect(parse(changed), `bit ${bit} of byte ${at}`).toBeNull();
      }
      expect(parse(bytes.subarray(0, at)), `cut at ${at}`).toBeNull();
    }
  });

  test.each<[string, Reason, () => string | Uint8Array]>([
    ['empty', 'truncated', () => ''],
    ['not UTF-8', 'damaged', () => Buffer.from([0x22, 0xff, 0x22])],
    ['with a byte order mark', 'damaged', () => `\ufeff${formatHead(head)}`],
    ['no JSON', 'damaged', () => 'HEAD'],
    ['null', 'damaged', () => 'null'],
    ['a list', 'damaged', () => '[]'],
    ['with spaces', 'damaged', () => formatHead(head).replace(':', ': ')],
    ['with bytes behind it', 'damaged', () => `${formatHead(head)}\n`],
    ['with a key twice', 'damaged', () => formatHead(head).replace('"epoch":', '"epoch":7,"epoch":')],
    ['with a key more', 'damaged', () => formatHead(head).replace('"epoch":', '"more":7,"epoch":')],
    ['with a prototype', 'damaged', () => formatHead(head).replace('"epoch":', '"__proto__":{"epoch":9},"epoch":')],
    ['nested deeply', 'damaged', () => '['.repeat(2_000) + ']'.repeat(2_000)],
    ['of 1 MB', 'damaged', () => 'x'.repeat(1 << 20)],
    ['of the next format', 'format', () => text({ format: 'dmskv/2', head: 'new' })],
    ['of no format', 'damaged', () => text({ version: 1 })],
    ['of another job', 'identity', () => formatHead({ ...head, job: 'other' })],
    ['of another tenant', 'identity', () => formatHead({ ...head, tenant: 'other' })],
    ['with a count of 2^63', 'damaged', () => formatHead({ ...head, version: 2 ** 63 })],
    ['with a count below zero', 'damaged', () => formatHead({ ...head, epoch: -1 })],
    ['with half a count', 'damaged', () => formatHead({ ...head, slice: 0.5 })],
    ['with a fence ahead of it', 'damaged', () => formatHead({ ...head, gc: head.version + 1 })],
    ['with another state', 'damaged', () => formatHead({ ...head, state: 'paused' as Head['state'] })],
    ['that climbs out of the job', 'damaged', () => formatHead({ ...head, manifest: { name: '../other/m/1.json', bytes: 1, digest: 'a'.repeat(64) } })],
    ['that names a journal as its manifest', 'damaged', () => formatHead({ ...head, manifest: head.journal[0] ?? null })],
    ['that names itself', 'damaged', () => formatHead({ ...head, journal: [{ name: 'HEAD', bytes: 1, digest: 'a'.repeat(64) }] })],
    ['that names a journal twice', 'damaged', () => formatHead({ ...head, journal: [...head.journal, ...head.journal] })],
    ['with 17 journals', 'damaged', () => formatHead({ ...head, journal: Array.from({ length: 17 }, (_, i) => ({ name: `j/0/${i}`, bytes: 1, digest: 'a'.repeat(64) })) })],
    ['that is a tombstone with objects', 'damaged', () => formatHead({ ...head, state: 'erased' })],
  ])('%s is %s', async (_, reason, bytes) => {
    expect(await headRefusals(bytes())).toBe(reason);
  });

  test('that names a manifest of terabytes is refused before it is read', async () => {
    const digest = 'a'.repeat(64);
    await put(HEAD_KEY, formatHead({ ...head, manifest: { name: manifestName(0, digest), bytes: 2 ** 52, digest } }));
    const before = store.log.length;
    expect(await refusal(readJob(store, WHERE))).toBe('damaged');
    expect(store.log.slice(before).map(({ key }) => key)).toEqual([HEAD_KEY]);
  });

  test('at its longest is within its bound', () => {
    const most = Number.MAX_SAFE_INTEGER;
    const ref = (name: string) => ({ name, bytes: most, digest: 'f'.repeat(64) });
    const longest: Head = {
      format: 'dmskv/1', tenant: 't'.repeat(64), job: 'j'.repeat(64), version: most, epoch: most, writeNonce: 'f'.repeat(32), gc: most, state: 'incomplete', slice: most,
      spec: 'f'.repeat(64), strikes: most, owner: 'o'.repeat(128), manifest: ref(manifestName(most - 1, 'f'.repeat(64))),
      journal: Array.from({ length: 16 }, (_, i) => ref(`j/${most - 1}/${most}-${most - i}-${'f'.repeat(16)}.jrn`)),
    };
    expect(parseHead(formatHead(longest), { tenant: longest.tenant, job: longest.job })).toEqual(longest);
    expect(formatHead(longest).length).toBeLessThanOrEqual(4_096);
  });
});

describe('a manifest', () => {
  test('with any byte changed, or cut or longer by one, is refused', async () => {
    const key = PREFIX + (head.manifest?.name ?? '');
    const bytes = Buffer.from(store.snapshot().get(key) ?? []);
    for (let at = 0; at < bytes.byteLength; at += 3) {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8));
      await put(key, changed);
      expect(await refusal(readJob(store, WHERE))).toBe('damaged');
    }
    for (const [cut, reason] of [[bytes.subarray(1), 'truncated'], [bytes.subarray(0, -1), 'truncated'], [Buffer.alloc(0), 'truncated'], [Buffer.concat([bytes, Buffer.from(' ')]), 'damaged']] as const) {
      await put(key, cut);
      expect(await refusal(readJob(store, WHERE))).toBe(reason);
    }
  });

  const changed = (more: object) => text({ ...manifest, ...more });
  const chain = (more: object) => changed({ chains: [{ ...manifest.chains[0], ...more }] });
  const firstObject = (more: object) => changed({ objects: manifest.objects.map((object, i) => (i === 0 ? { ...object, ...more } : object)) });

  /** The first object is a segment. */
  const inPack = (more: object, format = 'dmskv/2') => changed({ format, objects: manifest.objects.map((object, i) => (i === 0 ? { ...object, ...more } : object)) });

  test.each<[string, Reason, () => string]>([
    ['of the next format', 'format', () => changed({ format: 'dmskv/3' })],
    ['of the format with packs and without one', 'damaged', () => changed({ format: 'dmskv/2' })],
    ['of the format without packs and with one', 'damaged', () => inPack({ pack: PACK }, 'dmskv/1')],
    ['with a place below zero', 'damaged', () => inPack({ pack: { ...PACK, at: -1 } })],
    ['with a place at 2^53', 'damaged', () => inPack({ pack: { ...PACK, at: 2 ** 53 } })],
    ['with a pack that has a key more', 'damaged', () => inPack({ pack: { ...PACK, more: 1 } })],
    ['with a pack of another kind', 'damaged', () => inPack({ pack: { ...PACK, name: `t/0/1-w-${'0'.repeat(16)}.tail` } })],
    ['with a pack that is an object', 'damaged', () => inPack({ pack: { ...PACK, name: `s/0/1-0-0-${'0'.repeat(16)}.seg` } })],
    ['with a pack that climbs', 'damaged', () => inPack({ pack: { ...PACK, name: `../other/${PACK.name}` } })],
    ['with a pack of a newer generation', 'damaged', () => inPack({ pack: { ...PACK, name: PACK.name.replace(/^s\/\d+/, 's/99') } })],
    ['with a pack for an object', 'damaged', () => inPack({ name: PACK.name }, 'dmskv/1')],
    ['of another job', 'identity', () => changed({ job: 'other' })],
    ['of another tenant', 'identity', () => changed({ tenant: 'other' })],
    ['of another spec', 'damaged', () => changed({ spec: 'a'.repeat(64) })],
    ['of an epoch that has not begun', 'damaged', () => changed({ epoch: head.epoch + 1 })],
    ['of another generation than its name', 'damaged', () => changed({ version: manifest.version + 1 })],
    ['with a key twice', 'damaged', () => text(manifest).replace('"step":', '"step":1,"step":')],
    ['with a key more', 'damaged', () => changed({ more: 1 })],
    ['with a prototype', 'damaged', () => text(manifest).replace('"step":', '"__proto__":{"step":1},"step":')],
    ['nested deeply', 'damaged', () => text(manifest).replace('"slices":[', `"slices":[${'['.repeat(1 << 20)}${']'.repeat(1 << 20)},`)],
    ['with a number beyond all', 'damaged', () => text(manifest).replace('"step":9', '"step":1e999')],
    ['with a count of 2^63', 'damaged', () => text(manifest).replace('"step":9', '"step":9223372036854775808')],
    ['with a count below zero', 'damaged', () => changed({ promptTokens: -1 })],
    ['with 257 chains', 'damaged', () => changed({ chains: Array.from({ length: 257 }, () => manifest.chains[0]) })],
    ['with five tails', 'damaged', () => chain({ tails: [0, 1, 2, 3, 4].map((at) => ({ at, object: 1 })) })],
    ['with cuts that do not ascend', 'damaged', () => chain({ tails: [...(manifest.chains[0]?.tails ?? [])].reverse() })],
    ['with a cut beyond its tokens', 'damaged', () => chain({ tokens: 8 })],
    ['with an index beyond its objects', 'damaged', () => chain({ segments: [0, 99] })],
    ['with an index below zero', 'damaged', () => chain({ segments: [-1] })],
    ['with a segment twice', 'damaged', () => chain({ segments: [0, 0] })],
    ['with a tail for a segment', 'damaged', () => chain({ segments: [1] })],
    ['with an object that nothing uses', 'damaged', () => chain({ segments: [] })],
    ['with an object twice', 'damaged', () => changed({ objects: [...manifest.objects, manifest.objects[0]] })],
    ['with a journal twice', 'damaged', () => changed({ journal: [3, 3] })],
    ['with a name that climbs', 'damaged', () => firstObject({ name: `../other/${manifest.objects[0]?.name ?? ''}` })],
    ['with a name of a newer generation', 'damaged', () => firstObject({ name: (manifest.objects[0]?.name ?? '').replace(/^s\/\d+/, 's/99') })],
    ['with an object of a job whose key it lacks', 'damaged', () => firstObject({ origin: 'other' })],
    ['with an object of a key named like a property', 'damaged', () => firstObject({ origin: 'constructor' })],
    ['with an id of megabytes', 'damaged', () => changed({ modelId: 'm'.repeat(1 << 20) })],
    ['with a key that is no base64', 'damaged', () => changed({ keys: { sums: '<script>' } })],
  ])('%s is %s', async (_, reason, bytes) => {
    expect(await manifestRefusal(bytes())).toBe(reason);
  });

  test('larger than its bound is refused before it is read', async () => {
    const bytes = changed({ ended: 'x'.repeat(LIMITS.MANIFEST_BYTES_MAX) });
    const before = store.log.length;
    expect(await manifestRefusal(bytes)).toBe('damaged');
    expect(store.log.slice(before).filter(({ kind, key }) => kind === 'get' && key.startsWith(`${PREFIX}m/`))).toEqual([]);
  });

  test('of another job\'s folder is refused, though every digest fits', async () => {
    const other = { tenant: 'acme', job: 'other' };
    for (const [key, bytes] of store.snapshot()) await put(key.replace(PREFIX, 'kv/acme/other/'), bytes);
    expect(await refusal(readJob(store, other))).toBe('identity');
    await put('kv/acme/other/HEAD', formatHead({ ...head, job: 'other' }));
    expect(await refusal(readJob(store, other))).toBe('identity');
  });

  test('edited at random either is what it says or is refused', () => {
    const random = seededRandom(4);
    const original = text(manifest);
    const pieces = ['"', '{', '}', '[', ']', ',', ':', '0', '9', '-', '1e9', 'null', 'true', '\\u0000', '"a"', '\ud800'];
    let accepted = 0;
    for (let i = 0; i < 4_000; i++) {
      let edited = original;
      for (let edits = Math.ceil(random() * 3); edits > 0; edits--) {
        const at = Math.floor(random() * edited.length);
        edited = edited.slice(0, at) + (random() < 0.3 ? '' : (pieces[Math.floor(random() * pieces.length)] ?? '')) + edited.slice(at + Math.floor(random() * 4));
      }
      try {
        expect(text(parseManifest(edited, WHERE)).length).toBe(edited.length);
        accepted++;
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(REASON) as string });
      }
    }
    expect(accepted).toBeLessThan(2_000);
  });
});

describe('the rest', () => {
  test('a spec that is another, cut, or gone is refused', async () => {
    const key = PREFIX + specName(head.spec);
    const spec = Buffer.from(SPEC);
    for (const [bytes, reason] of [[SPEC.replace('1+1', '1+2'), 'damaged'], [spec.subarray(1), 'damaged'], [Buffer.from([0xff]), 'damaged']] as const) {
      await put(key, bytes);
      expect(await refusal(takenJob(store, { force: true }))).toBe(reason);
    }
    await store.delete([key]);
    expect(await refusal(takenJob(store, { force: true }))).toBe('missing');
    expect(headOf(store)).toEqual(head);
  });

  test('an object that is cut, longer, or gone is refused', async () => {
    const lease = await takenJob(store, { force: true });
    const [ref] = manifest.objects;
    if (ref === undefined) throw new Error('no object');
    for (const [bytes, reason] of [[Buffer.alloc(ref.bytes - 1), 'truncated'], [Buffer.alloc(ref.bytes + 1), 'damaged'], [Buffer.alloc(0), 'truncated']] as const) {
      await put(PREFIX + ref.name, bytes);
      expect(await refusal(lease.read(ref))).toBe(reason);
    }
    await store.delete([PREFIX + ref.name]);
    expect(await refusal(lease.read(ref))).toBe('missing');
  });

  test('an object that is gone because the job was taken away is no damage', async () => {
    const lease = await takenJob(store, { force: true });
    const next = await takenJob(store, { force: true });
    await next.commit({ state: 'running', manifest: (refs) => content(refs), objects: [step(7)] });
    await collectGarbage(store, WHERE, options());
    await expect(lease.read(manifest.objects[0] ?? { name: '', bytes: 0, digest: '' })).rejects.toMatchObject({ code: 'ERR_FENCED' });
    await expect(commitSteps(lease, 8)).rejects.toMatchObject({ code: 'ERR_FENCED' });
  });

  test.each(['', 'null', '[]', '{}', '{"format":"dmskv/1","job":"../x","spec":""}', 'x'.repeat(10_000)])('an idempotency record %j is refused', async (bytes) => {
    await put(`idem/acme/${sha256('k')}`, bytes);
    await refusal(createJob(store, { tenant: 'acme', job: 'fresh' }, SPEC, { ...options(), idempotencyKey: 'k' }));
  });
});
