/** Export and import: the same job elsewhere, and nothing of a file that is not one. */
import { Readable, Writable } from 'node:stream';
import { beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { pack } from 'tar-stream';

import { MemoryStore } from '../../engine/adapters/memory.ts';
import { exportJob } from '../../engine/checkpoint/export.ts';
import { importJob, type Imported, type ImportOptions } from '../../engine/checkpoint/import.ts';
import { isRight, verifyJob } from '../../engine/checkpoint/verify.ts';
import { EngineError } from '../../engine/core/errors.ts';
import { sha256 } from '../../engine/kv/canonical.ts';
import { createJob, readJob } from '../../engine/kv/create.ts';
import { eraseJob } from '../../engine/kv/erase.ts';
import { collectGarbage } from '../../engine/kv/gc.ts';
import { liveKey } from '../../engine/kv/hints.ts';
import { JobKeys } from '../../engine/kv/seal.ts';
import type { KeyProvider } from '../../engine/ports/keys.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { changed, flipped, jobsIn, keyFile, manifestIn, resultOf, resumed, storedJob, storeWith, WHERE, type Content } from '../helpers/stored-job.ts';

let whole: Content;
let ended: unknown;
let file: Buffer;
let key: Awaited<ReturnType<typeof keyFile>>;
let sealed: Content;

beforeAll(async () => {
  const store = new MemoryStore();
  await storedJob(store);
  whole = jobsIn(store);
  file = await exported(store);
  ended = resultOf(await resumed(store));
  key = await keyFile();
  const other = new MemoryStore();
  await storedJob(other, { keys: key.provider });
  sealed = jobsIn(other);
  return () => key.remove();
}, 300_000);

async function exported(store: ObjectStore, keys: KeyProvider | null = null, where = WHERE): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const output = new Writable({ write: (chunk: Buffer, _, done) => { chunks.push(chunk); done(); } });
  await exportJob(store, where, output, { keys });
  return Buffer.concat(chunks);
}

/** In pieces of an odd size, as a pipe would have them. */
const streamOf = (bytes: Uint8Array) => () => Readable.from((function* () { for (let at = 0; at < bytes.length; at += 50_000) yield bytes.subarray(at, at + 50_000); })());

async function imported(bytes: Uint8Array, store: ObjectStore, options: Partial<ImportOptions> & { readonly tenant?: string } = {}): Promise<Imported> {
  return await importJob(store, options.tenant ?? WHERE.tenant, streamOf(bytes), { keys: null, ...options });
}

function piecesOf(bytes: Uint8Array): Uint8Array[] {
  return Array.from({ length: Math.ceil(bytes.byteLength / 8_192) }, (_, i) => bytes.subarray(i * 8_192, (i + 1) * 8_192));
}

function digestOf(content: Content): string {
  return sha256(JSON.stringify([...content].map(([name, bytes]) => [name, sha256(bytes)])));
}

interface Entry {
  readonly name: string;
  readonly body: Buffer;
  readonly type?: 'file' | 'symlink' | 'directory';
}

async function tarOf(entries: readonly Entry[]): Promise<Buffer> {
  const tar = pack();
  for (const { name, body, type = 'file' } of entries) tar.entry({ name, type, ...(type === 'symlink' ? { linkname: '/etc/passwd' } : {}) }, type === 'file' ? body : '');
  tar.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of tar) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** The entries of a file that `export` wrote: headers of 512 bytes with a name and a size in octal. */
function entriesOf(tar: Buffer): Entry[] {
  const entries: Entry[] = [];
  for (let at = 0; tar[at] !== 0;) {
    const name = tar.toString('latin1', at, at + 100).replace(/\0.*$/, '');
    const size = parseInt(tar.toString('latin1', at + 124, at + 136), 8);
    entries.push({ name, body: tar.subarray(at + 512, at + 512 + size) });
    at += 512 + Math.ceil(size / 512) * 512;
  }
  return entries;
}

describe('a round trip', () => {
  test('gives the same objects by digest, a parked job, and the tokens of a run that was never moved', async () => {
    const store = new MemoryStore();
    const { head } = await imported(file, store);
    expect(head).toMatchObject({ state: 'parked', job: WHERE.job });
    const before = await manifestIn(await storeWith(whole));
    const after = await manifestIn(store);
    expect(after.objects.map(({ digest, bytes }) => ({ digest, bytes }))).toEqual(before.objects.map(({ digest, bytes }) => ({ digest, bytes })));
    expect(isRight(await verifyJob(store, WHERE, { keys: null }))).toBe(true);
    expect(resultOf(await resumed(store))).toEqual(ended);
  });

  test('of the same job is the same file', async () => {
    expect((await exported(await storeWith(whole))).equals(file)).toBe(true);
  });

  test('under another name and tenant is the same job', async () => {
    const store = new MemoryStore();
    const where = { tenant: 'acme', job: 'moved' };
    await imported(file, store, { as: where.job, tenant: where.tenant });
    expect(isRight(await verifyJob(store, where, { keys: null }))).toBe(true);
    expect(resultOf(await resumed(store, where))).toEqual(ended);
  });

  test('names are new, so that nothing is ever another object\'s', async () => {
    const [one, two] = [new MemoryStore(), new MemoryStore()];
    await imported(file, one);
    await imported(file, two);
    const namesOf = async (store: ObjectStore) => (await manifestIn(store)).objects.map(({ name }) => name);
    const all = [...(await namesOf(one)), ...(await namesOf(two)), ...(await namesOf(await storeWith(whole)))];
    expect(new Set(all).size).toBe(all.length);
  });

  test('that died between head and marker is found by whoever imports it again', async () => {
    let dies = true;
    const store = new MemoryStore({ before: ({ kind, key }) => { if (dies && kind === 'put' && key.startsWith('live/')) throw new EngineError('ERR_STORE', 'as planned'); } });
    await expect(imported(file, store)).rejects.toMatchObject({ code: 'ERR_STORE', message: 'as planned' });
    expect([...store.snapshot().keys()].filter((key) => key.startsWith('live/'))).toEqual([]);
    dies = false;
    await expect(imported(file, store)).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    expect([...store.snapshot().keys()].filter((key) => key.startsWith('live/'))).toHaveLength(1);
  });

  test('that loses the name to another leaves nothing of its own behind', async () => {
    const rival = 'another spec';
    let comes = true;
    const store: MemoryStore = new MemoryStore({
      before: async ({ kind, key, condition }) => {
        if (!comes || kind !== 'put' || condition !== 'if_absent' || !key.endsWith('/HEAD')) return;
        comes = false;
        await createJob(store.as('rival'), WHERE, rival);
      },
    });
    await expect(imported(file, store)).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    const left = [...store.snapshot().keys()].filter((key) => key.startsWith(`kv/${WHERE.tenant}/${WHERE.job}/`)).map((key) => key.split('/').slice(3).join('/'));
    expect(left.sort()).toEqual(['HEAD', `spec-${sha256(rival)}.json`]);
  });

  test('garbage collected right after an import is none of it', async () => {
    const store = new MemoryStore();
    await imported(file, store);
    expect(await collectGarbage(store, WHERE)).toMatchObject({ objects: 0 });
    expect(isRight(await verifyJob(store, WHERE, { keys: null }))).toBe(true);
  });

  test('of a job that nobody has begun is parked, and of one that has ended has ended', async () => {
    const [queued, done, store] = [new MemoryStore(), await storeWith(whole), new MemoryStore()];
    await createJob(queued, WHERE, '{}');
    expect((await imported(await exported(queued), store)).head).toMatchObject({ state: 'parked', manifest: null });
    await resumed(done);
    expect((await imported(await exported(done), store, { as: 'ended' })).head.state).toBe('done');
  });
});

describe('an import is refused', () => {
  test('over a job that is there, which gets nothing but its marker, or was', async () => {
    const store = await storeWith(whole);
    const before = new Map([...store.snapshot(), [liveKey(WHERE), Buffer.from('')]]);
    await expect(imported(file, store)).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    expect(digestOf(new Map([...store.snapshot()].map(([at, bytes]) => [at, at === liveKey(WHERE) ? Buffer.from('') : bytes])))).toBe(digestOf(before));
    await eraseJob(store, WHERE);
    await expect(imported(file, store)).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
  });

  test('when another makes the job meanwhile, which stays as it is', async () => {
    let made = false;
    const store: MemoryStore = new MemoryStore({
      before: async ({ kind, key: at }) => {
        if (made || kind !== 'put' || !at.endsWith('/HEAD')) return;
        made = true;
        await createJob(store, WHERE, '{"other":1}');
      },
    });
    await expect(imported(file, store)).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    expect((await readJob(store, WHERE)).head).toMatchObject({ state: 'queued', version: 0 });
  });

  test('when the file changes between its two readings, and nothing is left of it', async () => {
    const store = new MemoryStore();
    const other = await storeWith(whole);
    await resumed(other);
    const files = [file, await exported(other)];
    await expect(importJob(store, 'local', () => streamOf(files.shift() ?? Buffer.alloc(0))(), { keys: null })).rejects.toMatchObject({ code: 'ERR_CHECKPOINT' });
    expect(store.snapshot().size).toBe(0);
  });

  test('when it is cancelled while it writes, and nothing is left of it', async () => {
    const store = new MemoryStore();
    const stop = new AbortController();
    const onProgress: ImportOptions['onProgress'] = (phase) => { if (phase === 'writing') stop.abort(); };
    await expect(imported(file, store, { signal: stop.signal, onProgress })).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
    expect(store.snapshot().size).toBe(0);
  });
});

describe('a hostile file is ERR_CHECKPOINT, and nothing is written', () => {
  async function refused(bytes: Uint8Array): Promise<string> {
    const store = new MemoryStore();
    const error = await imported(bytes, store).then(() => null, (reason: unknown) => reason);
    expect(error).toMatchObject({ code: 'ERR_CHECKPOINT' });
    expect(store.snapshot().size).toBe(0);
    return (error as Error).message;
  }
  const edited = async (edit: (entries: Entry[]) => Entry[]) => await refused(await tarOf(edit(entriesOf(file))));

  test('though taken apart and put together again it is one', async () => {
    await imported(await tarOf(entriesOf(file)), new MemoryStore());
  });

  test.each(['../../../etc/passwd', '/etc/passwd', 'kv/local/other/HEAD', 's/../HEAD', 'C:\\x'])('a path of its own: %s', async (name) => {
    expect(await edited(([first, ...rest]) => [{ name, body: first?.body ?? Buffer.alloc(0) }, ...rest])).toMatch(/^damaged: /);
    expect(await edited((entries) => [...entries, { name, body: Buffer.from('x') }])).toMatch(/^damaged: .* after its last/);
    expect(await edited((entries) => entries.map((entry, i) => (i === 4 ? { ...entry, name } : entry)))).toMatch(/^damaged: /);
  });

  test('an entry twice, one missing, two exchanged', async () => {
    expect(await edited((entries) => entries.flatMap((entry, i) => (i === 3 ? [entry, entry] : [entry])))).toMatch(/^damaged: /);
    expect(await edited((entries) => entries.filter((_, i) => i !== 3))).toMatch(/^damaged: /);
    expect(await edited((entries) => entries.slice(0, -1))).toMatch(/^truncated: /);
    expect(await edited((entries) => [entries[0], entries[1], entries[2], entries[4], entries[3], ...entries.slice(5)] as Entry[])).toMatch(/^damaged: /);
  });

  test.each(['symlink', 'directory'] as const)('an entry that is a %s', async (type) => {
    for (const at of [0, 1, 3]) expect(await edited((entries) => entries.map((entry, i) => (i === at ? { ...entry, type } : entry)))).toMatch(/^damaged: /);
  });

  test('contents of another size, or another object in place of one', async () => {
    for (let at = 0; at < entriesOf(file).length; at++) {
      await edited((entries) => entries.map((entry, i) => (i === at ? { ...entry, body: Buffer.concat([entry.body, Buffer.of(0)]) } : entry)));
      await edited((entries) => entries.map((entry, i) => (i === at ? { ...entry, body: entry.body.subarray(1) } : entry)));
      await edited((entries) => entries.map((entry, i) => (i === at ? { ...entry, body: Buffer.alloc(entry.body.length) } : entry)));
    }
  });

  test('headers that claim huge sizes', async () => {
    const size = (header: Buffer, octal: string) => {
      header.write(octal.padStart(11, '0'), 124, 'latin1');
      header.fill(32, 148, 156);
      const sum = header.reduce((all, byte) => all + byte, 0);
      header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
      return header;
    };
    for (const octal of ['77777777777', '00100000000']) {
      const tar = Buffer.from(file);
      size(tar.subarray(0, 512), octal);
      expect(await refused(tar)).toMatch(/^damaged: .* bytes where HEAD/);
    }
    // An extended header of 8 GiB, which a parser must not hold.
    const pax = Buffer.from(file.subarray(0, 512));
    pax.write('x', 156, 'latin1');
    size(pax, '77777777777');
    let fed = 0;
    const endless = () => Readable.from((function* () { yield pax; for (;;) { fed += 1 << 20; yield Buffer.alloc(1 << 20); } })());
    await expect(importJob(new MemoryStore(), 'local', endless, { keys: null })).rejects.toMatchObject({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^damaged: .*Header exceeds/) as string });
    expect(fed).toBeLessThan(64 << 20);
  });

  test('a file that ends too early, wherever', async () => {
    const end = entriesOf(file).reduce((sum, { body }) => sum + 512 + Math.ceil(body.length / 512) * 512, 0);
    for (let at = 0; at < end; at += Math.ceil(end / 40)) {
      for (const cut of [at - 1, at, at + 1]) if (cut >= 0) expect(await refused(file.subarray(0, cut)), `${cut}`).toMatch(/^(truncated|damaged): /);
    }
  });

  test('a flipped bit anywhere in what is read', async () => {
    let at = 0;
    for (const { body } of entriesOf(file)) {
      for (const where of [0, body.length >> 1, body.length - 1]) await refused(flipped(at + 512 + where)(Uint8Array.from(file)));
      // Name, size, checksum of the header.
      for (const where of [0, 130, 150]) await refused(flipped(at + where)(Uint8Array.from(file)));
      at += 512 + Math.ceil(body.length / 512) * 512;
    }
  });

  test('what is no tar at all', async () => {
    for (const bytes of [Buffer.alloc(0), Buffer.alloc(1024), Buffer.alloc(1 << 20, 7), Buffer.from('PK\u0003\u0004'), Buffer.from('{"format":"dmskv/1"}')]) await refused(bytes);
  });
});

describe('an export', () => {
  test('of a damaged object is refused', async () => {
    const { objects } = await manifestIn(await storeWith(whole));
    const store = await storeWith(changed(whole, objects[2]?.name ?? '', (bytes) => flipped(bytes.length >> 1)(bytes)));
    await expect(exported(store)).rejects.toMatchObject({ code: 'ERR_CHECKPOINT' });
  });

  test('of a job that goes on meanwhile says so, and of an erased one', async () => {
    let moved = false;
    const store: MemoryStore = await storeWith(whole, {
      before: async ({ kind, key: at }) => {
        if (moved || kind !== 'get' || !at.endsWith('.tail')) return;
        moved = true;
        await resumed(store);
        await collectGarbage(store, WHERE);
      },
    });
    await expect(exported(store)).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
    await eraseJob(store, WHERE);
    await expect(exported(store)).rejects.toMatchObject({ code: 'ERR_JOB_CONFLICT' });
  });

  test('whose output fails ends with that error', async () => {
    const full = new Writable({ write: (_chunk, _encoding, done) => done(Object.assign(new Error('full'), { code: 'ENOSPC' })) });
    await expect(exportJob(await storeWith(whole), WHERE, full, { keys: null })).rejects.toMatchObject({ code: 'ENOSPC' });
  });

  test.each([
    ['leaves', (stop: AbortController) => stop.abort(), { code: 'ERR_CANCELLED' }],
    ['fails', (_: AbortController, output: Writable) => output.destroy(new Error('gone')), { message: 'gone' }],
  ] as const)('whose reader %s in the middle of an object ends with it, forgets its keys, and harms nobody else', async (_, leave, error) => {
    const stop = new AbortController();
    // Takes no piece of what is larger than all before it, and nothing more.
    const output: Writable = new Writable({
      highWaterMark: 1,
      write: (chunk: Buffer, _encoding, done) => { if (chunk.byteLength < 4_096) done(); else leave(stop, output); },
    });
    const store = await storeWith(sealed);
    // As a store over the network has them.
    const inPieces: ObjectStore = Object.assign(Object.create(store) as ObjectStore, {
      get: async (...given: Parameters<ObjectStore['get']>) => {
        const found = await store.get(...given);
        return found === null ? null : { ...found, chunks: found.chunks.flatMap((chunk) => piecesOf(chunk)) };
      },
    });
    const forgotten = vi.spyOn(JobKeys.prototype, Symbol.dispose);
    onTestFinished(() => forgotten.mockRestore());
    await expect(exportJob(inPieces, WHERE, output, { keys: key.provider, signal: stop.signal })).rejects.toMatchObject(error);
    // Others' may come in between, which are of jobs in the clear.
    await vi.waitFor(() => expect(forgotten.mock.contexts.filter((keys) => (keys as JobKeys).wrappedFor([]) !== null)).toHaveLength(1), 10_000);
  });

  test('that is cancelled stops', async () => {
    const stop = new AbortController();
    const output = new Writable({ write: (_chunk, _encoding, done) => done() });
    await expect(exportJob(await storeWith(whole), WHERE, output, { keys: null, signal: stop.signal, onProgress: () => stop.abort() })).rejects.toMatchObject({ code: 'ERR_CANCELLED' });
  });
});

describe('a sealed job', () => {
  test('moves without its key under its own name, and goes on with it', async () => {
    const tar = await exported(await storeWith(sealed));
    const store = new MemoryStore();
    expect(await imported(tar, store)).toMatchObject({ complete: false });
    expect(await verifyJob(store, WHERE, { keys: key.provider })).toMatchObject({ complete: true, faults: [] });
    expect(resultOf(await resumed(store, WHERE, key.provider))).toEqual(ended);
  });

  test('takes the key for a new name, under which it goes on', async () => {
    const tar = await exported(await storeWith(sealed), key.provider);
    const store = new MemoryStore();
    await expect(imported(tar, store, { as: 'moved' })).rejects.toMatchObject({ code: 'ERR_KEY' });
    const where = { ...WHERE, job: 'moved' };
    expect(await imported(tar, store, { as: 'moved', keys: key.provider })).toMatchObject({ complete: true });
    expect(await verifyJob(store, where, { keys: key.provider })).toMatchObject({ complete: true, faults: [] });
    expect(resultOf(await resumed(store, where, key.provider))).toEqual(ended);
  });

  test('is not another tenant\'s', async () => {
    const tar = await exported(await storeWith(sealed), key.provider);
    await expect(imported(tar, new MemoryStore(), { tenant: 'acme', keys: key.provider })).rejects.toMatchObject({ code: 'ERR_CHECKPOINT', message: expect.stringMatching(/^identity: /) as string });
  });
});
