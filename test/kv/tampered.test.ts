/**
 * Beside hostile.test.ts, which has each rule by itself: every field of a head and a manifest replaced, removed, doubled or spelled oddly, with
 * checks and digests that fit, so that nothing but the rules can refuse it; and records and names that are not what was written.
 */
import { describe, expect, test } from 'vitest';

import { seededRandom } from '../../engine/adapters/memory-faults.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { LIMITS } from '../../engine/core/limits.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import { createJob } from '../../engine/kv/create.ts';
import { formatHead, parseHead, type Head } from '../../engine/kv/head.ts';
import { manifestProblem, parseManifest, type Manifest } from '../../engine/kv/manifest.ts';
import { objectName, parseName, type ObjectName } from '../../engine/kv/names.ts';
import { readManifest } from '../../engine/kv/read.ts';
import { code, content, createdJob, HEAD_KEY, options, SPEC, step, takenJob, WHERE } from './support.ts';

const REASON = /^(damaged|truncated|format|missing|identity): ./;

/** The error's reason word; fails the test if it is any other error than a refusal. */
function reasonOf(error: unknown, what: string): string {
  expect(error, what).toMatchObject({ ...code('ERR_CHECKPOINT'), message: expect.stringMatching(REASON) as string });
  return (error as Error).message.split(':')[0] ?? '';
}

/** `null`: it was not refused. */
function refusal(parse: () => unknown, what: string): string | null {
  try {
    parse();
    return null;
  } catch (error) {
    return reasonOf(error, what);
  }
}

async function refusalOf(work: Promise<unknown>, what: string): Promise<string | null> {
  return await work.then(() => null, (error: unknown) => reasonOf(error, what));
}

type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** A head with `change` and a check that fits: only what the fields say can refuse it. */
function headText(head: Head, change: Readonly<Record<string, unknown>>): string {
  const fields = { ...head, ...change };
  return JSON.stringify({ ...fields, check: sha256(JSON.stringify(fields)).slice(0, 16) });
}

/** Two chains that share a segment, with tails, a journal, and a journal in the head: every field in use. */
async function committed(store: MemoryStore): Promise<{ readonly head: Head; readonly manifest: Manifest }> {
  await createdJob(store);
  const lease = await takenJob(store);
  const objects = [step(0, 'segment'), step(1, 'segment'), step(2, 'tail'), step(3, 'tail'), step(4), step(5, 'tail')];
  await lease.commit({
    state: 'running', objects,
    manifest: (refs) => content(refs, {
      step: 9, journal: [4], promptTail: 5, keys: { sums: 'c2VjcmV0' },
      slices: [{ slice: 1, epoch: 1, outcome: 'started', reason: null, from: 0, recomputed: 0, prefillRate: null }],
      chains: [{ tokens: 9, finish: null, segments: [0, 1], tails: [{ at: 4, object: 2 }, { at: 9, object: 3 }] }, { tokens: 3, finish: 'stop', segments: [0], tails: [] }],
    }),
  });
  await lease.flushJournal(step(6));
  if (lease.manifest === null) throw new Error('nothing was committed');
  return { head: lease.head, manifest: lease.manifest };
}

/** Every way to shorten it, to lengthen it by one byte, and to flip one bit. */
function* damages(bytes: Uint8Array, bits = 8): Generator<readonly [string, Uint8Array]> {
  for (let length = 0; length < bytes.byteLength; length++) yield [`cut to ${length}`, bytes.subarray(0, length)];
  for (const more of [0, 10, 32, 48, 125, 255]) yield [`byte ${more} added`, Uint8Array.from([...bytes, more])];
  for (let at = 0; at < bytes.byteLength; at++) {
    for (let bit = 0; bit < bits; bit++) yield [`bit ${bit} of byte ${at} flipped`, bytes.map((byte, i) => (i === at ? byte ^ (1 << bit) : byte))];
  }
}

const HUGE: readonly Json[] = [null, true, -1, 0.5, 1e300, 2 ** 53, '', 'x'.repeat(5_000), [], {}, [[[[[[]]]]]], '../../other/HEAD', 'kv/acme/sums/HEAD'];

/** The value with one of its parts replaced, removed or doubled, as text: JSON that no JSON.stringify would write is among it. */
function* mutations(text: string, random: () => number): Generator<readonly [string, string]> {
  const paths: (readonly (string | number)[])[] = [];
  const walk = (value: Json, path: readonly (string | number)[]): void => {
    paths.push(path);
    if (value !== null && typeof value === 'object') for (const [key, inner] of Object.entries(value)) walk(inner as Json, [...path, Array.isArray(value) ? Number(key) : key]);
  };
  walk(JSON.parse(text) as Json, []);
  for (const path of paths.slice(1)) {
    const last = path.at(-1) ?? '';
    const changed = (change: (parent: Record<string | number, Json>) => void): string => {
      const whole = JSON.parse(text) as Json;
      change(path.slice(0, -1).reduce((at, key) => (at as Record<string | number, Json>)[key] as Json, whole) as Record<string | number, Json>);
      return JSON.stringify(whole);
    };
    for (const value of HUGE) yield [`${path.join('.')} = ${JSON.stringify(value).slice(0, 40)}`, changed((parent) => (parent[last] = value))];
    yield [`${path.join('.')} is gone`, changed((parent) => (Array.isArray(parent) ? parent.splice(Number(last), 1) : delete parent[last]))];
    yield [`${path.join('.')} has a sibling`, changed((parent) => (Array.isArray(parent) ? parent.push(parent[last] ?? null) : (parent['extra'] = 1)))];
    const marked = changed((parent) => (parent[last] = '@@'));
    for (const odd of ['NaN', 'Infinity', '-0', '1e2', '01', '9007199254740993', '1.0', '{"a":1,"a":1}', '{"__proto__":{}}', `${'['.repeat(200)}${']'.repeat(200)}`, 'undefined']) {
      yield [`${path.join('.')} = ${odd.slice(0, 40)}`, marked.replace('"@@"', odd)];
    }
  }
  for (let i = 0; i < 300; i++) {
    const [from, to] = [Math.floor(random() * text.length), Math.floor(random() * text.length)].sort((a, b) => a - b);
    yield [`a piece removed (${from}, ${to})`, text.slice(0, from) + text.slice(to)];
    yield [`a piece doubled (${from}, ${to})`, text.slice(0, to) + text.slice(from)];
  }
}

describe('a tampered head', () => {
  test('with a check that fits, a field out of bounds is refused and any other head keeps its invariants', async () => {
    const { head } = await committed(new MemoryStore());
    let accepted = 0;
    for (const [what, text] of mutations(JSON.stringify(head), seededRandom(1))) {
      let whole = text;
      try {
        const fields = JSON.parse(text) as Record<string, unknown>;
        if (JSON.stringify(fields) === text) whole = headText(fields as Head, {});
      } catch {
        // Not JSON: as it is.
      }
      let parsed: Head | null = null;
      if (refusal(() => (parsed = parseHead(whole, WHERE)), what) !== null) continue;
      accepted++;
      const kept = parsed as unknown as Head;
      expect(formatHead(parseHead(formatHead(kept), WHERE)), what).toBe(formatHead(kept));
      expect(kept.gc <= kept.version && kept.epoch <= kept.version && kept.journal.length <= LIMITS.HEAD_JOURNAL_MAX, what).toBe(true);
    }
    // A spec's digest, sizes and the like may be anything of their kind.
    expect(accepted).toBeLessThan(40);
  });
});

describe('a tampered manifest', () => {
  test('with a digest that fits, it is refused or keeps its invariants', async () => {
    const { manifest } = await committed(new MemoryStore());
    let [accepted, refused] = [0, 0];
    for (const [what, text] of mutations(JSON.stringify(manifest), seededRandom(2))) {
      let parsed: Manifest | null = null;
      if (refusal(() => (parsed = parseManifest(text, WHERE)), what) !== null) {
        refused++;
        continue;
      }
      accepted++;
      expect(manifestProblem(parsed as unknown as Manifest), what).toBeNull();
      expect(parsed, what).toEqual(JSON.parse(text));
    }
    // What may be anything of its kind: a reason, a digest, a time, how a chain ended.
    expect(refused).toBeGreaterThan(accepted * 10);
  });

  test('as deep or as long as may be, it is refused within its bound', async () => {
    const store = new MemoryStore();
    const { head } = await committed(store);
    for (const text of ['['.repeat(LIMITS.MANIFEST_BYTES_MAX), `${'{"a":'.repeat(1 << 20)}1${'}'.repeat(1 << 20)}`, `{"format":"dmskv/1","objects":[${'0,'.repeat(1 << 21)}0]}`]) {
      const digest = sha256(text);
      const ref = { name: `m/0-${digest}.json`, bytes: Buffer.byteLength(text), digest };
      await store.put(`kv/acme/sums/${ref.name}`, [Buffer.from(text)]);
      expect(await refusalOf(readManifest(store, WHERE, { ...head, manifest: ref }), text.slice(0, 20))).toBe('damaged');
    }
  });
});

describe('a tampered record or name', () => {
  test('an idempotency record that is not what was written makes no job', async () => {
    const store = new MemoryStore();
    const create = () => createJob(store, WHERE, SPEC, { ...options(), idempotencyKey: 'k' });
    await create();
    const key = `idem/acme/${sha256('k')}`;
    for (const [what, damaged] of damages(store.snapshot().get(key) ?? new Uint8Array())) {
      await store.put(key, [damaged]);
      expect(await refusalOf(create(), what), what).not.toBeNull();
    }
    await createJob(store, { tenant: 'evil', job: 'x' }, SPEC, { ...options(), idempotencyKey: 'k' });
    await store.copy(`idem/evil/${sha256('k')}`, key);
    expect(await refusalOf(create(), 'of another tenant')).toBe('identity');
    expect([...store.snapshot().keys()].filter((name) => name.endsWith('/HEAD'))).toEqual([HEAD_KEY, 'kv/evil/x/HEAD']);
  });

  test('a name says what it was made of; anything else is none', () => {
    const random = seededRandom(3);
    const int = (below: number) => Math.floor(random() * below);
    const kinds = ['segment', 'tail', 'journal'] as const;
    for (let i = 0; i < 2_000; i++) {
      const kind = kinds[int(3)] ?? 'tail';
      const name: ObjectName = { kind, version: int(1e15), epoch: int(1e6), chain: kind === 'journal' ? -2 : int(300) - 2, n: kind === 'tail' ? 0 : int(1e6), nonce: sha256(`${i}`).slice(0, 16) };
      const text = objectName(name);
      expect(parseName(text)).toEqual(name);
      const at = int(text.length);
      const changed = text.slice(0, at) + String.fromCharCode(32 + int(95)) + text.slice(at + 1);
      const parsed = parseName(changed);
      if (parsed !== null && 'nonce' in parsed) expect(objectName(parsed)).toBe(changed);
    }
    const seg = (version: string) => `s/${version}/1-0-0-${'0'.repeat(16)}.seg`;
    expect(parseName(seg(`${Number.MAX_SAFE_INTEGER}`))).toMatchObject({ version: Number.MAX_SAFE_INTEGER });
    for (const version of ['', '-1', '01', '1e3', '9007199254740993', '9'.repeat(16), '9'.repeat(400), ' 1', '1\n']) expect(parseName(seg(version)), version).toBeNull();
    for (const name of ['', 'head', 'HEAD ', 'HEAD\n', '/HEAD', 's/../HEAD', 'm/1', `m/1-${'0'.repeat(63)}.json`, `spec-${'A'.repeat(64)}.json`]) expect(parseName(name), name).toBeNull();
  });
});
