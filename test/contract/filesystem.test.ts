/** The directory store keeps every promise, between processes too, whichever of them is killed; and it cannot be led out of its root. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { chmodSync, existsSync, linkSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, test } from 'vitest';

import { storeError } from '../../engine/adapters/filesystem-errors.ts';
import { newest, succession, successionOf } from '../../engine/adapters/filesystem-object.ts';
import { openFilesystemStore } from '../../engine/adapters/filesystem.ts';
import { fileSteps } from '../../engine/runtime/native.ts';
import { PROMISES, read, text } from './object-store.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const WORKER = fileURLToPath(new URL('cas-worker.ts', import.meta.url));
const made: string[] = [];
afterEach(() => made.splice(0).forEach((directory) => rmSync(directory, { recursive: true, force: true })));

function scratch(): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'ruminate-store-'));
  made.push(directory);
  return directory;
}

describe('the directory store', () => {
  for (const { name, check } of PROMISES) test(name, async () => check(await openFilesystemStore(scratch())));

  test('keys that are folders of others live side by side', async () => {
    const store = await openFilesystemStore(scratch());
    await store.put('a', text('object'));
    await store.put('a/b', text('below'));
    await store.delete(['a/b']);
    expect(await read(store, 'a')).toBe('object');
    expect(await store.copy('a', 'a/c')).toBe(true);
    expect(await read(store, 'a/c')).toBe('object');
  });

  test('a folder that others empty while it is being filled loses nothing and refuses nothing', async () => {
    const store = await openFilesystemStore(scratch());
    await Promise.all(Array.from({ length: 4 }, async (_, writer) => {
      const key = `live/deep/er/${writer}`;
      for (let i = 0; i < 250; i++) {
        expect((await store.put(key, text(`${i}`), i % 2 === 0 ? {} : { condition: { kind: 'if_absent' } })).kind).toBe('written');
        await store.delete([key]);
      }
    }));
  });

  test('a directory that is not there yet is made by the first put, not by a read', async () => {
    const root = path.join(scratch(), 'deep', 'er');
    const store = await openFilesystemStore(root);
    expect(await read(store, 'x')).toBeNull();
    for await (const { key } of store.list('')) throw new Error(key);
    expect(existsSync(root)).toBe(false);
    await store.put('x', text('there'));
    expect(await read(store, 'x')).toBe('there');
  });

  test('objects are plain bytes in plain files, old versions are dropped, deletes leave no folders', async () => {
    const root = scratch();
    const store = await openFilesystemStore(root);
    for (let i = 0; i < 10; i++) await store.put('kv/job/HEAD', text(`version ${i}`));
    const [incarnation = ''] = readdirSync(path.join(root, 'kv/job/HEAD#'));
    const versions = readdirSync(path.join(root, 'kv/job/HEAD#', incarnation));
    expect(versions.map(Number).sort((a, b) => a - b)).toEqual([9, 10]);
    expect(readFileSync(path.join(root, 'kv/job/HEAD#', incarnation, '10'), 'utf8')).toBe('version 9');
    await store.delete(['kv/job/HEAD']);
    expect(readdirSync(root)).toEqual(['#tmp']);
    expect(readdirSync(path.join(root, '#tmp'))).toEqual([]);
  });
});

describe('a writer who slept', () => {
  async function slept() {
    const root = scratch();
    const store = await openFilesystemStore(root);
    await store.put('HEAD', text('1'));
    const directory = path.join(root, 'HEAD#');
    const seen = await newest(root, 'HEAD#');
    if (seen === null) throw new Error('no version');
    writeFileSync(path.join(root, 'mine'), 'from the past');
    return { store, directory, seen, follow: async () => successionOf(await fileSteps(root, succession('HEAD#', seen, 'mine')), 0, seen) };
  }

  test('finds its number taken', async () => {
    const { store, follow } = await slept();
    await store.put('HEAD', text('2'));
    expect(await follow()).toEqual({ kind: 'taken' });
    expect(await read(store, 'HEAD')).toBe('2');
  });

  test('may find its number free again, but is not told that it wrote, and nobody reads what it made', async () => {
    const { store, directory, seen, follow } = await slept();
    for (const value of ['2', '3', '4', '5']) await store.put('HEAD', text(value));
    const etag = (await store.head('HEAD'))?.etag ?? '';
    expect(await follow()).toMatchObject({ kind: 'overtaken' });
    expect(await read(store, 'HEAD')).toBe('5');
    expect(await store.put('HEAD', text('6'), { condition: { kind: 'if_match', etag } })).toMatchObject({ kind: 'written' });
    expect(await read(store, 'HEAD')).toBe('6');
    expect(readdirSync(path.join(directory, seen.incarnation)).sort()).toEqual(['5', '6']);
  });

  test('finds its object gone, even if there is another of that name', async () => {
    const { store, follow } = await slept();
    await store.delete(['HEAD']);
    expect(await follow()).toEqual({ kind: 'taken' });
    expect(await read(store, 'HEAD')).toBeNull();
    await store.put('HEAD', text('reborn'));
    expect(await follow()).toEqual({ kind: 'taken' });
    expect(await read(store, 'HEAD')).toBe('reborn');
  });
});

describe('processes', () => {
  test('racing by compare-and-swap, one of them killed -9 ten times, lose no acknowledged write and never apply one twice', { timeout: 180_000 }, async () => {
    const root = scratch();
    const killed = { acknowledged: 0, unknown: 0, lives: 0 };
    const steady = ['one', 'two', 'three'].map((name) => ({ name, worker: start(root, name, 1_000_000) }));
    while (killed.lives < 10) {
      killed.lives++;
      const worker = start(root, 'killed', 1_000_000);
      // From the second acknowledgement on it is in the middle of another write; after which system call, the machine decides.
      await worker.lines(2 + killed.lives % 3);
      worker.child.kill('SIGKILL');
      const counts = await worker.ended;
      killed.acknowledged += counts.acknowledged;
      killed.unknown += counts.unknown;
    }
    for (const { worker } of steady) worker.child.kill('SIGKILL');
    const store = await openFilesystemStore(root);
    const counts = JSON.parse((await read(store, 'count')) ?? '') as Readonly<Record<string, number>>;
    const within = (count = 0, { acknowledged, unknown }: { acknowledged: number; unknown: number }, lives: number) => {
      expect(count).toBeGreaterThanOrEqual(acknowledged);
      expect(count).toBeLessThanOrEqual(acknowledged + unknown + lives);
    };
    for (const { name, worker } of steady) within(counts[name], await worker.ended, 1);
    within(counts.killed, killed, killed.lives);
    await store.probe();
    expect(await store.put('count', text('still writable'))).toMatchObject({ kind: 'written' });
  });

  test('one that died between any two steps leaves the object whole and writable', async () => {
    const root = scratch();
    const store = await openFilesystemStore(root);
    await store.put('HEAD', text('1'));
    const { incarnation = '' } = (await newest(root, 'HEAD#')) ?? {};
    const home = path.join(root, 'HEAD#', incarnation);
    const follow = async (expected: string) => {
      expect(await read(store, 'HEAD')).toBe(expected);
      const etag = (await store.head('HEAD'))?.etag ?? '';
      expect(await store.put('HEAD', text(`${expected}+`), { condition: { kind: 'if_match', etag } })).toMatchObject({ kind: 'written' });
      expect(await read(store, 'HEAD')).toBe(`${expected}+`);
    };
    // Half written: only scratch is there.
    mkdirSync(path.join(root, '#tmp', 'dead', 'incarnation'), { recursive: true });
    writeFileSync(path.join(root, '#tmp', 'dead', 'incarnation', '1'), 'half');
    await follow('1');
    // Linked, but neither were older versions removed nor the scratch file.
    writeFileSync(path.join(root, '#tmp', 'dead', 'incarnation', '2'), 'three');
    linkSync(path.join(root, '#tmp', 'dead', 'incarnation', '2'), path.join(home, '3'));
    await follow('three');
    // Deleting: moved to its grave, which is still full.
    renameSync(path.join(root, 'HEAD#'), path.join(root, '#tmp', 'grave'));
    expect(await read(store, 'HEAD')).toBeNull();
    expect(await store.put('HEAD', text('reborn'), { condition: { kind: 'if_absent' } })).toMatchObject({ kind: 'written' });
    await follow('reborn');
  });

  test('what they leave behind is swept a day later, what is being written now is not', async () => {
    const root = scratch();
    const store = await openFilesystemStore(root);
    await store.put('x', text('x'));
    for (const name of ['old', 'young']) {
      mkdirSync(path.join(root, '#tmp', name));
      writeFileSync(path.join(root, '#tmp', name, 'part'), 'half');
    }
    const twoDaysAgo = Date.now() / 1000 - 2 * 86_400;
    utimesSync(path.join(root, '#tmp', 'old'), twoDaysAgo, twoDaysAgo);
    await store.probe();
    expect(readdirSync(path.join(root, '#tmp'))).toEqual(['young']);
  });
});

describe('the root', () => {
  test('no symbolic link below it is followed, to read or to write', async () => {
    const root = scratch();
    const outside = scratch();
    const elsewhere = await openFilesystemStore(outside);
    await elsewhere.put('secret', text('secret'));
    symlinkSync(outside, path.join(root, 'kv'));
    symlinkSync(path.join(outside, 'secret#'), path.join(root, 'alias#'));
    const store = await openFilesystemStore(root);
    const refused = { code: 'ERR_STORE_CONFIG' };
    for (const key of ['kv/secret', 'kv/new', 'alias', 'kv/deep/new']) {
      await expect(read(store, key), key).rejects.toMatchObject(refused);
      await expect(store.put(key, text('x')), key).rejects.toMatchObject(refused);
      await expect(store.delete([key]), key).rejects.toMatchObject(refused);
    }
    await expect((async () => { for await (const _ of store.list('kv/')); })()).rejects.toMatchObject(refused);
    for await (const { key } of store.list('')) throw new Error(`listed ${key}`);
    expect(await read(elsewhere, 'secret')).toBe('secret');
    expect(readdirSync(outside).sort()).toEqual(['#tmp', 'secret#']);
  });

  test('may itself be a symbolic link', async () => {
    const link = path.join(scratch(), 'link');
    symlinkSync(scratch(), link);
    const store = await openFilesystemStore(link);
    await store.put('a/b', text('x'));
    expect(await read(store, 'a/b')).toBe('x');
  });
});

describe('what the system refuses', () => {
  test('says what to do', async () => {
    const file = path.join(scratch(), 'file');
    writeFileSync(file, '');
    const store = await openFilesystemStore(path.join(scratch(), 'ok'));
    await expect(openFilesystemStore(path.join(file, 'below')).then((below) => below.put('x', text('x')))).rejects.toMatchObject({ code: 'ERR_STORE_CONFIG', message: expect.stringContaining('not a directory') as string });
    await expect(store.put(`${'k'.repeat(240)}/`.repeat(3) + 'k', text('x'))).resolves.toMatchObject({ kind: 'written' });
    for (const [code, expected, words] of [['ENOSPC', 'ERR_STORE', 'free space'], ['EMFILE', 'ERR_STORE', 'ulimit -n'], ['EACCES', 'ERR_STORE_CONFIG', 'rights'], ['EIO', 'ERR_STORE', 'EIO']] as const) {
      const error = storeError('file:/x', Object.assign(new Error(code), { code }));
      expect(error).toMatchObject({ code: expected, message: expect.stringContaining(words) as string });
    }
  });

  test('a place where no directory can be made is refused at once, at any depth', async ({ skip }) => {
    if (!existsSync('/proc/self')) return skip('needs /proc');
    for (const root of ['/proc/ruminate', '/proc/ruminate/a/b/c']) {
      const store = await openFilesystemStore(root);
      for (const use of [() => store.put('x', text('x')), () => store.put('a/b/c', text('x')), () => store.probe()]) {
        await expect(use()).rejects.toMatchObject({ code: 'ERR_STORE', message: expect.stringContaining('cannot be made') as string });
      }
    }
  }, 10_000);

  test('a full disk loses nothing that was stored', async ({ skip }) => {
    const root = scratch();
    if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', root]).status !== 0) return skip('needs the right to mount a tmpfs');
    try {
      const store = await openFilesystemStore(root);
      await store.put('HEAD', text('before'));
      await expect(store.put('HEAD', [Buffer.alloc(4 << 20)])).rejects.toMatchObject({ code: 'ERR_STORE', message: expect.stringContaining('disk is full') as string });
      expect(await read(store, 'HEAD')).toBe('before');
      expect(readdirSync(path.join(root, '#tmp'))).toEqual([]);
      expect(await store.put('HEAD', text('after'))).toMatchObject({ kind: 'written' });
    } finally {
      execFileSync('umount', [root]);
    }
  });

  test('a directory without rights is a matter of configuration', async ({ skip }) => {
    if (process.getuid?.() === 0) return skip('root may do everything');
    const root = scratch();
    chmodSync(root, 0o500);
    const store = await openFilesystemStore(root);
    await expect(store.put('x', text('x'))).rejects.toMatchObject({ code: 'ERR_STORE_CONFIG' });
  });
});

interface Counts {
  readonly acknowledged: number;
  readonly unknown: number;
}

function start(root: string, name: string, increments: number) {
  const child = spawn(process.execPath, ['--import', 'tsx', WORKER, root, name, String(increments)], { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  const waiting: { readonly count: number; readonly resolve: () => void }[] = [];
  const count = (mark: string) => out.split(mark).length - 1;
  child.stdout.on('data', (chunk: Buffer) => {
    out += chunk.toString();
    for (const one of waiting) if (count('+') >= one.count) one.resolve();
  });
  const ended = new Promise<Counts>((resolve) => child.on('close', () => resolve({ acknowledged: count('+'), unknown: count('?') })));
  return { child, ended, lines: (wanted: number) => Promise.race([ended, new Promise<void>((resolve) => waiting.push({ count: wanted, resolve }))]) };
}
