/** KV.md 7, forks, erasure and security: whose bytes they are, when they end, and where they never appear. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';

import { openFilesystemStore } from '../../engine/adapters/filesystem.ts';
import { KeyFile } from '../../engine/adapters/key-file.ts';
import { MemoryStore } from '../../engine/adapters/memory.ts';
import { forkJob } from '../../engine/job/children.ts';
import { generate, type JobResult } from '../../engine/job/generate.ts';
import type { JobSpec } from '../../engine/job/spec.ts';
import { runStored } from '../../engine/job/stored.ts';
import { parseStoredSpec } from '../../engine/job/stored-spec.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { createJob } from '../../engine/kv/create.ts';
import type { JobKey } from '../../engine/kv/names.ts';
import { answerOf, begin, contents, copyOf, errorOf, expectUndisturbed, namedObjects, options, parked, PROMPT, resume, SPEC, undisturbed, WHERE } from './support.ts';

const CHILD: JobKey = { tenant: 'acme', job: 'child' };
const FORK = { at: 24, chain: 0, width: 2, seed: 9n, length: undefined, as: CHILD.job };

const folders: string[] = [];
afterEach(() => { for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true }); });

describe('a fork', () => {
  test('whose parent is erased goes on: what it adopted is its own', async () => {
    const [store, other] = [await parked(), await parked()];
    for (const each of [store, other]) await forkJob(FORK, options({ store: each }));
    const stop = new AbortController();
    await resume({ store, where: CHILD, signal: stop.signal, onCommit: () => stop.abort() });
    await eraseJob(store, WHERE);
    const [orphan, kept] = [await resume({ store, where: CHILD }), await resume({ store: other, where: CHILD })];
    if (orphan.kind !== 'ended' || kept.kind !== 'ended') throw new Error('not ended');
    expect(answerOf(orphan.result)).toEqual(answerOf(kept.result));
    expect(kept.result.chains[0]?.tokens.slice(0, FORK.at)).toEqual((await undisturbed()).chains[0]?.tokens.slice(0, FORK.at));
  });

  test('whose parent is erased before its first commit says so, and writes nothing', async () => {
    const store = await parked();
    await forkJob(FORK, options({ store }));
    await eraseJob(store, WHERE);
    expect(await errorOf(resume({ store, where: CHILD }))).toMatchObject({ code: 'ERR_PARENT_ERASED' });
    expect([...store.snapshot().keys()].filter((key) => /\/child\/[stjm]\//.test(key))).toEqual([]);
  });
});

test('of an erased job nothing is left in the store but a tombstone that says nothing of it', async () => {
  const store = await parked();
  await eraseJob(store, WHERE);
  // A listing by day says that there was a job of that name, which the tombstone says too.
  expect([...store.snapshot().keys()].filter((key) => !key.startsWith('idx/acme/'))).toEqual(['kv/acme/sums/HEAD']);
  const tombstone = JSON.parse(Buffer.from(store.snapshot().get('kv/acme/sums/HEAD') ?? []).toString()) as Record<string, unknown>;
  expect(tombstone).toMatchObject({ state: 'erased', spec: '0'.repeat(64), manifest: null, journal: [] });
  expect(await errorOf(resume({ store }))).toMatchObject({ code: 'ERR_JOB_CONFLICT' });
  expect(await errorOf(begin({ store }))).toMatchObject({ code: 'ERR_JOB_CONFLICT' });
});

test('the same job of two tenants shares no object, and neither touches the other\'s keys', async () => {
  const store = new MemoryStore();
  for (const tenant of ['acme', 'other']) await expectUndisturbed(await begin({ store: store.as(tenant), where: { tenant, job: 'sums' } }));
  for (const { actor, key } of store.log) expect(ownKeys(actor).test(key), `${actor}: ${key}`).toBe(true);
  // Sealed, not even digests tell that the two are alike.
  const sealed = new MemoryStore();
  const keys = new KeyFile(randomBytes(32));
  for (const tenant of ['acme', 'other']) await begin({ store: sealed, where: { tenant, job: 'sums' }, keys });
  const refs = await Promise.all(['acme', 'other'].map((tenant) => namedObjects(sealed, { tenant, job: 'sums' })));
  const digests = refs.map((objects) => objects.map(({ key }) => contents(sealed)[key]));
  expect(digests[0]?.filter((digest) => digests[1]?.includes(digest))).toEqual([]);
});

test.each(['../other/HEAD', 'a/../../other', '/etc/passwd', 'sums/../other', '..', '', 'sums\0', 'sums%2f..', 'kv'.repeat(40)])('the name %j reaches no key', async (name) => {
  const store = await parked();
  const calls = store.log.length;
  for (const where of [{ tenant: 'acme', job: name }, { tenant: name, job: 'sums' }]) {
    expect(await errorOf(resume({ store, where }))).toMatchObject({ code: 'ERR_OPTION' });
    expect(await errorOf(begin({ store, where }))).toMatchObject({ code: 'ERR_OPTION' });
    expect(await errorOf(eraseJob(store, where))).toMatchObject({ code: 'ERR_OPTION' });
  }
  expect(await errorOf(forkJob({ ...FORK, as: name }, options({ store })))).toMatchObject({ code: 'ERR_OPTION' });
  expect(store.log.slice(calls).filter(({ key }) => !ownKeys('acme').test(key))).toEqual([]);
});

/** Four tokens in a row as the engine keeps them. */
function secretsOf({ chains }: JobResult): readonly Buffer[] {
  return chains.flatMap(({ tokens }) => Array.from({ length: tokens.length - 3 }, (_, at) => Buffer.from(Int32Array.from(tokens.slice(at, at + 4)).buffer)));
}

test('no error of a damaged job shows its prompt, its tokens or its text', async () => {
  const store = await parked();
  const { chains } = await undisturbed();
  const shown = chains.map(({ text }) => text.slice(0, 12));
  for (const [key] of store.snapshot()) {
    const changed = await copyOf(store, (name, bytes) => (name === key ? Buffer.from(bytes).fill(0x7b, 0, Math.min(200, bytes.byteLength)) : bytes));
    const error: unknown = await resume({ store: changed }).then(() => null, (reason: unknown) => reason);
    for (let cause = error; cause instanceof Error; cause = cause.cause) {
      const said = `${cause.message}\n${cause.stack ?? ''}`;
      for (const secret of [PROMPT, ...shown]) expect(said).not.toContain(secret);
    }
  }
});

test('a sealed job on disk has neither its prompt nor its tokens in any file, temporary ones included, while it runs and after', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'ruminate-secrecy-'));
  folders.push(folder);
  const { text: clear } = await clearSpec();
  const { prompt } = parseStoredSpec(clear);
  const shown = [PROMPT, prompt.slice(-8).join(',')].map((text) => Buffer.from(text));
  expect(shown.every((text) => clear.includes(text.toString()))).toBe(true);
  // Of so many chains that their objects go together in packs.
  const spec: JobSpec = { ...SPEC, budget: { compression_ratio: 8, lengths: [48, 20, 48, 32, 48] } };
  const wanted = [...secretsOf(await generate(spec)), ...shown];
  const store = await openFilesystemStore(folder);
  const files = (): readonly { readonly name: string; readonly bytes: Buffer }[] => readdirSync(folder, { recursive: true, encoding: 'utf8' }).flatMap((name) => {
    const file = path.join(folder, name);
    return statSync(file, { throwIfNoEntry: false })?.isFile() === true ? [{ name, bytes: readFileSync(file) }] : [];
  });
  const leaks = (): readonly string[] => files().filter(({ bytes }) => wanted.some((secret) => bytes.includes(secret))).map(({ name }) => name);
  const found: string[] = [];
  await runStored(spec, options({ store, keys: new KeyFile(randomBytes(32)), onCommit: () => found.push(...leaks()) }));
  expect([...found, ...leaks()]).toEqual([]);
  // Compressed tokens would not be found either: every object says that it is encrypted, those behind the first of a pack too.
  const MAGIC = Buffer.from('dmskv/1\0');
  const objects = files().flatMap(({ name, bytes }) => {
    const inside: { readonly name: string; readonly at: number; readonly isEncrypted: boolean }[] = [];
    for (let at = bytes.indexOf(MAGIC); at >= 0; at = bytes.indexOf(MAGIC, at + 1)) inside.push({ name, at, isEncrypted: (bytes.readUInt16LE(at + 10) & 1) === 1 });
    return inside;
  });
  const packed = objects.filter(({ at }) => at > 0);
  expect(packed.length).toBeGreaterThan(3);
  expect(objects.length - packed.length).toBeGreaterThan(3);
  expect(objects.filter(({ isEncrypted }) => !isEncrypted)).toEqual([]);
});

describe('a sealed job asked for again', () => {
  const keys = new KeyFile(randomBytes(32));
  const spec = (store: MemoryStore) => [...store.snapshot().keys()].filter((key) => key.includes('/spec-'));

  test('is the same job, though its spec was sealed anew; the second leaves nothing behind', async () => {
    const store = new MemoryStore();
    const first = await begin({ store, keys });
    const specs = spec(store);
    expect(specs).toHaveLength(1);
    expect(await begin({ store, keys })).toMatchObject({ kind: 'ended', state: 'done' });
    expect(await resume({ store, keys })).toMatchObject({ kind: 'ended', state: 'done' });
    expect(spec(store)).toEqual(specs);
    await expectUndisturbed(first);
  });

  test('of another prompt is refused, and without the key it is not said whether it is another', async () => {
    const store = new MemoryStore();
    await begin({ store, keys });
    expect(await errorOf(runStored({ ...SPEC, prompt: '1 2 3 4 target 10' }, options({ store, keys })))).toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    expect(await errorOf(begin({ store }))).toMatchObject({ code: 'ERR_KEY' });
    expect(await errorOf(begin({ store, keys: new KeyFile(randomBytes(32)) }))).toMatchObject({ code: 'ERR_KEY' });
    expect(await errorOf(resume({ store }))).toMatchObject({ code: 'ERR_KEY' });
  });

  test('whose spec was stored in the clear, as they once were, goes on', async () => {
    const store = new MemoryStore();
    const stop = new AbortController();
    const { text } = await clearSpec();
    await createJob(store, WHERE, text);
    await begin({ store, keys, signal: stop.signal, onCommit: () => stop.abort() });
    await expectUndisturbed(await resume({ store, keys }));
    expect(Buffer.from(store.snapshot().get(spec(store)[0] ?? '') ?? []).toString()).toBe(text);
  });

  test('is forked under the same key, and the fork has a seal of its own', async () => {
    const [store, clear] = [new MemoryStore(), await parked()];
    const stop = new AbortController();
    const onProgress = ({ chains }: { readonly chains: readonly { readonly tokens: number }[] }) => { if ((chains[0]?.tokens ?? 0) >= 32) stop.abort(); };
    expect(await begin({ store, keys, signal: stop.signal, onProgress })).toMatchObject({ kind: 'parked' });
    await forkJob(FORK, options({ store, keys }));
    await forkJob(FORK, options({ store, keys }));
    await forkJob(FORK, options({ store: clear }));
    expect(spec(store)).toHaveLength(2);
    const [sealed, open] = [await resume({ store, where: CHILD, keys }), await resume({ store: clear, where: CHILD })];
    if (sealed.kind !== 'ended' || open.kind !== 'ended') throw new Error('not ended');
    expect(answerOf(sealed.result)).toEqual(answerOf(open.result));
  });
});

async function clearSpec(): Promise<{ readonly text: string }> {
  const found = [...(await parked()).snapshot()].find(([key]) => key.includes('/spec-'));
  return { text: Buffer.from(found?.[1] ?? []).toString() };
}

/** Objects, marker and listing of the job `sums` of a tenant, and whom its end is told. */
function ownKeys(tenant: string): RegExp {
  return new RegExp(`^(kv/${tenant}/sums/|live/[0-9a-f]/${tenant}/sums$|keep/${tenant}/sums.json$|expire/\\d{15}/${tenant}/sums$|idx/${tenant}/|hooks/${tenant}/)`);
}
